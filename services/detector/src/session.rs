//! Sessions of a module: meet the peer, agree on an epoch with it and the source, distil, and meet again when
//! anything on the way breaks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use distill::config::LinkProtocol;
use distill::pipeline::{Action, FrameInput, Hello, Module, SessionStart, Setpoints, StepOutput};
use photonics::random::Subseed;
use photonics::receiver::{Controls, Instrument};
use proto::channel::v1::{Bundle, ChannelMessage, ModuleMessage, Open, Opened, module_message};
use proto::detector::v1::LinkState;
use proto::source::v1::{AnalyserState, AnalyserUpdate, AttachOutput, PhotonEpoch, analyser_update};
use shell::dial::Dial;
use shell::duplex::Duplex;
use shell::fault::Desk;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use topology::plan::{DetectorConfig, EntangledReceiver, PreparedReceiver, Receiver, SecretSeed};

use crate::delivery::Delivery;
use crate::instrument::{self, EPOCHS_AHEAD, EpochClicks};
use crate::lasting;
use crate::link::{Link, PATIENCE};
use crate::playback::Playback;
use crate::record::Recorder;
use crate::report::Reporter;
use crate::status::Monitor;
use crate::vault::Vault;

/// Wait for the peer when nothing is left to do but what it may have left undecided.
const DEPARTURE: Duration = Duration::from_secs(5);
/// Wait before meeting again; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The streams that a detector node opens.
pub struct Links {
    pub light: Light,
    pub channel: Arc<dyn Dial<ModuleMessage, ChannelMessage>>,
}

/// Where clicks come from.
pub enum Light {
    Source(Arc<dyn Dial<AnalyserUpdate, PhotonEpoch>>),
    /// A recording of raw time tags in place of source and instrument.
    Recording(Arc<Playback>),
}

/// A detector node's own randomness: nature's in the instrument, the protocol's in the module.
pub struct Seeds {
    pub instrument: Subseed,
    pub module: Subseed,
}

impl Seeds {
    /// From the configuration, or the system where the run is not to be repeatable.
    pub fn of(config: &DetectorConfig) -> Result<Self> {
        Ok(Self {
            instrument: subseed(config.instrument_subseed.as_ref())?,
            module: subseed(config.module.subseed.as_ref())?,
        })
    }
}

fn subseed(seed: Option<&SecretSeed>) -> Result<Subseed> {
    match seed {
        Some(seed) => Ok(Subseed::new(*seed.bytes())),
        None => Ok(Subseed::new(shell::entropy().context("draw a seed")?)),
    }
}

/// Everything a node needs beside its configuration.
pub struct Node {
    pub config: DetectorConfig,
    pub seeds: Seeds,
    pub links: Links,
    pub vault: Vault,
    pub monitor: Arc<Monitor>,
    pub recorder: Option<Recorder>,
    /// Brings blocks to the site's key store; without one they stay in the vault.
    pub delivery: Option<Delivery>,
    /// The source has said that the run has no more light.
    pub light_over: bool,
    /// Only where the topology allows faults.
    pub faults: Option<Desk>,
}

impl Node {
    /// Hands over what counts and was not handed over yet.
    async fn deliver_committed(&mut self, traceparent: &str) -> Result<()> {
        let Some(delivery) = &mut self.delivery else { return Ok(()) };
        while let Some((stored, key)) = self.vault.next_committed(delivery.next())? {
            let epoch = self.vault.next_epoch();
            delivery.send(&self.config.module.link, (&stored, &key), epoch, traceparent).await?;
        }
        Ok(())
    }

    /// Whether a session from this epoch on would be without light: there is only what is undecided to decide.
    fn without_light(&self, first_epoch: u64) -> bool {
        self.light_over || self.config.module.epochs_limit.is_some_and(|limit| first_epoch >= limit)
    }
}

/// Runs sessions until one finishes the run, or `stop`.
pub async fn run(mut node: Node, stop: CancellationToken) -> Result<()> {
    let ended = tokio::select! {
        ended = sessions(&mut node, &stop) => ended,
        () = stop.cancelled() => Ok(false),
    };
    if let Some((name, message)) = node.recorder.take().and_then(Recorder::finish) {
        node.monitor.note(name, &message);
    }
    let ended = ended?;
    if let Some(delivery) = node.delivery.take() {
        delivery.finish().await?;
    }
    if ended {
        node.monitor.note("ended", "the run is complete");
        node.monitor.enter(LinkState::Ended);
    }
    Ok(())
}

