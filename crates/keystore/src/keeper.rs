//! Keeps the ceilings of the store in its anchor: raises them ahead, on a thread of its own.
//!
//! The writer asks and goes on. A lease that would cross a ceiling is put off, and asked for again once the ceiling is
//! raised: so no request waits for the anchor but a draw that has nothing on lease.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anchor::{Anchor, AnchorError, Ceilings, Instance};

use crate::StoreError;
use crate::queue::Shared;
use crate::tables::Progress;

/// Wait before a ceiling that was not raised is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Name of the ceiling of how often the database was written to.
pub const COMMITS: &str = "commits";
/// Of the records in the journals.
pub(crate) const RECORDS: &str = "records";

/// Positions in the stream of one generation end below this power of two.
pub(crate) const POSITION_BITS: u32 = 40;
/// Generations of a pool end below this.
pub(crate) const GENERATIONS_MAX: u32 = 1 << (64 - POSITION_BITS);

/// Name of the ceiling of what is drawn of a pool, by lane.
pub(crate) fn drawn_name(peer: &str, lane: usize) -> String {
    format!("{}-drawn/{peer}", ["supply", "relay"][lane])
}

/// A generation and a position in it as one number that only grows.
pub(crate) fn ordinal(generation: u32, position: u64) -> u64 {
    u64::from(generation) << POSITION_BITS | position.min((1 << POSITION_BITS) - 1)
}

/// What an ordinal was made of.
pub(crate) fn place(ordinal: u64) -> (u32, u64) {
    ((ordinal >> POSITION_BITS) as u32, ordinal & ((1 << POSITION_BITS) - 1))
}

pub(crate) fn anchor_error(error: &AnchorError) -> StoreError {
    StoreError::Anchor { why: error.to_string().into() }
}

#[derive(Default)]
struct Book {
    wanted: Ceilings,
    /// What the anchor has.
    sure: Ceilings,
    /// Leases that wait for it, by pool and lane.
    waiting: BTreeSet<(usize, usize)>,
    failing: Option<String>,
    /// Ceilings on their way to the anchor.
    raising: usize,
    ending: bool,
}

struct Inner {
    anchor: Arc<dyn Anchor>,
    instance: Instance,
    period: Duration,
    /// As the store was opened.
    before: Progress,
    shared: Arc<Shared>,
    book: Mutex<Book>,
    changed: Condvar,
}

pub(crate) struct Keeper {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// `sure` is what the anchor has; `before` how often the store had been written to when it was opened.
    pub fn start(
        (anchor, instance): (Arc<dyn Anchor>, Instance),
        period: Duration,
        sure: Ceilings,
        before: Progress,
        shared: &Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let book = Mutex::new(Book { sure, ..Book::default() });
        let shared = Arc::clone(shared);
        let inner = Arc::new(Inner { anchor, instance, period, before, shared, book, changed: Condvar::new() });
        let keeping = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("keystore-anchor".to_owned()).spawn(move || keeping.keep());
        let thread = thread.map_err(|error| StoreError::io("start the anchor", &error))?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Whether the anchor has a ceiling of at least `ordinal`. If not it is raised to `ahead`, and then this lease is
    /// asked for again.
    pub fn allows(&self, name: &str, ordinal: u64, ahead: u64, lease: (usize, usize)) -> bool {
        // No lease waits for an anchor that there is not.
        if !self.inner.anchor.keeps() {
            return true;
        }
        let mut book = self.inner.lock();
        if book.sure.get(name).is_some_and(|ceiling| *ceiling >= ordinal) {
            return true;
        }
        book.waiting.insert(lease);
        self.inner.want(&mut book, name, ahead);
        false
    }

    /// Raises a ceiling that will be reached soon.
    pub fn raise(&self, name: &str, soon: u64, ahead: u64) {
        if !self.inner.anchor.keeps() {
            return;
        }
        let mut book = self.inner.lock();
        if book.sure.get(name).is_none_or(|ceiling| *ceiling < soon) {
            self.inner.want(&mut book, name, ahead);
        }
    }

    /// A handle to look at the keeper with, while it is the writer's.
    pub fn watch(&self) -> Failing {
        Failing(Arc::clone(&self.inner))
    }

    /// Ends the thread. After a clean close the ceilings become `counts`.
    pub fn end(mut self, counts: Option<(Instance, Ceilings)>) {
        self.stop();
        let Some((instance, counts)) = counts else { return };
        if let Err(error) = self.inner.anchor.settle(instance, &counts) {
            tracing::warn!(%error, "the ceilings stay where they are: the next start wastes the key below them");
        }
    }

    fn stop(&mut self) {
        self.inner.lock().ending = true;
        self.inner.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // One that panicked has raised nothing.
            let _ = thread.join();
        }
    }
}

