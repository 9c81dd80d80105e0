//! Clients that others have written, against the key stores' front ends.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../services/kms/tests/etsi014/fake.rs"]
mod fake;
#[path = "../../services/kms/tests/etsi014/pki.rs"]
mod pki;
#[path = "../../services/kms/tests/etsi014/support.rs"]
mod support;

mod etsi014;

/// What the key stores' own tests have here; spans are nothing to a foreign client.
mod telemetry {
    pub fn listen() {}
}
