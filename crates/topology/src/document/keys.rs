//! Key management at the sites: pools, what applications may ask for, and relaying.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{DataSize, Duration};

/// Key stores at the sites, and what applications get from them over ETSI GS QKD 014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeyManagement {
    /// Size of a key where a request names none.
    pub key_size: DataSize,
    /// Smallest key that can be asked for.
    pub key_size_min: DataSize,
    /// Largest key that can be asked for.
    pub key_size_max: DataSize,
    /// Most keys in one request.
    #[schemars(range(min = 1, max = 1024))]
    pub keys_per_request: u32,
    /// Most keys of `keySize` that are said to be in store for a pair of applications.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub key_count_max: u32,
    /// Most further applications that can get the same key (multicast); 0 for none.
    #[schemars(range(max = 64))]
    pub additional_saes: u32,
    /// Keys that one application may take in a second of wall time; 0 for no limit.
    #[schemars(range(max = 10_000_000))]
    pub keys_per_second: u32,
    /// Keys for several applications, or within one site, that may wait to be fetched at a site, by master; more are
    /// not made.
    #[schemars(range(min = 1, max = 100_000))]
    pub keys_waiting: u32,
    /// Bits that a pool holds for one peer site.
    pub pool: DataSize,
    /// What becomes of a pool that is full, and of the links that fill it.
    #[serde(skip_serializing_if = "is_default")]
    pub when_full: WhenFull,
    /// Age in wall time at which stored key expires.
    pub retention: Duration,
    /// Wall time in which an application may repeat `dec_keys` for a key that it already got.
    pub redelivery_window: Duration,
    /// Key for sites that share no link.
    pub relay: Relay,
}

impl Default for KeyManagement {
    fn default() -> Self {
        KeyManagement {
            key_size: DataSize::preset("256 bit"),
            key_size_min: DataSize::preset("64 bit"),
            key_size_max: DataSize::preset("8192 bit"),
            keys_per_request: 128,
            key_count_max: 1_000_000,
            additional_saes: 8,
            keys_per_second: 0,
            keys_waiting: 10_000,
            pool: DataSize::preset("268435456 bit"),
            when_full: WhenFull::Wait,
            retention: Duration::preset("86400 s"),
            redelivery_window: Duration::preset("0 s"),
            relay: Relay::default(),
        }
    }
}

/// What becomes of a pool that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhenFull {
    /// Its links wait until key is taken; `qkdnet status` names it.
    #[default]
    Wait,
    /// The oldest key that no use was given yet goes, at both sites, and new key takes its place.
    Expire,
    /// Its links have no light until key is taken, and time goes on; not in a run with a seed, because key is taken in
    /// wall time.
    Dark,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Trusted-node relay: key between sites, hop by hop under one-time pad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Relay {
    /// Whether sites without a link of their own get key ahead of time.
    pub enabled: bool,
    /// Key that one transfer carries.
    pub transfer: DataSize,
    /// A pair of sites with less stored key than this gets more.
    pub low_water: DataSize,
    /// Stored key at which filling stops.
    pub high_water: DataSize,
    /// Disjoint paths over which each key is shared, so that no single relay knows it.
    #[schemars(range(min = 1, max = 4))]
    pub shares: u8,
    /// Whether sites that share a link get key around it, too, while they have too little: their link is out, or makes
    /// less than they take. Relays between know that key.
    #[serde(skip_serializing_if = "is_default")]
    pub reroute: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Relay {
            enabled: true,
            transfer: DataSize::preset("8192 bit"),
            low_water: DataSize::preset("65536 bit"),
            high_water: DataSize::preset("131072 bit"),
            shares: 1,
            reroute: false,
        }
    }
}
