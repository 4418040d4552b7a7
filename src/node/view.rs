//! When a repository is looked at: now, or as it was at the end of a day (UTC) that is over.

use std::time::Duration;

use super::error::Failure;
use crate::runtime::clock;

/// A moment of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    as_of: i64,
}

impl View {
    /// As URLs call now.
    pub const LATEST: &'static str = "latest";

    /// As repositories are now.
    pub const NOW: Self = Self { as_of: i64::MAX };

    /// Reads `latest` or `2026-11-21`.
    ///
    /// # Errors
    /// 404: it is neither, or the day is not over, so that its snapshot could still change.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text == Self::LATEST {
            return Ok(Self::NOW);
        }
        let end = end_of(text).ok_or_else(|| {
            Failure::not_found(format_args!("page here: `{text}` is neither `latest` nor a day such as `2026-01-31`"))
        })?;
        if end > clock::unix() {
            return Err(Failure::not_found(format_args!(
                "snapshot of {text}: a day's snapshot is there when the day is over (UTC); `latest` is now"
            )));
        }
        Ok(Self { as_of: i64::try_from(end.as_micros()).unwrap_or(i64::MAX) })
    }

    /// What came at this time or later is not seen; microseconds since 1970.
    pub fn as_of(self) -> i64 {
        self.as_of
    }
}

/// The first moment after a day.
fn end_of(day: &str) -> Option<Duration> {
    let is_written_so = day.len() == 10 && day.is_ascii() && day.as_bytes()[4] == b'-' && day.as_bytes()[7] == b'-';
    let start = humantime::parse_rfc3339(&format!("{day}T00:00:00Z")).ok().filter(|_| is_written_so)?;
    Some(start.duration_since(std::time::UNIX_EPOCH).ok()? + Duration::from_secs(24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_over_are_views() {
        assert_eq!(View::parse("latest").unwrap().as_of(), i64::MAX);
        assert_eq!(View::parse("1970-01-02").unwrap().as_of(), 2 * 86_400 * 1_000_000);
        assert_eq!(View::parse("2024-02-29").unwrap().as_of(), 1_709_251_200_000_000);
        for wrong in
            ["2023-02-29", "2024-13-01", "2024-1-1", "yesterday", "", "2024-01-01T", "9999-01-01", "2024/01/01"]
        {
            assert!(View::parse(wrong).is_err(), "{wrong}");
        }
    }
}
