//! What others ask of this node: whether it is there, and what is counted, as text for Prometheus and for Graphite.

use std::sync::atomic::Ordering;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;

use super::error::Failure;
use super::metrics::Live;
use super::parts::{Origin, Parts};
use crate::telemetry::access::AccessLog;
use crate::telemetry::carbon;
use crate::telemetry::metrics::Exposition;
use crate::types::LEAVING;

/// For who asks this node itself: what comes through a proxy comes from everywhere.
pub async fn metrics(State(parts): State<Parts>, Extension(origin): Extension<Origin>) -> Response {
    if origin.is_forwarded {
        return Failure::not_found("page at this address").into_response();
    }
    let mut response = text(&parts, Exposition::default()).await.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Exposition::CONTENT_TYPE));
    response
}

/// Of a node that leaves: how many it still has, so that proxies bring it nobody new and go on with those.
pub async fn ping(State(parts): State<Parts>) -> Response {
    if !parts.is_leaving.load(Ordering::Relaxed) {
        return "pong\n".into_response();
    }
    let (live, held) = parts.contents.sessions.counts();
    let sessions = live + held;
    let told = [(LEAVING, sessions.to_string())];
    (StatusCode::SERVICE_UNAVAILABLE, told, format!("leaving, with {sessions} sessions\n")).into_response()
}

/// Sends the same to Graphite, where there is one, until told to stop.
pub async fn follow(parts: Parts, stop: watch::Receiver<bool>) {
    let Some(graphite) = parts.settings.graphite.clone() else { return };
    let name = parts.settings.name.clone();
    carbon::follow(graphite, name, async |empty| text(&parts, empty).await, stop).await;
}

async fn text(parts: &Parts, empty: Exposition) -> String {
    let (workers, sessions) = (&parts.contents.workers, &parts.contents.sessions);
    let (sessions_live, sessions_held) = sessions.counts();
    let live = Live {
        dropped: parts.access_log.as_ref().map_or(0, AccessLog::dropped),
        workers: workers.count() as u64,
        connections: workers.connections() as u64,
        sessions_live: sessions_live as u64,
        sessions_held: sessions_held as u64,
        session_bytes: sessions.bytes() as u64,
        contents: sessions.contents(),
        queue: parts.queue.waiting(parts).await,
    };
    parts.metrics.render(&live, empty)
}
