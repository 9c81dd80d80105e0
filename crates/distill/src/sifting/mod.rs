//! From light to sifted bits: a module for each protocol, all behind one trait.
//!
//! Each end of a link has one half of a sifting protocol for the length of a session. The two halves speak through the
//! pipeline, which carries what they say as bytes with the tag of the protocol, as the channel carries the pipeline's
//! bundles. What they come to is a [`SiftedRound`] after the other: bits of the key, what was learned in public about
//! an eavesdropper, and the account of every click. Everything after that is the same for all protocols.

pub mod counts;
pub mod entangled;
mod packed;
pub mod prepared;
mod tracking;

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::bits::Bits;
use crate::bounds::{Detections, Evidence};
use crate::config::{Emission, INTENSITIES, LinkProtocol, PostProcessing, Role, Sifting as Config};
use crate::ledger::BlockLedger;
use crate::loops::Setpoints;

/// Says in a bundle whose bytes a sifting message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u32);

/// A frame of light: a slice of time by the clock of the end's own instrument.
pub struct FrameInput {
    pub number: u64,
    pub light: Light,
    /// Trace context of the light in it.
    pub traceparent: String,
}

/// What an end's instrument knows of the light of one frame.
pub enum Light {
    /// A receiver's time tags.
    Tags(Vec<u64>),
    /// A transmitter's pulses.
    Pulses {
        /// Of the session, for any of its pulses.
        choices: Arc<dyn Choices>,
        /// Pulses of the session that were sent until the end of the frame.
        sent: u64,
    },
    /// Sifted bits at once, where light is drawn as counts.
    Counts(Box<counts::Frame>),
}

impl FrameInput {
    /// A frame of clicks.
    pub fn tags(number: u64, tags: Vec<u64>, traceparent: String) -> Self {
        Self { number, light: Light::Tags(tags), traceparent }
    }

    pub(crate) fn into_tags(self) -> Result<Vec<u64>, SiftingError> {
        match self.light {
            Light::Tags(tags) => Ok(tags),
            Light::Pulses { .. } => Err(SiftingError::Light("a transmitter's pulses")),
            Light::Counts(_) => Err(SiftingError::Light("counts")),
        }
    }
}

/// What a transmitter chose for one pulse. It is raw key: nothing prints it.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
pub struct Choice {
    /// Set for X.
    pub x: bool,
    pub bit: bool,
    /// Place of the intensity, the brightest first.
    pub intensity: u8,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Choice")
    }
}

/// A transmitter's choices, by the number of the pulse in the session: asked for the pulses that were detected, so that
/// those that were not cost nothing.
pub trait Choices: Send + Sync {
    /// Writes the choice of each pulse; both slices have the same length.
    fn fill(&self, pulses: &[u64], choices: &mut [Choice]);
}

