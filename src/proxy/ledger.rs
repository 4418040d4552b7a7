//! The live sessions: each tunnel is an entry with pool, backend, client, age, last activity, bytes.
//!
//! Touched when a session opens, closes or is listed; what changes while it lives are atomics in its own entry. Locks are
//! sharded, held for one map operation, and never across an await.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::pool::Backend;
use super::tunnel::EndCause;
use crate::runtime::clock;
use crate::types::BackendKey;

const SHARDS: usize = 16;

/// All live sessions of one proxy.
#[derive(Debug, Default)]
pub struct Ledger {
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    next: AtomicU64,
    live: AtomicUsize,
}

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 6455.
    Websocket,
    /// Any other protocol after an upgrade.
    Upgrade,
}

impl Kind {
    /// As the operator reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Upgrade => "upgrade",
        }
    }
}

/// What is known of a session when it opens.
#[derive(Debug)]
pub struct Opening {
    /// What it is.
    pub kind: Kind,
    /// The backend it lives on.
    pub backend: Arc<Backend>,
    /// `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// Now.
    pub now: Instant,
}

/// A session as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Unique in this process.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// Name of the pool.
    pub pool: Arc<str>,
    /// The backend it lives on.
    pub backend: BackendKey,
    /// `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// When it opened, seconds since 1970.
    pub since: u64,
    /// When bytes last came from either side, seconds since 1970.
    pub last_activity: u64,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
}

/// No [`EndCause`].
const UNTOLD: u8 = u8::MAX;

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// Which [`EndCause`] it was told to end with; [`UNTOLD`] before.
    why: AtomicU8,
    backend: Arc<Backend>,
    client: Option<SocketAddr>,
    opened: Instant,
    /// Milliseconds from its opening to the last bytes.
    active_ms: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

/// The session's own hold on its entry; dropping it closes the session.
#[derive(Debug)]
pub struct Session {
    id: u64,
    ledger: Arc<Ledger>,
    entry: Arc<Entry>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole after every single operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Without sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session begins.
    pub fn open(self: &Arc<Self>, opening: Opening) -> Session {
        let id = self.next.fetch_add(1, Relaxed);
        let Opening { kind, backend, client, now } = opening;
        let entry = Arc::new(Entry {
            kind,
            why: AtomicU8::new(UNTOLD),
            backend,
            client,
            opened: now,
            active_ms: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            waker: Mutex::new(None),
        });
        locked(self.shard(id)).insert(id, Arc::clone(&entry));
        self.live.fetch_add(1, Relaxed);
        Session { id, ledger: Arc::clone(self), entry }
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Entry>>> {
        &self.shards[(id % SHARDS as u64) as usize]
    }

    /// Number of live sessions.
    pub fn len(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every live session, by id.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<_> =
            self.shards.iter().flat_map(|s| locked(s).iter().map(|(id, e)| e.row(*id)).collect::<Vec<_>>()).collect();
        rows.sort_unstable_by_key(|r| r.id);
        rows
    }

    /// Tells every session of a backend to end; how many there were.
    pub fn end_backend(&self, pool: &str, key: &str, why: EndCause) -> usize {
        self.end(why, |e| **e.backend.pool() == *pool && e.backend.key().as_str() == key)
    }

    /// Tells every session to end; how many there were.
    pub fn end_all(&self, why: EndCause) -> usize {
        self.end(why, |_| true)
    }

    fn end(&self, why: EndCause, matches: impl Fn(&Entry) -> bool) -> usize {
        let mut told = 0;
        for shard in &self.shards {
            let entries: Vec<_> = locked(shard).values().filter(|e| matches(e)).cloned().collect();
            for entry in entries {
                entry.end(why);
                told += 1;
            }
        }
        told
    }
}

impl Entry {
    fn row(&self, id: u64) -> Row {
        let since = clock::unix_of(self.opened).as_secs();
        Row {
            id,
            kind: self.kind,
            pool: Arc::clone(self.backend.pool()),
            backend: self.backend.key().clone(),
            client: self.client,
            since,
            last_activity: since + Duration::from_millis(self.active_ms.load(Relaxed)).as_secs(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }

    fn end(&self, why: EndCause) {
        // The first word counts.
        let _ = self.why.compare_exchange(UNTOLD, why as u8, AcqRel, Acquire);
        let waker = locked(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Session {
    /// Bytes came from the client.
    pub fn add_in(&self, bytes: usize) {
        self.entry.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes came for the client.
    pub fn add_out(&self, bytes: usize) {
        self.entry.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// There was activity.
    pub fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.entry.opened);
        self.entry.active_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How long there was none.
    pub fn silence(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.entry.opened);
        since.saturating_sub(Duration::from_millis(self.entry.active_ms.load(Relaxed)))
    }

    /// So many bytes came from the client and for it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.entry.bytes_in.load(Relaxed), self.entry.bytes_out.load(Relaxed))
    }

    /// Ready once somebody told the session to end.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<EndCause> {
        let told = || self.entry.why.load(Acquire) != UNTOLD;
        if !told() {
            let mut waker = locked(&self.entry.waker);
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            drop(waker);
            // Looked at again, because it may have been told between the look and the waker.
            if !told() {
                return Poll::Pending;
            }
        }
        Poll::Ready(EndCause::from_index(self.entry.why.load(Acquire)))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        locked(self.ledger.shard(self.id)).remove(&self.id);
        self.ledger.live.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(pool: &str, backend: &str) -> Opening {
        let now = clock::now();
        Opening { kind: Kind::Websocket, backend: Backend::of_test(pool, backend, now), client: None, now }
    }

    /// Thousands live for hours. With the counts of its `Arc` an entry takes 128 bytes.
    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 112, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn a_session_is_listed_while_it_lives() {
        let ledger = Arc::new(Ledger::new());
        let one = ledger.open(opening("p", "a"));
        let two = ledger.open(opening("p", "b"));
        one.add_in(3);
        one.add_out(4);
        one.touch(clock::now() + Duration::from_secs(7));
        let rows = ledger.rows();
        assert_eq!((rows.len(), rows[0].bytes_in, rows[0].bytes_out), (2, 3, 4));
        assert!((6..=8).contains(&(rows[0].last_activity - rows[0].since)));
        assert!(clock::unix().as_secs() - rows[0].since <= 60);
        drop(one);
        assert_eq!(ledger.rows().len(), 1);
        drop(two);
        assert!(ledger.is_empty());
    }

    #[test]
    fn only_sessions_of_the_backend_are_told_to_end() {
        let ledger = Arc::new(Ledger::new());
        let (a, b) = (ledger.open(opening("p", "a")), ledger.open(opening("p", "b")));
        let cx = Context::from_waker(Waker::noop());
        assert!(a.poll_ended(&cx).is_pending());
        assert_eq!(ledger.end_backend("p", "a", EndCause::Drained), 1);
        assert_eq!(a.poll_ended(&cx), Poll::Ready(EndCause::Drained));
        assert!(b.poll_ended(&cx).is_pending());
        assert_eq!(ledger.end_all(EndCause::Shutdown), 2);
        assert_eq!(b.poll_ended(&cx), Poll::Ready(EndCause::Shutdown));
        assert_eq!(a.poll_ended(&cx), Poll::Ready(EndCause::Drained), "the first word counts");
    }
}
