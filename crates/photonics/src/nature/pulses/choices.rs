//! What a transmitter sends and, where a receiver chooses its basis itself, what that chooses: keyed streams, read by
//! the number of a pulse.

use crate::config::{Basis, Transmitter};
use kernels::chacha;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Most intensities that a transmitter may have.
pub const INTENSITIES_MAX: usize = 8;

/// What one pulse is. It is raw key: nothing prints it.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
pub struct Choice(u8);

impl Choice {
    pub fn new(intensity: usize, basis: Basis, bit: bool) -> Self {
        Self((intensity as u8) << 2 | (basis as u8) << 1 | u8::from(bit))
    }

    /// Place of the intensity in the transmitter's list.
    pub fn intensity(self) -> usize {
        usize::from(self.0 >> 2)
    }

    pub fn basis(self) -> Basis {
        if self.0 & 2 == 0 { Basis::Z } else { Basis::X }
    }

    pub fn bit(self) -> bool {
        self.0 & 1 == 1
    }

    /// A number for each of the states that a pulse may have.
    pub(super) fn class(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Choice")
    }
}

/// The key of one session's choices. Fresh for each session, never used again, wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChoiceKey([u32; 8]);

impl ChoiceKey {
    pub fn new(bytes: &[u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// The key of a preamble: no key at all, everybody knows it.
    fn public() -> Self {
        Self([0; 8])
    }
}

impl std::fmt::Debug for ChoiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChoiceKey")
    }
}

/// Pulses whose choices are looked up together.
const BATCH: usize = 256;

/// The choices of one session of a transmitter, by the number of the pulse in the session.
///
/// Pulse `n` takes word `n` of the key's stream (64 bits: one for the bit, 31 for the basis, 32 for the intensity), so
/// that any pulse can be asked for, in any order. The first pulses are a preamble of public states, by which a receiver
/// finds the number of a pulse: they are the same in all sessions and make no key.
#[derive(Clone)]
pub struct Choices {
    key: ChoiceKey,
    public: ChoiceKey,
    preamble: u64,
    /// Out of 2^31.
    z: u32,
    /// Upper ends of the intensities' shares, out of 2^32; the last one has all that is left.
    ends: [u64; INTENSITIES_MAX],
    intensities: usize,
    /// The intensities of a preamble: brightest and dimmest.
    extremes: [usize; 2],
}

impl std::fmt::Debug for Choices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Choices")
    }
}

impl Choices {
    pub fn new(transmitter: &Transmitter, key: ChoiceKey) -> Self {
        let probabilities = transmitter.light.probabilities();
        let brightness = transmitter.light.mean_photons();
        let order = |a: &usize, b: &usize| brightness[*a].total_cmp(&brightness[*b]);
        let places = || 0..brightness.len().min(INTENSITIES_MAX);
        let (mut ends, mut sum) = ([1 << 32; INTENSITIES_MAX], 0.0);
        for (end, probability) in ends.iter_mut().zip(&probabilities) {
            sum += probability;
            *end = libm::round(sum.clamp(0.0, 1.0) * 4_294_967_296.0) as u64;
        }
        Self {
            key,
            public: ChoiceKey::public(),
            preamble: transmitter.preamble_pulses,
            z: share_of_31_bits(transmitter.z_probability),
            ends,
            intensities: probabilities.len().clamp(1, INTENSITIES_MAX),
            extremes: [places().max_by(order).unwrap_or(0), places().min_by(order).unwrap_or(0)],
        }
    }

    /// Pulses of the preamble, from pulse 0 on.
    pub fn preamble(&self) -> u64 {
        self.preamble
    }

    /// What pulse number `pulse` is.
    pub fn at(&self, pulse: u64) -> Choice {
        let mut choice = [Choice(0)];
        self.fill(&[pulse], &mut choice);
        choice[0]
    }

    /// What many pulses are, much quicker than one by one.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn fill(&self, pulses: &[u64], choices: &mut [Choice]) {
        assert_eq!(pulses.len(), choices.len());
        let mut words = [0; BATCH];
        for (pulses, choices) in pulses.chunks(BATCH).zip(choices.chunks_mut(BATCH)) {
            let words = &mut words[..pulses.len()];
            chacha::words(&self.key.0, pulses, words);
            for (choice, word) in choices.iter_mut().zip(words.iter()) {
                *choice = self.choice(*word);
            }
            if pulses.iter().any(|&pulse| pulse < self.preamble) {
                chacha::words(&self.public.0, pulses, words);
                let of_preamble = |&(_, pulse): &(_, u64)| pulse < self.preamble;
                let places = pulses.iter().copied().enumerate().filter(of_preamble);
                places.for_each(|(i, _)| choices[i] = self.public_choice(words[i]));
            }
        }
        words.zeroize();
    }

    fn choice(&self, word: u64) -> Choice {
        let (low, high) = (word as u32, word >> 32);
        let basis = if low >> 1 < self.z { Basis::Z } else { Basis::X };
        // Without a branch: which intensity it is is anyone's guess.
        let below = self.ends[..self.intensities - 1].iter().map(|&end| usize::from(high >= end)).sum();
        Choice::new(below, basis, low & 1 == 1)
    }

    /// Bright or dark by the toss of a coin, in a public state: the pattern can be found without any alignment, and
    /// what is found can be aligned by.
    fn public_choice(&self, word: u64) -> Choice {
        let basis = if word & 2 == 0 { Basis::Z } else { Basis::X };
        Choice::new(self.extremes[(word >> 2 & 1) as usize], basis, word & 1 == 1)
    }
}

/// The basis that a receiver with an active choice measures each pulse in, by the number of the pulse in the session.
#[derive(Clone)]
pub struct BasisChoices {
    key: ChoiceKey,
    z: u32,
}

impl std::fmt::Debug for BasisChoices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BasisChoices")
    }
}

impl BasisChoices {
    pub fn new(z_probability: f64, key: ChoiceKey) -> Self {
        Self { key, z: share_of_31_bits(z_probability) }
    }

    pub fn at(&self, pulse: u64) -> Basis {
        let mut word = [0];
        chacha::words(&self.key.0, &[pulse], &mut word);
        self.basis(word[0])
    }

    pub(crate) fn fill(&self, pulses: &[u64], bases: &mut [Basis]) {
        let mut words = [0; BATCH];
        for (pulses, bases) in pulses.chunks(BATCH).zip(bases.chunks_mut(BATCH)) {
            let words = &mut words[..pulses.len()];
            chacha::words(&self.key.0, pulses, words);
            bases.iter_mut().zip(words.iter()).for_each(|(basis, word)| *basis = self.basis(*word));
        }
        words.zeroize();
    }

    fn basis(&self, word: u64) -> Basis {
        if (word as u32) >> 1 < self.z { Basis::Z } else { Basis::X }
    }
}

/// A probability out of 2^31; what is no number counts as 0.
fn share_of_31_bits(probability: f64) -> u32 {
    libm::round(crate::path::probability(probability) * 2_147_483_648.0) as u32
}

#[cfg(test)]
#[path = "choices_tests.rs"]
mod tests;
