//! Names of sites, identities of transfers, and paths. What has one of these types has been checked.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Malformed;

/// The longest name of a site, as in a topology.
pub const SITE_NAME_BYTES_MAX: usize = 63;
/// The most hops a path may have.
pub const HOPS_MAX: usize = 16;

/// A site: lower-case letters, digits and inner hyphens. Cheap to clone, because every message carries several.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteName(Arc<str>);

impl SiteName {
    /// Checks a name that comes from outside.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let bytes = name.as_bytes();
        let edges = [bytes.first(), bytes.last()];
        let sound = bytes.len() <= SITE_NAME_BYTES_MAX
            && bytes.iter().all(inner)
            && edges.iter().all(|edge| edge.is_some_and(|byte| *byte != b'-'));
        if sound { Ok(Self(name.into())) } else { Err(Malformed::SiteName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SiteName {
    type Error = Malformed;

    fn try_from(name: String) -> Result<Self, Malformed> {
        Self::parse(&name)
    }
}

impl From<SiteName> for String {
    fn from(name: SiteName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of one transfer over one path: 16 random bytes that its origin chose. Shares of one key are
/// transfers of their own; their group bears the identity of the first of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransferId(pub [u8; 16]);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Where fresh transfer identities come from. The caller answers for their randomness: two transfers of one
/// network must never bear the same identity.
pub trait IdSource {
    /// An identity that was never given before.
    fn transfer_id(&mut self) -> TransferId;
}

impl<F: FnMut() -> [u8; 16]> IdSource for F {
    fn transfer_id(&mut self) -> TransferId {
        TransferId(self())
    }
}

/// The sites of a transfer from origin to target: at least two, at most [`HOPS_MAX`] hops, none twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<SiteName>", into = "Vec<SiteName>")]
pub struct Path(Arc<[SiteName]>);

impl Path {
    /// Checks a list of sites that comes from outside.
    pub fn new(sites: Vec<SiteName>) -> Result<Self, Malformed> {
        if sites.len() < 2 {
            return Err(Malformed::PathTooShort);
        }
        if sites.len() > HOPS_MAX + 1 {
            return Err(Malformed::PathTooLong);
        }
        let twice = sites.iter().enumerate().any(|(at, site)| sites.iter().skip(at + 1).any(|later| later == site));
        if twice { Err(Malformed::Loop) } else { Ok(Self(sites.into())) }
    }

    /// All sites in order.
    pub fn sites(&self) -> &[SiteName] {
        &self.0
    }

    /// The site at a position, if the path is that long.
    pub fn get(&self, position: usize) -> Option<&SiteName> {
        self.0.get(position)
    }

    /// The site that made the key.
    pub fn origin(&self) -> &SiteName {
        &self.0[0]
    }

    /// The site that the key is for.
    pub fn target(&self) -> &SiteName {
        &self.0[self.0.len() - 1]
    }

    /// The number of hops.
    pub fn hops(&self) -> usize {
        self.0.len() - 1
    }

    /// The sites between origin and target: those that have to be trusted.
    pub fn between(&self) -> &[SiteName] {
        &self.0[1..self.0.len() - 1]
    }

    /// The links of the path, in order.
    pub fn links(&self) -> impl Iterator<Item = (&SiteName, &SiteName)> {
        self.0.iter().zip(self.0.iter().skip(1))
    }
}

impl TryFrom<Vec<SiteName>> for Path {
    type Error = Malformed;

    fn try_from(sites: Vec<SiteName>) -> Result<Self, Malformed> {
        Self::new(sites)
    }
}

impl From<Path> for Vec<SiteName> {
    fn from(path: Path) -> Self {
        path.0.to_vec()
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, site) in self.0.iter().enumerate() {
            write!(f, "{}{site}", if at == 0 { "" } else { "-" })?;
        }
        Ok(())
    }
}
