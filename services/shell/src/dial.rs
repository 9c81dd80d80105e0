//! How one service reaches another without knowing whether that is a task beside it or a container far away.

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::duplex::Duplex;

/// Opens streams to one peer.
pub trait Dial<S, R>: Send + Sync {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<S, R>>>;
}

/// Reaches a service that runs as a task of this process: it takes the other end of each stream from a queue.
pub struct MemoryDial<S, R> {
    listener: mpsc::Sender<Duplex<R, S>>,
    capacity: usize,
}

impl<S, R> MemoryDial<S, R> {
    /// `capacity` messages may wait in each direction of a stream.
    pub fn new(listener: mpsc::Sender<Duplex<R, S>>, capacity: usize) -> Self {
        Self { listener, capacity }
    }
}

impl<S: Send + 'static, R: Send + 'static> Dial<S, R> for MemoryDial<S, R> {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<S, R>>> {
        Box::pin(async move {
            let (ours, theirs) = Duplex::pair(self.capacity);
            if self.listener.send(theirs).await.is_err() {
                bail!("the service is not running any more");
            }
            Ok(ours)
        })
    }
}
