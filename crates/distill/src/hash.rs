//! Polynomial universal hashes: over GF(2^128) for Wegman-Carter tags, over GF(2^64) to verify corrected frames.
//!
//! Wegman and Carter, J. Comput. Syst. Sci. 22, 265 (1981); polynomial evaluation as in den Boer, J. Comput.
//! Secur. 2, 65 (1993). Both run in constant time for a given length.

use kernels::gf2::{Backend, HASH_STRIDE_BYTES, HashKey, hash_words};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bits::Bits;

/// An almost XOR-universal hash of a byte string, fed in pieces.
///
/// The string is padded with zeros to t blocks m_1 .. m_t of 16 bytes, and its length in bytes makes one more; the
/// hash is m_1 k^(t+1) + ... + m_t k^2 + length k in GF(2^128), first byte and first bit lowest. Two different
/// strings, of any lengths, differ by a given value for at most t + 1 of the 2^128 keys, t being the blocks of the
/// longer: epsilon = (blocks + 1) / 2^128. A tag is this hash plus 128 fresh secret bits; the key may then be used
/// again.
#[derive(ZeroizeOnDrop)]
pub struct PolyHash {
    key: HashKey,
    hash: u128,
    buffer: [u8; HASH_STRIDE_BYTES],
    buffered: usize,
    length_bytes: u128,
}

impl PolyHash {
    pub fn new(key: [u8; 16]) -> Self {
        Self::with_backend(Backend::best(), key)
    }

    fn with_backend(backend: Backend, mut key: [u8; 16]) -> Self {
        let powers = HashKey::new(backend, u128::from_le_bytes(key));
        key.zeroize();
        Self { key: powers, hash: 0, buffer: [0; HASH_STRIDE_BYTES], buffered: 0, length_bytes: 0 }
    }

    /// Appends bytes; how a message is cut into calls makes no difference.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length_bytes += bytes.len() as u128;
        if self.buffered > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(HASH_STRIDE_BYTES - self.buffered));
            self.buffer[self.buffered..self.buffered + head.len()].copy_from_slice(head);
            self.buffered += head.len();
            bytes = tail;
            if self.buffered < HASH_STRIDE_BYTES {
                return;
            }
            self.hash = self.key.absorb(self.hash, &self.buffer);
            self.buffered = 0;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % HASH_STRIDE_BYTES);
        self.hash = self.key.absorb(self.hash, whole);
        self.buffer[..rest.len()].copy_from_slice(rest);
        self.buffered = rest.len();
    }

    /// The hash of all bytes given so far. It is as secret as the key until it is masked.
    pub fn finish(mut self) -> [u8; 16] {
        let padded = self.buffered.next_multiple_of(16);
        self.buffer[self.buffered..padded].fill(0);
        let hash = self.key.absorb(self.hash, &self.buffer[..padded]);
        self.key.absorb(hash, &self.length_bytes.to_le_bytes()).to_le_bytes()
    }
}

impl std::fmt::Debug for PolyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PolyHash({} bytes)", self.length_bytes)
    }
}

/// Verification hash of a corrected frame: the words w_1 .. w_t of the frame and its length n as the polynomial
/// w_1 k^(t+1) + ... + w_t k^2 + n k in GF(2^64) = GF(2)\[x\] / (x^64 + x^4 + x^3 + x + 1).
///
/// Two different frames of at most n bits collide for at most t + 1 of the 2^64 keys: (n/64 + 1) / 2^64, n/64
/// rounded up. The key must be unknown until both ends hold their frames.
pub fn frame_tag(frame: &Bits, key: u64) -> u64 {
    frame_tag_with(Backend::best(), frame, key)
}

fn frame_tag_with(backend: Backend, frame: &Bits, key: u64) -> u64 {
    let hash = hash_words(backend, key, 0, frame.words());
    hash_words(backend, key, hash, &[frame.len() as u64])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(key: [u8; 16], message: &[u8]) -> [u8; 16] {
        let mut state = PolyHash::new(key);
        state.update(message);
        state.finish()
    }

    /// Product of polynomials bit by bit, reduced by `tail` below x^`bits`.
    fn naive_mul(a: u128, b: u128, bits: u32, tail: u128) -> u128 {
        let mask = u128::MAX >> (128 - bits);
        (0..bits).rev().fold(0, |p, i| {
            let carry = p >> (bits - 1) & 1;
            ((p << 1) & mask) ^ (carry * tail) ^ ((b >> i & 1) * a)
        })
    }

    fn naive_hash(key: u128, message: &[u8]) -> u128 {
        let mut blocks: Vec<u128> = message
            .chunks(16)
            .map(|chunk| chunk.iter().rev().fold(0, |block, byte| (block << 8) | u128::from(*byte)))
            .collect();
        blocks.push(message.len() as u128);
        blocks.iter().fold(0, |h, m| naive_mul(h ^ m, key, 128, 0x87))
    }

    proptest! {
        #[test]
        fn hash_is_the_stated_polynomial(key: u128, message in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let expected = naive_hash(key, &message).to_le_bytes();
            for backend in Backend::available() {
                let mut state = PolyHash::with_backend(backend, key.to_le_bytes());
                state.update(&message);
                prop_assert_eq!(state.finish(), expected, "{}", backend.name());
            }
        }

        #[test]
        fn cutting_the_message_makes_no_difference(
            key: [u8; 16],
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..8),
        ) {
            let mut state = PolyHash::new(key);
            parts.iter().for_each(|part| state.update(part));
            prop_assert_eq!(state.finish(), hash(key, &parts.concat()));
        }

        #[test]
        fn any_changed_bit_changes_the_hash(
            key: u128,
            mut message in proptest::collection::vec(any::<u8>(), 1..900),
            at: usize,
        ) {
            prop_assume!(key != 0);
            let before = hash(key.to_le_bytes(), &message);
            let at = at % (8 * message.len());
            message[at / 8] ^= 1 << (at % 8);
            prop_assert_ne!(hash(key.to_le_bytes(), &message), before);
        }

        #[test]
        fn frame_tag_is_the_stated_polynomial(
            key: u64,
            words in proptest::collection::vec(any::<u64>(), 1..40),
            cut in 0usize..64,
        ) {
            let frame = Bits::from_words(words.clone(), 64 * words.len() - cut);
            let expected = frame.words().iter().chain([&(frame.len() as u64)])
                .fold(0, |h, w| naive_mul(h ^ u128::from(*w), u128::from(key), 64, 0x1b)) as u64;
            for backend in Backend::available() {
                prop_assert_eq!(frame_tag_with(backend, &frame, key), expected, "{}", backend.name());
            }
        }
    }

    #[test]
    fn padding_zeros_are_told_from_message_zeros() {
        let key = [7; 16];
        let hashes: Vec<_> = (0..40).map(|length| hash(key, &vec![0; length])).collect();
        for i in 0..hashes.len() {
            for j in 0..i {
                assert_ne!(hashes[i], hashes[j], "lengths {i} and {j}");
            }
        }
    }

    #[test]
    fn frame_tags_tell_lengths_apart() {
        assert_ne!(frame_tag(&Bits::zeros(63), 5), frame_tag(&Bits::zeros(64), 5));
        assert_eq!(frame_tag(&Bits::zeros(0), 5), 0);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", PolyHash::new([0x42; 16])), "PolyHash(0 bytes)");
    }
}
