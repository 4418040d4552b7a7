//! One client connection, from its first byte to its last.
//!
//! For HTTP/1.x the loop reads every head itself (bounded in bytes, fields and time), refuses what is ambiguous by
//! name, and lends the connection to [`http1`] for exactly one exchange. HTTP/2 goes to [`http2`] whole. It decides nothing
//! about where a request goes.

mod deadline;
pub mod framing;
pub mod head;
mod linger;
mod refusal;
pub mod reply;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

pub use self::deadline::Deadline;
use self::head::{Bounds, Parsed};
pub use self::linger::{LINGER, LINGER_BYTES, linger};
pub use self::refusal::Refusal;
use super::error::Fault;
use super::headers::Way;
use super::http1::Begun;
use super::listener::{Current, Permit};
pub use super::stream::Stream;
use super::{Proxy, headers, http1, http2};
use crate::config;
use crate::runtime::{clock, dice};
use crate::telemetry::Timestamp;
use crate::telemetry::access::{AccessLog, Line, LineError};

/// What is known of a connection before its first request.
#[derive(Debug)]
pub struct Facts {
    /// The listener's settings as they were when the connection came.
    pub listener: Arc<Current>,
    /// Which way its requests come, and from whom.
    pub way: Way,
    /// Milliseconds; see [`Facts::write_timeout`].
    pub write_timeout_ms: AtomicU64,
}

impl Facts {
    /// What holds before a pool's own timeout is known.
    pub fn fresh_write_timeout() -> AtomicU64 {
        AtomicU64::new(millis(config::default::BODY_TIMEOUT))
    }

