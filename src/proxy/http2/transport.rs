//! What the frames go through: a client's connection that gathers what is written to it, so that many small frames are one
//! write (and one TLS record), and gives a client up that reads nothing.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::proxy::connection::{Downstream, linger};

/// Bytes that are gathered.
const GATHERED: usize = 64 * 1024;

thread_local! {
    /// A buffer that no connection needs at the moment: one that idles has none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module.
pub(super) struct Transport {
    /// `None` only after it was given away.
    down: Option<Downstream>,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that went.
    sent: usize,
    stall: Stall,
}

impl Transport {
    pub(super) fn new(down: Downstream) -> Self {
        Self { down: Some(down), gathered: Vec::new(), sent: 0, stall: Stall::default() }
    }

    /// One step of a write, within the time a client may take to read it.
    fn write_step<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut crate::proxy::stream::Stream>, &[u8], &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(down) = self.down.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let written = step(Pin::new(&mut down.stream), &self.gathered[self.sent..], cx);
        self.stall.watch(written, down.facts.write_timeout(), cx)
    }

    /// Writes what is gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            match std::task::ready!(self.write_step(cx, |stream, bytes, cx| stream.poll_write(cx, bytes)))? {
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

    /// Room for bytes to be gathered.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED {
            std::task::ready!(self.poll_drain(cx))?;
        }
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.take();
        }
        Poll::Ready(Ok(GATHERED - self.gathered.len()))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let Some(down) = self.down.take() else { return };
        // Its last frames must not be destroyed by a reset.
        if !self.stall.is_over && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(linger(down));
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(down) = self.get_mut().down.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
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

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (mut room, mut taken) = (std::task::ready!(this.poll_room(cx))?, 0);
        for buf in bufs {
            let n = buf.len().min(room);
            this.gathered.extend_from_slice(&buf[..n]);
            (room, taken) = (room - n, taken + n);
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_drain(cx))?;
        this.write_step(cx, |stream, _, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_drain(cx))?;
        this.write_step(cx, |stream, _, cx| stream.poll_shutdown(cx))
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
            std::task::ready!(timer.as_mut().poll(cx));
            if !std::mem::take(&mut self.has_moved) {
                self.is_over = true;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(Instant::now() + limit);
        }
    }
}
