//! Where something listens or is dialled: `host:port`, `[v6]:port` or `unix:/path`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to accept connections on: a socket address, never a name, or a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IPv4 or IPv6 address and a port; port 0 lets the kernel choose.
    Inet(SocketAddr),
    /// A unix socket, created on bind.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether both cannot be bound at once. IPv6 sockets are bound for IPv6 only, so `0.0.0.0` and `[::]` do not clash;
    /// port 0 is a new port each time.
    pub fn clashes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Inet(a), Self::Inet(b)) => {
                let is_wildcard = |at: &SocketAddr| at.ip().is_unspecified();
                let same_family = a.is_ipv4() == b.is_ipv4();
                a.port() != 0
                    && a.port() == b.port()
                    && (a.ip() == b.ip() || same_family && (is_wildcard(a) || is_wildcard(b)))
                    && !different_links(a, b)
            }
            _ => false,
        }
    }
}

/// The same link-local address exists on every link (RFC 4007 §6).
fn different_links(a: &SocketAddr, b: &SocketAddr) -> bool {
    match (a, b) {
        (SocketAddr::V6(a), SocketAddr::V6(b)) => a.ip() == b.ip() && a.scope_id() != b.scope_id(),
        _ => false,
    }
}

/// An address to dial: a name or IP address with a port, or a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `host` is a DNS name or an IP address without brackets.
    Inet {
        /// DNS name or IP address, without brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// An existing unix socket.
    Unix(PathBuf),
}

/// Why an address could not be read; the message says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {why}")]
pub struct ParseAddressError {
    text: String,
    why: &'static str,
}

impl ParseAddressError {
    /// What is wrong, without the text.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

impl FromStr for ListenAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(text, path).map(Self::Unix);
        }
        text.parse().map(Self::Inet).map_err(|_| ParseAddressError {
            text: text.to_owned(),
            why: "expected `IP:PORT` such as `0.0.0.0:443` or `[::]:443`, or `unix:/absolute/path`",
        })
    }
}

impl FromStr for BackendAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(text, path).map(Self::Unix);
        }
        let wrong = |why| ParseAddressError { text: text.to_owned(), why };
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("expected `host:port` such as `10.0.0.11:3939`, or `unix:/absolute/path`"))?;
        let port: u16 = port.parse().map_err(|_| wrong("the port is not a number from 1 to 65535"))?;
        if port == 0 {
            return Err(wrong("the port is not a number from 1 to 65535"));
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_ip = host.parse::<std::net::IpAddr>().is_ok();
        if bare.is_none() && host.contains(':') {
            return Err(wrong("an IPv6 address needs brackets, as in `[::1]:3939`"));
        }
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host.split('.').all(|l| {
                !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        if !is_ip && (bare.is_some() || !is_name) {
            return Err(wrong("the host is neither a name nor an IP address"));
        }
        Ok(Self::Inet { host: host.to_owned(), port })
    }
}

fn unix_path(text: &str, path: &str) -> Result<PathBuf, ParseAddressError> {
    // sun_path holds 108 bytes with its terminating zero (unix(7)).
    let why = match path {
        p if !p.starts_with('/') => "the path of a unix socket must be absolute",
        p if p.len() > 107 => "the path of a unix socket may have 107 bytes at most",
        p => return Ok(PathBuf::from(p)),
    };
    Err(ParseAddressError { text: text.to_owned(), why })
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(a) => a.fmt(f),
            Self::Unix(p) => write!(f, "unix:{}", p.display()),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Inet { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(p) => write!(f, "unix:{}", p.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["10.0.0.1:80", "[::1]:443", "node-a.internal:3939", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<BackendAddress>().expect(text).to_string(), text);
        }
        for text in ["0.0.0.0:443", "[::]:0", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<ListenAddress>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "host", "host:", "host:0", "host:70000", "::1:80", "unix:relative", "a b:80", "[host]:80", ":80"]
        {
            assert!(text.parse::<BackendAddress>().is_err(), "{text}");
        }
        for text in ["localhost:80", "1.2.3.4", "unix:"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_clash_when_both_cannot_be_bound() {
        let cases = [
            ("0.0.0.0:443", "0.0.0.0:443", true),
            ("0.0.0.0:443", "10.0.0.1:443", true),
            ("10.0.0.1:443", "10.0.0.2:443", false),
            ("10.0.0.1:443", "10.0.0.1:80", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
            ("[::]:443", "[::1]:443", true),
            ("[::]:443", "0.0.0.0:443", false),
            ("[::]:443", "10.0.0.1:443", false),
            ("[fe80::1%2]:443", "[fe80::1%3]:443", false),
            ("unix:/run/a.sock", "unix:/run//a.sock", true),
            ("unix:/run/a.sock", "unix:/run/b.sock", false),
            ("unix:/run/a.sock", "0.0.0.0:443", false),
        ];
        for (a, b, expected) in cases {
            let (x, y): (ListenAddress, ListenAddress) = (a.parse().expect(a), b.parse().expect(b));
            assert_eq!((x.clashes_with(&y), y.clashes_with(&x)), (expected, expected), "{a} and {b}");
        }
    }
}
