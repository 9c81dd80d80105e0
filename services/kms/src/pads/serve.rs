//! The dialogue with the site's relay: requests are done side by side, those of one key one after the other, and
//! beside them the levels of the pools are told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use keystore::{StoreError, Use};
use proto::kms::v1::{PoolLevel, RelayAnswer, RelayRequest, relay_answer};
use proto::relay::v1::Reason;
use telemetry::trace::Tracer;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transfer::TransferId;

use super::wire::{self, Asked};
use super::{Failure, Pads};
use crate::Pools;
use crate::node::RelayStream;
use crate::pair::Pool;

/// Time between looks at the pool levels; they are told when they have changed, and with every 25th look.
const LEVEL_PULSE: Duration = Duration::from_millis(200);
const LOOKS_PER_REFRESH: u64 = 25;
const LOOKS_PER_TIDYING: u64 = 18_000;
/// Requests that run at the same time, and that wait.
const RUNNING_MAX: usize = 64;
const WAITING_MAX: usize = 8192;
/// Wait before what may not be refused is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// A relay that does not take an answer for so long is left.
const TAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Pad kept ready ahead of need, where the pool has it.
const AHEAD_BYTES: u64 = 32 << 10;

/// Answers the site's relay until `stop`. A newer stream takes the place of the one before.
pub async fn serve(
    pools: Pools,
    name: String,
    mut relays: mpsc::Receiver<RelayStream>,
    stop: CancellationToken,
) -> Result<()> {
    let pads = Pads::open(pools.clone(), Tracer::new(name)).await.context("take up relayed keys")?;
    let Some(pads) = pads else {
        stop.cancelled().await;
        return Ok(());
    };
    let mut desk = Desk::new(Arc::new(pads));
    let mut next = None;
    loop {
        let stream = match next.take() {
            Some(stream) => Some(stream),
            None => tokio::select! {
                stream = relays.recv() => stream,
                () = stop.cancelled() => return Ok(()),
            },
        };
        let Some(mut stream) = stream else { return Ok(()) };
        let ended = tokio::select! {
            ended = desk.serve(&pools, &mut stream) => ended,
            newer = relays.recv() => {
                next = newer;
                Ok(())
            }
            () = stop.cancelled() => return Ok(()),
        };
        desk.leave();
        if let Some(error) = desk.pads.store.stopped() {
            return Err(error).context("the key store has stopped");
        }
        if let Err(error) = ended {
            tracing::warn!("the relay's requests are not answered: {}", shell::chain(&error));
        }
    }
}

type Finished = (TransferId, u64, Result<RelayAnswer>);

/// Requests under way. What runs goes on when the relay leaves, and is found done when it asks again.
struct Desk {
    pads: Arc<Pads>,
    /// By key: what waits for the request of that key that runs.
    queues: BTreeMap<TransferId, VecDeque<(u64, Asked, String)>>,
    waiting: usize,
    running: JoinSet<Finished>,
    room: Arc<Semaphore>,
    /// Of the stream, so that answers to an earlier one are not given to this one.
    life: u64,
    looks: u64,
}

impl Desk {
    fn new(pads: Arc<Pads>) -> Self {
        let room = Arc::new(Semaphore::new(RUNNING_MAX));
        Self { pads, queues: BTreeMap::new(), waiting: 0, running: JoinSet::new(), room, life: 0, looks: 0 }
    }

    fn leave(&mut self) {
        self.life += 1;
        self.waiting = 0;
        self.queues.values_mut().for_each(VecDeque::clear);
    }

