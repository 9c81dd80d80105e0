//! Key bytes in memory: zeroized when dropped, compared in constant time, never printed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Key bytes. `Debug` prints the length alone; there is no `Display` and no serialisation.
///
/// The buffer is never grown in place: a reallocation would leave a copy behind.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

/// The slices, not the vector, which is wiped byte by byte: blocks have millions of them.
impl Zeroize for Secret {
    fn zeroize(&mut self) {
        self.0.as_mut_slice().zeroize();
        self.0.spare_capacity_mut().zeroize();
        self.0.clear();
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes themselves. Whoever calls this answers for where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn len_bits(&self) -> u64 {
        self.0.len() as u64 * 8
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends within the capacity that `with_capacity` gave; beyond it the bytes move to a new buffer and the old
    /// one is zeroized.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()).max(2 * self.0.len()));
            larger.extend_from_slice(&self.0);
            self.zeroize();
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Shortens; what is cut off stays in the buffer and is zeroized with it.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_its_length_and_nothing_else() {
        assert_eq!(format!("{:?}", Secret::copy_of(&[0xab; 3])), "Secret(3 bytes)");
    }

    #[test]
    fn a_secret_that_outgrows_its_buffer_keeps_its_bytes() {
        let mut secret = Secret::with_capacity(2);
        for byte in 0..100u8 {
            secret.extend(&[byte]);
        }
        assert_eq!(secret.expose(), (0..100u8).collect::<Vec<_>>());
        assert_ne!(secret, Secret::copy_of(&[1; 100]));
    }
}
