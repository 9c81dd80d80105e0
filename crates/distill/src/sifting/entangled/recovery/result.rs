//! What recovery gives: kept events, the count of everything else, and figures.

use zeroize::Zeroizing;

use crate::sifting::entangled::announce::{AnnounceError, Basis};

/// Why a frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Frame(#[from] AnnounceError),
    #[error("frame {found} came where frame {expected} was due")]
    OutOfOrder { expected: u64, found: u64 },
    #[error("{frames} announced frames wait for own clicks")]
    Backlog { frames: usize },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockState {
    #[default]
    Acquiring,
    Locked,
}

/// Figures for people; nothing is decided by them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryStatus {
    pub state: LockState,
    /// Own minus peer's clock at the end of the last result's frame.
    pub offset_ps: f64,
    /// Relative difference of the two clocks' rates.
    pub frequency: f64,
    /// Last measured centre of the peak minus its prediction, before the correction.
    pub residual_ps: f64,
    pub peak_fwhm_ps: f64,
    pub significance: f64,
    /// Part of the counts in the coincidence window that is accidental.
    pub accidental_fraction_estimate: f64,
    /// Measurements of the peak since the session began.
    pub measurements: u64,
    /// Whether the last measurement was over a full tracking interval; the first ones after lock are shorter.
    pub settled: bool,
    pub acquisitions: u64,
    pub attempts: u64,
    pub losses: u64,
}

/// An event that both ends keep.
#[derive(Clone, Copy)]
pub struct Kept {
    /// Index among the announced events of the frame.
    pub index: u32,
    pub basis: Basis,
    pub bit: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({} {:?})", self.index, self.basis)
    }
}

/// What became of everything in one frame.
///
/// `announced` is the sum of `unlocked`, `unmatched`, `ambiguous`, `basis_mismatch`, `cross_basis_doubles`,
/// `within_dead_time`, `kept_z` and `kept_x`. `own_clicks` is the sum of the `own_` lines but itself and of
/// `basis_mismatch`, `within_dead_time`, `kept_z` and `kept_x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    pub announced: u64,
    /// Announced while the clocks were not locked.
    pub unlocked: u64,
    /// No partner inside the window.
    pub unmatched: u64,
    /// More than one possible partner, on either side.
    pub ambiguous: u64,
    pub basis_mismatch: u64,
    /// Partner with clicks in both bases.
    pub cross_basis_doubles: u64,
    /// Would tell of a bit that is kept already, see the dead-time rule.
    pub within_dead_time: u64,
    pub kept_z: u64,
    pub kept_x: u64,
    /// Kept events whose own bit is random, part of the two above.
    pub random_bits: u64,
    /// Own clicks, with their words that no detector belongs to.
    pub own_clicks: u64,
    pub own_invalid: u64,
    pub own_unlocked: u64,
    pub own_unmatched: u64,
    pub own_ambiguous: u64,
    pub own_cross_basis_doubles: u64,
    /// Clicks beyond the first of same-basis doubles.
    pub own_merged: u64,
}

/// The judgement of one announced frame.
#[derive(Debug)]
pub struct FrameResult {
    pub frame: u64,
    pub locked: bool,
    /// Kept events by index.
    pub kept: Zeroizing<Vec<Kept>>,
    pub counts: FrameCounts,
}
