//! Streams of sources around the network's time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use proto::pace::v1 as wire;
use proto::pace::v1::{GetStatusResponse, PaceState, PacedLink, report};
use telemetry::metrics::Meter;
use telemetry::names::metric;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topology::plan::PacerConfig;
use tracing::{info, warn};

use crate::SourceStream;
use crate::time::{Emitting, Grant, Grants, NetworkTime, Opening, Place, Report};

/// A link that has not come so long after the first one counts as interrupted: the others begin without it.
const OPENING: Duration = Duration::from_secs(30);
/// Sources in full flow come back to a pacer so soon after it has started again.
const FLOW: Duration = Duration::from_secs(10);
/// Reports that may wait for this task.
const REPORTS_WAITING: usize = 64;

/// What a pacer tells about itself. It outlives a pacer that is stopped and starts again as a task.
#[derive(Default)]
pub struct Status(Mutex<Option<Running>>);

struct Running {
    time: NetworkTime,
    links: Arc<[String]>,
}

impl Status {
    /// Nothing where no pacer runs.
    pub fn figures(&self) -> Option<GetStatusResponse> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { time, links } = running.as_ref()?;
        let links = links.iter().zip(time.places()).map(|(link, place)| row(link, place)).collect();
        Some(GetStatusResponse { network_ps: time.network_ps(), skew_ps: time.skew_ps(), links })
    }

    fn with<T>(&self, act: impl FnOnce(&mut NetworkTime) -> T) -> Option<T> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_mut().map(|running| act(&mut running.time))
    }

    fn set(&self, running: Option<Running>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

fn row(link: &str, place: &Place) -> PacedLink {
    let (state, reached_ps) = match *place {
        Place::Away => (PaceState::Away, 0),
        Place::Idle => (PaceState::Idle, 0),
        Place::Joining { at_ps, .. } => (PaceState::Joining, at_ps),
        Place::Emitting(Emitting { reached_ps, wants_ps: 0, .. }) => (PaceState::Emitting, reached_ps),
        Place::Emitting(Emitting { reached_ps, .. }) => (PaceState::Waiting, reached_ps),
    };
    PacedLink { link: link.to_owned(), state: state.into(), reached_ps }
}

/// Says for as long as it lives that the pacer runs.
struct Here<'s>(&'s Status);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Something that happens to a source: what it says, or nothing where its stream has ended.
type News = (usize, u64, Option<Report>);

/// What this has of one source.
#[derive(Default)]
struct Seat {
    /// Which of its streams this is; what others still bring is old.
    stream: u64,
    /// The last thing that it is to be told. Without a receiver nobody is there.
    told: Option<watch::Sender<Option<Grant>>>,
}

/// Keeps the sources of the plan at one time until `stop`. Streams come with the name of their link.
pub async fn run(
    config: PacerConfig,
    mut streams: mpsc::Receiver<(String, SourceStream)>,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<()> {
    let links: Arc<[String]> = config.sources.iter().map(|source| source.link.clone()).collect();
    let index: BTreeMap<String, usize> = links.iter().cloned().zip(0..).collect();
    status.set(Some(Running { time: NetworkTime::new(links.len(), config.skew_ps), links: links.clone() }));
    let _here = Here(&status);
    let (reports_tx, mut reports) = mpsc::channel::<News>(REPORTS_WAITING);
    let mut seats: Vec<Seat> = links.iter().map(|_| Seat::default()).collect();
    let mut patience = Patience::default();
    let (gauge, mut shown_ps) = (Meter::new(&config.name).gauge(metric::NETWORK_TIME, "s"), None);
    loop {
        let mut grants = Grants::new();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            stream = streams.recv() => {
                let Some((link, stream)) = stream else { return Ok(()) };
                let Some(&source) = index.get(&link) else { continue };
                info!(link, "source attached");
                status.with(|time| time.lost(source, &mut grants));
                let number = seats[source].stream + 1;
                seats[source] = Seat { stream: number, told: Some(serve(stream, (source, number), &reports_tx)) };
            }
            Some((source, stream, report)) = reports.recv() => {
                if seats[source].stream == stream {
                    let taken = status.with(|time| match report {
                        Some(report) => time.report(source, report, &mut grants),
                        None => {
                            time.lost(source, &mut grants);
                            Ok(())
                        }
                    });
                    if let Some(Err(refusal)) = taken {
                        warn!(link = links[source], "the source is sent away: {refusal}");
                        status.with(|time| time.lost(source, &mut grants));
                    }
                    if report.is_none() || matches!(taken, Some(Err(_))) {
                        seats[source] = Seat { stream: stream + 1, told: None };
                    }
                }
            }
            () = patience.over() => {
                info!("begins without the links that have not come");
                status.with(|time| time.open(&mut grants));
            }
        }
        patience.wait_for(status.with(|time| time.opening()).flatten());
        let network_ps = status.with(|time| time.network_ps());
        if network_ps != shown_ps {
            shown_ps = network_ps;
            gauge.record(network_ps.unwrap_or(0) as f64 * 1e-12);
        }
        for (source, grant) in grants {
            if let Some(told) = &seats[source].told {
                told.send_replace(Some(grant));
            }
        }
    }
}

/// How long the beginning still waits.
#[derive(Default)]
struct Patience(Option<(Opening, Instant)>);

impl Patience {
    fn wait_for(&mut self, opening: Option<Opening>) {
        self.0 = match (opening, self.0) {
            (None | Some(Opening::Anybody), _) => None,
            (Some(opening), Some((before, until))) if opening == before => Some((opening, until)),
            (Some(Opening::Others), _) => Some((Opening::Others, Instant::now() + OPENING)),
            (Some(Opening::Flow), _) => Some((Opening::Flow, Instant::now() + FLOW)),
        };
    }

    async fn over(&self) {
        match self.0 {
            Some((_, until)) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

/// Moves a stream's messages: what the source says to `news`, and to the source the last thing that it is told.
fn serve(
    stream: SourceStream,
    (source, number): (usize, u64),
    news: &mpsc::Sender<News>,
) -> watch::Sender<Option<Grant>> {
    let (tx, mut rx) = stream.split();
    let (told, mut telling) = watch::channel(None::<Grant>);
    let news = news.clone();
    tokio::spawn(async move {
        loop {
            let report = tokio::select! {
                report = rx.recv() => report,
                // The pacer has ended.
                () = news.closed() => return,
            };
            // A report that says nothing ends the stream as its end does.
            let report = report.and_then(|report| report.report).map(Report::from);
            if news.send((source, number, report)).await.is_err() || report.is_none() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while telling.changed().await.is_ok() {
            let Some(grant) = *telling.borrow_and_update() else { continue };
            if tx.send(write(grant)).await.is_err() {
                return;
            }
        }
    });
    told
}

impl From<report::Report> for Report {
    fn from(report: report::Report) -> Self {
        match report {
            report::Report::Idle(wire::Idle { reached_ps }) => Self::Idle { reached_ps },
            report::Report::Join(wire::Join { number, at_ps }) => Self::Join { number, at_ps },
            report::Report::Emitting(wire::Emitting { number, reached_ps, wants_ps }) => {
                Self::Emitting { number, reached_ps, wants_ps }
            }
        }
    }
}

fn write(grant: Grant) -> wire::Grant {
    let Grant { number, start_ps, limit_ps, network_ps, behind } = grant;
    wire::Grant { number, start_ps, limit_ps, network_ps, behind }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "run_tests.rs"]
mod tests;
