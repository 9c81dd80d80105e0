//! One end of a link after the click: a state machine that takes one frame of clicks and one bundle of the
//! peer per step and gives one bundle, control set-points and finished blocks.
//!
//! Steps are numbered from the start of a session and both ends take them in lockstep: step `s` consumes the
//! peer's bundle of step `s - 1`. So everything that happens follows from clicks and step numbers, never from
//! the order or the moment in which messages arrive.
//!
//! The way of a block: `round_frames` frames of announcements are sifted into a string at each end
//! (`round`); Cascade, verification and amplification make the key of it (`matcher`, `announcer`); the
//! matcher closes the round, which puts an authentication tag on everything said so far; the announcer answers
//! "prepared" under a tag of its own once the block is on its disk; then the matcher stores the block, and the
//! announcer commits it as soon as a later tag covers the matcher's word that it has.

mod announcer;
mod matcher;
pub mod messages;
mod round;
#[cfg(test)]
mod tests;

use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

pub use self::announcer::Announcer;
pub use self::matcher::Matcher;
pub use self::messages::Hello;
use self::messages::{BlockMessage, BlockStep, Bundle};
use self::round::Round;
use crate::bits::Bits;
use crate::bounds::KeyLength;
use crate::config::{LinkProtocol, Role};
use crate::ledger::BlockLedger;
use crate::recovery::RecoveryStatus;

/// Longest stretch of steps without frames that finishing a run may take.
pub const DRAIN_STEPS_MAX: u64 = 20_000;

