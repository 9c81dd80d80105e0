//! What a topology says about sifting on a prepared link, resolved to plain numbers.

use serde::{Deserialize, Serialize};

use super::FRAMES_WAITING_MAX;
use crate::config::{Emission, Side};

/// Longest preamble: a receiver looks through all of it.
pub const PREAMBLE_PULSES_MAX: u64 = 1 << 25;
/// Most pulse numbers that a receiver may have to choose from, either way.
const SEARCH_PULSES_MAX: f64 = (1 << 24) as f64;
/// Most pulses in a frame: distances between events stay short on the wire.
const FRAME_PULSES_MAX: f64 = (1 << 26) as f64;
/// A receiver that is dead for longer than a second is broken.
const DEAD_TIME_MAX_PS: f64 = 1e12;

/// Frames that may wait beyond what acquisition needs.
const SPARE_FRAMES: u64 = 10;

/// Which of the two ends of a prepared link a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Transmitter,
    Receiver,
}

impl Part {
    /// The transmitter's string counts: see the module above.
    pub fn side(self) -> Side {
        match self {
            Self::Transmitter => Side::Reference,
            Self::Receiver => Side::Corrector,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    Z,
    X,
}

/// How a pulse carries its state, and where in time a receiver finds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Encoding {
    /// Polarisation, or the phase between two halves of a pulse: a detector for each of the four outcomes.
    Detectors,
    /// Early and late. Detector 0 sees Z and the time says the bit; behind an interferometer, detectors 2 and 3 see X
    /// in the middle of three moments, and the two others say nothing.
    TimeBin {
        /// Between early and late.
        separation_ps: f64,
    },
}

/// How a receiver knows when pulses come, and their numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Sync {
    /// From the photons alone.
    Photons(Search),
    /// The transmitter's clock comes beside the light, through a fibre of the same length: the time of a tag says the
    /// number of its pulse.
    Distributed {
        /// By how much the light comes later than its clock.
        delay_ps: f64,
    },
}

/// How far a receiver searches at the start of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Largest difference between the start of the session's first frame and the arrival of pulse 0, either way.
    pub reach_ps: u64,
    /// Largest relative frequency difference of the two clocks.
    pub frequency: f64,
}

/// Sifting on a prepared link, at one end; equal at both but for `part`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    pub part: Part,
    /// Between two pulses, by the transmitter's clock.
    pub period_ps: f64,
    pub encoding: Encoding,
    pub key_basis: Basis,
    /// Clicks further than half of this from where they are expected are dropped.
    pub gate_ps: f64,
    /// Dead time of the slowest detector of the receiver: of a pulse that comes while any of them may be dead, nothing
    /// is used. 0 where clicks make no detector blind.
    pub dead_time_ps: f64,
    /// Pulses of the preamble, from pulse 0 of a session on; they make no key.
    pub preamble_pulses: u64,
    pub sync: Sync,
    /// Stretch over which the arrival of pulses is measured before the clock is corrected.
    pub tracking_interval_ps: u64,
    pub loops: Loops,
}

/// Control loops of the receiver, which act on what it measures alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    /// Where four detectors see polarisations (no loop of the phase), both angles of its controller are led by errors:
    /// the first by those of the check basis, the second one by those of the Z basis. Elsewhere by the rate of clicks.
    pub polarisation: bool,
    /// Phase of the receiver's interferometer, by the errors of the check basis.
    pub phase: bool,
    /// Amplitude of the dither by which the fewest errors are found, of the phase or of the angles of polarisation.
    pub phase_dither_rad: f64,
}

impl Loops {
    /// All instruments stay where they are.
    pub const OFF: Self = Self { polarisation: false, phase: false, phase_dither_rad: 0.0 };
}

/// Why a prepared link cannot be run as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("a period of {period_ps} ps is not between 10 ps and 1 ms")]
    Period { period_ps: f64 },
    #[error(
        "the proof takes the light for entangled pairs, and a transmitter prepares pulses: decoys or single photons"
    )]
    Pairs,
    #[error("intensities must be numbers in falling order, the first above 0")]
    Order,
    #[error("a gate of {gate_ps} ps is not between 0 and the {limit_ps} ps between moments at which light may come")]
    Gate { gate_ps: f64, limit_ps: f64 },
    #[error("a bin separation of {separation_ps} ps is not between 0 and the period")]
    Separation { separation_ps: f64 },
    #[error("a dead time of {dead_time_ps} ps is not between 0 and a second")]
    DeadTime { dead_time_ps: f64 },
    #[error("a preamble of {pulses} pulses is longer than {PREAMBLE_PULSES_MAX}")]
    PreambleLong { pulses: u64 },
    #[error("a preamble of {pulses} pulses is shorter than the {needed} within reach of the search")]
    PreambleShort { pulses: u64, needed: u64 },
    #[error(
        "a reach of {reach_ps} ps is more than {SEARCH_PULSES_MAX} periods, or a frequency of {frequency} above 1e-4"
    )]
    Search { reach_ps: u64, frequency: f64 },
    #[error("frames of {frame_ps} ps are not between one and {FRAME_PULSES_MAX} periods")]
    Frame { frame_ps: u64 },
    #[error("a dither of {dither_rad} rad is not between 0 and half a radian, or 0 where a loop needs it")]
    Dither { dither_rad: f64 },
    #[error("a tracking interval of 0")]
    Tracking,
    #[error(
        "{frames} frames would wait for the preamble and the reach of the search: not below {FRAMES_WAITING_MAX}; \
         shorten them, or lengthen frames"
    )]
    Backlog { frames: u64 },
}

