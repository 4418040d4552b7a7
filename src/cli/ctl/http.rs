//! A small blocking HTTP/1.1 client for the admin endpoint: one exchange a connection, every wait bounded.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::runtime::clock;

/// Where an admin endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A unix socket: reading and changing.
    Unix(PathBuf),
    /// `host:port`, an IPv6 address in brackets: reading.
    Http(String),
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Endpoint {
    /// Sends a request without body and waits for the whole answer.
    ///
    /// # Errors
    ///
    /// When nobody answers, not in time, or not as an admin endpoint does.
    pub(crate) fn exchange(&self, method: &str, target: &str) -> io::Result<Answer> {
        let limit = clock::now() + EXCHANGE_TIMEOUT;
        let mut socket = self.connect()?;
        let host = match self {
            Self::Unix(_) => "localhost",
            Self::Http(authority) => authority,
        };
        socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes())?;
        parse(&read(&mut socket, limit)?)
    }

    fn connect(&self) -> io::Result<Socket> {
        let dial = |address: &SockAddr| {
            let socket = Socket::new(address.domain(), Type::STREAM, None)?;
            socket.connect_timeout(address, CONNECT_TIMEOUT).map(|()| socket)
        };
        match self {
            Self::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.connect_timeout(&SockAddr::unix(path)?, CONNECT_TIMEOUT).map(|()| socket)
            }
            Self::Http(authority) => {
                let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
                for address in authority.to_socket_addrs()? {
                    outcome = dial(&address.into());
                    if outcome.is_ok() {
                        break;
                    }
                }
                outcome
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Http(authority) => write!(f, "http://{authority}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected `http://HOST:PORT` or the path of a unix socket";
        if let Some(authority) = text.strip_prefix("http://") {
            let authority = authority.strip_suffix('/').unwrap_or(authority);
            let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            let is_plain = authority.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@".contains(&b));
            return match port {
                Some(Ok(1..)) if is_plain => Ok(Self::Http(authority.to_owned())),
                _ => Err(EXPECTED.to_owned()),
            };
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.is_empty() || path.contains("://") {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self::Unix(path.into()))
    }
}

fn read(socket: &mut Socket, limit: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = limit.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // How Linux reports the end of a read timeout (socket(7), SO_RCVTIMEO).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(foreign());
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let (Ok(httparse::Status::Complete(length)), Some(status)) = (head.parse(bytes), head.code) else {
        return Err(foreign());
    };
    let field = head.headers.iter().find(|f| f.name.eq_ignore_ascii_case("content-length"));
    let body_bytes = field.and_then(|f| std::str::from_utf8(f.value).ok()).and_then(|v| v.parse::<usize>().ok());
    let body = &bytes[length..];
    match body_bytes {
        Some(expected) if expected == body.len() => {}
        Some(expected) if expected > body.len() => {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off"));
        }
        _ => return Err(foreign()),
    }
    Ok(Answer { status, body: String::from_utf8_lossy(body).into_owned() })
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is not how a Bowline admin endpoint answers")
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the endpoint itself waits for a reload.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(70);
/// More sessions than one process can hold.
const ANSWER_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_or_a_path() {
        let http = |authority: &str| Ok(Endpoint::Http(authority.into()));
        let unix = |path: &str| Ok(Endpoint::Unix(path.into()));
        assert_eq!("http://127.0.0.1:9443".parse(), http("127.0.0.1:9443"));
        assert_eq!("http://[::1]:9443/".parse(), http("[::1]:9443"));
        assert_eq!("/run/bowline/admin.sock".parse(), unix("/run/bowline/admin.sock"));
        assert_eq!("unix:/run/a.sock".parse(), unix("/run/a.sock"));
        assert_eq!("demo/admin.sock".parse(), unix("demo/admin.sock"));
        for text in ["", "https://127.0.0.1:9443", "http://host", "http://host:0", "http://host:1/x", "http://a b:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_that_is_not_whole_or_not_ours_is_refused() {
        let whole = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        assert_eq!((whole.status, whole.body.as_str()), (200, "ok"));
        for (bytes, kind) in [
            (&b""[..], io::ErrorKind::InvalidData),
            (b"SSH-2.0-OpenSSH_9.2\r\n", io::ErrorKind::InvalidData),
            (b"HTTP/1.1 200 OK\r\n\r\nok", io::ErrorKind::InvalidData),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok", io::ErrorKind::InvalidData),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", io::ErrorKind::UnexpectedEof),
        ] {
            assert_eq!(parse(bytes).unwrap_err().kind(), kind, "{bytes:?}");
        }
    }
}
