//! The only place that asks what time it is. Domain code takes `now` as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock seconds since 1970, UTC.
pub fn unix_seconds() -> u64 {
    unix().as_secs()
}

/// Wall-clock time since 1970, UTC; zero if the clock stands before it.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
