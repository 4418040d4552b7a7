//! How a backend is chosen when nothing binds the client. One file each.
//!
//! Every policy is an order of candidates by load; those equally loaded take turns. Candidates are chosen by the pool:
//! a policy knows nothing of health or admin state. Nothing here locks or allocates.

mod least_requests;
mod least_sessions;
mod round_robin;

use std::cmp::Ordering;
use std::sync::Arc;

use self::round_robin::Turn;
pub(super) use self::round_robin::Turns;
use super::backend::Backend;
use crate::config::proxy::Policy;

/// The candidate with the least load by weight; among equals the one whose turn it is. `None`: no candidates.
///
/// Threads that choose at the same moment see the same loads; taking a turn makes them agree on different candidates.
pub(super) fn choose<'a>(
    policy: Policy,
    turns: &Turns,
    candidates: &(impl Iterator<Item = &'a Arc<Backend>> + Clone),
) -> Option<&'a Arc<Backend>> {
    let load = match policy {
        Policy::LeastSessions => least_sessions::load,
        Policy::LeastRequests => least_requests::load,
        Policy::RoundRobin => round_robin::load,
    };
    let mut best = None;
    for _ in 0..ATTEMPTS_MAX {
        best = candidates
            .clone()
            .map(|backend| Candidate { load: load(backend), turn: turns.of(backend), backend })
            .min_by(|a, b| a.compare_load(b).then_with(|| a.turn.compare(&b.turn)));
        let Some(candidate) = &best else { return None };
        if turns.take(candidate.backend, &candidate.turn) {
            break;
        }
    }
    best.map(|candidate| candidate.backend)
}

struct Candidate<'a> {
    load: u64,
    turn: Turn,
    backend: &'a Arc<Backend>,
}

impl Candidate<'_> {
    /// Compares load ÷ weight without dividing.
    fn compare_load(&self, other: &Self) -> Ordering {
        if self.backend.weight() == other.backend.weight() {
            return self.load.cmp(&other.load);
        }
        let across = |load: u64, weight: u32| u128::from(load) * u128::from(weight);
        across(self.load, other.backend.weight()).cmp(&across(other.load, self.backend.weight()))
    }
}

/// Other threads took the same turn this often at the same moment: then sharing one is better than trying on.
const ATTEMPTS_MAX: usize = 8;
