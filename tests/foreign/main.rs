//! Clients that others have written, against the key stores' front ends.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../services/etsi014/tests/conformance/fake.rs"]
mod fake;
#[path = "../../services/etsi014/tests/conformance/pki.rs"]
mod pki;
#[path = "../../services/etsi014/tests/conformance/support.rs"]
mod support;

mod etsi014;

/// What the key stores' own tests have here; spans are nothing to a foreign client.
mod telemetry {
    pub fn listen() {}
}
