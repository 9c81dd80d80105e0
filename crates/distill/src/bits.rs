//! A string of bits that may be key: zeroized when dropped, never printed.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::wiped::wipe;

/// Bit `i` is bit `i % 64` of word `i / 64`; bits beyond the length are zero.
#[derive(Clone, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Zeroize for Bits {
    fn zeroize(&mut self) {
        wipe(&mut self.words);
        self.len = 0;
    }
}

impl Drop for Bits {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Bits {}

impl Bits {
    /// `len` zero bits.
    pub fn zeros(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// Takes words as they are; bits beyond `len` are cleared.
    pub fn from_words(mut words: Vec<u64>, len: usize) -> Self {
        words.resize(len.div_ceil(64), 0);
        let mut bits = Self { words, len };
        bits.clear_tail();
        bits
    }

    /// Little-endian bytes, bit 0 of byte 0 first.
    pub fn from_bytes(bytes: &[u8], len: usize) -> Self {
        let (whole, rest) = bytes[..bytes.len().min(len.div_ceil(8))].as_chunks::<8>();
        let mut words = Vec::with_capacity(len.div_ceil(64));
        words.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            words.push(u64::from_le_bytes(last));
            last.zeroize();
        }
        Self::from_words(words, len)
    }

    /// Little-endian bytes, `len / 8` rounded up of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(self.words.len() * 8);
        for word in &self.words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    pub fn set(&mut self, index: usize, value: bool) {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let mask = 1u64 << (index % 64);
        if value {
            self.words[index / 64] |= mask;
        } else {
            self.words[index / 64] &= !mask;
        }
    }

    pub fn flip(&mut self, index: usize) {
        assert!(index < self.len, "bit {index} of {}", self.len);
        self.words[index / 64] ^= 1 << (index % 64);
    }

    /// Whether an odd number of bits is set.
    pub fn parity(&self) -> bool {
        self.words.iter().fold(0, |sum, word| sum ^ word).count_ones() % 2 == 1
    }

    pub fn push(&mut self, value: bool) {
        if self.len.is_multiple_of(64) {
            self.reserve(1);
            self.words.push(0);
        }
        self.len += 1;
        self.set(self.len - 1, value);
    }

    /// Appends `other`, at any alignment.
    pub fn extend(&mut self, other: &Bits) {
        self.reserve(other.words.len());
        let shift = self.len % 64;
        if shift == 0 {
            self.words.extend_from_slice(&other.words);
        } else {
            for word in &other.words {
                if let Some(last) = self.words.last_mut() {
                    *last |= word << shift;
                }
                self.words.push(word >> (64 - shift));
            }
        }
        self.len += other.len;
        self.words.truncate(self.len.div_ceil(64));
    }

    /// Makes room for more words. What is outgrown is wiped, which a vector that grows does not do.
    fn reserve(&mut self, words: usize) {
        let needed = self.words.len() + words;
        if needed > self.words.capacity() {
            let mut grown = Vec::with_capacity(needed.max(2 * self.words.len()));
            grown.extend_from_slice(&self.words);
            wipe(&mut std::mem::replace(&mut self.words, grown));
        }
    }

    /// Bits `start..start + len`.
    pub fn slice(&self, start: usize, len: usize) -> Bits {
        assert!(start + len <= self.len, "bits {start}..{} of {}", start + len, self.len);
        let (first, shift) = (start / 64, start % 64);
        let words = (0..len.div_ceil(64))
            .map(|i| {
                let low = self.words[first + i] >> shift;
                let high = self.words.get(first + i + 1).copied().unwrap_or(0);
                if shift == 0 { low } else { low | high << (64 - shift) }
            })
            .collect();
        Bits::from_words(words, len)
    }

    /// Sets bits `start..start + len` to zero.
    pub fn clear(&mut self, start: usize, len: usize) {
        assert!(start + len <= self.len, "bits {start}..{} of {}", start + len, self.len);
        let mut at = start;
        while at < start + len {
            let (word, shift) = (at / 64, at % 64);
            let bits = (64 - shift).min(start + len - at);
            let mask = if bits == 64 { u64::MAX } else { ((1u64 << bits) - 1) << shift };
            self.words[word] &= !mask;
            at += bits;
        }
    }

    /// Number of positions in which two strings of equal length differ.
    pub fn distance(&self, other: &Bits) -> usize {
        assert_eq!(self.len, other.len);
        self.words.iter().zip(&other.words).map(|(a, b)| (a ^ b).count_ones() as usize).sum()
    }

    /// Equality in constant time; lengths are public.
    pub fn ct_eq(&self, other: &Bits) -> bool {
        use subtle::ConstantTimeEq;
        self.len == other.len && bool::from(self.words.ct_eq(&other.words))
    }

    fn clear_tail(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1u64 << (self.len % 64)) - 1;
        }
    }
}

impl std::fmt::Debug for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bits({} bits)", self.len)
    }
}
