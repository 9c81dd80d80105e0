//! One end of a link after the light: a state machine that takes one frame of light and one bundle of the peer per step
//! and gives one bundle, control set-points and finished blocks.
//!
//! Steps are numbered from the start of a session and both ends take them in lockstep: step `s` consumes the
//! peer's bundle of step `s - 1`. So everything that happens follows from light and step numbers, never from
//! the order or the moment in which messages arrive.
//!
//! Nothing here knows how light becomes sifted bits: the two halves of a sifting protocol ([`crate::sifting`]) talk
//! through the bundles, in bytes that are theirs, and give one round after the other. A round is a block. The end that
//! holds the *reference* string and the one that *corrects* its own ([`Side`]) bring it to key: Cascade, verification
//! and amplification (`corrector`, `reference`; what both do alike is in `round`). Then the corrector closes the round,
//! which puts an authentication tag on everything said so far; the reference answers "prepared" under a tag of its own
//! once the block is on its disk; then the corrector stores the block, and the reference commits it as soon as a later
//! tag covers the corrector's word that it has.
//!
//! Reconciliation takes about a hundred steps. Where a frame of counts is so long that a round has few of them, light waits
//! meanwhile: while one of the ends has several rounds in work, as both know from their bundles, steps take no frame.

#[cfg(test)]
mod coarse_tests;
mod corrector;
pub mod messages;
mod reference;
mod round;
mod stretch;
#[cfg(test)]
mod stretch_tests;
#[cfg(test)]
mod tests;

use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use self::corrector::Corrector;
use self::messages::{BlockMessage, BlockStep, Bundle, SiftingMessage};
pub use self::messages::{Hello, Mismatch};
use self::reference::Reference;
use self::round::Round;
use self::stretch::OpenBlock;
pub use self::stretch::{Material, OFFERS, Offer, Stretch};
use crate::bits::Bits;
use crate::bounds::KeyLength;
pub use crate::config::Side;
use crate::config::{LinkProtocol, PostProcessing};
use crate::ledger::{BlockLedger, Line};
pub use crate::loops::Setpoints;
pub use crate::sifting::FrameInput;
use crate::sifting::{self, Context, Detected, Event, Sifting, SiftingFigures, SiftingStart};

/// Longest stretch of steps without frames that finishing a run may take.
pub const DRAIN_STEPS_MAX: u64 = 20_000;

/// Bits of a round or frame up to which no step takes long.
const LIGHT_BITS_MAX: usize = 1 << 18;

/// Rounds in work with which light goes on: with two of them neither end waits for the other one's answer alone.
const ROUNDS_AHEAD: u32 = 1;

