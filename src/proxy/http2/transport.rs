//! What the frames go through: a client's connection that gathers what is written to it, so that the frames of a turn are
//! one write (and few TLS records), and gives a client up that reads nothing.
//!
//! The frames' writer flushes after each frame that carries data. It is told that this was done; whoever drives the
//! connection does it, once, when there is nothing more to write: [`Pipe::poll_flush`].

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::proxy::connection::Downstream;
use crate::runtime::scratch;

/// Bytes that are gathered.
const GATHERED: usize = 64 * 1024;

thread_local! {
    /// A buffer that no connection needs at the moment: one that idles has none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The connection as the frames see it.
pub(super) struct Transport(Arc<Mutex<Pipe>>);

impl Transport {
    /// One for the frames; the other for who drives them. One task has both, so that nobody ever waits for the other.
    pub(super) fn pair(down: Downstream) -> (Self, Self) {
        let pipe = Arc::new(Mutex::new(Pipe { down, gathered: Vec::new(), sent: 0, stall: Stall::default() }));
        (Self(Arc::clone(&pipe)), Self(pipe))
    }

    pub(super) fn pipe(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection back, once the frames have let go of it; `None` also if the client was given up.
    pub(super) fn into_downstream(self) -> Option<Downstream> {
        let pipe = Arc::into_inner(self.0)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        (!pipe.stall.is_over).then_some(pipe.down)
    }
}

/// A client's connection, and what is to be written to it.
pub(super) struct Pipe {
    down: Downstream,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that went.
    sent: usize,
    stall: Stall,
}

impl Pipe {
    /// Writes what is gathered.
    ///
    /// # Errors
    /// The client takes no more, or has taken nothing for too long.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        let flushed = Pin::new(&mut self.down.stream).poll_flush(cx);
        self.stall.watch(flushed, self.down.facts.write_timeout(), cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let written = Pin::new(&mut self.down.stream).poll_write(cx, &self.gathered[self.sent..]);
            match ready!(self.stall.watch(written, self.down.facts.write_timeout(), cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.sent = 0;
        self.gathered.clear();
        if self.gathered.capacity() > 0 {
            SPARE.set(std::mem::take(&mut self.gathered));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED {
            ready!(self.poll_drain(cx))?;
        }
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.take();
        }
        let (mut room, mut taken) = (GATHERED - self.gathered.len(), 0);
        for buf in bufs {
            let n = buf.len().min(room);
            scratch::append(&mut self.gathered, &buf[..n]);
            (room, taken) = (room - n, taken + n);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let down = &mut self.down;
        if down.buf.is_empty() {
            return Pin::new(&mut down.stream).poll_read(cx, out);
        }
        let n = down.buf.len().min(out.remaining());
        out.put_slice(&down.buf.split_to(n));
        if down.buf.is_empty() {
            down.buf = bytes::BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.pipe().poll_read(cx, out)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe().poll_gather(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pipe().poll_gather(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe().poll_flush(cx)
    }
}

/// Ends a client that reads nothing: frames wait for it without a limit. A timer is made only once a write has to wait,
/// and then kept.
#[derive(Debug, Default)]
struct Stall {
    timer: Option<Pin<Box<Sleep>>>,
    /// A write went through since the timer was set.
    has_moved: bool,
    /// The client was given up.
    is_over: bool,
}

impl Stall {
    /// Passes a write's result on; one that has been pending for `limit` (at most twice that) becomes `TimedOut`.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, limit: Duration, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.has_moved = true;
            return written;
        }
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                self.has_moved = false;
                Box::pin(tokio::time::sleep(limit))
            });
            ready!(timer.as_mut().poll(cx));
            if !std::mem::take(&mut self.has_moved) {
                self.is_over = true;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(Instant::now() + limit);
        }
    }
}