    /// How long a client may read nothing of what is written to it.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms.load(Relaxed))
    }

    /// From now on it may take this long. The streams of an HTTP/2 connection share it: the longest counts.
    pub fn set_write_timeout(&self, limit: Duration, is_shared: bool) {
        let ms = millis(limit);
        if is_shared {
            self.write_timeout_ms.fetch_max(ms, Relaxed);
        } else {
            self.write_timeout_ms.store(ms, Relaxed);
        }
    }

    /// As [`Self::refused`], of a whole request that nobody else will log.
    pub fn refused_request(&self, log: &AccessLog, refusal: Refusal, request_id: &str, (method, path): (&str, &[u8])) {
        self.refused(refusal);
        if !log.is_enabled() {
            return;
        }
        log.write(&Line {
            time: Timestamp::from_unix(clock::unix()),
            listener: &self.listener.settings.name,
            client: self.way.client,
            method,
            path,
            host: None,
            status: Some(refusal.status()),
            route: None,
            pool: None,
            backend: None,
            pick: None,
            attempts: 0,
            upgraded: false,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            upstream_connect: None,
            request_id,
            error: Some(LineError { kind: refusal.as_str(), side: Fault::Downstream.as_str() }),
        });
    }

    /// Counts and notes a refused head or body.
    pub fn refused(&self, refusal: Refusal) {
        self.listener.metrics.refused(refusal.as_str());
        tracing::debug!(
            listener = %self.listener.settings.name,
            client.address = ?self.way.client,
            error.r#type = refusal.as_str(),
            "request refused"
        );
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// A client connection with what was read ahead of it.
#[derive(Debug)]
pub struct Downstream {
    /// The bytes.
    pub stream: Stream,
    /// Read, but not yet used; empty and without memory while the connection idles.
    pub buf: BytesMut,
    /// What is known of it.
    pub facts: Arc<Facts>,
    /// Its place among the listener's connections, given back when the connection ends.
    pub permit: Permit,
}

/// Serves a connection until it ends.
#[expect(clippy::manual_async_fn, reason = "the future of a function would have room for the connection twice")]
pub fn serve(proxy: Arc<Proxy>, mut down: Downstream, is_h2: bool) -> impl Future<Output = ()> + Send {
    async move {
        if is_h2 {
            return Box::pin(http2::serve(proxy, down)).await;
        }
        let mut deadline = Deadline::after(down.facts.listener.settings.limits.keepalive_timeout);
        let mut stopped = Stopped::new(&proxy);
        loop {
            let (closes, next) = match next_head(&proxy, &mut down, &mut deadline, &mut stopped).await {
                // Boxed, so that an idle connection does not carry the size of a working one.
                Next::Head(begun, closes) => (closes, Box::pin(http1::serve(&proxy, down, begun, &mut deadline)).await),
                Next::Over => {
                    // Under TLS the end is said before it comes.
                    let _ = timeout(LINGER, down.stream.shutdown()).await;
                    return;
                }
                Next::Refused(refusal) => return Box::pin(refuse(&proxy, down, refusal)).await,
            };
            match next {
                Some(returned) if !closes && !proxy.is_stopping() => down = returned,
                // What the client has sent by now must not destroy its last answer with a reset.
                Some(returned) => return Box::pin(linger(returned)).await,
                None => return,
            }
            if down.buf.is_empty() {
                down.buf = BytesMut::new();
            }
        }
    }
}

/// Answers a head that is refused, and closes.
pub(super) async fn refuse(proxy: &Proxy, mut down: Downstream, refusal: Refusal) {
    let id = headers::new_request_id(dice::unique());
    down.facts.refused_request(proxy.access_log(), refusal, &id, refusal::glimpse(&down.buf));
    let to_head = refusal::glimpse(&down.buf).0 == "HEAD";
    let answered = timeout(LINGER, down.stream.write_all(&refusal.response(&id, to_head))).await;
    if matches!(answered, Ok(Ok(()))) {
        linger(down).await;
    }
}

enum Next {
    Head(Box<Begun>, bool),
    Refused(Refusal),
    Over,
}

/// Waits for the next head: as long as the connection may idle for its first byte, `head_timeout` for the rest.
async fn next_head(proxy: &Arc<Proxy>, down: &mut Downstream, deadline: &mut Deadline, stopped: &mut Stopped) -> Next {
    let limits = &down.facts.listener.settings.limits;
    let bounds = Bounds { bytes: limits.head_bytes, fields: limits.head_count.min(head::FIELDS_MAX) };
    let (keepalive_timeout, head_timeout) = (limits.keepalive_timeout, limits.head_timeout);
    if down.buf.is_empty() {
        let until = Instant::from(clock::coarse()) + keepalive_timeout;
        let came = poll_fn(|cx| match poll_first(proxy, down, bounds, cx) {
            Poll::Ready(Ok(first)) => Poll::Ready(first),
            Poll::Ready(Err(_)) => Poll::Ready(Some(Next::Over)),
            Poll::Pending if stopped.poll(proxy, cx) => Poll::Ready(Some(Next::Over)),
            Poll::Pending => deadline.poll_at(until, cx).map(|()| Some(Next::Over)),
        });
        if let Some(next) = came.await {
            return next;
        }
    }
    let mut searched = 0;
    match take_head(proxy, down, bounds, &mut searched) {
        Some(next) => next,
        // Boxed, as most heads come whole.
        None => Box::pin(rest_of_head(proxy, down, deadline, (bounds, head_timeout), searched)).await,
    }
}

/// Of a head there is a part.
async fn rest_of_head(
    proxy: &Arc<Proxy>,
    down: &mut Downstream,
    deadline: &mut Deadline,
    (bounds, head_timeout): (Bounds, Duration),
    mut searched: usize,
) -> Next {
    let until = Instant::now() + head_timeout;
    loop {
        match deadline.bound(until, fill(down)).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return Next::Over,
            None => return Next::Refused(Refusal::HeadTimeout),
        }
        if let Some(next) = take_head(proxy, down, bounds, &mut searched) {
            return next;
        }
    }
}

/// What the connection's buffer begins with; `None`: there is more to come. `searched` is of one head.
fn take_head(proxy: &Arc<Proxy>, down: &mut Downstream, bounds: Bounds, searched: &mut usize) -> Option<Next> {
    // An empty line before a request is left over from old clients' bodies (RFC 9112 §2.2).
    while down.buf.starts_with(b"\r\n") {
        let _ = down.buf.split_to(2);
        *searched = 0;
    }
    let take_up = |parsed: &Parsed<'_>| (http1::begin(proxy, &down.facts, parsed, &down.buf), parsed.head.closes);
    match head::read(&down.buf, bounds, searched, take_up) {
        Ok(Some((begun, closes))) => Some(Next::Head(begun, closes)),
        Ok(None) => None,
        Err(refusal) => Some(Next::Refused(refusal)),
    }
}

