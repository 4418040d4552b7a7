//! Workers: the processes of content on this node. Begun when somebody asks, several where many do, ended when nobody does.

mod journal;
mod process;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::journal::Journals;
pub use self::journal::{End as ProcessEnd, Kept as KeptJournal};
pub use self::process::{Client, Process, SOCKET, Start};
use super::settings::Limits;
use crate::node::metrics::{Metrics, WorkerFailure};
use crate::runtime::clock;

/// Between two looks for workers nobody uses.
const LOOK: Duration = Duration::from_millis(500);
/// A content whose process did not start is left alone for so long, and twice as long each time it does not again.
const PAUSE: Duration = Duration::from_secs(1);
/// A process that ends by itself sooner did not start well.
const SETTLED: Duration = Duration::from_secs(30);
/// What does not run any more ends its sessions' last work within this.
const LINGERING: Duration = Duration::from_secs(5);
/// At most so long.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Processes of all content on this node.
const PROCESSES_MAX: usize = 500;
/// Requests that wait for one process to begin.
const WAITING_MAX: usize = 200;

/// What runs: a bundle as it was set up at one time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of the content.
    pub guid: String,
    /// The path browsers see: some programs are told it when they begin, and a draft's is another.
    pub prefix: String,
    /// Its number.
    pub bundle: i64,
    /// Of the content, when it was set up so.
    pub generation: i64,
}

/// All of this node.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    pools: Arc<Mutex<HashMap<Key, Arc<Pool>>>>,
    journals: Journals,
    metrics: Arc<Metrics>,
}

/// Those of one bundle.
#[derive(Debug)]
pub struct Pool {
    key: Key,
    journals: Journals,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// One begins at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many wait for that.
    waiting: AtomicUsize,
}

/// The process a client had.
#[derive(Clone, Copy, Debug)]
pub struct Had<'a> {
    /// Its id.
    pub id: &'a str,
    /// It will do even if its bundle does not run any more: a session of it goes on.
    pub is_session: bool,
}

/// What there is for a request.
#[derive(Debug)]
pub enum Got {
    /// A worker.
    Worker(Lease),
    /// Whoever has this begins one.
    Turn(Turn),
}

/// The turn to begin a worker; others wait for it.
#[derive(Debug)]
pub struct Turn {
    pool: Arc<Pool>,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Turn {
    /// Begins one; `start`: what is known of it, or why that is nothing.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn begin(self, start: Result<Start, String>) -> Result<Lease, Refused> {
        let patience = self.pool.lock().limits.init_timeout;
        let begun = async {
            let start = start.map_err(|why| (WorkerFailure::Unprepared, why))?;
            let began = start.known_at;
            let process = Process::begin(start).map_err(|why| (WorkerFailure::Refused, why))?;
            let process = Arc::new(process);
            self.pool.journals.add(KeptJournal {
                guid: self.pool.key.guid.clone(),
                bundle: self.pool.key.bundle,
                process: Arc::downgrade(&process),
                began,
                journal: Arc::clone(process.journal()),
            });
            process.is_ready(patience).await?;
            Ok::<_, (WorkerFailure, String)>(process)
        };
        let begun = begun.await;
        self.pool.metrics.worker_begun(begun.as_ref().map(drop).map_err(|(failure, _)| *failure));
        let mut state = self.pool.lock();
        match begun {
            Ok(process) => {
                process.leased();
                state.all.push(Arc::clone(&process));
                Ok(Lease(process))
            }
            Err((_, why)) => {
                state.fail(why.clone(), clock::now());
                drop(state);
                // What there is may take one more.
                self.pool.room().ok_or(Refused::Failed(why))
            }
        }
    }
}

#[derive(Debug)]
struct State {
    all: Vec<Arc<Process>>,
    limits: Limits,
    /// What runs now is this; `false`: those that are left end with their last connection.
    is_current: bool,
    /// Why the last one did not start, how often in a row, and when.
    failed: Option<(String, u32, Instant)>,
}

impl State {
    /// Why the last one failed, so lately that none is begun yet.
    fn failed_lately(&self) -> Option<&String> {
        let (why, times, at) = self.failed.as_ref()?;
        let pause = PAUSE.saturating_mul(1 << (*times - 1).min(6)).min(PAUSE_MAX);
        (at.elapsed() < pause).then_some(why)
    }

