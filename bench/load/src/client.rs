//! Connections to the balancer under test.
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::tls;

/// For a connection, an answer, an echo: whoever is slower has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A port of the balancer on 127.0.0.1.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
}

/// Plain or TLS.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Opens connections that are alike.
#[derive(Clone)]
pub(crate) struct Connector {
    target: Target,
    config: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, config: target.is_tls.then(|| Arc::new(tls::config(false))) }
    }

    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        in_time(async {
            let tcp = tcp(self.target.port).await?;
            let Some(config) = &self.config else { return Ok(Box::new(tcp) as Box<dyn Duplex>) };
            let stream = TlsConnector::from(Arc::clone(config)).connect(tls::name(), tcp).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
        .await
    }
}

pub(crate) async fn tcp(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The work's outcome, or an error after [`PATIENCE`].
pub(crate) async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came in time")))
}
