//! Connections in: HTTP/1.1 within bounds, until told to stop and the last request is answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use super::observe::By;
use super::parts::Origin;
use super::rest;
use crate::config::node::Listener;
use crate::runtime::socket_file::SocketFile;
use crate::types::ListenAddress;

/// A request's head must be complete within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 128 * 1024;
/// Open connections of a listener; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;

/// A listening socket with its settings.
#[derive(Debug)]
pub struct Bound {
    settings: Listener,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "held for its drop")] SocketFile),
}

impl Bound {
    /// Binds.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(settings: &Listener) -> io::Result<Self> {
        let socket = match &settings.address {
            ListenAddress::Inet(at) => Socket::Tcp(TcpListener::bind(at).await?),
            ListenAddress::Unix(path) => {
                let listener = UnixListener::bind(path)?;
                Socket::Unix(listener, SocketFile::of(path)?)
            }
        };
        Ok(Self { settings: settings.clone(), socket })
    }

    /// Its name, and where it is bound.
    pub fn told(&self) -> (String, String) {
        let at = match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(|at| at.to_string()).unwrap_or_default(),
            Socket::Unix(..) => self.settings.address.to_string(),
        };
        (self.settings.name.to_string(), at)
    }

    /// Serves until told to stop; returns when the last connection has ended.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = self.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of descriptors: others must end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (router, stop, settings) = (router.clone(), stop.clone(), self.settings.clone());
            tokio::spawn(async move {
                connection(stream, peer, settings, router, stop).await;
                drop(place);
            });
        }
        // Who comes now is refused, and so goes elsewhere, instead of waiting for nobody.
        drop(self);
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let _ = room.acquire_many(all).await;
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Some(peer)))
            }
            Socket::Unix(listener, _) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connection(
    stream: Box<dyn Stream>,
    peer: Option<SocketAddr>,
    settings: Listener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let peer = peer.map(|peer| peer.ip().to_canonical());
    let Listener { name, trusted, .. } = settings;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (address, is_forwarded) = client(request.headers(), peer, &trusted);
        let extensions = request.extensions_mut();
        extensions.insert(Origin { address, is_forwarded, is_host: false });
        extensions.insert(By(Arc::clone(&name)));
        let service = TowerToHyperService::new(router.clone());
        rest::answered(request, move |request| hyper::service::Service::call(&service, request))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Returns when it is time to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The client behind trusted proxies, the last address in `X-Forwarded-For` that is not one of theirs, and whether it came
/// through one.
fn client(fields: &HeaderMap, peer: Option<IpAddr>, trusted: &[IpNet]) -> (Option<IpAddr>, bool) {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !peer.as_ref().is_some_and(is_trusted) {
        return (peer, false);
    }
    let told = fields.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let told: Vec<IpAddr> = told.flat_map(|value| value.split(',')).filter_map(|ip| ip.trim().parse().ok()).collect();
    let client = told.iter().rev().find(|ip| !is_trusted(ip)).or(told.first()).copied();
    (client.or(peer), client.is_some())
}
