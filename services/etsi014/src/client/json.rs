//! The client's side of the data formats.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::ClientError;
use crate::supply::KeyId;
use keystore::Secret;

/// What to ask for; what is not said is left to the KME.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    #[serde(rename = "size", skip_serializing_if = "Option::is_none")]
    pub size_bits: Option<u32>,
    #[serde(rename = "additional_slave_SAE_IDs", skip_serializing_if = "Vec::is_empty")]
    pub additional_slaves: Vec<String>,
    /// Names and values that the KME must handle, or refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extension_mandatory: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extension_optional: Vec<Value>,
}

/// What a KME says about the keys of two SAEs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KmeStatus {
    #[serde(rename = "source_KME_ID")]
    pub source_kme: String,
    #[serde(rename = "target_KME_ID")]
    pub target_kme: String,
    #[serde(rename = "master_SAE_ID")]
    pub master_sae: String,
    #[serde(rename = "slave_SAE_ID")]
    pub slave_sae: String,
    #[serde(rename = "key_size")]
    pub key_size_bits: u32,
    pub stored_key_count: u32,
    pub max_key_count: u32,
    pub max_key_per_request: u32,
    #[serde(rename = "max_key_size")]
    pub max_key_size_bits: u32,
    #[serde(rename = "min_key_size")]
    pub min_key_size_bits: u32,
    #[serde(rename = "max_SAE_ID_count")]
    pub max_sae_id_count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_extension: Option<Value>,
}

/// A key as it was delivered.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    pub id: KeyId,
    pub key: Secret,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow)]
    keys: Vec<Item<'a>>,
}

/// Borrowed from the answer, so that the key's text is nowhere else. A KME that escapes characters of it is refused.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "key_ID")]
    id: &'a str,
    key: &'a str,
}

pub(super) fn delivered(answer: &[u8]) -> Result<Vec<Delivered>, ClientError> {
    let container: Container<'_> = serde_json::from_slice(answer).map_err(|_| ClientError::Answer("no keys"))?;
    let read = |item: &Item<'_>| {
        let id = item.id.parse().map_err(|_| ClientError::Answer("a key ID is no UUID"))?;
        let mut key = Zeroizing::new(Vec::with_capacity(item.key.len() / 4 * 3 + 3));
        BASE64.decode_vec(item.key, &mut key).map_err(|_| ClientError::Answer("a key is not in base64"))?;
        Ok(Delivered { id, key: Secret::new(std::mem::take(&mut *key)) })
    };
    container.keys.iter().map(read).collect()
}

pub(super) fn key_ids(ids: &[KeyId]) -> Vec<u8> {
    let list: Vec<Value> = ids.iter().map(|id| serde_json::json!({"key_ID": id.to_string()})).collect();
    serde_json::json!({"key_IDs": list}).to_string().into_bytes()
}

/// Message and details of an error, as far as there are any.
pub(super) fn error(answer: &[u8]) -> (String, Vec<Value>) {
    #[derive(Default, Deserialize)]
    struct ErrorBody {
        #[serde(default)]
        message: String,
        #[serde(default)]
        details: Option<Vec<Value>>,
    }
    let body: ErrorBody = serde_json::from_slice(answer).unwrap_or_default();
    (body.message, body.details.unwrap_or_default())
}

/// Details of an error as they may stand behind its message.
pub(super) fn shown(details: &[Value]) -> String {
    const SHOWN_CHARS_MAX: usize = 300;
    let members = details.iter().filter_map(Value::as_object).flatten();
    let told: Vec<String> = members.map(|(name, value)| format!("{name} {value}")).collect();
    let text: String = told.join(", ").chars().flat_map(char::escape_debug).take(SHOWN_CHARS_MAX).collect();
    if text.is_empty() { text } else { format!(" ({})", text.replace("\\\"", "\"")) }
}

/// Percent-encodes everything but what a path takes everywhere.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
