//! Which way of multiplying costs least.

use kernels::gf2::{MAX_LOG_LEN, unfolded_len};

/// How a key of `key_words` is multiplied with its seed to give `out_words`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub key_words: usize,
    pub out_words: usize,
    /// Words of the key that are transformed at once.
    pub stretch_words: usize,
    pub stretches: usize,
    /// The transform has 2^`log_len` elements; 0: the schoolbook instead.
    pub log_len: u32,
}

/// Shortest transform that is considered.
const SHORTEST_LOG: u32 = 6;

/// Relative costs, measured: a product of two words, one element in one layer of a transform, and one element
/// outside of the layers (change of basis, products, memory).
const COST_PRODUCT: f64 = 1.0;
const COST_LAYER: f64 = 3.0;
const COST_ELEMENT: f64 = 6.0;

impl Plan {
    pub fn choose(key_words: usize, out_words: usize) -> Self {
        let direct = Self { key_words, out_words, stretch_words: key_words, stretches: 1, log_len: 0 };
        if key_words == 0 || out_words == 0 {
            return direct;
        }
        (SHORTEST_LOG..=MAX_LOG_LEN)
            .filter_map(|log_len| Self::with_transform(key_words, out_words, log_len))
            .chain([direct])
            .min_by(|a, b| a.cost().total_cmp(&b.cost()))
            .unwrap_or(direct)
    }

    /// Stretches as long as a transform allows: what folds back must stay below the wanted words, or nothing may
    /// fold at all.
    pub fn with_transform(key_words: usize, out_words: usize, log_len: u32) -> Option<Self> {
        let folded = unfolded_len(log_len).checked_sub(out_words);
        let whole = ((1usize << log_len) + 1).checked_sub(out_words).map(|room| room / 2);
        let longest = folded.max(whole).filter(|words| *words > 0)?;
        let stretches = key_words.div_ceil(longest);
        Some(Self { key_words, out_words, stretch_words: key_words.div_ceil(stretches), stretches, log_len })
    }

    fn cost(&self) -> f64 {
        if self.log_len == 0 {
            return self.key_words as f64 * self.out_words as f64 * COST_PRODUCT;
        }
        let elements = (1usize << self.log_len) as f64;
        let transforms = (self.stretches + 1) as f64;
        transforms * elements * (f64::from(self.log_len) * COST_LAYER + COST_ELEMENT)
    }
}
