//! The sites after the origin: those between, which reseal and pass on, and the target, which keeps.

use super::origin::completed;
use super::{Action, Relay};
use crate::error::Rejection;
use crate::event::RelayEvent;
use crate::message::{AckStatus, Header, KmsRequest, Message, Payload, Refusal, RefusalReason};
use crate::name::{SiteName, TransferId};
use crate::record::{IncomingRecord, IncomingStage, Record, RecordKey};

pub(super) struct Incoming {
    record: IncomingRecord,
    /// When the KMS was last asked, if it has not answered.
    asked_ms: Option<u64>,
    /// Target: when the origin, or the own KMS, is asked again.
    next_ms: u64,
    attempts: u32,
}

impl Incoming {
    fn is_tombstone(&self) -> bool {
        matches!(self.record.stage, IncomingStage::Refused(_) | IncomingStage::Voided { .. })
    }

    fn upstream(&self) -> Option<&SiteName> {
        self.record.header.previous()
    }

    /// When it is next looked at: to be forgotten, or to ask again.
    fn deadline_ms(&self, settings: &crate::settings::Settings) -> u64 {
        let after = |wait_ms: u64| self.record.since_ms.saturating_add(wait_ms);
        match self.record.stage {
            IncomingStage::Refused(_) | IncomingStage::Voided { .. } => after(settings.linger_ms),
            IncomingStage::Resealing | IncomingStage::Forwarded | IncomingStage::Delivering => after(settings.keep_ms),
            IncomingStage::Delivered | IncomingStage::Voiding => self.next_ms.min(after(settings.inquire_ms)),
        }
    }
}

impl Relay {
    pub(super) fn restore_incoming(&mut self, record: IncomingRecord, now_ms: u64) {
        let transfer = record.header.transfer;
        self.incoming.insert(transfer, Incoming { record, asked_ms: None, next_ms: now_ms, attempts: 0 });
    }

    pub(super) fn on_carry(
        &mut self,
        now_ms: u64,
        header: Header,
        payload: Payload,
        out: &mut Vec<Action>,
    ) -> Result<(), Rejection> {
        if self.groups.contains_key(&header.transfer) {
            return Err(Rejection::OtherTransfer);
        }
        let Some(known) = self.incoming.get(&header.transfer) else {
            self.first_carry(now_ms, header, payload, out);
            return Ok(());
        };
        if known.record.header != header {
            return Err(Rejection::OtherTransfer);
        }
        match known.record.stage {
            IncomingStage::Resealing | IncomingStage::Forwarded | IncomingStage::Delivering => {
                self.ask_kms(now_ms, &header, payload, out);
            }
            IncomingStage::Delivered => self.ack(&header, AckStatus::Relayed, out),
            IncomingStage::Refused(refusal) => self.ack_refused(&header, AckStatus::Failed, Some(refusal), out),
            IncomingStage::Voided { .. } => self.ack(&header, AckStatus::Voided, out),
            IncomingStage::Voiding => {}
        }
        Ok(())
    }

    fn first_carry(&mut self, now_ms: u64, header: Header, payload: Payload, out: &mut Vec<Action>) {
        if !self.make_room(&header, out) {
            return self.refuse_unseen(&header, RefusalReason::Busy, out);
        }
        let stage = match header.next() {
            None => IncomingStage::Delivering,
            Some(next) if !self.connected(next) => {
                return self.refuse_first(now_ms, header, RefusalReason::Unreachable, out);
            }
            Some(next) => {
                let (bytes, settings) = (header.bytes, &self.settings);
                let neighbour = self.neighbours.get_mut(next);
                let taken = neighbour.is_some_and(|neighbour| neighbour.take_if_allowed(now_ms, bytes, settings));
                if !taken {
                    return self.refuse_first(now_ms, header, RefusalReason::Insufficient, out);
                }
                IncomingStage::Resealing
            }
        };
        // Not written: the KMS keeps what it does of it, durably, before it answers. After a crash the origin's next
        // word finds a transfer that is not known here, and the KMS is asked about it all the same.
        self.know(now_ms, header.clone(), stage);
        self.ask_kms(now_ms, &header, payload, out);
    }

    /// Refuses without asking the KMS. The refusal need not survive a crash: the origin voids the transfer, whatever
    /// becomes of a repeated message. So a starving site does not wear its disk.
    fn refuse_first(&mut self, now_ms: u64, header: Header, reason: RefusalReason, out: &mut Vec<Action>) {
        let stage = IncomingStage::Refused(Refusal { hop: header.hop, reason });
        self.know(now_ms, header.clone(), stage);
        self.refuse_unseen(&header, reason, out);
    }

