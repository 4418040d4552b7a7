//! Upgraded connections: our own pumps, frame-aware for websockets.
//!
//! Bytes pass unchanged and in order. What the tunnel adds are pings to a quiet browser, at frame boundaries, whose
//! answers it takes out again; what it never adds is a Close frame, because after one Shiny's client does not come back.
//! An idle tunnel holds two sockets, a timer and no buffer.

mod end;
mod pump;

use std::time::Duration;

use bytes::Bytes;

pub use self::end::{End, EndCause};
pub use self::pump::Pump;
use super::ledger::Session;
use super::stream::Stream;
use crate::shiny::frames;

/// Both sides of an upgrade, and how they are to be treated.
#[derive(Debug)]
pub struct Tunnel {
    /// The client.
    pub client: Stream,
    /// The backend.
    pub upstream: Stream,
    /// Read from the client already, behind its request.
    pub to_upstream: Bytes,
    /// The head of the 101, and what followed it from the backend.
    pub to_client: Bytes,
    /// Length of that head: no frames yet.
    pub head_len: usize,
    /// RFC 6455 is spoken: frames are followed, the client is pinged.
    pub is_websocket: bool,
    /// A websocket client that was silent for so long is pinged, and again; after two pings without an answer it is
    /// gone.
    pub ping_after: Duration,
    /// Silence of both sides after which a tunnel ends that is not pinged: another protocol's, or one whose backend leaves
    /// no room between frames, or takes nothing.
    pub idle_timeout: Duration,
    /// Its entry in the ledger, which may tell it to end.
    pub session: Session,
}

impl Tunnel {
    /// What runs it to its end, when both connections are closed as soon as it is dropped. Dropping it earlier cuts the tunnel.
    pub fn start(self) -> Pump<Stream, Stream> {
        let ping_after = self.is_websocket.then_some(self.ping_after);
        let mut pump = Pump::new((self.client, self.upstream), ping_after, self.idle_timeout, self.session);
        pump.begin(&self.to_upstream, &self.to_client, self.head_len);
        pump
    }
}
