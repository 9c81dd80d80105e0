//! The emission loop: meet both outputs, then emit epoch after epoch until one leaves or the run ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use photonics::analyser::AnalyserState;
use photonics::random::Subseed;
use proto::source::v1::{
    AnalyserState as StateMessage, AnalyserUpdate, AttachOutput, PhotonEpoch, analyser_update::Update,
};
use shell::attachment;
use shell::fault::Desk;
use shell::sealing::KeyPair;
use telemetry::names::{attribute, span};
use telemetry::trace::{Span, Tracer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use topology::plan::{PlannedOutage, SourceConfig, Speed};
use tracing::{info, warn};

use crate::nature::Nature;
use crate::pacing::NetworkTime;
use crate::{EPOCHS_IN_FLIGHT, Losses, Output, PacerDial, Status};

/// An output that has said which session it wants.
struct Attached {
    output: Output,
    /// The key of its choices is no longer sealed.
    hello: AttachOutput,
}

/// An output in full flow. Its updates are taken off the stream at all times, so that an output that says what its
/// instrument is set to never waits for one that takes photons.
struct Flow {
    photons: mpsc::Sender<PhotonEpoch>,
    updates: mpsc::Receiver<AnalyserUpdate>,
}

impl Flow {
    /// Updates run ahead of the light by the latency at most, and by what is under way.
    fn new(output: Output, latency_epochs: u64) -> Self {
        let (photons, mut incoming) = output.split();
        let (tx, updates) = mpsc::channel(latency_epochs as usize + 2 * EPOCHS_IN_FLIGHT);
        tokio::spawn(async move {
            while let Some(update) = incoming.recv().await {
                // After the run's end nobody asks any more; the stream stays open until the output closes it.
                let _ = tx.send(update).await;
            }
        });
        Self { photons, updates }
    }
}

/// Outputs that are between two sessions when the light ends get this long to come and be told.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves outputs until `stop`; each pair of attachments of one session is one emission. Whether it was under way or
/// not, the outputs are told of the end. With a pacer the light keeps to the time of the network.
pub async fn run(
    config: SourceConfig,
    losses: Losses,
    mut outputs: mpsc::Receiver<Output>,
    pacer: Option<PacerDial>,
    (status, faults): (Arc<Status>, Option<Desk>),
    stop: CancellationToken,
) -> Result<()> {
    let mut network = match (&config.pacing, pacer) {
        (Some(_), Some(pacer)) => {
            status.update(|s| s.pacer_away = true);
            Some(NetworkTime::keep(pacer, status.clone(), &stop))
        }
        _ => None,
    };
    let subseed = match &config.subseed {
        Some(seed) => Subseed::new(*seed.bytes()),
        None => Subseed::new(shell::entropy().context("draw a seed")?),
    };
    let mut waiting: [Option<Attached>; 2] = [None, None];
    let farewell = async {
        stop.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::pin!(farewell);
    loop {
        let output = tokio::select! {
            () = &mut farewell => return Ok(()),
            side = left(&waiting) => {
                info!(output = side, "output left before the other one came");
                waiting[side] = None;
                continue;
            }
            output = outputs.recv() => match output {
                Some(output) => output,
                None => return Ok(()),
            },
        };
        match greet(output).await {
            Ok(attached) => {
                let side = attached.hello.output as usize;
                info!(output = side, session = attached.hello.session, "output attached");
                waiting[side] = Some(attached);
            }
            Err(error) => warn!("output refused: {}", shell::chain(&error)),
        }
        if let Some(pair) = take_pair(&mut waiting) {
            status.update(|s| s.outputs_attached = 2);
            let lent = (&*status, faults.as_ref(), &mut network);
            let emitted = emit((&config, &losses), &subseed, pair, lent, &stop).await;
            if let Some(network) = &mut network {
                network.leave(None);
            }
            status.update(|s| s.outputs_attached = 0);
            match emitted {
                Ok(()) if stop.is_cancelled() => return Ok(()),
                Ok(()) => {}
                Err(error) => info!("emission ended: {}", shell::chain(&error)),
            }
        }
    }
}

/// The first waiting output to leave; what it said, a key of choices perhaps, goes with it.
async fn left(waiting: &[Option<Attached>; 2]) -> usize {
    let closed = async |side: usize| match &waiting[side] {
        Some(attached) => attached.output.tx.closed().await,
        None => std::future::pending().await,
    };
    tokio::select! {
        () = closed(0) => 0,
        () = closed(1) => 1,
    }
}

async fn greet(mut output: Output) -> Result<Attached> {
    let pair = KeyPair::generate()?;
    let seal_to = PhotonEpoch { seal_to: pair.public_key().to_vec().into(), ..PhotonEpoch::default() };
    output.tx.send(seal_to).await.ok().context("greet an output: it has gone")?;
    let first = tokio::time::timeout(Duration::from_secs(10), output.rx.recv()).await.context("wait for attach")?;
    match first.and_then(|update| update.update) {
        Some(Update::Attach(hello)) if hello.output < 2 => {
            Ok(Attached { output, hello: attachment::open(pair, hello)? })
        }
        Some(Update::Attach(hello)) => bail!("output {} does not exist, there are 0 and 1", hello.output),
        _ => bail!("the first message must be `attach`"),
    }
}

/// Both outputs, once they ask for the same session and epoch; of two that differ the older one must come again.
fn take_pair(waiting: &mut [Option<Attached>; 2]) -> Option<[Attached; 2]> {
    let (Some(a), Some(b)) = (&waiting[0], &waiting[1]) else { return None };
    if a.hello.session == b.hello.session && a.hello.first_epoch == b.hello.first_epoch {
        return Some([waiting[0].take()?, waiting[1].take()?]);
    }
    // Sessions never share a first epoch, and their numbers are in no order.
    let older = usize::from(a.hello.first_epoch > b.hello.first_epoch);
    warn!(output = older, "outputs ask for different sessions, the older one is dropped");
    waiting[older] = None;
    None
}

/// Either output goes.
async fn gone([first, second]: [&mpsc::Sender<PhotonEpoch>; 2]) {
    tokio::select! {
        () = first.closed() => {}
        () = second.closed() => {}
    }
}

/// The first epoch of an emission: the one that its outputs ask for, or where the network is by now.
async fn first_epoch(
    config: &SourceConfig,
    pair: &[Attached; 2],
    network: &mut Option<NetworkTime>,
    stop: &CancellationToken,
) -> Result<u64> {
    let asked = pair[0].hello.first_epoch;
    let over = stop.is_cancelled() || config.epochs_limit.is_some_and(|limit| asked >= limit);
    let Some(network) = network.as_mut().filter(|_| !over) else { return Ok(asked) };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(asked),
        start_ps = network.join(asked.saturating_mul(config.epoch_ps)) => Ok(start_ps?.div_ceil(config.epoch_ps)),
        () = gone([&pair[0].output.tx, &pair[1].output.tx]) => bail!("an output has gone before the light began"),
    }
}

/// Emits from the agreed first epoch until the run's last one, or until an output goes.
async fn emit(
    (config, losses): (&SourceConfig, &Losses),
    subseed: &Subseed,
    mut pair: [Attached; 2],
    (status, faults, network): (&Status, Option<&Desk>, &mut Option<NetworkTime>),
    stop: &CancellationToken,
) -> Result<()> {
    let first = first_epoch(config, &pair, network, stop).await?;
    for attached in &mut pair {
        attached.hello.first_epoch = first;
        let begin = PhotonEpoch { begin: true, epoch: first, ..PhotonEpoch::default() };
        attached.output.tx.send(begin).await.ok().context("begin the light: the output has gone")?;
    }
    let mut light = Nature::begin(config, subseed, [&pair[0].hello, &pair[1].hello])?;
    let mut outputs = pair.map(|attached| Flow::new(attached.output, config.latency_epochs));
    let mut states = [AnalyserState::default(), AnalyserState::default()];
    let mut pump = 1.0;
    let mut batch = Batch::new(config);
    let mut pace = Pace::new(config, first);
    let (mut end, mut losses_db) = (first, config.losses_db());
    for epoch in first.. {
        if stop.is_cancelled() || config.epochs_limit.is_some_and(|limit| epoch >= limit) {
            end = epoch;
            break;
        }
        if let Some(network) = network.as_mut() {
            let from_ps = epoch.saturating_mul(config.epoch_ps);
            tokio::select! {
                biased;
                // First: the way to the pacer ends with the run, which is no failure.
                () = stop.cancelled() => {
                    end = epoch;
                    break;
                }
                allowed = network.allow(from_ps, from_ps.saturating_add(config.epoch_ps)) => allowed?,
                () = gone([&outputs[0].photons, &outputs[1].photons]) => bail!("an output has gone"),
            }
        }
        let mut no_room = None;
        for ((output, state), module) in outputs.iter_mut().zip(&mut states).zip(config.modules_by_output()) {
            if next_state(output, epoch, state, &mut pump).await? && config.subseed.is_none() {
                no_room = no_room.or(Some(module.as_str()));
            }
        }
        let asked_db = losses.now_db();
        if asked_db != losses_db {
            losses_db = asked_db;
            light.set_losses_db(&losses_db);
            info!(epoch, ?losses_db, "the arms have another loss");
        }
        let effects = faults.map(|faults| faults.enter_epoch(epoch)).unwrap_or_default();
        let outage = Outage::of(&config.outages, epoch, effects.loss_db, no_room);
        light.suffer(outage.loss_db, outage.unseen);
        batch.suffers(effects.ids);
        let emitted = light.emit(epoch, pump, [&states[0], &states[1]])?;
        // Counts have clicks in place of photons.
        let count = emitted.iter().map(|light| u64::from(light.photons.count)).sum();
        let traceparent = batch.traceparent(epoch, count);
        status.update(|s| {
            s.epoch = epoch;
            s.pump = pump;
            s.photons_sent += count;
        });
        for (output, light) in outputs.iter().zip(emitted) {
            let message = PhotonEpoch {
                epoch,
                count: light.count,
                photons: light.photons.words.into(),
                end: false,
                traceparent: traceparent.clone(),
                counts: light.counts,
                outage: outage.cause.clone(),
                ..PhotonEpoch::default()
            };
            output.photons.send(message).await.ok().context("send photons: the output has gone")?;
        }
        pace.wait(epoch, status).await;
    }
    batch.finish();
    if let Some(network) = network {
        network.leave(Some(end.saturating_mul(config.epoch_ps)));
    }
    for output in &outputs {
        let end = PhotonEpoch { end: true, epoch: end, ..Default::default() };
        output.photons.send(end).await.ok().context("send the end: the output has gone")?;
    }
    for output in &outputs {
        output.photons.closed().await;
    }
    Ok(())
}

/// What keeps the light of an epoch from being seen.
struct Outage {
    /// On the way to either output, what faults add included.
    loss_db: [f64; 2],
    /// The detectors of an end do not click.
    unseen: bool,
    cause: String,
}

impl Outage {
    fn of(planned: &[PlannedOutage], epoch: u64, mut loss_db: [f64; 2], no_room: Option<&str>) -> Self {
        let is_cut = |loss_db: &[f64; 2]| loss_db.iter().any(|loss_db| loss_db.is_infinite());
        let mut causes: Vec<String> = Vec::new();
        if is_cut(&loss_db) {
            causes.push("the light is cut".to_owned());
        }
        if let Some(module) = no_room {
            causes.push(format!("no room for key of {module}"));
            loss_db = [f64::INFINITY; 2];
        }
        let mut unseen = false;
        for PlannedOutage { output, cause, .. } in planned.iter().filter(|planned| planned.epochs.is_in(epoch)) {
            causes.push(cause.clone());
            match output {
                Some(output) => {
                    unseen = true;
                    loss_db[usize::from(*output == 1)] = f64::INFINITY;
                }
                None => loss_db = [f64::INFINITY; 2],
            }
        }
        Self { loss_db, unseen, cause: causes.join(", ") }
    }
}

/// Waits for one output's analyser state of `epoch`; "unchanged" leaves what stands. Whether the output wants no light.
async fn next_state(output: &mut Flow, epoch: u64, state: &mut AnalyserState, pump: &mut f64) -> Result<bool> {
    let update = output.updates.recv().await.context("wait for an analyser state: the output has gone")?;
    let Some(Update::State(message)) = update.update else { bail!("expected an analyser state for epoch {epoch}") };
    if message.epoch != epoch {
        bail!("expected the analyser state of epoch {epoch}, got that of {}", message.epoch);
    }
    if !message.unchanged {
        let StateMessage { phase_rad, polarisation_first_rad, polarisation_second_rad, .. } = message;
        if ![phase_rad, polarisation_first_rad, polarisation_second_rad, message.pump].iter().all(|v| v.is_finite()) {
            bail!("the analyser state of epoch {epoch} is not a number");
        }
        state.phase_rad = phase_rad;
        state.polarisation_rad = [polarisation_first_rad, polarisation_second_rad];
        if message.pump > 0.0 {
            *pump = message.pump;
        }
    }
    Ok(message.dark)
}

/// Keeps a paced run in step with wall time. A run that cannot keep up says by how much; it never skips.
struct Pace {
    factor: Option<f64>,
    started: Instant,
    first: u64,
    epoch_s: f64,
    warned_at: Option<Instant>,
}

impl Pace {
    fn new(config: &SourceConfig, first: u64) -> Self {
        let factor = match config.speed {
            Speed::Max => None,
            Speed::RealTime(factor) => Some(factor),
        };
        Self { factor, started: Instant::now(), first, epoch_s: config.epoch_ps as f64 * 1e-12, warned_at: None }
    }

    async fn wait(&mut self, epoch: u64, status: &Status) {
        let Some(factor) = self.factor else { return };
        let due = Duration::from_secs_f64((epoch + 1 - self.first) as f64 * self.epoch_s / factor);
        let elapsed = self.started.elapsed();
        status.update(|s| s.lag_s = elapsed.saturating_sub(due).as_secs_f64());
        if elapsed < due {
            tokio::time::sleep(due - elapsed).await;
        } else if elapsed - due > Duration::from_secs(1)
            && self.warned_at.is_none_or(|at| at.elapsed() > Duration::from_secs(10))
        {
            warn!(lag_s = (elapsed - due).as_secs_f64(), "the run cannot keep up with the speed asked for");
            self.warned_at = Some(Instant::now());
        }
    }
}

/// The span of the emission of one round's worth of epochs; blocks hang below it.
struct Batch {
    tracer: Tracer,
    link: String,
    epochs: u64,
    photons: u64,
    /// IDs of the faults that have acted on the light.
    faults: BTreeSet<String>,
    suffered: Vec<String>,
    last_epoch: u64,
    open: Option<Span>,
    traceparent: String,
}

impl Batch {
    fn new(config: &SourceConfig) -> Self {
        Self {
            tracer: Tracer::new(config.name.clone()),
            link: config.link.clone(),
            epochs: config.round_epochs.max(1),
            photons: 0,
            faults: BTreeSet::new(),
            suffered: Vec::new(),
            last_epoch: 0,
            open: None,
            traceparent: String::new(),
        }
    }

    /// Faults act on the epoch that comes next.
    fn suffers(&mut self, faults: Vec<String>) {
        self.suffered = faults;
    }

    fn traceparent(&mut self, epoch: u64, photons: u64) -> String {
        if self.open.is_none() || epoch.is_multiple_of(self.epochs) {
            self.finish();
            let span = self.tracer.span(span::EMIT).attribute(attribute::LINK_ID, self.link.as_str());
            let span = span.attribute(attribute::EPOCH_FIRST, epoch).start();
            self.traceparent = span.traceparent();
            self.open = Some(span);
        }
        self.photons += photons;
        self.faults.extend(self.suffered.drain(..));
        self.last_epoch = epoch;
        self.traceparent.clone()
    }

    fn finish(&mut self) {
        if let Some(mut span) = self.open.take() {
            span.set(attribute::PHOTONS, self.photons);
            let faults = std::mem::take(&mut self.faults);
            if !faults.is_empty() {
                span.set(attribute::FAULT_ID, faults.into_iter().collect::<Vec<_>>().join(","));
            }
            span.set(attribute::EPOCH_LAST, self.last_epoch);
            span.end();
        }
        self.photons = 0;
    }
}
