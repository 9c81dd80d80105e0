//! TLS of the front end: 1.2 and 1.3, clients with a certificate of the authority alone, sessions resumed by ticket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::verifier::Remembering;

/// Largest credential file that is read.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// How often files are looked at for a change.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// HTTP/1.1 is all that is spoken.
pub(super) const ALPN: &[u8] = b"http/1.1";

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {why}")]
    Content { origin: String, why: String },
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
}

/// The one implementation of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What an end proves itself with and whom it trusts, from PEM.
pub(super) struct Material {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Material {
    pub(super) fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8], origin: &str) -> Result<Self, TlsError> {
        let content = |why: String| TlsError::Content { origin: origin.to_owned(), why };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority) {
            roots.add(root.map_err(|error| content(format!("authority: {error}")))?)?;
        }
        if roots.is_empty() {
            return Err(content("authority: no certificate in it".to_owned()));
        }
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| content(format!("certificate: {error}")))?;
        if chain.is_empty() {
            return Err(content("certificate: none in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| content(format!("key: {error}")))?;
        Ok(Self { roots: Arc::new(roots), chain, key })
    }

    fn into_server(self) -> Result<Arc<ServerConfig>, TlsError> {
        let refused =
            |why: &dyn std::fmt::Display| TlsError::Content { origin: "authority".to_owned(), why: why.to_string() };
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots, provider())
            .build()
            .map_err(|error| refused(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(Arc::new(Remembering::new(verifier)))
            .with_single_cert(self.chain, self.key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Tickets hold the session, so that the server holds none. Their key is made with this configuration: what was
        // resumed from older credentials no longer works.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        // Every connection brings one for the next.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// Three PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Certificates of the authorities that are trusted.
    pub authority: PathBuf,
    /// The own certificate, and those between it and an authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl CredentialFiles {
    pub(super) fn load(&self) -> Result<Material, TlsError> {
        let (authority, certificate) = (read(&self.authority)?, read(&self.certificate)?);
        let key = Zeroizing::new(read(&self.key)?);
        Material::from_pem(&authority, &certificate, &key, &self.certificate.display().to_string())
    }

    fn stamps(&self) -> std::io::Result<[(SystemTime, u64); 3]> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path)?;
            Ok::<_, std::io::Error>((metadata.modified()?, metadata.len()))
        };
        Ok([stamp(&self.authority)?, stamp(&self.certificate)?, stamp(&self.key)?])
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT_BYTES {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB")));
    }
    std::fs::read(path).map_err(failed)
}

/// What a KME proves itself with, and the authorities whose clients it takes. Clones share it.
#[derive(Clone)]
pub struct Credentials(Arc<Mutex<Current>>);

struct Current {
    files: Option<CredentialFiles>,
    seen: Option<[(SystemTime, u64); 3]>,
    looked: Instant,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("files", &self.lock().files).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads PEM files. They are read again after one of them has changed; files that cannot be used leave the last
    /// good ones in force.
    pub fn from_files(files: CredentialFiles) -> Result<Self, TlsError> {
        let seen = files.stamps().ok();
        let config = files.load()?.into_server()?;
        Ok(Self::new(Some(files), seen, config))
    }

    /// Takes PEM text.
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Self, TlsError> {
        let material = Material::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes(), "credentials")?;
        Ok(Self::new(None, None, material.into_server()?))
    }

    fn new(files: Option<CredentialFiles>, seen: Option<[(SystemTime, u64); 3]>, config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(Mutex::new(Current { files, seen, looked: Instant::now(), config })))
    }

    /// The newest that work.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.lock();
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            current.look();
        }
        current.config.clone()
    }

    /// Reads the files again now if they have changed, without waiting for a connection to ask for it.
    pub fn refresh(&self) {
        self.lock().look();
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn look(&mut self) {
        let Some(files) = &self.files else { return };
        // A file in the middle of being replaced is looked at again later.
        let Ok(stamps) = files.stamps() else { return };
        if self.seen == Some(stamps) {
            return;
        }
        self.seen = Some(stamps);
        match files.load().and_then(Material::into_server) {
            Ok(config) => {
                tracing::info!("certificate read again");
                self.config = config;
            }
            Err(error) => tracing::warn!(%error, "new certificate cannot be used; the last one stays"),
        }
    }
}
