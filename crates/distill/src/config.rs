//! What a topology says about the protocol of a link, resolved to plain numbers.

use serde::{Deserialize, Serialize};

/// Which of the two ends of an entangled link a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Publishes the time and basis of its clicks.
    Announcer,
    /// Recovers the peer's clock, finds coincidences, answers with indices.
    Matcher,
}

/// Which part an end has in post-processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Holds the string that counts, and stores a block once the peer is known to have it.
    Reference,
    /// Corrects its string, closes rounds and decides which blocks count.
    Corrector,
}

impl Role {
    pub fn side(self) -> Side {
        match self {
            Self::Announcer => Side::Reference,
            Self::Matcher => Side::Corrector,
        }
    }
}

/// Everything the post-processing of one link end needs to know; equal at both ends but for `role`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkProtocol {
    pub role: Role,
    /// Slice of local time that is announced at once.
    pub frame_ps: u64,
    pub coincidence_window_ps: u64,
    /// Distance of the side peaks, equal to the analysers' delay.
    pub analyser_delay_ps: u64,
    /// Dead time of the slowest detector of the link: of two kept events closer than this the second is dropped.
    pub dead_time_ps: u64,
    /// Frames of a round, that is of a block.
    pub round_frames: u64,
    pub acquisition: Acquisition,
    pub tracking_interval_ps: u64,
    pub reconciliation: Reconciliation,
    pub security: Security,
    pub authentication: Authentication,
    pub loops: Loops,
}

/// What the pipeline needs to know, whatever the sifting protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct PostProcessing {
    pub reconciliation: Reconciliation,
    pub security: Security,
    pub authentication: Authentication,
}

impl LinkProtocol {
    pub fn post_processing(&self) -> PostProcessing {
        PostProcessing {
            reconciliation: self.reconciliation.clone(),
            security: self.security.clone(),
            authentication: self.authentication.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acquisition {
    /// Largest difference of the two clocks that is searched, either way.
    pub search_ps: u64,
    /// Largest relative frequency difference of the two clocks.
    pub frequency_search: f64,
    /// Stretch of announcements that is correlated.
    pub window_ps: u64,
    /// False only to show what happens without a correlator.
    pub correlator: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciliation {
    /// Longest Cascade frame.
    pub frame_bits: u32,
    /// Error rate assumed before the first block has been measured.
    pub initial_qber: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// `n (1 - h(Ex)) - leak`, as papers quote it.
    Asymptotic,
    /// Tomamichel et al., Nat. Commun. 3, 634 (2012).
    Finite,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    pub bound: Bound,
    /// Secrecy and correctness parameters of one block.
    pub epsilon_secrecy: f64,
    pub epsilon_correctness: f64,
    /// Largest tolerated error rate in the check basis; a block above it aborts.
    pub tolerated_qber: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// Tags made under one hash key before it is renewed from the reserve.
    pub tags_per_hash_key: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    pub polarisation: bool,
    pub phase: bool,
    pub pump: bool,
    /// Set-point of the pump loop.
    pub target_qber_z: f64,
    /// Amplitude of the phase loop's dither.
    pub phase_dither_rad: f64,
    /// Highest pump set-point, relative to nominal.
    pub pump_max: f64,
}
