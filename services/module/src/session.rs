//! Sessions of a module: meet the peer, agree on an epoch with it and the source, distil, and meet again when
//! anything on the way breaks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use distill::config::LinkProtocol;
use distill::pipeline::{Action, FrameInput, Hello, Module, SessionStart, Setpoints, StepOutput, Stretch};
use photonics::random::Subseed;
use proto::channel::v1::{Bundle, ChannelMessage, ModuleMessage, Open, Opened, module_message};
use proto::detector::v1::LinkState;
use shell::compute;
use shell::dial::Dial;
use shell::fault::Desk;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use topology::plan::ModuleConfig;

use crate::delivery::Delivery;
use crate::lasting;
use crate::light::{Beginning, Begun, EpochLight, Epochs, Light, Remark};
use crate::link::{Link, PATIENCE};
use crate::report::Reporter;
use crate::seed::subseed;
use crate::status::Monitor;
use crate::vault::Vault;

/// Wait for the peer when nothing is left to do but what it may have left undecided.
const DEPARTURE: Duration = Duration::from_secs(5);
/// Wait before meeting again; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Epochs and blocks that the other end may have come further than this one: it takes one step more at most, whose
/// frame may end an epoch or two later.
const EPOCHS_AHEAD: u64 = 4;
const BLOCKS_AHEAD: u64 = 2;
/// Clocks of the two ends go apart by less than one part in this.
const CLOCKS_APART: u64 = 8192;

pub const CLOCK_STANDS_STILL: &str = "the local clock stands still";

/// Everything a module needs beside its configuration.
pub struct Node {
    pub config: ModuleConfig,
    pub light: Box<dyn Light>,
    pub channel: Arc<dyn Dial<ModuleMessage, ChannelMessage>>,
    pub vault: Vault,
    pub monitor: Arc<Monitor>,
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
            delivery.send(&self.config.link, (&stored, &key), epoch, traceparent).await?;
        }
        Ok(())
    }

    fn remark(&self, remark: Option<Remark>) {
        if let Some((name, message)) = remark {
            self.monitor.note(name, &message);
        }
    }

    /// Light that is kept of the block that is being sifted.
    fn kept_s(&mut self) -> f64 {
        self.vault.stretches().frames() as f64 * self.config.protocol.post_processing.framing.frame_s()
    }

    /// Gives up what is kept of a block beyond this many rounds of sifting.
    fn give_up_stretches(&mut self, rounds: u64) -> Result<()> {
        let Some((block, ledger)) = self.vault.stretches().settle(rounds)? else { return Ok(()) };
        self.monitor.note("stretches-voided", &format!("block {block}: the other end does not have all that was kept"));
        // What is erased counts for more than a ledger that found no room, or a number that is too old.
        if let Err(error) = self.vault.abort(block, &ledger) {
            tracing::warn!(block, "the ledger of void stretches is not kept: {}", shell::chain(&error));
        }
        Ok(())
    }

    /// Whether a session from this epoch on would be without light: there is only what is undecided to decide.
    fn without_light(&self, first_epoch: u64) -> bool {
        self.light_over || self.config.epochs_limit.is_some_and(|limit| first_epoch >= limit)
    }
}

/// Runs sessions until one finishes the run, or `stop`.
pub async fn run(mut node: Node, stop: CancellationToken) -> Result<()> {
    let ModuleConfig { link, site, epoch_ps, blocks_kept, .. } = &node.config;
    node.vault.keep(*blocks_kept);
    node.vault.count_in(*epoch_ps).with_context(|| format!("the data of link {link} at {site}"))?;
    if let Some(before) = node.vault.uptime() {
        node.monitor.resume(before);
    }
    let seed = subseed(node.config.subseed.as_ref())?;
    let ended = tokio::select! {
        ended = sessions(&mut node, &seed, &stop) => ended,
        () = stop.cancelled() => Ok(false),
    };
    node.light.end();
    node.vault.keep_uptime(node.monitor.counts());
    let remark = node.light.finish();
    node.remark(remark);
    let ended = ended?;
    match node.delivery.take() {
        // Time does not wait for room: what found none is handed over by the next run.
        Some(delivery) if node.config.dark_when_full => {
            tokio::time::timeout(DEPARTURE, delivery.finish()).await.unwrap_or(Ok(()))?;
        }
        Some(delivery) => delivery.finish().await?,
        None => {}
    }
    if ended {
        node.monitor.note("ended", "the run is complete");
        node.monitor.enter(LinkState::Ended);
    }
    Ok(())
}

