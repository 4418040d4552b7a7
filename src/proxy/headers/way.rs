//! What is said to backends of a connection's way to us.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use super::{Known, put};
use crate::types::IpText;

/// Where the requests of a connection come from.
#[derive(Debug)]
pub struct Way {
    /// The peer; `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// Under TLS.
    pub is_tls: bool,
    /// The local port; 0 for a unix socket.
    pub port: u16,
    /// See [`Way::lines`].
    lines: OnceLock<Box<[u8]>>,
}

impl Way {
    /// Of a connection.
    pub fn new(client: Option<SocketAddr>, is_tls: bool, port: u16) -> Self {
        Self { client, is_tls, port, lines: OnceLock::new() }
    }

    /// Its address alone.
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client.map(|client| client.ip())
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static [u8] {
        if self.is_tls { b"https" } else { b"http" }
    }

    /// The fields of every request of the connection, where nobody else's account of the way counts. The last one is
    /// `Forwarded`, and of that the host and the end of the line are missing. Written once.
    pub(super) fn lines(&self) -> &[u8] {
        self.lines.get_or_init(|| {
            let mut out = Vec::new();
            let client = self.client_ip().map(IpText::new);
            let client = client.as_ref().map(IpText::as_bytes);
            if let Some(client) = client {
                put(&mut out, Known::XForwardedFor, &[client]);
            }
            put(&mut out, Known::XForwardedProto, &[self.scheme()]);
            if self.port != 0 {
                put(&mut out, Known::XForwardedPort, &[itoa::Buffer::new().format(self.port).as_bytes()]);
            }
            if let Some(client) = client {
                put(&mut out, Known::XRealIp, &[client]);
            }
            out.extend_from_slice(Known::Forwarded.as_line().as_bytes());
            self.forwarded(client, |piece| out.extend_from_slice(piece));
            out.into()
        })
    }

    /// No more requests come this way. Would one come all the same, they are written again.
    pub fn forget_lines(&mut self) {
        self.lines.take();
    }

    /// An element of `Forwarded` (RFC 7239 §4) up to the host, in pieces.
    pub(super) fn forwarded(&self, client: Option<&[u8]>, mut piece: impl FnMut(&[u8])) {
        // RFC 7239 §6: an IPv6 address stands in brackets and quotes.
        let (open, close): (&[u8], &[u8]) =
            if self.client.is_some_and(|client| client.is_ipv6()) { (b"\"[", b"]\"") } else { (b"", b"") };
        for part in [b"for=", open, client.unwrap_or(b"unknown"), close, b";proto=", self.scheme()] {
            piece(part);
        }
    }
}
