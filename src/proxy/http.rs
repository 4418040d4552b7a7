//! The Pingora mover: HTTP/2, and HTTP/1.x exchanges that are not upgrades. Asks [`request`](super::request) at each of
//! Pingora's phases and does what it says.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Version};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::Proxy;
use super::connection::{BodyClock, Facts, LINGER, LINGER_BYTES, Refusal};
use super::dial;
use super::error::Cause;
use super::headers::{self, AnswerEdits, Fields, Known};
use super::request::{Answer, Broke, Context, End, Line, Next, NotConnected, Reply, Request};
use crate::config;
use crate::runtime::dice;
use crate::shiny::shim::Injector;

/// Pingora's view of the proxy.
pub struct Engine {
    proxy: Arc<Proxy>,
}

/// What Pingora carries for us from phase to phase.
#[derive(Default)]
pub struct Carried {
    /// `None` before the request arrived.
    context: Option<Box<Context>>,
    injector: Option<Injector>,
    /// Why it failed, once that is decided.
    cause: Option<Cause>,
    /// The upstream connection of this attempt came from the pool.
    is_reused: bool,
    /// The head of a final answer has come.
    has_answer: bool,
    /// The last error was answered by [`Next::Again`].
    goes_again: bool,
    /// `Some`: HTTP/2, and a body is expected.
    clock: Option<Arc<BodyClock>>,
    /// Log and counters have had their word.
    is_told: bool,
}

impl Drop for Carried {
    /// Work that was cut off, by the client's silence or the end of its connection, is told of too.
    fn drop(&mut self) {
        if let Some(context) = self.context.as_mut().filter(|_| !self.is_told) {
            let is_late = self.clock.as_ref().is_some_and(|clock| clock.has_expired());
            let cause = Some(if is_late { Cause::BodyTimeout } else { Cause::ClientGone });
            context.finish(End { status: None, bytes_in: 0, bytes_out: 0, cause, upgraded: false });
        }
    }
}

impl Engine {
    /// Moves requests for this proxy.
    pub fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy }
    }
}

/// What a stream that is lent to Pingora brings with it.
pub struct Arrived {
    facts: Arc<Facts>,
    /// The request, where it has arrived already; taken once.
    context: Mutex<Option<Box<Context>>>,
}

impl Arrived {
    /// With the request, where it has arrived already.
    pub fn new(facts: &Arc<Facts>, context: Option<Box<Context>>) -> Self {
        Self { facts: Arc::clone(facts), context: Mutex::new(context) }
    }