    /// One failed.
    fn fail(&mut self, why: String, now: Instant) {
        let times = self.failed.as_ref().map_or(0, |(_, times, _)| *times) + 1;
        self.failed = Some((why, times, now));
    }
}

/// Why there is no worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It did not start; why, for who published it.
    Failed(String),
    /// All are as busy as they may be.
    Busy,
    /// It takes longer than anybody waits, or too many wait.
    Slow,
}

/// A worker that is in use until this is dropped.
#[derive(Debug)]
pub struct Lease(Arc<Process>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.released();
    }
}

impl std::ops::Deref for Lease {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl Workers {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// A worker that is there: the one the client had, if it lives; else the least busy one, if it has room.
    pub fn ready(&self, key: &Key, limits: Limits, had: Option<Had<'_>>) -> Option<Lease> {
        if let Some(had) = had.filter(|had| had.is_session)
            && let Some(lease) = self.old(key, had.id)
        {
            return Some(lease);
        }
        self.pool(key, limits).take(had)
    }

    /// As [`Self::ready`]; else the turn to begin another, which is waited for so long.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn get(&self, key: &Key, limits: Limits, had: Option<Had<'_>>, wait: Duration) -> Result<Got, Refused> {
        if let Some(lease) = self.ready(key, limits, had) {
            return Ok(Got::Worker(lease));
        }
        let pool = self.pool(key, limits);
        let turn = pool.turn(wait).await?;
        // Whoever waited for the turn may find what the one before began.
        if let Some(lease) = pool.take(had) {
            return Ok(Got::Worker(lease));
        }
        let refused = pool.refusal().or_else(|| (self.count() >= PROCESSES_MAX).then_some(Refused::Busy));
        if let Some(refused) = refused {
            return pool.room().map(Got::Worker).ok_or(refused);
        }
        Ok(Got::Turn(Turn { pool, _turn: turn }))
    }

    /// The turn to begin another worker although nobody asks, if fewer than this live. `None`: there are enough, one begins
    /// already, or none may.
    pub fn more(&self, key: &Key, limits: Limits, count: usize) -> Option<Turn> {
        let pool = self.pool(key, limits);
        let turn = Arc::clone(&pool.turn).try_lock_owned().ok()?;
        if pool.alive() >= count || pool.refusal().is_some() || self.count() >= PROCESSES_MAX {
            return None;
        }
        Some(Turn { pool, _turn: turn })
    }

    /// Whether fewer than this live.
    pub fn lacks(&self, key: &Key, count: usize) -> bool {
        self.lock().get(key).is_none_or(|pool| pool.alive() < count)
    }

    /// A worker by its id, whatever of its content it runs.
    fn old(&self, key: &Key, id: &str) -> Option<Lease> {
        let pools = self.lock();
        let mut same = pools.iter().filter(|(other, _)| other.guid == key.guid && other.prefix == key.prefix);
        same.find_map(|(_, pool)| pool.find(id))
    }

