//! What a front end asks of the key store, whichever standard it speaks.

use std::fmt;
use std::future::Future;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

use keystore::Secret;

/// Longest name of an SAE, in characters.
pub const SAE_ID_LIMIT_CHARS: usize = 64;

/// Not the name of an SAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an SAE ID has 1 to {SAE_ID_LIMIT_CHARS} characters, none of them a control character, and is neither . nor .."
)]
pub struct SaeIdError;

/// Name of a secure application entity, unique in the QKD network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SaeId(String);

impl SaeId {
    pub fn new(name: impl Into<String>) -> Result<Self, SaeIdError> {
        let name = name.into();
        let chars = name.chars().take(SAE_ID_LIMIT_CHARS + 1).count();
        let well_formed = (1..=SAE_ID_LIMIT_CHARS).contains(&chars) && !name.chars().any(char::is_control);
        // Dot segments would vanish from a URL on its way.
        if well_formed && name != "." && name != ".." { Ok(Self(name)) } else { Err(SaeIdError) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SaeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SaeId {
    type Err = SaeIdError;

    fn from_str(name: &str) -> Result<Self, SaeIdError> {
        Self::new(name)
    }
}

/// Not a UUID in its hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key ID is a UUID")]
pub struct KeyIdError;

/// Name of a key. Whoever knows it may be able to fetch the key, so `Debug` does not tell it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

/// Length of a key ID as text.
pub const KEY_ID_CHARS: usize = 36;

impl KeyId {
    /// A UUID of version 4 made of random bytes. The bytes must have nothing to do with any key.
    pub const fn v4(mut random: [u8; 16]) -> Self {
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        Self(random)
    }

    /// The hyphenated lower-case form.
    pub fn text(&self) -> [u8; KEY_ID_CHARS] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; KEY_ID_CHARS];
        let mut at = 0;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        text
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(..)")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let text = text.as_bytes();
        if text.len() != KEY_ID_CHARS {
            return Err(KeyIdError);
        }
        let (mut id, mut at) = ([0; 16], 0);
        for (index, byte) in id.iter_mut().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                if text[at] != b'-' {
                    return Err(KeyIdError);
                }
                at += 1;
            }
            *byte = digit(text[at])? << 4 | digit(text[at + 1])?;
            at += 2;
        }
        Ok(Self(id))
    }
}

fn digit(character: u8) -> Result<u8, KeyIdError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(KeyIdError),
    }
}

/// A key on its way to the SAE that asked for it.
#[derive(Debug, PartialEq, Eq)]
pub struct SuppliedKey {
    pub id: KeyId,
    pub key: Secret,
}

/// How many keys of which sizes may be asked for, between two SAEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// Size of a key for which none is asked.
    pub key_size_bits: u32,
    pub min_key_size_bits: u32,
    pub max_key_size_bits: u32,
    pub max_key_per_request: u32,
    /// Most further slaves of a multicast key; 0 where there is no multicast.
    pub max_sae_id_count: u32,
}

/// What an SAE may know about the keys it shares with a peer: the data format of clause 6.1, member by member.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(non_snake_case)]
pub struct Status {
    pub source_KME_ID: String,
    pub target_KME_ID: String,
    pub master_SAE_ID: String,
    pub slave_SAE_ID: String,
    /// Bits.
    pub key_size: u32,
    pub stored_key_count: u32,
    pub max_key_count: u32,
    pub max_key_per_request: u32,
    /// Bits.
    pub max_key_size: u32,
    /// Bits.
    pub min_key_size: u32,
    pub max_SAE_ID_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_extension: Option<Map<String, Value>>,
}

impl Status {
    pub fn limits(&self) -> KeyLimits {
        KeyLimits {
            key_size_bits: self.key_size,
            min_key_size_bits: self.min_key_size,
            max_key_size_bits: self.max_key_size,
            max_key_per_request: self.max_key_per_request,
            max_sae_id_count: self.max_SAE_ID_count,
        }
    }
}

/// A master's request for new keys. Number and size are within the [`KeyLimits`].
#[derive(Clone, Copy, Debug)]
pub struct GetKey<'a> {
    /// The SAE that asks.
    pub master: &'a SaeId,
    pub slave: &'a SaeId,
    /// Further slaves that may fetch the same keys, each named once, the first slave not among them.
    pub additional: &'a [SaeId],
    pub number: u32,
    pub size_bits: u32,
    /// The span of the request, for the store to take the trace from.
    pub span: &'a tracing::Span,
}

