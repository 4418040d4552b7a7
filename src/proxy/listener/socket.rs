//! A bound, listening socket: IPv4, IPv6 or unix.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::{TcpStream, UnixStream};

use crate::proxy::stream::Socket;
use crate::runtime::socket_file::SocketFile;
use crate::types::ListenAddress;

/// Connections the kernel queues before it drops more (bounded by net.core.somaxconn).
pub(super) const BACKLOG: i32 = 4096;

/// A listening socket that no event loop knows yet; a unix socket's file goes with it.
#[derive(Debug)]
pub struct Bound {
    kind: Kind,
    address: ListenAddress,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "held for its drop")] SocketFile),
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    place: Place,
    /// The client's address; `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// The local port; 0 for a unix socket.
    pub port: u16,
}

#[derive(Debug)]
enum Place {
    /// With the event loop of the thread that accepted it.
    Here(Socket),
    /// On its way to another.
    Nowhere(OwnedFd),
}

impl Accepted {
    /// Leaves the event loop of this thread for another's.
    ///
    /// # Errors
    /// The loop does not let go of it.
    pub fn leave(self) -> io::Result<Self> {
        let fd = match self.place {
            Place::Here(Socket::Tcp(socket)) => socket.into_std()?.into(),
            Place::Here(Socket::Unix(socket)) => socket.into_std()?.into(),
            Place::Nowhere(fd) => fd,
        };
        Ok(Self { place: Place::Nowhere(fd), ..self })
    }

    /// The socket, with the event loop of this thread: the one that accepted it, unless it has left that.
    ///
    /// # Errors
    /// The loop does not take it: no memory, or no descriptors.
    pub fn into_socket(self) -> io::Result<Socket> {
        match (self.place, self.client) {
            (Place::Here(socket), _) => Ok(socket),
            (Place::Nowhere(fd), Some(_)) => TcpStream::from_std(fd.into()).map(Socket::Tcp),
            (Place::Nowhere(fd), None) => UnixStream::from_std(fd.into()).map(Socket::Unix),
        }
    }
}

impl Bound {
    /// Binds and listens. IPv6 sockets take IPv6 only, so that `0.0.0.0:443` and `[::]:443` may stand side by side.
    ///
    /// # Errors
    /// What the system says; `AddrInUse` also for a unix socket somebody answers on.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        Self::bind_beside(address, &[])
    }

    /// As [`Self::bind`], where sockets of our own that overlap the address are still open (`127.0.0.1:443` when
    /// `0.0.0.0:443` is asked for) and will be closed soon. They share the port for this moment only: another process
    /// is refused before and after.
    ///
    /// # Errors
    /// See [`Self::bind`].
    pub fn bind_beside(address: &ListenAddress, ours: &[&Self]) -> io::Result<Self> {
        let ours: Vec<_> = ours.iter().filter_map(|b| b.as_tcp().map(SockRef::from)).collect();
        match address {
            ListenAddress::Inet(at) => {
                let socket = socket2::Socket::new(Domain::for_address(*at), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_nonblocking(true)?;
                socket.set_reuse_address(true)?;
                if at.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                // The kernel looks for others both when a socket is bound and when it starts to listen.
                let open = || socket.bind(&(*at).into()).and_then(|()| socket.listen(BACKLOG));
                if ours.is_empty() {
                    open()?;
                } else {
                    let share = |yes| {
                        ours.iter().try_for_each(|s| s.set_reuse_port(yes)).and_then(|()| socket.set_reuse_port(yes))
                    };
                    let opened = share(true).and_then(|()| open());
                    share(false)?;
                    opened?;
                }
                let listener = TcpListener::from(socket);
                let address = ListenAddress::Inet(listener.local_addr()?);
                Ok(Self { kind: Kind::Tcp(listener), address })
            }
            ListenAddress::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                // Whoever may enter the folder may connect, as with a port.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                Ok(Self { kind: Kind::Unix(listener, SocketFile::of(path)?), address: address.clone() })
            }
        }
    }

    fn as_tcp(&self) -> Option<&TcpListener> {
        match &self.kind {
            Kind::Tcp(listener) => Some(listener),
            Kind::Unix(..) => None,
        }
    }

    /// Where it is bound, with the port the kernel chose.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Opens it to the event loop of this thread.
    ///
    /// # Errors
    /// The loop does not take it: no memory, or no descriptors.
    pub fn open(&self) -> io::Result<Door> {
        Ok(match (&self.kind, &self.address) {
            (Kind::Tcp(listener), ListenAddress::Inet(at)) => {
                Door::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?, at.port())
            }
            (Kind::Tcp(listener), ListenAddress::Unix(_)) => {
                Door::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?, 0)
            }
            (Kind::Unix(listener, _), _) => Door::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?),
        })
    }
}

/// A listening socket that an event loop knows.
#[derive(Debug)]
pub enum Door {
    /// With its port.
    Tcp(tokio::net::TcpListener, u16),
    /// A unix socket.
    Unix(tokio::net::UnixListener),
}

impl Door {
    /// The next connection, known to this thread's event loop. Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, port) => {
                let (socket, client) = listener.accept().await?;
                // Both fail only when the client is gone already, which its connection will notice by itself.
                let keepalive = socket2::TcpKeepalive::new().with_time(std::time::Duration::from_secs(60));
                let _ = socket.set_nodelay(true);
                let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                Ok(Accepted { place: Place::Here(Socket::Tcp(socket)), client: Some(client), port: *port })
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok(Accepted { place: Place::Here(Socket::Unix(socket)), client: None, port: 0 })
            }
        }
    }
}

/// Removes a socket nobody answers on, as a killed process leaves it behind; anything else is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