/// Why a half cannot go on. The session ends with it.
#[derive(Debug, thiserror::Error)]
pub enum SiftingError {
    #[error("the peer sent a malformed {0}")]
    Malformed(&'static str),
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("this end's instrument gave {0}, which are not for its part in the protocol")]
    Light(&'static str),
    #[error("this end's instrument gave {clicks} clicks and says what became of {accounted}")]
    Clicks { clicks: u64, accounted: u64 },
    #[error("the configuration of the link: {0}")]
    Config(#[from] prepared::config::ConfigError),
    #[error("clocks: {0}")]
    Pulses(#[from] prepared::recovery::RecoveryError),
    #[error("sifting message refused: {0}")]
    Prepared(#[from] prepared::MessageError),
    #[error("announcement refused: {0}")]
    Announcement(#[from] entangled::announce::AnnounceError),
    #[error("clock recovery refused an announcement: {0}")]
    Recovery(#[from] entangled::recovery::RecoveryError),
    #[error("sifting reply refused: {0}")]
    Reply(#[from] entangled::reply::ReplyError),
}

/// Something that a half makes known at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The light that was taken, or that the peer has announced, is the first of this round.
    RoundBegins {
        round: u64,
    },
    Note {
        name: &'static str,
        message: String,
    },
}

/// What the pipeline lends to a half for one call.
pub struct Context<'a> {
    /// Counted from the start of the session, in lockstep at both ends.
    pub step: u64,
    /// This end's own randomness in this session. All of it comes from here, in the order of the calls.
    pub rng: &'a mut ChaCha20Rng,
    pub events: &'a mut Vec<Event>,
}

/// What one end has of a round when nothing is left to say about it.
pub struct SiftedRound {
    /// Counted from 0 in a session, without gaps; equal at both ends, as `frames`, the length of `key` and `evidence`.
    pub number: u64,
    /// Frames of light that it is made of.
    pub frames: u64,
    /// Step in which the light of the first one came.
    pub first_step: u64,
    pub key: Bits,
    /// At the reference, where the proof [asks](crate::config::Emission::needs_key_errors) which intensity errors are
    /// of: a bit for each of `key`, set where it is of the decoy. Nothing of it is told but counts.
    pub decoys: Option<Bits>,
    pub evidence: Evidence,
    pub detected: Detected,
    pub account: BlockLedger,
}

/// What a receiver detected of the pulses of a round, by intensity: for gains, which no bound is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    /// Pulses that were sent, of all intensities together; 0 where detections by intensity are not known.
    pub pulses: u64,
    /// Pulses that the receiver announced, in whatever basis, the brightest first. Of a pulse that both bases saw, or
    /// that came while a detector may have been dead, nothing is announced.
    pub events: [u64; INTENSITIES],
}

impl Detected {
    /// What was detected of two rounds.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let events = std::array::from_fn(|kind| self.events[kind].saturating_add(other.events[kind]));
        Self { pulses: self.pulses.saturating_add(other.pulses), events }
    }

    /// Of what was sifted and of `mismatched` events in another basis than their pulse's, where nobody says which
    /// intensities those are of: each intensity has lost the same share of its events.
    pub fn of_sifted(pulses: u64, sifted: &[Detections; INTENSITIES], mismatched: u64) -> Self {
        let events = sifted.map(|row| row.key + row.check.bits);
        let kept = events.iter().sum::<u64>() as f64;
        let share = if kept > 0.0 { kept / (kept + mismatched as f64) } else { 0.0 };
        Self { pulses: libm::round(pulses as f64 * share) as u64, events }
    }

    /// Of each kind of pulse that the light has: how many were detected, and how many were sent, which its share of all
    /// pulses says.
    pub fn gains(&self, emission: &Emission) -> Vec<[u64; 2]> {
        let sent = |probability: f64| libm::round(self.pulses as f64 * probability) as u64;
        self.events.iter().zip(emission.probabilities()).map(|(events, share)| [*events, sent(share)]).collect()
    }
}

/// What reconciliation showed of a round that was handed out before.
#[derive(Clone, Copy, Debug)]
pub struct Reconciled {
    pub first_step: u64,
    pub frames: u64,
    /// Bits that were corrected and verified, and the share of them that was wrong.
    pub bits: u64,
    pub qber: f64,
}

/// Figures for people; nothing is decided by them.
#[derive(Clone, Debug, Default)]
pub struct SiftingFigures {
    pub clicks: u64,
    /// Bits of the key basis and of the check basis.
    pub sifted_key: u64,
    pub sifted_check: u64,
    /// Of the end that recovers the peer's clock.
    pub recovery: Option<entangled::recovery::RecoveryStatus>,
    pub locked: bool,
}

/// One end's half of a sifting protocol, for one session.
///
/// In each step the pipeline calls, in this order:
/// 1. [`peer_light_over`](Self::peer_light_over), once, in the step in which the peer first says so;
/// 2. [`hear`](Self::hear), if the peer's half said something in the step before;
/// 3. [`reconciled`](Self::reconciled), for each round of which that became known;
/// 4. [`take`](Self::take) with this step's light, or, once, [`light_over`](Self::light_over), after which there is
///    none;
/// 5. [`say`](Self::say);
/// 6. [`setpoints`](Self::setpoints).
///
/// [`next_round`](Self::next_round) is called until it gives nothing after 2 and after 5. Everything that a half does
/// follows from what it was given, in this order, and from its step numbers; it has no clock and no other randomness
/// than that of the [`Context`].
///
/// What the peer says is hostile: bounded, checked, and refused with an error. No tag covers it yet when it is heard,
/// and nothing that comes of it is kept before one does; that is the pipeline's part. What is said must tell nobody a
/// bit of the key: of a detection its place, its basis and its labels may be said after it is final, and the bit only
/// where it becomes part of the evidence.
pub trait Sifting: Send {
    fn tag(&self) -> Tag;

    /// No more light came to the peer. Nothing that it says from now on may be about light of its own that is new.
    fn peer_light_over(&mut self);

    /// What the peer's half said in the step before; never empty.
    fn hear(&mut self, message: &[u8], context: &mut Context<'_>) -> Result<(), SiftingError>;

    /// A round that was handed out is reconciled, for control loops; a shorter one may be so before an older one.
    fn reconciled(&mut self, reconciled: &Reconciled);

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError>;

    /// No more light comes: what there is becomes the last round, which may be a short one.
    fn light_over(&mut self);

    /// What this half has to say in this step; nothing where it is empty.
    fn say(&mut self, context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError>;

    /// The next round of which this end knows everything, in the order of their numbers.
    fn next_round(&mut self) -> Option<SiftedRound>;

    /// The light is over at both ends, and every round was handed out.
    fn is_over(&self) -> bool;

    /// Where the instruments are told to go, from what was measured up to this step.
    fn setpoints(&mut self, step: u64) -> Setpoints;

    fn figures(&self) -> SiftingFigures;

    /// The session broke: number and account of each round that was not handed out, all of it given up.
    fn void(&mut self) -> Vec<(u64, BlockLedger)>;
}

/// How the halves of a session begin.
#[derive(Clone, Copy, Debug)]
pub struct SiftingStart {
    /// Steps from a measurement to its effect.
    pub latency_steps: u64,
    pub setpoints: Setpoints,
}

/// The half of an end, by its protocol and its part in it.
pub fn half(protocol: &LinkProtocol, start: &SiftingStart) -> Box<dyn Sifting> {
    let PostProcessing { ref security, .. } = protocol.post_processing;
    let framing = protocol.post_processing.stretch();
    match &protocol.sifting {
        Config::Prepared(config) => prepared::half(framing, config, &security.emission, start),
        Config::Counts(config) => Box::new(counts::Half::new(framing, config, &security.emission, start)),
        Config::Entangled(config) => match config.role {
            Role::Announcer => Box::new(entangled::Announcer::new(framing, config, start)),
            Role::Matcher => Box::new(entangled::Matcher::new(framing, config, start)),
        },
    }
}
