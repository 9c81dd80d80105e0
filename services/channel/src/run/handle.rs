//! What others may do with an endpoint that runs.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use topology::plan::ChannelConfig;
use zeroize::Zeroizing;

use crate::Status;
use crate::fault::Faults;

/// What is asked of an endpoint while it runs.
#[derive(Clone)]
pub struct Handle {
    pub(super) status: Arc<Status>,
    pub(super) faults: Option<Arc<Faults>>,
    requests: mpsc::Sender<Request>,
}

pub(crate) struct Request {
    pub(super) secret: Zeroizing<Vec<u8>>,
    /// `None` for the one after the present one.
    pub(super) generation: Option<u64>,
    /// Identity of who asks.
    pub(super) by: String,
    pub(super) answer: oneshot::Sender<Result<u64, RekeyRefused>>,
}

/// Why a fresh secret was not put in.
#[derive(Debug, thiserror::Error)]
pub enum RekeyRefused {
    #[error("a session is open: the reserve is not exhausted")]
    SessionOpen,
    #[error("{0}")]
    Invalid(String),
    #[error("the channel is stopping")]
    Stopping,
}

impl Handle {
    pub(crate) fn new(config: &ChannelConfig) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(1);
        let faults = config.faults_allowed.then(|| Arc::new(Faults::default()));
        (Self { status: Arc::new(Status::new(&config.link)), faults, requests }, receiver)
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Only where the topology allows faults.
    pub fn faults(&self) -> Option<&Faults> {
        self.faults.as_deref()
    }

    pub(crate) fn shared_faults(&self) -> Option<Arc<Faults>> {
        self.faults.clone()
    }

    /// Replaces the reserve by a fresh secret; the peer's end must get the same. Tells how many tags it makes.
    pub async fn rekey(&self, secret: Zeroizing<Vec<u8>>) -> Result<u64, RekeyRefused> {
        self.rekey_as(secret, None, "its own process").await
    }

    /// As [`Self::rekey`], for a caller of that identity, where the secret has a number; without one it is the one after
    /// the present one.
    pub async fn rekey_as(
        &self,
        secret: Zeroizing<Vec<u8>>,
        generation: Option<u64>,
        by: &str,
    ) -> Result<u64, RekeyRefused> {
        let (answer, answered) = oneshot::channel();
        let request = Request { secret, generation, by: by.to_owned(), answer };
        self.requests.send(request).await.map_err(|_| RekeyRefused::Stopping)?;
        answered.await.map_err(|_| RekeyRefused::Stopping)?
    }
}