/// Reads once while nothing is at hand. Most heads come whole and alone: such a one is taken up where it was read, and nothing
/// is kept. `None`: what came is in the connection's buffer, to be looked at there.
fn poll_first(
    proxy: &Arc<Proxy>,
    down: &mut Downstream,
    bounds: Bounds,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<Option<Next>>> {
    with_read(&mut down.stream, SCRATCH, cx, |came| {
        let take_up = |parsed: &Parsed<'_>| (http1::begin(proxy, &down.facts, parsed, came), parsed.head.closes);
        // An empty line before it is passed over elsewhere.
        let is_odd = came[0] == b'\r' || came[0] == b'\n';
        if !is_odd && let Ok(Some((mut begun, closes))) = head::read(came, bounds, &mut 0, take_up) {
            down.buf.extend_from_slice(&came[begun.detach()..]);
            return Some(Next::Head(begun, closes));
        }
        down.buf.extend_from_slice(came);
        None
    })
}

/// What a client may send ahead of the answer to its last request, in bytes, before we stop looking whether it left.
pub const EARLY_BYTES: usize = 64 * 1024;

/// Bytes one read takes at most.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    /// One buffer per thread, borrowed within a single poll: a connection that waits holds none.
    static READ: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; SCRATCH].into());
}

/// Reads once and appends what came. Cancel-safe.
///
/// # Errors
/// The stream's error, or `UnexpectedEof` when the client has ended.
pub(super) async fn fill(down: &mut Downstream) -> std::io::Result<()> {
    poll_fn(|cx| poll_fill(down, cx)).await
}

fn poll_fill(down: &mut Downstream, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    with_read(&mut down.stream, SCRATCH, cx, |came| down.buf.extend_from_slice(came))
}

/// Reads once what a client says while its request is served, up to [`EARLY_BYTES`] in all. Ready with `false`: no more is
/// read.
///
/// # Errors
/// See [`fill`].
pub(super) fn poll_early(down: &mut Downstream, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
    let room = EARLY_BYTES.saturating_sub(down.buf.len()).min(SCRATCH);
    if room == 0 {
        return Poll::Ready(Ok(false));
    }
    with_read(&mut down.stream, room, cx, |came| down.buf.extend_from_slice(came)).map_ok(|()| true)
}

/// Reads once, at most so many bytes, and shows what came, which is never nothing.
fn with_read<T>(
    stream: &mut Stream,
    room: usize,
    cx: &mut Context<'_>,
    look: impl FnOnce(&[u8]) -> T,
) -> Poll<std::io::Result<T>> {
    READ.with_borrow_mut(|scratch| {
        let mut came = ReadBuf::new(&mut scratch[..room]);
        ready!(Pin::new(stream).poll_read(cx, &mut came))?;
        match came.filled() {
            [] => Poll::Ready(Err(std::io::ErrorKind::UnexpectedEof.into())),
            came => Poll::Ready(Ok(look(came))),
        }
    })
}

/// Wakes a connection's task when the process is to leave. The task is known to it from the first poll on, so that each
/// later one is no more than a look.
pub struct Stopped {
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_registered: bool,
}

impl Stopped {
    /// Of this process.
    pub fn new(proxy: &Proxy) -> Self {
        let mut stopping = proxy.stopping().clone();
        let stopped = Box::pin(async move {
            // An error means that the conductor is gone, and with it the process.
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        Self { stopped, is_registered: false }
    }

    /// Whether it is to leave; if not yet, the task will be woken.
    pub fn poll(&mut self, proxy: &Proxy, cx: &mut Context<'_>) -> bool {
        if !self.is_registered {
            self.is_registered = true;
            return self.stopped.as_mut().poll(cx).is_ready();
        }
        proxy.is_stopping()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn bytes_of_exchange<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What each request takes and gives back is of a size that costs the allocator little.
    #[test]
    fn the_task_of_an_exchange_is_small() {
        let bytes = bytes_of_exchange(|proxy: &'static Proxy, down, begun, deadline: &'static mut Deadline| {
            http1::serve(proxy, down, begun, deadline)
        });
        assert!(bytes <= 1024, "{bytes} bytes");
    }

    /// With the counts of its `Arc` it takes 96 bytes.
    #[test]
    fn what_is_known_of_a_connection_is_small() {
        assert!(size_of::<Facts>() <= 80, "{} bytes", size_of::<Facts>());
    }

    /// Ten thousand idle connections are ordinary. What is only needed for a while belongs in a box of its own.
    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let bytes = bytes_of(serve);
        assert!(bytes <= 376, "{bytes} bytes");
    }
}