/// Whether the anchor is raised.
pub(crate) struct Failing(Arc<Inner>);

impl Failing {
    /// Whether the anchor knows how often the store was written to.
    pub fn is_current(&self) -> bool {
        let mut book = self.0.lock();
        self.0.add_progress(&mut book);
        self.0.changed.notify_all();
        book.wanted.is_empty() && book.raising == 0
    }

    /// Why it cannot be, if so.
    pub fn failing(&self) -> Option<String> {
        self.0.lock().failing.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn want(&self, book: &mut Book, name: &str, ceiling: u64) {
        match book.wanted.get_mut(name) {
            Some(wanted) => *wanted = (*wanted).max(ceiling),
            None => drop(book.wanted.insert(name.to_owned(), ceiling)),
        }
        self.changed.notify_all();
    }

    /// Adds how often the store was written to, as far as it is on the disk and others than the anchor knows.
    fn add_progress(&self, book: &mut Book) {
        let counts = &self.shared.counts;
        let commits = self.before.commits + counts.database_commits.load(Relaxed);
        let records = self.before.records + counts.journal_commits.load(Relaxed);
        for (name, count) in [(COMMITS, commits), (RECORDS, records)] {
            if book.sure.get(name).copied().unwrap_or(0) < count {
                book.wanted.insert(name.to_owned(), count);
            }
        }
    }

    fn keep(&self) {
        let mut due = Instant::now() + self.period;
        let mut book = self.lock();
        while !book.ending {
            let now = Instant::now();
            if now >= due {
                due = now + self.period;
                self.add_progress(&mut book);
            }
            if book.wanted.is_empty() {
                let waited = self.changed.wait_timeout(book, due.saturating_duration_since(now));
                book = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
                continue;
            }
            self.add_progress(&mut book);
            let wanted = std::mem::take(&mut book.wanted);
            book.raising = wanted.len();
            drop(book);
            let raised = self.anchor.raise(self.instance, &wanted);
            book = self.lock();
            book.raising = 0;
            match raised {
                Ok(()) => book = self.raised(book, &wanted),
                Err(error) => book = self.failed(book, wanted, &error),
            }
        }
    }

    fn raised<'b>(&'b self, mut book: MutexGuard<'b, Book>, raised: &Ceilings) -> MutexGuard<'b, Book> {
        for (name, ceiling) in raised {
            let sure = book.sure.entry(name.clone()).or_default();
            *sure = (*sure).max(*ceiling);
        }
        if book.failing.take().is_some() {
            tracing::info!("the anchor of the key store is raised again");
        }
        for (pool, lane) in std::mem::take(&mut book.waiting) {
            self.shared.ask_for_lease(pool, lane);
        }
        book
    }

    fn failed<'b>(
        &'b self,
        mut book: MutexGuard<'b, Book>,
        wanted: Ceilings,
        error: &AnchorError,
    ) -> MutexGuard<'b, Book> {
        if book.failing.is_none() {
            tracing::warn!(%error, "the anchor of the key store is not raised: no key is handed out beyond it");
        }
        book.failing = Some(error.to_string());
        for (name, ceiling) in wanted {
            let again = book.wanted.entry(name).or_default();
            *again = (*again).max(ceiling);
        }
        let ending = self.changed.wait_timeout_while(book, RETRY, |book| !book.ending);
        ending.unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_later_generation_has_a_higher_ordinal() {
        for (generation, position) in [(0, 0), (0, 7), (1, 0), (GENERATIONS_MAX - 1, (1 << POSITION_BITS) - 1)] {
            assert_eq!(place(ordinal(generation, position)), (generation, position));
        }
        assert!(ordinal(1, 0) > ordinal(0, (1 << POSITION_BITS) - 1));
    }
}
