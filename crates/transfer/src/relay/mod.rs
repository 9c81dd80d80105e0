//! The state machine of one site: inputs in, actions out.

mod carrier;
mod filling;
mod flooding;
mod neighbour;
mod origin;
mod routes;

use std::collections::BTreeMap;

pub use neighbour::NeighbourState;
pub use routes::hop_cost;

use crate::database::Database;
use crate::error::{Counters, Rejection};
use crate::event::RelayEvent;
use crate::message::{AckStatus, Header, KmsAnswer, KmsRequest, Message};
use crate::name::{IdSource, SiteName, TransferId};
use crate::record::{Record, RecordKey};
use crate::settings::Settings;
use carrier::Incoming;
use filling::Target;
use flooding::Said;
use neighbour::Neighbour;
use origin::Outgoing;

/// What the service tells the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message from the relay of a neighbouring site, authenticated as coming from there.
    Peer {
        from: SiteName,
        message: Message,
    },
    Kms(KmsAnswer),
    /// The state of a neighbour, at first and whenever it changed.
    Neighbour {
        site: SiteName,
        state: NeighbourState,
    },
    /// The site is no neighbour any more.
    NeighbourGone {
        site: SiteName,
    },
    /// Key with this target is wanted: made from the low water mark up to the high one, each key in this many shares.
    /// Told again whenever the level changes. Key with a neighbour goes around the link to it.
    Want {
        target: SiteName,
        level_bytes: u64,
        low_water_bytes: u64,
        high_water_bytes: u64,
        shares: u8,
    },
    /// No more key with this target; what is on its way arrives.
    Unwant {
        target: SiteName,
    },
    /// Time has passed.
    Tick,
}

/// What the service does, in this order. `Persist` and `Forget` are durable before anything after them runs; that
/// may be one write for all of them before the first action of another kind. `Note` and `Drop` change the same records,
/// but nothing waits for them: they may be written with whatever is written next, or be lost in a crash, the later ones
/// before the earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Persist(Record),
    Forget(RecordKey),
    Note(Record),
    Drop(RecordKey),
    Kms(KmsRequest),
    Send { to: SiteName, message: Message },
    Event(RelayEvent),
}

/// The relay of one site. It holds no key: payloads pass through it sealed and are not kept.
pub struct Relay {
    site: SiteName,
    settings: Settings,
    incarnation: u64,
    /// Whether this life's number was handed out to be written.
    begun: bool,
    neighbours: BTreeMap<SiteName, Neighbour>,
    database: Database,
    said: Said,
    outgoing: BTreeMap<TransferId, Outgoing>,
    /// The group of every share in `outgoing`.
    groups: BTreeMap<TransferId, TransferId>,
    incoming: BTreeMap<TransferId, Incoming>,
    targets: BTreeMap<SiteName, Target>,
    /// The target that was last served, for the round robin.
    served: Option<SiteName>,
    /// Links that failed a transfer, and until when they are avoided.
    suspects: BTreeMap<(SiteName, SiteName), u64>,
    counters: Counters,
}

impl Relay {
    /// A relay without a past.
    pub fn new(site: SiteName, settings: Settings) -> Self {
        Self {
            site,
            settings: settings.bounded(),
            incarnation: 1,
            begun: false,
            neighbours: BTreeMap::new(),
            database: Database::default(),
            said: Said::default(),
            outgoing: BTreeMap::new(),
            groups: BTreeMap::new(),
            incoming: BTreeMap::new(),
            targets: BTreeMap::new(),
            served: None,
            suspects: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// A relay that goes on from what it last wrote. Neighbours and wanted targets have to be told again.
    pub fn restore(site: SiteName, settings: Settings, records: impl IntoIterator<Item = Record>, now_ms: u64) -> Self {
        let mut relay = Self::new(site, settings);
        for record in records {
            match record {
                Record::Incarnation(life) => relay.incarnation = life.saturating_add(1),
                Record::Outgoing(record) => relay.restore_outgoing(record, now_ms),
                Record::Incoming(record) => relay.restore_incoming(record, now_ms),
            }
        }
        relay
    }

    /// Takes one input; time must not run backwards.
    pub fn handle(&mut self, now_ms: u64, input: Input, ids: &mut dyn IdSource) -> Vec<Action> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            out.push(Action::Persist(Record::Incarnation(self.incarnation)));
        }
        match input {
            Input::Peer { from, message } => {
                if let Err(why) = self.on_message(now_ms, &from, message, &mut out) {
                    self.reject(Some(from), why, &mut out);
                }
            }
            Input::Kms(answer) => self.on_answer(now_ms, answer, &mut out),
            Input::Neighbour { site, state } => self.on_neighbour(now_ms, site, state, &mut out),
            Input::NeighbourGone { site } => self.on_neighbour_gone(now_ms, &site, &mut out),
            Input::Want { target, level_bytes, low_water_bytes, high_water_bytes, shares } => {
                let water = (level_bytes, low_water_bytes, high_water_bytes);
                if let Err(why) = self.on_want(target, water, shares) {
                    self.reject(None, why, &mut out);
                }
            }
            Input::Unwant { target } => {
                self.targets.remove(&target);
            }
            Input::Tick => {
                self.tick_flooding(now_ms, &mut out);
                self.tick_outgoing(now_ms, &mut out);
                self.tick_incoming(now_ms, &mut out);
            }
        }
        self.fill(now_ms, ids, &mut out);
        out
    }

