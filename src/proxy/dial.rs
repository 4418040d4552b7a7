//! Connecting to a backend: name to address, address to socket, socket to TLS.
//!
//! It decides nothing about health: it says precisely what
//! happened, and [`DialError::Refused`] only when nobody listens.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsStream;

use crate::proxy::request::NotConnected;
use crate::proxy::stream::{Socket, Stream};
use crate::types::BackendAddress;

mod tls;
pub use self::tls::{UpstreamTlsConfig, UpstreamTlsError};

/// Connects, all of it within `timeout`: name resolution, TCP, handshake. The socket sends without delay and notices a
/// peer that vanished within 30 s. Cancel-safe: what was begun is dropped.
///
/// # Errors
/// [`DialError`].
pub async fn connect(
    address: &BackendAddress,
    tls: Option<&UpstreamTlsConfig>,
    timeout: Duration,
) -> Result<Stream, DialError> {
    let dial = async {
        let socket = match address {
            BackendAddress::Inet { host, port } => Socket::Tcp(tcp(host, *port).await?),
            BackendAddress::Unix(path) => Socket::Unix(unix(path).await?),
        };
        match tls {
            None => Ok(Stream::Plain(socket)),
            Some(tls) => Ok(Stream::Tls(Box::new(TlsStream::Client(tls.handshake(socket).await.map_err(tls_error)?)))),
        }
    };
    let failure = match tokio::time::timeout(timeout, dial).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::TimedOut,
    };
    let address = address.clone();
    Err(match failure {
        Failure::Refused => DialError::Refused { address },
        Failure::TimedOut => DialError::TimedOut { address, timeout },
        Failure::Resolve(source) => DialError::Resolve { address, source },
        Failure::Tls(source) => DialError::Tls { address, source },
        Failure::Io(source) => DialError::Io { address, source },
    })
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens: the port refused, or the unix socket is gone.
    #[error("`{address}` refused the connection")]
    Refused {
        /// Whom we dialled.
        address: BackendAddress,
    },
    /// Not done in time, whichever step it was.
    #[error("no connection to `{address}` within {}", humantime::format_duration(*timeout))]
    TimedOut {
        /// Whom we dialled.
        address: BackendAddress,
        /// What was allowed.
        timeout: Duration,
    },
    /// The name has no address.
    #[error("the name in `{address}` does not resolve")]
    Resolve {
        /// Whom we dialled.
        address: BackendAddress,
        /// What the resolver said.
        source: io::Error,
    },
    /// The handshake failed; most often the certificate is not trusted or has another name.
    #[error("TLS handshake with `{address}` failed")]
    Tls {
        /// Whom we dialled.
        address: BackendAddress,
        /// What rustls said.
        source: rustls::Error,
    },
    /// Anything else: no route, no descriptors, closed in the handshake.
    #[error("no connection to `{address}`")]
    Io {
        /// Whom we dialled.
        address: BackendAddress,
        /// What the system said.
        source: io::Error,
    },
}

impl DialError {
    /// A closed list for metrics and logs.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::TimedOut { .. } => "timed_out",
            Self::Resolve { .. } => "resolve",
            Self::Tls { .. } => "tls",
            Self::Io { .. } => "io",
        }
    }
}

impl From<&DialError> for NotConnected {
    fn from(error: &DialError) -> Self {
        match error {
            _ if error.is_local() => Self::Shortage,
            DialError::Refused { .. } => Self::Refused,
            DialError::TimedOut { .. } => Self::TimedOut,
            DialError::Tls { .. } => Self::Tls,
            DialError::Resolve { .. } | DialError::Io { .. } => Self::Failed,
        }
    }
}

impl DialError {
    /// This process or machine ran out of something: it says nothing of the backend.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_shortage(source))
    }
}

/// Descriptors, memory or local ports are used up.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}

/// [`DialError`] before it is said of whom.
enum Failure {
    Refused,
    TimedOut,
    Resolve(io::Error),
    Tls(rustls::Error),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            // The kernel's own patience can be shorter than ours (tcp_syn_retries).
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// The next address is tried after this, even if the one before has not answered (RFC 8305 §5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Failure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(tcp_to((address, port).into()).await?);
    }
    let resolved = tokio::net::lookup_host((host, port)).await.map_err(Failure::Resolve)?;
    let addresses = interleave(resolved.collect());
    match addresses[..] {
        [] => Err(Failure::Resolve(io::Error::new(io::ErrorKind::NotFound, "no address"))),
        [address] => Ok(tcp_to(address).await?),
        _ => first_of(addresses).await,
    }
}

/// Alternates between the families, in the resolver's order within each (RFC 8305 §4).
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut mixed = Vec::with_capacity(ADDRESSES_MAX);
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed.truncate(ADDRESSES_MAX);
    mixed
}

/// The first address that answers; the caller's timeout bounds it. The tasks end when the set is dropped.
async fn first_of(addresses: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut worst: Option<Failure> = None;
    loop {
        let next = waiting.next();
        let has_next = next.is_some();
        if let Some(address) = next {
            attempts.spawn(tcp_to(address));
        }
        loop {
            let pause = async {
                match has_next {
                    true => tokio::time::sleep(NEXT_ADDRESS).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                done = attempts.join_next() => match done {
                    Some(Ok(Ok(stream))) => return Ok(stream),
                    Some(Ok(Err(error))) => {
                        worst = Some(more_telling(worst, error.into()));
                        if has_next { break }
                    }
                    Some(Err(lost)) => worst = Some(more_telling(worst, Failure::Io(io::Error::other(lost)))),
                    None if has_next => break,
                    None => return Err(worst.unwrap_or(Failure::Refused)),
                },
                () = pause => break,
            }
        }
    }
}

/// Of several addresses that failed: a timeout leaves it open whether somebody listens, a refusal says that nobody does,
/// and anything else (no route for that family) says little.
fn more_telling(a: Option<Failure>, b: Failure) -> Failure {
    let rank = |f: &Failure| match f {
        Failure::TimedOut => 2,
        Failure::Refused => 1,
        _ => 0,
    };
    match a {
        Some(a) if rank(&a) >= rank(&b) => a,
        _ => b,
    }
}

/// Keepalive only sees an idle line; this sees data nobody acknowledges (tcp(7), RFC 5482).
///
/// It also counts while a living peer takes nothing, as a program does that computes; so it is longer than one waits for an answer.
pub const USER_TIMEOUT: Duration = Duration::from_secs(310);

async fn tcp_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    {
        let socket = SockRef::from(&socket);
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    }
    socket.connect(address).await
}

async fn unix(path: &Path) -> Result<UnixStream, Failure> {
    let mut pause = Duration::from_millis(2);
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            // A full queue is no refusal: TCP would wait, a unix socket says EAGAIN at once (connect(2)).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Failure::Refused),
            Err(error) => return Err(error.into()),
        }
    }
}

fn tls_error(error: io::Error) -> Failure {
    match error.downcast::<rustls::Error>() {
        Ok(error) => Failure::Tls(error),
        Err(error) => Failure::Io(error),
    }
}

#[cfg(test)]
mod tests;
