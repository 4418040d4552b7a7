//! What a proxy counts, and the handles that count it.
//!
//! State takes its handles from [`Metrics`] once, when it is built: one per route, pool, backend and listener. A
//! request then only adds to atomics it already holds. Asking again for the same labels, as a reload does, gives the
//! same series; series whose holders are all gone leave with them. Gauges are not kept at all: whoever asks for the
//! text says how things stand, in [`Observed`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::shiny::close;
use crate::telemetry::metrics::{Counter, Exposition, Histogram, Named};
use crate::types::BackendKey;

pub use labels::{AffinityCause, Method, PickReason, ProbeOutcome, Side};

mod labels;
mod names;
mod render;

/// All metrics of a proxy. Made once; handles are taken from it when state is built.
#[derive(Debug)]
pub struct Metrics {
    version: &'static str,
    commit: &'static str,
    listeners: Directory<Arc<str>, ListenerMetrics>,
    routes: Directory<RouteLabels, RouteMetrics>,
    durations: Directory<(Arc<str>, Arc<str>), Histogram>,
    pools: Directory<Arc<str>, PoolMetrics>,
    backends: Directory<(Arc<str>, BackendKey), BackendMetrics>,
}

/// What is counted of the requests of one listener for one route.
#[derive(Debug)]
pub struct RouteMetrics {
    /// By method and class of status code; each table is made when its first request comes.
    codes: [[OnceLock<Box<[Counter; 100]>>; CLASSES]; METHODS],
    /// Status codes HTTP does not have.
    odd: [Counter; METHODS],
    /// Shared with the same route's other listeners.
    duration: Arc<Histogram>,
}

/// What is counted of one pool.
#[derive(Debug)]
pub struct PoolMetrics {
    connect: Histogram,
    picks: [Counter; PickReason::ALL.len()],
    rejected: [Counter; AffinityCause::ALL.len()],
    retries: Named<&'static str, NAMES>,
    errors: Named<(Side, &'static str), NAMES>,
    lost: Named<&'static str, NAMES>,
    closes: Named<&'static str, NAMES>,
}

/// What is counted of one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    probes: [Counter; ProbeOutcome::ALL.len()],
}

/// What is counted of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    handshake_failures: Named<&'static str, NAMES>,
    refused: Named<&'static str, NAMES>,
}

/// How things stand at the moment the metrics are read.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Every listener with its open connections.
    pub listeners: Vec<(Arc<str>, u64)>,
    /// Every backend of every pool.
    pub backends: Vec<ObservedBackend>,
    /// Whether the last attempt to load the configuration succeeded.
    pub reload_successful: bool,
    /// When it last succeeded, since 1970.
    pub reload_success: Duration,
    /// Server name and expiry in seconds since 1970 of every certificate in use.
    pub certificates: Vec<(String, i64)>,
    /// Lines the access log lost.
    pub access_log_dropped: u64,
    /// Lines the process log lost.
    pub process_log_dropped: u64,
}

/// How one backend stands.
#[derive(Clone, Debug)]
pub struct ObservedBackend {
    /// Name of its pool.
    pub pool: Arc<str>,
    /// Its key.
    pub key: BackendKey,
    /// Health is up.
    pub is_up: bool,
    /// Admin state is draining.
    pub is_draining: bool,
    /// Admin state is disabled.
    pub is_disabled: bool,
    /// Requests it is working on.
    pub in_flight: u64,
    /// Live sessions.
    pub sessions: u64,
}

// === impl Metrics ===

impl Metrics {
    /// Nothing counted yet. `version` and `commit` say what runs.
    pub fn new(version: &'static str, commit: &'static str) -> Self {
        Self {
            version,
            commit,
            listeners: Directory::default(),
            routes: Directory::default(),
            durations: Directory::default(),
            pools: Directory::default(),
            backends: Directory::default(),
        }
    }

    /// The handle of a listener.
    pub fn listener(&self, name: &Arc<str>) -> Arc<ListenerMetrics> {
        self.listeners
            .entry(name.clone(), || ListenerMetrics { handshake_failures: Named::new(), refused: Named::new() })
    }

    /// The handle of one listener's requests for one route. Requests without a route have both names empty.
    pub fn route(&self, listener: &Arc<str>, route: &Arc<str>, pool: &Arc<str>) -> Arc<RouteMetrics> {
        let duration = self.durations.entry((route.clone(), pool.clone()), || Histogram::new(names::REQUEST_BUCKETS));
        let labels = RouteLabels { listener: listener.clone(), route: route.clone(), pool: pool.clone() };
        self.routes.entry(labels, || RouteMetrics {
            codes: [const { [const { OnceLock::new() }; CLASSES] }; METHODS],
            odd: Default::default(),
            duration,
        })
    }

