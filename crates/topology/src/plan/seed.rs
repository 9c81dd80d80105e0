//! A subseed of its own for each role, so that no service can compute what another one draws.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Who draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nature at the source: joint outcomes, losses, the fibres.
    Source,
    /// Nature at one end: jitter, dark counts, the clock.
    Instrument,
    /// The protocol's own randomness at one end.
    Module,
}

impl Role {
    fn label(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Instrument => "instrument",
            Role::Module => "module",
        }
    }
}

/// A role's secret, from which everything that it draws can be repeated. Written as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretSeed([u8; 32]);

impl SecretSeed {
    pub fn new(bytes: [u8; 32]) -> Self {
        SecretSeed(bytes)
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The subseed of one role at one link (and site, where the role has one) under a run's seed.
pub fn derive_subseed(seed: u64, role: Role, link: &str, site: &str) -> SecretSeed {
    // Names are DNS labels: a zero byte cannot be part of one.
    let digest = Sha256::new()
        .chain_update(b"qkdnet subseed v1\0")
        .chain_update(seed.to_le_bytes())
        .chain_update(role.label())
        .chain_update([0])
        .chain_update(link)
        .chain_update([0])
        .chain_update(site)
        .finalize();
    SecretSeed(digest.into())
}

/// Says that there is one, never what it is.
impl fmt::Debug for SecretSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretSeed(..)")
    }
}

impl Serialize for SecretSeed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        let result = serializer.serialize_str(&text);
        text.zeroize();
        result
    }
}

impl<'de> Deserialize<'de> for SecretSeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let seed = parse_hex(&text);
        text.zeroize();
        // The text itself stays out of the error.
        seed.ok_or_else(|| de::Error::custom("a subseed is 64 hexadecimal digits"))
    }
}

fn parse_hex(text: &str) -> Option<SecretSeed> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut seed = SecretSeed([0; 32]);
    for (index, byte) in seed.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_role_link_site_and_seed_has_a_subseed_of_its_own() {
        let mut seen: Vec<[u8; 32]> = Vec::new();
        for seed in [1, 2] {
            for role in [Role::Source, Role::Instrument, Role::Module] {
                for (link, site) in [("a", "b"), ("b", "a"), ("ab", ""), ("a", "")] {
                    let subseed = *derive_subseed(seed, role, link, site).bytes();
                    assert!(!seen.contains(&subseed));
                    seen.push(subseed);
                }
            }
        }
        assert_eq!(derive_subseed(1, Role::Source, "a", ""), derive_subseed(1, Role::Source, "a", ""));
    }

    #[test]
    fn a_subseed_survives_its_text_and_never_shows_in_debug() {
        let seed = derive_subseed(7, Role::Module, "l", "s");
        let text = serde_json::to_string(&seed).unwrap();
        assert_eq!(serde_json::from_str::<SecretSeed>(&text).unwrap(), seed);
        assert_eq!(format!("{seed:?}"), "SecretSeed(..)");
        let error = serde_json::from_str::<SecretSeed>("\"0123\"").unwrap_err().to_string();
        assert!(!error.contains("0123"));
    }
}
