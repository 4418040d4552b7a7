//! HTTP/2: the preface is waited for here, then the connection is Pingora's whole, within the listener's bounds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::time::timeout;

use super::exchange::Exchange;
use super::{Downstream, body_clock, fill};
use crate::config::proxy::ListenerLimits;
use crate::proxy::Proxy;
use crate::proxy::http::Engine;

/// The client's connection preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves the connection to its end.
pub(super) async fn serve(proxy: Arc<Proxy>, mut down: Downstream, digest: Arc<ProxyDigest>) {
    let facts = Arc::clone(&down.facts);
    let limits = &facts.listener.settings.limits;
    // Pingora waits for the preface without a limit.
    if timeout(limits.head_timeout, preface(&mut down)).await != Ok(true) {
        return;
    }
    let server = Arc::new(Server::new(Arc::clone(proxy.engine()), limits));
    server.process_new(Box::new(Exchange::all(down, digest)), proxy.stopping()).await;
}

async fn preface(down: &mut Downstream) -> bool {
    while down.buf.len() < PREFACE.len() {
        if fill(down).await.is_err() || !PREFACE.starts_with(&down.buf[..down.buf.len().min(PREFACE.len())]) {
            return false;
        }
    }
    down.buf.starts_with(PREFACE)
}

/// The engine as one listener's limits have it.
struct Server {
    engine: Arc<HttpProxy<Engine>>,
    options: HttpServerOptions,
    h2: H2Options,
}

impl Server {
    fn new(engine: Arc<HttpProxy<Engine>>, limits: &ListenerLimits) -> Self {
        let mut options = HttpServerOptions::default();
        // An idle connection of either version may stay equally long. Never 0, which would close before the first stream.
        options.h2_idle_timeout = Some(limits.keepalive_timeout.max(Duration::from_secs(1)));
        let mut h2 = default_h2_options();
        h2.max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
        Self { engine, options, h2 }
    }
}

#[async_trait]
impl HttpServerApp for Server {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        body_clock::timed(self.engine.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
