//! The backends of one application and the choice among them. Pure.
//!
//! [`Pool::pick`] answers the one question of a request: which backend, and does that bind the client? It reads health
//! and admin state at that moment, so there is no second list to keep true. Dialling, probing, cookies and logs are
//! others' business; they report through [`Backend::observe`] and count through guards.
//!
//! | backend | new client | bound client |
//! |---|---|---|
//! | up, enabled | yes | yes |
//! | draining, or leaving by its own word | no | yes |
//! | disabled | no | rebound |
//! | down, draining or not | no | rebound |
//! | no verdict yet | waits, if nobody is up | waits for its own |
//!
//! If nobody is up, a pool with `fail_open` uses down backends that are enabled, a bound client's own first. A pool
//! without probes tries a down backend with a single request now and then, as soon as a second later if nobody is up.

mod backend;
mod health;
mod policy;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub use self::backend::{Backend, InFlight, SessionGuard};
pub use self::health::{Health, Outcome, Transition};

use self::backend::Counts;
use self::health::Rules;
use self::policy::Turns;
use crate::config::proxy::{self as settings, AdminState};
use crate::types::BackendKey;

/// The backends of one application, of one generation of the configuration.
#[derive(Debug)]
pub struct Pool {
    settings: Arc<settings::Pool>,
    /// One per backend, in file order.
    backends: Vec<Arc<Backend>>,
    /// Positions in `backends`, sorted by key.
    by_key: Vec<usize>,
    turns: Turns,
    /// Counters of backends that left while something still counts there, in case they come back.
    departed: Vec<(BackendKey, Weak<Counts>)>,
}

/// The outcome of a choice.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Where the request goes.
    pub backend: Arc<Backend>,
    /// Why.
    pub reason: Reason,
    /// The client belongs to this backend from now on: write the cookie. False when it already does, and when a bound
    /// client only takes a detour round its own backend, which timed out but is not down: leave its cookie alone.
    pub binds: bool,
    /// The hint named a backend that this pool does not have.
    pub was_unknown: bool,
}

/// Why a backend was picked. Becomes a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The client's own.
    Sticky,
    /// By policy.
    Balanced,
    /// By policy, since the client's own backend does not take it any more.
    Rebound,
}

/// Why there is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoPick {
    /// Worth a wait: a first verdict is due, on anybody for a new client, on its own backend for a bound one (that is
    /// what keeps clients in place when the proxy starts). After the longest wait, `tried` may name a bound client's
    /// backend to go round it.
    NoVerdictYet,
    /// Nobody takes this client: down, draining, disabled.
    NobodyReady,
    /// Whoever might have taken it was tried for this request.
    AllTried,
}

