//! Who stands in the room before a door, and who has to leave when it is full.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use tokio::sync::oneshot;

/// Connections by the address that they come from, in the order of their last progress.
#[derive(Debug)]
pub(super) struct Room {
    places: usize,
    /// Numbers everything that happens.
    clock: u64,
    standing: HashMap<u64, Standing>,
    /// Of each address the connections by their last progress.
    addresses: HashMap<IpAddr, BTreeMap<u64, u64>>,
    /// Addresses by how many they are, then by the longest time without progress: the last one gives way.
    order: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

#[derive(Debug)]
struct Standing {
    address: IpAddr,
    progressed: u64,
    /// Dropped when the place is given away.
    _stay: oneshot::Sender<()>,
}

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            clock: 0,
            standing: HashMap::new(),
            addresses: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// A place for one more, and what tells that it was given away.
    pub(super) fn enter(&mut self, address: IpAddr) -> (u64, oneshot::Receiver<()>) {
        let (address, (stay, gave_way)) = (neighbourhood(address), oneshot::channel());
        self.clock += 1;
        let id = self.clock;
        self.standing.insert(id, Standing { address, progressed: id, _stay: stay });
        self.change(address, |own| {
            own.insert(id, id);
        });
        while self.standing.len() > self.places {
            self.give_way();
        }
        (id, gave_way)
    }

    /// That handshake has come further: it is the last one to go of its address.
    pub(super) fn progresses(&mut self, id: u64) {
        self.clock += 1;
        let now = self.clock;
        let Some(standing) = self.standing.get_mut(&id) else { return };
        let (address, before) = (standing.address, std::mem::replace(&mut standing.progressed, now));
        self.change(address, |own| {
            own.remove(&before);
            own.insert(now, id);
        });
    }

    pub(super) fn leave(&mut self, id: u64) {
        let Some(Standing { address, progressed, .. }) = self.standing.remove(&id) else { return };
        self.change(address, |own| {
            own.remove(&progressed);
        });
    }

    /// Sends away a part of all, at least one; how many.
    pub(super) fn clear(&mut self, part: f64) -> usize {
        let before = self.standing.len();
        let stay = (before as f64 * (1.0 - part)).floor() as usize;
        while self.standing.len() > stay {
            self.give_way();
        }
        before - self.standing.len()
    }

    fn give_way(&mut self) {
        let longest = self.order.last().and_then(|(_, _, address)| self.addresses.get(address)?.first_key_value());
        if let Some((_, id)) = longest {
            self.leave(*id);
        }
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, u64>)) {
        let own = self.addresses.entry(address).or_default();
        let key = |own: &BTreeMap<u64, u64>| Some((own.len(), Reverse(*own.first_key_value()?.0), address));
        if let Some(before) = key(own) {
            self.order.remove(&before);
        }
        change(own);
        if let Some(after) = key(own) {
            self.order.insert(after);
        } else {
            self.addresses.remove(&address);
        }
    }
}

/// Who has one IPv6 address has its whole network of 64 bits.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn stays(place: &mut (u64, oneshot::Receiver<()>)) -> bool {
        matches!(place.1.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn of_one_address_the_connection_without_progress_for_the_longest_time_gives_way() {
        let mut room = Room::new(3);
        let home = address("192.0.2.1");
        let [mut a, mut b, mut c] = [0; 3].map(|_| room.enter(home));
        room.progresses(a.0);
        let mut d = room.enter(home);
        assert_eq!([&mut a, &mut b, &mut c, &mut d].map(stays), [true, false, true, true]);
        let mut e = room.enter(home);
        assert_eq!([&mut a, &mut c, &mut d, &mut e].map(stays), [true, false, true, true]);
        // Who has gone needs no room.
        room.leave(d.0);
        let mut f = room.enter(home);
        assert_eq!([&mut a, &mut e, &mut f].map(stays), [true, true, true]);
    }

    #[test]
    fn an_address_with_many_connections_takes_no_place_from_one_with_few() {
        let mut room = Room::new(8);
        let mut quiet = [room.enter(address("192.0.2.1")), room.enter(address("192.0.2.2"))];
        for _ in 0..1000 {
            room.enter(address("192.0.2.9"));
        }
        assert!(quiet.iter_mut().all(stays));
        // Two that want everything have half of it each.
        let mut late: Vec<_> = (0..100).map(|_| room.enter(address("192.0.2.8"))).collect();
        assert!(quiet.iter_mut().all(stays));
        assert_eq!(late.iter_mut().filter_map(|place| stays(place).then_some(())).count(), 3);
    }

    #[test]
    fn a_network_of_one_holder_is_one_address() {
        let mut room = Room::new(4);
        let mut quiet = room.enter(address("2001:db8:1::1"));
        for host in 0..1000_u32 {
            room.enter(address(&format!("2001:db8:2::{host:x}")));
        }
        assert!(stays(&mut quiet));
        assert_eq!(neighbourhood(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn nothing_is_left_of_whom_the_room_was_full_of() {
        let mut room = Room::new(16);
        let ids: Vec<u64> = (0..64).map(|n| room.enter(address(&format!("192.0.2.{n}"))).0).collect();
        assert_eq!((room.standing.len(), room.addresses.len(), room.order.len()), (16, 16, 16));
        assert_eq!(room.clear(0.5), 8);
        ids.into_iter().for_each(|id| room.leave(id));
        assert_eq!((room.standing.len(), room.addresses.len(), room.order.len()), (0, 0, 0));
        assert_eq!(room.clear(1.0), 0, "of nobody nobody can go");
    }
}