/// Session after session; true where the run is complete, false where it was stopped.
async fn sessions(node: &mut Node, seed: &Subseed, stop: &CancellationToken) -> Result<bool> {
    node.deliver_committed("").await?;
    let pump = if node.config.protocol.sets_pump() { node.config.initial_pump } else { 0.0 };
    let at_first = Setpoints { pump, ..Setpoints::default() };
    let mut setpoints = at_first;
    let (mut retry, mut said) = (RETRY_MIN, String::new());
    loop {
        node.vault.keep_uptime(node.monitor.counts());
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
            result = session(node, seed, &mut setpoints) => result,
        };
        node.light.end();
        if node.config.subseed.is_some() {
            // How many steps of the session this end took before it noticed the end is wall time's.
            setpoints = at_first;
        }
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
async fn session(node: &mut Node, seed: &Subseed, setpoints: &mut Setpoints) -> Result<()> {
    let protocol = node.config.protocol.clone();
    if let Some(faults) = &node.faults
        && faults.clock_stands_still()
    {
        node.monitor.note("clock-stopped", CLOCK_STANDS_STILL);
        faults.clock_runs().await;
        node.monitor.note("clock-runs", "the local clock was set and runs again");
    }
    // A block file that had no room may have some by now.
    node.vault.mend().context("mend the block file")?;
    let mut channel = Link::new(node.channel.dial().await.context("reach the channel")?, node.monitor.clone());
    for block in node.vault.unfinished(protocol.side()) {
        if let Some(key) = node.vault.reserve_slice(block)? {
            channel.refill(block, key).await?;
        }
        node.vault.commit(block)?;
        node.deliver_committed("").await?;
    }
    give_up_foreign(node, &protocol)?;
    let Some(opened) = greet(node, &mut channel, &protocol).await? else { return Ok(()) };
    let Agreed { start, first_epoch: asked, carried } = agree(node, &opened, &protocol, *setpoints)?;
    // The source may wait for a peer that has left since.
    let Begun { first_epoch, epochs: light } = tokio::select! {
        biased;
        light = begin(node, opened.session, asked, *setpoints) => light?,
        why = channel.ended() => return Err(why),
    };
    if first_epoch > asked {
        passed_over(node, asked, first_epoch)?;
    }
    let mut module = Box::new(Module::new(&protocol, &start, session_seed(seed, first_epoch)));
    if let Some(stretches) = carried {
        module.carry(stretches)?;
    }
    let module = Some(module);
    let mut run = Run {
        reporter: Reporter::new(&node.config, first_epoch),
        node,
        channel,
        module,
        step: 0,
        first_epoch,
        first_block: start.first_block,
        setpoints,
    };
    run.reporter.session_begins(&run.node.monitor, opened.session, opened.reserve_tags);
    let result = run.distil(light).await;
    if result.is_err() {
        let begun = run.module.as_ref().and_then(|module| module.kept());
        for (block, ledger) in run.module.iter_mut().flat_map(|module| module.void()) {
            // Why the session ended counts for more than a ledger that found no room.
            if let Err(error) = run.node.vault.abort(block, &ledger) {
                tracing::warn!(block, "the ledger of a void round is not kept: {}", shell::chain(&error));
            }
            match begun {
                Some((number, _)) if number == block => {
                    let kept_s = run.node.kept_s();
                    run.reporter.interrupted(&run.node.monitor, block, kept_s);
                }
                _ => run.reporter.voided(&run.node.monitor, block),
            }
        }
    }
    result
}

/// Gives up what is kept of a block that was begun under another configuration: evidence of both says nothing together.
fn give_up_foreign(node: &mut Node, protocol: &LinkProtocol) -> Result<()> {
    let own = own_hello(node, protocol).protocol;
    if node.vault.stretches().are_of(own) {
        return Ok(());
    }
    node.monitor
        .note("stretches-voided", "the configuration of the link changed: what was sifted of a block is given up");
    node.give_up_stretches(0)
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

fn own_hello(node: &mut Node, protocol: &LinkProtocol) -> Hello {
    let vault = &mut node.vault;
    Hello::new(protocol, vault.next_block(), vault.next_epoch(), vault.committed_end())
        .with_stretches(vault.stretches().offers())
}

/// What both greetings come to.
struct Agreed {
    start: SessionStart,
    first_epoch: u64,
    /// Of a block that was begun before, where either end has begun one.
    carried: Option<Vec<Stretch>>,
}

/// Where the session starts, from both greetings; leases the epochs to come.
fn agree(node: &mut Node, opened: &Opened, protocol: &LinkProtocol, setpoints: Setpoints) -> Result<Agreed> {
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
        latency_steps: node.config.latency_epochs,
        setpoints,
    };
    let stretches = node.vault.stretches();
    let carried = own.carries(&peer).map(|rounds| stretches.load(rounds)).transpose()?;
    Ok(Agreed { start, first_epoch, carried })
}

/// The network went on without this link: the epochs up to the session's first one were dark.
fn passed_over(node: &mut Node, asked: u64, first_epoch: u64) -> Result<()> {
    node.vault.lease(first_epoch)?;
    let seconds = |epochs: u64| epochs as f64 * node.config.epoch_ps as f64 * 1e-12;
    let (dark_s, at_s) = (seconds(first_epoch - asked), seconds(first_epoch));
    node.monitor.note("passed-over", &format!("the network went on for {dark_s:.2} s: begins at {at_s:.2} s"));
    Ok(())
}

/// Begins the session's light.
async fn begin(node: &mut Node, session: u64, first_epoch: u64, setpoints: Setpoints) -> Result<Begun> {
    if node.without_light(first_epoch) {
        let (tx, rx) = mpsc::channel(1);
        tx.try_send(Ok(EpochLight::end(first_epoch))).ok().context("end a run without light")?;
        return Ok(Begun { first_epoch, epochs: rx });
    }
    let latency_epochs = node.config.latency_epochs;
    node.light.begin(Beginning { session, first_epoch, setpoints, latency_epochs }).await
}

/// A session's own randomness: no session draws what another one drew.
fn session_seed(module: &Subseed, first_epoch: u64) -> [u8; 32] {
    // A first epoch is never used twice, also not after a kill.
    *module.derive(&format!("session from epoch {first_epoch}")).bytes()
}

/// A session in full flow.
struct Run<'n> {
    node: &'n mut Node,
    channel: Link,
    /// Away while it takes a step.
    module: Option<Box<Module>>,
    reporter: Reporter,
    step: u64,
    first_epoch: u64,
    /// Blocks before this one are of earlier sessions.
    first_block: u64,
    setpoints: &'n mut Setpoints,
}