impl Pool {
    /// Builds a pool. From `previous`, the pool of the same name before a reload, a backend with the same key keeps its
    /// counters and its admin state, and its health if the address is the same too; at a new address it starts anew.
    /// An admin state that was edited in the file counts; an unedited one does not undo a `drain` or `disable`.
    ///
    /// Without probes backends start up, with probes unknown. What is shared with `previous` takes edits of admin state
    /// at once, so build pools after everything that may refuse the new configuration.
    pub fn new(settings: Arc<settings::Pool>, previous: Option<&Self>, now: Instant) -> Self {
        let rules = Rules::of(settings.probe.as_ref());
        let turns = previous.map(|p| p.turns.clone()).unwrap_or_default();
        let backends: Vec<_> = settings
            .backends
            .iter()
            .enumerate()
            .map(|(place, wanted)| {
                let before = previous.and_then(|p| p.backend(wanted.key.as_str()));
                let counts = before
                    .map(|b| Arc::clone(b.counts()))
                    .or_else(|| previous.and_then(|p| p.returning(&wanted.key)))
                    .unwrap_or_else(|| Arc::new(Counts::new(wanted.admin, turns.present(), now)));
                if previous.and_then(|p| p.configured_admin(&wanted.key)) != Some(wanted.admin) {
                    counts.set_admin(wanted.admin, now);
                }
                let health = before.filter(|b| *b.address() == wanted.address).map(|b| Arc::clone(b.cell()));
                Arc::new(Backend::new((&settings.name, place), wanted, rules, counts, health, now))
            })
            .collect();
        let mut by_key: Vec<_> = (0..backends.len()).collect();
        by_key.sort_by(|&a, &b| backends[a].key().cmp(backends[b].key()));
        let mut pool = Self { settings, backends, by_key, turns, departed: Vec::new() };
        if let Some(previous) = previous {
            pool.departed = previous.departures_from(&pool);
        }
        pool
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// What it was built from.
    pub fn settings(&self) -> &Arc<settings::Pool> {
        &self.settings
    }

    /// One per backend, in file order.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// The backend with this key.
    pub fn backend(&self, key: &str) -> Option<&Arc<Backend>> {
        let found = self.by_key.binary_search_by(|&at| self.backends[at].key().as_str().cmp(key)).ok()?;
        self.backends.get(self.by_key[found])
    }

    /// Chooses a backend for one attempt of one request.
    ///
    /// `bound` is what the client's cookie says; `tried` are the backends that this request has already failed on,
    /// after [`Backend::observe`] was told. A bound client moves only if its own backend is down, disabled or gone, and
    /// then for good.
    ///
    /// # Errors
    /// [`NoPick`] says whether waiting may help.
    pub fn pick(&self, bound: Option<&BackendKey>, tried: &[BackendKey], now: Instant) -> Result<Pick, NoPick> {
        let by_policy = |reason, binds, was_unknown| {
            let backend = Arc::clone(self.balance(tried, None, now)?);
            Ok(Pick { backend, reason, binds, was_unknown })
        };
        let Some(key) = bound else { return by_policy(Reason::Balanced, true, false) };
        let Some(own) = self.backend(key.as_str()) else { return by_policy(Reason::Balanced, true, true) };
        let sticky = || Pick { backend: Arc::clone(own), reason: Reason::Sticky, binds: false, was_unknown: false };
        let is_untried = !tried.contains(key);
        match (own.admin(), own.health()) {
            (AdminState::Disabled, _) => by_policy(Reason::Rebound, true, false),
            (_, Health::Up | Health::Leaving) if is_untried => Ok(sticky()),
            // It sent them away.
            (_, Health::Leaving) => by_policy(Reason::Rebound, true, false),
            (_, Health::Unknown) if is_untried => Err(NoPick::NoVerdictYet),
            (_, Health::Up | Health::Unknown) => by_policy(Reason::Balanced, false, false),
            (_, Health::Down) if is_untried && own.claim_trial(TRIAL_PAUSE, now) => Ok(sticky()),
            (_, Health::Down) => {
                let backend = self.balance(tried, is_untried.then_some(own), now)?;
                if Arc::ptr_eq(backend, own) {
                    return Ok(sticky());
                }
                Ok(Pick { backend: Arc::clone(backend), reason: Reason::Rebound, binds: true, was_unknown: false })
            }
        }
    }

    /// The choice when nothing binds. `own` is a down backend to prefer where any down backend may be used.
    fn balance(&self, tried: &[BackendKey], own: Option<&Arc<Backend>>, now: Instant) -> Result<&Arc<Backend>, NoPick> {
        let was_tried = |b: &Backend| tried.contains(b.key());
        let candidates = |health: Health| {
            self.backends
                .iter()
                .filter(move |b| b.admin() == AdminState::Enabled && b.health() == health && !was_tried(b))
        };
        // A request that has already failed elsewhere is not also put on trial; where probes ask, nobody needs to be.
        if tried.is_empty()
            && self.settings.probe.is_none()
            && let Some(backend) = candidates(Health::Down).find(|b| b.claim_trial(TRIAL_PAUSE, now))
        {
            return Ok(backend);
        }
        if let Some(backend) = policy::choose(self.settings.policy, &self.turns, &candidates(Health::Up)) {
            return Ok(backend);
        }
        if self.backends.iter().any(|b| b.is_ready() && was_tried(b)) {
            return Err(NoPick::AllTried);
        }
        if candidates(Health::Unknown).next().is_some() {
            return Err(NoPick::NoVerdictYet);
        }
        if let Some(backend) = policy::choose(self.settings.policy, &self.turns, &candidates(Health::Leaving)) {
            return Ok(backend);
        }
        // Nobody is up: those who are down are the last resort.
        let own = own.and_then(|own| self.backend(own.key().as_str()));
        if let Some(backend) = own.into_iter().chain(candidates(Health::Down)).find(|b| b.claim_trial(TRIAL_SOON, now))
        {
            return Ok(backend);
        }
        if self.settings.fail_open {
            let open = own.or_else(|| policy::choose(self.settings.policy, &self.turns, &candidates(Health::Down)));
            if let Some(backend) = open {
                return Ok(backend);
            }
        }
        let any_tried = self.backends.iter().any(|b| b.admin() != AdminState::Disabled && was_tried(b));
        Err(if any_tried { NoPick::AllTried } else { NoPick::NobodyReady })
    }

    /// The admin state the configuration of this generation gave.
    fn configured_admin(&self, key: &BackendKey) -> Option<AdminState> {
        self.settings.backends.iter().find(|b| b.key == *key).map(|b| b.admin)
    }

    /// The counters of a backend that left and comes back while something still counts there.
    fn returning(&self, key: &BackendKey) -> Option<Arc<Counts>> {
        self.departed.iter().find(|(departed, _)| departed == key)?.1.upgrade()
    }

    /// What is not in `next` but may still count: gone now or gone earlier. Bounded by what is alive.
    fn departures_from(&self, next: &Self) -> Vec<(BackendKey, Weak<Counts>)> {
        let now_gone = self.backends.iter().map(|b| (b.key().clone(), Arc::downgrade(b.counts())));
        let gone = self.departed.iter().cloned().chain(now_gone);
        gone.filter(|(key, counts)| counts.strong_count() > 0 && next.backend(key.as_str()).is_none()).collect()
    }
}

impl Pick {
    /// Whether the response carries a cookie: the client is bound by this pick, or stays and its hint was to be
    /// renewed (`renew`: the cookie is past half its life, or the hint did not come from a cookie).
    pub fn writes_cookie(&self, renew: bool) -> bool {
        self.binds || (renew && self.reason == Reason::Sticky)
    }
}

impl Reason {
    /// As metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Balanced => "balanced",
            Self::Rebound => "rebound",
        }
    }
}

/// A down backend without probes is tried again after this, while others serve.
const TRIAL_PAUSE: Duration = Duration::from_secs(10);
/// The same when nobody is up: a request has nothing to lose then.
const TRIAL_SOON: Duration = Duration::from_secs(1);
