//! What every service of qkdnet shares, so that a service itself holds nothing but its own logic.
//!
//! * [`pki`], [`tls`]: a certificate authority per topology; mutual TLS 1.3 with an allow-list of peer names.
//! * [`authority`]: who may call what, in one table.
//! * [`server`], [`client`], [`health`]: gRPC over it, with health, reflection and addresses in files.
//! * [`duplex`], [`dial`]: a bounded two-way stream that is either gRPC or memory; logic written on it does not know which.
//! * [`sealing`], [`handover`]: key on its way from a module to the key store, sealed for that store's memory alone.
//! * [`launch`]: the file that a service in a process or container of its own is started with.
//! * [`shutdown`], [`failpoint`], [`files`]: ending in order, crashing on purpose, and writing so that a crash is harmless.
//! * [`fault`], [`disk`]: what goes wrong on purpose in a running service, where the topology allows it.
//! * [`anchoring`]: ceilings of a service's stores that who controls the network keeps, outside of their volumes.
//! * [`figures`]: what is measured of links, as services tell it.
//! * [`trace`]: trace context in gRPC metadata.

// They panic where nobody reads any more.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod anchoring;
pub mod attachment;
pub mod authority;
mod chain;
pub mod client;
pub mod compute;
pub mod dial;
pub mod disk;
pub mod duplex;
pub mod failpoint;
pub mod fault;
pub mod figures;
pub mod handover;
pub mod health;
pub mod launch;
pub mod name;
pub mod pki;
pub mod sealing;
pub mod server;
pub mod shutdown;
pub mod tls;
pub mod trace;

pub use authority::Role;
pub use chain::{Chain, chain};
pub use client::{ConnectError, Connector, Endpoint, connect};
pub use duplex::Duplex;
pub use durable::{files, log};
pub use health::Health;
pub use server::{Running, Server};
pub use shutdown::Shutdown;
pub use tls::{AllowList, Credentials, PeerIdentity, TlsError};

/// Largest gRPC message that is sent or taken.
pub const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// 32 bytes of the system's randomness.
pub fn entropy() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Applies [`MESSAGE_LIMIT_BYTES`] to a generated client or server, in both directions.
#[macro_export]
macro_rules! limited {
    ($stub:expr) => {
        $stub
            .max_decoding_message_size($crate::MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size($crate::MESSAGE_LIMIT_BYTES)
    };
}
