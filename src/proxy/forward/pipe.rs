//! Bytes from socket to socket that never enter the process: splice(2), where both sides are plain TCP.
//!
//! A pipe is filled only when it is empty. So "try again" always means that the source has nothing, and never that the pipe
//! is full: the event loop is told the truth. Pipes are kept per thread and belong to an exchange only while bytes of it
//! are in them.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::proxy::connection::framing::Follower;

/// Body bytes from which on it pays.
pub(super) const LEAST: u64 = 64 * 1024;
/// Bytes a pipe holds, where the system lets it: without privileges that is up to 1 MiB.
const SIZE: usize = 512 * 1024;
/// Pipes a thread keeps.
const KEPT_MAX: usize = 16;
/// Fillings in a row before others on the thread get their turn.
const TURNS: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes in it.
    held: usize,
}

/// A pipe while there is use for it.
#[derive(Default)]
pub(super) struct Splice(Option<Pipe>);

/// Why it went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// What was known of the body has gone, or it cannot be done this way: go on by reading and writing.
    Over,
    /// The source has nothing at the moment.
    Source,
    /// The other side takes nothing at the moment.
    Taker,
    /// The source has ended.
    Ended,
    /// Others are to have their turn.
    Turn,
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum Failed {
    Source,
    Taker(io::Error),
}

impl Splice {
    /// Whether bytes are on their way that the other side has not taken.
    pub(super) fn is_busy(&self) -> bool {
        self.0.as_ref().is_some_and(|pipe| pipe.held > 0)
    }

    /// Moves what is known of the body; how many bytes left the source, and why it went no further.
    ///
    /// # Errors
    /// The side that failed. What the other had not taken by then is lost.
    pub(super) fn run(
        &mut self,
        body: &mut Follower,
        from: &TcpStream,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Result<(u64, Pause), Failed> {
        let mut moved = 0;
        for _ in 0..TURNS {
            if let Some(pipe) = &mut self.0 {
                match pipe.drain(to, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Err(Failed::Taker(error)),
                    Poll::Pending => return Ok((moved, Pause::Taker)),
                }
            }
            if body.known() == 0 || body.known() < LEAST && self.0.is_none() {
                self.release();
                return Ok((moved, Pause::Over));
            }
            if self.0.is_none() {
                self.0 = Pipe::take();
            }
            // Without descriptors it is done by reading and writing.
            let Some(pipe) = &mut self.0 else { return Ok((moved, Pause::Over)) };
            match pipe.fill(from, body.known(), cx) {
                Poll::Ready(Ok(0)) => return Ok((moved, Pause::Ended)),
                Poll::Ready(Ok(n)) => {
                    body.take(n as u64);
                    moved += n as u64;
                }
                Poll::Ready(Err(_)) => return Err(Failed::Source),
                Poll::Pending => {
                    self.release();
                    return Ok((moved, Pause::Source));
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok((moved, Pause::Turn))
    }

    /// Nobody holds an empty pipe while it waits.
    fn release(&mut self) {
        if let Some(pipe) = self.0.take_if(|pipe| pipe.held == 0) {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT_MAX {
                    free.push(pipe);
                }
            });
        }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        self.release();
    }
}

impl Pipe {
    fn take() -> Option<Self> {
        FREE.with_borrow_mut(Vec::pop).or_else(|| {
            let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            // Smaller it serves as well, at more calls.
            let _ = fcntl_setpipe_size(&writer, SIZE);
            Some(Self { reader, writer, held: 0 })
        })
    }

    /// From a socket into the empty pipe; 0: it has ended.
    fn fill(&mut self, from: &TcpStream, known: u64, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let length = usize::try_from(known).unwrap_or(SIZE).min(SIZE);
        loop {
            std::task::ready!(from.poll_read_ready(cx))?;
            let into =
                || Ok(splice(from, None, &self.writer, None, length, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?);
            match from.try_io(Interest::READABLE, into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.held = *result.as_ref().unwrap_or(&0);
                    return Poll::Ready(result);
                }
            }
        }
    }

    /// Out of the pipe into a socket, all of it. Never with `SPLICE_F_MORE`: a slow source would hold back what has come.
    fn drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        while self.held > 0 {
            std::task::ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || Ok(splice(&self.reader, None, to, None, self.held, flags)?)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => self.held -= n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::connection::framing::Framing;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// Runs until it is over or the source has ended.
    async fn run(splice: &mut Splice, body: &mut Follower, from: &TcpStream, to: &TcpStream) -> (u64, Pause) {
        let mut moved = 0;
        poll_fn(|cx| {
            let (n, pause) = splice.run(body, from, to, cx).unwrap();
            moved += n;
            match pause {
                Pause::Over | Pause::Ended => Poll::Ready((moved, pause)),
                Pause::Source | Pause::Taker | Pause::Turn => Poll::Pending,
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_body_passes_whole_to_a_slow_reader_and_what_follows_stays() {
        let ((mut sender, from), (to, mut reader)) = (pair().await, pair().await);
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let writing = tokio::spawn(async move {
            sender.write_all(&sent).await.unwrap();
            sender.write_all(b"NEXT").await.unwrap();
            sender
        });
        let reading = tokio::spawn(async move {
            let mut got = vec![0; 5_000_000];
            for piece in got.chunks_mut(300_000) {
                reader.read_exact(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            (got, reader)
        });
        let (mut splice, mut body) = (Splice::default(), Follower::new(Framing::Length(5_000_000)));
        assert_eq!(run(&mut splice, &mut body, &from, &to).await, (5_000_000, Pause::Over));
        assert!(body.is_done() && !splice.is_busy());
        assert!(reading.await.unwrap().0 == bytes);
        let (mut from, mut next) = (from, [0; 4]);
        from.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"NEXT");
        drop(writing.await.unwrap());
        assert!(FREE.with_borrow(Vec::len) >= 1, "the pipe is kept for the next one");
    }

    #[tokio::test]
    async fn a_source_that_ends_early_is_seen() {
        let ((mut sender, from), (to, mut reader)) = (pair().await, pair().await);
        sender.write_all(&[7; 1000]).await.unwrap();
        drop(sender);
        let (mut splice, mut body) = (Splice::default(), Follower::new(Framing::Length(100_000)));
        assert_eq!(run(&mut splice, &mut body, &from, &to).await, (1000, Pause::Ended));
        drop(to);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [7; 1000]);
    }
}