    fn take(&self) -> Option<Box<Context>> {
        self.context.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The error Pingora carries when the decision about it was taken already.
const DECIDED: ErrorType = ErrorType::Custom("Decided");

fn decided(carried: &mut Carried, cause: Cause) -> Box<Error> {
    carried.cause = Some(cause);
    carried.goes_again = false;
    Error::new(DECIDED)
}

fn again(carried: &mut Carried) -> Box<Error> {
    carried.goes_again = true;
    let mut error = Error::new(DECIDED);
    error.set_retry(true);
    error
}

fn internal() -> Box<Error> {
    Error::new(ErrorType::InternalError)
}

#[async_trait]
impl ProxyHttp for Engine {
    type CTX = Carried;

    fn new_ctx(&self) -> Carried {
        Carried::default()
    }

    /// No modules: even a disabled one runs for every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, carried: &mut Carried) -> Result<bool> {
        let digest = session.digest().and_then(|d| d.proxy_digest.clone()).ok_or_else(internal)?;
        let arrived = digest.user_data.as_ref().and_then(|data| data.downcast_ref::<Arrived>()).ok_or_else(internal)?;
        let facts = &arrived.facts;
        let head = session.req_header();
        if head.version == Version::HTTP_2 && head.headers.len() > facts.listener.settings.limits.head_count {
            // For HTTP/1 the connection has counted them.
            let (refusal, id) = (Refusal::TooManyFields, headers::new_request_id(dice::unique()));
            let seen = (head.method.as_str(), head.uri.path().as_bytes());
            facts.refused_request(self.proxy.access_log(), refusal, &id, seen);
            let mut head = ResponseHeader::build(refusal.status(), Some(3))?;
            head.insert_header("x-refused", refusal.as_str())?;
            head.insert_header(Known::XRequestId.key(), id)?;
            head.set_content_length(0)?;
            session.write_response_header(Box::new(head), true).await?;
            return Ok(true);
        }
        let is_bodiless = session.is_body_empty();
        let (context, answer) = match arrived.take() {
            Some(context) => (context, None),
            None => Context::arrive(&self.proxy, Arc::clone(facts), &Request::of(session.req_header()), is_bodiless),
        };
        // Silence of the client within its body, and of its reading within ours.
        let limit = context.timeouts().map_or(config::default::BODY_TIMEOUT, |t| t.body);
        facts.set_write_timeout(limit, session.is_http2());
        session.set_read_timeout(Some(limit));
        session.set_write_timeout(Some(limit));
        carried.clock = BodyClock::current().filter(|_| !is_bodiless);
        carried.context = Some(context);
        match answer {
            None => Ok(false),
            Some(Answer::Error(cause)) => Err(decided(carried, cause)),
            Some(Answer::Redirect(url)) => {
                let mut head = ResponseHeader::build(308, Some(3))?;
                head.insert_header(LOCATION, url)?;
                if let Some(context) = &carried.context {
                    head.insert_header(Known::XRequestId.key(), context.request_id.as_str())?;
                }
                head.set_content_length(0)?;
                session.write_response_header(Box::new(head), true).await?;
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        carried: &mut Carried,
    ) -> Result<()> {
        if let Some(clock) = &carried.clock {
            if ends { clock.stop() } else { clock.touch() }
        }
        let Some((context, bytes)) = carried.context.as_mut().zip(body.as_ref()) else { return Ok(()) };
        if context.body_overflows(bytes.len() as u64) { Err(decided(carried, Cause::BodyTooLarge)) } else { Ok(()) }
    }

    async fn upstream_peer(&self, _: &mut Session, carried: &mut Carried) -> Result<Box<HttpPeer>> {
        (carried.goes_again, carried.has_answer) = (false, false);
        if let Some(clock) = &carried.clock {
            // Nobody reads the body while the backend is chosen and dialled.
            clock.stop();
        }
        let Some(context) = carried.context.as_mut() else { return Err(internal()) };
        context.body_starts_over();
        loop {
            if let Err(cause) = context.choose().await {
                return Err(decided(carried, cause));
            }
            let peer = match context.chosen() {
                Some((backing, backend)) => match backing.peers.get(backend.place()) {
                    Some(dialled) => dialled.peer(context.needs_fresh_connection()).await,
                    None => return Err(internal()),
                },
                None => return Err(internal()),
            };
            match peer {
                Ok(peer) => return Ok(peer),
                // The name of the backend does not resolve.
                Err(_) => match context.not_connected(NotConnected::Failed) {
                    Next::Again => {}
                    Next::GiveUp(cause) => return Err(decided(carried, cause)),
                },
            }
        }
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        _: std::os::unix::io::RawFd,
        _: Option<&Digest>,
        carried: &mut Carried,
    ) -> Result<()> {
        carried.is_reused = reused;
        if let Some(context) = carried.context.as_mut() {
            context.connected(reused);
        }
        Ok(())
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, carried: &mut Carried, e: Box<Error>) -> Box<Error> {
        let Some(context) = carried.context.as_mut() else { return e };
        match context.not_connected(not_connected(&e)) {
            Next::Again => again(carried),
            Next::GiveUp(cause) => decided(carried, cause),
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        carried: &mut Carried,
    ) -> Result<()> {
        let Some(context) = carried.context.as_ref() else { return Err(internal()) };
        if let Some((clock, timeouts)) = carried.clock.as_ref().zip(context.timeouts()) {
            clock.start(timeouts.body);
        }
        let request = Request::of(session.req_header());
        let edits = context.edits(&request);
        for name in leaving(&upstream.headers, |name| edits.passes(name, Known::of(name))) {
            upstream.remove_header(&name);
        }
        edits.added(|name, pieces| {
            // What is no value came from the wire in a field that does not exist then; leaving it out is right.
            if let Ok(value) = HeaderValue::from_maybe_shared(pieces.concat()) {
                let _ = upstream.insert_header(name.key(), value);
            }
        });
        // What came in absolute form goes on in origin form (RFC 9112 §3.2.1).
        if !matches!(upstream.raw_path().first(), Some(b'/' | b'*')) {
            upstream.set_raw_path(request.target.as_bytes())?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        carried: &mut Carried,
    ) -> Result<()> {
        if answer.status.is_informational() {
            let fields = answer.headers.clone();
            let edits = AnswerEdits::new(answer.status.as_u16(), Fields::Map(&fields));
            for name in leaving(&fields, |name| edits.passes(name, Known::of(name))) {
                answer.remove_header(&name);
            }
            return Ok(());
        }
        carried.has_answer = true;
        if let Some(clock) = &carried.clock {
            // From here on the backend's silence counts: it has heard enough to answer.
            clock.stop();
        }
        let Some(context) = carried.context.as_mut() else { return Err(internal()) };
        let fields = answer.headers.clone();
        match context.answered(answer.status.as_u16(), Fields::Map(&fields)) {
            Reply::Again => {
                carried.has_answer = false;
                Err(again(carried))
            }
            Reply::Pass { edits, cookie, page } => {
                if answer.version == Version::HTTP_10 {
                    // The version is the hop's, and ours is 1.1 (RFC 9110 §6.2).
                    answer.set_version(Version::HTTP_11);
                }
                for name in leaving(&fields, |name| edits.passes(name, Known::of(name))) {
                    answer.remove_header(&name);
                }
                answer.insert_header(Known::XRequestId.key(), context.request_id.as_str())?;
                if let Some(page) = page {
                    for name in &page.remove {
                        answer.remove_header(name);
                    }
                    for (name, value) in page.set {
                        answer.insert_header(name, value)?;
                    }
                    carried.injector =
                        Some(page.injector).filter(|_| session.req_header().method != http::Method::HEAD);
                }
                if let Some(cookie) = cookie {
                    answer.append_header(SET_COOKIE, cookie)?;
                }
                Ok(())
            }
        }
    }

    async fn response_filter(&self, session: &mut Session, answer: &mut ResponseHeader, _: &mut Carried) -> Result<()> {
        // Pingora frames an answer of unknown length as chunks, which HTTP/1.0 does not know: there it ends with the
        // connection (RFC 9112 §6.1).
        if session.req_header().version == Version::HTTP_10 && answer.headers.contains_key(TRANSFER_ENCODING) {
            answer.remove_header(&TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        carried: &mut Carried,
    ) -> Result<Option<std::time::Duration>> {
        if let Some(injector) = carried.injector.as_mut() {
            *body = injector.feed(body.take(), end);
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        carried: &mut Carried,
        is_reused: bool,
    ) -> Box<Error> {
        if e.etype() == &DECIDED {
            // `again` and `decided` have set what there is to set.
            return e;
        }
        let Some(context) = carried.context.as_mut() else { return e };
        let has_begun = carried.has_answer || session.response_written().is_some_and(|r| !r.status.is_informational());
        let next = match fault(&e) {
            Err(cause) => Next::GiveUp(cause),
            Ok(how) if has_begun => {
                context.broke_within_answer(how);
                Next::GiveUp(how.cause())
            }
            Ok(how) => context.broke(how, if is_reused { Line::Kept } else { Line::Fresh }),
        };
        match next {
            Next::Again => again(carried),
            Next::GiveUp(cause) => decided(carried, cause),
        }
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, carried: &mut Carried) -> FailToProxy {
        let cause = match carried.cause {
            Some(cause) => cause,
            None if carried.goes_again => Cause::NobodyReady,
            None => fault(e).map_or_else(|cause| cause, Broke::cause),
        };
        carried.cause = Some(cause);
        let done = |status| FailToProxy { error_code: status, can_reuse_downstream: false };
        let has_begun = session.response_written().is_some_and(|r| !r.status.is_informational());
        if cause == Cause::ClientGone || has_begun {
            return done(0);
        }
        if let Err(error) = answer_with(session, carried, cause).await {
            tracing::debug!(error = %error, "the client did not wait for its error page");
        }
        done(cause.status())
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, carried: &mut Carried) {
        let status = session.response_written().map(|r| r.status.as_u16());
        let cause = carried.cause.filter(|_| e.is_some());
        carried.is_told = true;
        if let Some(context) = carried.context.as_mut() {
            context.finish(End {
                status,
                bytes_in: session.body_bytes_read() as u64,
                bytes_out: session.body_bytes_sent() as u64,
                cause,
                upgraded: false,
            });
        }
        if session.is_http2() && session.response_written().is_some() && !session.is_body_done() {
            let _ = tokio::time::timeout(LINGER, hear_out(session)).await;
        }
    }

    /// Ours says more, once, where it is handled.
    fn suppress_error_log(&self, _: &Session, _: &Carried, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Carried, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}

/// The names of the fields that do not go on.
fn leaving(fields: &http::HeaderMap, passes: impl Fn(&[u8]) -> bool) -> Vec<HeaderName> {
    fields.keys().filter(|name| !passes(name.as_str().as_bytes())).cloned().collect()
}

/// Reads on a little what an HTTP/2 client still sends after its whole answer: dropped at once, the stream would be
/// reset, and some clients throw the answer away then (RFC 9113 §8.1 asks them not to).
async fn hear_out(session: &mut Session) {
    let mut left = LINGER_BYTES;
    while let Ok(Some(bytes)) = session.read_request_body().await {
        left = left.saturating_sub(bytes.len());
        if left == 0 {
            return;
        }
    }
}

async fn answer_with(session: &mut Session, carried: &Carried, cause: Cause) -> Result<()> {
    let Some(context) = &carried.context else { return session.respond_error(cause.status()).await };
    let page = context.page(cause);
    let mut head = ResponseHeader::build(cause.status(), Some(6))?;
    head.insert_header(CONTENT_TYPE, page.content_type)?;
    head.insert_header("cache-control", "no-store")?;
    head.insert_header(Known::XRequestId.key(), context.request_id.as_str())?;
    if cause.status() == 503 {
        head.insert_header("retry-after", "1")?;
    }
    head.set_content_length(page.body.len())?;
    session.set_keepalive(None);
    let is_head = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), is_head).await?;
    if is_head { Ok(()) } else { session.write_response_body(Some(page.body.into()), true).await }
}

/// How a backend broke, or the cause that is not a backend's.
fn fault(e: &Error) -> std::result::Result<Broke, Cause> {
    use ErrorType as T;
    match (e.esource(), e.etype()) {
        (ErrorSource::Upstream, T::ReadTimedout | T::WriteTimedout) => Ok(Broke::TimedOut),
        (ErrorSource::Upstream, T::InvalidHTTPHeader | T::InvalidH2) => Ok(Broke::Invalid),
        (ErrorSource::Upstream, _) => Ok(Broke::Closed),
        (ErrorSource::Downstream, T::ReadTimedout | T::WriteTimedout) => Err(Cause::BodyTimeout),
        (ErrorSource::Downstream, T::InvalidHTTPHeader) => Err(Cause::BadBody),
        (ErrorSource::Downstream, T::ReadError) if is_invalid_data(e) => Err(Cause::BadBody),
        (ErrorSource::Downstream, _) => Err(Cause::ClientGone),
        _ => Err(Cause::Internal),
    }
}

fn is_invalid_data(e: &Error) -> bool {
    io_kind(e) == Some(std::io::ErrorKind::InvalidData)
}

fn io_kind(e: &Error) -> Option<std::io::ErrorKind> {
    io_error(e).map(std::io::Error::kind)
}

/// The system's own word at the end of the chain.
fn io_error(e: &Error) -> Option<&std::io::Error> {
    let mut cause = e.cause.as_deref().map(|c| c as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        if let Some(inner) = error.downcast_ref::<Box<Error>>() {
            return io_error(inner);
        }
        cause = error.source();
    }
    None
}

fn not_connected(e: &Error) -> NotConnected {
    use ErrorType as T;
    match e.etype() {
        _ if io_error(e).is_some_and(dial::is_shortage) => NotConnected::Shortage,
        T::ConnectRefused => NotConnected::Refused,
        T::ConnectTimedout | T::TLSHandshakeTimedout => NotConnected::TimedOut,
        T::TLSHandshakeFailure | T::InvalidCert | T::HandshakeError => NotConnected::Tls,
        // A unix socket whose process is gone.
        _ if matches!(io_kind(e), Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)) => {
            NotConnected::Refused
        }
        _ => NotConnected::Failed,
    }
}
