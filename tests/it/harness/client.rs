//! A client that says exactly the bytes it is told and sees exactly those that come back.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::message::Framing;
use super::{Fields, Frame, PATIENCE, Response, patiently};

/// Any connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection and what was read ahead of it.
pub struct Client {
    io: Box<dyn Io>,
    ahead: Vec<u8>,
    /// Of a TLS connection: what the handshake agreed on.
    pub agreed: Option<Agreed>,
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug)]
pub struct Agreed {
    pub version: rustls::ProtocolVersion,
    pub alpn: Option<String>,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
}

/// How to shake hands.
#[derive(Clone)]
pub struct ClientTls {
    roots: Arc<rustls::RootCertStore>,
    name: ServerName<'static>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    sends_name: bool,
}

impl ClientTls {
    /// Verifies against this CA and asks for this name; both versions, no ALPN.
    pub fn new(ca: &CertificateDer<'static>, name: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self { roots: roots.into(), name, versions: rustls::ALL_VERSIONS.to_vec(), alpn: Vec::new(), sends_name: true }
    }

    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Verifies the name but does not send it.
    pub fn without_sni(mut self) -> Self {
        self.sends_name = false;
        self
    }

    fn config(&self) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = self.sends_name;
        config
    }
}

impl Client {
    pub fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), ahead: Vec::new(), agreed: None }
    }

    /// Plain, to `host:port`.
    pub async fn tcp(address: &str) -> Self {
        Self::try_tcp(address).await.unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    pub async fn try_tcp(address: &str) -> io::Result<Self> {
        let stream = patiently("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    pub async fn unix(path: impl AsRef<Path>) -> Self {
        Self::new(patiently("a connection", UnixStream::connect(path)).await.unwrap())
    }

    /// Under TLS, to `host:port`.
    pub async fn tls(address: &str, tls: &ClientTls) -> Self {
        Self::try_tls(address, tls).await.unwrap_or_else(|e| panic!("no TLS with {address}: {e}"))
    }

    pub async fn try_tls(address: &str, tls: &ClientTls) -> io::Result<Self> {
        let tcp = patiently("a connection", TcpStream::connect(address)).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(tls.config()));
        let stream = patiently("a handshake", connector.connect(tls.name.clone(), tcp)).await?;
        let session = stream.get_ref().1;
        let agreed = Agreed {
            version: session.protocol_version().unwrap(),
            alpn: session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
            certificate: session.peer_certificates().unwrap()[0].to_vec(),
        };
        Ok(Self { agreed: Some(agreed), ..Self::new(stream) })
    }

    /// The connection itself, for another protocol; nothing may have been read ahead.
    pub fn into_io(self) -> Box<dyn Io> {
        assert!(self.ahead.is_empty());
        self.io
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).await.unwrap_or_else(|e| panic!("cannot send: {e}"));
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        patiently("a write", async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        })
        .await
    }

    /// Ends our direction only.
    pub async fn finish(&mut self) {
        patiently("a shutdown", self.io.shutdown()).await.unwrap();
    }

    /// Whatever comes next; empty at the end, clean or not.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.ahead.is_empty() && !self.fill().await {
            return Vec::new();
        }
        std::mem::take(&mut self.ahead)
    }

    /// Whether more came; `false` at the end, clean or not.
    async fn fill(&mut self) -> bool {
        matches!(patiently("bytes", self.io.read_buf(&mut self.ahead)).await, Ok(1..))
    }

    /// The next `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        self.try_exactly(n).await.unwrap_or_else(|| panic!("the connection ended within {n} awaited bytes"))
    }

    pub async fn try_exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < n {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.ahead.drain(..n).collect())
    }

    /// Up to and including `mark`; `None` when the connection ends before.
    pub async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|w| w == mark) {
                return Some(self.ahead.drain(..at + mark.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Everything up to the end, clean or not.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the connection has ended, or ends within [`PATIENCE`], without a further byte.
    pub async fn ends(&mut self) -> bool {
        self.ahead.is_empty() && !self.fill().await
    }

    /// Whether nothing comes and nobody hangs up for this long.
    pub async fn is_quiet_for(&mut self, time: std::time::Duration) -> bool {
        assert!(time < PATIENCE);
        self.ahead.is_empty() && tokio::time::timeout(time, self.io.read_buf(&mut self.ahead)).await.is_err()
    }

    /// Sends a request on this connection and reads the answer to its end.
    pub async fn request(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(request_bytes(method, target, fields, body)).await;
        self.response(method).await
    }

    pub async fn try_request(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Option<Response> {
        self.try_send(&request_bytes(method, target, fields, b"")).await.ok()?;
        self.try_response(method).await
    }

    pub async fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"").await
    }

    /// Reads an answer to its end; interim ones are collected.
    pub async fn response(&mut self, method: &str) -> Response {
        self.try_response(method).await.unwrap_or_else(|| panic!("the connection ended before the answer did"))
    }

    pub async fn try_response(&mut self, method: &str) -> Option<Response> {
        let mut response = self.head().await?;
        match response.framing(method) {
            Framing::Length(n) => response.body = self.try_exactly(n).await?,
            Framing::UntilClose => response.body = self.rest().await,
            Framing::Chunked => {
                while let Some(chunk) = self.chunk().await? {
                    response.body.extend(chunk);
                }
                response.trailers = self.trailers().await?;
            }
        }
        Some(response)
    }

    /// The head of the final answer, its body still to be read. 101 is final.
    pub async fn head(&mut self) -> Option<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.until(b"\r\n\r\n").await?;
            let head = Response::parse(&String::from_utf8_lossy(&head));
            if head.status >= 200 || head.status == 101 {
                return Some(Response { interim, ..head });
            }
            interim.push((head.status, head.fields));
        }
    }

    /// The next chunk; `Some(None)` after the last, when trailers follow.
    pub async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let line = self.until(b"\r\n").await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
        if size == 0 {
            return Some(None);
        }
        let chunk = self.try_exactly(size).await?;
        assert_eq!(self.try_exactly(2).await?, b"\r\n", "after a chunk");
        Some(Some(chunk))
    }

    /// After the last chunk.
    pub async fn trailers(&mut self) -> Option<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let Some((name, value)) = line.split_once(':') else { return Some(Fields(fields)) };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next websocket frame; `None` when the connection ends.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = Frame::parse(&self.ahead) {
                self.ahead.drain(..used);
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }
}

/// The bytes of a request. `Host: localhost` and a Content-Length are added unless given.
pub fn request_bytes(method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has = |name: &str| fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !has("host") {
        text += "Host: localhost\r\n";
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One GET on a connection of its own.
pub async fn get(address: &str, target: &str) -> Response {
    get_as(address, target, &[]).await
}

/// One GET with these fields on a connection of its own.
pub async fn get_as(address: &str, target: &str, fields: &[(&str, &str)]) -> Response {
    Client::tcp(address).await.request("GET", target, fields, b"").await
}

/// `name=value` of the first cookie an answer sets.
pub fn cookie_of(response: &Response) -> String {
    let cookie = response.fields.get("set-cookie").unwrap_or_else(|| panic!("no cookie: {response:?}"));
    cookie.split(';').next().unwrap_or_default().to_owned()
}
