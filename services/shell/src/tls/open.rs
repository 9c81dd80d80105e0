//! Opening a connection to one peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ALPN, Credentials, TlsError, named};
use crate::name::{self, NameError};

/// Shakes hands as the client; the server must be exactly `peer`.
///
/// In TLS 1.3 a client is done before the server has judged its certificate. This waits for the first bytes that the
/// server sends (its HTTP/2 settings), so that a refusal is an error here, with its reason.
pub async fn handshake(
    credentials: &Credentials,
    peer: &str,
    stream: TcpStream,
    limit: Duration,
) -> Result<OpenedStream, TlsError> {
    name::check(peer)?;
    let server =
        ServerName::try_from(peer.to_owned()).map_err(|_| NameError { name: peer.to_owned(), why: "no DNS name" })?;
    let shaken = async {
        let mut inner = TlsConnector::from(credentials.client_config()).connect(server, stream).await?;
        let mut first = BytesMut::with_capacity(1024);
        match inner.read_buf(&mut first).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")),
            _ => Ok(OpenedStream { inner, first: first.freeze() }),
        }
    };
    let opened = tokio::time::timeout(limit, shaken)
        .await
        .map_err(|_| TlsError::TimedOut(limit))?
        .map_err(TlsError::Handshake)?;
    let (_, session) = opened.inner.get_ref();
    let found = session.peer_certificates().and_then(|chain| named(chain.first()?)).ok_or(TlsError::Nameless)?;
    if found != peer {
        return Err(TlsError::WrongPeer { expected: peer.to_owned(), found });
    }
    if session.alpn_protocol() != Some(ALPN) {
        return Err(TlsError::NoHttp2);
    }
    Ok(opened)
}

/// A connection that this side opened.
#[derive(Debug)]
pub struct OpenedStream {
    inner: TlsStream<TcpStream>,
    /// What was read while waiting for the server's verdict.
    first: Bytes,
}

impl AsyncRead for OpenedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OpenedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
