//! What the operator asks of the running proxy: how things stand, and the few changes that need no new configuration.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Proxy;
use super::admin::{
    AdminState, BackendStatus, Change, ConfigStatus, Control, HealthState, LastReload, ListenerStatus, NoSuchBackend,
    PoolStatus, ReloadDone, ReloadRefused, SessionRow, Status,
};
use super::conductor::{Ask, Options};
use super::listener::Listening;
use super::metrics::{Observed, ObservedBackend};
use super::pool::{Backend, Health};
use super::tunnel::EndCause;
use crate::config;
use crate::config::proxy::Policy;
use crate::runtime::clock;
use crate::telemetry::Timestamp;
use crate::telemetry::metrics::Exposition;
use crate::telemetry::sink::Sink;

/// The running proxy as the operator sees it.
pub struct Operator {
    proxy: Arc<Proxy>,
    file: PathBuf,
    /// Where the process's own log goes.
    log: Sink,
    asks: mpsc::Sender<Ask>,
    phase: AtomicU8,
    /// Guards what the conductor writes and the operator reads; nobody holds it for more than a copy.
    told: Mutex<Told>,
}

/// What the conductor told last.
#[derive(Clone)]
struct Told {
    listening: Vec<Listening>,
    last_reload: LastReload,
    last_success: Duration,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const LEAVING: u8 = 2;

impl Operator {
    /// For a proxy that was started with `options`; reloads are asked of the conductor through `asks`.
    pub fn new(proxy: Arc<Proxy>, options: &Options, asks: mpsc::Sender<Ask>) -> Self {
        let now = clock::unix();
        let last_reload = LastReload { at: Timestamp::from_unix(now), ok: true, report: None };
        let told = Mutex::new(Told { listening: Vec::new(), last_reload, last_success: now });
        let file = std::path::absolute(&options.file).unwrap_or_else(|_| options.file.clone());
        Self { proxy, file, log: options.log.clone(), asks, phase: AtomicU8::new(STARTING), told }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Whole after every single assignment.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These listeners accept.
    pub fn listening(&self, listening: Vec<Listening>) {
        self.told().listening = listening;
    }

    /// Everything listens.
    pub fn became_ready(&self) {
        self.phase.store(READY, Ordering::Release);
    }

    /// The process was told to leave.
    pub fn is_leaving(&self) {
        self.phase.store(LEAVING, Ordering::Release);
    }

    /// A reload was taken or refused.
    pub fn reloaded(&self, ok: bool, report: Option<String>) {
        let now = clock::unix();
        let mut told = self.told();
        told.last_reload = LastReload { at: Timestamp::from_unix(now), ok, report };
        if ok {
            told.last_success = now;
        }
    }

    /// Whether what is on disk was in use when somebody last looked.
    pub fn last_reload_was_taken(&self) -> bool {
        self.told().last_reload.ok
    }

    /// Everything that is counted, as text.
    pub fn expose(&self, empty: Exposition) -> String {
        let (state, told) = (self.proxy.state(), self.told().clone());
        let backends = state.pools.iter().flat_map(|p| {
            p.pool.backends().iter().map(|b| ObservedBackend {
                pool: Arc::clone(p.pool.name()),
                key: b.key().clone(),
                is_up: matches!(b.health(), Health::Up | Health::Leaving),
                is_draining: b.admin() == config::proxy::AdminState::Draining,
                is_disabled: b.admin() == config::proxy::AdminState::Disabled,
                in_flight: b.in_flight(),
                sessions: b.sessions(),
            })
        });
        let observed = Observed {
            listeners: told.listening.iter().map(|l| (Arc::clone(&l.name), l.connections.open() as u64)).collect(),
            backends: backends.collect(),
            reload_successful: told.last_reload.ok,
            reload_success: told.last_success,
            certificates: state.certificates.values().flat_map(|c| c.load().not_after()).collect(),
            access_log_dropped: self.proxy.access_log().dropped(),
            process_log_dropped: self.log.dropped(),
        };
        self.proxy.metrics().render(&observed, empty)
    }

    fn backend(&self, pool: &str, key: &str) -> Result<Arc<Backend>, NoSuchBackend> {
        let state = self.proxy.state();
        let backing = state.backing(pool).ok_or_else(|| NoSuchBackend::Pool(pool.to_owned()))?;
        let no_backend = || NoSuchBackend::Backend { pool: pool.to_owned(), key: key.to_owned() };
        backing.pool.backend(key).cloned().ok_or_else(no_backend)
    }
}

impl Control for Operator {
    fn is_ready(&self) -> bool {
        let has_verdict =
            |b: &Arc<super::state::Backing>| b.pool.backends().iter().any(|b| b.health() != Health::Unknown);
        self.phase.load(Ordering::Acquire) == READY && self.proxy.state().pools.iter().all(has_verdict)
    }

