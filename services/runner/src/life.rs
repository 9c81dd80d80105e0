//! Services as tasks of this process: kept going as a supervisor of processes would.

use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use shell::disk;
use shell::fault::Desk;
use tokio_util::sync::CancellationToken;

/// Wait before a service that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// A service that has opened what it needs, to its end.
pub type Serving = BoxFuture<'static, Result<()>>;

/// A service and what keeps it.
pub struct Life<B> {
    name: String,
    /// Only where the topology allows faults.
    desk: Option<Desk>,
    stop: CancellationToken,
    /// Starts the service, from the beginning. Everything that a start leaves behind ends with the token that it gets.
    begin: B,
    life: CancellationToken,
    run: Option<Serving>,
}

impl<B> Life<B>
where
    B: FnMut(CancellationToken) -> BoxFuture<'static, Result<Serving>> + Send,
{
    /// Starts the service for the first time: what it cannot open now ends the network.
    pub async fn start(name: &str, desk: Option<Desk>, stop: &CancellationToken, mut begin: B) -> Result<Self> {
        let life = stop.child_token();
        let run = Some(begin(life.clone()).await?);
        Ok(Self { name: name.to_owned(), desk, stop: stop.clone(), begin, life, run })
    }

    /// Runs until the service ends in order. One that a fault has stopped, or that had no room on its disk, starts
    /// again; any other failure is one of the network.
    pub async fn keep(mut self) -> Result<()> {
        loop {
            let Some(run) = self.run.take() else { return Ok(()) };
            let crashed = async {
                match &self.desk {
                    Some(desk) => desk.crashed().await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = run => Some(ended),
                () = crashed => None,
            };
            self.life.cancel();
            match ended {
                Some(Err(error)) if disk::is_full(&error) => {
                    tracing::warn!(service = self.name, "no room on the disk: {}", shell::chain(&error));
                }
                Some(ended) => return ended,
                None => tracing::warn!(service = self.name, "stopped by a fault"),
            }
            self.begin_again().await;
        }
    }

    /// Tries until it succeeds, or the network ends.
    async fn begin_again(&mut self) {
        let released = async {
            if let Some(desk) = &self.desk {
                desk.released().await;
            }
        };
        tokio::select! {
            () = released => {}
            () = self.stop.cancelled() => return,
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(RESTART_PAUSE) => {}
                () = self.stop.cancelled() => return,
            }
            self.life = self.stop.child_token();
            match (self.begin)(self.life.clone()).await {
                Ok(run) => {
                    tracing::warn!(service = self.name, "started again");
                    self.run = Some(run);
                    return;
                }
                // What the life before still holds is let go soon; room on a disk may take longer.
                Err(error) => tracing::debug!(service = self.name, "not started yet: {}", shell::chain(&error)),
            }
            self.life.cancel();
        }
    }
}
