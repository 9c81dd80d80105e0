//! Ceilings that are kept by who controls the network: a service says which it wants, and goes on once it was told that
//! they are kept.
//!
//! `control` calls; a call waits here until there is something to say, so that a service that uses nothing costs
//! nothing. What control says is kept takes the place of what was known before.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anchor::{Anchor, AnchorError, COUNTS_MAX, Ceilings, Instance, NAME_BYTES_MAX};
use proto::anchor::v1::anchor_server::{Anchor as AnchorRpc, AnchorServer};
use proto::anchor::v1::{ExchangeRequest, ExchangeResponse, StoreCeilings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Control may be away for ten minutes without a service having to wait for it, at rates at which the usual chunk is good
/// for a minute and more.
const CHUNKS: u64 = 8;
/// A ceiling is waited for so long; then it is an error, and asked for again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A store that closes waits so long for control to be told; then the ceilings stay, which costs a chunk.
const SETTLING: Duration = Duration::from_secs(3);
/// Longest time that a call waits for something to say.
const CALL_MAX: Duration = Duration::from_secs(60);
/// Stores of one service, those that are lost among them.
pub const STORES_MAX: usize = 64;

/// What one service's stores count, as `control` keeps it.
#[derive(Debug, Default)]
pub struct ControlAnchor {
    book: Mutex<Book>,
    changed: Condvar,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Book {
    /// Control has said what it keeps.
    told: bool,
    kept: BTreeMap<Instance, Ceilings>,
    wanted: BTreeMap<Instance, Wanted>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    ceilings: Ceilings,
    /// The store has closed: these are its counts.
    settled: bool,
}

impl Wanted {
    fn is_kept(&self, kept: &Ceilings) -> bool {
        if self.settled {
            return self.ceilings == *kept;
        }
        covers(kept, &self.ceilings)
    }
}

fn raise(ceilings: &mut Ceilings, to: &Ceilings) {
    for (name, ceiling) in to {
        let ceilings = ceilings.entry(name.clone()).or_default();
        *ceilings = (*ceilings).max(*ceiling);
    }
}

fn covers(kept: &Ceilings, wanted: &Ceilings) -> bool {
    wanted.iter().all(|(name, ceiling)| kept.get(name).is_some_and(|kept| kept >= ceiling))
}

impl Book {
    fn learn(&mut self, kept: BTreeMap<Instance, Ceilings>) {
        self.told = true;
        let before = std::mem::replace(&mut self.kept, kept);
        for (store, ceilings) in before {
            // What was kept and is not any more is asked for again: who keeps it was put back itself, or lost it.
            let closing = self.wanted.get(&store).is_some_and(|wanted| wanted.settled);
            let regressed = !self.kept.get(&store).is_some_and(|kept| covers(kept, &ceilings));
            if regressed && !closing {
                raise(&mut self.wanted.entry(store).or_default().ceilings, &ceilings);
            }
        }
        let kept = &self.kept;
        self.wanted.retain(|store, wanted| !kept.get(store).is_some_and(|kept| wanted.is_kept(kept)));
    }

    fn wishes(&self) -> Vec<StoreCeilings> {
        let wish = |(store, wanted): (&Instance, &Wanted)| StoreCeilings {
            instance: store.bytes().to_vec().into(),
            ceilings: wanted.ceilings.clone().into_iter().collect(),
            settled: wanted.settled,
        };
        self.wanted.iter().map(wish).collect()
    }
}

impl ControlAnchor {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the book is as it should be; false when that took too long.
    fn wait_until(&self, patience: Duration, is_so: impl Fn(&Book) -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut book = self.book();
        while !is_so(&book) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            book = self.changed.wait_timeout(book, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn want(&self, store: Instance, change: impl FnOnce(&mut Wanted, Option<&Ceilings>)) -> Result<(), AnchorError> {
        let mut book = self.book();
        let Book { kept, wanted, .. } = &mut *book;
        if wanted.len() >= STORES_MAX && !wanted.contains_key(&store) {
            return Err(AnchorError::TooMuch);
        }
        change(wanted.entry(store).or_default(), kept.get(&store));
        drop(book);
        self.news.send_replace(());
        Ok(())
    }

    /// One round with control: takes what it keeps, and gives what is wanted, once there is something.
    pub async fn exchange(
        &self,
        kept: BTreeMap<Instance, Ceilings>,
        patience: Duration,
        stop: &CancellationToken,
    ) -> Vec<StoreCeilings> {
        let mut news = self.news.subscribe();
        self.book().learn(kept);
        self.changed.notify_all();
        let patience = tokio::time::sleep(patience);
        tokio::pin!(patience);
        let mut stopping = false;
        loop {
            news.mark_unchanged();
            let wishes = self.book().wishes();
            if !wishes.is_empty() {
                return wishes;
            }
            tokio::select! {
                // The sender lives in `self`, so this cannot fail.
                _ = news.changed() => {}
                () = stop.cancelled(), if !stopping => {
                    // Stores that close have one thing more to say.
                    stopping = true;
                    patience.as_mut().reset(tokio::time::Instant::now() + SETTLING);
                }
                () = &mut patience => return Vec::new(),
            }
        }
    }

    /// Waits until control has said for the first time what it keeps.
    pub async fn told(&self, stop: &CancellationToken) -> bool {
        let mut told = self.news.subscribe();
        loop {
            if self.book().told {
                return true;
            }
            tokio::select! {
                _ = told.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = stop.cancelled() => return false,
            }
        }
    }
}

impl Anchor for ControlAnchor {
    fn read(&self, store: Instance) -> Result<Option<Ceilings>, AnchorError> {
        if !self.wait_until(PATIENCE, |book| book.told) {
            return Err(away());
        }
        Ok(self.book().kept.get(&store).cloned())
    }

    fn raise(&self, store: Instance, ceilings: &Ceilings) -> Result<(), AnchorError> {
        check(ceilings)?;
        if self.book().kept.get(&store).is_some_and(|kept| covers(kept, ceilings)) {
            return Ok(());
        }
        self.want(store, |wanted, kept| {
            if wanted.settled {
                *wanted = Wanted::default();
            }
            kept.into_iter().chain([ceilings]).for_each(|to| raise(&mut wanted.ceilings, to));
        })?;
        let is_kept = |book: &Book| book.kept.get(&store).is_some_and(|kept| covers(kept, ceilings));
        if self.wait_until(PATIENCE, is_kept) { Ok(()) } else { Err(away()) }
    }

    fn settle(&self, store: Instance, counts: &Ceilings) -> Result<(), AnchorError> {
        check(counts)?;
        if self.book().kept.get(&store) == Some(counts) {
            return Ok(());
        }
        self.want(store, |wanted, _| *wanted = Wanted { ceilings: counts.clone(), settled: true })?;
        let is_kept = |book: &Book| book.kept.get(&store) == Some(counts);
        if self.wait_until(SETTLING, is_kept) { Ok(()) } else { Err(away()) }
    }

    fn chunk(&self, usual: u64) -> u64 {
        usual.saturating_mul(CHUNKS)
    }
}

fn away() -> AnchorError {
    AnchorError::Unreachable("the operator has not said in time that it keeps the ceilings".to_owned())
}

fn check(ceilings: &Ceilings) -> Result<(), AnchorError> {
    let too_long = |name: &String| name.len() > NAME_BYTES_MAX;
    if ceilings.len() > COUNTS_MAX || ceilings.keys().any(too_long) {
        return Err(AnchorError::TooMuch);
    }
    Ok(())
}

/// What crosses the wire, as both sides read it.
pub fn read_stores(stores: Vec<StoreCeilings>) -> Result<BTreeMap<Instance, (Ceilings, bool)>, String> {
    if stores.len() > STORES_MAX {
        return Err(format!("more than {STORES_MAX} stores of one service"));
    }
    let one = |store: StoreCeilings| {
        let bytes = <[u8; Instance::BYTES]>::try_from(&store.instance[..]);
        let bytes = bytes.map_err(|_| format!("an instance has {} bytes", Instance::BYTES))?;
        let ceilings: Ceilings = store.ceilings.into_iter().collect();
        check(&ceilings).map_err(|error| error.to_string())?;
        Ok((Instance::from_bytes(bytes), (ceilings, store.settled)))
    };
    stores.into_iter().map(one).collect()
}

/// Answers `control` for one service.
#[derive(Clone)]
pub struct AnchorService {
    anchor: Arc<ControlAnchor>,
    stop: CancellationToken,
}

impl AnchorService {
    pub fn of(anchor: &Arc<ControlAnchor>, stop: &CancellationToken) -> AnchorServer<Self> {
        AnchorServer::new(Self { anchor: anchor.clone(), stop: stop.clone() })
    }
}

#[tonic::async_trait]
impl AnchorRpc for AnchorService {
    async fn exchange(&self, request: Request<ExchangeRequest>) -> Result<Response<ExchangeResponse>, Status> {
        let ExchangeRequest { kept, patience_ms } = request.into_inner();
        let kept = read_stores(kept).map_err(Status::invalid_argument)?;
        let kept = kept.into_iter().map(|(store, (ceilings, _))| (store, ceilings)).collect();
        let patience = Duration::from_millis(patience_ms.into()).min(CALL_MAX);
        let wanted = self.anchor.exchange(kept, patience, &self.stop).await;
        Ok(Response::new(ExchangeResponse { wanted }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ceilings(pairs: &[(&str, u64)]) -> Ceilings {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// Control, as far as it keeps what it is told.
    async fn keep(anchor: Arc<ControlAnchor>, stop: CancellationToken, rounds: usize) -> BTreeMap<Instance, Ceilings> {
        let mut kept: BTreeMap<Instance, Ceilings> = BTreeMap::new();
        for _ in 0..rounds {
            let wanted = anchor.exchange(kept.clone(), Duration::from_secs(5), &stop).await;
            for (store, (ceilings, _)) in read_stores(wanted).unwrap() {
                kept.insert(store, ceilings);
            }
        }
        kept
    }

    #[tokio::test]
    async fn a_ceiling_is_raised_when_control_says_that_it_keeps_it() {
        let (anchor, store) = (Arc::new(ControlAnchor::default()), Instance::draw().unwrap());
        let control = tokio::spawn(keep(anchor.clone(), CancellationToken::new(), 3));
        let using = anchor.clone();
        tokio::task::spawn_blocking(move || {
            assert_eq!(using.read(store).unwrap(), None);
            using.raise(store, &ceilings(&[("send", 8), ("receive", 3)])).unwrap();
            using.raise(store, &ceilings(&[("send", 4)])).unwrap();
            using.raise(store, &ceilings(&[("receive", 9)])).unwrap();
            assert_eq!(using.read(store).unwrap(), Some(ceilings(&[("send", 8), ("receive", 9)])));
            // What control is told last it is told with the answer, and the store does not wait for more.
            let _ = using.settle(store, &ceilings(&[("send", 5)]));
        })
        .await
        .unwrap();
        assert_eq!(control.await.unwrap(), [(store, ceilings(&[("send", 5)]))].into());
    }

    #[tokio::test]
    async fn what_control_has_lost_is_asked_for_again() {
        let (anchor, store, stop) = (ControlAnchor::default(), Instance::draw().unwrap(), CancellationToken::new());
        let kept = [(store, ceilings(&[("send", 8)]))].into();
        assert!(anchor.exchange(kept, Duration::ZERO, &stop).await.is_empty());
        let wanted = read_stores(anchor.exchange(BTreeMap::new(), Duration::ZERO, &stop).await).unwrap();
        assert_eq!(wanted, [(store, (ceilings(&[("send", 8)]), false))].into());
    }

    #[tokio::test]
    async fn a_call_that_finds_nothing_wanted_waits_and_ends_with_the_service() {
        let (anchor, stop) = (ControlAnchor::default(), CancellationToken::new());
        assert!(!anchor.book().told);
        let started = Instant::now();
        assert!(anchor.exchange(BTreeMap::new(), Duration::from_millis(50), &stop).await.is_empty());
        assert!(started.elapsed() >= Duration::from_millis(50));
        assert!(anchor.told(&stop).await);
        stop.cancel();
        assert!(anchor.exchange(BTreeMap::new(), Duration::from_secs(600), &stop).await.is_empty());
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_has_no_limit_or_no_sense_is_refused() {
        let store = |bytes: usize| StoreCeilings { instance: vec![7; bytes].into(), ..StoreCeilings::default() };
        assert!(read_stores(vec![store(16)]).is_ok());
        assert!(read_stores(vec![store(15)]).is_err());
        assert!(read_stores((0..65).map(|_| store(16)).collect()).is_err());
        let long = StoreCeilings { ceilings: [("x".repeat(NAME_BYTES_MAX + 1), 1)].into(), ..store(16) };
        assert!(read_stores(vec![long]).is_err());
    }
}