    fn refuse_unseen(&mut self, header: &Header, reason: RefusalReason, out: &mut Vec<Action>) {
        self.counters.refused += 1;
        self.ack_refused(header, AckStatus::Failed, Some(Refusal { hop: header.hop, reason }), out);
    }

    fn ask_kms(&mut self, now_ms: u64, header: &Header, payload: Payload, out: &mut Vec<Action>) {
        let busy_ms = self.settings.kms_busy_ms;
        let Some(incoming) = self.incoming.get_mut(&header.transfer) else { return };
        if incoming.asked_ms.is_some_and(|asked_ms| now_ms < asked_ms.saturating_add(busy_ms)) {
            return;
        }
        let Some(from) = header.previous().cloned() else { return };
        incoming.asked_ms = Some(now_ms);
        let header = header.clone();
        out.push(Action::Kms(match header.next().cloned() {
            Some(to) => KmsRequest::Reseal { header, from, to, payload },
            None => KmsRequest::Deliver { header, from, payload },
        }));
    }

    /// Room for one more transfer, if need be in place of the oldest one that is refused or void.
    fn make_room(&mut self, header: &Header, out: &mut Vec<Action>) -> bool {
        let from = header.previous();
        let of_neighbour = |incoming: &&Incoming| incoming.upstream() == from;
        let crowded = self.incoming.values().filter(of_neighbour).count() >= self.settings.incoming_per_neighbour_max;
        if !crowded && self.incoming.len() < self.settings.incoming_max {
            return true;
        }
        let tombstones = self.incoming.values().filter(|incoming| incoming.is_tombstone());
        let oldest = tombstones.filter(|incoming| !crowded || incoming.upstream() == from);
        let Some(transfer) = oldest.min_by_key(|incoming| incoming.record.since_ms).map(Incoming::transfer) else {
            return false;
        };
        self.forget_incoming(transfer, out);
        true
    }

    fn enter(&mut self, now_ms: u64, header: Header, stage: IncomingStage, out: &mut Vec<Action>) {
        let record = self.know(now_ms, header, stage);
        out.push(match stage {
            // Who forgets that it passed a transfer on takes it for one that may have gone on.
            IncomingStage::Forwarded => Action::Note(record),
            _ => Action::Persist(record),
        });
    }

    /// Comes to a stage, in memory.
    fn know(&mut self, now_ms: u64, header: Header, stage: IncomingStage) -> Record {
        let transfer = header.transfer;
        let record = IncomingRecord { header, stage, since_ms: now_ms };
        let next_ms = now_ms.saturating_add(self.settings.retry_after_ms(0));
        self.incoming.insert(transfer, Incoming { record: record.clone(), asked_ms: None, next_ms, attempts: 0 });
        Record::Incoming(record)
    }

    fn forget_incoming(&mut self, transfer: TransferId, out: &mut Vec<Action>) {
        let Some(known) = self.incoming.remove(&transfer) else { return };
        let key = RecordKey::Incoming(transfer);
        out.push(match known.record.stage {
            // A target that it came back to after a crash would ask about what was settled.
            IncomingStage::Delivered | IncomingStage::Voiding => Action::Forget(key),
            // What comes back is forgotten once more, later.
            _ => Action::Drop(key),
        });
    }

    pub(super) fn on_resealed(&mut self, now_ms: u64, transfer: TransferId, payload: Payload, out: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get_mut(&transfer) else { return };
        incoming.asked_ms = None;
        let header = incoming.record.header.clone();
        match incoming.record.stage {
            IncomingStage::Resealing => {
                self.counters.carried += 1;
                self.enter(now_ms, header.clone(), IncomingStage::Forwarded, out);
            }
            IncomingStage::Forwarded => {}
            _ => return,
        }
        self.pass_down(&header, |header| Message::Carry { header, payload }, out);
    }

    pub(super) fn on_kms_refused(
        &mut self,
        now_ms: u64,
        transfer: TransferId,
        reason: RefusalReason,
        out: &mut Vec<Action>,
    ) {
        let Some(incoming) = self.incoming.get_mut(&transfer) else { return };
        incoming.asked_ms = None;
        let header = incoming.record.header.clone();
        if matches!(incoming.record.stage, IncomingStage::Resealing | IncomingStage::Delivering) {
            let refusal = Refusal { hop: header.hop, reason };
            self.enter(now_ms, header.clone(), IncomingStage::Refused(refusal), out);
            self.refuse_unseen(&header, reason, out);
        }
    }

