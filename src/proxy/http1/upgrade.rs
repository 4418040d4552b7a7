//! The way into a tunnel: both sides have agreed to leave HTTP/1.1.

use std::sync::Arc;

use bytes::Bytes;

use crate::proxy::Proxy;
use crate::proxy::connection::head::Upgrade;
use crate::proxy::connection::{Downstream, Stream};
use crate::proxy::forward::Switched;
use crate::proxy::ledger::{Kind, Opening};
use crate::proxy::listener::Permit;
use crate::proxy::pool::SessionGuard;
use crate::proxy::request::{Context, End};
use crate::proxy::state::Backing;
use crate::proxy::tunnel::{Pump, Tunnel};
use crate::runtime::clock;

/// Hands both sides to the tunnel's own task, which outlives this connection's.
pub(super) fn open(proxy: &Proxy, mut context: Box<Context>, down: Downstream, switched: Switched, kind: Upgrade) {
    let Some((backing, backend)) = context.chosen() else { return };
    let timeouts = &backing.pool.settings().timeouts;
    let session = proxy.ledger().open(Opening {
        kind: match kind {
            Upgrade::Websocket => Kind::Websocket,
            Upgrade::Other => Kind::Upgrade,
        },
        backend: Arc::clone(backend),
        client: context.client_address(),
        now: clock::now(),
    });
    let guard = backend.begin_session();
    let backing = Arc::clone(backing);
    let tunnel = Tunnel {
        client: down.stream,
        upstream: switched.line,
        to_upstream: down.buf.freeze(),
        to_client: Bytes::from(switched.to_client),
        head_len: switched.head_len,
        is_websocket: kind == Upgrade::Websocket,
        ping_after: timeouts.tunnel_ping,
        idle_timeout: timeouts.tunnel_idle,
        session,
    };
    // The request is over, the session begins: it is counted by the guard, not among the requests in flight.
    let permit = down.permit;
    drop(down.facts);
    context.becomes_session();
    tokio::spawn(live(tunnel.start(), backing, (guard, permit), context));
}

/// A session's own task. Nothing is in it twice, as of an idle session it is the most.
#[expect(clippy::manual_async_fn, reason = "the future of a function would have room for the pump twice")]
fn live(
    mut pump: Pump<Stream, Stream>,
    backing: Arc<Backing>,
    seats: (SessionGuard, Permit),
    mut context: Box<Context>,
) -> impl Future<Output = ()> + Send {
    async move {
        let end = (&mut pump).await;
        // Whoever sees that a session is no longer counted finds its connections closed.
        drop(pump);
        backing.metrics.session_closed(end.close_code);
        if end.cause.is_loss() {
            backing.metrics.session_lost(end.cause.as_str());
        }
        drop(seats);
        context.finish(End {
            status: Some(101),
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            cause: None,
            upgraded: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Thousands of sessions idle for hours. With what tokio adds each takes 512 bytes.
    #[test]
    fn the_task_of_a_session_is_small() {
        let bytes = bytes_of(live);
        assert!(bytes <= 400, "{bytes} bytes");
    }
}
