//! One timer per connection, for whatever it waits for at the moment.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that is made once, for one task.
///
/// Where a wait ends later than it stands it is left as it is, and set anew only when it goes off: waits come and go by the
/// thousand, and nearly none is ever too long.
#[derive(Debug)]
pub struct Deadline {
    timer: Pin<Box<Sleep>>,
    /// The task will be woken by it.
    is_registered: bool,
}

impl Deadline {
    /// Set to this long from now.
    pub fn after(limit: Duration) -> Self {
        Self { timer: Box::pin(tokio::time::sleep(limit)), is_registered: false }
    }

    /// Ready once this instant has passed.
    pub fn poll_at(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
            self.is_registered = false;
        }
        if self.is_registered && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        self.is_registered = true;
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.timer.deadline() >= at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(at);
        }
        Poll::Pending
    }

    /// The work's result, or `None` if it was not done at this instant.
    pub async fn bound<T>(&mut self, at: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_at(at, cx).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_earlier_does_not_end_a_later_wait() {
        let (begun, mut deadline) = (Instant::now(), Deadline::after(Duration::from_secs(60)));
        for round in 1..=20 {
            let until = Instant::now() + Duration::from_secs(50 + round);
            assert_eq!(deadline.bound(until, tokio::time::sleep(Duration::from_secs(49))).await, Some(()));
        }
        let until = Instant::now() + Duration::from_secs(100);
        assert_eq!(deadline.bound(until, std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_secs(), 20 * 49 + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_set_later_and_earlier() {
        let (begun, mut deadline) = (Instant::now(), Deadline::after(Duration::from_secs(60)));
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(deadline.bound(at(90), tokio::time::sleep(Duration::from_secs(70))).await, Some(()));
        assert_eq!(deadline.bound(at(75), std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_secs(), 75);
        assert_eq!(deadline.bound(at(76), async { 1 }).await, Some(1));
        assert_eq!(deadline.bound(at(200), std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_secs(), 200);
    }
}
