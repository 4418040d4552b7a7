//! Connections in: bind, accept within limits, shake hands, hand the stream on.
//!
//! Listeners are live settings: [`Listeners::prepare`] binds what is new before [`Listeners::commit`] closes what is gone, and a listener
//! whose address did not change keeps its socket while its other settings are swapped.

mod gate;
mod plain_http;
mod socket;
pub mod tls;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use self::gate::Gate;
pub use self::gate::Permit;
pub use self::socket::{Accepted, Bound};
use super::Proxy;
use super::connection::{self, Downstream, Facts};
use super::headers::Way;
use super::metrics::ListenerMetrics;
use super::stream::Stream;
use crate::config;
use crate::types::ListenAddress;

/// What connections of a listener are served by; replaced whole on reload.
#[derive(Debug)]
pub struct Current {
    /// The checked settings.
    pub settings: config::proxy::Listener,
    /// `Some`: https.
    pub tls: Option<Arc<ServerConfig>>,
    /// Its counters.
    pub metrics: Arc<ListenerMetrics>,
}

/// A listener that accepts.
#[derive(Debug)]
struct Listener {
    current: Arc<ArcSwap<Current>>,
    gate: Arc<Gate>,
    bound: Arc<Bound>,
    /// Set to true to stop accepting.
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// All listeners, by name.
#[derive(Debug, Default)]
pub struct Listeners {
    running: Vec<Listener>,
    /// Of listeners that no longer accept but still have connections.
    leaving: Vec<Arc<Gate>>,
}

/// A listener as the operator sees it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Its name.
    pub name: Arc<str>,
    /// The address it is bound to; the port the kernel chose for port 0.
    pub address: ListenAddress,
    /// Open connections, now.
    pub connections: Connections,
}

/// Counts a listener's open connections.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Gate>);

impl Connections {
    /// How many are open now.
    pub fn open(&self) -> usize {
        self.0.open()
    }
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot be bound to {address}: {source}")]
pub struct BindError {
    /// Name of the listener.
    pub name: Arc<str>,
    /// The address asked for.
    pub address: ListenAddress,
    /// What the system said.
    pub source: io::Error,
}

/// The next listeners with their sockets, in the order of the settings.
#[derive(Debug)]
pub struct Prepared(Vec<(Arc<Current>, Source)>);

/// Where a listener's socket comes from.
#[derive(Debug)]
enum Source {
    /// From the running listener with this gate.
    Kept(Arc<Gate>),
    /// Bound, but not yet accepting.
    New(Bound),
}

impl Listeners {
    /// Binds what the new settings need and does not run yet. Nothing that runs is touched.
    ///
    /// # Errors
    /// Every address that could not be bound.
    pub fn prepare(&self, wanted: Vec<Arc<Current>>) -> Result<Prepared, Vec<BindError>> {
        let (mut prepared, mut errors) = (Vec::with_capacity(wanted.len()), Vec::new());
        let kept = self.kept(&wanted);
        for (current, kept) in wanted.into_iter().zip(kept) {
            if let Some(gate) = kept {
                prepared.push((current, Source::Kept(gate)));
                continue;
            }
            // Only those that leave can overlap: addresses that clash within one configuration are refused by its check.
            let address = &current.settings.address;
            let overlaps = |l: &&Listener| l.bound.address().clashes_with(address);
            let ours: Vec<_> = self.running.iter().filter(overlaps).map(|l| &*l.bound).collect();
            match Bound::bind_beside(address, &ours) {
                Ok(bound) => prepared.push((current, Source::New(bound))),
                Err(source) => errors.push(BindError {
                    name: Arc::clone(&current.settings.name),
                    address: address.clone(),
                    source,
                }),
            }
        }
        if errors.is_empty() { Ok(Prepared(prepared)) } else { Err(errors) }
    }

    /// For each wanted listener the gate of the running one whose socket it takes over: of the same name and address, or
    /// else of the same address, for a socket cannot be bound twice and a name is only a name.
    fn kept(&self, wanted: &[Arc<Current>]) -> Vec<Option<Arc<Gate>>> {
        let mut free: Vec<&Listener> = self.running.iter().collect();
        let mut take = |fits: &dyn Fn(&Listener) -> bool| {
            free.iter().position(|l| fits(l)).map(|at| Arc::clone(&free.swap_remove(at).gate))
        };
        let by_name = |settings: &config::proxy::Listener| {
            take(&|l: &Listener| {
                let was = l.current.load();
                was.settings.name == settings.name && was.settings.address == settings.address
            })
        };
        let mut kept: Vec<_> = wanted.iter().map(|w| &w.settings).map(by_name).collect();
        for (place, current) in kept.iter_mut().zip(wanted).filter(|(place, _)| place.is_none()) {
            *place = take(&|l: &Listener| *l.bound.address() == current.settings.address);
        }
        kept
    }

    /// Starts the prepared, updates the kept, stops the rest. Established connections are not touched.
    pub fn commit(&mut self, proxy: &Arc<Proxy>, prepared: Prepared) {
        let mut before = std::mem::take(&mut self.running);
        for (current, source) in prepared.0 {
            match source {
                Source::New(bound) => self.running.push(start(Arc::clone(proxy), current, bound)),
                Source::Kept(gate) => {
                    if let Some(at) = before.iter().position(|l| Arc::ptr_eq(&l.gate, &gate)) {
                        let listener = before.swap_remove(at);
                        listener.gate.limit(current.settings.limits.connections);
                        listener.current.store(current);
                        self.running.push(listener);
                    }
                }
            }
        }
        self.leaving.retain(|gate| gate.open() > 0);
        for gone in before {
            let _ = gone.stop.send(true);
            self.leaving.push(gone.gate);
        }
    }

