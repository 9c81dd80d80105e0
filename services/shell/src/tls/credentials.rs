//! A service's certificate, key and trust, read again when their files change.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::{ALPN, AllowList, TlsError, named, verify};
use crate::{name, pki};

/// Largest credential file that is read.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// What a service proves itself with and trusts. Clones share it.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
}

struct Shared {
    files: Option<Files>,
    current: Mutex<Current>,
}

struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

struct Current {
    seen: Option<[Stamp; 3]>,
    loaded: Arc<Loaded>,
}

/// One generation of credentials.
pub(super) struct Loaded {
    name: String,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client: Arc<ClientConfig>,
}

/// Tells a changed file from an unchanged one, also if it was replaced within one tick of the clock.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads `ca.pem`, `<service>.pem` and `<service>.key` as [`pki`] writes them.
    pub fn from_folder(folder: &Path, service: &str) -> Result<Self, TlsError> {
        name::check(service)?;
        Self::from_files(
            &pki::authority_path(folder),
            &pki::certificate_path(folder, service),
            &pki::key_path(folder, service),
        )
    }

    /// Reads PEM files. They are read again, at the next handshake, whenever one of them has changed; files that
    /// cannot be used leave the last good ones in force.
    pub fn from_files(authority: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { authority: authority.to_owned(), certificate: certificate.to_owned(), key: key.to_owned() };
        let seen = files.stamps().ok();
        let loaded = files.load()?;
        let current = Mutex::new(Current { seen, loaded: Arc::new(loaded) });
        Ok(Self { shared: Arc::new(Shared { files: Some(files), current }) })
    }

    /// Takes PEM text, for tests and for services that get theirs otherwise.
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Self, TlsError> {
        let loaded = load(authority.as_bytes(), certificate.as_bytes(), key.as_bytes(), "credentials")?;
        let current = Mutex::new(Current { seen: None, loaded: Arc::new(loaded) });
        Ok(Self { shared: Arc::new(Shared { files: None, current }) })
    }

    /// The service that the certificate names.
    pub fn name(&self) -> String {
        self.lock().loaded.name.clone()
    }

    pub(super) fn client_config(&self) -> Arc<ClientConfig> {
        self.current().client.clone()
    }

    /// The newest credentials that work.
    pub(super) fn current(&self) -> Arc<Loaded> {
        let mut current = self.lock();
        let Some(files) = &self.shared.files else { return current.loaded.clone() };
        match files.stamps() {
            Ok(stamps) if current.seen != Some(stamps) => {
                current.seen = Some(stamps);
                match files.load() {
                    Ok(loaded) => {
                        tracing::info!(service = loaded.name, "certificate read again");
                        current.loaded = Arc::new(loaded);
                    }
                    Err(error) => tracing::warn!(%error, "new certificate cannot be used; the last one stays"),
                }
            }
            // A file in the middle of being replaced; the next handshake looks again.
            _ => {}
        }
        current.loaded.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    pub(super) fn server_config(&self, allow: &AllowList) -> Result<ServerConfig, TlsError> {
        let verifier = verify::NamedClientVerifier::new(self.roots.clone(), allow.clone())
            .map_err(|error| TlsError::Content { origin: "authority".to_owned(), why: error.to_string() })?;
        let mut config = ServerConfig::builder_with_provider(verify::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the check of certificate and name.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl Files {
    fn stamps(&self) -> std::io::Result<[Stamp; 3]> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path)?;
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            Ok::<_, std::io::Error>(Stamp { inode: metadata.ino(), length: metadata.len(), modified })
        };
        Ok([stamp(&self.authority)?, stamp(&self.certificate)?, stamp(&self.key)?])
    }

    fn load(&self) -> Result<Loaded, TlsError> {
        let (authority, certificate) = (read(&self.authority)?, read(&self.certificate)?);
        let key = Zeroizing::new(read(&self.key)?);
        load(&authority, &certificate, &key, &self.certificate.display().to_string())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT_BYTES {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB")));
    }
    std::fs::read(path).map_err(failed)
}

fn load(authority: &[u8], certificate: &[u8], key: &[u8], origin: &str) -> Result<Loaded, TlsError> {
    let content = |why: String| TlsError::Content { origin: origin.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority) {
        roots.add(root.map_err(|error| content(format!("authority: {error}")))?)?;
    }
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(format!("certificate: {error}")))?;
    let name = chain.first().and_then(named).ok_or_else(|| content("the certificate names no service".to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| content(format!("key: {error}")))?;
    let roots = Arc::new(roots);
    let mut client = ClientConfig::builder_with_provider(verify::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Loaded { name, roots, chain, key, client: Arc::new(client) })
}
