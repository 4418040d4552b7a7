//! The only place that asks what time it is. Domain code takes `now` as an argument.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// The same, some milliseconds late: for deadlines, which it serves as well at a tenth of the cost.
pub fn coarse() -> Instant {
    thread_local! {
        /// An instant, and what the coarse clock showed then.
        static BASE: (Instant, Duration) = (now(), coarse_reading());
    }
    BASE.with(|(base, reading)| *base + coarse_reading().saturating_sub(*reading))
}

fn coarse_reading() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from).unwrap_or_default()
}

/// Wall-clock time of an instant of late, since 1970, UTC. A clock that is set shows after a second.
pub fn unix_of(instant: Instant) -> Duration {
    thread_local! {
        /// One moment by both clocks.
        static BASE: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }
    if let Some((base, wall)) = BASE.get()
        && let Some(later) = instant.checked_duration_since(base)
        && later < Duration::from_secs(1)
    {
        return wall + later;
    }
    let (base, wall) = (now(), unix());
    BASE.set(Some((base, wall)));
    match instant.checked_duration_since(base) {
        Some(later) => wall + later,
        None => wall.saturating_sub(base - instant),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree() {
        for _ in 0..3 {
            let (fine, coarse) = (now(), coarse());
            let apart = fine.max(coarse) - fine.min(coarse);
            assert!(apart < Duration::from_millis(500), "{apart:?}");
            for instant in [fine, fine - Duration::from_secs(5), fine + Duration::from_millis(10)] {
                let wall = unix_of(instant);
                let true_wall =
                    (unix() + instant.saturating_duration_since(fine)).saturating_sub(fine - instant.min(fine));
                let apart = wall.max(true_wall) - wall.min(true_wall);
                assert!(apart < Duration::from_millis(500), "{apart:?}");
            }
        }
    }
}
