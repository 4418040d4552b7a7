//! Bytes that must not show up in a log line.

use std::fmt;

/// A secret whose `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value so that it cannot be printed by accident.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; say it where it is used.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
