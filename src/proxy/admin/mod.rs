//! The operator's endpoint: reading over TCP, reading and changing over a unix socket.
//!
//! It knows how to speak and what may be asked, not how anything is done: that is [`Control`], which the running proxy
//! is. It shares no connection, limit or queue with the traffic, so that it answers while that is in trouble.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::proxy::stream::Socket;
use answer::{Door, answer};

pub use socket::{AdminSocket, BindError};
pub use status::{
    AdminState, BackendStatus, Changed, ConfigStatus, HealthState, LastReload, ListenerStatus, PoolStatus, ReloadDone,
    ReloadRefused, SessionRow, Status,
};

mod answer;
mod exchange;
#[cfg(test)]
pub(crate) mod fake;
mod socket;
mod status;

/// What the endpoint asks of the running proxy. The reading methods may take a while; they are called where that
/// harms nobody.
pub trait Control: Send + Sync + 'static {
    /// Whether everything listens, every pool has had a verdict, and nobody asked the process to stop.
    fn is_ready(&self) -> bool;
    /// How things stand.
    fn status(&self) -> Status;
    /// Every live session, oldest first.
    fn sessions(&self) -> Vec<SessionRow>;
    /// The text for a Prometheus server.
    fn metrics(&self) -> String;
    /// Changes the admin state of a backend, at once.
    ///
    /// # Errors
    ///
    /// When there is no such backend.
    fn set_admin(&self, pool: &str, key: &str, change: Change) -> Result<(), NoSuchBackend>;
    /// Loads the configuration again and uses it, all or nothing.
    fn reload(&self) -> impl Future<Output = Result<ReloadDone, ReloadRefused>> + Send;
}

/// What to do with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Take no new clients; after the deadline, if any, end the sessions that are left.
    Drain {
        /// From now on; `None`: wait as long as it takes.
        deadline: Option<Duration>,
    },
    /// Take everybody.
    Enable,
    /// Take nobody.
    Disable,
}

/// There is nothing to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchBackend {
    /// No pool of that name.
    #[error("no pool named `{0}`")]
    Pool(String),
    /// The pool has no backend of that key.
    #[error("pool `{pool}` has no backend `{key}`")]
    Backend {
        /// Name of the pool.
        pool: String,
        /// The key it does not have.
        key: String,
    },
}

/// Answers reading requests on a TCP listener until `stop` becomes true, then finishes those under way.
pub async fn serve_tcp<C: Control>(listener: TcpListener, control: Arc<C>, stop: watch::Receiver<bool>) {
    // Bound to loopback it was meant for this machine, and then a page in this machine's browser must not read it
    // under a name of its own (DNS rebinding). Bound to more, the operator has published it, under whatever name.
    let is_loopback = listener.local_addr().is_ok_and(|a: SocketAddr| a.ip().to_canonical().is_loopback());
    serve(Listening::Tcp(listener), Door::Tcp { is_loopback }, control, stop).await;
}

/// Answers every request on the unix socket until `stop` becomes true, then finishes those under way and removes the
/// socket's file.
pub async fn serve_unix<C: Control>(socket: AdminSocket, control: Arc<C>, stop: watch::Receiver<bool>) {
    serve(Listening::Unix(socket), Door::Unix, control, stop).await;
}

async fn serve<C: Control>(listening: Listening, door: Door, control: Arc<C>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // More wait in the kernel's queue; every connection ends within its own limits, so a place comes free.
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listening.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok(mut stream) => {
                let control = control.clone();
                connections.spawn(async move {
                    let _place = place;
                    exchange(&mut stream, door, &control).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept a connection");
                // Mostly too many open files: trying again at once would only burn a core.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // One of them may be what asked the process to stop.
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FINISH_TIMEOUT, rest).await;
}

async fn exchange<C: Control>(stream: &mut Socket, door: Door, control: &Arc<C>) {
    let (response, is_head) = match exchange::read(stream).await {
        Ok(request) => (answer(&request, door, control).await, request.method == "HEAD"),
        Err(Some(refusal)) => (refusal, false),
        Err(None) => return,
    };
    if let Err(error) = exchange::write(stream, &response, is_head).await {
        tracing::debug!(%error, "the operator went away before the answer");
    }
}

/// What connections come from.
enum Listening {
    Tcp(TcpListener),
    Unix(AdminSocket),
}

impl Listening {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
            Self::Unix(socket) => socket.listener().accept().await.map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

/// Of each of the two doors, so that neither can shut the other.
const CONNECTIONS_MAX: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
