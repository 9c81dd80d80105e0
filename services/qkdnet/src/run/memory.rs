//! How much memory a service may take, from the plan's own estimate.

use topology::plan::{Plan, Service, ServiceConfig};

use crate::commands::plan::module_memory_bytes;

const MIB: u64 = 1 << 20;
/// What every service has: the program's pages, the runtime, connections.
const BASE_BYTES: u64 = 64 * MIB;
/// The estimate is of what a module holds on average; a limit has to leave room for bursts.
const HEADROOM: f64 = 2.0;
/// Photons of the epochs in flight towards both ends.
const SOURCE_BYTES: u64 = 256 * MIB;
/// Pools are bounded by the topology; what is in memory of them is the database's cache.
const KEY_STORE_BYTES: u64 = 512 * MIB;
const RELAY_BYTES: u64 = 128 * MIB;

/// Beyond this a service has lost its way and is better ended than fed.
pub fn limit_bytes(plan: &Plan, service: &Service) -> u64 {
    BASE_BYTES
        + match &service.config {
            ServiceConfig::Source(_) => SOURCE_BYTES,
            ServiceConfig::Detector(config) => (module_memory_bytes(plan, config) * HEADROOM) as u64,
            ServiceConfig::Channel(_) => 0,
            ServiceConfig::Kms(_) => KEY_STORE_BYTES,
            ServiceConfig::Relay(_) => RELAY_BYTES,
        }
}
