//! What the operator counts of itself, and whether it is well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use etsi014::health::{Health, Probe};

#[derive(Debug, Default)]
pub struct Metrics {
    reconciles: AtomicU64,
    writes: AtomicU64,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    pub fn reconciled(&self) {
        self.reconciles.fetch_add(1, Ordering::Relaxed);
    }

    pub fn wrote(&self, objects: usize) {
        self.writes.fetch_add(objects as u64, Ordering::Relaxed);
    }

    pub fn failed(&self, step: &'static str) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner).entry(step).or_default() += 1;
    }
}

impl Probe for Metrics {
    /// A process that answers is well: what it cannot do, it says in conditions and events, and tries again.
    fn health(&self) -> Health {
        Health::default()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let mut counter = |name: &str, help: &str, value: u64| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n");
        };
        counter("qkdnet_operator_reconciles_total", "Rounds.", self.reconciles.load(Ordering::Relaxed));
        counter("qkdnet_operator_writes_total", "Objects written.", self.writes.load(Ordering::Relaxed));
        let name = "qkdnet_operator_failures_total";
        let _ = write!(text, "# HELP {name} Rounds that failed, by step.\n# TYPE {name} counter\n");
        for (step, count) in &*self.failures.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "{name}{{step=\"{step}\"}} {count}");
        }
        text
    }
}
