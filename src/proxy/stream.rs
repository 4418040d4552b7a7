//! A byte stream of either side: TCP or a unix socket, plain or under TLS.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use crate::runtime::scratch;

/// A socket without TLS.
#[derive(Debug)]
pub enum Socket {
    /// TCP over IPv4 or IPv6; `TCP_NODELAY` is set.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// A socket, plain or under TLS (server or client side).
#[derive(Debug)]
pub enum Stream {
    /// Plain.
    Plain(Socket),
    /// Under TLS; boxed, because rustls' state is large.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// The socket underneath.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(s) => s,
            Self::Tls(t) => t.get_ref().0,
        }
    }
}

impl Stream {
    /// The TCP socket, where nothing lies between it and us.
    pub fn plain_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(Socket::Tcp(socket)) => Some(socket),
            Self::Plain(Socket::Unix(_)) | Self::Tls(_) => None,
        }
    }
}

/// Where in a page the payload of a record of TLS 1.3 is that rustls makes: behind the record's head (RFC 8446 §5.2). In TLS 1.2
/// other bytes lie between.
const PAYLOAD_PLACE: usize = 5;

impl Stream {
    /// What of it is best written at once.
    fn piece<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Plain(_) => bytes,
            Self::Tls(_) => scratch::fast_piece(bytes, PAYLOAD_PLACE),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Unix(s) => s.as_raw_fd(),
        }
    }
}

impl Socket {
    /// All of it.
    fn piece<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
    }

    /// Waits for the first byte and leaves it to be read; `None` where that cannot be known without reading it (a unix
    /// socket) or the other side has ended.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub async fn first_byte(&self) -> io::Result<Option<u8>> {
        let Self::Tcp(socket) = self else { return Ok(None) };
        let mut byte = [0];
        let n = socket.peek(&mut byte).await?;
        Ok((n > 0).then_some(byte[0]))
    }
}

/// Calls one method on whichever variant is there.
macro_rules! either {
    ($type:ident, $($variant:ident),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_read(cx, buf)),+ }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                let buf = self.piece(buf);
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_write(cx, buf)),+ }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_flush(cx)),+ }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_shutdown(cx)),+ }
            }

            fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_write_vectored(cx, bufs)),+ }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $(Self::$variant(s) => s.is_write_vectored()),+ }
            }
        }
    };
}

either!(Socket, Tcp, Unix);
either!(Stream, Plain, Tls);
