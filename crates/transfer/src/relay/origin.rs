//! The origin of a key: begins it, repeats what is not answered, decides once, and says so until it is confirmed.

use super::{Action, Relay};
use crate::error::Rejection;
use crate::event::{CompletedTransfer, RelayEvent};
use crate::message::{AckStatus, Header, KmsRequest, Message, Payload, Refusal, RefusalReason};
use crate::name::{IdSource, Path, SiteName, TransferId};
use crate::record::{OutgoingRecord, OutgoingStage, Record, RecordKey, ShareRecord, VoidReason};

pub(super) struct Outgoing {
    pub(super) record: OutgoingRecord,
    next_ms: u64,
    attempts: u32,
    /// Per share: the path has confirmed the decision, the own KMS has dropped it. After a restart both are asked again.
    closed: Vec<bool>,
    dropped: Vec<bool>,
}

impl Outgoing {
    fn new(record: OutgoingRecord, next_ms: u64) -> Self {
        let shares = record.shares.len();
        Self { record, next_ms, attempts: 0, closed: vec![false; shares], dropped: vec![false; shares] }
    }

    /// Nothing is decided, or the decision is not yet with the KMS.
    pub(super) fn in_flight(&self) -> bool {
        matches!(self.record.stage, OutgoingStage::Carrying | OutgoingStage::Releasing)
    }

    fn share(&self, transfer: TransferId) -> Option<usize> {
        self.record.shares.iter().position(|share| share.transfer == transfer)
    }

    /// The header of a share for the first site after the origin.
    fn header(&self, at: usize) -> Option<Header> {
        let share = self.record.shares.get(at)?;
        Some(Header {
            transfer: share.transfer,
            group: self.record.group,
            share: u8::try_from(at).ok()?,
            of: u8::try_from(self.record.shares.len()).ok()?,
            bytes: self.record.bytes,
            path: share.path.clone(),
            hop: 0,
        })
    }

    fn transfers(&self) -> Vec<TransferId> {
        self.record.shares.iter().map(|share| share.transfer).collect()
    }

    fn persist(&self) -> Action {
        Action::Persist(Record::Outgoing(self.record.clone()))
    }

    fn is_over(&self) -> bool {
        let closed = self.closed.iter().all(|closed| *closed);
        match self.record.stage {
            OutgoingStage::Settling => closed,
            OutgoingStage::Voiding(_) => closed && self.dropped.iter().all(|dropped| *dropped),
            OutgoingStage::Carrying | OutgoingStage::Releasing => false,
        }
    }

    /// The wait before the next repetition, up to a quarter longer by identity, so that they do not come all at once.
    fn wait_ms(&self, settings: &crate::settings::Settings) -> u64 {
        let wait_ms = settings.retry_after_ms(self.attempts);
        wait_ms.saturating_add((wait_ms / 1024).saturating_mul(u64::from(self.record.group.0[0])))
    }
}

impl Relay {
    pub(super) fn restore_outgoing(&mut self, record: OutgoingRecord, now_ms: u64) {
        let mut outgoing = Outgoing::new(record, now_ms);
        if outgoing.record.stage == OutgoingStage::Carrying {
            // When a share leaves is not written down.
            outgoing.record.shares.iter_mut().for_each(|share| share.sent = true);
        }
        if matches!(outgoing.record.stage, OutgoingStage::Voiding(_)) {
            outgoing.closed = outgoing.record.shares.iter().map(|share| !share.sent).collect();
        }
        for share in &outgoing.record.shares {
            self.groups.insert(share.transfer, outgoing.record.group);
        }
        self.outgoing.insert(outgoing.record.group, outgoing);
    }

    /// Begins a key, one share over each path. The intent is durable before the KMS draws anything.
    pub(super) fn start(
        &mut self,
        now_ms: u64,
        target: &SiteName,
        bytes: u32,
        paths: Vec<Path>,
        ids: &mut dyn IdSource,
        out: &mut Vec<Action>,
    ) {
        let share = |path: &Path, transfer| ShareRecord { transfer, path: path.clone(), sent: false, relayed: false };
        let shares: Vec<ShareRecord> = paths.iter().map(|path| share(path, ids.transfer_id())).collect();
        let Some(group) = shares.first().map(|share| share.transfer) else { return };
        for share in &shares {
            self.groups.insert(share.transfer, group);
            if let Some(neighbour) = share.path.get(1).and_then(|next| self.neighbours.get_mut(next)) {
                neighbour.take(bytes);
            }
        }
        let stage = OutgoingStage::Carrying;
        let record = OutgoingRecord { group, target: target.clone(), bytes, started_ms: now_ms, stage, shares };
        let mut outgoing = Outgoing::new(record, now_ms);
        outgoing.next_ms = now_ms.saturating_add(outgoing.wait_ms(&self.settings));
        out.push(outgoing.persist());
        out.push(Action::Event(RelayEvent::Started { group, target: target.clone(), bytes, paths }));
        self.outgoing.insert(group, outgoing);
        self.counters.transfers_started += 1;
        self.ask_originate(group, out);
    }

