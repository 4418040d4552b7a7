//! The load balancer: from listener to peer.
//!
//! `listener` accepts, [`connection`] reads heads and lends each exchange to a mover: [`http1`] and [`http2`] have the
//! client, [`forward`] the backend; [`tunnel`] what leaves HTTP. No mover decides anything: [`request`] does,
//! out of the pure nouns [`route`], [`affinity`], [`pool`], [`headers`] and one [`state`] snapshot. [`conductor`] is the one
//! task that changes things.

pub mod admin;
pub mod affinity;
pub mod certificates;
pub mod conductor;
pub mod connection;
pub mod dial;
pub mod error;
pub mod forward;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod ledger;
pub mod listener;
pub mod metrics;
pub mod operator;
pub mod pool;
pub mod probe;
pub mod request;
pub mod route;
pub mod state;
pub mod stream;
pub mod tunnel;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::ledger::Ledger;
use self::metrics::Metrics;
use self::pool::{Backend, Health, Transition};
use self::state::{Backing, State};
use crate::config;
use crate::runtime::workers::Workers;
use crate::telemetry::access::AccessLog;

/// What every connection and request of one proxy shares.
pub struct Proxy {
    state: ArcSwap<State>,
    ledger: Arc<Ledger>,
    access: AccessLog,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
    is_stopping: AtomicBool,
    workers: Workers,
    kept_lines_max: usize,
}

impl Proxy {
    /// A proxy on its first state; `stopping` becomes true when it is to leave.
    pub fn new(
        startup: &config::proxy::Startup,
        workers: Workers,
        state: State,
        access: AccessLog,
        metrics: Metrics,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            ledger: Arc::new(Ledger::new()),
            access,
            metrics,
            stopping,
            is_stopping: AtomicBool::new(false),
            kept_lines_max: startup.upstream_keepalive_connections.div_ceil(workers.count()),
            workers,
        })
    }

    /// The snapshot to run one request on.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The snapshot new requests run on from now on; those under way keep theirs.
    pub fn swap(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// Becomes true when the process is to leave: idle connections end, no connection is kept.
    pub fn stopping(&self) -> &watch::Receiver<bool> {
        &self.stopping
    }

    /// The same to be asked by every request; true before those who wait for the other are woken.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Acquire)
    }

    /// See [`Self::is_stopping`].
    pub fn stop(&self) {
        self.is_stopping.store(true, Release);
    }

    /// The threads that connections live on.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Idle connections to backends that one thread may keep.
    pub fn kept_lines_max(&self) -> usize {
        self.kept_lines_max
    }

    /// The live sessions.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// One line per request.
    pub fn access_log(&self) -> &AccessLog {
        &self.access
    }

    /// Where the counters come from.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A backend's health changed, by a probe or by a request: told once, and who waits for it is woken. `why` is what
    /// went wrong, if anything did.
    pub fn health_changed(&self, backing: &Backing, backend: &Backend, transition: Transition, why: &dyn fmt::Display) {
        let (pool, key) = (backing.pool.name(), backend.key());
        match transition.to {
            Health::Up => tracing::info!(pool = %pool, backend = %key, sessions = backend.sessions(), "backend is up"),
            Health::Down => {
                tracing::warn!(pool = %pool, backend = %key, sessions = backend.sessions(), why = %why, "backend is down")
            }
            Health::Leaving => {
                tracing::info!(pool = %pool, backend = %key, sessions = backend.sessions(), "backend says that it leaves")
            }
            Health::Unknown => tracing::info!(pool = %pool, backend = %key, "backend has no verdict yet"),
        }
        backing.verdict.notify_waiters();
    }
}
