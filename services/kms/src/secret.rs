//! Key bytes that cannot be printed and do not outlive their use.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Key. Zeroized when dropped, compared in constant time; prints nothing but its length.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over. Copies that the caller made before are the caller's to clear.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself, for encoding and for use in a cipher; never for a log.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }

    pub fn len_bits(&self) -> u64 {
        self.0.len() as u64 * 8
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_its_length_and_nothing_of_its_bytes() {
        let secret = Secret::new(vec![0xab; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(Secret(32 bytes))");
    }

    #[test]
    fn secrets_are_equal_only_with_equal_bytes_and_equal_length() {
        assert_eq!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 3]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2, 0]));
    }
}
