//! The end of a request: its counts and its line.

use std::time::Duration;

use super::Context;
use crate::proxy::error::{Cause, Fault};
use crate::proxy::metrics::{PickReason, Side};
use crate::proxy::pool::Reason;
use crate::runtime::clock;
use crate::telemetry::Timestamp;
use crate::telemetry::access::{self, LineError};
use crate::types::BackendKey;

/// How a request ended, for log and metrics.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The status the client got; `None`: it got none.
    pub status: Option<u16>,
    /// Bytes of bodies, client to us and us to client.
    pub bytes_in: u64,
    /// See `bytes_in`.
    pub bytes_out: u64,
    /// `Some`: it failed.
    pub cause: Option<Cause>,
    /// It became a tunnel.
    pub upgraded: bool,
}

impl Context {
    /// It is over: count it, write its line, give the backend back.
    pub fn finish(&mut self, end: End) {
        let took = clock::now().saturating_duration_since(self.started);
        let status = end.status.or_else(|| end.cause.map(Cause::status)).unwrap_or(499);
        if let Some(route) = &self.route {
            let listener = &self.facts.listener.settings.name;
            if let Some((_, metrics)) = route.metrics.iter().find(|(name, _)| name == listener) {
                metrics.answered(&self.method, status, took);
            }
            if let Some(cause) = end.cause {
                route.backing.metrics.failed(side(cause.fault()), cause.as_str());
            }
        } else {
            self.facts.listener.metrics.refused(end.cause.map_or("redirect", Cause::as_str));
        }
        if let Some(cause) = end.cause.filter(|c| c.fault() == Fault::Internal) {
            tracing::error!(request_id = %self.request_id(), error.r#type = cause.as_str(), "request failed inside the proxy");
        }
        self.log(&end, took);
        self.chosen = None;
    }

    fn log(&self, end: &End, took: Duration) {
        let log = self.proxy.access_log();
        if !log.is_enabled() {
            return;
        }
        let peer = self.facts.way.client;
        log.write(&access::Line {
            time: Timestamp::from_unix(clock::unix_of(self.started)),
            listener: &self.facts.listener.settings.name,
            client: self
                .client
                .map(|ip| std::net::SocketAddr::new(ip, peer.filter(|p| p.ip() == ip).map_or(0, |p| p.port()))),
            method: self.method.as_str(),
            path: self.path().as_bytes(),
            host: (!self.host().is_empty()).then_some(self.host().as_bytes()),
            status: end.status,
            route: self.route.as_ref().map(|r| &*r.name),
            pool: self.route.as_ref().map(|r| &**r.backing.pool.name()),
            backend: self.chosen.as_ref().map(|c| c.pick.backend.key()).or(self.tried().last()).map(BackendKey::as_str),
            pick: self.chosen.as_ref().map(|c| label(c.pick.reason).as_str()),
            attempts: self.attempts,
            upgraded: end.upgraded,
            bytes_received: end.bytes_in,
            bytes_sent: end.bytes_out,
            duration: took,
            upstream_connect: self.connect.took(),
            request_id: self.request_id(),
            error: end.cause.map(|c| LineError { kind: c.as_str(), side: c.fault().as_str() }),
        });
    }
}

/// As metrics and log call it.
pub(super) fn label(reason: Reason) -> PickReason {
    match reason {
        Reason::Sticky => PickReason::Sticky,
        Reason::Balanced => PickReason::Balanced,
        Reason::Rebound => PickReason::Rebound,
    }
}

fn side(fault: Fault) -> Side {
    match fault {
        Fault::Downstream => Side::Downstream,
        Fault::Upstream => Side::Upstream,
        Fault::Internal => Side::Internal,
    }
}
