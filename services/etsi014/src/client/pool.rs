//! Connections to one KME, used again while they last.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ClientError;

/// Unused connections that are kept.
const IDLE_CONNECTIONS: usize = 32;

pub(super) type Connection = SendRequest<Full<Bytes>>;

pub(super) struct Pool {
    /// As the URL says it, for the Host header.
    host: String,
    address: (String, u16),
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    keep_alive: bool,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Pool {
    /// `None` if the authority names no host.
    pub(super) fn new(authority: &Authority, config: Arc<ClientConfig>, keep_alive: bool) -> Option<Self> {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).ok()?;
        let port = authority.port_u16().unwrap_or(443);
        let idle = Mutex::new(vec![]);
        Some(Self { host: authority.as_str().to_owned(), address: (host, port), name, config, keep_alive, idle })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request. Keys are taken by asking, so it is sent again only if it certainly never left.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        while let Some(mut connection) = self.take() {
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(request).await?;
        Ok((response, connection))
    }

    /// Keeps a connection for the next request. Its answer must have been read to the end.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.keep_alive && !connection.is_closed() && idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let failed = |source: io::Error| ClientError::Connect { authority: self.host.clone(), source };
        let (host, port) = (self.address.0.as_str(), self.address.1);
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(self.name.clone(), stream).await.map_err(failed)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // A connection that fails fails the request on it, which tells of it.
            let _ = connection.await;
        });
        Ok(sender)
    }
}
