//! What the receiver publishes of one frame: numbers of the pulses that it detected, and the bases it measured them in.

use prost::Message;

use super::MessageError;
use super::config::Basis;
use crate::bits::Bits;
use crate::sifting::packed::{push_leb128, take_leb128};

/// Most events that one announcement may hold.
pub const EVENTS_MAX: usize = 1 << 20;

#[derive(Clone, PartialEq, Message)]
pub struct Announcement {
    #[prost(uint64, tag = "1")]
    pub frame: u64,
    /// Number of the frame's first pulse, and how many of them it has; none where numbers are not known.
    #[prost(uint64, tag = "2")]
    pub first: u64,
    #[prost(uint64, tag = "3")]
    pub pulses: u64,
    #[prost(uint32, tag = "4")]
    pub count: u32,
    /// LEB128 numbers: bit 0 is set for basis X, the rest is the number of pulses between this event and the one before
    /// (the first: the frame's first pulse).
    #[prost(bytes = "vec", tag = "5")]
    pub packed: Vec<u8>,
}

/// What was announced, read and checked.
#[derive(Debug)]
pub struct Announced {
    pub frame: u64,
    /// The first pulse of the frame, and the first one after it.
    pub first: u64,
    pub end: u64,
    pub pulses: Vec<u64>,
    /// Bit set: basis X.
    pub bases: Bits,
}

/// What the transmitter knows beforehand of the next announcement.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub frame: Option<u64>,
    /// Earlier pulses were announced or are of the preamble.
    pub pulse: u64,
    /// Most pulses that come in a frame.
    pub pulses_max: u64,
}

impl Announcement {
    /// Of events in the order of their pulses, which lie in `pulses`.
    pub fn new(frame: u64, pulses: std::ops::Range<u64>, events: impl Iterator<Item = (u64, Basis)>) -> Self {
        let (mut packed, mut count, mut next) = (Vec::new(), 0, pulses.start);
        for (pulse, basis) in events {
            push_leb128(&mut packed, (pulse - next) as u32 * 2 + u32::from(basis == Basis::X));
            next = pulse + 1;
            count += 1;
        }
        Self { frame, first: pulses.start, pulses: pulses.end - pulses.start, count, packed }
    }

    /// It is hostile input: nothing of a refused one is used.
    pub fn read(&self, due: &Due) -> Result<Announced, MessageError> {
        let (frame, count) = (self.frame, self.count as usize);
        if let Some(expected) = due.frame.filter(|expected| *expected != frame) {
            return Err(MessageError::OutOfOrder { expected, found: frame });
        }
        if self.first < due.pulse {
            return Err(MessageError::Repeated { frame, expected: due.pulse, found: self.first });
        }
        let end = self.first.checked_add(self.pulses).filter(|_| self.pulses <= due.pulses_max);
        let end = end.ok_or(MessageError::TooLong { frame, pulses: self.pulses })?;
        if count > EVENTS_MAX {
            return Err(MessageError::TooMany { frame, events: u64::from(self.count) });
        }
        if self.packed.len() < count || self.packed.len() > 4 * count {
            return Err(MessageError::Events { frame });
        }
        let mut announced =
            Announced { frame, first: self.first, end, pulses: Vec::with_capacity(count), bases: Bits::zeros(count) };
        let (mut rest, mut next) = (self.packed.as_slice(), self.first);
        for index in 0..count {
            let word = take_leb128(&mut rest).ok_or(MessageError::Events { frame })?;
            let pulse = next + u64::from(word >> 1);
            if pulse >= end {
                return Err(MessageError::BeyondFrame { frame });
            }
            announced.pulses.push(pulse);
            announced.bases.set(index, word & 1 == 1);
            next = pulse + 1;
        }
        if rest.is_empty() { Ok(announced) } else { Err(MessageError::Events { frame }) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUE: Due = Due { frame: Some(3), pulse: 1000, pulses_max: 5000 };

    fn good() -> Announcement {
        let events = [(1000, Basis::Z), (1001, Basis::X), (4000, Basis::X), (5999, Basis::Z)];
        Announcement::new(3, 1000..6000, events.into_iter())
    }

    #[test]
    fn what_is_announced_is_read() {
        let read = good().read(&DUE).unwrap();
        assert_eq!((read.pulses, read.end), (vec![1000, 1001, 4000, 5999], 6000));
        assert_eq!((0..4).map(|i| read.bases.get(i)).collect::<Vec<_>>(), [false, true, true, false]);
        assert!(Announcement::new(3, 1000..1000, std::iter::empty()).read(&DUE).unwrap().pulses.is_empty());
    }

    #[test]
    fn hostile_announcements_are_refused() {
        let refused = |change: &dyn Fn(&mut Announcement)| {
            let mut announcement = good();
            change(&mut announcement);
            announcement.read(&DUE).unwrap_err()
        };
        assert_eq!(refused(&|a| a.frame = 4), MessageError::OutOfOrder { expected: 3, found: 4 });
        assert_eq!(refused(&|a| a.first = 999), MessageError::Repeated { frame: 3, expected: 1000, found: 999 });
        assert_eq!(refused(&|a| a.pulses = 5001), MessageError::TooLong { frame: 3, pulses: 5001 });
        assert_eq!(refused(&|a| a.first = u64::MAX), MessageError::TooLong { frame: 3, pulses: 5000 });
        assert_eq!(refused(&|a| a.pulses = 4999), MessageError::BeyondFrame { frame: 3 });
        assert_eq!(
            refused(&|a| a.count = u32::MAX).to_string(),
            "frame 3 has 4294967295 events, more than may be announced"
        );
        assert_eq!(refused(&|a| a.count = 3), MessageError::Events { frame: 3 });
        assert_eq!(refused(&|a| a.packed = vec![0x80, 0, 0, 0]), MessageError::Events { frame: 3 });
        assert_eq!(refused(&|a| a.packed = vec![0xff; 16]), MessageError::Events { frame: 3 });
        assert_eq!(refused(&|a| a.packed.clear()), MessageError::Events { frame: 3 });
    }

    proptest! {
        #[test]
        fn any_announcement_is_read_in_order_or_refused(
            first in any::<u64>(),
            pulses in 0u64..8000,
            count in 0u32..40,
            packed in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(read) = (Announcement { frame: 3, first, pulses, count, packed }).read(&DUE) {
                prop_assert_eq!(read.pulses.len(), count as usize);
                prop_assert!(read.pulses.is_sorted_by(|a, b| a < b));
                prop_assert!(read.pulses.iter().all(|pulse| (first..read.end).contains(pulse)));
            }
        }
    }
}