    /// Asks the KMS for every share that has not arrived; asked again it gives the same payload again.
    fn ask_originate(&mut self, group: TransferId, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get(&group) else { return };
        for (at, share) in outgoing.record.shares.iter().enumerate().filter(|(_, share)| !share.relayed) {
            if let (Some(header), Some(next)) = (outgoing.header(at), share.path.get(1).cloned()) {
                out.push(Action::Kms(KmsRequest::Originate { header, next }));
            }
        }
    }

    fn outgoing_of(&mut self, transfer: TransferId) -> Option<(usize, &mut Outgoing)> {
        let outgoing = self.outgoing.get_mut(self.groups.get(&transfer)?)?;
        Some((outgoing.share(transfer)?, outgoing))
    }

    pub(super) fn on_originated(&mut self, transfer: TransferId, payload: Payload, out: &mut Vec<Action>) {
        let Some((at, outgoing)) = self.outgoing_of(transfer) else { return };
        if outgoing.record.stage != OutgoingStage::Carrying {
            return;
        }
        // The intent is on the disk since before the KMS was asked, and this life knows the rest.
        if let Some(share) = outgoing.record.shares.get_mut(at) {
            share.sent = true;
        }
        if let Some(header) = outgoing.header(at) {
            self.pass_down(&header, |header| Message::Carry { header, payload }, out);
        }
    }

    pub(super) fn on_originate_refused(
        &mut self,
        now_ms: u64,
        transfer: TransferId,
        reason: RefusalReason,
        out: &mut Vec<Action>,
    ) {
        let Some((at, outgoing)) = self.outgoing_of(transfer) else { return };
        let Some(share) = outgoing.record.shares.get(at) else { return };
        if outgoing.record.stage == OutgoingStage::Carrying && !share.sent {
            let (group, path) = (outgoing.record.group, share.path.clone());
            let refusal = Refusal { hop: 0, reason };
            self.suspect(now_ms, &path, Some(refusal));
            self.void(now_ms, group, VoidReason::Refused(refusal), out);
        }
    }

    pub(super) fn on_ack(
        &mut self,
        now_ms: u64,
        header: &Header,
        status: AckStatus,
        refusal: Option<Refusal>,
        out: &mut Vec<Action>,
    ) -> Result<(), Rejection> {
        let Some((at, outgoing)) = self.outgoing_of(header.transfer) else {
            // Not known, hence not released: whoever still waits for it may drop it.
            if status == AckStatus::Relayed {
                self.pass_down(header, |header| Message::Void { header }, out);
            }
            return Ok(());
        };
        if outgoing.header(at).as_ref() != Some(header) {
            return Err(Rejection::OtherTransfer);
        }
        let (group, path) = (outgoing.record.group, header.path.clone());
        let Some(share) = outgoing.record.shares.get_mut(at) else { return Ok(()) };
        if !share.sent {
            return Err(Rejection::OutOfOrder);
        }
        match (outgoing.record.stage, status) {
            (OutgoingStage::Carrying, AckStatus::Relayed) => {
                share.relayed = true;
                if outgoing.record.shares.iter().all(|share| share.relayed) {
                    self.release(now_ms, group, out);
                }
            }
            (OutgoingStage::Carrying, AckStatus::Failed) => {
                let unnamed = Refusal { hop: 1, reason: RefusalReason::Unknown };
                self.suspect(now_ms, &path, refusal);
                self.void(now_ms, group, VoidReason::Refused(refusal.unwrap_or(unnamed)), out);
            }
            (OutgoingStage::Carrying, AckStatus::Voided | AckStatus::KeyNotPresent) => {
                self.void(now_ms, group, VoidReason::DroppedAtTarget, out);
            }
            (OutgoingStage::Carrying, AckStatus::FailedToVoid) => return Err(Rejection::OutOfOrder),
            (OutgoingStage::Releasing, _) | (OutgoingStage::Voiding(_), AckStatus::Failed) => {}
            (OutgoingStage::Settling | OutgoingStage::Voiding(_), AckStatus::Relayed) => {
                self.say_decision(group, at, out)
            }
            (OutgoingStage::Settling, _) => return Err(Rejection::OutOfOrder),
            (OutgoingStage::Voiding(_), AckStatus::Voided | AckStatus::KeyNotPresent | AckStatus::FailedToVoid) => {
                outgoing.closed[at] = true;
                if status == AckStatus::FailedToVoid {
                    out.push(Action::Event(RelayEvent::FailedToVoid { transfer: header.transfer, path }));
                }
                self.finish(group, out);
            }
        }
        Ok(())
    }

