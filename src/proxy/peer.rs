//! Backend → what Pingora dials: address, TLS, timeouts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::dial::USER_TIMEOUT;
use crate::config;
use crate::runtime::clock;
use crate::types::BackendAddress;

/// A name is asked for again after this.
const RESOLVED_FOR: Duration = Duration::from_secs(10);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// One backend, ready to be dialled by Pingora.
#[derive(Debug)]
pub struct Dialled {
    id: u64,
    template: Template,
    timeout: Duration,
}

#[derive(Debug)]
enum Template {
    /// An IP address or a unix socket: nothing to look up.
    Fixed(Box<HttpPeer>),
    /// A name.
    Named { host: String, port: u16, peer: Box<HttpPeer>, resolved: ArcSwapOption<(SocketAddr, Instant)> },
}

/// The backend's name has no address.
#[derive(Debug)]
pub struct Unresolved;

impl Dialled {
    /// What never changes about dialling this backend is worked out once. `ca`: PEM of whom to trust; `None`: the system's
    /// roots.
    pub fn new(address: &BackendAddress, pool: &config::proxy::Pool, ca: Option<&[u8]>) -> Self {
        let name = pool.tls.as_ref().map(|t| t.server_name.clone()).unwrap_or_default();
        let placeholder = SocketAddr::from(([0, 0, 0, 0], 1));
        let mut peer = HttpPeer::new(placeholder, pool.tls.is_some(), name);
        let options = &mut peer.options;
        options.connection_timeout = Some(pool.timeouts.connect);
        options.total_connection_timeout = Some(pool.timeouts.connect);
        options.read_timeout = Some(pool.timeouts.response);
        options.write_timeout = Some(pool.timeouts.body);
        options.idle_timeout = Some(pool.timeouts.keepalive);
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy {
            // `headers` does this, and knows what no client may take away by naming it in Connection.
            strip_connection_nominated: false,
            reject_malformed_connection_nominations: false,
            ..HttpUpstreamRequestPolicy::deny_upgrades()
        };
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(15),
            interval: Duration::from_secs(5),
            count: 3,
            #[cfg(target_os = "linux")]
            user_timeout: USER_TIMEOUT,
        });
        if let Some(pem) = ca {
            let roots = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
            options.ca = Some(roots.filter_map(|der| wrapped(&der)).collect::<Vec<_>>().into());
        }
        let peer = Box::new(peer);
        let fixed = |peer: Box<HttpPeer>, address| Template::Fixed(Box::new(HttpPeer { _address: address, ..*peer }));
        let template = match address {
            BackendAddress::Unix(path) => match std::os::unix::net::SocketAddr::from_pathname(path) {
                Ok(at) => fixed(peer, PingoraAddr::Unix(at)),
                // Too long for a socket address, which the settings have checked.
                Err(_) => fixed(peer, PingoraAddr::Inet(placeholder)),
            },
            BackendAddress::Inet { host, port } => match host.parse() {
                Ok(ip) => fixed(peer, PingoraAddr::Inet(SocketAddr::new(ip, *port))),
                Err(_) => Template::Named { host: host.clone(), port: *port, peer, resolved: ArcSwapOption::empty() },
            },
        };
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), template, timeout: pool.timeouts.connect }
    }

    /// Its own among all that were ever made, never 0: connections to it are to this address and by this TLS.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The peer to dial. With `fresh`, a connection of its own that nobody used before or will use after: for requests
    /// that cannot be repeated, because a kept connection may die just as they are sent.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub async fn peer(&self, fresh: bool) -> Result<Box<HttpPeer>, Unresolved> {
        let mut peer = match &self.template {
            Template::Fixed(peer) => peer.clone(),
            Template::Named { host, port, peer, resolved } => {
                let mut peer = peer.clone();
                peer._address = PingoraAddr::Inet(self.resolve(host, *port, resolved).await?);
                peer
            }
        };
        if fresh {
            static LONER: AtomicU64 = AtomicU64::new(1);
            peer.group_key = LONER.fetch_add(1, Ordering::Relaxed);
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        Ok(peer)
    }

    async fn resolve(
        &self,
        host: &str,
        port: u16,
        resolved: &ArcSwapOption<(SocketAddr, Instant)>,
    ) -> Result<SocketAddr, Unresolved> {
        let known = resolved.load();
        if let Some((at, _)) =
            known.as_deref().filter(|(_, when)| clock::now().saturating_duration_since(*when) < RESOLVED_FOR)
        {
            return Ok(*at);
        }
        let found = tokio::time::timeout(self.timeout, tokio::net::lookup_host((host, port))).await;
        match found.ok().and_then(Result::ok).and_then(|mut all| all.next()) {
            Some(at) => {
                resolved.store(Some(Arc::new((at, clock::now()))));
                Ok(at)
            }
            // A name server that is away for a moment takes nobody down with it.
            None => known.as_deref().map(|(at, _)| *at).ok_or(Unresolved),
        }
    }
}

/// Pingora's own form of a certificate; its parser panics on what this one refuses.
fn wrapped(der: &[u8]) -> Option<WrappedX509> {
    x509_parser::parse_x509_certificate(der).ok()?;
    Some(WrappedX509::new(der.to_vec(), parse_x509))
}
