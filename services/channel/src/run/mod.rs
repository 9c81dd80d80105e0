//! The endpoint's task: moves messages between module, state machine and peer.

mod ceilings;
mod handle;
mod streams;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use distill::auth::{Action, CloseReason, Endpoint, SendError, Whose};
use distill::bits::Bits;
use futures::future::{BoxFuture, OptionFuture};
use proto::channel::v1::{ChannelMessage, ModuleMessage, PeerFrame, ReserveReplaced, module_message};
use shell::dial::Dial;
use shell::fault;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topology::plan::{ChannelConfig, Speed};
use zeroize::Zeroizing;

use self::streams::{halves, receive, reserve, reserve_at, sleep_until};
use self::words::{closed, reserve_replaced, reserves_differ, to_module};
use crate::fault::DELAY_MAX;
use crate::reserve::Raise;
use crate::{ChannelEnd, FileReserve, ModuleStream, PeerStream};

pub(crate) use self::handle::Request;
pub use self::handle::{Handle, RekeyRefused};

/// Silence after which the last frames are said again; doubles up to the maximum.
const STALL_MIN: Duration = Duration::from_millis(500);
const STALL_MAX: Duration = Duration::from_secs(4);
/// Wait before dialling again; doubles up to the maximum.
const REDIAL_MIN: Duration = Duration::from_millis(20);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// How long a session survives without a connection to the peer.
const ABSENCE_MAX: Duration = Duration::from_secs(10);
/// Frames to the peer that may wait; more than these are dropped, as they can be said again.
const FRAMES_WAITING: usize = 64;
/// Time for the last frames at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs an endpoint until `stop`. Modules come from `modules`; the peer from `incoming`, or by `peer` where this end
/// initiates.
pub async fn run(
    end: ChannelEnd,
    mut modules: mpsc::Receiver<ModuleStream>,
    mut incoming: mpsc::Receiver<PeerStream>,
    peer: Arc<dyn Dial<PeerFrame, PeerFrame>>,
    stop: CancellationToken,
) -> Result<()> {
    let ChannelEnd { config, endpoint, handle, desk, mut requests } = end;
    let peer = fault::dial(desk.as_ref(), &config.peer_site, peer);
    let mut task = Task::new(endpoint, handle, &config);
    if task.endpoint.reserve().rolled_back().is_some() {
        task.handle.status.rolled_back(Some(task.rolled_back(Whose::Own)));
    }
    let mut dialling: Option<BoxFuture<'_, Result<PeerStream>>> = None;
    let mut redial = REDIAL_MIN;
    loop {
        if std::mem::take(&mut task.heard) {
            redial = REDIAL_MIN;
        }
        if config.initiates && task.peer.is_none() && dialling.is_none() {
            let wait = redial;
            redial = (redial * 2).min(REDIAL_MAX);
            let peer = &peer;
            dialling = Some(Box::pin(async move {
                tokio::time::sleep(wait).await;
                peer.dial().await
            }));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Some(module) = modules.recv() => task.module_arrives(module),
            Some(stream) = incoming.recv(), if !config.initiates => match &desk {
                Some(desk) => if let Some(stream) = desk.reach(&config.peer_site, stream) {
                    task.peer_arrives(stream);
                },
                None => task.peer_arrives(stream),
            },
            Some(dialled) = OptionFuture::from(dialling.as_mut()) => {
                dialling = None;
                match dialled {
                    Ok(stream) => task.peer_arrives(stream),
                    Err(error) => tracing::debug!(link = config.link, "peer not reached: {}", shell::chain(&error)),
                }
            }
            Some(request) = requests.recv() => task.rekey(request).await,
            () = task.progress() => {}
        }
        task.raise_ahead();
        task.handle.status.update(&task.endpoint);
    }
    task.farewell().await;
    Ok(())
}

struct Task {
    endpoint: Endpoint<FileReserve>,
    handle: Handle,
    link: String,
    site: String,
    peer_site: String,
    /// Ceilings on their way to the anchor, and whether it has them.
    raising: Option<BoxFuture<'static, (Raise, bool)>>,
    /// What the fibre takes, in wall time.
    delay: Duration,
    module: Option<ModuleStream>,
    peer: Option<PeerStream>,
    to_module: VecDeque<ChannelMessage>,
    /// What a module is to be told, be it the next one that comes.
    unsaid: Option<ReserveReplaced>,
    to_peer: VecDeque<(Instant, Bytes)>,
    /// The peer has said something: the connection is good.
    heard: bool,
    stall: Duration,
    /// The peer's reserve seems not to fit: the greeting is said seldom.
    unfit: bool,
    /// When the last frames are said again.
    stalled_at: Instant,
    /// When a session without a connection to the peer ends.
    absent_at: Option<Instant>,
}

