//! The words of an `a1` file, and what laboratories and bad disks do to them.

use std::path::Path;

/// Counts of a second.
pub const PER_SECOND: u64 = 256_000_000_000;
const MASK: u64 = (1 << 54) - 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Words(pub Vec<u64>);

impl Words {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("read a recording");
        assert!(bytes.len() > 100_000 && bytes.len().is_multiple_of(8));
        Self(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub fn text(&self) -> String {
        self.0.iter().map(|word| format!("{word:016x}\n")).collect()
    }

    pub fn map(&self, change: impl Fn(u64) -> u64) -> Self {
        Self(self.0.iter().copied().map(change).collect())
    }

    /// Every time through `change`, modulo the wrap.
    pub fn times(&self, change: impl Fn(u64) -> u64) -> Self {
        self.map(|word| (change(word >> 10) & MASK) << 10 | word & 0x3FF)
    }

    /// Started so much later, or at another place of the counter.
    pub fn later(&self, counts: u64) -> Self {
        self.times(|time| time.wrapping_add(counts))
    }
}