/// Session after session; true where the run is complete, false where it was stopped.
async fn sessions(node: &mut Node, stop: &CancellationToken) -> Result<bool> {
    node.deliver_committed("").await?;
    let pump = if node.config.module.protocol.sets_pump() { node.config.module.initial_pump } else { 0.0 };
    let mut setpoints = Setpoints { pump, ..Setpoints::default() };
    let (mut retry, mut said) = (RETRY_MIN, String::new());
    loop {
        if !lasting::lasts(node.monitor.state()) {
            node.monitor.enter(LinkState::Connecting);
        }
        let mut recoveries = node.monitor.recoveries();
        let recovered = async {
            // A closed channel means that nobody can ask any more.
            if recoveries.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let monitor = node.monitor.clone();
        let result = tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = recovered => Err(anyhow::anyhow!("recovery was asked for")),
            result = session(node, &mut setpoints) => result,
        };
        let opened = matches!(monitor.state(), LinkState::Acquiring | LinkState::Locked);
        match result {
            Ok(()) => return Ok(true),
            Err(error) => lasting::lost(&monitor, &error, &mut said),
        }
        let wait = lasting::retry(monitor.state()).unwrap_or(retry);
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(wait) => {}
        }
        if opened {
            said.clear();
        }
        retry = if opened { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
    }
}

/// One session, from greeting to farewell.
async fn session(node: &mut Node, setpoints: &mut Setpoints) -> Result<()> {
    let protocol = node.config.module.protocol.clone();
    if let Some(faults) = &node.faults
        && faults.clock_stands_still()
    {
        node.monitor.note("clock-stopped", instrument::CLOCK_STANDS_STILL);
        faults.clock_runs().await;
        node.monitor.note("clock-runs", "the local clock was set and runs again");
    }
    // A block file that had no room may have some by now.
    node.vault.mend().context("mend the block file")?;
    let mut channel = Link::new(node.links.channel.dial().await.context("reach the channel")?, node.monitor.clone());
    for block in node.vault.unfinished(protocol.side()) {
        if let Some(key) = node.vault.reserve_slice(block)? {
            channel.refill(block, key).await?;
        }
        node.vault.commit(block)?;
        node.deliver_committed("").await?;
    }
    let Some(opened) = greet(node, &mut channel, &protocol).await? else { return Ok(()) };
    let (start, first_epoch) = agree(node, &opened, &protocol, *setpoints)?;
    let (clicks, states) = attach(node, opened.session, first_epoch, *setpoints).await?;
    let module = Module::new(&protocol, &start, session_seed(&node.seeds.module, first_epoch));
    let mut run = Run {
        reporter: Reporter::new(&node.config, first_epoch),
        analyser: analyser(node),
        node,
        channel,
        states,
        module,
        step: 0,
        first_block: start.first_block,
        setpoints,
    };
    run.reporter.session_begins(&run.node.monitor, opened.session, opened.reserve_tags);
    let result = run.distil(clicks).await;
    if result.is_err() {
        for (block, ledger) in run.module.void() {
            // Why the session ended counts for more than a ledger that found no room.
            if let Err(error) = run.node.vault.abort(block, &ledger) {
                tracing::warn!(block, "the ledger of a void round is not kept: {}", shell::chain(&error));
            }
            run.reporter.voided(&run.node.monitor, block);
        }
    }
    result
}

/// Says where this end stands and learns where the peer does; nothing where the run is over and the peer gone.
async fn greet(node: &mut Node, channel: &mut Link, protocol: &LinkProtocol) -> Result<Option<Opened>> {
    let hello = own_hello(node, protocol).encode_bytes().into();
    channel.send(module_message::Message::Open(Open { hello })).await?;
    // When the run is over and nothing is undecided here, a peer that does not come has ended.
    let over = node.without_light(node.vault.next_epoch()) && node.vault.in_doubt().is_none();
    if !over {
        return channel.opened().await.map(Some);
    }
    match tokio::time::timeout(DEPARTURE, channel.opened()).await {
        Ok(opened) => opened.map(Some),
        Err(_) => Ok(None),
    }
}

fn own_hello(node: &Node, protocol: &LinkProtocol) -> Hello {
    Hello::new(protocol, node.vault.next_block(), node.vault.next_epoch(), node.vault.committed_end())
}