/// Longest stretch of steps in which a frame may wait for rounds in work.
pub const HELD_STEPS_MAX: u64 = 20_000;

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
    #[error(transparent)]
    Sifting(#[from] crate::sifting::SiftingError),
    #[error("reconciliation message refused: {0}")]
    Cascade(#[from] crate::cascade::CascadeError),
    #[error("the ledger of a block does not add up: {0}")]
    Ledger(#[from] crate::ledger::LedgerError),
    #[error("finishing the run took more than {DRAIN_STEPS_MAX} steps")]
    DrainTooLong,
    #[error("rounds in work took more than {HELD_STEPS_MAX} steps")]
    HeldTooLong,
}

/// What the peer said in the step before, and whether a tag has just covered everything up to it.
#[derive(Clone)]
pub struct PeerInput {
    pub payload: bytes::Bytes,
    pub authenticated: bool,
}

/// What one step gives. Actions are carried out, in order, before the bundle leaves.
pub struct StepOutput {
    pub payload: Vec<u8>,
    pub close_round: bool,
    pub setpoints: Setpoints,
    pub actions: Vec<Action>,
    /// The frame, where it was not taken: it is due in the next step.
    pub held: Option<FrameInput>,
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
    /// Make what was sifted of the block since its last checkpoint durable: it outlives the session.
    Keep {
        block: u64,
        stretch: Stretch,
    },
    /// Of the stretches that are kept those up to this many rounds count; what is beyond them is given up.
    Settle {
        block: u64,
        rounds: u64,
    },
    /// Erase all stretches: their bits are reconciled from now on, as the peer will know.
    Spend {
        block: u64,
    },
    /// A block that gave no key: why, and where its bits went.
    Abort {
        block: u64,
        reason: String,
        frames: u64,
        detected: Detected,
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
    /// Frames of light that it is made of.
    pub frames: u64,
    pub detected: Detected,
    pub ledger: BlockLedger,
    pub length: KeyLength,
}

/// Figures for people, taken after a step.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of the last block: its key, what was compared in public, and what was detected.
    pub key: Compared,
    pub check: Compared,
    pub detected: Detected,
    pub sifting: SiftingFigures,
}

/// Bits that both ends hold or held, and how many of them differed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub bits: u64,
    pub errors: u64,
}

impl Compared {
    /// Error rate; 0 where there was nothing to compare.
    pub fn qber(self) -> f64 {
        self.errors as f64 / (self.bits as f64).max(1.0)
    }
}

/// How a session begins.
#[derive(Clone, Debug)]
pub struct SessionStart {
    pub first_block: u64,
    /// A block that is durable here but undecided, from an earlier session (reference side only).
    pub in_doubt: Option<u64>,
    /// What the peer's greeting said; believed once a tag has covered it.
    pub peer_committed_end: u64,
    pub own_committed_end: u64,
    /// Steps from a measurement to its effect.
    pub latency_steps: u64,
    pub setpoints: Setpoints,
}

/// One end of a link during one session.
pub struct Module {
    sifting: Box<dyn Sifting>,
    side: Half,
    shared: Shared,
    light_over: bool,
    peer_light_over: bool,
    drain_steps: u64,
    /// Of light that waits for rounds in work, where it does.
    hold: Option<Hold>,
    /// Its light is counts.
    counted: bool,
}

/// What decides whether a frame is taken: what both ends said in the step before, so that both decide alike.
#[derive(Default)]
struct Hold {
    own_rounds: u32,
    peer_rounds: u32,
    /// Steps since the last frame.
    steps: u64,
}

enum Half {
    Reference(Box<Reference>),
    Corrector(Box<Corrector>),
}

/// What the side of a module works with beside its own state.
struct Shared {
    config: PostProcessing,
    rng: ChaCha20Rng,
    step: u64,
    /// Steps that took light, or could have: what sifting counts.
    light_step: u64,
    /// The first block that sifting has not given all of.
    open: OpenBlock,
    figures: Figures,
}

impl Module {
    /// `seed` is this end's own randomness for this session.
    pub fn new(protocol: &LinkProtocol, start: &SessionStart, seed: [u8; 32]) -> Self {
        let SessionStart { latency_steps, setpoints, .. } = *start;
        let sifting = sifting::half(protocol, &SiftingStart { latency_steps, setpoints });
        let mut module = Self::with_sifting(sifting, protocol.side(), &protocol.post_processing, start, seed);
        module.shared.open.of_protocol(protocol_fingerprint(protocol));
        let holds = protocol.is_counted() && protocol.post_processing.framing.is_coarse();
        Self { hold: holds.then(Hold::default), counted: protocol.is_counted(), ..module }
    }

    /// With a half of any sifting protocol; the peer has the other half and the other side.
    pub fn with_sifting(
        sifting: Box<dyn Sifting>,
        side: Side,
        config: &PostProcessing,
        start: &SessionStart,
        seed: [u8; 32],
    ) -> Self {
        let open = OpenBlock::new(side, start.first_block, config.authentication.stretches);
        let side = match side {
            Side::Reference => Half::Reference(Box::new(Reference::new(start))),
            Side::Corrector => Half::Corrector(Box::new(Corrector::new(start))),
        };
        let shared = Shared {
            config: config.clone(),
            rng: ChaCha20Rng::from_seed(seed),
            step: 0,
            light_step: 0,
            open,
            figures: Figures::default(),
        };
        let (light_over, peer_light_over, drain_steps, hold, counted) = (false, false, 0, None, false);
        Self { sifting, side, shared, light_over, peer_light_over, drain_steps, hold, counted }
    }

    /// Goes on with a block that was begun in earlier sessions: with these stretches of it, on which both greetings
    /// [agree](Hello::carries). Before the first step, and also where they agree on none of those that are kept.
    pub fn carry(&mut self, stretches: Vec<Stretch>) -> Result<(), ModuleError> {
        self.shared.open.carry(stretches)
    }

    /// One step. `frame` is absent once the run has no more light; `peer` is absent in step 0 alone. A frame that comes
    /// back is due again.
    pub fn step(&mut self, frame: Option<FrameInput>, peer: Option<PeerInput>) -> Result<StepOutput, ModuleError> {
        let mut draft = Draft::new(self.shared.step);
        if let Some(peer) = peer {
            self.hear(peer, &mut draft)?;
        }
        match frame {
            Some(frame) if self.waits()? => draft.held = Some(frame),
            Some(frame) => self.take(frame, &mut draft)?,
            None => self.drain(&mut draft)?,
        }
        self.say(&mut draft)?;
        let sifting_over = self.sifting.is_over();
        self.close_blocks(sifting_over, &mut draft)?;
        draft.bundle.committed_end = match &mut self.side {
            Half::Reference(side) => side.committed_end(),
            Half::Corrector(side) => side.conclude(&mut self.shared, sifting_over, &mut draft),
        };
        if let Some(hold) = &mut self.hold {
            hold.own_rounds = match &self.side {
                Half::Reference(side) => side.rounds_in_work().count(),
                Half::Corrector(side) => side.rounds_in_work().count(),
            } as u32;
            draft.bundle.rounds = hold.own_rounds;
        }
        let setpoints = self.sifting.setpoints(self.shared.light_step);
        self.shared.step += 1;
        self.shared.light_step += u64::from(draft.held.is_none());
        Ok(draft.finish(setpoints))
    }

    /// Whether the next step is one of about a millisecond at most: one of few bits, where light is counts.
    pub fn is_light(&self, frame: Option<&FrameInput>) -> bool {
        let rounds: Option<usize> = match &self.side {
            Half::Reference(side) => side.rounds_in_work().map(|round| round.key.len()).max(),
            Half::Corrector(side) => side.rounds_in_work().map(|round| round.key.len()).max(),
        };
        let of_frame = match frame.map(|frame| &frame.light) {
            Some(sifting::Light::Counts(frame)) => frame.key.bits.len() + frame.check.bits.len(),
            Some(sifting::Light::Tags(_) | sifting::Light::Pulses { .. }) => usize::MAX,
            None => 0,
        };
        self.counted && rounds.unwrap_or(0).max(of_frame) <= LIGHT_BITS_MAX
    }

    /// Whether light waits for rounds in work in this step.
    fn waits(&mut self) -> Result<bool, ModuleError> {
        let Some(hold) = &mut self.hold else { return Ok(false) };
        let waits = hold.own_rounds.max(hold.peer_rounds) > ROUNDS_AHEAD;
        hold.steps = if waits { hold.steps + 1 } else { 0 };
        if hold.steps > HELD_STEPS_MAX { Err(ModuleError::HeldTooLong) } else { Ok(waits) }
    }

    fn hear(&mut self, peer: PeerInput, draft: &mut Draft) -> Result<(), ModuleError> {
        let PeerInput { payload, authenticated } = peer;
        let bundle = Bundle::decode_bytes(payload)?;
        if bundle.step + 1 != self.shared.step {
            return Err(ModuleError::Step { expected: self.shared.step - 1, found: bundle.step });
        }
        if let Some(hold) = &mut self.hold {
            hold.peer_rounds = bundle.rounds;
        }
        if bundle.drained && !self.peer_light_over {
            (self.peer_light_over, self.shared.open.peer_light_over) = (true, true);
            self.sifting.peer_light_over();
        }
        if let Half::Reference(side) = &mut self.side {
            side.hear(&bundle, authenticated, self.shared.open.number(), draft);
        }
        if let Some(message) = &bundle.sifting {
            if message.tag != self.sifting.tag().0 || message.bytes.is_empty() {
                return Err(ModuleError::Protocol("a sifting message of another protocol, or an empty one"));
            }
            self.shared.open.hears(bundle.step, &message.bytes);
            let mut events = Vec::new();
            self.sifting.hear(&message.bytes, &mut self.shared.context(&mut events))?;
            if let Some(block) = self.tell(events, draft)
                && !bundle.traceparent.is_empty()
            {
                draft.begin(block, bundle.traceparent.chars().take(64).collect());
            }
            self.take_rounds(draft)?;
        }
        for message in bundle.blocks {
            let reconciled = match &mut self.side {
                Half::Reference(side) => side.on_block(message, authenticated, &mut self.shared, draft)?,
                Half::Corrector(side) => side.on_block(message, authenticated, &mut self.shared, draft)?,
            };
            // Of light of this session.
            if let Some(reconciled) = reconciled.filter(|reconciled| reconciled.frames > 0) {
                self.sifting.reconciled(&reconciled);
            }
        }
        draft.finished = match &self.side {
            Half::Reference(side) => side.is_finished(authenticated),
            Half::Corrector(side) => side.is_finished(bundle.farewell),
        };
        draft.bundle.farewell = draft.finished && matches!(self.side, Half::Reference(_));
        Ok(())
    }

    fn take(&mut self, frame: FrameInput, draft: &mut Draft) -> Result<(), ModuleError> {
        let (traceparent, mut events) = (frame.traceparent.clone(), Vec::new());
        self.sifting.take(frame, &mut self.shared.context(&mut events))?;
        if let Some(block) = self.tell(events, draft) {
            draft.bundle.traceparent.clone_from(&traceparent);
            draft.begin(block, traceparent);
        }
        Ok(())
    }

    /// A step without light: what is under way is finished.
    fn drain(&mut self, draft: &mut Draft) -> Result<(), ModuleError> {
        if !self.light_over {
            self.light_over = true;
            self.sifting.light_over();
        }
        draft.bundle.drained = true;
        self.drain_steps += 1;
        if self.drain_steps > DRAIN_STEPS_MAX { Err(ModuleError::DrainTooLong) } else { Ok(()) }
    }

    fn say(&mut self, draft: &mut Draft) -> Result<(), ModuleError> {
        let mut events = Vec::new();
        let bytes = self.sifting.say(&mut self.shared.context(&mut events))?;
        self.shared.open.says(self.shared.step, &bytes);
        if !bytes.is_empty() {
            draft.bundle.sifting = Some(SiftingMessage::new(self.sifting.tag(), bytes));
        }
        self.tell(events, draft);
        self.take_rounds(draft)
    }

    /// Passes on what sifting makes known; gives the block that begins, if one does.
    fn tell(&self, events: Vec<Event>, draft: &mut Draft) -> Option<u64> {
        let mut begins = None;
        for event in events {
            match event {
                Event::RoundBegins { round } if self.shared.open.begins_with(round) => {
                    begins = Some(self.shared.open.block_of(round));
                }
                Event::RoundBegins { .. } => {}
                Event::Note { name, message } => draft.actions.push(Action::Note { name, message }),
            }
        }
        begins
    }

    fn take_rounds(&mut self, draft: &mut Draft) -> Result<(), ModuleError> {
        while let Some(sifted) = self.sifting.next_round() {
            let of_check = |line| sifted.account.get(line);
            self.shared.figures.check =
                Compared { bits: of_check(Line::CHECK_DISCLOSED), errors: of_check(Line::CHECK_ERRORS) };
            self.shared.figures.detected = sifted.detected;
            self.shared.open.push(sifted);
            while let Some(round) = self.shared.open.take_full(draft)? {
                self.take_block(round, draft);
            }
        }
        Ok(())
    }

    /// At the end of a step, what the corrector alone decides: which blocks are sifted, and what of the one that is not
    /// is closed.
    fn close_blocks(&mut self, sifting_over: bool, draft: &mut Draft) -> Result<(), ModuleError> {
        if matches!(self.side, Half::Reference(_)) {
            return Ok(());
        }
        // Those that waited for the peer to know with which stretches the session began.
        while let Some(round) = self.shared.open.take_full(draft)? {
            self.take_block(round, draft);
        }
        if sifting_over && let Some(round) = self.shared.open.take_rest(draft)? {
            self.take_block(round, draft);
        }
        match &self.side {
            Half::Corrector(side) if side.delays_checkpoints() => Ok(()),
            _ => self.shared.open.checkpoint(draft),
        }
    }

    fn take_block(&mut self, round: Round, draft: &mut Draft) {
        draft.stage(round.block, Stage::Sift, false);
        match &mut self.side {
            Half::Reference(side) => side.take_round(round),
            Half::Corrector(side) => side.take_round(round),
        }
    }

    /// The block of which stretches are kept beyond the session, and rounds of sifting that they are of.
    pub fn kept(&self) -> Option<(u64, u64)> {
        let open = &self.shared.open;
        Some((open.number(), open.kept_rounds())).filter(|(_, rounds)| *rounds > 0)
    }

    /// Gives up every round in work and what is not closed of the block that is being sifted, because the session
    /// broke. The ledgers say what was lost.
    pub fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        let rounds: Vec<&Round> = match &self.side {
            Half::Reference(side) => side.rounds_in_work().collect(),
            Half::Corrector(side) => side.rounds_in_work().collect(),
        };
        let mut voided: Vec<(u64, BlockLedger)> = rounds.iter().map(|round| (round.block, round.void())).collect();
        let not_given = self.sifting.void();
        voided.extend(self.shared.open.void(not_given));
        voided
    }

    pub fn figures(&self) -> Figures {
        Figures { sifting: self.sifting.figures(), ..self.shared.figures.clone() }
    }
}

