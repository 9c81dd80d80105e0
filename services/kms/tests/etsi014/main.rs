//! Conformance of the ETSI GS QKD 014 front end, over real TLS on the loopback address.

#![allow(clippy::unwrap_used)]

mod fake;
mod pki;
mod support;

mod clients;
mod delivery;
mod framing;
mod health;
mod http;
mod identity;
mod lifecycle;
mod random;
mod requests;
mod telemetry;
