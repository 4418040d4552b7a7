//! One member of a pool, and the few things about it that change in place.
//!
//! A [`Backend`] belongs to one generation of the configuration; what it counts and what is known of its health live
//! in parts that the next generation shares. Counters and admin state follow the key; health follows key and address,
//! because a verdict on one machine says nothing about another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::health::{Cell, Health, Outcome, Rules, Transition};
use crate::config::proxy::{self as settings, AdminState};
use crate::types::{BackendAddress, BackendKey};

/// One member of a pool.
#[derive(Debug)]
pub struct Backend {
    pool: Arc<str>,
    place: usize,
    key: BackendKey,
    address: BackendAddress,
    weight: u32,
    rules: Rules,
    counts: Arc<Counts>,
    health: Arc<Cell>,
}

/// What follows a backend's key across reloads.
#[derive(Debug)]
pub(super) struct Counts {
    in_flight: AtomicU64,
    sessions: AtomicU64,
    requests: AtomicU64,
    admin: AtomicU8,
    /// See [`Backend::orders`].
    orders: AtomicU64,
    born: Instant,
    /// Nanoseconds after `born`: of the last change of admin state.
    changed: AtomicU64,
    /// Where this backend stands in the round: see `policy::round_robin`.
    pub(super) turn: AtomicU64,
}

impl Backend {
    pub(super) fn new(
        (pool, place): (&Arc<str>, usize),
        wanted: &settings::Backend,
        rules: Rules,
        counts: Arc<Counts>,
        health: Option<Arc<Cell>>,
        now: Instant,
    ) -> Self {
        let health = health.unwrap_or_else(|| Arc::new(Cell::new(rules, now)));
        if !rules.is_probed {
            health.stop_waiting_for_probes(now);
        }
        Self {
            pool: Arc::clone(pool),
            place,
            key: wanted.key.clone(),
            address: wanted.address.clone(),
            weight: wanted.weight.max(1),
            rules,
            counts,
            health,
        }
    }

    /// Counts a request until the guard is dropped.
    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Counts a live session until the guard is dropped, also when the backend has left the configuration by then.
    pub fn begin_session(self: &Arc<Self>) -> SessionGuard {
        self.counts.sessions.fetch_add(1, Ordering::Relaxed);
        SessionGuard(Arc::clone(self))
    }

    /// Takes note of a probe's or a request's outcome; says so if that changed the verdict.
    pub fn observe(&self, outcome: Outcome, now: Instant) -> Option<Transition> {
        self.health.observe(outcome, self.rules, now)
    }

    /// What the operator wants from now on.
    pub fn set_admin(&self, admin: AdminState, now: Instant) {
        self.counts.set_admin(admin, now);
    }

    /// Name of its pool.
    pub fn pool(&self) -> &Arc<str> {
        &self.pool
    }

    /// Where it stands in its pool, from 0.
    pub fn place(&self) -> usize {
        self.place
    }

    /// Its stable name.
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// Where it is.
    pub fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// At least 1.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Live sessions.
    pub fn sessions(&self) -> u64 {
        self.counts.sessions.load(Ordering::Relaxed)
    }

    /// Requests that have begun and not ended.
    pub fn in_flight(&self) -> u64 {
        self.counts.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that have ever begun.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// What the operator wants.
    pub fn admin(&self) -> AdminState {
        decoded(self.counts.admin.load(Ordering::Acquire))
    }

    /// Counts what the operator wanted so far: who remembers it can tell later whether he has thought of something else.
    pub fn orders(&self) -> u64 {
        self.counts.orders.load(Ordering::Acquire)
    }

    /// What probes and requests say.
    pub fn health(&self) -> Health {
        self.health.health()
    }

    /// When health or admin state last changed.
    pub fn since(&self) -> Instant {
        let admin = self.counts.born + Duration::from_nanos(self.counts.changed.load(Ordering::Relaxed));
        admin.max(self.health.since())
    }

    /// Takes new clients: up and enabled.
    pub fn is_ready(&self) -> bool {
        self.admin() == AdminState::Enabled && self.health() == Health::Up
    }

    /// Draining, disabled, leaving, down or failing: its 502 or 503 is a reason to ask another backend.
    pub fn is_leaving(&self) -> bool {
        self.admin() != AdminState::Enabled
            || matches!(self.health(), Health::Down | Health::Leaving)
            || self.health.has_failure_streak()
    }

    /// There is a verdict and nothing is expected to change it soon: probes may be slow.
    pub fn is_settled(&self, now: Instant) -> bool {
        self.health.is_settled(now)
    }

    /// See [`Cell::claim_trial`]; never for a probed backend.
    pub(super) fn claim_trial(&self, after: Duration, now: Instant) -> bool {
        !self.rules.is_probed && self.health.claim_trial(after, now)
    }

    /// Of a pool of one.
    #[cfg(test)]
    pub fn of_test(pool: &str, key: &str, now: Instant) -> Arc<Self> {
        let wanted = settings::Backend {
            key: key.parse().expect("a key"),
            address: BackendAddress::Inet { host: key.to_owned(), port: 80 },
            weight: 1,
            admin: AdminState::Enabled,
        };
        let counts = Arc::new(Counts::new(wanted.admin, 0, now));
        Arc::new(Self::new((&pool.into(), 0), &wanted, Rules::of(None), counts, None, now))
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.health
    }
}

impl Counts {
    pub(super) fn new(admin: AdminState, turn: u64, now: Instant) -> Self {
        Self {
            in_flight: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            admin: AtomicU8::new(encoded(admin)),
            orders: AtomicU64::new(0),
            born: now,
            changed: AtomicU64::new(0),
            turn: AtomicU64::new(turn),
        }
    }

    pub(super) fn set_admin(&self, admin: AdminState, now: Instant) {
        self.orders.fetch_add(1, Ordering::AcqRel);
        let before = self.admin.swap(encoded(admin), Ordering::AcqRel);
        if decoded(before) != admin {
            let since = now.saturating_duration_since(self.born);
            self.changed.fetch_max(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

fn encoded(admin: AdminState) -> u8 {
    match admin {
        AdminState::Enabled => 0,
        AdminState::Draining => 1,
        AdminState::Disabled => 2,
    }
}

fn decoded(admin: u8) -> AdminState {
    match admin {
        0 => AdminState::Enabled,
        1 => AdminState::Draining,
        _ => AdminState::Disabled,
    }
}

/// A request under way; dropping it ends the count.
#[derive(Debug)]
#[must_use = "the request counts as ended when this is dropped"]
pub struct InFlight(Arc<Backend>);

impl InFlight {
    /// Where the request is.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A live session; dropping it ends the count.
#[derive(Debug)]
#[must_use = "the session counts as ended when this is dropped"]
pub struct SessionGuard(Arc<Backend>);

impl SessionGuard {
    /// Where the session is.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.0.counts.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
