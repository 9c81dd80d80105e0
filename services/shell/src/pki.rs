//! The certificate authority of a topology and the certificates of its services.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::files;
use crate::name::{self, NameError};

/// How far the clocks of two machines may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
const SERVICE_VALIDITY: Duration = Duration::from_secs(397 * 86_400);
/// A certificate with less than this left is reissued.
const RENEWAL: Duration = Duration::from_secs(30 * 86_400);
/// Common names longer than this are not allowed (RFC 5280, ub-common-name); the full name is in the alternative name.
const COMMON_NAME_CHARS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    Content { path: PathBuf, why: String },
}

/// A certificate and its private key.
pub struct Issued {
    pub name: String,
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The authority that every service of one topology trusts, and nobody else.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    pub fn new(topology: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = authority_params(&common_name(&format!("qkdnet {topology}")));
        set_validity(&mut params, AUTHORITY_VALIDITY);
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads `ca.pem` and `ca.key`.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (authority_path(folder), folder.join("ca.key"));
        let certificate_pem = read(&certificate_path)?;
        let key_pem = Zeroizing::new(read(&key_path)?);
        Self::from_parts(certificate_pem, &key_pem, &certificate_path, &key_path)
    }

    /// Takes the texts of `ca.pem` and `ca.key`.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        Self::from_parts(certificate_pem.to_owned(), key_pem, Path::new("ca.pem"), Path::new("ca.key"))
    }

    /// The private key, for whoever keeps it.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The paths are for what is said of an error.
    fn from_parts(
        certificate_pem: String,
        key_pem: &str,
        certificate_path: &Path,
        key_path: &Path,
    ) -> Result<Self, PkiError> {
        let unreadable = |why: String| PkiError::Content { path: certificate_path.to_owned(), why };
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| PkiError::Content { path: key_path.to_owned(), why: error.to_string() })?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| unreadable(e.to_string()))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unreadable("does not belong to ca.key".to_owned()));
        }
        let subject = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let params = authority_params(subject.ok_or_else(|| unreadable("has no common name".to_owned()))?);
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Writes `ca.pem` and `ca.key`.
    pub fn save(&self, folder: &Path) -> Result<(), PkiError> {
        write(&folder.join("ca.key"), Zeroizing::new(self.issuer.key().serialize_pem()).as_bytes())?;
        self.save_certificate(folder)
    }

    /// Writes `ca.pem` alone, for machines that issue nothing.
    pub fn save_certificate(&self, folder: &Path) -> Result<(), PkiError> {
        write(&authority_path(folder), self.certificate_pem.as_bytes())
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a certificate with which a service may accept and connect.
    pub fn issue(&self, service: &str) -> Result<Issued, PkiError> {
        self.issue_until(service, SERVICE_VALIDITY)
    }

    /// As [`Self::issue`], for a service that clients also reach under other names of hosts.
    pub fn issue_for_hosts(&self, service: &str, hosts: &[String]) -> Result<Issued, PkiError> {
        self.issue_with(service, hosts, SERVICE_VALIDITY)
    }

    /// As [`issue`](Self::issue), for so long from now on.
    pub fn issue_until(&self, service: &str, validity: Duration) -> Result<Issued, PkiError> {
        self.issue_with(service, &[], validity)
    }

    fn issue_with(&self, service: &str, hosts: &[String], validity: Duration) -> Result<Issued, PkiError> {
        name::check(service)?;
        // The service's own name comes first: it is the one by which peers know it.
        let own = [service, name::LOOPBACK, "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(own.into_iter().chain(hosts.iter().cloned()).collect::<Vec<_>>())?;
        params.distinguished_name = distinguished(&common_name(service));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { name: service.to_owned(), certificate_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }

    /// Makes a certificate for an application (SAE): a client that is known by a URI alone, so that no service takes it
    /// for one of its peers.
    pub fn issue_application(&self, sae: &str) -> Result<Issued, PkiError> {
        let uri = rcgen::string::Ia5String::try_from(format!("sae:{sae}"))?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        params.distinguished_name = distinguished(&common_name(sae));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, SERVICE_VALIDITY);
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { name: sae.to_owned(), certificate_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

impl Issued {
    /// Writes `<name>.key` and `<name>.pem`.
    pub fn save(&self, folder: &Path) -> Result<(), PkiError> {
        write(&key_path(folder, &self.name), self.key_pem.as_bytes())?;
        write(&certificate_path(folder, &self.name), self.certificate_pem.as_bytes())
    }
}

/// Sees to it that `folder` holds an authority and a usable certificate for every name: what is there and good for a
/// month is kept, the rest is made.
pub fn prepare(folder: &Path, topology: &str, names: &[String]) -> Result<Authority, PkiError> {
    names.iter().try_for_each(|name| name::check(name))?;
    files::create_private_folder(folder).map_err(|source| PkiError::File { path: folder.to_owned(), source })?;
    let kept = Authority::load(folder).ok().filter(|_| lasts(&authority_path(folder), None));
    let fresh = kept.is_none();
    let authority = match kept {
        Some(authority) => authority,
        None => {
            let authority = Authority::new(topology)?;
            authority.save(folder)?;
            authority
        }
    };
    for name in names {
        let usable = !fresh
            && key_path(folder, name).exists()
            && lasts(&certificate_path(folder, name), Some(&authority.certificate_pem));
        if !usable {
            authority.issue(name)?.save(folder)?;
        }
    }
    Ok(authority)
}

/// Sees to it that `folder/saes` holds a usable certificate for every application.
pub fn prepare_applications(folder: &Path, authority: &Authority, saes: &[String]) -> Result<(), PkiError> {
    let folder = applications_path(folder);
    files::create_private_folder(&folder).map_err(|source| PkiError::File { path: folder.clone(), source })?;
    for sae in saes {
        let usable =
            key_path(&folder, sae).exists() && lasts(&certificate_path(&folder, sae), Some(&authority.certificate_pem));
        if !usable {
            authority.issue_application(sae)?.save(&folder)?;
        }
    }
    Ok(())
}

/// Where the certificates of applications stand.
pub fn applications_path(folder: &Path) -> PathBuf {
    folder.join("saes")
}

/// Where the authority's certificate stands.
pub fn authority_path(folder: &Path) -> PathBuf {
    folder.join("ca.pem")
}

/// Where a service's certificate stands.
pub fn certificate_path(folder: &Path, service: &str) -> PathBuf {
    folder.join(format!("{service}.pem"))
}

/// Where a service's private key stands.
pub fn key_path(folder: &Path, service: &str) -> PathBuf {
    folder.join(format!("{service}.key"))
}

/// Whether the certificate can be read, was signed by the issuer named, and will be valid for some time.
fn lasts(certificate: &Path, issuer_pem: Option<&str>) -> bool {
    std::fs::read_to_string(certificate).is_ok_and(|pem| pem_lasts(&pem, issuer_pem, &[]))
}

/// As the certificates in files are judged before a run: readable, of that issuer, good for a month, and for the hosts.
pub fn pem_lasts(certificate_pem: &str, issuer_pem: Option<&str>, hosts: &[String]) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate_pem.as_bytes()) else { return false };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else { return false };
    if !hosts.iter().all(|host| names_host(&parsed, host)) {
        return false;
    }
    let until = i64::try_from(since_epoch(SystemTime::now() + RENEWAL).as_secs()).unwrap_or(i64::MAX);
    if parsed.validity().not_after.timestamp() < until {
        return false;
    }
    let Some(issuer_pem) = issuer_pem else { return true };
    let Ok(issuer) = CertificateDer::from_pem_slice(issuer_pem.as_bytes()) else { return false };
    let Ok((_, issuer)) = x509_parser::parse_x509_certificate(&issuer) else { return false };
    // Names of authorities repeat from run to run; key identifiers do not.
    authority_key_id(&parsed).is_some_and(|id| Some(id) == subject_key_id(&issuer))
}

fn names_host(certificate: &x509_parser::certificate::X509Certificate<'_>, host: &str) -> bool {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return false };
    alternative.value.general_names.iter().any(|name| matches!(name, GeneralName::DNSName(dns) if *dns == host))
}

fn authority_key_id<'a>(certificate: &'a x509_parser::certificate::X509Certificate<'_>) -> Option<&'a [u8]> {
    use x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier;
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn subject_key_id<'a>(certificate: &'a x509_parser::certificate::X509Certificate<'_>) -> Option<&'a [u8]> {
    use x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier;
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn distinguished(common_name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, common_name);
    distinguished
}

fn common_name(text: &str) -> String {
    text.chars().take(COMMON_NAME_CHARS).collect()
}

fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let (epoch, now) = (rcgen::date_time_ymd(1970, 1, 1), since_epoch(SystemTime::now()));
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + validity;
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    files::write_durably(path, content).map_err(|source| PkiError::File { path: path.to_owned(), source })
}
