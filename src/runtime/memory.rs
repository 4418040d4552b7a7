//! Gives memory back to the system after many connections have ended.
//!
//! The allocator ([mimalloc](https://microsoft.github.io/mimalloc/), version 3) leaves what was freed to the system once a
//! second has passed, but looks at the time only when pages are taken or become free. After the last of many connections has
//! ended nobody may do so for hours.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Between two looks; more than the allocator's second.
const EVERY: Duration = Duration::from_secs(2);
/// So many fewer connections than there were are worth it.
const MANY: usize = 64;
/// How often the allocator is made to look then: what is freed while it looks first is for the next time.
const TIMES: u32 = 2;
/// Bytes of a piece that has pages of its own.
const LARGE: usize = 1 << 20;

/// Watches how many connections there are on this thread, for ever.
pub(super) async fn give_back(load: &AtomicUsize) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(EVERY).await;
        if watch.looks(load.load(Ordering::Relaxed)) {
            drop(black_box(Vec::<u8>::with_capacity(LARGE)));
        }
    }
}

#[derive(Debug, Default)]
struct Watch {
    /// Connections at most since memory was last given back.
    most: usize,
    times: u32,
}

impl Watch {
    /// There are so many connections now: whether memory is to be given back.
    fn looks(&mut self, now: usize) -> bool {
        self.most = self.most.max(now);
        if now + MANY <= self.most {
            (self.most, self.times) = (now, TIMES);
        }
        let is_due = self.times > 0;
        self.times -= u32::from(is_due);
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(connections: &[usize]) -> Vec<bool> {
        let mut watch = Watch::default();
        connections.iter().map(|now| watch.looks(*now)).collect()
    }

    #[test]
    fn many_that_end_at_once_or_one_after_the_other_are_noticed_and_few_are_not() {
        assert_eq!(told(&[0, 5_000, 5_000, 0, 0, 0]), [false, false, false, true, true, false]);
        assert_eq!(told(&[100, 70, 40, 36, 36, 36]), [false, false, false, true, true, false]);
        assert_eq!(told(&[100, 70, 100, 70, 100, 70]), [false; 6]);
    }
}
