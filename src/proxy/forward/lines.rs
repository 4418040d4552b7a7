//! Idle connections to backends, kept for the next request. Each thread keeps its own: nobody waits for anybody, and a
//! connection stays with the event loop that knows it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::proxy::stream::Stream;

/// Between two looks for lines that are over.
const SWEEP: Duration = Duration::from_secs(2);

thread_local! {
    /// Borrowed within one call only.
    static KEPT: RefCell<Kept> = RefCell::default();
}

#[derive(Default)]
struct Kept {
    /// By [`Backing::id`](crate::proxy::state::Backing::id); the last one used is at the end.
    lines: HashMap<u64, Vec<Line>, FixedState>,
    count: usize,
    is_swept: bool,
}

impl Kept {
    fn drop_oldest(&mut self) {
        let oldest = self.lines.values_mut().filter(|l| !l.is_empty()).min_by_key(|l| l[0].since);
        match oldest {
            Some(lines) => {
                lines.remove(0);
                self.count -= 1;
            }
            // Never: the count is of those that are there.
            None => self.count = 0,
        }
    }
}

struct Line {
    stream: Stream,
    since: Instant,
    until: Instant,
}

/// The connection to this backend that was used last and still stands, if that was no longer ago than `idle`.
pub(super) fn take(backend: u64, idle: Duration) -> Option<Stream> {
    KEPT.with_borrow_mut(|kept| {
        let lines = kept.lines.get_mut(&backend)?;
        while let Some(mut line) = lines.pop_if(|line| idle == Duration::MAX || line.since.elapsed() <= idle) {
            kept.count -= 1;
            if is_quiet(&mut line.stream, &mut Context::from_waker(Waker::noop())) {
                return Some(line.stream);
            }
        }
        None
    })
}

/// Whether a connection to this backend is kept.
pub(super) fn has(backend: u64) -> bool {
    KEPT.with_borrow(|kept| kept.lines.get(&backend).is_some_and(|lines| !lines.is_empty()))
}

/// Keeps a connection for so long. Where this thread has `max` already, the one that idles longest gives way: whoever is
/// asked now is asked again soon.
pub(super) fn keep(backend: u64, stream: Stream, time: Duration, max: usize) {
    let starts_sweeping = KEPT.with_borrow_mut(|kept| {
        if max == 0 || time.is_zero() {
            return false;
        }
        while kept.count >= max {
            kept.drop_oldest();
        }
        kept.count += 1;
        let since = Instant::now();
        kept.lines.entry(backend).or_default().push(Line { stream, since, until: since + time });
        !std::mem::replace(&mut kept.is_swept, true)
    });
    if starts_sweeping {
        tokio::spawn(sweep());
    }
}

/// Lets go of what is over, until nothing is kept any more.
async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP).await;
        let is_done = poll_fn(|cx| {
            Poll::Ready(KEPT.with_borrow_mut(|kept| {
                let now = Instant::now();
                kept.lines.retain(|_, lines| {
                    lines.retain_mut(|line| line.until > now && is_quiet(&mut line.stream, cx));
                    !lines.is_empty()
                });
                kept.count = kept.lines.values().map(Vec::len).sum();
                kept.is_swept = kept.count > 0;
                kept.count == 0
            }))
        });
        if is_done.await {
            return;
        }
    }
}

/// Whether nothing came: neither an end nor anything else a backend has no business to send. Costs no system call as long
/// as the event loop has heard nothing.
fn is_quiet(stream: &mut Stream, cx: &mut Context<'_>) -> bool {
    let mut byte = [0];
    Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::proxy::stream::Socket;

    async fn line() -> (Stream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Stream::Plain(Socket::Unix(near)), far)
    }

    fn count() -> usize {
        KEPT.with_borrow(|kept| kept.count)
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_one_is_taken_first_and_none_outlives_its_time() {
        let minute = Duration::from_secs(60);
        let ((first, _a), (second, mut b), (other, _c)) = (line().await, line().await, line().await);
        keep(1, first, minute, 10);
        keep(1, second, minute, 10);
        keep(2, other, Duration::from_secs(5), 10);
        assert_eq!(count(), 3);
        let mut taken = take(1, Duration::MAX).unwrap();
        taken.write_all(b"x").await.unwrap();
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut b, &mut byte).await.unwrap();
        keep(1, taken, minute, 10);
        assert_eq!(count(), 3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(take(1, Duration::from_millis(999)).is_none(), "it idled for longer");
        assert_eq!(count(), 3);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(take(2, Duration::MAX).is_none());
        assert_eq!(count(), 2);
        tokio::time::sleep(minute).await;
        assert_eq!(count(), 0);
        assert!(take(1, Duration::MAX).is_none());
    }

    #[tokio::test]
    async fn what_ended_or_spoke_is_not_used_again() {
        let minute = Duration::from_secs(60);
        let ((ended, a), (spoke, mut b), (quiet, _c)) = (line().await, line().await, line().await);
        keep(1, quiet, minute, 10);
        keep(1, ended, minute, 10);
        keep(1, spoke, minute, 10);
        drop(a);
        b.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        // The event loop hears of both.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(take(1, Duration::MAX).is_some());
        assert!(take(1, Duration::MAX).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_kept_than_may_be_and_the_oldest_give_way() {
        let (mut held, minute) = (Vec::new(), Duration::from_secs(60));
        for backend in [1, 2, 2, 3, 3] {
            let (near, far) = line().await;
            keep(backend, near, minute, 3);
            held.push(far);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(count(), 3);
        let mut has = |backend| take(backend, Duration::MAX).is_some();
        assert_eq!([1, 2, 2, 3, 3, 3].map(&mut has), [false, true, false, true, true, false]);
        keep(1, line().await.0, minute, 0);
        assert_eq!(count(), 0);
    }
}
