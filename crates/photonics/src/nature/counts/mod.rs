//! Light as counts: how many bits a stretch of light gives and how many of them are wrong, and bit strings with exactly
//! these statistics.
//!
//! The fidelity for days of light, megabits per second and hundreds of links: what it costs follows the sifted bits, not the
//! photons. Counts are drawn by the probabilities that [`expect`](crate::expect) says per pulse or per second. Without
//! memory this is the law of the tags and no approximation of it: independent pulses make a multinomial, pairs a Poisson
//! process. Memory (dead time, afterpulses) enters by its means and by the scatter of the counts ([`Law`]).
//!
//! * **The unit is a slice**: a part of an epoch, so short that each of its strings stays below [`SLICE_BITS_MAX`]. Slices are
//!   drawn one by one, which is exact as well, and each is a function of the subseed, the law, the epoch and its number
//!   alone: any can be made, in any order. An epoch that a law holds for has [`Emitter::slices`] of them; drifts and loops
//!   act from slice to slice or from epoch to epoch, through [`Emitter::set_law`].
//! * **Each end gets a [`Half`]**: its own bits, and what its own instrument counts. Kinds of pulses (intensities) are at the
//!   transmitter's end alone. No half says which bits are wrong; that takes both.
//! * **Position leaks nothing.** Kinds and errors stand in random order: the transmitter's end knows the kind of each of its
//!   bits, and whoever else sees places or strings learns nothing of it.
//!
//! What is left out: a bias of the bits, errors in bursts shorter than a slice, labels that an attack acts on. Clicks that a
//! receiver drops because a detector is dead are not counted.

mod half;
mod law;
mod strings;

pub use half::{HALF_BYTES_MAX, Half, HalfError, Labelled, compare};
pub use law::{KINDS_MAX, Law, LawError, Statistics, Tally};

use crate::nature::pulses::PulseClock;
use crate::random::Subseed;
use strings::Words;

/// Bits that a slice is expected to have at most, in both bases together.
pub const SLICE_BITS: f64 = (1 << 20) as f64;

/// Longest string of a slice; no law reaches it.
pub const SLICE_BITS_MAX: u64 = 1 << 21;

/// Most slices of an epoch.
const SLICES_MAX: f64 = (1 << 24) as f64;

/// A slice of light as nature knows it, and what of it goes to each end. Of a prepared link, end 0 is the transmitter.
pub struct Slice {
    pub statistics: Statistics,
    pub halves: [Half; 2],
}

/// Source of a link at this fidelity.
pub struct Emitter {
    law: Law,
    epoch_ps: u64,
    subseed: Subseed,
}

impl Emitter {
    /// `subseed` decides all, the bits of the key too: for a prepared link take a fresh one for each session, as a choice
    /// key is.
    pub fn new(law: Law, epoch_ps: u64, subseed: &Subseed) -> Self {
        Self { law, epoch_ps, subseed: subseed.derive("counts") }
    }

    /// The law of the slices that are asked for from now on.
    pub fn set_law(&mut self, law: Law) {
        self.law = law;
    }

    /// Slices of an epoch that all of this law holds for.
    pub fn slices(&self) -> u32 {
        let bits = self.law.sifted_hz() * self.epoch_ps as f64 * 1e-12;
        libm::ceil(bits / SLICE_BITS).clamp(1.0, SLICES_MAX) as u32
    }

    /// Slice `number` of `slices` of an epoch.
    pub fn slice(&self, epoch: u64, number: u32, slices: u32) -> Slice {
        let slices = slices.max(1);
        let subseed = self.subseed.derive(&format!("{epoch} {number}"));
        let seconds = self.epoch_ps as f64 * 1e-12 / f64::from(slices);
        let pulses = self.pulses(epoch, number, slices);
        let statistics = self.law.draw(seconds, pulses, &mut subseed.stream("statistics").draws(0));
        self.strings(epoch, (number, slices), &subseed, statistics)
    }

    /// An epoch in which the detectors are out: pulses are sent, and nothing clicks.
    pub fn silence(&self, epoch: u64) -> Slice {
        let statistics = Statistics { pulses: self.pulses(epoch, 0, 1), ..Statistics::default() };
        self.strings(epoch, (0, 1), &self.subseed, statistics)
    }

    /// Pulses of a slice; of pairs there are none.
    fn pulses(&self, epoch: u64, number: u32, slices: u32) -> u64 {
        self.law.pulse_rate_hz().map_or(0, |rate_hz| {
            let all = PulseClock::new(rate_hz, self.epoch_ps).epoch(epoch).count;
            let until = |slice: u32| (u128::from(all) * u128::from(slice) / u128::from(slices)) as u64;
            until(number.saturating_add(1)) - until(number)
        })
    }

    fn strings(&self, epoch: u64, (number, slices): (u32, u32), subseed: &Subseed, statistics: Statistics) -> Slice {
        let mut halves = [0, 1].map(|end| Half::new(epoch, number, slices, end, &statistics));
        let key = subseed.derive("bits");
        let [first, second] = &mut halves;
        let strings = |basis: &'static str, tallies: &[Tally; KINDS_MAX], ends: [&mut Labelled; 2]| {
            let mut random = Words::new(subseed.stream(basis));
            strings::fill(tallies, self.law.kinds(), &key.derive(basis), &mut random, ends);
        };
        strings("key", &statistics.key, [&mut first.key, &mut second.key]);
        strings("check", &statistics.check, [&mut first.check, &mut second.check]);
        Slice { statistics, halves }
    }
}