    async fn serve(&mut self, pools: &Pools, stream: &mut RelayStream) -> Result<()> {
        let mut pulse = tokio::time::interval(LEVEL_PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut meters: BTreeMap<String, Meter> = BTreeMap::new();
        loop {
            tokio::select! {
                request = stream.receive() => {
                    let Some(request) = request else { return Ok(()) };
                    self.take(request)?;
                }
                Some(finished) = self.running.join_next() => {
                    let (group, life, answer) = finished.context("a request ended abnormally")?;
                    self.go_on(group);
                    if life == self.life {
                        say(stream, answer?).await?;
                    }
                }
                _ = pulse.tick() => {
                    for pool in pools.all() {
                        keep_ahead(&pool);
                        let refresh = self.looks.is_multiple_of(LOOKS_PER_REFRESH);
                        if let Some(level) = meters.entry(pool.peer.clone()).or_default().level(&pool, refresh) {
                            let what = Some(relay_answer::What::Level(level));
                            say(stream, RelayAnswer { request: 0, what }).await?;
                        }
                    }
                    self.look_after().await?;
                }
            }
        }
    }

    /// What is due without being asked for.
    async fn look_after(&mut self) -> Result<()> {
        let done = match self.looks % LOOKS_PER_TIDYING {
            0 => self.pads.tidy().await,
            _ => self.pads.offer_late().await,
        };
        self.looks += 1;
        match done {
            Err(Failure::Store(error)) => Err(error).context("look after relayed keys"),
            _ => Ok(()),
        }
    }

    fn take(&mut self, request: RelayRequest) -> Result<()> {
        let (number, traceparent) = (request.request, request.traceparent.clone());
        let asked = Asked::of(request).context("understand the relay's request")?;
        let group = asked.group();
        match self.queues.get_mut(&group) {
            None => {
                self.queues.insert(group, VecDeque::new());
                self.start(group, number, asked, traceparent);
            }
            Some(_) if self.waiting >= WAITING_MAX => bail!("the relay asks for more than can wait"),
            Some(queue) => {
                self.waiting += 1;
                queue.push_back((number, asked, traceparent));
            }
        }
        if self.running.len() > WAITING_MAX {
            bail!("the relay asks for more than can wait");
        }
        Ok(())
    }

    fn start(&mut self, group: TransferId, number: u64, asked: Asked, traceparent: String) {
        let (pads, room, life) = (self.pads.clone(), self.room.clone(), self.life);
        self.running.spawn(async move {
            let _room = room.acquire_owned().await;
            let answer = until_answered(&pads, number, &asked, &traceparent).await;
            (group, life, answer)
        });
    }

    fn go_on(&mut self, group: TransferId) {
        match self.queues.get_mut(&group).and_then(VecDeque::pop_front) {
            Some((number, asked, traceparent)) => {
                self.waiting -= 1;
                self.start(group, number, asked, traceparent);
            }
            None => drop(self.queues.remove(&group)),
        }
    }
}

async fn say(stream: &RelayStream, answer: RelayAnswer) -> Result<()> {
    let sent = tokio::time::timeout(TAKE_PATIENCE, stream.send(answer)).await;
    sent.context("the relay takes no answers")?.ok().context("the relay has gone")
}

async fn until_answered(pads: &Pads, number: u64, asked: &Asked, traceparent: &str) -> Result<RelayAnswer> {
    let mut said = false;
    loop {
        match pads.run(asked, traceparent).await {
            Ok(outcome) => return Ok(wire::answer(number, outcome)),
            Err(Failure::Refused(reason)) => return Ok(wire::refused(number, reason)),
            Err(Failure::Store(error)) if pads.store.stopped().is_some() => {
                return Err(error).context("the key store has stopped");
            }
            Err(Failure::Store(StoreError::Busy | StoreError::PoolFull { .. })) if asked.may_be_refused() => {
                return Ok(wire::refused(number, Reason::Busy));
            }
            Err(Failure::Store(error)) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "a request of the relay is tried again");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Sees to it that pad is assigned before it is needed.
fn keep_ahead(pool: &Pool) {
    if pool.relayed && pool.connected() {
        let levels = pool.levels();
        let ready = levels.available(Use::RelayOut);
        let ahead = ((ready + levels.unassigned_bytes) / 8).min(AHEAD_BYTES);
        if ready < ahead {
            pool.want(Use::RelayOut, ahead);
        }
    }
}

/// How much a pool holds and how fast it grows.
#[derive(Default)]
struct Meter {
    end_bytes: u64,
    at: Option<Instant>,
    rate_bps: f64,
    said: Option<PoolLevel>,
}

impl Meter {
    /// Averages over this many seconds.
    const MEMORY_S: f64 = 10.0;

    /// The level, if it is not what was said last.
    fn level(&mut self, pool: &Pool, refresh: bool) -> Option<PoolLevel> {
        let level = self.measure(pool);
        let same = self.said.as_ref().is_some_and(|said| {
            let steady = (said.rate_bps - level.rate_bps).abs() <= 0.1 * said.rate_bps.max(1.0);
            steady && PoolLevel { rate_bps: said.rate_bps, ..level.clone() } == *said
        });
        if same && !refresh {
            return None;
        }
        self.said = Some(level.clone());
        Some(level)
    }

    fn measure(&mut self, pool: &Pool) -> PoolLevel {
        // Of a pool that is not used nothing can be counted on.
        let levels = if pool.rolled_back().is_none() { pool.levels() } else { keystore::Levels::default() };
        let now = Instant::now();
        if let Some(before) = self.at {
            let passed_s = (now - before).as_secs_f64();
            let rate_bps = levels.end_bytes.saturating_sub(self.end_bytes) as f64 * 8.0 / passed_s.max(1e-3);
            self.rate_bps += (rate_bps - self.rate_bps) * (passed_s / Self::MEMORY_S).min(1.0);
        }
        (self.at, self.end_bytes) = (Some(now), levels.end_bytes);
        // Of what is not assigned both ends may count on half.
        let assignable = if pool.relayed && pool.connected() { levels.unassigned_bytes / 2 } else { 0 };
        PoolLevel {
            site: pool.peer.clone(),
            relay_out_bytes: levels.available(Use::RelayOut) + assignable,
            relay_in_bytes: levels.available(Use::RelayIn),
            unassigned_bytes: levels.unassigned_bytes,
            stored_bytes: levels.stored_bytes,
            rate_bps: self.rate_bps,
            // Not what is assigned already: one site's applications cannot use what the other's hold.
            supply_bytes: levels.unassigned_bytes + levels.offered_bytes,
        }
    }
}
