//! A length of time as people write it: `30s`, `1m 30s`, `500ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time whose text is a list of whole numbers with units, as `humantime` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

/// The text is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration")]
pub struct ParseDurationError(String);

impl HumanDuration {
    /// Wraps a length of time in order to print it.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// The length of time.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for HumanDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|_| ParseDurationError(text.to_owned()))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_printed() {
        for text in ["0s", "500ms", "30s", "1m 30s", "8h", "1day"] {
            assert_eq!(text.parse::<HumanDuration>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "30", "s", "-1s", "30 parsecs", "99999999999999999999y"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }
}