    /// Open connections, those of listeners that are gone included.
    pub fn open_connections(&self) -> usize {
        self.running.iter().map(|l| &l.gate).chain(&self.leaving).map(|gate| gate.open()).sum()
    }

    /// Stops accepting everywhere and waits until every socket is closed; connections go on.
    pub async fn stop(&mut self) {
        for listener in std::mem::take(&mut self.running) {
            let _ = listener.stop.send(true);
            let _ = listener.accepting.await;
            self.leaving.push(listener.gate);
        }
    }

    /// The listeners, in the order of the settings.
    pub fn listening(&self) -> Vec<Listening> {
        let row = |l: &Listener| Listening {
            name: Arc::clone(&l.current.load().settings.name),
            address: l.bound.address().clone(),
            connections: Connections(Arc::clone(&l.gate)),
        };
        self.running.iter().map(row).collect()
    }
}

fn start(proxy: Arc<Proxy>, current: Arc<Current>, bound: Bound) -> Listener {
    let gate = Gate::new(current.settings.limits.connections);
    let (stop, stopped) = watch::channel(false);
    let (current, bound) = (Arc::new(ArcSwap::from(current)), Arc::new(bound));
    // Where connections will be, so that most need not be handed to another thread.
    let thread = proxy.workers().turn();
    let accepting = thread.spawn(accept(proxy, Arc::clone(&bound), Arc::clone(&current), Arc::clone(&gate), stopped));
    Listener { current, gate, bound, stop, accepting }
}

/// Accepts until told to stop, and then who has come by then: closing the socket would reset them. A full listener
/// accepts nobody: the kernel's queue holds who comes.
async fn accept(
    proxy: Arc<Proxy>,
    bound: Arc<Bound>,
    current: Arc<ArcSwap<Current>>,
    gate: Arc<Gate>,
    mut stop: watch::Receiver<bool>,
) {
    // Those in the queue when it is told to stop; whoever knocks for ever does not keep it open.
    let mut last = socket::BACKLOG;
    let door = loop {
        match bound.open() {
            Ok(door) => break door,
            Err(e) => cannot_accept(&current, &e).await,
        }
    };
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => last -= 1,
            () = gate.room() => {}
        }
        if last == 0 {
            return;
        }
        let accepted = tokio::select! {
            biased;
            accepted = door.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(accepted) => {
                let (proxy, current) = (Arc::clone(&proxy), current.load_full());
                let seat = proxy.workers().seat();
                let accepted = if seat.is_here() { Ok(accepted) } else { accepted.leave() };
                let Ok(accepted) = accepted else { continue };
                let thread = seat.handle().clone();
                let permit = Gate::enter(&gate, seat);
                thread.spawn(serve(proxy, Box::pin(shake_hands(accepted, current, permit))));
            }
            // The client left while it was waiting: its own business.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(e) => cannot_accept(&current, &e).await,
        }
    }
}

/// The task of a connection. What is over long before it does not take part in its size.
async fn serve<H>(proxy: Arc<Proxy>, hands: Pin<Box<H>>)
where
    H: Future<Output = Option<(Downstream, bool)>> + Send,
{
    let Some((down, is_h2)) = hands.await else { return };
    connection::serve(proxy, down, is_h2).await;
}

/// Out of descriptors or memory: others must end first, and asking again at once helps nobody.
async fn cannot_accept(current: &ArcSwap<Current>, error: &io::Error) {
    tracing::error!(listener = %current.load().settings.name, error = %error, "cannot accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn shake_hands(accepted: Accepted, current: Arc<Current>, permit: Permit) -> Option<(Downstream, bool)> {
    let (client, port) = (accepted.client, accepted.port);
    let socket = accepted.into_socket().ok()?;
    let (stream, is_h2) = match &current.tls {
        None => (Stream::Plain(socket), false),
        Some(config) => {
            let deadline = Instant::now() + current.settings.limits.handshake_timeout;
            if let Ok(Ok(true)) = timeout_at(deadline, plain_http::is_spoken(&socket)).await {
                current.metrics.handshake_failed(tls::HandshakeCause::NotTls.as_str());
                plain_http::answer(socket).await;
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match tls::accept(socket, Arc::clone(config), left).await {
                Ok(accepted) => (accepted.stream, accepted.is_h2),
                Err(error) => {
                    current.metrics.handshake_failed(error.cause.as_str());
                    tracing::debug!(listener = %current.settings.name, client.address = ?client, error = %error, "handshake failed");
                    return None;
                }
            }
        }
    };
    let is_tls = current.tls.is_some();
    let facts = Arc::new(Facts {
        listener: current,
        way: Way::new(client, is_tls, port),
        write_timeout_ms: Facts::fresh_write_timeout(),
    });
    Some((Downstream { stream, buf: BytesMut::new(), facts, permit }, is_h2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// With what tokio adds it takes 512 bytes, a size the allocator wastes nothing of at tokio's alignment.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let bytes = bytes_of(serve::<std::future::Ready<Option<(Downstream, bool)>>>);
        assert!(bytes <= 400, "{bytes} bytes");
    }
}
