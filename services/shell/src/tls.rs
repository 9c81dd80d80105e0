//! Mutual TLS 1.3 with peers known by name.
//!
//! A peer is whom its certificate names first, once the chain leads to the topology's authority. A server takes only
//! peers on its [`AllowList`]; a client takes only the one peer it asked for. Addresses prove nothing.

mod accept;
mod credentials;
mod door;
mod open;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

pub use accept::{Incoming, PeerStream, Refusals, listen};
pub use credentials::Credentials;
pub use door::{Door, Guest, Knock, Limits, Refusal, Shaken, TurnedAway, bind};
pub use open::{OpenedStream, handshake};

use crate::authority::Role;
use crate::name::{self, NameError};

/// HTTP/2 is all that is spoken.
const ALPN: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {why}")]
    Content { origin: String, why: String },
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
    #[error("TLS handshake: {0}")]
    Handshake(std::io::Error),
    #[error("the TLS handshake took longer than {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the peer's certificate names `{found}`, expected `{expected}`")]
    WrongPeer { expected: String, found: String },
    #[error("the peer's certificate names nobody")]
    Nameless,
    #[error("the peer does not speak HTTP/2")]
    NoHttp2,
}

/// Who is at the other end of a connection. In the extensions of every request that a [`Server`](crate::Server) serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub name: String,
    pub address: SocketAddr,
}

impl PeerIdentity {
    /// The peer that made a request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, tonic::Status> {
        request.extensions().get::<Self>().ok_or_else(|| tonic::Status::unauthenticated("no peer identity"))
    }
}

/// The names of the peers that a server takes, and what each of them is to it. Clones share the list, so that it can
/// change while the server runs.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    listed: Arc<RwLock<Listed>>,
}

#[derive(Debug, Default)]
struct Listed {
    names: BTreeSet<String>,
    holders: BTreeMap<Role, BTreeSet<String>>,
}

impl AllowList {
    pub fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Self, NameError> {
        let list = Self::default();
        list.set(names)?;
        Ok(list)
    }

    /// The list with holders of a role; a holder that is not on the list cannot connect.
    pub fn with<N: Into<String>>(self, role: Role, names: impl IntoIterator<Item = N>) -> Result<Self, NameError> {
        self.grant(role, names)?;
        Ok(self)
    }

    /// Replaces the list. Connections that exist stay, and what their peers call from now on is refused.
    pub fn set<N: Into<String>>(&self, names: impl IntoIterator<Item = N>) -> Result<(), NameError> {
        let names = checked(names)?;
        self.write().names = names;
        Ok(())
    }

    /// Replaces the holders of a role.
    pub fn grant<N: Into<String>>(&self, role: Role, names: impl IntoIterator<Item = N>) -> Result<(), NameError> {
        let names = checked(names)?;
        self.write().holders.insert(role, names);
        Ok(())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.read().names.contains(name)
    }

    /// Whether a peer is on the list and holds the role.
    pub fn holds(&self, name: &str, role: Role) -> bool {
        let listed = self.read();
        let holds = |role| listed.holders.get(role).is_some_and(|holders| holders.contains(name));
        listed.names.contains(name) && (role == Role::Anyone || holds(&role))
    }

    fn read(&self) -> RwLockReadGuard<'_, Listed> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Listed> {
        self.listed.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<BTreeSet<String>, NameError> {
    let names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
    names.iter().try_for_each(|name| name::check(name))?;
    Ok(names)
}

/// Whom a certificate names: its first alternative DNS name. Says nothing about whether the certificate is genuine.
fn named(certificate: &CertificateDer<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let alternative = parsed.subject_alternative_name().ok()??;
    let first = alternative.value.general_names.iter().find_map(|general| match general {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })?;
    name::check(&first).is_ok().then_some(first)
}