/// Where the session starts, from both greetings; leases the epochs to come.
fn agree(
    node: &mut Node,
    opened: &Opened,
    protocol: &LinkProtocol,
    setpoints: Setpoints,
) -> Result<(SessionStart, u64)> {
    let peer = Hello::decode_bytes(&opened.peer_hello)?;
    let own = own_hello(node, protocol);
    own.check_peer(&peer)?;
    let (first_block, first_epoch) = own.start(&peer);
    node.vault.session_starts(opened.session, first_block, first_epoch)?;
    let start = SessionStart {
        first_block,
        in_doubt: node.vault.in_doubt(),
        peer_committed_end: peer.committed_end,
        own_committed_end: node.vault.committed_end(),
        latency_steps: node.config.module.latency_epochs,
        setpoints,
    };
    Ok((start, first_epoch))
}

/// Attaches to the source and starts the instrument's task.
async fn attach(
    node: &mut Node,
    session: u64,
    first_epoch: u64,
    setpoints: Setpoints,
) -> Result<(mpsc::Receiver<Result<EpochClicks>>, mpsc::Sender<AnalyserUpdate>)> {
    let (clicks_tx, clicks_rx) = mpsc::channel(EPOCHS_AHEAD);
    if node.without_light(first_epoch) {
        let end = EpochClicks { epoch: first_epoch, frames: Vec::new(), traceparent: String::new(), end: true };
        clicks_tx.try_send(Ok(end)).ok().context("end a run without light")?;
        return Ok((clicks_rx, mpsc::channel(1).0));
    }
    let dial = match &node.links.light {
        Light::Source(dial) => dial,
        Light::Recording(playback) => {
            let playback = playback.clone();
            tokio::spawn(async move {
                // A session that has ended for another reason does not take any more.
                let _ = playback.play(first_epoch, clicks_tx).await;
            });
            // Nobody reads set-points of a recording.
            return Ok((clicks_rx, mpsc::channel(1).0));
        }
    };
    let source = dial.dial().await.context("reach the source")?;
    let hello = AttachOutput { output: node.config.module.output, session, first_epoch };
    let hello = AnalyserUpdate { update: Some(analyser_update::Update::Attach(hello)) };
    source.tx.send(hello).await.ok().context("attach to the source: it has gone")?;
    let Duplex { tx, rx } = source;
    let instrument = analyser(node);
    let mut before = analyser(node);
    let faults = node.faults.clone();
    tokio::spawn(async move {
        if let Err(error) = instrument::run(instrument, first_epoch, rx, &clicks_tx, faults.as_ref()).await {
            // A session that has ended for another reason does not ask any more.
            let _ = clicks_tx.send(Err(error)).await;
        }
    });
    // What the set-points are before the first measurement can act.
    for epoch in first_epoch..first_epoch + node.config.module.latency_epochs {
        let state = state_message(&mut before, epoch, setpoints);
        tx.send(state).await.ok().context("send analyser states: the source has gone")?;
    }
    Ok((clicks_rx, tx))
}

fn analyser(node: &Node) -> Instrument {
    let module = &node.config.module;
    let (epoch_ps, frame_ps) = (module.epoch_ps, module.protocol.post_processing.framing.frame_ps);
    match &node.config.receiver {
        Receiver::Entangled(EntangledReceiver { detector, clock, analyser, .. }) => {
            Instrument::new(detector, clock, analyser, epoch_ps, frame_ps, &node.seeds.instrument)
        }
        Receiver::Prepared(PreparedReceiver { detectors, clock, analyser, repetition_rate_hz, .. }) => {
            let (rate_hz, subseed) = (*repetition_rate_hz, &node.seeds.instrument);
            Instrument::pulsed(detectors, clock, analyser, rate_hz, epoch_ps, frame_ps, subseed)
        }
    }
}

/// A session's own randomness: no session draws what another one drew.
fn session_seed(module: &Subseed, first_epoch: u64) -> [u8; 32] {
    // A first epoch is never used twice, also not after a kill.
    *module.derive(&format!("session from epoch {first_epoch}")).bytes()
}

fn state_message(instrument: &mut Instrument, epoch: u64, setpoints: Setpoints) -> AnalyserUpdate {
    let controls = Controls { phase_rad: setpoints.phase_rad, polarisation_rad: setpoints.polarisation_rad };
    let state = instrument.analyser_state(epoch, &controls);
    AnalyserUpdate {
        update: Some(analyser_update::Update::State(AnalyserState {
            epoch,
            unchanged: false,
            phase_rad: state.phase_rad,
            polarisation_first_rad: state.polarisation_rad[0],
            polarisation_second_rad: state.polarisation_rad[1],
            pump: setpoints.pump,
        })),
    }
}