/// Why a key that was named is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// No key of this name was ever made for these two SAEs, or it is too long ago.
    Unknown,
    /// It was fetched before, or has expired.
    Taken,
}

impl Absence {
    /// In answers, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Taken => "taken or expired",
        }
    }
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SupplyError {
    #[error("the SAE is not known in the QKD network")]
    UnknownSae,
    #[error("the SAE may not have these keys")]
    Unauthorized,
    /// The first of the keys named that is not there.
    #[error("key {at} of those named is {}", .why.name())]
    NotFound { at: usize, why: Absence },
    /// No links lead to where the slave is (0 the slave itself, then those in addition): waiting does not help.
    #[error("no path leads to the key store of a slave")]
    NoPath { slave: usize },
    #[error("{asked_bits} bits asked, {available_bits} available")]
    Exhausted { asked_bits: u64, available_bits: u64, retry_after_s: u32 },
    #[error("{what}: {asked} asked, {limit} allowed")]
    TooMany { what: &'static str, asked: u64, limit: u64 },
    #[error("too many requests")]
    RateLimited { retry_after_s: u32 },
    #[error("too many keys of the SAE wait to be fetched")]
    TooManyWait { retry_after_s: u32 },
    /// Until somebody restores that store: asking again does not help.
    #[error("a key store of the pair was put back from a copy")]
    RolledBack,
    #[error("no multicast")]
    MulticastUnsupported,
    #[error("the key store failed: {0}")]
    Failed(&'static str),
}

/// The key store as its front ends see it.
///
/// A request's future may be dropped when its time is over; bits that were taken by then count as handed out.
pub trait KeySupply: Send + Sync + 'static {
    fn status(&self, caller: &SaeId, slave: &SaeId) -> Result<Status, SupplyError>;

    /// The part of the status that every request for keys is checked against. Worth implementing without strings.
    fn limits(&self, caller: &SaeId, slave: &SaeId) -> Result<KeyLimits, SupplyError> {
        self.status(caller, slave).map(|status| status.limits())
    }

    /// All of the keys asked for, or none and an error.
    fn get_key(&self, request: GetKey<'_>) -> impl Future<Output = Result<Vec<SuppliedKey>, SupplyError>> + Send;

    /// All of the keys named, in the order named, or none and an error; then none of them may be lost.
    fn get_key_with_ids(
        &self,
        caller: &SaeId,
        master: &SaeId,
        ids: &[KeyId],
    ) -> impl Future<Output = Result<Vec<SuppliedKey>, SupplyError>> + Send;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_read_in_any_case_and_written_in_lower_case() {
        let id: KeyId = "BC490419-7d60-487F-adc1-4ddcc177c139".parse().unwrap();
        assert_eq!(id.to_string(), "bc490419-7d60-487f-adc1-4ddcc177c139");
    }

    #[test]
    fn what_is_no_uuid_is_no_key_id() {
        for text in [
            "",
            "bc4904197d60487fadc14ddcc177c139",
            "bc490419-7d60-487f-adc1-4ddcc177c13",
            "bc490419-7d60-487f-adc1-4ddcc177c1399",
            "bc490419-7d60-487f-adc1-4ddcc177c13g",
            "bc490419+7d60-487f-adc1-4ddcc177c139",
            "bc4904197-d60-487f-adc1-4ddcc177c139",
            "é490419-7d60-487f-adc1-4ddcc177c1é",
        ] {
            assert_eq!(text.parse::<KeyId>(), Err(KeyIdError), "{text}");
        }
    }

    #[test]
    fn a_key_id_of_version_4_says_so() {
        let text = KeyId::v4([0xff; 16]).to_string();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_key_id_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", KeyId([7; 16])), "KeyId(..)");
    }

    #[test]
    fn sae_ids_have_1_to_64_characters() {
        for good in ["a", "hospital-a", "SAE A/1", "é", &"é".repeat(64)] {
            assert_eq!(SaeId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a\n", "\0", &"a".repeat(65)] {
            assert!(SaeId::new(bad).is_err(), "{bad:?}");
        }
    }
}
