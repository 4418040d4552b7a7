//! A number of bytes as people write it: `64KiB`, `10 MB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Text is a whole number and a unit, with at most one space between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// The text is not a whole number with one of the units, or exceeds 2⁶⁴ - 1 bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size")]
pub struct ParseSizeError(String);

impl ByteSize {
    /// A size of this many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of this many KiB; saturates.
    pub const fn kib(count: u64) -> Self {
        Self(count.saturating_mul(1024))
    }

    /// A size of this many MiB; saturates.
    pub const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(1024 * 1024))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSizeError(text.to_owned());
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(end);
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*factor).map(Self).ok_or_else(wrong)
    }
}

/// The largest binary unit that leaves a whole number.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().rev().filter(|(name, _)| name.contains('i'));
        match binary.into_iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Ascending within binary and within decimal units (IEC 80000-13).
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [("0B", 0), ("64KiB", 65_536), ("10 MB", 10_000_000), ("16777215TiB", 16_777_215 << 40)] {
            assert_eq!(text.parse(), Ok(ByteSize::new(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "64", "KiB", "64kib", "-1B", "1.5MiB", "64  KiB", "16777216TiB", "99999999999999999999B"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_in_their_largest_whole_unit_and_read_back() {
        for (bytes, text) in [(0, "0B"), (1000, "1000B"), (65_536, "64KiB"), (1 << 20, "1MiB"), (3 << 40, "3TiB")] {
            assert_eq!(ByteSize::new(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize::new(bytes)));
        }
    }
}
