//! A pool as callers see it: drawn from, and looked at, without waiting for the disk.

use std::sync::{Condvar, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::advance::{ADVANCE_USE, Advances};
use crate::lane::Lane;
use crate::ledger::{PoolLedger, UseLedger};
use crate::tables::Counters;
use crate::types::{Levels, Marks, RolledBack, Standing};
use crate::{Secret, StoreError, Use};

/// The part of a pool's state that is shared between callers and writer. The lock is held for memory work only.
pub(crate) struct Face {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    /// Why nothing is drawn any more.
    pub stopped: Option<StoreError>,
    /// Nothing of the pool is handed out or redeemed.
    pub rolled_back: Option<RolledBack>,
    pub generation: u32,
    pub stream_end: u64,
    pub granted_end: u64,
    pub next_seq: u64,
    /// As far as the writer counts them; Out bytes drawn or wasted are in the lanes.
    pub counters: Counters,
    /// By use, of In grants: granted and not redeemed, as far as the writer counts it.
    pub left_in: [u64; 4],
    /// Of [`ADVANCE_USE`].
    pub advances: Advances,
    /// Of what was redeemed in this generation because somebody asked for it, and is on the disk: its end by use, and
    /// its bytes in any generation.
    pub redeemed_end: [u64; 2],
    pub redeemed_bytes: u64,
    /// Out uses by [`Use::lane`].
    pub lanes: [Lane; 2],
    waiting: Vec<oneshot::Sender<()>>,
}

impl Face {
    pub fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// No panic happens under this lock; should one, the numbers are still whole.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the next lease, or any other change.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Wakes those who wait. Called with the lock held, so that no change is missed.
    pub fn announce(&self, state: &mut State) {
        self.changed.notify_all();
        for waiting in state.waiting.drain(..) {
            // Whoever gave up waiting need not know.
            let _ = waiting.send(());
        }
    }

    /// Nothing is drawn from here on.
    pub fn stop(&self, why: &StoreError) {
        let mut state = self.lock();
        state.stopped.get_or_insert_with(|| why.clone());
        state.lanes.iter_mut().for_each(Lane::clear);
        self.announce(&mut state);
    }
}

impl State {
    pub fn next_change(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(sender);
        receiver
    }

    fn left(&self, use_: Use) -> u64 {
        match use_.lane() {
            Some(lane) => {
                let lane = &self.lanes[lane];
                lane.available() + lane.inactive_bytes + lane.leaving_bytes
            }
            // A grant that the writer has not shown yet may be redeemed already.
            None => self.left_in[use_.index()].saturating_sub(self.handed_out_in_advance(use_)),
        }
    }

    /// Redeemed, and the writer does not count it yet.
    fn handed_out_in_advance(&self, use_: Use) -> u64 {
        if use_ == ADVANCE_USE { self.advances.handed_out() } else { 0 }
    }

    /// Ranges of which the disk knows already that they are gone, all or none.
    pub fn redeem_in_advance(&mut self, use_: Use, generation: u32, ranges: &[(u64, u64)]) -> Option<Vec<Secret>> {
        if use_ != ADVANCE_USE || generation != self.generation || self.stopped.is_some() || self.rolled_back.is_some()
        {
            return None;
        }
        self.advances.called();
        let keys = self.advances.take_durable(ranges)?;
        ranges.iter().for_each(|(start, bytes)| self.claim(0, start + bytes, *bytes));
        Some(keys)
    }

    /// Somebody asked for these bytes of an In use and they are redeemed on the disk.
    pub fn claim(&mut self, lane: usize, end: u64, bytes: u64) {
        self.redeemed_end[lane] = self.redeemed_end[lane].max(end);
        self.redeemed_bytes += bytes;
    }

    pub fn standing(&self) -> Standing {
        let least = Marks {
            drawn_end: self.lanes.each_ref().map(|lane| lane.drawn_end),
            redeemed_end: self.redeemed_end,
            redeemed_bytes: self.redeemed_bytes,
        };
        let taken = |use_: Use| {
            let counted = &self.counters.uses[use_.index()];
            counted.handed_out + self.handed_out_in_advance(use_) + counted.wasted
        };
        let most = Marks {
            drawn_end: self.lanes.each_ref().map(|lane| lane.drawn_end_most),
            redeemed_bytes: taken(Use::SupplyIn) + taken(Use::RelayIn),
            ..least
        };
        Standing { least, most }
    }

    fn unassigned(&self) -> u64 {
        self.stream_end - self.granted_end
    }

    /// Everything confirmed and not gone, and what is offered.
    pub fn held_bytes(&self) -> u64 {
        self.unassigned() + Use::ALL.iter().map(|use_| self.left(*use_)).sum::<u64>() + self.counters.pending
    }

    pub fn levels(&self) -> Levels {
        let available = |use_: Use| match use_.lane() {
            Some(lane) => self.lanes[lane].available(),
            None => self.left(use_),
        };
        Levels {
            generation: self.generation,
            end_bytes: self.stream_end,
            granted_end_bytes: self.granted_end,
            next_grant: self.next_seq,
            stored_bytes: self.held_bytes() - self.counters.pending,
            unassigned_bytes: self.unassigned(),
            available_bytes: Use::ALL.map(available),
            offered_blocks: self.counters.pending_blocks,
            offered_bytes: self.counters.pending,
        }
    }

    pub fn ledger(&self) -> PoolLedger {
        let c = &self.counters;
        let of = |use_: Use| {
            let counted = &c.uses[use_.index()];
            let (handed_out, wasted) = match use_.lane() {
                Some(lane) => (self.lanes[lane].handed_out, self.lanes[lane].wasted),
                None => (counted.handed_out + self.handed_out_in_advance(use_), counted.wasted),
            };
            UseLedger {
                granted_bits: 8 * counted.granted,
                handed_out_bits: 8 * handed_out,
                wasted_bits: 8 * wasted,
                expired_bits: 8 * counted.expired,
                left_bits: 8 * self.left(use_),
            }
        };
        PoolLedger {
            generation: self.generation,
            offered_bits: 8 * c.offered,
            relayed_bits: 8 * c.relayed,
            pending_bits: 8 * c.pending,
            confirmed_bits: 8 * c.confirmed,
            deducted_bits: 8 * c.deducted,
            quarantined_bits: 8 * c.quarantined,
            abandoned_bits: 8 * c.abandoned,
            unassigned_bits: 8 * self.unassigned(),
            voided_bits: 8 * c.voided,
            uses: Use::ALL.map(of),
        }
    }
}