    fn release(&mut self, now_ms: u64, group: TransferId, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get_mut(&group) else { return };
        outgoing.record.stage = OutgoingStage::Releasing;
        outgoing.attempts = 0;
        outgoing.next_ms = now_ms.saturating_add(outgoing.wait_ms(&self.settings));
        out.push(outgoing.persist());
        out.push(Action::Kms(KmsRequest::Release { group, transfers: outgoing.transfers() }));
    }

    pub(super) fn on_released(&mut self, now_ms: u64, group: TransferId, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get_mut(&group) else { return };
        if outgoing.record.stage != OutgoingStage::Releasing {
            return;
        }
        // Told before it is written, so that a crash between the two tells it again instead of never.
        let shares = outgoing.record.shares.len();
        out.extend((0..shares).filter_map(|at| outgoing.header(at)).map(|header| completed(&header)));
        outgoing.record.stage = OutgoingStage::Settling;
        outgoing.attempts = 0;
        outgoing.next_ms = now_ms.saturating_add(outgoing.wait_ms(&self.settings));
        out.push(outgoing.persist());
        let (target, bytes) = (outgoing.record.target.clone(), outgoing.record.bytes);
        self.counters.transfers_completed += 1;
        self.target_succeeded(now_ms, &target, bytes);
        for at in 0..shares {
            self.say_decision(group, at, out);
        }
    }

    /// Decides that a key will never be one. Shares that never left this site need nobody's confirmation.
    fn void(&mut self, now_ms: u64, group: TransferId, reason: VoidReason, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get_mut(&group) else { return };
        outgoing.record.stage = OutgoingStage::Voiding(reason);
        outgoing.attempts = 0;
        outgoing.next_ms = now_ms.saturating_add(outgoing.wait_ms(&self.settings));
        outgoing.closed = outgoing.record.shares.iter().map(|share| !share.sent).collect();
        out.push(outgoing.persist());
        out.push(Action::Kms(KmsRequest::Void { group, transfers: outgoing.transfers() }));
        let target = outgoing.record.target.clone();
        let shares = outgoing.record.shares.len();
        out.push(Action::Event(RelayEvent::Voided { group, target: target.clone(), reason }));
        self.counters.transfers_voided += 1;
        self.target_failed(now_ms, &target);
        for at in 0..shares {
            self.say_decision(group, at, out);
        }
        self.limit_voiding(out);
    }

    /// Tells the path of one share what was decided, unless it has confirmed it.
    fn say_decision(&mut self, group: TransferId, at: usize, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get(&group).filter(|outgoing| !outgoing.closed[at]) else { return };
        let Some(header) = outgoing.header(at) else { return };
        match outgoing.record.stage {
            OutgoingStage::Settling => self.pass_down(&header, |header| Message::Settle { header }, out),
            OutgoingStage::Voiding(_) => self.pass_down(&header, |header| Message::Void { header }, out),
            OutgoingStage::Carrying | OutgoingStage::Releasing => {}
        }
    }

    pub(super) fn on_voided_here(&mut self, transfer: TransferId, out: &mut Vec<Action>) {
        let Some((at, outgoing)) = self.outgoing_of(transfer) else { return };
        outgoing.dropped[at] = true;
        let group = outgoing.record.group;
        self.finish(group, out);
    }

    pub(super) fn on_settled(&mut self, header: &Header, out: &mut Vec<Action>) {
        let Some((at, outgoing)) = self.outgoing_of(header.transfer) else { return };
        if outgoing.record.stage == OutgoingStage::Settling && outgoing.header(at).as_ref() == Some(header) {
            outgoing.closed[at] = true;
            let group = outgoing.record.group;
            self.finish(group, out);
        }
    }

    fn finish(&mut self, group: TransferId, out: &mut Vec<Action>) {
        if self.outgoing.get(&group).is_some_and(Outgoing::is_over) {
            self.forget_outgoing(group, out);
        }
    }

    fn forget_outgoing(&mut self, group: TransferId, out: &mut Vec<Action>) {
        if let Some(outgoing) = self.outgoing.remove(&group) {
            for transfer in outgoing.transfers() {
                self.groups.remove(&transfer);
            }
            out.push(Action::Forget(RecordKey::Outgoing(group)));
        }
    }

    /// Gives up repeating a decision: the key stays void, or key, all the same.
    fn abandon_outgoing(&mut self, group: TransferId, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get(&group) else { return };
        let open = outgoing.record.shares.iter().zip(&outgoing.closed).filter(|(_, closed)| !**closed);
        let event = |share: &ShareRecord| RelayEvent::Abandoned { transfer: share.transfer, path: share.path.clone() };
        out.extend(open.map(|(share, _)| Action::Event(event(share))));
        self.forget_outgoing(group, out);
    }

