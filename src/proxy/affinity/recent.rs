//! The picks of the last two seconds, so that the first parallel requests of a new client agree.
//!
//! A browser that opens a page has no cookie yet when it asks for styles and scripts. A navigation's pick is
//! remembered here by client address and user agent; requests that are no navigation may ask for it. The caller decides
//! who does which, so that an office behind one address still spreads. Forgetting is always allowed, for example what a
//! full shard has no place for: the price is one more session on one backend.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use crate::types::BackendKey;

/// Recent picks of all pools; bounded at 8192, about 400 KiB.
pub struct Recent {
    /// Each guards its own part of the hash space, for a fraction of a microsecond; nothing awaits under one.
    shards: Box<[Mutex<Shard>]>,
}

/// `WAYS` slots; none until first used.
#[derive(Default)]
struct Shard(Vec<Option<Entry>>);

struct Entry {
    client: u64,
    backend: BackendKey,
    since: Instant,
}

impl Recent {
    /// Nothing remembered.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Remembers a pick for [`MEMORY`] from now on, in place of an earlier one. When the place is full the oldest pick
    /// gives way.
    ///
    /// Only for picks by policy: remembering what was recalled would hold a steady stream of requests from one address
    /// on one backend for ever, instead of spreading it anew every two seconds.
    pub fn remember(&self, client: u64, backend: &BackendKey, now: Instant) {
        self.with_set(client, |set| put(set, client, backend, now));
    }

    /// Remembers a pick unless there is one already: `Some` is what a parallel request was given first, to be followed.
    pub fn agree(&self, client: u64, backend: &BackendKey, now: Instant) -> Option<BackendKey> {
        self.with_set(client, |set| {
            if let Some(entry) = set.iter().flatten().find(|e| e.client == client && e.is_fresh(now)) {
                return Some(entry.backend.clone());
            }
            put(set, client, backend, now);
            None
        })
    }

    /// The backend picked for this client in the last two seconds.
    pub fn recall(&self, client: u64, now: Instant) -> Option<BackendKey> {
        self.with_set(client, |set| {
            let entry = set.iter().flatten().find(|e| e.client == client)?;
            entry.is_fresh(now).then(|| entry.backend.clone())
        })
    }

    /// Waits for who is there before: among a thousand shards that is a sibling, with which it must agree.
    fn with_set<R>(&self, client: u64, work: impl FnOnce(&mut [Option<Entry>]) -> R) -> R {
        let shard = &self.shards[client as usize % SHARDS];
        // Whole after every single assignment.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.0.is_empty() {
            shard.0.resize_with(WAYS, || None);
        }
        work(&mut shard.0)
    }
}

fn put(set: &mut [Option<Entry>], client: u64, backend: &BackendKey, now: Instant) {
    let own = set.iter().position(|slot| slot.as_ref().is_some_and(|e| e.client == client));
    // An empty slot counts as older than any.
    let oldest = || set.iter().enumerate().min_by_key(|(_, slot)| slot.as_ref().map(|e| e.since));
    if let Some(at) = own.or_else(|| oldest().map(|(at, _)| at)) {
        set[at] = Some(Entry { client, backend: backend.clone(), since: now });
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

impl Entry {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < MEMORY
    }
}

/// Stands for a client of a pool; two with the same one merely share a first pick.
pub fn fingerprint(client: IpAddr, user_agent: &[u8], pool: &str) -> u64 {
    FixedState::default().hash_one((client, user_agent, pool))
}

/// How long a pick is remembered.
pub const MEMORY: Duration = Duration::from_secs(2);

const SHARDS: usize = 1024;
const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::runtime::clock;

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    fn client(n: u32) -> u64 {
        fingerprint(ip(n), b"agent", "p")
    }

    fn key(text: &str) -> BackendKey {
        text.parse().expect("a key")
    }

    #[test]
    fn a_pick_is_remembered_for_two_seconds() {
        let (recent, t0) = (Recent::new(), clock::now());
        let at = |ms| t0 + Duration::from_millis(ms);
        let recalled = |ms| recent.recall(client(1), at(ms));
        recent.remember(client(1), &key("a"), at(0));
        assert_eq!((recalled(1999), recalled(2000)), (Some(key("a")), None), "recalling prolongs nothing");
        recent.remember(client(1), &key("a"), at(3000));
        recent.remember(client(1), &key("a"), at(4500));
        assert_eq!((recalled(6499), recalled(6500)), (Some(key("a")), None), "the latest pick counts");
    }

    #[test]
    fn who_picks_at_the_same_time_follows_the_first() {
        let (recent, t0) = (Recent::new(), clock::now());
        let agree = |backend: &str, ms| recent.agree(client(1), &key(backend), t0 + Duration::from_millis(ms));
        assert_eq!((agree("a", 0), agree("b", 1), agree("a", 1999)), (None, Some(key("a")), Some(key("a"))));
        assert_eq!((agree("b", 2000), agree("a", 2001)), (None, Some(key("b"))), "forgotten after two seconds");
    }

    #[test]
    fn another_backend_replaces_a_pick() {
        let (recent, t0) = (Recent::new(), clock::now());
        recent.remember(client(1), &key("a"), t0);
        recent.remember(client(1), &key("b"), t0 + Duration::from_secs(1));
        assert_eq!(recent.recall(client(1), t0 + Duration::from_millis(2900)), Some(key("b")));
    }

    #[test]
    fn address_agent_and_pool_tell_clients_apart() {
        let (recent, t0) = (Recent::new(), clock::now());
        recent.remember(client(1), &key("a"), t0);
        assert_eq!(recent.recall(client(2), t0), None);
        assert_eq!(recent.recall(fingerprint(ip(1), b"other", "p"), t0), None);
        assert_eq!(recent.recall(fingerprint(ip(1), b"agent", "q"), t0), None);
    }

    #[test]
    fn a_flood_of_clients_evicts_the_oldest_and_grows_nothing() {
        let (recent, t0) = (Recent::new(), clock::now());
        let at = |n: u32| t0 + Duration::from_micros(n.into());
        for n in 0..100_000 {
            recent.remember(client(n), &key("a"), at(n));
        }
        let held: usize = recent.shards.iter().map(|s| s.lock().expect("sound").0.capacity()).sum();
        assert_eq!(held, SHARDS * WAYS);
        assert_eq!(recent.recall(client(99_999), at(100_000)), Some(key("a")));
        let mut remembered = (0..100_000).filter(|&n| recent.recall(client(n), at(100_000)).is_some());
        assert!(remembered.next().is_some_and(|oldest| oldest > 50_000), "the oldest give way");
    }
}
