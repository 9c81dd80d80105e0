//! A client of ETSI GS QKD 014, for people, scripts and load tests.

mod json;
mod pool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use rustls::ClientConfig;
use rustls::client::Resumption;
use zeroize::Zeroizing;

pub use self::json::{Delivered, KmeStatus, NewKeys};
use self::pool::Pool;
use super::tls::{ALPN, CredentialFiles, Material, TlsError, provider};
use crate::supply::{KeyId, SaeId};

/// Largest answer that is read.
const ANSWER_LIMIT_BYTES: usize = 16 << 20;

/// Why a KME gave no answer, or not the one wished for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{0}` is not the https URL of a KME")]
    Url(String),
    #[error(transparent)]
    Credentials(#[from] TlsError),
    #[error("cannot connect to {authority}: {source}")]
    Connect { authority: String, source: std::io::Error },
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The KME answered with an error; `message` is its own, empty where it gave none.
    #[error("the KME answered {status}: {message}{}", json::shown(.details))]
    Refused { status: u16, message: String, details: Vec<serde_json::Value>, retry_after_s: Option<u64> },
    #[error("the KME's answer is not what the standard says: {0}")]
    Answer(&'static str),
}

impl ClientError {
    /// The HTTP status, where the KME answered with an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The KME's own words.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Refused { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// How to reach a KME and how to prove who asks.
#[derive(Clone, Debug)]
pub struct Builder {
    url: String,
    files: CredentialFiles,
    time_limit: Duration,
    keep_alive: bool,
    resume: bool,
}

impl Builder {
    /// Time for a request, connecting included. 10 s unless said otherwise.
    pub fn time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// Whether connections serve more than one request. They do unless said otherwise.
    pub fn keep_alive(self, keep_alive: bool) -> Self {
        Self { keep_alive, ..self }
    }

    /// Whether TLS sessions are resumed. They are unless said otherwise.
    pub fn resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Reads the files. Connects to nobody yet.
    pub fn build(self) -> Result<Client, ClientError> {
        let invalid = || ClientError::Url(self.url.clone());
        let url: Uri = self.url.parse().map_err(|_| invalid())?;
        let authority = url.authority().filter(|_| url.scheme_str() == Some("https")).ok_or_else(invalid)?;
        let Material { roots, chain, key } = self.files.load()?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::from)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(TlsError::from)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        if !self.resume {
            config.resumption = Resumption::disabled();
        }
        let prefix = url.path().trim_end_matches('/').to_owned();
        let pool = Pool::new(authority, Arc::new(config), self.keep_alive).ok_or_else(invalid)?;
        Ok(Client { pool, prefix, time_limit: self.time_limit })
    }
}

/// An SAE's view of its KME. Any number of requests may run at a time, each on a connection of its own.
#[derive(Debug)]
pub struct Client {
    pool: Pool,
    prefix: String,
    time_limit: Duration,
}

impl Client {
    /// `url` is `https://host[:port]`, `certificate` and `key` are those of the SAE, `authority` the one that the KME's
    /// certificate is from. All three are PEM files.
    pub fn builder(
        url: impl Into<String>,
        authority: impl Into<PathBuf>,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Builder {
        let files = CredentialFiles { authority: authority.into(), certificate: certificate.into(), key: key.into() };
        Builder { url: url.into(), files, time_limit: Duration::from_secs(10), keep_alive: true, resume: true }
    }

    /// Get status: what there is for the caller as master and `slave`.
    pub async fn status(&self, slave: &SaeId) -> Result<KmeStatus, ClientError> {
        let answer = self.ask(Method::GET, slave, "status", Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|_| ClientError::Answer("no status"))
    }

    /// Get key: new keys that the caller shares with `slave`.
    pub async fn get_keys(&self, slave: &SaeId, request: &NewKeys) -> Result<Vec<Delivered>, ClientError> {
        let body = serde_json::to_vec(request).map_err(|_| ClientError::Answer("the request cannot be written"))?;
        let answer = self.ask(Method::POST, slave, "enc_keys", body.into()).await?;
        json::delivered(&answer)
    }

    /// Get key with key IDs: the keys that `master` was given under these IDs.
    pub async fn get_keys_with_ids(&self, master: &SaeId, ids: &[KeyId]) -> Result<Vec<Delivered>, ClientError> {
        let body = json::key_ids(ids);
        let answer = self.ask(Method::POST, master, "dec_keys", body.into()).await?;
        json::delivered(&answer)
    }

    async fn ask(
        &self,
        method: Method,
        peer: &SaeId,
        what: &'static str,
        body: Bytes,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let target = format!("{}/api/v1/keys/{}/{what}", self.prefix, json::encode(peer.as_str()));
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, self.pool.host());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|_| ClientError::Url(self.prefix.clone()))?;
        tokio::time::timeout(self.time_limit, self.exchange(request))
            .await
            .map_err(|_| ClientError::TimedOut(self.time_limit))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let (response, connection) = self.pool.send(request).await?;
        let (head, body) = response.into_parts();
        let collected = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await;
        let bytes = collected.map_err(|_| ClientError::Answer("the body is cut short or too large"))?.to_bytes();
        self.pool.give_back(connection);
        if head.status == StatusCode::OK {
            return Ok(Zeroizing::new(bytes.to_vec()));
        }
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_s = retry_after.and_then(|text| text.parse().ok());
        let (message, details) = json::error(&bytes);
        Err(ClientError::Refused { status: head.status.as_u16(), message, details, retry_after_s })
    }
}