/// What happened first.
enum Event {
    Module(Option<ModuleMessage>),
    Peer(Option<PeerFrame>),
    SentToModule(bool),
    SentToPeer(bool),
    Stalled,
    Absent,
    /// The anchor has answered; false where it has not kept what it was asked to.
    Raised(Raise, bool),
}

impl Task {
    fn new(endpoint: Endpoint<FileReserve>, handle: Handle, config: &ChannelConfig) -> Self {
        Self {
            endpoint,
            handle,
            link: config.link.clone(),
            site: config.site.clone(),
            peer_site: config.peer_site.clone(),
            raising: None,
            delay: fibre_delay(config),
            module: None,
            peer: None,
            to_module: VecDeque::new(),
            unsaid: None,
            to_peer: VecDeque::new(),
            heard: false,
            stall: STALL_MIN,
            unfit: false,
            stalled_at: Instant::now() + STALL_MIN,
            absent_at: None,
        }
    }

    /// The module's newest stream counts: whoever opened another one has died or given up.
    fn module_arrives(&mut self, module: ModuleStream) {
        self.module_leaves();
        self.module = Some(module);
    }

    fn module_leaves(&mut self) {
        self.module = None;
        self.to_module.clear();
        let actions = self.endpoint.leave();
        self.act(actions);
    }

    fn peer_arrives(&mut self, stream: PeerStream) {
        tracing::debug!(link = self.link, "peer connected");
        self.peer = Some(stream);
        self.absent_at = None;
        self.to_peer.clear();
        self.repeat();
        self.stall = STALL_MIN;
    }

    fn peer_leaves(&mut self) {
        tracing::debug!(link = self.link, "peer disconnected");
        self.peer = None;
        self.to_peer.clear();
        self.absent_at = Some(Instant::now() + ABSENCE_MAX);
    }

    /// Says the last frames again.
    fn repeat(&mut self) {
        for frame in self.endpoint.on_stall() {
            self.send_to_peer(frame);
        }
        self.stalled_at = Instant::now() + self.stall;
    }

