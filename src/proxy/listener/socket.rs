//! A bound, listening socket: IPv4, IPv6 or unix.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::proxy::stream::Socket;
use crate::runtime::socket_file::SocketFile;
use crate::types::ListenAddress;

/// Connections the kernel queues before it drops more (bounded by net.core.somaxconn).
pub(super) const BACKLOG: i32 = 4096;

/// A listening socket; a unix socket's file goes with it.
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

/// A connection that was accepted. No event loop knows it yet: it belongs to the thread that makes a [`Socket`] of it.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    /// The client's address; `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// The local port; 0 for a unix socket.
    pub port: u16,
}

impl Accepted {
    /// The socket, on the event loop of this thread.
    ///
    /// # Errors
    /// The loop does not take it: no memory, or no descriptors.
    pub fn into_socket(self) -> io::Result<Socket> {
        match self.client {
            Some(_) => TcpStream::from_std(self.fd.into()).map(Socket::Tcp),
            None => UnixStream::from_std(self.fd.into()).map(Socket::Unix),
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
        let ours: Vec<_> = ours.iter().filter_map(|b| b.as_tcp().map(socket2::SockRef::from)).collect();
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
                let listener = TcpListener::from_std(socket.into())?;
                let address = ListenAddress::Inet(listener.local_addr()?);
                Ok(Self { kind: Kind::Tcp(listener), address })
            }
            ListenAddress::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
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

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (socket, client) = listener.accept().await?;
                // Both fail only when the client is gone already, which its connection will notice by itself.
                let keepalive = socket2::TcpKeepalive::new().with_time(std::time::Duration::from_secs(60));
                let _ = socket.set_nodelay(true);
                let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive);
                let port = match &self.address {
                    ListenAddress::Inet(at) => at.port(),
                    ListenAddress::Unix(_) => 0,
                };
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                Ok(Accepted { fd: socket.into_std()?.into(), client: Some(client), port })
            }
            Kind::Unix(listener, _) => {
                let (socket, _) = listener.accept().await?;
                Ok(Accepted { fd: socket.into_std()?.into(), client: None, port: 0 })
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