    fn status(&self) -> Status {
        let (state, told, now) = (self.proxy.state(), self.told().clone(), clock::now());
        let unix = clock::unix();
        let backend = |b: &Arc<Backend>| BackendStatus {
            key: b.key().to_string(),
            address: b.address().to_string(),
            health: match b.health() {
                Health::Unknown => HealthState::Unknown,
                Health::Up => HealthState::Up,
                Health::Down => HealthState::Down,
                Health::Leaving => HealthState::Leaving,
            },
            admin: match b.admin() {
                config::proxy::AdminState::Enabled => AdminState::Enabled,
                config::proxy::AdminState::Draining => AdminState::Draining,
                config::proxy::AdminState::Disabled => AdminState::Disabled,
            },
            sessions: b.sessions(),
            in_flight: b.in_flight(),
            requests: b.requests(),
            since: ago(unix, now, b.since()),
        };
        let pools = state.pools.iter().map(|p| PoolStatus {
            name: p.pool.name().to_string(),
            policy: match p.pool.settings().policy {
                Policy::LeastSessions => "least_sessions",
                Policy::LeastRequests => "least_requests",
                Policy::RoundRobin => "round_robin",
            }
            .to_owned(),
            backends: p.pool.backends().iter().map(backend).collect(),
        });
        let listeners = told.listening.iter().map(|l| ListenerStatus {
            name: l.name.to_string(),
            address: l.address.to_string(),
            connections: l.connections.open() as u64,
        });
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: ConfigStatus {
                file: self.file.display().to_string(),
                generation: state.generation,
                last_reload: told.last_reload,
            },
            listeners: listeners.collect(),
            pools: pools.collect(),
        }
    }

    fn sessions(&self) -> Vec<SessionRow> {
        let at = |seconds| Timestamp::from_unix(Duration::from_secs(seconds));
        let row = |r: super::ledger::Row| SessionRow {
            id: r.id,
            kind: r.kind.as_str().to_owned(),
            pool: r.pool.to_string(),
            backend: r.backend.to_string(),
            client: r.client.map(|c| c.to_string()),
            since: at(r.since),
            last_activity: at(r.last_activity),
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
        };
        self.proxy.ledger().rows().into_iter().map(row).collect()
    }

    fn metrics(&self) -> String {
        self.expose(Exposition::default())
    }

    fn set_admin(&self, pool: &str, key: &str, change: Change) -> Result<(), NoSuchBackend> {
        let backend = self.backend(pool, key)?;
        let admin = match change {
            Change::Drain { .. } => config::proxy::AdminState::Draining,
            Change::Enable => config::proxy::AdminState::Enabled,
            Change::Disable => config::proxy::AdminState::Disabled,
        };
        backend.set_admin(admin, clock::now());
        if let Change::Drain { deadline: Some(deadline) } = change {
            let (proxy, pool, order) = (Arc::clone(&self.proxy), pool.to_owned(), backend.orders());
            tokio::spawn(end_drain(proxy, pool, backend, order, deadline));
        }
        Ok(())
    }

    async fn reload(&self) -> Result<ReloadDone, ReloadRefused> {
        let (reply, answer) = oneshot::channel();
        let refused = |why: &str| ReloadRefused::new(&why, &[why]);
        self.asks.send(Ask::Reload(reply)).await.map_err(|_| refused("the process is leaving"))?;
        answer.await.map_err(|_| refused("the process is leaving"))?
    }
}

/// At the deadline of a drain: who is still there is ended, and the backend takes nobody any more. Nothing happens when
/// the operator has thought better of it meanwhile.
async fn end_drain(proxy: Arc<Proxy>, pool: String, backend: Arc<Backend>, order: u64, deadline: Duration) {
    tokio::time::sleep(deadline).await;
    if backend.admin() == config::proxy::AdminState::Draining && backend.orders() == order {
        backend.set_admin(config::proxy::AdminState::Disabled, clock::now());
        let ended = proxy.ledger().end_backend(&pool, backend.key().as_str(), EndCause::Drained);
        tracing::warn!(pool, backend = %backend.key(), sessions = ended, "drain reached its deadline; the backend is disabled");
    }
}

fn ago(unix: Duration, now: Instant, then: Instant) -> Timestamp {
    Timestamp::from_unix(unix.saturating_sub(now.saturating_duration_since(then)))
}
