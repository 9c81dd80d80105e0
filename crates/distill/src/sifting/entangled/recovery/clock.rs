//! The recovered relation of the two clocks.

use super::PS_PER_UNIT;

/// Fixed point of delays: 256 parts of a unit, a sixty-fourth of a picosecond.
pub(super) const PARTS: i64 = 256;

/// Own time as a function of the peer's: `own = peer + offset + frequency * (peer - reference)`, in units of 4 ps.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub reference: u64,
    /// The offset is split so that no digits are lost: whole units and what is beyond.
    pub offset: i64,
    pub fraction: f64,
    pub frequency: f64,
}

/// [`Clock`] inside one frame of the peer, in 1/256 units after that frame's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameClock {
    pub base: i64,
    pub slope: f64,
}

impl FrameClock {
    /// Own minus peer time for an event `delay` units after the frame's start.
    #[inline]
    pub fn offset(&self, delay: u64) -> i64 {
        self.base + (self.slope * delay as f64) as i64
    }
}

impl Clock {
    fn drift(&self, peer: u64) -> f64 {
        self.fraction + self.frequency * (peer as i64 - self.reference as i64) as f64
    }

    pub fn at_frame(&self, start: u64) -> FrameClock {
        let parts = PARTS as f64;
        let base = self.offset * PARTS + libm::floor(self.drift(start) * parts + 0.5) as i64;
        FrameClock { base, slope: self.frequency * parts }
    }

    /// Own time of a moment of the peer's clock; never before the clock's zero.
    pub fn map(&self, peer: u64) -> u64 {
        peer.saturating_add_signed(self.offset + libm::floor(self.drift(peer) + 0.5) as i64)
    }

    pub fn offset_ps(&self, peer: u64) -> f64 {
        (self.offset as f64 + self.drift(peer)) * PS_PER_UNIT
    }

    /// Moves the reference without changing the relation, then shifts it by a measured error.
    pub fn correct(&mut self, reference: u64, phase_units: f64, frequency: f64) {
        let drift = self.drift(reference) + phase_units;
        let whole = libm::floor(drift);
        self.offset += whole as i64;
        self.fraction = drift - whole;
        self.reference = reference;
        self.frequency += frequency;
    }
}
