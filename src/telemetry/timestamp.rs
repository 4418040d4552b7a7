//! A moment as logs and the admin endpoint write it: RFC 3339, milliseconds, UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in wall-clock time, held as the time since 1970 in UTC; prints as `2026-08-21T09:30:00.125Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// `unix` is the time since 1970, UTC. Moments after the year 9999 become its end: RFC 3339 has no later ones.
    pub const fn from_unix(unix: Duration) -> Self {
        Self(if unix.as_millis() < LAST.as_millis() { unix } else { LAST })
    }

    /// Time since 1970, UTC.
    pub fn unix(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(UNIX_EPOCH + self.0).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseTimestampError(text.to_owned());
        let time = humantime::parse_rfc3339(text).map_err(|_| wrong())?;
        time.duration_since(UNIX_EPOCH).map(Self::from_unix).map_err(|_| wrong())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time such as `2026-08-21T09:30:00.125Z`")]
pub struct ParseTimestampError(String);

/// 9999-12-31T23:59:59.999Z.
const LAST: Duration = Duration::from_millis(253_402_300_799_999);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_with_milliseconds_in_utc() {
        assert_eq!(Timestamp::from_unix(Duration::ZERO).to_string(), "1970-01-01T00:00:00.000Z");
        let leap_day = Timestamp::from_unix(Duration::from_millis(1_709_208_000_125));
        assert_eq!(leap_day.to_string(), "2024-02-29T12:00:00.125Z");
        assert_eq!(leap_day.to_string().parse(), Ok(leap_day));
    }

    #[test]
    fn no_moment_is_too_late_to_be_written() {
        assert_eq!(Timestamp::from_unix(Duration::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
