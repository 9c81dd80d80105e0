//! A service in another process that is asked now and then.

use std::sync::Arc;
use std::time::Duration;

use shell::{Connector, Credentials, Endpoint};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Start;

/// One channel, which is opened again after a question without an answer.
#[derive(Clone)]
pub(crate) struct Asked {
    connector: Connector,
    channel: Arc<Mutex<Option<Channel>>>,
    patience: Duration,
}

impl Asked {
    /// `patience` is the time for a connection, and for an answer.
    pub fn new(start: &Start<'_>, name: &str, credentials: &Credentials, patience: Duration) -> Self {
        let endpoint = Endpoint::in_run_dir(&start.folders.run, name);
        let connector = Connector::new(&endpoint, name, credentials).deadline(patience);
        Self { connector, channel: Arc::default(), patience }
    }

    /// The answer; nothing where the service is away.
    pub async fn ask<T, F>(&self, question: impl FnOnce(Channel) -> F) -> Option<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut channel = self.channel.lock().await;
        if channel.is_none() {
            *channel = self.connector.clone().connect().await.ok();
        }
        match tokio::time::timeout(self.patience, question(channel.clone()?)).await {
            Ok(Ok(answer)) => Some(answer.into_inner()),
            _ => {
                *channel = None;
                None
            }
        }
    }
}
