//! Time that a thread has run, so that what else the machine does is not counted.

use std::time::{Duration, Instant};

/// Since this thread began, where the system tells; since `origin` elsewhere. It comes in steps of some milliseconds.
pub fn core_time(origin: Instant) -> Duration {
    let on_core = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = on_core.and_then(|text| text.split_whitespace().next().and_then(|count| count.parse().ok()));
    nanoseconds.map_or_else(|| origin.elapsed(), Duration::from_nanos)
}