    fn limit_voiding(&mut self, out: &mut Vec<Action>) {
        let voiding = |outgoing: &&Outgoing| matches!(outgoing.record.stage, OutgoingStage::Voiding(_));
        if self.outgoing.values().filter(voiding).count() > self.settings.voiding_max {
            let dropped = |outgoing: &&Outgoing| outgoing.dropped.iter().all(|dropped| *dropped);
            let all = self.outgoing.values().filter(voiding).filter(dropped);
            if let Some(group) = all.min_by_key(|outgoing| outgoing.record.started_ms).map(|oldest| oldest.record.group)
            {
                self.abandon_outgoing(group, out);
            }
        }
    }

    /// Whether the limits leave room for one more key.
    pub(super) fn may_start(&self) -> bool {
        let count = |wanted: fn(&Outgoing) -> bool| self.outgoing.values().filter(|outgoing| wanted(outgoing)).count();
        let settling = |outgoing: &Outgoing| outgoing.record.stage == OutgoingStage::Settling;
        let voiding = |outgoing: &Outgoing| matches!(outgoing.record.stage, OutgoingStage::Voiding(_));
        count(Outgoing::in_flight) < self.settings.outgoing_max
            && count(settling) < self.settings.settling_max
            && count(voiding) <= self.settings.voiding_max
    }

    /// What waited for a neighbour that has come back is repeated at once.
    pub(super) fn hurry(&mut self, now_ms: u64, site: &SiteName) {
        let over = |share: &ShareRecord| share.path.get(1) == Some(site);
        for outgoing in self.outgoing.values_mut().filter(|outgoing| outgoing.record.shares.iter().any(over)) {
            outgoing.next_ms = now_ms;
        }
        self.hurry_incoming(now_ms, site);
    }

    pub(super) fn tick_outgoing(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let doubt_ms = self.settings.doubt_ms;
        let due = |outgoing: &&Outgoing| outgoing.deadline_ms(doubt_ms) <= now_ms;
        let groups: Vec<TransferId> =
            self.outgoing.values().filter(due).map(|outgoing| outgoing.record.group).collect();
        for group in groups {
            self.repeat(now_ms, group, out);
        }
        self.suspects.retain(|_, until_ms| *until_ms > now_ms);
    }

    fn repeat(&mut self, now_ms: u64, group: TransferId, out: &mut Vec<Action>) {
        let Some(outgoing) = self.outgoing.get_mut(&group) else { return };
        outgoing.attempts = outgoing.attempts.saturating_add(1);
        outgoing.next_ms = now_ms.saturating_add(outgoing.wait_ms(&self.settings));
        let age_ms = now_ms.saturating_sub(outgoing.record.started_ms);
        let transfers = outgoing.transfers();
        let shares = transfers.len();
        match outgoing.record.stage {
            OutgoingStage::Carrying if age_ms >= self.settings.doubt_ms => {
                let silent = outgoing.record.shares.iter().filter(|share| !share.relayed);
                let paths: Vec<Path> = silent.map(|share| share.path.clone()).collect();
                paths.iter().for_each(|path| self.suspect(now_ms, path, None));
                self.void(now_ms, group, VoidReason::InDoubt, out);
            }
            OutgoingStage::Carrying => self.ask_originate(group, out),
            OutgoingStage::Releasing => out.push(Action::Kms(KmsRequest::Release { group, transfers })),
            OutgoingStage::Settling if age_ms >= self.settings.inquire_ms => self.abandon_outgoing(group, out),
            OutgoingStage::Settling => (0..shares).for_each(|at| self.say_decision(group, at, out)),
            OutgoingStage::Voiding(_) => {
                if !outgoing.dropped.iter().all(|dropped| *dropped) {
                    out.push(Action::Kms(KmsRequest::Void { group, transfers }));
                }
                (0..shares).for_each(|at| self.say_decision(group, at, out));
            }
        }
    }

    pub(super) fn outgoing_deadline_ms(&self) -> Option<u64> {
        self.outgoing.values().map(|outgoing| outgoing.deadline_ms(self.settings.doubt_ms)).min()
    }
}

impl Outgoing {
    fn deadline_ms(&self, doubt_ms: u64) -> u64 {
        match self.record.stage {
            OutgoingStage::Carrying => self.next_ms.min(self.record.started_ms.saturating_add(doubt_ms)),
            _ => self.next_ms,
        }
    }
}

pub(super) fn completed(header: &Header) -> Action {
    Action::Event(RelayEvent::Completed(CompletedTransfer {
        transfer: header.transfer,
        group: header.group,
        share: header.share,
        of: header.of,
        origin: header.path.origin().clone(),
        target: header.path.target().clone(),
        path: header.path.clone(),
        bytes: header.bytes,
    }))
}
