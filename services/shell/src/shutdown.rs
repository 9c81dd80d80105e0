//! Ending in order: a signal asks everything to stop, and a deadline sees to it that it does.

use std::future::Future;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Time that services get between being asked to stop and being stopped.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Two tokens: `requested` asks for draining, `expired` says that the time for it is over.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: CancellationToken,
    expired: CancellationToken,
    drain: Duration,
}

/// The work did not end within the drain deadline and was dropped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not everything stopped within {} s", .0.as_secs_f64())]
pub struct DrainExpired(pub Duration);

impl Shutdown {
    /// One that only [`request`](Self::request) triggers: for services that run as tasks, and for tests.
    pub fn new(drain: Duration) -> Self {
        Self { requested: CancellationToken::new(), expired: CancellationToken::new(), drain }
    }

    /// One that SIGTERM, SIGINT or SIGHUP triggers; a second signal ends the draining at once.
    pub fn on_signals(drain: Duration) -> std::io::Result<Self> {
        let shutdown = Self::new(drain);
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hangup = hangups()?;
        let (requested, expired) = (shutdown.requested.clone(), shutdown.expired.clone());
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                Some(_) = OptionFuture::from(hangup.as_mut().map(Signal::recv)) => "SIGHUP",
            };
            tracing::info!(signal = name, "stopping");
            requested.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                Some(_) = OptionFuture::from(hangup.as_mut().map(Signal::recv)) => {}
            }
            tracing::warn!("a second signal: not draining any longer");
            expired.cancel();
        });
        Ok(shutdown)
    }

    /// Asks everything to stop, as a signal would.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// The token that services watch.
    pub fn token(&self) -> CancellationToken {
        self.requested.clone()
    }

    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Runs `work` to its end, but no longer than the drain deadline after the request; then `work` is dropped.
    pub async fn run<W: Future>(&self, work: W) -> Result<W::Output, DrainExpired> {
        let deadline = async {
            self.requested.cancelled().await;
            tokio::select! {
                () = tokio::time::sleep(self.drain) => {}
                () = self.expired.cancelled() => {}
            }
        };
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = deadline => Err(DrainExpired(self.drain)),
        }
    }
}

/// The SIGHUP of a terminal that goes; nothing where whoever started this process has it ignored, as `nohup` does.
pub fn hangups() -> std::io::Result<Option<Signal>> {
    if hangup_is_ignored() { Ok(None) } else { signal(SignalKind::hangup()).map(Some) }
}

/// As the kernel tells; where it does not, a hangup counts.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal n is bit n - 1; SIGHUP is 1.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_drains_in_time_returns_its_result() {
        let shutdown = Shutdown::new(Duration::from_secs(5));
        let token = shutdown.token();
        let work = async move {
            token.cancelled().await;
            7
        };
        shutdown.request();
        assert_eq!(shutdown.run(work).await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_does_not_stop_is_dropped_at_the_deadline() {
        let shutdown = Shutdown::new(Duration::from_millis(20));
        let run = shutdown.run(std::future::pending::<()>());
        shutdown.request();
        assert_eq!(run.await, Err(DrainExpired(Duration::from_millis(20))));
    }

    #[tokio::test]
    async fn nothing_is_dropped_before_it_is_asked_to_stop() {
        let shutdown = Shutdown::new(Duration::ZERO);
        let work = tokio::time::sleep(Duration::from_millis(30));
        assert_eq!(shutdown.run(work).await, Ok(()));
    }
}