    pub(super) fn on_delivered(&mut self, now_ms: u64, transfer: TransferId, out: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get_mut(&transfer) else { return };
        incoming.asked_ms = None;
        if incoming.record.stage == IncomingStage::Delivering {
            let header = incoming.record.header.clone();
            self.enter(now_ms, header.clone(), IncomingStage::Delivered, out);
            self.ack(&header, AckStatus::Relayed, out);
        }
    }

    /// What comes back from the sites further on. A site that has forgotten the transfer passes it on all the same,
    /// and learns from it that the key went beyond.
    pub(super) fn pass_ack(
        &mut self,
        now_ms: u64,
        header: Header,
        status: AckStatus,
        refusal: Option<Refusal>,
        out: &mut Vec<Action>,
    ) -> Result<(), Rejection> {
        let known = self.incoming.get(&header.transfer);
        if known.is_some_and(|known| known.record.header != header) {
            return Err(Rejection::OtherTransfer);
        }
        let learnt = match known.map(|known| known.record.stage) {
            None => Some(IncomingStage::Forwarded),
            Some(IncomingStage::Voided { beyond: false }) => Some(IncomingStage::Voided { beyond: true }),
            Some(_) => None,
        };
        if let Some(stage) = learnt.filter(|_| status == AckStatus::Relayed)
            && (known.is_some() || self.make_room(&header, out))
        {
            self.enter(now_ms, header.clone(), stage, out);
        }
        self.ack_refused(&header, status, refusal, out);
        Ok(())
    }

    pub(super) fn on_void(&mut self, now_ms: u64, header: Header, out: &mut Vec<Action>) -> Result<(), Rejection> {
        let known = self.incoming.get(&header.transfer);
        if known.is_some_and(|known| known.record.header != header) {
            return Err(Rejection::OtherTransfer);
        }
        match known.map(|known| known.record.stage) {
            None => self.void_unknown(now_ms, &header, out),
            Some(IncomingStage::Delivering | IncomingStage::Delivered) => {
                self.enter(now_ms, header.clone(), IncomingStage::Voiding, out);
                self.ask_void(&header, out);
            }
            Some(IncomingStage::Voiding) => self.ask_void(&header, out),
            Some(IncomingStage::Resealing | IncomingStage::Refused(_)) => {
                self.enter(now_ms, header.clone(), IncomingStage::Voided { beyond: false }, out);
                self.settle_here(&header, out);
                self.ack(&header, AckStatus::Voided, out);
            }
            Some(IncomingStage::Forwarded) => {
                self.enter(now_ms, header.clone(), IncomingStage::Voided { beyond: true }, out);
                self.settle_here(&header, out);
                self.pass_down(&header, |header| Message::Void { header }, out);
            }
            Some(IncomingStage::Voided { beyond: true }) => {
                self.pass_down(&header, |header| Message::Void { header }, out);
            }
            Some(IncomingStage::Voided { beyond: false }) => self.ack(&header, AckStatus::Voided, out),
        }
        Ok(())
    }

    /// Never seen, or forgotten in a crash: the KMS may have it, and sites further on, too.
    fn void_unknown(&mut self, now_ms: u64, header: &Header, out: &mut Vec<Action>) {
        let has_room = self.make_room(header, out);
        let is_target = header.next().is_none();
        let stage = if is_target { IncomingStage::Voiding } else { IncomingStage::Voided { beyond: true } };
        if has_room {
            self.enter(now_ms, header.clone(), stage, out);
        }
        if !is_target {
            self.settle_here(header, out);
            return self.pass_down(header, |header| Message::Void { header }, out);
        }
        self.ask_void(header, out);
        if !has_room {
            self.ack(header, AckStatus::KeyNotPresent, out);
        }
    }

    fn ask_void(&mut self, header: &Header, out: &mut Vec<Action>) {
        let (group, transfers) = (header.group, vec![header.transfer]);
        out.push(Action::Kms(KmsRequest::Void { group, transfers }));
    }

    /// Between: the KMS may drop what it keeps for repeats.
    fn settle_here(&mut self, header: &Header, out: &mut Vec<Action>) {
        if header.next().is_some() {
            out.push(Action::Kms(KmsRequest::Settle { group: header.group, transfer: header.transfer }));
        }
    }