    /// What there are processes of.
    pub fn guids(&self) -> Vec<String> {
        let mut all: Vec<String> = self.lock().keys().map(|key| key.guid.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Ends all processes of content that is not there any more, with their sessions.
    pub fn remove(&self, guid: &str) {
        self.lock().retain(|key, pool| {
            if key.guid == guid {
                pool.lock().all.iter().for_each(Process::end);
            }
            key.guid != guid
        });
    }

    /// That of a key. A new one is of what runs now as it is set up now, so what its content had before gets nobody new; but
    /// who asks late may still ask for that.
    fn pool(&self, key: &Key, limits: Limits) -> Arc<Pool> {
        let mut pools = self.lock();
        if let Some(pool) = pools.get(key) {
            return Arc::clone(pool);
        }
        let mut is_current = true;
        for (other, pool) in pools.iter().filter(|(other, _)| other.guid == key.guid) {
            match other.generation.cmp(&key.generation) {
                Ordering::Less => pool.lock().is_current = false,
                // A draft beside what runs.
                Ordering::Equal => {}
                Ordering::Greater => is_current = false,
            }
        }
        let state = State { all: Vec::new(), limits, is_current, failed: None };
        let pool = Arc::new(Pool {
            key: key.clone(),
            journals: self.journals.clone(),
            metrics: Arc::clone(&self.metrics),
            state: Mutex::new(state),
            turn: Arc::default(),
            waiting: AtomicUsize::new(0),
        });
        pools.insert(key.clone(), Arc::clone(&pool));
        pool
    }

    /// What processes say that were begun since this was last asked for.
    pub fn journals(&self) -> Vec<KeptJournal> {
        self.journals.take()
    }

    /// Processes there are.
    pub fn count(&self) -> usize {
        self.lock().values().map(|pool| pool.lock().all.len()).sum()
    }

    /// Connections there are.
    pub fn connections(&self) -> usize {
        self.lock().values().map(|pool| pool.lock().all.iter().map(|worker| worker.load()).sum::<usize>()).sum()
    }

    /// Connections of one content.
    pub fn connections_of(&self, guid: &str) -> usize {
        let pools = self.lock();
        let own = pools.iter().filter(|(key, _)| key.guid == guid);
        own.map(|(_, pool)| pool.lock().all.iter().map(|worker| worker.load()).sum::<usize>()).sum()
    }

    /// Processes of one content: of which bundle, what each is called, and how many connections it has.
    pub fn processes_of(&self, guid: &str) -> Vec<(i64, String, usize)> {
        let pools = self.lock();
        let own = pools.iter().filter(|(key, _)| key.guid == guid);
        own.flat_map(|(key, pool)| {
            let state = pool.lock();
            let all = state.all.iter().map(|worker| (key.bundle, worker.id().to_owned(), worker.load()));
            all.collect::<Vec<_>>()
        })
        .collect()
    }

    /// Ends those nobody uses, until told to stop; then all.
    pub async fn follow(&self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.tidy(clock::now());
        }
    }

    /// Ends all, whoever uses them, and waits for that.
    pub async fn end(&self) {
        let pools = std::mem::take(&mut *self.lock());
        let all: Vec<_> = pools.values().flat_map(|pool| pool.lock().all.clone()).collect();
        all.iter().for_each(Process::end);
        let until = clock::now() + process::ENDING;
        while clock::now() < until && !all.iter().all(|worker| worker.has_ended()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What content had before this generation gets nobody new, and ends when nobody uses it.
    pub fn outdate(&self, guid: &str, generation: i64) {
        let pools = self.lock();
        let old = pools.iter().filter(|(key, _)| key.guid == guid && key.generation < generation);
        old.for_each(|(_, pool)| pool.lock().is_current = false);
    }

    fn tidy(&self, now: Instant) {
        self.lock().retain(|_, pool| {
            let mut state = pool.lock();
            let (limits, is_current) = (state.limits, state.is_current);
            let mut kept = 0;
            let crashed = state.all.iter().filter(|worker| worker.has_ended() && !worker.was_killed());
            let ages: Vec<Duration> = crashed.map(|worker| worker.age(now)).collect();
            ages.iter().for_each(|_| pool.metrics.worker_crashed());
            for age in ages.into_iter().filter(|age| *age < SETTLED) {
                state.fail(format!("it ended by itself {} s after it began; its log says more", age.as_secs()), now);
            }
            if state.all.iter().any(|worker| !worker.has_ended() && worker.age(now) >= SETTLED) {
                state.failed = None;
            }
            let patience = if is_current { limits.idle_timeout } else { limits.idle_timeout.min(LINGERING) };
            state.all.retain(|worker| {
                if worker.has_ended() {
                    return false;
                }
                let idle = worker.idle(now);
                let may_go = idle.is_some_and(|idle| idle > patience);
                if may_go && (!is_current || kept >= limits.min_processes) {
                    worker.end();
                    return false;
                }
                kept += 1;
                true
            });
            let is_remembered =
                state.failed.as_ref().is_some_and(|(_, _, at)| now.saturating_duration_since(*at) < 2 * PAUSE_MAX);
            // Somebody holds it who is about to begin one.
            !state.all.is_empty() || is_remembered && is_current || Arc::strong_count(pool) > 1
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to begin one.
    async fn turn(&self, wait: Duration) -> Result<tokio::sync::OwnedMutexGuard<()>, Refused> {
        /// One who waits.
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Relaxed);
        let _waits = Waits(&self.waiting);
        if before >= WAITING_MAX {
            return Err(Refused::Slow);
        }
        tokio::time::timeout(wait, Arc::clone(&self.turn).lock_owned()).await.map_err(|_| Refused::Slow)
    }

    /// How many live.
    fn alive(&self) -> usize {
        self.lock().all.iter().filter(|worker| !worker.has_ended()).count()
    }

    /// The one of this id, if it lives.
    fn find(&self, id: &str) -> Option<Lease> {
        let state = self.lock();
        let worker = state.all.iter().find(|worker| worker.id() == id && !worker.has_ended())?;
        worker.leased();
        Some(Lease(Arc::clone(worker)))
    }

    /// One that lives and has room. `None`: another one is to begin, or all are full.
    fn take(&self, had: Option<Had<'_>>) -> Option<Lease> {
        if let Some(lease) = had.and_then(|had| self.find(had.id)) {
            return Some(lease);
        }
        let state = self.lock();
        let alive = || state.all.iter().filter(|worker| !worker.has_ended());
        let limits = state.limits;
        let least = alive().min_by_key(|worker| worker.load())?;
        let (count, load): (usize, usize) = alive().fold((0, 0), |(n, sum), worker| (n + 1, sum + worker.load()));
        // With so much of what they may take taken, there should be one more.
        let most = (limits.connections * count) as f64 * limits.load_factor;
        let wants_more = count < limits.max_processes && load as f64 >= most.max(1.0);
        // Whoever is first begins it; others go on with what there is meanwhile, and if it fails.
        let begins = wants_more && state.failed_lately().is_none() && self.turn.try_lock().is_ok();
        if begins || least.load() >= limits.connections {
            return None;
        }
        least.leased();
        Some(Lease(Arc::clone(least)))
    }

    /// One that has room, however busy the others are.
    fn room(&self) -> Option<Lease> {
        let state = self.lock();
        let alive = state.all.iter().filter(|worker| !worker.has_ended());
        let least = alive.min_by_key(|worker| worker.load()).filter(|least| least.load() < state.limits.connections)?;
        least.leased();
        Some(Lease(Arc::clone(least)))
    }

    /// Why none may begin now.
    fn refusal(&self) -> Option<Refused> {
        let state = self.lock();
        if let Some(why) = state.failed_lately() {
            return Some(Refused::Failed(why.clone()));
        }
        let count = state.all.iter().filter(|worker| !worker.has_ended()).count();
        (count >= state.limits.max_processes).then_some(Refused::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::content::settings::Settings;

    fn key(generation: i64) -> Key {
        Key { guid: "g".into(), prefix: "/content/g".into(), bundle: 1, generation }
    }

    fn limits() -> Limits {
        Limits {
            init_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            connection_timeout: Duration::from_secs(1),
            min_processes: 0,
            max_processes: 2,
            connections: 2,
            load_factor: Settings::default().load_factor.unwrap_or(0.5),
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_start_waits_for_so_long_and_among_so_many() {
        let workers = Workers::default();
        let wait = Duration::from_millis(20);
        let Ok(Got::Turn(turn)) = workers.get(&key(1), limits(), None, wait).await else { panic!("nobody has it") };
        let second = workers.get(&key(1), limits(), None, wait).await;
        assert!(matches!(second, Err(Refused::Slow)), "{second:?}");
        assert!(workers.more(&key(1), limits(), 2).is_none(), "one begins already");
        let draft = Key { prefix: "/content/g/_bundle1".into(), ..key(1) };
        assert!(
            matches!(workers.get(&draft, limits(), None, wait).await, Ok(Got::Turn(_))),
            "a draft is another program"
        );

        let long = Duration::from_secs(60);
        let waits: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let workers = workers.clone();
                tokio::spawn(async move { workers.get(&key(1), limits(), None, long).await.map(drop) })
            })
            .collect();
        let pool = workers.pool(&key(1), limits());
        while pool.waiting.load(Relaxed) < WAITING_MAX {
            tokio::task::yield_now().await;
        }
        let one_more = workers.get(&key(1), limits(), None, long).await;
        assert!(matches!(one_more, Err(Refused::Slow)), "{one_more:?}");

        // It failed: whoever waited hears why, and nobody begins another at once.
        assert!(turn.begin(Err("no luck".into())).await.is_err());
        for wait in waits {
            assert_eq!(wait.await.unwrap(), Err(Refused::Failed("no luck".into())));
        }
        assert_eq!(pool.waiting.load(Relaxed), 0);
        assert!(workers.more(&key(1), limits(), 2).is_none());
    }
}
