//! The network's time: what keeps it, as a task of this process, and what is seen of it wherever it runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use pacer::{SourceStream, Status};
use proto::pace::v1::pacer_client::PacerClient;
use proto::pace::v1::{GetStatusRequest, GetStatusResponse, PaceState as Wire};
use shell::Credentials;
use shell::dial::{Door, NamedDial};
use source::PacerDial;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{PacerConfig, SourceConfig};

use super::Start;
use super::asked::Asked;
use super::faults::Desks;
use super::life::{Life, Serving};
use crate::snapshot::{NetworkTimeRow, PaceState, PacedLinkRow, PacerState};

/// Streams that may wait to be taken up by the pacer.
const STREAMS_WAITING: usize = 16;
/// Time between looks at the pacer.
const LOOK: Duration = Duration::from_millis(250);
/// Time that it gets for a connection, and to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The pacer as the run sees it.
pub struct PaceMonitor {
    skew_ps: u64,
    /// Nothing before it has answered, and while it does not.
    latest: watch::Receiver<Option<GetStatusResponse>>,
}

impl PaceMonitor {
    /// How the network's time stands. `known` is what was seen before: a time that nobody keeps stands still.
    pub fn row(&self, known: Option<&NetworkTimeRow>) -> NetworkTimeRow {
        let latest = self.latest.borrow();
        let row = NetworkTimeRow::of(self.skew_ps, latest.as_ref());
        NetworkTimeRow { s: row.s.max(known.map_or(0.0, |row| row.s)), ..row }
    }
}

impl NetworkTimeRow {
    /// What a pacer says, or that it says nothing.
    pub fn of(skew_ps: u64, said: Option<&GetStatusResponse>) -> Self {
        const S_PER_PS: f64 = 1e-12;
        let (s, pacer) = match said {
            Some(status) => (status.network_ps as f64 * S_PER_PS, PacerState::Running),
            None => (0.0, PacerState::Away),
        };
        let links = said.into_iter().flat_map(|status| &status.links).map(|link| {
            let (state, has_time) = match link.state() {
                Wire::Unspecified | Wire::Away => (PaceState::Away, false),
                Wire::Idle => (PaceState::Idle, false),
                Wire::Joining => (PaceState::Joining, true),
                Wire::Emitting => (PaceState::Emitting, true),
                Wire::Waiting => (PaceState::Waiting, true),
                Wire::Expected => (PaceState::Expected, link.reached_ps > 0),
                Wire::Missing => (PaceState::Missing, false),
            };
            let s = has_time.then_some(link.reached_ps as f64 * S_PER_PS);
            PacedLinkRow { link: link.link.clone(), state, s }
        });
        NetworkTimeRow { s, skew_s: skew_ps as f64 * S_PER_PS, pacer, links: links.collect() }
    }
}

/// A pacer that runs as a task, for the sources beside it.
pub struct Here {
    door: Door<(String, SourceStream)>,
    pub monitor: PaceMonitor,
}

impl Here {
    /// How a source reaches it.
    pub fn dial(&self, source: &SourceConfig) -> PacerDial {
        Arc::new(NamedDial::through(&source.link, self.door.clone(), pacer::MESSAGES_IN_FLIGHT))
    }
}

/// Starts the plan's pacer as a task, if there is one.
pub async fn start(
    start: &Start<'_>,
    desks: &Desks,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<Option<Here>> {
    let Some(config) = start.plan.pacer().filter(|_| start.replay.is_none()) else { return Ok(None) };
    let (door, status) = (Door::new(STREAMS_WAITING), Arc::new(Status::default()));
    let (told, service, streams) = (status.clone(), config.clone(), door.clone());
    let begin = move |life: CancellationToken| -> BoxFuture<'static, Result<Serving>> {
        // The links of a run that is under way stay as they are.
        let orders = mpsc::channel(1).1;
        let run: Serving = Box::pin(pacer::run(service.clone(), streams.open(), orders, status.clone(), life));
        Box::pin(async { Ok(run) })
    };
    tasks.spawn(Life::start(&config.name, desks.get(&config.name), stop, begin).await?.keep());
    let monitor = watch(config, move || std::future::ready(told.figures()), tasks, stop);
    Ok(Some(Here { door, monitor }))
}

/// Follows a pacer in another process.
pub fn watch_process(
    start: &Start<'_>,
    config: &PacerConfig,
    credentials: &Credentials,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> PaceMonitor {
    let asked = Asked::new(start, &config.name, credentials, ANSWER);
    let ask = move || {
        let asked = asked.clone();
        async move {
            asked
                .ask(|channel| async move {
                    shell::limited!(PacerClient::new(channel)).get_status(GetStatusRequest {}).await
                })
                .await
        }
    };
    watch(config, ask, tasks, stop)
}

/// Asks again and again, until `stop`.
fn watch<F>(
    config: &PacerConfig,
    ask: impl Fn() -> F + Send + 'static,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> PaceMonitor
where
    F: Future<Output = Option<GetStatusResponse>> + Send,
{
    let ((tx, latest), stop) = (watch::channel(None), stop.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                status = ask() => {
                    tx.send_if_modified(|known| {
                        let is_new = *known != status;
                        *known = status;
                        is_new
                    });
                }
                () = stop.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    });
    PaceMonitor { skew_ps: config.skew_ps, latest }
}
