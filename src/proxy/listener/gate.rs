//! How many connections a listener may have open. The bound changes by reload, so it is a number, not a semaphore.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::runtime::workers::Seat;

/// Counts who is inside; lets in while there is room.
#[derive(Debug)]
pub(super) struct Gate {
    open: AtomicUsize,
    limit: AtomicUsize,
    freed: Notify,
}

/// A place inside, and on a thread; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    _seat: Seat,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), limit: AtomicUsize::new(limit), freed: Notify::new() })
    }

    /// Changes the bound; who is inside stays.
    pub(super) fn limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.freed.notify_waiters();
        self.freed.notify_one();
    }

    /// How many are inside.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until there is room. Cancel-safe.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.open.load(Ordering::Acquire) < self.limit.load(Ordering::Relaxed) {
                return;
            }
            freed.await;
        }
    }

    /// Takes a place. Only the accept loop of one listener does, so the room it waited for is still there.
    pub(super) fn enter(gate: &Arc<Self>, seat: Seat) -> Permit {
        gate.open.fetch_add(1, Ordering::AcqRel);
        Permit { gate: Arc::clone(gate), _seat: seat }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::AcqRel);
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::workers::Workers;

    #[tokio::test]
    async fn a_full_gate_waits_for_who_leaves_or_a_higher_limit() {
        let workers = Workers::start(1).unwrap();
        let gate = Gate::new(1);
        gate.room().await;
        let first = Gate::enter(&gate, workers.seat());
        let waits = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(first);
        waits.await.unwrap();
        let second = Gate::enter(&gate, workers.seat());
        gate.limit(2);
        gate.room().await;
        assert_eq!(gate.open(), 1);
        drop(second);
        assert_eq!(gate.open(), 0);
    }
}
