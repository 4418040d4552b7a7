//! The time of day as HTTP writes it (RFC 9110 §5.6.7), made once a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use crate::runtime::clock;

/// Hands out the date of this moment, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(in crate::proxy) fn with<T>(then: impl FnOnce(&[u8]) -> T) -> T {
    thread_local! {
        /// A second, and its text.
        static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    LAST.with_borrow_mut(|(second, text)| {
        let now = clock::unix_seconds();
        if *second != now {
            (*second, *text) = (now, httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now)));
        }
        then(text.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_as_this_moment() {
        let told = with(|text| httpdate::parse_http_date(std::str::from_utf8(text).unwrap()).unwrap());
        let told = told.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((0..=1).contains(&(clock::unix_seconds() - told)));
    }
}
