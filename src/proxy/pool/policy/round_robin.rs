//! Taking turns by weight, smoothly, whoever is a candidate at the moment.
//!
//! Stride scheduling (Waldspurger 1995) in place of nginx's running sums, because it needs no lock and stays fair when
//! some backends are excluded: each backend has a turn, a point on a common time line; whoever's turn has its middle
//! earliest is next, and its turn moves on by 1 ÷ weight. Weights 5, 1, 1 give `a a a b c a a`. A backend that was no
//! candidate for a while comes back at the present, not with all the turns it missed.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU64};

use crate::proxy::pool::backend::Backend;

/// Nobody is loaded: turns alone decide.
pub(super) fn load(_: &Backend) -> u64 {
    0
}

/// The present of one pool's round, in [`UNIT`]s; survives reloads, so that a reload does not begin with the first
/// backend again. Wraps; points are compared by their signed distance.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy::pool) struct Turns(Arc<AtomicU64>);

/// A backend's next turn as seen by one thread.
pub(super) struct Turn {
    seen: u64,
    start: u64,
    stride: u64,
}

impl Turns {
    /// Where a backend that joins begins.
    pub(in crate::proxy::pool) fn present(&self) -> u64 {
        self.0.load(atomic::Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(in crate::proxy::pool) fn set(&self, present: u64) {
        self.0.store(present, atomic::Ordering::Relaxed);
    }

    pub(super) fn of(&self, backend: &Backend) -> Turn {
        let seen = backend.counts().turn.load(atomic::Ordering::Relaxed);
        let stride = UNIT / u64::from(backend.weight());
        // Candidates never lag by more than half a stride, so this moves only those who come back.
        let start = later(seen, self.present().wrapping_sub(stride / 2));
        Turn { seen, start, stride }
    }

    /// Takes the turn; false if another thread took it first.
    pub(super) fn take(&self, backend: &Backend, turn: &Turn) -> bool {
        let (relaxed, next) = (atomic::Ordering::Relaxed, turn.start.wrapping_add(turn.stride));
        if backend.counts().turn.compare_exchange(turn.seen, next, relaxed, relaxed).is_err() {
            return false;
        }
        // Fails only if the present is already later.
        let _ = self.0.fetch_update(relaxed, relaxed, |present| {
            let moved = later(present, turn.start);
            (moved != present).then_some(moved)
        });
        true
    }
}

impl Turn {
    /// Earlier middle first.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        distance(self.middle(), other.middle()).cmp(&0)
    }

    fn middle(&self) -> u64 {
        self.start.wrapping_add(self.stride / 2)
    }
}

fn later(a: u64, b: u64) -> u64 {
    if distance(a, b) >= 0 { a } else { b }
}

/// How far `a` is behind `b` on a line that wraps; points in use are never half the line apart.
fn distance(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}

/// The stride of weight 1. Large enough that weights up to 1000 divide it with an error below 0.01 %.
const UNIT: u64 = 1 << 24;
