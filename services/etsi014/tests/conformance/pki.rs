//! An authority, and certificates of every shape, in a folder of their own.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

pub struct Pki {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub authority_pem: String,
}

/// Names of a client's certificate.
#[derive(Clone, Debug, Default)]
pub struct Names<'a> {
    pub uris: &'a [&'a str],
    pub domains: &'a [&'a str],
    pub common: Option<&'a str>,
}

pub struct Identity {
    pub certificate_pem: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority_pem = params.self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &authority_pem).unwrap();
        Self { folder, issuer: Issuer::new(params, key), authority_pem }
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for 127.0.0.1.
    pub fn server(&self, file: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["kme-a".to_owned(), "localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
        params.distinguished_name = common_name("kme-a");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(file, params, &KeyPair::generate().unwrap())
    }

    /// A certificate whose common name is the SAE.
    pub fn sae(&self, name: &str) -> Identity {
        self.client(name, &Names { common: Some(name), ..Names::default() })
    }

    pub fn client(&self, file: &str, names: &Names<'_>) -> Identity {
        self.issue(file, client_params(names), &KeyPair::generate().unwrap())
    }

    /// One that was valid for an hour, until an hour ago.
    pub fn expired(&self, name: &str) -> Identity {
        let mut params = client_params(&Names { common: Some(name), ..Names::default() });
        params.not_before = (SystemTime::now() - Duration::from_secs(7200)).into();
        params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
        self.issue(name, params, &KeyPair::generate().unwrap())
    }

    /// One that is valid for so much longer.
    pub fn expiring(&self, name: &str, left: Duration) -> Identity {
        let mut params = client_params(&Names { common: Some(name), ..Names::default() });
        params.not_before = (SystemTime::now() - Duration::from_secs(7200)).into();
        params.not_after = (SystemTime::now() + left).into();
        self.issue(name, params, &KeyPair::generate().unwrap())
    }

    /// One for a key that comes from elsewhere, kept in the form in which it came.
    pub fn for_key(&self, name: &str, key_pem: &str, key: &KeyPair) -> Identity {
        let params = client_params(&Names { common: Some(name), ..Names::default() });
        let identity = self.issue(name, params, key);
        std::fs::write(&identity.key, key_pem).unwrap();
        identity
    }

    fn issue(&self, file: &str, params: CertificateParams, key: &KeyPair) -> Identity {
        let certificate_pem = params.signed_by(key, &self.issuer).unwrap().pem();
        let path = |ending: &str| self.folder.path().join(format!("{}.{ending}", file.replace('/', "_")));
        let identity = Identity { certificate_pem, certificate: path("pem"), key: path("key") };
        std::fs::write(&identity.certificate, &identity.certificate_pem).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

fn client_params(names: &Names<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = names.common.map_or_else(DistinguishedName::new, common_name);
    let uris = names.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
    let domains = names.domains.iter().map(|domain| SanType::DnsName((*domain).try_into().unwrap()));
    // Domains stand first in the certificate: that URIs count first must not depend on the order.
    params.subject_alt_names = domains.chain(uris).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
