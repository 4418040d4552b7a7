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
}
