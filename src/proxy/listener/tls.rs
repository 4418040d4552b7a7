//! The handshake: name in, certificate out, a stream on.
//!
//! A listener holds its [`ServerConfig`] as a live setting: a reload builds a new one, connections keep theirs. What must
//! outlive a reload, the ticket keys and the slot with the certificates, is handed in. It knows nothing of HTTP beyond
//! the two names in ALPN.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InvalidMessage, PeerIncompatible, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::config::proxy::{ListenerTls, TlsVersion};
use crate::proxy::certificates::Certificates;
use crate::proxy::stream::{Socket, Stream};

/// Keys that seal session tickets (RFC 5077, RFC 8446 §4.6.1).
///
/// With a ticket a returning client needs no full handshake, and we keep nothing for it. The keys are made anew every 6
/// hours and open for 12. Share one over all reloads of a listener, and not between listeners: a session resumed is not
/// authenticated again.
#[derive(Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    /// Fresh random keys, kept in memory only.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Self, rustls::Error> {
        ring::Ticketer::new().map(Self)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(***)")
    }
}

/// What a listener does in handshakes. Certificates are looked up in `certificates` at each one, so a swap there needs no
/// new configuration.
///
/// # Errors
/// Never with the versions and suites chosen here; rustls' builder says it could.
pub fn server_config(
    tls: &ListenerTls,
    certificates: Arc<ArcSwap<Certificates>>,
    tickets: &Tickets,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[_] = match tls.minimum {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(certificates)));
    config.alpn_protocols = match tls.http2 {
        true => vec![H2.to_vec(), HTTP11.to_vec()],
        false => vec![HTTP11.to_vec()],
    };
    config.ticketer = Arc::clone(&tickets.0);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed (RFC 8470), and nothing behind us is ready to judge that.
    config.max_early_data_size = 0;
    // All of ring's suites are strong, and the client knows whether it has hardware for AES.
    config.ignore_client_order = false;
    // Costs memory and time at each handshake for few bytes.
    config.cert_compressors = Vec::new();
    Ok(Arc::new(config))
}

/// A client after its handshake.
#[derive(Debug)]
pub struct Accepted {
    /// Always [`Stream::Tls`].
    pub stream: Stream,
    /// ALPN agreed on HTTP/2; otherwise HTTP/1.1, also without ALPN.
    pub is_h2: bool,
}

/// Does the server's part of a handshake, all of it within `timeout`. Not cancel-safe: dropping it drops the socket.
///
/// # Errors
/// [`HandshakeError`]; the client has been sent a TLS alert where the protocol has one, and the socket is closed.
pub async fn accept(socket: Socket, config: Arc<ServerConfig>, timeout: Duration) -> Result<Accepted, HandshakeError> {
    let handshake = TlsAcceptor::from(config).accept(socket);
    let stream = match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(HandshakeError { cause: HandshakeCause::of(&error), source: Some(error) }),
        Err(_) => return Err(HandshakeError { cause: HandshakeCause::TimedOut, source: None }),
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    Ok(Accepted { stream: Stream::Tls(Box::new(TlsStream::Server(stream))), is_h2 })
}

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("TLS handshake: {cause}")]
pub struct HandshakeError {
    /// Which kind.
    pub cause: HandshakeCause,
    /// What the socket or rustls said; `None` for a timeout.
    pub source: Option<io::Error>,
}

/// Why, as a closed list fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeCause {
    /// Not done in time.
    TimedOut,
    /// The client went away, as port scanners and health checks do.
    Closed,
    /// What came is not TLS; most often plain HTTP.
    NotTls,
    /// No TLS version in common.
    Version,
    /// No cipher suite, group or signature scheme in common.
    Parameters,
    /// The client offered protocols (RFC 7301), none of them ours.
    Alpn,
    /// There is no certificate for the client.
    NoCertificate,
    /// The client ended it by an alert; most often it does not trust the certificate.
    Alert,
    /// The client broke the protocol.
    Malformed,
    /// The socket failed.
    Io,
}

impl HandshakeCause {
    /// Every cause, in the order above.
    pub const ALL: [Self; 10] = [
        Self::TimedOut,
        Self::Closed,
        Self::NotTls,
        Self::Version,
        Self::Parameters,
        Self::Alpn,
        Self::NoCertificate,
        Self::Alert,
        Self::Malformed,
        Self::Io,
    ];

    /// For metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Parameters => "parameters",
            Self::Alpn => "alpn",
            Self::NoCertificate => "no_certificate",
            Self::Alert => "alert",
            Self::Malformed => "malformed",
            Self::Io => "io",
        }
    }

    fn of(error: &io::Error) -> Self {
        if let Some(error) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(error);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use PeerIncompatible as Peer;
        match error {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            rustls::Error::PeerIncompatible(
                Peer::Tls12NotOffered
                | Peer::Tls12NotOfferedOrEnabled
                | Peer::ServerDoesNotSupportTls12Or13
                | Peer::SupportedVersionsExtensionRequired,
            ) => Self::Version,
            rustls::Error::PeerIncompatible(_) => Self::Parameters,
            rustls::Error::NoApplicationProtocol => Self::Alpn,
            // What rustls says when a resolver has nothing: "no server certificate chain resolved".
            rustls::Error::General(_) => Self::NoCertificate,
            rustls::Error::AlertReceived(_) => Self::Alert,
            _ => Self::Malformed,
        }
    }
}

impl fmt::Display for HandshakeCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Asks the current certificates.
#[derive(Debug)]
struct Resolver(Arc<ArcSwap<Certificates>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().resolve_for(hello.server_name(), hello.signature_schemes())
    }
}

const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

#[cfg(test)]
mod tests;
