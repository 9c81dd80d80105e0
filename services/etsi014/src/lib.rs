//! ETSI GS QKD 014 V1.1.1: key delivery to applications over HTTPS.
//!
//! [`Server`] takes connections of SAEs that prove by certificate who they are, and answers them from a
//! [`KeySupply`](supply::KeySupply), the one seam to the key store. [`health`] tells probes and scrapers about it over plain HTTP. [`client`] is
//! the other end.
//!
//! HTTP/1.1 is read and written here and not by a library: a library repairs what this interface must refuse (a message
//! that says its length twice), answers some mistakes without the JSON that clients parse, and keeps copies of what it
//! sends. Heads are split by `httparse`.

mod access;
pub mod client;
mod connection;
mod counters;
mod deadline;
mod handler;
mod head;
pub mod health;
mod http_stream;
mod limits;
mod offline;
mod reply;
mod request;
mod route;
mod server;
mod shape;
pub mod supply;
mod tls;
mod verifier;

pub use access::{Access, AccessList, Fingerprint, FingerprintError, Naming};
pub use counters::{Counters, Counts, RequestCount};
pub use limits::Limits;
pub use offline::answer;
pub use reply::message;
pub use route::Route;
pub use server::{Running, Server};
pub use tls::{CredentialFiles, Credentials, TlsError};
