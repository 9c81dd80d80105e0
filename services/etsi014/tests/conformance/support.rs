//! A server with its SAEs, and a client that sends bytes as they are given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use etsi014::client::Client;
use etsi014::supply::SaeId;
use etsi014::{Access, AccessList, Credentials, Limits, Naming, Running, Server};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::fake::Fake;
use super::pki::{Identity, Pki};

/// However slow the machine, nothing here takes so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const SAES: [&str; 4] = ["sae-a", "sae-b", "sae-c", "SAE A/1 é"];

pub struct Site {
    pub pki: Pki,
    pub supply: Arc<Fake>,
    pub access: AccessList,
    pub server: Running,
    pub stop: CancellationToken,
    pub url: String,
    pub kme: Identity,
}

pub fn sae(name: &str) -> SaeId {
    SaeId::new(name).unwrap()
}

pub async fn site() -> Site {
    site_with(Limits::default()).await
}

pub async fn site_with(limits: Limits) -> Site {
    let pki = Pki::new();
    let kme = pki.server("kme-a");
    let credentials = credentials(&pki, &kme);
    site_of(pki, kme, credentials, limits).await
}

pub fn credentials(pki: &Pki, kme: &Identity) -> Credentials {
    let key = std::fs::read_to_string(&kme.key).unwrap();
    Credentials::from_pem(&pki.authority_pem, &kme.certificate_pem, &key).unwrap()
}

/// A site that takes certificates of every shape.
pub async fn site_of(pki: Pki, kme: Identity, credentials: Credentials, limits: Limits) -> Site {
    site_naming(pki, kme, credentials, limits, Naming::AnyName).await
}

pub async fn site_naming(pki: Pki, kme: Identity, credentials: Credentials, limits: Limits, naming: Naming) -> Site {
    super::telemetry::listen();
    let (supply, stop) = (Arc::new(Fake::default()), CancellationToken::new());
    let access = AccessList::new(Access::new(SAES.map(sae)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::new(supply.clone(), credentials, access.clone()).naming(naming).limits(limits);
    let server = server.start(listener, stop.clone()).unwrap();
    let url = format!("https://{}", server.address());
    Site { pki, supply, access, server, stop, url, kme }
}

impl Site {
    pub fn client(&self, name: &str) -> Client {
        let identity = self.pki.sae(name);
        Client::builder(&self.url, self.pki.authority(), identity.certificate, identity.key).build().unwrap()
    }

    /// A connection of an SAE with a certificate of its own.
    pub async fn connect(&self, name: &str) -> Raw {
        self.connect_as(&self.pki.sae(name)).await
    }

    pub async fn connect_as(&self, identity: &Identity) -> Raw {
        self.dial(config(&self.pki, Some(identity), &rustls::version::TLS13)).await.unwrap()
    }

    pub async fn dial(&self, config: Arc<ClientConfig>) -> std::io::Result<Raw> {
        let stream = TcpStream::connect(self.server.address()).await?;
        let stream = TlsConnector::from(config).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await?;
        Ok(Raw { stream, rest: vec![] })
    }

    /// One request of `sae-a` on a connection of its own.
    pub async fn ask(&self, method: &str, target: &str, body: &str) -> Response {
        self.connect("sae-a").await.ask(method, target, body).await
    }

    pub async fn stopped(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.server.finished()).await.unwrap();
    }
}

pub fn config(pki: &Pki, identity: Option<&Identity>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.authority_pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// A TLS connection that sends what it is told to.
pub struct Raw {
    pub stream: TlsStream<TcpStream>,
    rest: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}")).to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Raw {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    pub async fn ask(&mut self, method: &str, target: &str, body: &str) -> Response {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: kme-a\r\n{length}\r\n{body}")).await.unwrap();
        self.response_to(method).await
    }

    /// What comes next. An answer is awaited; a closed connection fails the test.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    pub async fn response_to(&mut self, method: &str) -> Response {
        tokio::time::timeout(PATIENCE, self.read_response(method == "HEAD")).await.expect("no answer").expect("closed")
    }

    /// Whether the server closes the connection without another byte.
    pub async fn closed(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut [0; 1])).await.expect("still open");
        self.rest.is_empty() && read.unwrap_or(0) == 0
    }

    async fn read_response(&mut self, head_only: bool) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.rest.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?[..3].parse().unwrap();
        let mut headers = HashMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(headers.insert(name.to_lowercase(), value.to_owned()), None, "{name} twice");
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let length = if head_only { 0 } else { length };
        while self.rest.len() < length {
            self.more().await?;
        }
        Some(Response { status, headers, body: self.rest.drain(..length).collect() })
    }

    async fn more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.rest).await.ok()?;
        (read > 0).then_some(())
    }
}
