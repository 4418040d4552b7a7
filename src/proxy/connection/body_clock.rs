//! How long an HTTP/2 client may be silent within a request body. Pingora keeps that time for HTTP/1 only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    /// The clock of the stream whose task this is.
    static CURRENT: Arc<BodyClock>;
}

/// Runs while a request body is expected.
#[derive(Debug)]
pub struct BodyClock {
    start: Instant,
    /// Milliseconds of silence allowed; 0: not running.
    limit_ms: AtomicU64,
    /// Milliseconds after `start` of the last sign of life.
    seen_ms: AtomicU64,
    has_expired: AtomicBool,
}

impl BodyClock {
    /// The clock of the current HTTP/2 stream; `None` elsewhere.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Allows this much silence from now on.
    pub fn start(&self, limit: Duration) {
        self.touch();
        self.limit_ms.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1), Relaxed);
    }

    /// The client said something.
    pub fn touch(&self) {
        self.seen_ms.store(self.now_ms(), Relaxed);
    }

    /// The body is whole.
    pub fn stop(&self) {
        self.limit_ms.store(0, Relaxed);
    }

    /// The silence was too long.
    pub fn has_expired(&self) -> bool {
        self.has_expired.load(Relaxed)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns when the silence was too long; looks now and then, because nobody waits for it on purpose.
    async fn expired(&self) {
        loop {
            let (limit, silence) =
                (self.limit_ms.load(Relaxed), self.now_ms().saturating_sub(self.seen_ms.load(Relaxed)));
            if limit > 0 && silence >= limit {
                self.has_expired.store(true, Relaxed);
                return;
            }
            let rest = if limit > 0 { Duration::from_millis(limit - silence) } else { LOOK };
            tokio::time::sleep(rest.min(LOOK)).await;
        }
    }
}

/// Between two looks, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Does the work of one stream; `None` when its client was silent for too long, and the work is dropped then.
pub(super) async fn timed<T>(work: impl Future<Output = Option<T>>) -> Option<T> {
    let clock = Arc::new(BodyClock {
        start: Instant::now(),
        limit_ms: AtomicU64::new(0),
        seen_ms: AtomicU64::new(0),
        has_expired: AtomicBool::new(false),
    });
    let watch = Arc::clone(&clock);
    tokio::select! {
        biased;
        done = CURRENT.scope(clock, work) => done,
        () = watch.expired() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_life_does_not() {
        let begun = Instant::now();
        let done = timed(async {
            let clock = BodyClock::current().expect("within");
            clock.start(Duration::from_secs(10));
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                clock.touch();
            }
            std::future::pending::<Option<()>>().await
        });
        assert_eq!(done.await, None);
        assert_eq!(begun.elapsed().as_secs(), 55);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_body_may_be_worked_on_for_hours() {
        let done = timed(async {
            let clock = BodyClock::current().expect("within");
            clock.start(Duration::from_secs(10));
            clock.stop();
            tokio::time::sleep(Duration::from_secs(7200)).await;
            Some(clock.has_expired())
        });
        assert_eq!(done.await, Some(false));
        assert!(BodyClock::current().is_none());
    }
}
