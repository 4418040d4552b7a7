//! How a session ended.

/// Why a tunnel is over. The order is the index used by [`EndCause::from_index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EndCause {
    /// The client closed: by a Close frame, or in order where there are no frames.
    ClientClosed,
    /// The backend closed in the same way.
    UpstreamClosed,
    /// The client's connection ended without a Close frame.
    ClientLost,
    /// The backend's connection ended without a Close frame: it died, or was stopped without a word.
    UpstreamLost,
    /// The client answered no ping.
    PingTimeout,
    /// Neither side said anything for `idle_timeout`.
    Idle,
    /// Its backend's drain reached the deadline.
    Drained,
    /// The process left.
    Shutdown,
}

impl EndCause {
    /// Every cause, in order.
    pub const ALL: [Self; 8] = [
        Self::ClientClosed,
        Self::UpstreamClosed,
        Self::ClientLost,
        Self::UpstreamLost,
        Self::PingTimeout,
        Self::Idle,
        Self::Drained,
        Self::Shutdown,
    ];

    /// The cause of this number; [`EndCause::Shutdown`] for a number that is none.
    pub fn from_index(index: u8) -> Self {
        Self::ALL.get(usize::from(index)).copied().unwrap_or(Self::Shutdown)
    }

    /// Name in log and metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::ClientLost => "client_lost",
            Self::UpstreamLost => "upstream_lost",
            Self::PingTimeout => "ping_timeout",
            Self::Idle => "idle",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
        }
    }

    /// The user lost a session that neither side had closed.
    pub fn is_loss(self) -> bool {
        !matches!(self, Self::ClientClosed | Self::UpstreamClosed)
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub cause: EndCause,
    /// The code of the first Close frame (RFC 6455 §7.4); `None` without one, or when it carried none.
    pub close_code: Option<u16>,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
}