/// What became of a step.
struct Taken {
    held: Option<FrameInput>,
    /// The session is complete.
    finished: bool,
}

impl Run<'_> {
    async fn distil(&mut self, mut light: Epochs) -> Result<()> {
        loop {
            // The peer may have gone before its light came: then none comes here either.
            let done = tokio::select! {
                biased;
                done = tokio::time::timeout(PATIENCE, light.recv()) => done.context("wait for light")?,
                why = self.channel.ended() => return Err(why),
            };
            let done = done.context("the instrument stopped")?.context("the instrument stopped")?;
            for frame in done.frames {
                let remark = self.node.light.taken(&frame);
                self.node.remark(remark);
                self.take_frame(frame).await?;
            }
            if done.end {
                return self.drain(done.epoch).await;
            }
            self.reporter.light(&self.node.monitor, done.epoch, &done.outage);
            self.node.vault.lease(done.epoch)?;
            self.node.vault.keep_uptime(self.node.monitor.counts());
            let epoch = done.epoch + self.node.config.latency_epochs;
            let dark = self.node.config.dark_when_full && self.node.delivery.as_mut().is_some_and(Delivery::darkens);
            self.node.light.set(epoch, *self.setpoints, dark).await;
            self.report(done.epoch, done.epoch + 1);
        }
    }

    /// There is no light any more: finish what is under way.
    async fn drain(&mut self, end: u64) -> Result<()> {
        self.node.vault.run_ended(end)?;
        self.node.light_over = true;
        self.node.monitor.run_ends();
        self.node.vault.keep_uptime(self.node.monitor.counts());
        while !self.take_step(None).await?.finished {}
        self.report(end, end);
        Ok(())
    }

    /// Tells the figures in this epoch; those below `done` are over.
    fn report(&mut self, epoch: u64, done: u64) {
        if let Some(module) = &self.module {
            self.reporter.epoch(&self.node.monitor, (epoch, done), module, *self.setpoints);
        }
    }

    /// Steps until one takes the frame: it may have to wait for rounds in work.
    async fn take_frame(&mut self, frame: FrameInput) -> Result<()> {
        let mut due = Some(frame);
        while due.is_some() {
            due = self.take_step(due).await?.held;
        }
        Ok(())
    }

    /// One step of the lockstep.
    async fn take_step(&mut self, frame: Option<FrameInput>) -> Result<Taken> {
        let peer = match self.step {
            0 => None,
            step => {
                let (peer, reserve_tags) = self.channel.delivered(step - 1).await?;
                self.node.monitor.update(|s| s.reserve_tags = reserve_tags);
                Some(peer)
            }
        };
        self.reporter.begins();
        let mut module = self.module.take().context("the module is away: an earlier step was given up")?;
        let light = module.is_light(frame.as_ref());
        let step = move || {
            let output = module.step(frame, peer);
            (module, output)
        };
        // A thread of its own costs more than a light step does.
        let (module, output) = if light { step() } else { compute::pool().run(step).await? };
        self.module = Some(module);
        let output = output.inspect_err(|_| self.ends_by_contents())?;
        let StepOutput { payload, close_round, setpoints, actions, held, finished } = output;
        *self.setpoints = setpoints;
        for action in actions {
            self.act(action).await?;
        }
        let bundle = Bundle { step: self.step, payload: Bytes::from(payload), close_round };
        self.channel.send(module_message::Message::Bundle(bundle)).await?;
        self.step += 1;
        Ok(Taken { held, finished })
    }

    /// This end ends the session by what it was given, so that under a seed the next one begins where contents say. The
    /// other end goes on until it notices, at some moment of wall time: both begin behind what it can have come to.
    fn ends_by_contents(&mut self) {
        let ModuleConfig { subseed, epoch_ps, protocol, .. } = &self.node.config;
        if subseed.is_none() {
            return;
        }
        let frame_ps = (protocol.post_processing.framing.frame_s() * 1e12) as u64;
        let apart = self.node.vault.next_epoch().saturating_sub(self.first_epoch) / CLOCKS_APART;
        let epochs = EPOCHS_AHEAD + 2 * frame_ps.div_ceil((*epoch_ps).max(1)) + apart;
        self.node.vault.pass_over(epochs, BLOCKS_AHEAD);
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
                self.node.vault.store(&block, &trace_id)?;
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
            Action::Keep { block, stretch } => {
                self.node.vault.stretches().keep(block, &stretch)?;
                shell::failpoint::hit("stretch.kept");
            }
            Action::Settle { block, rounds } => {
                self.node.give_up_stretches(rounds)?;
                shell::failpoint::hit("stretch.settled");
                let kept_s = self.node.kept_s();
                self.reporter.goes_on(&self.node.monitor, block, kept_s);
            }
            Action::Spend { .. } => {
                self.node.vault.stretches().spend()?;
                shell::failpoint::hit("stretch.spent");
            }
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
