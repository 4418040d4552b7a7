//! Reading a host without copying it.

use std::cmp::Ordering;

/// The name within an authority: without port, brackets and one trailing dot (the DNS root), in whatever case it came.
///
/// Total: an authority that is none comes back as something no pattern equals.
pub(super) fn bare(authority: &str) -> &str {
    let name = match authority.strip_prefix('[') {
        Some(rest) => return rest.split_once(']').map_or(authority, |(address, _)| address),
        None => match memchr::memchr(b':', authority.as_bytes()) {
            // More than one colon and no brackets: an IPv6 address without a port.
            Some(at) if memchr::memchr(b':', &authority.as_bytes()[at + 1..]).is_some() => return authority,
            Some(at) => &authority[..at],
            None => authority,
        },
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// A pattern's name as the table keeps it.
pub(super) fn normal(pattern: &str) -> String {
    bare(pattern).to_ascii_lowercase()
}

/// Order of names, without regard to ASCII case.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    a.bytes().map(|b| b.to_ascii_lowercase()).cmp(b.bytes().map(|b| b.to_ascii_lowercase()))
}

/// Every `.suffix` that has at least one character before it, longest first. None for what is longer than a DNS name
/// may be (RFC 1035 §2.3.4), so that a long header cannot buy a long search.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    let name = if name.len() <= NAME_BYTES_MAX { name } else { "" };
    name.char_indices().filter(|&(at, c)| at > 0 && c == '.').map(|(at, _)| &name[at..])
}

const NAME_BYTES_MAX: usize = 253;
