//! Every request is seen once it is over: one line in the access log, one more in the metrics, an id for whoever asks.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use hyper::body::{Frame, SizeHint};

use super::metrics::{Metrics, Route};
use super::parts::{Origin, Parts};
use crate::runtime::{clock, dice};
use crate::telemetry::Timestamp;
use crate::telemetry::access::{AccessLog, Line};

/// The name of a request in every log it comes through.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The listener a request came by.
#[derive(Clone, Debug)]
pub struct By(pub Arc<str>);

/// Watches a request to its end.
pub async fn observe(State(parts): State<Parts>, mut request: Request, next: Next) -> Response {
    let Some(By(listener)) = request.extensions_mut().remove::<By>() else {
        // A command on this machine.
        return next.run(request).await;
    };
    let route = Route::of(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let origin = request.extensions().get::<Origin>().copied().unwrap_or_default();
    let id = id(request.headers(), origin);
    let mut seen = Seen {
        metrics: Arc::clone(&parts.metrics),
        log: parts.access_log.clone(),
        route,
        origin,
        listener,
        method: request.method().clone(),
        uri: request.uri().clone(),
        host: request.headers().get(HOST).cloned(),
        id: id.clone(),
        began: clock::now(),
        at: Timestamp::from_unix(clock::unix()),
        status: None,
        sent: 0,
    };
    parts.metrics.begin();
    let mut response = next.run(request).await;
    seen.status = Some(response.status().as_u16());
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(Watched { body, seen }))
}

/// The id a trusted proxy gave, or a new one.
fn id(fields: &HeaderMap, origin: Origin) -> HeaderValue {
    let given = fields.get(&REQUEST_ID).filter(|id| {
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        origin.is_forwarded && (1..=128).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
    });
    let new = || HeaderValue::from_str(&format!("{:032x}", dice::unique()));
    given.cloned().or_else(|| new().ok()).unwrap_or(HeaderValue::from_static("-"))
}

/// What is known of a request; told when it is dropped, however it ended.
struct Seen {
    metrics: Arc<Metrics>,
    log: Option<AccessLog>,
    route: Route,
    origin: Origin,
    listener: Arc<str>,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    id: HeaderValue,
    began: Instant,
    at: Timestamp,
    status: Option<u16>,
    sent: u64,
}

impl Drop for Seen {
    fn drop(&mut self) {
        let duration = clock::now().saturating_duration_since(self.began);
        self.metrics.end(self.route, self.status, duration, self.sent);
        let Some(log) = self.log.as_ref().filter(|log| log.is_enabled()) else { return };
        log.write(&Line {
            time: self.at,
            listener: &self.listener,
            client: self.origin.address.map(|ip| SocketAddr::new(ip, 0)),
            method: self.method.as_str(),
            path: self.uri.path().as_bytes(),
            host: self.host.as_ref().map(HeaderValue::as_bytes),
            status: self.status,
            route: Some(self.route.name()),
            pool: None,
            backend: None,
            pick: None,
            attempts: 0,
            upgraded: false,
            bytes_received: 0,
            bytes_sent: self.sent,
            duration,
            upstream_connect: None,
            request_id: self.id.to_str().unwrap_or("-"),
            error: None,
        });
    }
}

/// A body whose bytes are counted.
struct Watched {
    body: Body,
    seen: Seen,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.seen.sent += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
