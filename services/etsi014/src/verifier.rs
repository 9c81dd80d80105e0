//! Clients' certificates, checked once in a while and not at every connection.
//!
//! A client that connects again for every request brings the same certificate each time, and whether an authority has
//! signed it does not change from one second to the next; that check costs as much as all else that the server
//! computes for a connection but its own signature. What the client signs to prove that it has the key is checked
//! every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// How long a check counts, in seconds; a certificate that runs out meanwhile is found at the next look.
const CHECK_COUNTS_S: u64 = 60;
/// Certificates that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// Remembers what another verifier found good. What it refuses is asked of it again.
#[derive(Debug)]
pub(super) struct Remembering {
    verifier: Arc<dyn ClientCertVerifier>,
    /// By digest of the whole chain: when it was checked, in seconds.
    checked: Mutex<HashMap<[u8; 32], u64>>,
}

impl Remembering {
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self { verifier, checked: Mutex::default() }
    }

    fn knows(&self, chain: &[u8; 32], now_s: u64) -> bool {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.get(chain).is_some_and(|at_s| (*at_s..*at_s + CHECK_COUNTS_S).contains(&now_s))
    }

    fn remember(&self, chain: [u8; 32], now_s: u64) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= REMEMBERED_MAX {
            checked.clear();
        }
        checked.insert(chain, now_s);
    }
}

/// Lengths before parts, so that no two chains have one digest.
fn digest(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for certificate in std::iter::once(end_entity).chain(intermediates) {
        digest.update((certificate.len() as u64).to_le_bytes());
        digest.update(certificate);
    }
    digest.finalize().into()
}

impl ClientCertVerifier for Remembering {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (chain, now_s) = (digest(end_entity, intermediates), now.as_secs());
        if self.knows(&chain, now_s) {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        self.remember(chain, now_s);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.verifier.requires_raw_public_keys()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// A certificate that is valid for a hundred seconds from 1,000,000,000 on, and a verifier that trusts it.
    fn short_lived() -> (CertificateDer<'static>, Remembering) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issued = authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let mut params = rcgen::CertificateParams::new(["sae".to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let time = |seconds: u64| (std::time::UNIX_EPOCH + Duration::from_secs(seconds)).into();
        (params.not_before, params.not_after) = (time(1_000_000_000), time(1_000_000_100));
        let certificate = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issued.der().clone()).unwrap();
        let provider = super::super::tls::provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        (certificate.der().clone(), Remembering::new(verifier))
    }

    #[test]
    fn a_certificate_is_checked_anew_after_a_while_and_found_to_have_run_out() {
        let (certificate, verifier) = short_lived();
        let good = |seconds: u64| verifier.verify_client_cert(&certificate, &[], at(seconds)).is_ok();
        assert!(!good(999_999_999), "before its time");
        assert!(good(1_000_000_050) && verifier.knows(&digest(&certificate, &[]), 1_000_000_051));
        assert!(good(1_000_000_109), "the check of a minute ago still counts");
        assert!(!good(1_000_000_110), "and no longer");
        assert!(!good(999_999_999), "time that runs backwards is no excuse");
    }

    #[test]
    fn what_is_refused_is_not_remembered_and_another_chain_is_not_the_same() {
        let (certificate, verifier) = short_lived();
        let (other, _) = short_lived();
        assert!(verifier.verify_client_cert(&other, &[], at(1_000_000_001)).is_err());
        assert!(verifier.verify_client_cert(&other, &[], at(1_000_000_002)).is_err());
        verifier.verify_client_cert(&certificate, &[], at(1_000_000_003)).unwrap();
        assert!(!verifier.knows(&digest(&certificate, std::slice::from_ref(&other)), 1_000_000_004));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (_, verifier) = short_lived();
        for number in 0..3 * REMEMBERED_MAX as u64 {
            let mut chain = [0; 32];
            chain[..8].copy_from_slice(&number.to_le_bytes());
            verifier.remember(chain, 1);
        }
        assert!(verifier.checked.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
