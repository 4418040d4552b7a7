//! The smallest HTTP client that can tell whether something serves: one GET, one connection, bounded.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// Everything after the status line, as it came.
    rest: Vec<u8>,
}

/// From connect to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of Shiny apps have some 5 KiB; what is longer is not needed to recognise one.
const BYTES_MAX: u64 = 1 << 20;

impl Answer {
    /// The text is somewhere in it.
    pub(super) fn has(&self, text: &str) -> bool {
        memchr::memmem::find(&self.rest, text.as_bytes()).is_some()
    }
}

/// `GET` of a path on a port of 127.0.0.1.
///
/// # Errors
/// When nobody answers HTTP there within 10 s.
pub(super) async fn http(port: u16, path: &str) -> io::Result<Answer> {
    bounded(async { get(connect(port).await?, &format!("127.0.0.1:{port}"), path).await }).await
}

/// `GET` of a path on a port of 127.0.0.1 by https, under the given name, trusting `ca` (PEM) alone.
///
/// # Errors
/// When nobody with a certificate of this authority answers there within 10 s.
pub(super) async fn https(port: u16, name: &str, path: &str, ca: &Path) -> io::Result<Answer> {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    let server_name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    bounded(async {
        let stream = TlsConnector::from(Arc::new(config)).connect(server_name, connect(port).await?).await?;
        get(stream, &format!("{name}:{port}"), path).await
    })
    .await
}

async fn bounded(ask: impl Future<Output = io::Result<Answer>>) -> io::Result<Answer> {
    tokio::time::timeout(TIMEOUT, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::new();
    let end = stream.take(BYTES_MAX).read_to_end(&mut bytes).await;
    match answer(bytes) {
        Some(answer) => Ok(answer),
        None => Err(end.err().unwrap_or_else(|| io::Error::other("what answers there is no HTTP server"))),
    }
}

fn answer(mut bytes: Vec<u8>) -> Option<Answer> {
    let line_end = memchr::memchr(b'\n', &bytes)?;
    let line = std::str::from_utf8(bytes.get(..line_end)?).ok()?;
    let status = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()?;
    bytes.drain(..=line_end);
    Some(Answer { status, rest: bytes })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn origin(says: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(says.as_bytes()).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn status_and_text_are_found() {
        let port = origin("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<meta content=\"x\">").await;
        let answer = http(port, "/").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.has("content=\"x\"") && !answer.has("content=\"y\""));
    }

    #[tokio::test]
    async fn a_reason_is_not_needed() {
        assert_eq!(http(origin("HTTP/1.1 503\r\n\r\n").await, "/").await.unwrap().status, 503);
    }

    #[tokio::test]
    async fn what_is_not_http_is_an_error() {
        for says in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 abc\r\n"] {
            assert!(http(origin(says).await, "/").await.is_err(), "{says:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(http(port, "/").await.is_err());
    }
}
