//! How one service reaches another without knowing whether that is a task beside it or a container far away.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::duplex::Duplex;

/// Opens streams to one peer.
pub trait Dial<S, R>: Send + Sync {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<S, R>>>;
}

/// Opens streams to a service that is told who connects, where both run as tasks of this process.
pub struct NamedDial<S, R> {
    name: String,
    door: Door<(String, Duplex<R, S>)>,
    capacity: usize,
}

impl<S, R> NamedDial<S, R> {
    /// `capacity` messages may wait in each direction of a stream.
    pub fn through(name: &str, door: Door<(String, Duplex<R, S>)>, capacity: usize) -> Self {
        Self { name: name.to_owned(), door, capacity }
    }
}

impl<S: Send + 'static, R: Send + 'static> Dial<S, R> for NamedDial<S, R> {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<S, R>>> {
        Box::pin(async move {
            let (ours, theirs) = Duplex::pair(self.capacity);
            self.door.bring((self.name.clone(), theirs)).await?;
            Ok(ours)
        })
    }
}

/// Where a service that runs as a task takes what others bring. It stays when the service ends and starts again.
pub struct Door<T> {
    inner: Arc<Mutex<Inner<T>>>,
    waiting: usize,
}

struct Inner<T> {
    sender: mpsc::Sender<T>,
    /// Until the service opens the door for the first time.
    receiver: Option<mpsc::Receiver<T>>,
}

impl<T> Door<T> {
    /// `waiting` may wait to be taken up.
    pub fn new(waiting: usize) -> Self {
        let (sender, receiver) = mpsc::channel(waiting);
        Self { inner: Arc::new(Mutex::new(Inner { sender, receiver: Some(receiver) })), waiting }
    }

    /// What is brought from here on; the first time also what was brought before.
    pub fn open(&self) -> mpsc::Receiver<T> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = inner.receiver.take() {
            return receiver;
        }
        let (sender, receiver) = mpsc::channel(self.waiting);
        inner.sender = sender;
        receiver
    }

    /// Brings something; an error where the service does not run.
    pub async fn bring(&self, what: T) -> Result<()> {
        let sender = self.inner.lock().unwrap_or_else(PoisonError::into_inner).sender.clone();
        if sender.send(what).await.is_err() {
            bail!("the service is not running");
        }
        Ok(())
    }
}

impl<T> Clone for Door<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), waiting: self.waiting }
    }
}

/// Reaches a service that runs as a task of this process: it takes the other end of each stream from a queue.
pub struct MemoryDial<S, R> {
    door: Door<Duplex<R, S>>,
    capacity: usize,
}

impl<S, R> MemoryDial<S, R> {
    /// `capacity` messages may wait in each direction of a stream.
    pub fn new(listener: mpsc::Sender<Duplex<R, S>>, capacity: usize) -> Self {
        let inner = Inner { sender: listener, receiver: None };
        Self::through(Door { inner: Arc::new(Mutex::new(inner)), waiting: 1 }, capacity)
    }

    /// To a service that may end and start again.
    pub fn through(door: Door<Duplex<R, S>>, capacity: usize) -> Self {
        Self { door, capacity }
    }
}

impl<S: Send + 'static, R: Send + 'static> Dial<S, R> for MemoryDial<S, R> {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<S, R>>> {
        Box::pin(async move {
            let (ours, theirs) = Duplex::pair(self.capacity);
            self.door.bring(theirs).await?;
            Ok(ours)
        })
    }
}
