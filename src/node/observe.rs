//! Every request is seen once it is over: one line in the access log, one more in the metrics, an id for whoever asks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use hyper::body::{Frame, SizeHint};
use tower_layer::Layer;
use tower_service::Service;

use super::error::Failure;
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

/// Around every route: watches its requests to their end, and lets none through to a node that cannot go on.
///
/// A service of its own, because what axum makes of a function allocates several times per request.
#[derive(Clone)]
pub struct Observe(pub Parts);

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { parts: self.0.clone(), inner }
    }
}

/// A route that is observed.
#[derive(Clone)]
pub struct Observed<S> {
    parts: Parts,
    inner: S,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let seen = Seen::begin(&self.parts, &mut request);
        // One that cannot go on answers nobody any more, `/__ping__` least of all.
        let answer = self.parts.fitness.borrow().is_none().then(|| self.inner.call(request));
        Box::pin(async move {
            let response = match answer {
                Some(answer) => answer.await?,
                None => leaving(),
            };
            Ok(match seen {
                Some(seen) => seen.answered(response),
                None => response,
            })
        })
    }
}

fn leaving() -> Response {
    let mut response = Failure::leaving().into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The id a trusted proxy gave, or a new one.
fn id(fields: &HeaderMap, origin: Origin) -> HeaderValue {
    let given = fields.get(&REQUEST_ID).filter(|id| {
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        origin.is_forwarded && (1..=128).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
    });
    let new = || HeaderValue::try_from(format!("{:032x}", dice::unique()));
    given.cloned().or_else(|| new().ok()).unwrap_or(HeaderValue::from_static("-"))
}

/// What is known of a request; told when it is dropped, however it ended.
struct Seen {
    metrics: Arc<Metrics>,
    route: Route,
    began: Instant,
    id: HeaderValue,
    status: Option<u16>,
    sent: u64,
    /// For the access log, where there is one.
    more: Option<More>,
}

/// What only the access log wants to know.
struct More {
    log: AccessLog,
    origin: Origin,
    listener: Arc<str>,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    at: Timestamp,
}

impl Seen {
    /// A request begins; `None`: it is a command on this machine.
    fn begin(parts: &Parts, request: &mut Request) -> Option<Self> {
        let By(listener) = request.extensions_mut().remove::<By>()?;
        let origin = request.extensions().get::<Origin>().copied().unwrap_or_default();
        let more = |log: &AccessLog| More {
            log: log.clone(),
            origin,
            listener,
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: request.headers().get(HOST).cloned(),
            at: Timestamp::from_unix(clock::unix()),
        };
        parts.metrics.begin();
        Some(Self {
            metrics: Arc::clone(&parts.metrics),
            route: Route::of(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str)),
            began: clock::now(),
            id: id(request.headers(), origin),
            status: None,
            sent: 0,
            more: parts.access_log.as_ref().filter(|log| log.is_enabled()).map(more),
        })
    }

    fn answered(mut self, mut response: Response) -> Response {
        self.status = Some(response.status().as_u16());
        response.headers_mut().insert(REQUEST_ID, self.id.clone());
        response.map(|body| Body::new(Watched { body, seen: self }))
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let duration = clock::now().saturating_duration_since(self.began);
        self.metrics.end(self.route, self.status, duration, self.sent);
        let Some(more) = &self.more else { return };
        more.log.write(&Line {
            time: more.at,
            listener: &more.listener,
            client: more.origin.address.map(|ip| SocketAddr::new(ip, 0)),
            method: more.method.as_str(),
            path: more.uri.path().as_bytes(),
            host: more.host.as_ref().map(HeaderValue::as_bytes),
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
