//! How much memory a service may take, from the plan's own estimate.

use topology::plan::{Plan, Service};

/// The estimate is of what a service holds on average; a limit has to leave room for bursts. Pods have the same.
const HEADROOM: u64 = 3;
/// The program's pages, the runtime, connections.
const BASE_BYTES: u64 = 128 << 20;

/// Beyond this a service has lost its way and is better ended than fed.
pub fn limit_bytes(plan: &Plan, service: &Service) -> u64 {
    let resources = plan.resources();
    let planned = plan.services.iter().zip(resources).find(|(planned, _)| planned.name == service.name);
    BASE_BYTES + planned.map_or(0, |(_, resources)| HEADROOM * resources.memory_bytes)
}