    /// Waits for the next thing to happen and does it.
    async fn progress(&mut self) {
        match self.next_event().await {
            Event::Module(Some(ModuleMessage { message: Some(message) })) => self.module_says(message),
            Event::Module(Some(_)) => self.module_errs("an empty message"),
            Event::Module(None) | Event::SentToModule(false) => self.module_leaves(),
            Event::Peer(Some(frame)) => self.peer_says(&frame.frame),
            Event::Peer(None) | Event::SentToPeer(false) => self.peer_leaves(),
            Event::SentToModule(true) | Event::SentToPeer(true) => {}
            Event::Raised(raise, made) => self.raised(&raise, made),
            Event::Stalled => {
                self.stall = (self.stall * 2).min(STALL_MAX);
                self.repeat();
            }
            Event::Absent => {
                self.absent_at = None;
                if self.endpoint.session().is_some() {
                    self.endpoint.leave();
                    self.to_module.push_back(closed(
                        CloseReason::PeerLeft,
                        "the peer endpoint cannot be reached",
                        None,
                    ));
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let (waits, now) = (self.endpoint.waits() && self.peer.is_some(), Instant::now());
        let (module_tx, module_rx) = halves(&mut self.module);
        let (peer_tx, peer_rx) = halves(&mut self.peer);
        let due = self.to_peer.front().map_or(now, |(due, _)| *due);
        let absent_at = self.absent_at;
        // Nothing that may take a tag is taken up while the next one waits for the anchor.
        let starved = self.raising.is_some() && self.endpoint.reserve().waits_for_anchor();
        tokio::select! {
            biased;
            Some((raise, made)) = OptionFuture::from(self.raising.as_mut()) => Event::Raised(raise, made),
            room = reserve(module_tx), if self.unsaid.is_some() || !self.to_module.is_empty() => {
                let next = room.and_then(|room| {
                    let unsaid = self.unsaid.take().map(reserve_replaced);
                    Some((room, unsaid.or_else(|| self.to_module.pop_front())?))
                });
                let sent = next.map(|(room, message)| room.send(message));
                Event::SentToModule(sent.is_some())
            }
            room = reserve_at(peer_tx, due), if !self.to_peer.is_empty() => {
                let sent = room.zip(self.to_peer.pop_front()).map(|(room, (_, frame))| {
                    self.handle.status.sent(frame.len());
                    room.send(PeerFrame { frame });
                });
                Event::SentToPeer(sent.is_some())
            }
            message = receive(peer_rx), if !starved => Event::Peer(message),
            message = receive(module_rx), if !starved => Event::Module(message),
            () = tokio::time::sleep_until(self.stalled_at), if waits => Event::Stalled,
            () = sleep_until(absent_at), if absent_at.is_some() => Event::Absent,
        }
    }

    fn module_says(&mut self, message: module_message::Message) {
        let result = match message {
            module_message::Message::Open(open) => match self.ready_to_open() {
                Ok(nonce) => self.endpoint.open(nonce, &open.hello),
                Err(error) => return self.module_errs(&error.to_string()),
            },
            module_message::Message::Bundle(bundle) => {
                // A bundle that crossed the end of its session on the way means nothing any more.
                match self.endpoint.send(bundle.step, bundle.payload, bundle.close_round) {
                    Err(SendError::NotOpen) => Ok(Vec::new()),
                    result => result,
                }
            }
            module_message::Message::Refill(refill) => {
                let key = Zeroizing::new(refill.key.to_vec());
                Ok(self.endpoint.refill(refill.block, &Bits::from_bytes(&key, key.len() * 8)))
            }
        };
        self.unfit = false;
        self.stall = STALL_MIN;
        self.stalled_at = Instant::now() + self.stall;
        match result {
            Ok(actions) => self.act(actions),
            Err(error) => self.module_errs(&error.to_string()),
        }
    }

    /// A number for the session to come; a reserve that had no room is mended first.
    fn ready_to_open(&mut self) -> std::io::Result<u64> {
        if let Some(reserve) = self.endpoint.reserve_mut()
            && reserve.mend().map_err(std::io::Error::other)?
        {
            tracing::info!(link = self.link, "the authentication reserve is written again");
        }
        nonce()
    }

    /// The module does not keep to the contract; it may come back with a new stream.
    fn module_errs(&mut self, why: &str) {
        tracing::warn!(link = self.link, "module refused: {why}");
        self.module_leaves();
    }

    fn peer_says(&mut self, frame: &Bytes) {
        self.heard = true;
        self.handle.status.received(frame.len());
        let refused = self.endpoint.counters().refused();
        let actions = self.endpoint.receive(frame);
        if !self.unfit && self.endpoint.counters().refused() == refused {
            self.stall = STALL_MIN;
            self.stalled_at = Instant::now() + self.stall;
        }
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => self.send_to_peer(frame),
                Action::Refused(refusal) => tracing::debug!(link = self.link, "frame refused: {refusal}"),
                Action::Failed(why) => tracing::warn!(link = self.link, "{why}"),
                Action::Closed(reason) => {
                    tracing::info!(link = self.link, "session closed: {reason}");
                    let rolled_back = match reason {
                        CloseReason::RolledBack(whose) => Some(self.rolled_back(whose)),
                        _ => None,
                    };
                    if rolled_back.is_some() {
                        self.handle.status.rolled_back(rolled_back.clone());
                    }
                    self.to_module.push_back(closed(reason, &reason.to_string(), rolled_back));
                }
                Action::Unfit(misfit) => {
                    tracing::warn!(link = self.link, "the two ends' authentication reserves differ: {misfit}");
                    (self.unfit, self.stall) = (true, STALL_MAX);
                    self.handle.status.reserves_differ(misfit.to_string());
                    self.to_module.push_back(reserves_differ(misfit));
                }
                action => {
                    self.unfit &= !matches!(action, Action::Opened { .. });
                    let tags = self.endpoint.remaining();
                    self.to_module.extend(to_module(action, tags));
                }
            }
        }
    }

    fn send_to_peer(&mut self, frame: Bytes) {
        let arrival = Instant::now() + self.delay;
        let frames = match &self.handle.faults {
            Some(faults) => faults.apply(frame),
            None => vec![(Duration::ZERO, frame)],
        };
        for (delay, frame) in frames {
            if self.to_peer.len() < FRAMES_WAITING {
                self.to_peer.push_back((arrival + delay, frame));
            }
        }
    }

    /// Tells the peer and the anchor that this end goes.
    async fn farewell(mut self) {
        self.module_leaves();
        if tokio::time::timeout(FAREWELL, self.settle()).await.is_err() {
            tracing::warn!(link = self.link, "the anchor does not answer: the next start skips a few tags");
        }
        let Some(peer) = self.peer.take() else { return };
        let send = async {
            for (_, frame) in self.to_peer.drain(..) {
                if peer.send(PeerFrame { frame }).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(FAREWELL, send).await.is_err() {
            tracing::debug!(link = self.link, "the peer does not listen any more");
        }
        self.handle.status.update(&self.endpoint);
    }
}

/// Simulated time does not wait for anything, so that at full speed there is nothing to wait for either. The runtime's
/// timer counts whole milliseconds and rounds up: frames never come early.
fn fibre_delay(config: &ChannelConfig) -> Duration {
    match config.speed {
        Speed::Max => Duration::ZERO,
        Speed::RealTime(factor) => {
            let delay_s = config.delay_ps as f64 * 1e-12 / factor;
            Duration::try_from_secs_f64(delay_s).unwrap_or(DELAY_MAX).min(DELAY_MAX)
        }
    }
}

/// A number that no earlier session had.
fn nonce() -> std::io::Result<u64> {
    let bytes = shell::entropy()?;
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&bytes[..8]);
    Ok(u64::from_le_bytes(nonce).max(1))
}
