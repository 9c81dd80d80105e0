//! Who a certificate speaks for, and which SAEs this KME serves.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::reply::Problem;
use crate::supply::SaeId;

/// SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// Not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits, with or without colons between two of them")]
pub struct FingerprintError;

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: Option<Vec<u8>> =
            text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or(FingerprintError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

/// The SAEs that a KME serves.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub saes: HashSet<SaeId>,
    /// Certificates that speak for another SAE than the one that they name, or that name none.
    pub fingerprints: HashMap<Fingerprint, SaeId>,
}

impl Access {
    pub fn new(saes: impl IntoIterator<Item = SaeId>) -> Self {
        Self { saes: saes.into_iter().collect(), fingerprints: HashMap::new() }
    }
}

/// An [`Access`] that can be replaced while servers run; also connections that exist follow it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct AccessList(Arc<RwLock<Arc<Access>>>);

impl AccessList {
    pub fn new(access: Access) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(access))))
    }

    pub fn replace(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    pub fn current(&self) -> Arc<Access> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a client's certificate says for which SAE it speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// In a URI of the scheme `sae`, and nowhere else. So does the authority of a topology name applications; its other
    /// certificates are services', whose names are DNS names and common names.
    #[default]
    SaeUri,
    /// In the first usable name: a URI, one of the scheme `sae` before others, then a DNS name, then the common name.
    /// For an authority that certifies applications alone.
    AnyName,
}

/// What of a client's certificate outlives the handshake.
#[derive(Clone, Debug)]
pub(super) struct Certified {
    fingerprint: Fingerprint,
    /// The SAE that the certificate names, if it names one.
    named: Option<SaeId>,
}

/// Counts the connections of each client, by the name in its certificate, or by the certificate where it names nobody.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<HashMap<String, usize>>);

/// One connection that counts until it is dropped.
#[derive(Debug)]
pub(super) struct Present {
    all: Arc<Presence>,
    name: String,
}

impl Presence {
    /// Counts one more, unless there are `limit` of this client.
    pub(super) fn enter(self: &Arc<Self>, certified: &Certified, limit: usize) -> Option<Present> {
        let name = match &certified.named {
            Some(sae) => sae.to_string(),
            None => certified.fingerprint.to_string(),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.clone()).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Present { all: self.clone(), name })
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

/// The certificate is outside of its time, or not readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate is not valid now")]
pub(super) struct Unfit;

impl Certified {
    /// Of a client without a certificate, where there is no TLS that would bring one.
    pub(super) fn uncertified(sae: SaeId) -> Self {
        Self { fingerprint: Fingerprint([0; 32]), named: Some(sae) }
    }

    /// Resumed sessions bring the certificate of their first handshake along, unchecked, so that its time is checked
    /// here.
    pub(super) fn by(certificate: &CertificateDer<'_>, naming: Naming) -> Result<Self, Unfit> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| Unfit)?;
        if !parsed.validity().is_valid() {
            return Err(Unfit);
        }
        Ok(Self { fingerprint: Fingerprint::of(certificate), named: name_in(&parsed, naming) })
    }
}

fn name_in(certificate: &X509Certificate<'_>, naming: Naming) -> Option<SaeId> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = || alternative.iter().flat_map(|extension| &extension.value.general_names);
    let uris = || {
        names().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
    };
    let mut saes = uris().filter_map(|uri| uri.strip_prefix("sae:"));
    if naming == Naming::SaeUri {
        return saes.find_map(|name| SaeId::new(name).ok());
    }
    let domains = names().filter_map(|name| match name {
        GeneralName::DNSName(domain) => Some(*domain),
        _ => None,
    });
    let commons = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    saes.chain(uris()).chain(domains).chain(commons).find_map(|name| SaeId::new(name).ok())
}

/// The SAE at the other end of a connection, as the list of the moment sees it.
pub(super) struct Caller {
    certified: Certified,
    list: AccessList,
    known: Option<(Arc<Access>, Result<SaeId, &'static str>)>,
}

impl Caller {
    pub(super) fn new(certified: Certified, list: AccessList) -> Self {
        Self { certified, list, known: None }
    }

    pub(super) fn sae(&mut self) -> Result<&SaeId, Problem> {
        let access = self.list.current();
        if !self.known.as_ref().is_some_and(|(from, _)| Arc::ptr_eq(from, &access)) {
            let judged = self.judge(&access);
            self.known = Some((access, judged));
        }
        match &self.known {
            Some((_, Ok(sae))) => Ok(sae),
            Some((_, Err(why))) => Err(Problem::unauthorized(why)),
            None => Err(Problem::unauthorized("the client is not known")),
        }
    }

    fn judge(&self, access: &Access) -> Result<SaeId, &'static str> {
        let mapped = access.fingerprints.get(&self.certified.fingerprint);
        let sae = mapped.or(self.certified.named.as_ref()).ok_or("the client's certificate names no SAE")?;
        if access.saes.contains(sae) { Ok(sae.clone()) } else { Err("this KME does not serve the SAE") }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_with_and_without_colons() {
        let fingerprint = Fingerprint::of(&CertificateDer::from(vec![1, 2, 3]));
        let plain = fingerprint.to_string();
        let pairs: Vec<_> = plain.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        assert_eq!(plain.parse(), Ok(fingerprint));
        assert_eq!(pairs.join(":").to_uppercase().parse(), Ok(fingerprint));
        assert_eq!(plain[1..].parse::<Fingerprint>(), Err(FingerprintError));
        assert_eq!(format!("{plain}0").parse::<Fingerprint>(), Err(FingerprintError));
    }
}