impl Prepared {
    /// Checks what nothing here can work with.
    pub fn check(&self, frame_ps: u64, emission: &Emission) -> Result<(), ConfigError> {
        self.check_values(emission)?;
        let (period_ps, pulses) = (self.period_ps, self.preamble_pulses);
        if pulses > PREAMBLE_PULSES_MAX {
            return Err(ConfigError::PreambleLong { pulses });
        }
        if let Sync::Photons(Search { reach_ps, frequency }) = self.sync {
            let needed = (reach_ps as f64 / period_ps) as u64 + 1;
            if needed as f64 > SEARCH_PULSES_MAX || !(0.0..=1e-4).contains(&frequency) {
                return Err(ConfigError::Search { reach_ps, frequency });
            }
            if pulses < needed {
                return Err(ConfigError::PreambleShort { pulses, needed });
            }
        }
        if !(1.0..=FRAME_PULSES_MAX).contains(&(frame_ps as f64 / period_ps)) {
            return Err(ConfigError::Frame { frame_ps });
        }
        if self.tracking_interval_ps == 0 {
            return Err(ConfigError::Tracking);
        }
        let frames = self.backlog_frames(frame_ps);
        if frames >= FRAMES_WAITING_MAX as u64 { Err(ConfigError::Backlog { frames }) } else { Ok(()) }
    }

    /// Checks what holds of counts as well, which are not searched for and come in frames of any length.
    pub fn check_values(&self, emission: &Emission) -> Result<(), ConfigError> {
        let period_ps = self.period_ps;
        if !(10.0..=1e9).contains(&period_ps) {
            return Err(ConfigError::Period { period_ps });
        }
        if emission.is_pairs() {
            return Err(ConfigError::Pairs);
        }
        if !emission.is_ordered() {
            return Err(ConfigError::Order);
        }
        self.check_gate()?;
        let dead_time_ps = self.dead_time_ps;
        if !(0.0..=DEAD_TIME_MAX_PS).contains(&dead_time_ps) {
            return Err(ConfigError::DeadTime { dead_time_ps });
        }
        let Loops { polarisation, phase, phase_dither_rad: dither_rad } = self.loops;
        let needed = phase || polarisation && self.encoding == Encoding::Detectors;
        if !(0.0..=0.5).contains(&dither_rad) || needed && dither_rad < 1e-3 {
            return Err(ConfigError::Dither { dither_rad });
        }
        Ok(())
    }

    /// Frames that wait at most, while the clock is recovered.
    fn backlog_frames(&self, frame_ps: u64) -> u64 {
        match &self.sync {
            Sync::Photons(search) => {
                search.reach_ps.saturating_add(self.preamble_ps()).div_ceil(frame_ps) + SPARE_FRAMES
            }
            Sync::Distributed { .. } => SPARE_FRAMES,
        }
    }

    /// How long the preamble takes at most, by any clock.
    pub(super) fn preamble_ps(&self) -> u64 {
        let longest = self.period_ps * (1.0 + 1e-3);
        libm::ceil(self.preamble_pulses as f64 * longest) as u64
    }

    fn check_gate(&self) -> Result<(), ConfigError> {
        let (gate_ps, period_ps) = (self.gate_ps, self.period_ps);
        let limit_ps = match self.encoding {
            Encoding::Detectors => period_ps,
            Encoding::TimeBin { separation_ps } if separation_ps > 0.0 && separation_ps < period_ps => {
                separation_ps.min(period_ps - separation_ps)
            }
            Encoding::TimeBin { separation_ps } => return Err(ConfigError::Separation { separation_ps }),
        };
        if gate_ps > 0.0 && gate_ps <= limit_ps { Ok(()) } else { Err(ConfigError::Gate { gate_ps, limit_ps }) }
    }

    /// Light comes this long after the pulse's first moment; the outcomes are Z0, Z1, X0, X1.
    pub(super) fn delay_ps(&self, outcome: usize) -> f64 {
        match self.encoding {
            Encoding::TimeBin { separation_ps } if outcome > 0 => separation_ps,
            _ => 0.0,
        }
    }
}
