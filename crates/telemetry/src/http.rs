//! The HTTP/1.1 under OTLP: one connection to one collector, opened when there is something to say, kept while it lasts.
//!
//! Exporters call from threads without a runtime; the work is done on the one that telemetry was started in.

use std::fmt::{Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_http::HttpError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::collector::pem;
use crate::init::TelemetryError;
use crate::settings::Target;

/// Largest answer that is taken: it says which spans were refused, and why.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;

/// Speaks to one collector.
pub(crate) struct HttpClient {
    runtime: Handle,
    shared: Arc<Shared>,
}

struct Shared {
    /// Address and name of the collector.
    authority: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    timeout: Duration,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Debug for HttpClient {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpClient({})", self.shared.authority)
    }
}

impl HttpClient {
    pub fn new(target: &Target) -> Result<Self, TelemetryError> {
        let uri: Uri = target.endpoint.parse().map_err(|_| bad(&format!("{} is no address", target.endpoint)))?;
        let authority = uri.authority().ok_or_else(|| bad(&format!("{} names no host", target.endpoint)))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if target.tls { 443 } else { 80 });
        // A name and password in an address are no part of the header.
        let authority = authority.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let tls = if target.tls { Some(connector(target)?) } else { None };
        let shared = Shared { authority, host, port, tls, timeout: target.timeout, idle: Mutex::new(None) };
        Ok(Self { runtime: Handle::current(), shared: Arc::new(shared) })
    }
}

fn bad(why: &str) -> TelemetryError {
    TelemetryError::Collector(why.to_owned())
}

fn connector(target: &Target) -> Result<TlsConnector, TelemetryError> {
    let mut roots = rustls::RootCertStore::empty();
    match &target.certificate {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| bad(&format!("{}: {error}", file.1)))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&target.client_certificate, &target.client_key) {
        (Some(certificate), Some(key)) => {
            let read = PrivateKeyDer::from_pem_slice(&pem(key)?);
            let key = read.map_err(|error| bad(&format!("{}: {error}", key.1)))?;
            let identified = config.with_client_auth_cert(certificates(certificate)?, key);
            identified.map_err(|error| bad(&format!("{}: {error}", certificate.1)))?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(file: &(String, String)) -> Result<Vec<CertificateDer<'static>>, TelemetryError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(file)?).collect();
    read.map_err(|error| bad(&format!("{}: {error}", file.1)))
}

#[tonic::async_trait]
impl opentelemetry_http::HttpClient for HttpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let shared = self.shared.clone();
        let sent = self.runtime.spawn(async move {
            let patience = shared.timeout;
            let sent = tokio::time::timeout(patience, shared.send(request)).await;
            sent.map_err(|_| HttpError::from(format!("no answer within {} ms", patience.as_millis())))?
        });
        sent.await?
    }
}

impl Shared {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(HOST, HeaderValue::from_str(&self.authority)?);
        parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        let mut idle = self.idle.lock().await;
        let mut connection = match idle.take().filter(SendRequest::is_ready) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = connection.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await?.to_bytes();
        *idle = Some(connection);
        Ok(Response::from_parts(parts, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone())?;
                open(tls.connect(name, stream).await?).await
            }
            None => open(stream).await,
        }
    }
}

async fn open<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, or when the collector closes it; the next request then opens another one.
    tokio::spawn(connection);
    sender.ready().await?;
    Ok(sender)
}
