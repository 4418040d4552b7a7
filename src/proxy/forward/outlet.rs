//! What one side has not taken yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Bytes on their way out. Empty, and without memory, as long as the other side takes what it is given.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Outlet {
    pending: Vec<u8>,
    sent: usize,
    needs_flush: bool,
}

impl Outlet {
    /// Writes as much as goes at once and keeps the rest; whether all of it went.
    ///
    /// # Errors
    /// The other side takes no more.
    pub(in crate::proxy) fn give<W: AsyncWrite + Unpin>(
        &mut self,
        mut bytes: &[u8],
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> io::Result<bool> {
        self.needs_flush |= !bytes.is_empty();
        while !bytes.is_empty() && self.pending.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => bytes = &bytes[n..],
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.pending.extend_from_slice(bytes);
        Ok(self.pending.is_empty())
    }

    /// Writes what is kept, and flushes. Ready when nothing is left to do.
    ///
    /// # Errors
    /// The other side takes no more.
    pub(in crate::proxy) fn pass_on<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.pending.len() {
            match Pin::new(&mut *to).poll_write(cx, &self.pending[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.sent > 0 {
            (self.pending, self.sent) = (Vec::new(), 0);
        }
        if self.needs_flush {
            std::task::ready!(Pin::new(to).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes given and not taken.
    pub(in crate::proxy) fn backlog(&self) -> usize {
        self.pending.len() - self.sent
    }

    /// Whether something is to be written or flushed.
    pub(in crate::proxy) fn is_busy(&self) -> bool {
        self.needs_flush || self.backlog() > 0
    }
}
