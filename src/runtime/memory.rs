//! Gives memory back to the system after many connections have ended.
//!
//! The allocator ([mimalloc](https://microsoft.github.io/mimalloc/)) leaves what was freed to the system once a second has
//! passed, but looks at the time only when somebody takes or gives back a large piece. After a burst nobody may do so for hours.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Between two looks; more than the allocator's second.
const EVERY: Duration = Duration::from_secs(2);
/// So many fewer connections than at the last look are worth it.
const MANY: usize = 64;
/// What was freed later than a second before a look is for the next one.
const LOOKS: u32 = 2;
/// Bytes of a piece that has pages of its own.
const LARGE: usize = 1 << 20;

/// Watches how many connections there are on this thread, for ever.
pub(super) async fn give_back(load: &AtomicUsize) {
    let (mut before, mut looks) = (0, 0);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = load.load(Ordering::Relaxed);
        if now + MANY <= before {
            looks = LOOKS;
        }
        if looks > 0 {
            looks -= 1;
            drop(black_box(Vec::<u8>::with_capacity(LARGE)));
        }
        before = now;
    }
}