    /// The handle of a pool.
    pub fn pool(&self, name: &Arc<str>) -> Arc<PoolMetrics> {
        self.pools.entry(name.clone(), || PoolMetrics {
            connect: Histogram::new(names::CONNECT_BUCKETS),
            picks: Default::default(),
            rejected: Default::default(),
            retries: Named::new(),
            errors: Named::new(),
            lost: Named::new(),
            closes: Named::new(),
        })
    }

    /// The handle of a backend.
    pub fn backend(&self, pool: &Arc<str>, key: &BackendKey) -> Arc<BackendMetrics> {
        self.backends.entry((pool.clone(), key.clone()), || BackendMetrics { probes: Default::default() })
    }

    /// Everything as text. It takes a while where there are thousands of series: not for a worker thread that has
    /// requests to move.
    pub fn render(&self, observed: &Observed, empty: Exposition) -> String {
        render::render(self, observed, empty)
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// Counts a request that was answered with this status, `duration` after its head was complete.
    pub fn answered(&self, method: &http::Method, status: u16, duration: Duration) {
        let method = Method::of(method) as usize;
        match (usize::from(status) / 100).checked_sub(1).and_then(|class| self.codes[method].get(class)) {
            Some(codes) => {
                codes.get_or_init(|| Box::new([const { Counter::new() }; 100]))[usize::from(status) % 100].increment()
            }
            None => self.odd[method].increment(),
        }
        self.duration.record(duration);
    }
}

// === impl PoolMetrics ===

impl PoolMetrics {
    /// A backend was dialled; it took this long, TLS included.
    pub fn connected(&self, took: Duration) {
        self.connect.record(took);
    }

    /// A backend was chosen.
    pub fn picked(&self, reason: PickReason) {
        self.picks[reason as usize].increment();
    }

    /// An affinity cookie bound nobody.
    pub fn affinity_rejected(&self, cause: AffinityCause) {
        self.rejected[cause as usize].increment();
    }

    /// Another backend is tried because of `cause`, a name from a closed set.
    pub fn retried(&self, cause: &'static str) {
        self.retries.counter(cause).increment();
    }

    /// A request or session failed; `cause` is a name from a closed set.
    pub fn failed(&self, side: Side, cause: &'static str) {
        self.errors.counter((side, cause)).increment();
    }

    /// A session ended though neither side closed it; `cause` is a name from a closed set.
    pub fn session_lost(&self, cause: &'static str) {
        self.lost.counter(cause).increment();
    }

    /// A websocket ended with this close code, `None` without a Close frame or a code in it.
    pub fn session_closed(&self, code: Option<u16>) {
        self.closes.counter(close::label(code)).increment();
    }
}

// === impl BackendMetrics ===

impl BackendMetrics {
    /// A health check came to its end.
    pub fn probed(&self, outcome: ProbeOutcome) {
        self.probes[outcome as usize].increment();
    }
}

// === impl ListenerMetrics ===

impl ListenerMetrics {
    /// A TLS handshake came to nothing; `reason` is a name from a closed set.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.counter(reason).increment();
    }

    /// A request was refused before it had a route; `reason` is a name from a closed set.
    pub fn refused(&self, reason: &'static str) {
        self.refused.counter(reason).increment();
    }
}

/// The labels of [`RouteMetrics`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RouteLabels {
    listener: Arc<str>,
    route: Arc<str>,
    pool: Arc<str>,
}

/// Handles by label, as long as somebody holds them; in label order, so that the text is always in the same order.
#[derive(Debug)]
struct Directory<K, V> {
    /// Taken when state is built and when the text is written, never by a request.
    entries: Mutex<BTreeMap<K, Weak<V>>>,
}

impl<K: Ord + Clone, V> Directory<K, V> {
    fn entry(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(living) = entries.get(&key).and_then(Weak::upgrade) {
            return living;
        }
        let made = Arc::new(make());
        entries.insert(key, Arc::downgrade(&made));
        made
    }

    /// The living; the others are forgotten on this occasion.
    fn living(&self) -> Vec<(K, Arc<V>)> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut living = Vec::with_capacity(entries.len());
        entries.retain(|key, handle| match handle.upgrade() {
            Some(handle) => {
                living.push((key.clone(), handle));
                true
            }
            None => false,
        });
        living
    }
}

impl<K, V> Default for Directory<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::new(BTreeMap::new()) }
    }
}

const METHODS: usize = Method::ALL.len();
/// 1xx to 5xx.
const CLASSES: usize = 5;
/// More names than any of the closed sets has; see [`Named`].
const NAMES: usize = 32;

#[cfg(test)]
mod tests;