    pub(super) fn on_target_voided(&mut self, now_ms: u64, transfer: TransferId, out: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get(&transfer) else { return };
        if incoming.record.stage == IncomingStage::Voiding {
            let header = incoming.record.header.clone();
            self.enter(now_ms, header.clone(), IncomingStage::Voided { beyond: false }, out);
            self.ack(&header, AckStatus::Voided, out);
        }
    }

    pub(super) fn on_target_not_voided(&mut self, transfer: TransferId, out: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get(&transfer) else { return };
        if incoming.record.stage == IncomingStage::Voiding {
            let header = incoming.record.header.clone();
            let path = header.path.clone();
            self.forget_incoming(transfer, out);
            out.push(Action::Event(RelayEvent::FailedToVoid { transfer, path }));
            self.ack(&header, AckStatus::FailedToVoid, out);
        }
    }

    /// The key was released: everybody may forget the transfer, the target last confirms it. A site that has
    /// forgotten it already passes the word on.
    pub(super) fn on_settle(&mut self, header: Header, out: &mut Vec<Action>) -> Result<(), Rejection> {
        let known = self.incoming.get(&header.transfer);
        if known.is_some_and(|known| known.record.header != header) {
            return Err(Rejection::OtherTransfer);
        }
        let stage = known.map(|known| known.record.stage);
        if header.next().is_some() {
            if stage.is_some() {
                self.settle_here(&header, out);
                self.forget_incoming(header.transfer, out);
            }
            self.pass_down(&header, |header| Message::Settle { header }, out);
            return Ok(());
        }
        match stage {
            None | Some(IncomingStage::Refused(_)) => {}
            Some(IncomingStage::Delivered) => {
                let (group, transfer) = (header.group, header.transfer);
                out.push(Action::Kms(KmsRequest::Settle { group, transfer }));
                out.push(completed(&header));
                self.forget_incoming(transfer, out);
            }
            Some(_) => return Err(Rejection::OutOfOrder),
        }
        if let Some(to) = header.previous().cloned() {
            let message = Message::Settled { header: header.at(header.hop.saturating_sub(1)) };
            self.send(&to, message, out);
        }
        Ok(())
    }

    pub(super) fn hurry_incoming(&mut self, now_ms: u64, site: &SiteName) {
        for incoming in self.incoming.values_mut().filter(|incoming| incoming.upstream() == Some(site)) {
            incoming.next_ms = now_ms;
        }
    }

    pub(super) fn tick_incoming(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let settings = &self.settings;
        let due = |incoming: &&Incoming| incoming.deadline_ms(settings) <= now_ms;
        let transfers: Vec<TransferId> = self.incoming.values().filter(due).map(Incoming::transfer).collect();
        for transfer in transfers {
            self.look_again(now_ms, transfer, out);
        }
    }

    fn look_again(&mut self, now_ms: u64, transfer: TransferId, out: &mut Vec<Action>) {
        let Some(incoming) = self.incoming.get_mut(&transfer) else { return };
        let header = incoming.record.header.clone();
        let too_old = now_ms >= incoming.record.since_ms.saturating_add(self.settings.inquire_ms);
        incoming.attempts = incoming.attempts.saturating_add(1);
        incoming.next_ms = now_ms.saturating_add(self.settings.retry_after_ms(incoming.attempts));
        match incoming.record.stage {
            IncomingStage::Refused(_) | IncomingStage::Voided { .. } => self.forget_incoming(transfer, out),
            IncomingStage::Resealing | IncomingStage::Forwarded => {
                self.settle_here(&header, out);
                self.forget_incoming(transfer, out);
            }
            // Never acknowledged, hence never released.
            IncomingStage::Delivering => {
                self.enter(now_ms, header.clone(), IncomingStage::Voiding, out);
                self.ask_void(&header, out);
            }
            IncomingStage::Delivered | IncomingStage::Voiding if too_old => {
                self.forget_incoming(transfer, out);
                out.push(Action::Event(RelayEvent::Abandoned { transfer, path: header.path }));
            }
            IncomingStage::Delivered => self.ack(&header, AckStatus::Relayed, out),
            IncomingStage::Voiding => self.ask_void(&header, out),
        }
    }

    pub(super) fn incoming_deadline_ms(&self) -> Option<u64> {
        self.incoming.values().map(|incoming| incoming.deadline_ms(&self.settings)).min()
    }
}

impl Incoming {
    fn transfer(&self) -> TransferId {
        self.record.header.transfer
    }
}
