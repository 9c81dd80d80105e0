//! The identity of a store.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Drawn when a store is made, kept in it, and never drawn again for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instance([u8; Self::BYTES]);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instance is {} hexadecimal digits", 2 * Instance::BYTES)]
pub struct InstanceError;

impl Instance {
    pub const BYTES: usize = 16;

    /// A fresh one, from the randomness of the system.
    pub fn draw() -> io::Result<Self> {
        let mut bytes = [0; Self::BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Instance {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, InstanceError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InstanceError);
        }
        let mut bytes = [0; Self::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InstanceError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InstanceError)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Instance {
    type Error = InstanceError;

    fn try_from(text: String) -> Result<Self, InstanceError> {
        text.parse()
    }
}

impl From<Instance> for String {
    fn from(instance: Instance) -> Self {
        instance.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_written_and_read() {
        let instance = Instance::draw().unwrap();
        assert_eq!(instance.to_string().parse(), Ok(instance));
        for bad in ["", "00", "zz000000000000000000000000000000", "+0000000000000000000000000000000"] {
            assert_eq!(bad.parse::<Instance>(), Err(InstanceError), "{bad}");
        }
    }
}