impl Shared {
    fn context<'a>(&'a mut self, events: &'a mut Vec<Event>) -> Context<'a> {
        Context { step: self.light_step, rng: &mut self.rng, events }
    }
}

/// What a step collects before it is encoded.
struct Draft {
    bundle: Bundle,
    actions: Vec<Action>,
    close_round: bool,
    held: Option<FrameInput>,
    finished: bool,
}

impl Draft {
    fn new(step: u64) -> Self {
        let bundle = Bundle { step, ..Bundle::default() };
        Self { bundle, actions: Vec::new(), close_round: false, held: None, finished: false }
    }

    fn finish(self, setpoints: Setpoints) -> StepOutput {
        StepOutput {
            payload: self.bundle.encode_to_vec(),
            close_round: self.close_round,
            setpoints,
            actions: self.actions,
            held: self.held,
            finished: self.finished,
        }
    }

    fn begin(&mut self, block: u64, traceparent: String) {
        self.actions.push(Action::Trace { block, traceparent });
        self.stage(block, Stage::Sift, true);
    }

    fn stage(&mut self, block: u64, stage: Stage, begin: bool) {
        self.actions.push(Action::Stage { block, stage, begin });
    }

    fn say(&mut self, block: u64, step: BlockStep) {
        self.bundle.blocks.push(BlockMessage { block, step: Some(step) });
    }
}

/// Counts the forms that bundles and [`protocol_fingerprint`] have had: ends that would not understand each other part
/// at their greeting.
const DIALOGUE: u32 = 4;

/// A number that differs where two ends were started with different protocols.
fn protocol_fingerprint(protocol: &LinkProtocol) -> u64 {
    // FNV-1a over the debug form: not a security function, only a clear error for a mistake.
    format!("{:?}", protocol.in_common())
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
