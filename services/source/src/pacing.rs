//! A source's place in the network's time: it tells the pacer where it is, and goes as far as it is allowed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use proto::pace::v1::pacer_client::PacerClient;
use proto::pace::v1::report::Report as What;
use proto::pace::v1::{Emitting, Grant, Idle, Join, Report};
use shell::Connector;
use shell::dial::Dial;
use shell::duplex::{self, Duplex};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::Status;

/// The way to the pacer.
pub type PacerDial = Arc<dyn Dial<Report, Grant>>;

/// Messages that may wait in the stream to the pacer.
const CAPACITY: usize = 2;
/// Wait before a pacer that went is looked for again.
const RETRY: Duration = Duration::from_millis(200);
/// A source tells how far it is so often in the time that it may be ahead.
const REPORTS_PER_SKEW: u64 = 4;

/// Reaches the pacer over gRPC.
pub struct PacerConnector(pub Connector);

impl Dial<Report, Grant> for PacerConnector {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<Report, Grant>>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(PacerClient::new(channel));
            let open = duplex::open(CAPACITY, |outgoing| async move { client.keep(outgoing).await });
            open.await.context("open a stream to the pacer")
        })
    }
}

/// This source and the network's time.
pub struct NetworkTime {
    /// Of the present emission.
    number: u64,
    place: watch::Sender<What>,
    /// What the pacer said last.
    granted: watch::Receiver<Option<Grant>>,
    reported_ps: u64,
    /// End of what was emitted.
    emitted_ps: u64,
    status: Arc<Status>,
    _life: DropGuard,
}

impl NetworkTime {
    /// Keeps a stream to the pacer until `stop`, or until this is dropped.
    pub fn keep(pacer: PacerDial, status: Arc<Status>, stop: &CancellationToken) -> Self {
        let (place, places) = watch::channel(What::Idle(Idle::default()));
        let (granting, granted) = watch::channel(None);
        let (shown, life) = (status.clone(), stop.child_token());
        let ended = life.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = follow(pacer, places, granting, &shown) => {}
                () = ended.cancelled() => {}
            }
        });
        Self { number: 0, place, granted, reported_ps: 0, emitted_ps: 0, status, _life: life.drop_guard() }
    }

    /// Begins an emission whose outputs ask for this time, and says where it begins: no earlier than where the network
    /// is, and at the very beginning once the other sources are there.
    pub async fn join(&mut self, at_ps: u64) -> Result<u64> {
        self.number += 1;
        let number = self.number;
        self.place.send_replace(What::Join(Join { number, at_ps }));
        let waiting = Waiting::of(&self.status);
        let start_ps = self.granted(|grant| grant.number == number).await?.start_ps.max(at_ps);
        drop(waiting);
        self.reported_ps = start_ps;
        Ok(start_ps)
    }

    /// Waits until the epoch from `from_ps` to `end_ps` may be emitted; an error where the network went on without this
    /// source.
    pub async fn allow(&mut self, from_ps: u64, end_ps: u64) -> Result<()> {
        let number = self.number;
        self.emitted_ps = from_ps;
        if self.now(end_ps)? {
            let skew_ps = self.granted.borrow().map_or(0, |grant| grant.skew_ps);
            if from_ps.saturating_sub(self.reported_ps) >= skew_ps / REPORTS_PER_SKEW {
                self.report(from_ps, 0);
            }
            return Ok(());
        }
        self.report(from_ps, end_ps);
        let _waiting = Waiting::of(&self.status);
        self.granted(|grant| grant.number == number && (grant.behind || grant.limit_ps >= end_ps)).await?;
        self.now(end_ps).map(|_| ())
    }

    /// Waits for a grant.
    async fn granted(&mut self, is_it: impl Fn(&Grant) -> bool) -> Result<Grant> {
        let granted = self.granted.wait_for(|grant| grant.as_ref().is_some_and(&is_it)).await;
        let granted = granted.ok().and_then(|grant| *grant);
        granted.context("wait for the pacer: nobody looks for it any more")
    }

    /// Whether what ends then may be emitted now.
    fn now(&self, end_ps: u64) -> Result<bool> {
        let grant = *self.granted.borrow();
        match grant.filter(|grant| grant.number == self.number) {
            Some(grant) if grant.behind => bail!("the network went on without this link, which begins again"),
            Some(grant) => Ok(grant.limit_ps >= end_ps),
            None => Ok(false),
        }
    }

    fn report(&mut self, reached_ps: u64, wants_ps: u64) {
        self.reported_ps = reached_ps;
        self.place.send_replace(What::Emitting(Emitting { number: self.number, reached_ps, wants_ps }));
    }

    /// Nothing is emitted any more: the run is over behind the epoch that ends then, or, without that, the session
    /// behind the last that was allowed.
    pub fn leave(&mut self, end_ps: Option<u64>) {
        let idle = Idle { reached_ps: end_ps.unwrap_or(self.emitted_ps), ended: end_ps.is_some() };
        self.place.send_if_modified(|place| {
            let is_new = match place {
                What::Idle(before) => idle.ended && !before.ended,
                _ => true,
            };
            if is_new {
                *place = What::Idle(idle);
            }
            is_new
        });
    }
}

/// Shown for as long as it lives.
struct Waiting(Arc<Status>);

impl Waiting {
    fn of(status: &Arc<Status>) -> Self {
        status.update(|s| s.waits_for_network = true);
        Self(status.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.update(|s| s.waits_for_network = false);
    }
}

/// One stream to the pacer after the other.
async fn follow(
    pacer: PacerDial,
    mut places: watch::Receiver<What>,
    granting: watch::Sender<Option<Grant>>,
    status: &Status,
) {
    loop {
        match pacer.dial().await {
            Ok(stream) => {
                info!("the pacer is there");
                status.update(|s| s.pacer_away = false);
                speak(stream, &mut places, &granting, status).await;
                status.update(|s| s.pacer_away = true);
                if !matches!(*places.borrow(), What::Idle(_)) {
                    warn!("the pacer has gone: the light goes on to the limit that it gave");
                }
            }
            Err(error) => debug!("no pacer: {}", shell::chain(&error)),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Says each place that the source takes, the last one alone where they change faster, until the pacer goes.
async fn speak(
    mut stream: Duplex<Report, Grant>,
    places: &mut watch::Receiver<What>,
    granting: &watch::Sender<Option<Grant>>,
    status: &Status,
) {
    places.mark_changed();
    loop {
        tokio::select! {
            changed = places.changed() => {
                if changed.is_err() {
                    return;
                }
                let report = Report { report: Some(*places.borrow_and_update()) };
                if stream.tx.send(report).await.is_err() {
                    return;
                }
            }
            grant = stream.rx.recv() => {
                let Some(grant) = grant else { return };
                status.update(|s| s.network_ps = grant.network_ps);
                granting.send_replace(Some(grant));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "pacing_tests.rs"]
mod tests;
