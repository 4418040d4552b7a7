//! How long a connection to the backend took to come about.

use std::time::{Duration, Instant};

use crate::runtime::clock;

/// How far the connection of the current attempt has come. In 32 bits of microseconds, because each request has one: what took
/// more, 71 minutes, is not told.
#[derive(Clone, Copy)]
pub(super) enum Connect {
    /// None was made for this request, or not yet.
    No,
    /// So long after the request came.
    Begun { after_us: u32 },
    /// It took so long.
    Done { us: u32 },
}

impl Connect {
    /// It is asked for `after` the request came.
    pub(super) fn begin(after: Duration) -> Self {
        micros(after).map_or(Self::No, |after_us| Self::Begun { after_us })
    }

    /// It stands; `started`: the request came. How long it took, where that was not told before.
    pub(super) fn stands(&mut self, started: Instant) -> Option<Duration> {
        let Self::Begun { after_us } = *self else { return None };
        let begun = started + Duration::from_micros(after_us.into());
        let took = clock::now().saturating_duration_since(begun);
        *self = micros(took).map_or(Self::No, |us| Self::Done { us });
        Some(took)
    }

    /// How long it took.
    pub(super) fn took(self) -> Option<Duration> {
        match self {
            Self::Done { us } => Some(Duration::from_micros(us.into())),
            Self::No | Self::Begun { .. } => None,
        }
    }
}

fn micros(time: Duration) -> Option<u32> {
    u32::try_from(time.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_more_than_an_hour_is_not_told_wrong() {
        let (hour, now) = (Duration::from_secs(3600), clock::now());
        let mut connect = Connect::begin(Duration::ZERO);
        assert_eq!(connect.took(), None, "not yet");
        let took = connect.stands(now).expect("it stands");
        assert!(took < hour && connect.took() == Some(Duration::from_micros(took.as_micros() as u64)));
        assert_eq!(connect.stands(now), None, "told once");

        let mut late = Connect::begin(2 * hour);
        assert_eq!((late.stands(now), late.took()), (None, None));
    }
}