/// A session in full flow.
struct Run<'n> {
    node: &'n mut Node,
    channel: Link,
    states: mpsc::Sender<AnalyserUpdate>,
    module: Module,
    reporter: Reporter,
    analyser: Instrument,
    step: u64,
    /// Blocks before this one are of earlier sessions.
    first_block: u64,
    setpoints: &'n mut Setpoints,
}

impl Run<'_> {
    async fn distil(&mut self, mut clicks: mpsc::Receiver<Result<EpochClicks>>) -> Result<()> {
        loop {
            // The peer may have gone before its light came: then none comes here either.
            let done = tokio::select! {
                biased;
                done = tokio::time::timeout(PATIENCE, clicks.recv()) => done.context("wait for light")?,
                why = self.channel.ended() => return Err(why),
            };
            let done = done.context("the instrument stopped")?.context("the instrument stopped")?;
            for frame in done.frames {
                if let Some((name, message)) = self.node.recorder.as_mut().and_then(|recorder| recorder.frame(&frame)) {
                    self.node.monitor.note(name, &message);
                }
                let traceparent = done.traceparent.clone();
                self.take_step(Some(FrameInput::tags(frame.number, frame.tags, traceparent))).await?;
            }
            if done.end {
                return self.drain(done.epoch).await;
            }
            self.node.vault.lease(done.epoch)?;
            let state =
                state_message(&mut self.analyser, done.epoch + self.node.config.module.latency_epochs, *self.setpoints);
            // A source that has ended the run does not read any more states.
            let _ = self.states.send(state).await;
            self.reporter.epoch(&self.node.monitor, done.epoch, &self.module, *self.setpoints);
        }
    }

    /// There is no light any more: finish what is under way.
    async fn drain(&mut self, end: u64) -> Result<()> {
        self.node.vault.run_ended(end)?;
        self.node.light_over = true;
        while !self.take_step(None).await? {}
        self.reporter.epoch(&self.node.monitor, end, &self.module, *self.setpoints);
        Ok(())
    }

    /// One step of the lockstep; true when the session is complete.
    async fn take_step(&mut self, frame: Option<FrameInput>) -> Result<bool> {
        let peer = match self.step {
            0 => None,
            step => {
                let (peer, reserve_tags) = self.channel.delivered(step - 1).await?;
                self.node.monitor.update(|s| s.reserve_tags = reserve_tags);
                Some(peer)
            }
        };
        self.reporter.begins();
        let output = self.module.step(frame, peer)?;
        let StepOutput { payload, close_round, setpoints, actions, finished } = output;
        *self.setpoints = setpoints;
        for action in actions {
            self.act(action).await?;
        }
        let bundle = Bundle { step: self.step, payload: Bytes::from(payload), close_round };
        self.channel.send(module_message::Message::Bundle(bundle)).await?;
        self.step += 1;
        Ok(finished)
    }

    /// Carries out what the module decided; what must be durable is, before the step's bundle leaves.
    async fn act(&mut self, action: Action) -> Result<()> {
        self.reporter.action(&self.node.monitor, &action);
        match action {
            Action::Prepare(block) => {
                let trace_id = self.reporter.trace_id(block.number);
                self.node.vault.prepare(&block, &trace_id)?;
                shell::failpoint::hit("block.prepared");
                self.reporter.prepared(&block);
            }
            Action::Store(block) => {
                self.reporter.begins();
                let trace_id = self.reporter.trace_id(block.number);
                self.node.vault.prepare(&block, &trace_id)?;
                shell::failpoint::hit("block.prepared");
                self.commit(block.number).await?;
                self.reporter.stored(&self.node.monitor, &block);
            }
            Action::Commit { block } => {
                self.reporter.begins();
                self.commit(block).await?;
                self.reporter.committed(&self.node.monitor, block);
            }
            Action::Void { block } => self.node.vault.void(block)?,
            Action::Abort { block, ledger, .. } => self.node.vault.abort(block, &ledger)?,
            Action::Stage { .. } | Action::Trace { .. } | Action::Note { .. } => {}
        }
        Ok(())
    }

    /// The reserve slice of a block of an earlier session is given up: when this session was opened, the channels
    /// dropped every refill that not both ends had.
    async fn commit(&mut self, block: u64) -> Result<()> {
        if block >= self.first_block
            && let Some(key) = self.node.vault.reserve_slice(block)?
        {
            self.channel.refill(block, key).await?;
            shell::failpoint::hit("block.refilled");
        }
        self.node.vault.commit(block)?;
        shell::failpoint::hit("block.committed");
        let traceparent = self.reporter.traceparent(block);
        self.node.deliver_committed(&traceparent).await
    }
}