    /// When a `Tick` is wanted, if nothing else comes before.
    pub fn next_deadline_ms(&self, now_ms: u64) -> u64 {
        let deadlines = [
            self.flooding_deadline_ms(now_ms),
            self.outgoing_deadline_ms(),
            self.incoming_deadline_ms(),
            self.filling_deadline_ms(now_ms),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(u64::MAX).max(now_ms.saturating_add(1))
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// What happened how often.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Transfers that are known here: begun by this site (not yet forgotten), and of others.
    pub fn known_transfers(&self) -> (usize, usize) {
        (self.groups.len(), self.incoming.len())
    }

    fn on_message(
        &mut self,
        now_ms: u64,
        from: &SiteName,
        message: Message,
        out: &mut Vec<Action>,
    ) -> Result<(), Rejection> {
        match message {
            Message::LinkState(state) => self.on_link_state(now_ms, from, state, out),
            Message::Carry { header, payload } => {
                self.check_down(from, &header)?;
                payload.check()?;
                self.on_carry(now_ms, header, payload, out)
            }
            Message::Void { header } => {
                self.check_down(from, &header)?;
                self.on_void(now_ms, header, out)
            }
            Message::Settle { header } => {
                self.check_down(from, &header)?;
                self.on_settle(header, out)
            }
            Message::Ack { header, status, refusal } => {
                self.check_up(from, &header)?;
                if header.hop == 0 {
                    self.on_ack(now_ms, &header, status, refusal, out)
                } else {
                    self.pass_ack(now_ms, header, status, refusal, out)
                }
            }
            Message::Settled { header } => {
                self.check_up(from, &header)?;
                match header.previous().cloned() {
                    Some(to) => {
                        let message = Message::Settled { header: header.at(header.hop.saturating_sub(1)) };
                        self.send(&to, message, out);
                    }
                    None => self.on_settled(&header, out),
                }
                Ok(())
            }
        }
    }

    fn on_answer(&mut self, now_ms: u64, answer: KmsAnswer, out: &mut Vec<Action>) {
        match answer {
            KmsAnswer::Sealed { transfer, payload } if self.groups.contains_key(&transfer) => {
                self.on_originated(transfer, payload, out);
            }
            KmsAnswer::Sealed { transfer, payload } => self.on_resealed(now_ms, transfer, payload, out),
            KmsAnswer::Refused { transfer, reason } if self.groups.contains_key(&transfer) => {
                self.on_originate_refused(now_ms, transfer, reason, out);
            }
            KmsAnswer::Refused { transfer, reason } => self.on_kms_refused(now_ms, transfer, reason, out),
            KmsAnswer::Delivered { transfer } => self.on_delivered(now_ms, transfer, out),
            KmsAnswer::Released { group } => self.on_released(now_ms, group, out),
            KmsAnswer::Voided { transfer } if self.groups.contains_key(&transfer) => {
                self.on_voided_here(transfer, out);
            }
            KmsAnswer::Voided { transfer } => self.on_target_voided(now_ms, transfer, out),
            KmsAnswer::NotVoided { transfer } if self.groups.contains_key(&transfer) => {
                self.on_voided_here(transfer, out);
            }
            KmsAnswer::NotVoided { transfer } => self.on_target_not_voided(transfer, out),
        }
    }

    /// A message that travels from origin to target.
    fn check_down(&self, from: &SiteName, header: &Header) -> Result<(), Rejection> {
        self.check_header(from, header)?;
        if header.previous() == Some(from) { Ok(()) } else { Err(Rejection::WrongSender) }
    }

    /// A message that travels from target to origin.
    fn check_up(&self, from: &SiteName, header: &Header) -> Result<(), Rejection> {
        self.check_header(from, header)?;
        if header.next() == Some(from) { Ok(()) } else { Err(Rejection::WrongSender) }
    }

    fn check_header(&self, from: &SiteName, header: &Header) -> Result<(), Rejection> {
        if !self.neighbours.contains_key(from) {
            return Err(Rejection::UnknownNeighbour { from: from.clone() });
        }
        header.check()?;
        if header.path.get(header.position()) == Some(&self.site) { Ok(()) } else { Err(Rejection::NotOnPath) }
    }

    fn connected(&self, site: &SiteName) -> bool {
        self.neighbours.get(site).is_some_and(|neighbour| neighbour.state.connected)
    }

    /// Sends to a neighbour that is connected. What is not sent is repeated by whoever waits for the answer.
    fn send(&mut self, to: &SiteName, message: Message, out: &mut Vec<Action>) {
        if self.connected(to) {
            out.push(Action::Send { to: to.clone(), message });
        } else {
            self.counters.unsent += 1;
        }
    }

    /// Answers towards the origin.
    fn ack(&mut self, header: &Header, status: AckStatus, out: &mut Vec<Action>) {
        self.ack_refused(header, status, None, out);
    }

    fn ack_refused(
        &mut self,
        header: &Header,
        status: AckStatus,
        refusal: Option<crate::message::Refusal>,
        out: &mut Vec<Action>,
    ) {
        if let Some(to) = header.previous().cloned() {
            let header = header.at(header.hop.saturating_sub(1));
            self.send(&to, Message::Ack { header, status, refusal }, out);
        }
    }

    /// Passes a message on towards the target.
    fn pass_down(&mut self, header: &Header, message: impl FnOnce(Header) -> Message, out: &mut Vec<Action>) {
        if let Some(to) = header.next().cloned() {
            let header = header.at(header.hop.saturating_add(1));
            self.send(&to, message(header), out);
        }
    }
}

#[cfg(test)]
mod tests;
