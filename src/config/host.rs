//! Hosts of routes: written by people, compared with what browsers send.

use std::net::{IpAddr, Ipv6Addr};

use super::proxy::HostPattern;

/// Reads `*`, `*.example.org`, a name or an IP address (IPv6 in brackets); lower-cases it and takes a trailing dot off.
///
/// # Errors
/// Why the text is none of these.
pub(super) fn parse_pattern(text: &str) -> Result<HostPattern, &'static str> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    let lower = text.to_ascii_lowercase();
    let host = lower.strip_suffix('.').unwrap_or(&lower);
    if let Some(suffix) = host.strip_prefix("*.") {
        return match is_name(suffix) {
            true => Ok(HostPattern::Wildcard(format!(".{suffix}"))),
            false => Err("`*.` must be followed by a name"),
        };
    }
    if let Some(address) = bracketed(host) {
        // Browsers send the canonical form (RFC 5952).
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    if is_name(host) {
        return Ok(HostPattern::Exact(host.to_owned()));
    }
    Err(match host {
        "" => "it is empty; leave the key out for every host",
        host if !host.is_ascii() => "a name with other than ASCII letters is written as browsers send it, `xn--…`",
        host if host.parse::<IpAddr>().is_ok() => "an IPv6 address needs brackets",
        host if host.contains("://") || host.contains('/') => "it is a URL; the path has a key of its own",
        host if host.contains('*') => "`*` may only stand for whole labels at the front",
        host if host.contains(':') => "a route is for every port; leave the port out",
        _ => "a label has 1 to 63 letters, digits or `-`, a name 253 at most",
    })
}

/// Whether some host matches both.
pub(super) fn overlap(a: &HostPattern, b: &HostPattern) -> bool {
    use HostPattern::{Any, Exact, Wildcard};
    match (a, b) {
        (Any, _) | (_, Any) => true,
        (Exact(a), Exact(b)) => a == b,
        (Exact(exact), Wildcard(suffix)) | (Wildcard(suffix), Exact(exact)) => exact.ends_with(suffix.as_str()),
        (Wildcard(a), Wildcard(b)) => a.ends_with(b.as_str()) || b.ends_with(a.as_str()),
    }
}

/// A DNS name or an IP address; IPv6 with or without brackets. Any case.
pub(super) fn is_name_or_ip(text: &str) -> bool {
    is_name(&text.to_ascii_lowercase()) || text.parse::<IpAddr>().is_ok() || bracketed(text).is_some()
}

/// RFC 1123 §2.1, and the underscore that internal names have. Lower case. An IPv4 address is such a name too.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn bracketed(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_held_as_browsers_send_them() {
        let exact = |text: &str| HostPattern::Exact(text.to_owned());
        let cases = [
            ("*", HostPattern::Any),
            ("App.Example.ORG.", exact("app.example.org")),
            ("10.0.0.1", exact("10.0.0.1")),
            ("[0:0::1]", exact("[::1]")),
            ("*.Example.org", HostPattern::Wildcard(".example.org".to_owned())),
        ];
        for (text, pattern) in cases {
            assert_eq!(parse_pattern(text), Ok(pattern), "{text}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        let long = format!("{}.org", "x".repeat(64));
        for text in [
            "",
            ".",
            "a..b",
            "app:443",
            "https://app",
            "app/x",
            "*.",
            "*.*.org",
            "a.*",
            "::1",
            "bücher.de",
            "a b",
            &long,
        ] {
            assert!(parse_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_overlap_when_one_host_matches_both() {
        let pairs = [
            ("*", "a.org", true),
            ("a.org", "a.org", true),
            ("a.org", "b.org", false),
            ("*.org", "a.org", true),
            ("*.a.org", "a.org", false),
            ("*.a.org", "*.org", true),
            ("*.a.org", "*.b.org", false),
        ];
        for (a, b, expected) in pairs {
            let (x, y) = (parse_pattern(a).expect(a), parse_pattern(b).expect(b));
            assert_eq!((overlap(&x, &y), overlap(&y, &x)), (expected, expected), "{a} and {b}");
        }
    }
}
