//! The stable name of a backend, which may travel in a cookie and in URLs of the admin endpoint.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A backend's key: 1 to 64 characters of `A-Z a-z 0-9 . _ -`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey(Arc<str>);

/// The key has characters or a length that would not survive in a cookie, a URL or a metric label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key: use 1 to 64 letters, digits, `.`, `_` or `-`")]
pub struct ParseKeyError(String);

impl BackendKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackendKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits =
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits { Ok(Self(text.into())) } else { Err(ParseKeyError(text.to_owned())) }
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