/// Why a session cannot go on. The service closes it and opens a new one.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("the peer sent a malformed {0}")]
    Malformed(&'static str),
    #[error("the peer sent {bytes} bytes in one message, more than a bundle can have")]
    TooLong { bytes: usize },
    #[error("the peer sent the bundle of step {found}, expected step {expected}")]
    Step { expected: u64, found: u64 },
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("announcement refused: {0}")]
    Announcement(#[from] crate::announce::AnnounceError),
    #[error("clock recovery refused an announcement: {0}")]
    Recovery(#[from] crate::recovery::RecoveryError),
    #[error("sifting reply refused: {0}")]
    Sift(#[from] crate::sift::SiftError),
    #[error("reconciliation message refused: {0}")]
    Cascade(#[from] crate::cascade::CascadeError),
    #[error("the ledger of a block does not add up: {0}")]
    Ledger(#[from] crate::ledger::LedgerError),
    #[error("finishing the run took more than {DRAIN_STEPS_MAX} steps")]
    DrainTooLong,
}

/// A frame of clicks in the module's own time.
pub struct FrameInput {
    pub number: u64,
    pub tags: Vec<u64>,
    /// Trace context of the light in it.
    pub traceparent: String,
}

/// What the peer said in the step before, and whether a tag has just covered everything up to it.
pub struct PeerInput {
    pub payload: bytes::Bytes,
    pub authenticated: bool,
}

/// Where the instruments are told to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setpoints {
    pub phase_rad: f64,
    pub polarisation_rad: [f64; 2],
    /// Relative to nominal; 0 at the announcer, which does not control it.
    pub pump: f64,
}

impl Default for Setpoints {
    fn default() -> Self {
        Self { phase_rad: 0.0, polarisation_rad: [0.0; 2], pump: 1.0 }
    }
}

/// What one step gives. Actions are carried out, in order, before the bundle leaves.
pub struct StepOutput {
    pub payload: Vec<u8>,
    pub close_round: bool,
    pub setpoints: Setpoints,
    pub actions: Vec<Action>,
    /// The session is complete: everything is stored and said.
    pub finished: bool,
}

/// Something that the service must do or tell.
#[derive(Debug)]
pub enum Action {
    /// Make the block durable, undecided; it will be committed or voided.
    Prepare(FinishedBlock),
    /// Make the block durable and committed.
    Store(FinishedBlock),
    Commit {
        block: u64,
    },
    Void {
        block: u64,
    },
    /// A block that gave no key: why, and where its bits went.
    Abort {
        block: u64,
        reason: String,
        frames: u64,
        ledger: BlockLedger,
    },
    /// Part of a block's work began or ended.
    Stage {
        block: u64,
        stage: Stage,
        begin: bool,
    },
    /// The trace that a block belongs to.
    Trace {
        block: u64,
        traceparent: String,
    },
    Note {
        name: &'static str,
        message: String,
    },
}

/// The stages of a block's work, as traces show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Sift,
    Reconcile,
    Verify,
    Amplify,
    Authenticate,
}

/// A block as it leaves amplification.
#[derive(Debug)]
pub struct FinishedBlock {
    pub number: u64,
    /// The first `reserve_bits` go into the authentication reserve, the rest is delivered.
    pub key: Bits,
    pub reserve_bits: usize,
    /// Frames of announcements that it is made of.
    pub frames: u64,
    pub ledger: BlockLedger,
    pub length: KeyLength,
    pub qber_z: f64,
}

/// Figures for people, taken after a step.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub frames: u64,
    pub clicks: u64,
    pub sifted_z: u64,
    pub sifted_x: u64,
    pub qber_z: f64,
    pub qber_x: f64,
    pub recovery: Option<RecoveryStatus>,
    pub locked: bool,
}

/// How a session begins.
#[derive(Clone, Debug)]
pub struct SessionStart {
    pub first_block: u64,
    /// A block that is durable here but undecided, from an earlier session (announcer only).
    pub in_doubt: Option<u64>,
    /// What the peer's greeting said; believed once a tag has covered it.
    pub peer_committed_end: u64,
    pub own_committed_end: u64,
    /// Steps from a measurement to its effect.
    pub latency_steps: u64,
    pub setpoints: Setpoints,
}

/// One end of a link during one session.
pub enum Module {
    Announcer(Box<Announcer>),
    Matcher(Box<Matcher>),
}

impl Module {
    /// `seed` is this end's own randomness for this session.
    pub fn new(protocol: &LinkProtocol, start: &SessionStart, seed: [u8; 32]) -> Self {
        let rng = ChaCha20Rng::from_seed(seed);
        match protocol.role {
            Role::Announcer => Self::Announcer(Box::new(Announcer::new(protocol, start, rng))),
            Role::Matcher => Self::Matcher(Box::new(Matcher::new(protocol, start, rng))),
        }
    }

    /// One step. `frame` is absent once the run has no more light; `peer` is absent in step 0 alone.
    pub fn step(&mut self, frame: Option<FrameInput>, peer: Option<PeerInput>) -> Result<StepOutput, ModuleError> {
        match self {
            Self::Announcer(end) => end.step(frame, peer),
            Self::Matcher(end) => end.step(frame, peer),
        }
    }

    /// Gives up every round in work, because the session broke. The ledgers say what was lost.
    pub fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        let rounds: Vec<&mut Round> = match self {
            Self::Announcer(end) => end.rounds_in_work(),
            Self::Matcher(end) => end.rounds_in_work(),
        };
        rounds.into_iter().filter(|round| round.frames > 0).map(|round| (round.block, round.void())).collect()
    }

    pub fn figures(&self) -> Figures {
        match self {
            Self::Announcer(end) => end.figures(),
            Self::Matcher(end) => end.figures(),
        }
    }
}

/// What a step collects before it is encoded.
struct Draft {
    bundle: Bundle,
    actions: Vec<Action>,
    close_round: bool,
    finished: bool,
}

impl Draft {
    fn new(step: u64) -> Self {
        let bundle = Bundle { step, ..Bundle::default() };
        Self { bundle, actions: Vec::new(), close_round: false, finished: false }
    }

    fn finish(self, setpoints: Setpoints) -> StepOutput {
        StepOutput {
            payload: self.bundle.encode_to_vec(),
            close_round: self.close_round,
            setpoints,
            actions: self.actions,
            finished: self.finished,
        }
    }

    fn stage(&mut self, block: u64, stage: Stage, begin: bool) {
        self.actions.push(Action::Stage { block, stage, begin });
    }

    fn say(&mut self, block: u64, step: BlockStep) {
        self.bundle.blocks.push(BlockMessage { block, step: Some(step) });
    }
}

/// A number that differs where two ends were started with different protocols.
pub fn protocol_fingerprint(protocol: &LinkProtocol) -> u64 {
    let mut neutral = protocol.clone();
    neutral.role = Role::Announcer;
    // FNV-1a over the debug form: not a security function, only a clear error for a mistake.
    format!("{neutral:?}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
