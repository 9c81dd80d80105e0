//! Between callers and the one writer: requests, their answers, and the groups that share a commit.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::oneshot;

use crate::StoreError;
use crate::ahead::ReadAhead;
use crate::engine::Engine;
use crate::face::Face;
use crate::journals::Gate;

/// Most requests and key bytes that wait for the writer. Beyond it a request is refused as busy.
const QUEUE_REQUESTS_MAX: usize = 16_384;
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Told whether the group of a request is on the disk.
pub(crate) type Answer = Box<dyn FnOnce(Option<&StoreError>) + Send>;
type Request = Box<dyn FnOnce(&mut Engine) -> (Answer, Option<StoreError>) + Send>;

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    bytes: usize,
    leases: BTreeSet<(usize, usize)>,
    closing: bool,
}

/// Requests that share a commit.
pub(crate) struct Group {
    pub requests: Vec<Request>,
    pub leases: BTreeSet<(usize, usize)>,
    pub closing: bool,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub requests: AtomicU64,
    pub database_commits: AtomicU64,
    pub journal_commits: AtomicU64,
    pub journal_sync_ns: AtomicU64,
    pub checkpoints: AtomicU64,
    pub leases: AtomicU64,
    pub stalls: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    faces: RwLock<HashMap<String, (usize, Arc<Face>)>>,
    stopped: OnceLock<StoreError>,
    pub ahead: ReadAhead,
    pub counts: Counts,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn face(&self, peer: &str) -> Option<(usize, Arc<Face>)> {
        self.faces.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(peer).cloned()
    }

    pub fn peers(&self) -> Vec<String> {
        let mut peers: Vec<_> =
            self.faces.read().unwrap_or_else(|poisoned| poisoned.into_inner()).keys().cloned().collect();
        peers.sort();
        peers
    }

    pub fn add_face(&self, peer: &str, number: usize, face: Arc<Face>) {
        let mut faces = self.faces.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        faces.insert(peer.to_owned(), (number, face));
    }

    pub fn stopped(&self) -> Option<&StoreError> {
        self.stopped.get()
    }

    /// Nothing is served from here on.
    pub fn stop(&self, why: &StoreError) {
        let why = self.stopped.get().unwrap_or(why);
        let faces: Vec<_> = {
            let faces = self.faces.read().unwrap_or_else(|poisoned| poisoned.into_inner());
            faces.values().map(|(_, face)| Arc::clone(face)).collect()
        };
        faces.iter().for_each(|face| face.stop(why));
        // Whoever reads this finds that nothing can be drawn any more.
        let _ = self.stopped.set(why.clone());
        let abandoned = std::mem::take(&mut self.queue().requests);
        self.wake.notify_all();
        drop(abandoned);
    }

    /// Hands a request to the writer. `bytes` is what it keeps in memory while it waits.
    pub fn submit<T: Send + 'static>(
        self: &Arc<Self>,
        bytes: usize,
        work: impl FnOnce(&mut Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        let (sender, receiver) = oneshot::channel();
        let pending = Pending { receiver, shared: Arc::clone(self) };
        let request: Request = Box::new(move |engine| {
            let result = work(engine);
            let fatal = result.as_ref().err().filter(|error| error.is_fatal()).cloned();
            let answer: Answer = Box::new(move |failed| {
                // A caller that went away need not know.
                let _ = sender.send(failed.map_or(result, |error| Err(error.clone())));
            });
            (answer, fatal)
        });
        let mut queue = self.queue();
        let full = queue.requests.len() >= QUEUE_REQUESTS_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX;
        if queue.closing || self.stopped().is_some() {
            return pending;
        }
        if full {
            return Pending::settled(Err(StoreError::Busy), self);
        }
        queue.bytes += bytes;
        queue.requests.push(request);
        drop(queue);
        self.wake.notify_one();
        pending
    }

    pub fn ask_for_lease(&self, pool: usize, lane: usize) {
        self.queue().leases.insert((pool, lane));
        self.wake.notify_one();
    }

    pub fn close(&self) {
        self.queue().closing = true;
        self.wake.notify_one();
    }

    /// The next requests: all that came until a journal was free to take them.
    pub fn next_group(&self, gate: &Gate) -> Group {
        let mut queue = self.queue();
        while queue.requests.is_empty() && queue.leases.is_empty() && !queue.closing && self.stopped().is_none() {
            queue = self.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        drop(queue);
        gate.wait();
        let mut queue = self.queue();
        queue.bytes = 0;
        Group {
            requests: std::mem::take(&mut queue.requests),
            leases: std::mem::take(&mut queue.leases),
            closing: queue.closing,
        }
    }
}

/// An answer that is on its way: it comes once what it says is on the disk.
///
/// A future; without a runtime, [`Pending::wait`]. Dropping it does not take the request back: key that was redeemed
/// is gone.
#[must_use = "the request runs all the same, but its failure goes unseen"]
pub struct Pending<T> {
    receiver: oneshot::Receiver<Result<T, StoreError>>,
    shared: Arc<Shared>,
}

impl<T> Pending<T> {
    pub(crate) fn settled(answer: Result<T, StoreError>, shared: &Arc<Shared>) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is right here.
        let _ = sender.send(answer);
        Self { receiver, shared: Arc::clone(shared) }
    }

    /// Blocks the thread until the answer is there. Not for a thread that others need.
    pub fn wait(self) -> Result<T, StoreError> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut pending = pin!(self);
        loop {
            match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|received| match received {
            Ok(result) => result,
            Err(_) => Err(self.shared.stopped().cloned().unwrap_or(StoreError::Closed)),
        })
    }
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}
