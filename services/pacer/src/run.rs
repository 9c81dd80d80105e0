//! Streams of sources around the network's time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use proto::pace::v1 as wire;
use proto::pace::v1::{GetStatusResponse, PaceState, PacedLink, report};
use telemetry::metrics::Meter;
use telemetry::names::metric;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topology::plan::{PacedSource, PacerConfig};
use tracing::{info, warn};

use crate::SourceStream;
use crate::time::{Emitting, Grant, Grants, NetworkTime, Opening, Place, Report};

/// A link that has not come so long after the first one is missing: the others begin without it. In a run that is to be
/// repeated one that has stopped is waited for as long.
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
    /// By source; empty where a number is nobody's.
    links: Vec<String>,
}

impl Status {
    /// Nothing where no pacer runs.
    pub fn figures(&self) -> Option<GetStatusResponse> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { time, links } = running.as_ref()?;
        let of_network = links.iter().enumerate().filter(|(source, _)| time.place(*source) != Place::Vacant);
        let mut links: Vec<PacedLink> = of_network.map(|(source, link)| row(link, time, source)).collect();
        links.sort_by(|a, b| a.link.cmp(&b.link));
        Some(GetStatusResponse { network_ps: time.network_ps(), skew_ps: time.skew_ps(), links })
    }

    fn with<T>(&self, act: impl FnOnce(&mut NetworkTime) -> T) -> Option<T> {
        self.all(|running| act(&mut running.time))
    }

    fn all<T>(&self, act: impl FnOnce(&mut Running) -> T) -> Option<T> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_mut().map(act)
    }

    fn set(&self, running: Option<Running>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

fn row(link: &str, time: &NetworkTime, source: usize) -> PacedLink {
    let (state, reached_ps) = match time.place(source) {
        _ if time.is_missing(source) => (PaceState::Missing, 0),
        Place::Expected { reached_ps } => (PaceState::Expected, reached_ps),
        _ if time.is_expected(source) => (PaceState::Expected, 0),
        Place::Vacant | Place::Away => (PaceState::Away, 0),
        Place::Idle | Place::Ended => (PaceState::Idle, 0),
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

/// Other sources to keep together, or further apart.
pub struct Order {
    pub sources: Vec<PacedSource>,
    pub skew_ps: u64,
    /// Gets whether that is news.
    pub taken: oneshot::Sender<bool>,
}

/// Keeps the sources of the plan, or those of the last order, at one time until `stop`. Streams come with the name of
/// their link.
pub async fn run(
    config: PacerConfig,
    mut streams: mpsc::Receiver<(String, SourceStream)>,
    mut orders: mpsc::Receiver<Order>,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<()> {
    let (reports_tx, mut reports) = mpsc::channel::<News>(REPORTS_WAITING);
    let mut table = Table::of(&config, reports_tx, &status);
    let _here = Here(&status);
    let (mut patience, mut expected) = (Patience::default(), Expected::default());
    let (gauge, mut shown_ps) = (Meter::new(&config.name).gauge(metric::NETWORK_TIME, "s"), None);
    loop {
        let mut grants = Grants::new();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            stream = streams.recv() => {
                let Some((link, stream)) = stream else { return Ok(()) };
                if let Some(source) = table.attach(&link, stream, &mut grants) {
                    expected.look(source, &status);
                }
            }
            Some((source, stream, report)) = reports.recv() => {
                table.hear(source, stream, report, &mut grants);
                expected.look(source, &status);
            }
            Some(order) = orders.recv() => {
                let is_news = table.obey(&order, &mut grants);
                expected.forget(|source| table.links.get(source).is_none_or(String::is_empty));
                // Whoever asked may have gone.
                let _ = order.taken.send(is_news);
            }
            () = patience.over() => {
                info!("begins without the links that have not come");
                status.with(|time| time.open(&mut grants));
            }
            source = expected.over() => {
                warn!(link = table.links[source], "the link has not come back: the others go on without it");
                status.with(|time| time.give_up(source, &mut grants));
            }
        }
        patience.wait_for(status.with(|time| time.opening()).flatten());
        let network_ps = status.with(|time| time.network_ps());
        if network_ps != shown_ps {
            shown_ps = network_ps;
            gauge.record(network_ps.unwrap_or(0) as f64 * 1e-12);
        }
        for (source, grant) in grants {
            if let Some(told) = &table.seats[source].told {
                told.send_replace(Some(grant));
            }
        }
    }
}

/// The sources and their streams, by the numbers that they have in the network's time.
struct Table<'s> {
    status: &'s Status,
    /// Empty where a number is nobody's.
    links: Vec<String>,
    index: BTreeMap<String, usize>,
    seats: Vec<Seat>,
    news: mpsc::Sender<News>,
}

impl<'s> Table<'s> {
    fn of(config: &PacerConfig, news: mpsc::Sender<News>, status: &'s Status) -> Self {
        let links: Vec<String> = config.sources.iter().map(|source| source.link.clone()).collect();
        let time = NetworkTime::new(links.len(), config.skew_ps).repeatable(config.repeatable);
        status.set(Some(Running { time, links: links.clone() }));
        let index = links.iter().cloned().zip(0..).collect();
        let seats = links.iter().map(|_| Seat::default()).collect();
        Self { status, links, index, seats, news }
    }

    /// A stream of a link's source; the source's number, if it is of this network.
    fn attach(&mut self, link: &str, stream: SourceStream, grants: &mut Grants) -> Option<usize> {
        let source = *self.index.get(link)?;
        info!(link, "source attached");
        self.status.with(|time| time.lost(source, grants));
        let number = self.seats[source].stream + 1;
        self.seats[source] = Seat { stream: number, told: Some(serve(stream, (source, number), &self.news)) };
        Some(source)
    }

    /// What a source says on one of its streams, or nothing where that has ended.
    fn hear(&mut self, source: usize, stream: u64, report: Option<Report>, grants: &mut Grants) {
        if self.seats[source].stream != stream {
            return;
        }
        let taken = self.status.with(|time| match report {
            Some(report) => time.report(source, report, grants),
            None => {
                time.lost(source, grants);
                Ok(())
            }
        });
        if let Some(Err(refusal)) = taken {
            warn!(link = self.links[source], "the source is sent away: {refusal}");
            self.status.with(|time| time.lost(source, grants));
        }
        if report.is_none() || matches!(taken, Some(Err(_))) {
            self.seats[source] = Seat { stream: stream + 1, told: None };
        }
    }

    /// Takes the sources of an order in place of those before; whether that is news.
    fn obey(&mut self, order: &Order, grants: &mut Grants) -> bool {
        let wanted: BTreeSet<&String> = order.sources.iter().map(|source| &source.link).collect();
        let gone: Vec<String> = self.index.keys().filter(|link| !wanted.contains(link)).cloned().collect();
        let come: Vec<&String> = wanted.into_iter().filter(|link| !self.index.contains_key(*link)).collect();
        let skew_ps = self.status.with(|time| time.skew_ps());
        let is_news = !gone.is_empty() || !come.is_empty() || skew_ps != Some(order.skew_ps);
        for link in gone {
            let Some(source) = self.index.remove(&link) else { continue };
            info!(link, "the link is of the network no longer");
            self.links[source].clear();
            self.seats[source] = Seat { stream: self.seats[source].stream + 1, told: None };
            self.status.with(|time| time.remove(source, grants));
        }
        for link in come {
            let Some(source) = self.status.with(NetworkTime::add) else { continue };
            info!(link, "another link is of the network");
            if source == self.seats.len() {
                self.seats.push(Seat::default());
                self.links.push(String::new());
            }
            self.links[source].clone_from(link);
            self.index.insert(link.clone(), source);
        }
        self.status.with(|time| time.set_skew(order.skew_ps, grants));
        self.status.all(|running| running.links.clone_from(&self.links));
        is_news
    }
}

/// Until when sources are waited for that have stopped.
#[derive(Default)]
struct Expected(BTreeMap<usize, Instant>);

impl Expected {
    /// Something happened to this source.
    fn look(&mut self, source: usize, status: &Status) {
        if status.with(|time| matches!(time.place(source), Place::Expected { .. })) == Some(true) {
            self.0.entry(source).or_insert_with(|| Instant::now() + OPENING);
        } else {
            self.0.remove(&source);
        }
    }

    fn forget(&mut self, is_gone: impl Fn(usize) -> bool) {
        self.0.retain(|source, _| !is_gone(*source));
    }

    /// The first that was waited for long enough.
    async fn over(&mut self) -> usize {
        let Some((source, until)) = self.0.iter().min_by_key(|(_, until)| **until).map(|(a, b)| (*a, *b)) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(until).await;
        self.0.remove(&source);
        source
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
            report::Report::Idle(wire::Idle { reached_ps, ended }) => Self::Idle { reached_ps, ended },
            report::Report::Join(wire::Join { number, at_ps }) => Self::Join { number, at_ps },
            report::Report::Emitting(wire::Emitting { number, reached_ps, wants_ps }) => {
                Self::Emitting { number, reached_ps, wants_ps }
            }
        }
    }
}

fn write(grant: Grant) -> wire::Grant {
    let Grant { number, start_ps, limit_ps, network_ps, skew_ps, behind } = grant;
    wire::Grant { number, start_ps, limit_ps, network_ps, skew_ps, behind }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "run_tests.rs"]
mod tests;
