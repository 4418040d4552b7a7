//! The stream one mover sees: exactly one exchange (its head, then its body), or the whole connection for HTTP/2.
//!
//! Pingora reads its requests from here. It gets the bytes of this request and not one more, so nothing of the next
//! request is lost in its buffers when the connection comes back to the loop; meanwhile it still learns when the
//! client goes away.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::Follower;
use super::{Downstream, head::Head};

/// How long, and for how many bytes, a closing connection listens to what the client still sends, so that our last
/// answer is not destroyed by a reset (RFC 9112 §9.6).
pub const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
pub const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What a client may send ahead of the answer to its last request, in bytes, before we stop looking whether it left.
pub const EARLY_BYTES: usize = 64 * 1024;

/// A connection lent to a mover.
#[derive(Debug)]
pub struct Exchange {
    /// `None` only after it was given back.
    down: Option<Downstream>,
    digest: Arc<ProxyDigest>,
    scope: Scope,
    wrote: bool,
    stall: Stall,
}

#[derive(Debug)]
enum Scope {
    /// Head bytes not yet handed out, then the body.
    One { head_left: usize, body: Follower, is_broken: bool },
    /// Everything, as HTTP/2 needs it.
    All,
}

impl Exchange {
    /// One HTTP/1.x exchange whose head stands at the start of the read-ahead buffer.
    pub fn one(down: Downstream, head: &Head, digest: Arc<ProxyDigest>) -> Self {
        let scope = Scope::One { head_left: head.len, body: Follower::new(head.framing), is_broken: false };
        Self { down: Some(down), digest, scope, wrote: false, stall: Stall::default() }
    }

    /// A whole HTTP/2 connection.
    pub fn all(down: Downstream, digest: Arc<ProxyDigest>) -> Self {
        Self { down: Some(down), digest, scope: Scope::All, wrote: false, stall: Stall::default() }
    }

    /// The connection back, if exactly this exchange was read from it.
    pub fn into_downstream(mut self) -> Option<Downstream> {
        let is_over = matches!(&self.scope, Scope::One { head_left: 0, body, is_broken: false } if body.is_done());
        if is_over { self.down.take() } else { None }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(down) = self.down.take() else { return };
        if self.wrote && !self.stall.is_over && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(linger(down));
        }
    }
}

/// Ends our side and listens a little, so that the client can read the answer it has not yet read.
pub async fn linger(mut down: Downstream) {
    let listen = async {
        if down.stream.shutdown().await.is_err() {
            return;
        }
        let (mut left, mut scratch) = (LINGER_BYTES, vec![0; 8192]);
        while let Ok(n @ 1..) = down.stream.read(&mut scratch).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, listen).await;
}

impl AsyncRead for Exchange {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { down: Some(down), scope, .. } = self.get_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match scope {
            Scope::All => {
                if down.buf.is_empty() {
                    return Pin::new(&mut down.stream).poll_read(cx, out);
                }
                let n = down.buf.len().min(out.remaining());
                out.put_slice(&down.buf.split_to(n));
                Poll::Ready(Ok(()))
            }
            Scope::One { is_broken: true, .. } => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            Scope::One { head_left, .. } if *head_left > 0 => {
                let n = (*head_left).min(out.remaining());
                out.put_slice(&down.buf.split_to(n));
                *head_left -= n;
                Poll::Ready(Ok(()))
            }
            Scope::One { body, .. } if body.is_done() => watch(down, cx),
            Scope::One { body, is_broken, .. } => {
                if down.buf.is_empty() {
                    let before = out.filled().len();
                    std::task::ready!(Pin::new(&mut down.stream).poll_read(cx, out))?;
                    let came = &out.filled()[before..];
                    match body.advance(came) {
                        Ok(used) => {
                            down.buf.extend_from_slice(&came[used..]);
                            out.set_filled(before + used);
                            Poll::Ready(Ok(()))
                        }
                        Err(_) => {
                            out.set_filled(before);
                            Poll::Ready(Err(refuse(down, is_broken)))
                        }
                    }
                } else {
                    let n = down.buf.len().min(out.remaining());
                    match body.advance(&down.buf[..n]) {
                        Ok(used) => {
                            out.put_slice(&down.buf.split_to(used));
                            Poll::Ready(Ok(()))
                        }
                        Err(_) => Poll::Ready(Err(refuse(down, is_broken))),
                    }
                }
            }
        }
    }
}

fn refuse(down: &Downstream, is_broken: &mut bool) -> io::Error {
    *is_broken = true;
    down.facts.refused(super::Refusal::BadChunk);
    io::Error::new(io::ErrorKind::InvalidData, "a chunk of the request body is malformed")
}

/// The request is complete: nothing more to hand out, but the client's leaving must be noticed. What it sends early
/// is kept for the loop, up to [`EARLY_BYTES`]; the kernel holds the rest back.
fn watch(down: &mut Downstream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while down.buf.len() < EARLY_BYTES {
        let mut scratch = [0; 2048];
        let mut early = ReadBuf::new(&mut scratch);
        std::task::ready!(Pin::new(&mut down.stream).poll_read(cx, &mut early))?;
        if early.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        down.buf.extend_from_slice(early.filled());
    }
    Poll::Pending
}

/// Ends a client that reads nothing: Pingora waits without a limit wherever it writes a head, the end of a body or
/// HTTP/2 frames. A timer is made only once a write has to wait, and then kept.
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

impl Exchange {
    /// One step of a write, within the time a client may take to read it.
    fn write_step<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut super::Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(down) = self.down.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let written = step(Pin::new(&mut down.stream), cx);
        self.stall.watch(written, down.facts.write_timeout(), cx)
    }
}

impl AsyncWrite for Exchange {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wrote = true;
        this.write_step(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_step(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_step(cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wrote = true;
        this.write_step(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.down.as_ref().is_some_and(|d| d.stream.is_write_vectored())
    }
}

#[async_trait]
impl Shutdown for Exchange {
    async fn shutdown(&mut self) {
        // Bounded: a client that does not read must not hold its connection for ever.
        let _ = tokio::time::timeout(LINGER, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Exchange {
    fn id(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.down.as_ref().map_or(-1, |d| d.stream.socket().as_raw_fd())
    }
}

impl Ssl for Exchange {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        matches!(self.scope, Scope::All).then_some(ALPN::H2)
    }
}

#[async_trait]
impl Peek for Exchange {}

impl GetTimingDigest for Exchange {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Exchange {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Exchange {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
