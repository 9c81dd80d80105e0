//! Randomness that depends on nothing but a subseed, a label, an epoch and an index.
//!
//! A role's [`Subseed`] is derived into one per link; a [`Stream`] of it is a key of Philox4x32-10 (see
//! [`kernels::philox`]) and is read in bulk, or one number at a time through [`Draws`]. It is as good as its
//! statistics; it is not meant to withstand cryptanalysis, and what is drawn from it is nature, not key.

mod binomial;
mod gaussian;
mod poisson;

pub use gaussian::Gaussian;
pub(crate) use gaussian::{FWHM_PER_SIGMA, STEP_UNITS};

use kernels::philox;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The secret from which a role draws. Anyone who has it can repeat everything that the role drew.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Subseed([u8; 32]);

impl Subseed {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The subseed of a part of this role, such as one of its links.
    pub fn derive(&self, label: &str) -> Self {
        Self(self.digest("subseed", label))
    }

    /// The subseed of one session. It needs this subseed and the session's key, which somebody else holds; either alone
    /// says nothing of it.
    pub fn of_session(&self, key: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(self.0).chain_update("session").chain_update([0]).chain_update(key);
        Self(digest.finalize().into())
    }

    /// For a generator of another kind, such as the protocol's own.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A stream of this subseed. Streams of different labels are independent.
    pub fn stream(&self, label: &str) -> Stream {
        let mut digest = self.digest("stream", label);
        let [a, b, c, ..] = *digest.as_chunks::<4>().0 else { unreachable!("a digest has eight words") };
        digest.zeroize();
        Stream { key: [u32::from_le_bytes(a), u32::from_le_bytes(b)], tweak: u32::from_le_bytes(c) }
    }

    fn digest(&self, purpose: &str, label: &str) -> [u8; 32] {
        Sha256::new().chain_update(self.0).chain_update(purpose).chain_update([0]).chain_update(label).finalize().into()
    }
}

/// One keyed sequence of random words per epoch.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Stream {
    key: [u32; 2],
    tweak: u32,
}

/// Words whose index is a multiple of this can begin a [`Stream::fill`].
pub const GROUP: usize = philox::GROUP;

impl Stream {
    /// Fills `words` with the epoch's words from `index` on, a multiple of [`GROUP`].
    ///
    /// An epoch has 2^34 words.
    pub fn fill(&self, epoch: u64, index: u64, words: &mut [u32]) {
        debug_assert!(index.is_multiple_of(GROUP as u64));
        philox::fill(self.key, self.counter(epoch, (index / 4) as u32), words);
    }

    /// Four words, for places that need no more in an epoch.
    pub fn block(&self, epoch: u64) -> [u32; 4] {
        philox::block(self.key, self.counter(epoch, 0))
    }

    /// The epoch's words, read one by one from the start.
    pub fn draws(&self, epoch: u64) -> Draws {
        Draws { stream: self.clone(), epoch, next_block: 0, words: [0; 4], used: 4 }
    }

    fn counter(&self, epoch: u64, block: u32) -> [u32; 4] {
        [block, self.tweak, epoch as u32, (epoch >> 32) as u32]
    }
}

/// Random numbers one by one.
pub struct Draws {
    stream: Stream,
    epoch: u64,
    next_block: u32,
    words: [u32; 4],
    used: usize,
}

impl Draws {
    pub fn word(&mut self) -> u32 {
        if self.used == self.words.len() {
            self.words = philox::block(self.stream.key, self.stream.counter(self.epoch, self.next_block));
            self.next_block = self.next_block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in the open interval (0, 1), from 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        let bits = u64::from(self.word()) << 21 ^ u64::from(self.word()) >> 11;
        (bits as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Exponential of mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(self.uniform())
    }

    /// Trials up to and including the first success of probability `p`; `u64::MAX` where there is none to expect.
    pub fn trials_to_success(&mut self, p: f64) -> u64 {
        if p >= 1.0 {
            1
        } else if p > 0.0 {
            // Saturates; the quotient is positive.
            ((libm::log(self.uniform()) / libm::log1p(-p)) as u64).saturating_add(1)
        } else {
            u64::MAX
        }
    }

    /// Number of events of a Poisson process whose mean is `mean`.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        poisson::draw(self, mean)
    }

    /// Successes of `trials` that each have probability `p`.
    pub fn binomial(&mut self, trials: u64, p: f64) -> u64 {
        binomial::draw(self, trials, p)
    }

    /// A count of this mean whose variance is `fano` times the mean.
    pub fn scattered(&mut self, mean: f64, fano: f64) -> u64 {
        binomial::scattered(self, mean, fano)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stream(label: &str) -> Stream {
        Subseed::new([7; 32]).derive("link").stream(label)
    }

    #[test]
    fn fill_and_draws_and_epochs_are_repeatable_and_distinct() {
        let mut first = [0; 256];
        let mut again = [0; 256];
        stream("a").fill(3, 0, &mut first);
        stream("a").fill(3, 128, &mut again[128..]);
        assert_eq!(first[128..], again[128..]);
        stream("b").fill(3, 0, &mut again);
        assert_ne!(first, again);
        stream("a").fill(4, 0, &mut again);
        assert_ne!(first, again);
        assert_eq!(stream("a").block(9)[0], stream("a").draws(9).word());
    }

    #[test]
    fn derivation_separates_labels_and_purposes() {
        let seed = Subseed::new([1; 32]);
        assert_ne!(seed.derive("a").0, seed.derive("b").0);
        assert_ne!(seed.derive("a").0, seed.digest("stream", "a"));
    }

    #[test]
    fn geometric_has_its_mean() {
        let mut draws = stream("geometric").draws(0);
        let (n, p) = (200_000, 0.01);
        let sum: u64 = (0..n).map(|_| draws.trials_to_success(p)).sum();
        let mean = sum as f64 / f64::from(n);
        let sigma = (1.0 - p).sqrt() / p / f64::from(n).sqrt();
        assert!((mean - 1.0 / p).abs() < 3.0 * sigma, "{mean}");
        assert_eq!(draws.trials_to_success(0.0), u64::MAX);
        assert_eq!(draws.trials_to_success(1e-300), u64::MAX);
        assert_eq!(draws.trials_to_success(1.0), 1);
    }

    #[test]
    fn poisson_has_mean_and_variance() {
        let mut draws = stream("poisson").draws(0);
        for mean in [0.3, 4.0, 9.9, 10.1, 57.0, 3e4] {
            let n = 100_000;
            let counts: Vec<f64> = (0..n).map(|_| draws.poisson(mean) as f64).collect();
            let m = counts.iter().sum::<f64>() / n as f64;
            let variance = counts.iter().map(|c| (c - m) * (c - m)).sum::<f64>() / n as f64;
            assert!((m - mean).abs() < 3.0 * (mean / n as f64).sqrt(), "mean {m} of {mean}");
            let sigma = ((mean + 2.0 * mean * mean) / n as f64).sqrt();
            assert!((variance - mean).abs() < 3.0 * sigma, "variance {variance} of {mean}");
        }
        assert_eq!(draws.poisson(0.0), 0);
        assert_eq!(draws.poisson(f64::NAN), 0);
    }
}
