//! The journals at work: each has a thread that waits for the disk, so that the writer does not.
//!
//! While the record of one group is synced, the writer collects, checks and marks the next group and gives it to the
//! other journal. Redemptions do not depend on each other once they are marked, so that it does not matter which of two
//! records reaches the disk first; each is answered when its own has.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::StoreError;
use crate::crypt::Sealer;
use crate::journal::{Entry, Journal, Record};
use crate::media::JOURNALS;
use crate::queue::{Answer, Shared};

struct Group {
    record: Record,
    answers: Vec<Answer>,
}

/// Which journals wait for the disk.
#[derive(Default)]
struct Busy {
    busy: Mutex<[bool; JOURNALS]>,
    changed: Condvar,
}

pub(crate) struct Journals {
    journals: [Journal; JOURNALS],
    workers: Vec<(Sender<Group>, JoinHandle<()>)>,
    busy: Arc<Busy>,
}

impl Journals {
    pub fn start(
        journals: [Journal; JOURNALS],
        shared: &Arc<Shared>,
        at_step: fn(&'static str),
    ) -> Result<Self, StoreError> {
        let busy = Arc::new(Busy::default());
        let mut workers = Vec::with_capacity(JOURNALS);
        for number in 0..JOURNALS {
            let (sender, groups) = channel();
            let (busy, shared) = (Arc::clone(&busy), Arc::clone(shared));
            let thread = std::thread::Builder::new()
                .name(format!("keystore-log{number}"))
                .spawn(move || write_records(number, &groups, &busy, &shared, at_step))
                .map_err(|error| StoreError::io("start a journal", &error))?;
            workers.push((sender, thread));
        }
        Ok(Self { journals, workers, busy })
    }

    pub fn epoch(&self) -> u64 {
        self.journals[0].epoch()
    }

    /// The journal that takes the next group, if it has room for this many ranges.
    pub fn with_room(&self, entries: usize) -> Option<usize> {
        let busy = *self.busy.lock();
        let idle = busy.iter().position(|busy| !busy).unwrap_or(0);
        self.journals[idle].has_room(entries).then_some(idle)
    }

    /// Hands a group over; it is answered from there. One group at a time for each journal.
    pub fn append(&mut self, number: usize, entries: &[Entry], sealer: &Sealer, answers: Vec<Answer>) {
        let mut busy = self.busy.wait_while(|busy| busy[number]);
        busy[number] = true;
        drop(busy);
        let record = self.journals[number].next_record(entries, sealer);
        // Without its thread the store has stopped: what is dropped here is answered so.
        let _ = self.workers[number].0.send(Group { record, answers });
    }

    /// A handle to wait with, while the journals are the writer's.
    pub fn gate(&self) -> Gate {
        Gate(Arc::clone(&self.busy))
    }

    /// Starts over, once the database holds `epoch`, and nothing of the one before is under way.
    pub fn restart(&mut self, epoch: u64) {
        drop(self.busy.wait_while(|busy| busy.contains(&true)));
        self.journals.iter_mut().for_each(|journal| journal.restart(epoch));
    }

    pub fn close(mut self) -> Result<(), StoreError> {
        self.end_workers();
        self.journals.iter().try_for_each(Journal::close)
    }

    fn end_workers(&mut self) {
        for (groups, thread) in self.workers.drain(..) {
            drop(groups);
            // One that panicked has answered nobody, and the files are as after a crash.
            let _ = thread.join();
        }
    }
}

impl Drop for Journals {
    /// After this nothing writes to the files any more: they may be opened again.
    fn drop(&mut self) {
        self.end_workers();
    }
}

/// Lets the writer wait until a group can be handed over: what comes meanwhile shares that group.
pub(crate) struct Gate(Arc<Busy>);

impl Gate {
    pub fn wait(&self) {
        drop(self.0.wait_while(|busy| !busy.contains(&false)));
    }
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, [bool; JOURNALS]> {
        self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait_while(&self, condition: impl Fn(&[bool; JOURNALS]) -> bool) -> MutexGuard<'_, [bool; JOURNALS]> {
        let waited = self.changed.wait_while(self.lock(), |busy| condition(busy));
        waited.unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn write_records(number: usize, groups: &Receiver<Group>, busy: &Busy, shared: &Shared, at_step: fn(&'static str)) {
    let _freed = FreedAtEnd { number, busy };
    for group in groups {
        let begun = Instant::now();
        let written = group.record.write();
        let spent_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.counts.journal_sync_ns.fetch_add(spent_ns, Relaxed);
        let failed = written.err();
        if failed.is_none() {
            shared.counts.journal_commits.fetch_add(1, Relaxed);
        }
        at_step("store.redeemed");
        if let Some(error) = &failed {
            tracing::error!(%error, "the store stops");
            shared.stop(error);
        }
        busy.lock()[number] = false;
        busy.changed.notify_all();
        group.answers.into_iter().for_each(|answer| answer(failed.as_ref()));
        if failed.is_some() {
            return;
        }
    }
}

/// However the thread ends, nobody waits for its journal for ever.
struct FreedAtEnd<'a> {
    number: usize,
    busy: &'a Busy,
}

impl Drop for FreedAtEnd<'_> {
    fn drop(&mut self) {
        self.busy.lock()[self.number] = false;
        self.busy.changed.notify_all();
    }
}
