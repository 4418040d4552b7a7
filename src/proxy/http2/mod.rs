//! The client's half of HTTP/2 (RFC 9113), on the `h2` crate: frames and windows are its business. A connection is one
//! task, each of its streams another on the same thread.

mod client;
mod stream;
mod transport;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use tokio::time::{Instant, timeout};

use self::transport::Transport;
use super::Proxy;
use super::connection::{Deadline, Downstream, Facts, LINGER, Stopped, fill, linger};

/// The client's connection preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams a client may have open at a time.
const STREAMS_MAX: u32 = 128;
/// Bytes a client may send on one stream, and on all of a connection, before we have read any: an upload waits a round trip
/// for so many.
const WINDOW: u32 = 256 * 1024;
/// See [`WINDOW`].
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Bytes of answers on one stream that wait for the connection, at most.
const SEND_BUFFER: usize = 128 * 1024;

/// Serves the connection to its end.
pub async fn serve(proxy: Arc<Proxy>, mut down: Downstream) {
    let facts = Arc::clone(&down.facts);
    let limits = &facts.listener.settings.limits;
    if timeout(limits.head_timeout, preface(&mut down)).await != Ok(true) {
        return;
    }
    let mut builder = Builder::new();
    builder
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    let (transport, own) = Transport::pair(down);
    let Ok(Ok(frames)) = timeout(limits.head_timeout, builder.handshake(transport)).await else { return };
    let deadline = Deadline::after(limits.keepalive_timeout);
    let stopped = Stopped::new(&proxy);
    let mut connection =
        Connection { proxy, facts, frames, transport: own, deadline, stopped, idle_since: None, leaves: false };
    while let Some((request, respond)) = poll_fn(|cx| connection.poll_next(cx)).await {
        let task = stream::serve(&connection.proxy, &connection.facts, request, respond);
        tokio::spawn(task);
    }
    let Connection { frames, transport, .. } = connection;
    // Its last frames must not be destroyed by a reset.
    let _ = timeout(LINGER, poll_fn(|cx| transport.pipe().poll_flush(cx))).await;
    drop(frames);
    if let Some(down) = transport.into_downstream() {
        linger(down).await;
    }
}

async fn preface(down: &mut Downstream) -> bool {
    while down.buf.len() < PREFACE.len() {
        if fill(down).await.is_err() || !PREFACE.starts_with(&down.buf[..down.buf.len().min(PREFACE.len())]) {
            return false;
        }
    }
    down.buf.starts_with(PREFACE)
}

struct Connection {
    proxy: Arc<Proxy>,
    facts: Arc<Facts>,
    frames: h2::server::Connection<Transport, Bytes>,
    transport: Transport,
    deadline: Deadline,
    stopped: Stopped,
    /// Since when there has been no stream.
    idle_since: Option<Instant>,
    /// It takes no new streams and ends behind those that are there.
    leaves: bool,
}

impl Connection {
    /// Moves frames both ways; the next request, or `None` when the connection is over.
    fn poll_next(&mut self, cx: &mut Cx<'_>) -> Poll<Option<(http::Request<RecvStream>, SendResponse<Bytes>)>> {
        loop {
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok(accepted))) => return Poll::Ready(Some(accepted)),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(_)) = self.transport.pipe().poll_flush(cx) {
                return Poll::Ready(None);
            }
            if !self.leaves && self.stopped.poll(&self.proxy, cx) {
                self.leave();
                continue;
            }
            if self.frames.has_streams() {
                self.idle_since = None;
                return Poll::Pending;
            }
            // A client that is asked to go is given a moment to say its last.
            let limit = if self.leaves { LINGER } else { self.facts.listener.settings.limits.keepalive_timeout };
            let since = *self.idle_since.get_or_insert_with(Instant::now);
            std::task::ready!(self.deadline.poll_at(since + limit, cx));
            if self.leaves {
                return Poll::Ready(None);
            }
            self.leave();
        }
    }

    fn leave(&mut self) {
        (self.leaves, self.idle_since) = (true, None);
        self.frames.graceful_shutdown();
    }
}
