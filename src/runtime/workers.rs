//! Threads that connections live on, each with an event loop of its own.
//!
//! What a connection needs lives with it: its sockets are known to its thread's loop only, it wakes nobody else, and what
//! threads keep for their connections (buffers, idle lines to backends) needs no lock. Beside tokio's scheduler of many
//! threads this takes less CPU per request; the price is that a connection stays where it was placed, so each is placed
//! where the fewest are.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::memory;

/// The threads. Dropping it ends them at their next pause, with all that still runs there.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    /// Who is asked first, so that equals take turns.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Seats taken.
    load: Arc<AtomicUsize>,
    /// Dropped to end it.
    _stop: oneshot::Sender<()>,
}

thread_local! {
    /// The load of this thread, where it is a worker.
    static HERE: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
}

/// A place on a thread, counted until it is dropped.
#[derive(Debug)]
pub struct Seat {
    handle: Handle,
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts this many threads, at least one.
    ///
    /// # Errors
    /// The system has no thread or no event loop left.
    pub fn start(count: usize) -> io::Result<Self> {
        let start = |number: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel();
            let handle = runtime.handle().clone();
            let load = Arc::default();
            let own = Arc::clone(&load);
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                HERE.set(Some(Arc::clone(&own)));
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = memory::give_back(&own) => {}
                    }
                });
                // Whatever still runs (a client that never reads) must not hold the process.
                runtime.shutdown_background();
            })?;
            Ok(Worker { handle, load, _stop: stop })
        };
        Ok(Self { workers: (0..count.max(1)).map(start).collect::<io::Result<_>>()?, turn: AtomicUsize::new(0) })
    }

    /// A seat where the fewest are taken.
    pub fn seat(&self) -> Seat {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        let (before, behind) = self.workers.split_at(first);
        let least = behind.iter().chain(before).min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let worker = least.unwrap_or(&self.workers[first]);
        worker.load.fetch_add(1, Ordering::Relaxed);
        Seat { handle: worker.handle.clone(), load: Arc::clone(&worker.load) }
    }

    /// Where a task that stays for long is spawned: each in its turn.
    pub fn turn(&self) -> Handle {
        self.workers[self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len()].handle.clone()
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }
}

impl Seat {
    /// Whether this is its thread.
    pub fn is_here(&self) -> bool {
        HERE.with_borrow(|own| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, &self.load)))
    }

    /// Where tasks of this seat are spawned.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_one_sits_where_the_fewest_are() {
        let workers = Workers::start(3).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let name = |seat: &Seat| {
            let told = seat.handle().spawn(async { thread::current().name().map(str::to_owned) });
            runtime.block_on(told).unwrap().unwrap()
        };
        let mut seats: Vec<_> = (0..6).map(|_| workers.seat()).collect();
        let mut names: Vec<_> = seats.iter().map(name).collect();
        names.sort_unstable();
        assert_eq!(names, ["worker-0", "worker-0", "worker-1", "worker-1", "worker-2", "worker-2"]);
        let at = seats.iter().position(|seat| name(seat) == "worker-1").unwrap();
        drop(seats.remove(at));
        let seat = workers.seat();
        assert_eq!(name(&seat), "worker-1");
        assert!(!seat.is_here());
        let at = seats.iter().position(|seat| name(seat) == "worker-0").unwrap();
        let (thread, other) = (seat.handle().clone(), seats.remove(at));
        let told = thread.spawn(async move { (seat.is_here(), other.is_here()) });
        assert_eq!(runtime.block_on(told).unwrap(), (true, false));
    }
}
