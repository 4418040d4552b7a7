//! Work in the background: claimed from the database by whichever node has room, done, and written down with what it said.
//! Where a node dies over it, another one begins it again.

mod collect;
mod log;
mod queue;
mod schedule;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::log::{Log, plain};
pub use self::queue::Queue;
pub use self::schedule::{STORAGE, follow as schedule, sync};
use super::content::deploy;
use super::error::Failure;
use super::parts::Parts;
use super::store::{Attendance, Claimed, Language, StoreError};
use super::{git, registry, remote, report};
use crate::config::node::Jobs;
use crate::runtime::clock;
use crate::telemetry::Causes;

/// Between two looks into the queue, where nobody says that there is something new.
const POLL: Duration = Duration::from_secs(5);
/// Between two looks at a job that runs, and between two writings of its log.
const ATTEND: Duration = Duration::from_secs(1);
/// A job that killed so many nodes is not begun again.
const DEATHS_MAX: i64 = 3;

/// Characters of what came of a job.
const RESULT_MAX: usize = 2_000;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Delete blobs that nothing refers to.
    Collect,
    /// Look what is new in a git repository, or in another CRAN.
    Sync,
    /// Make packages of a commit.
    Build,
    /// Let a bundle run.
    Deploy,
    /// Render content again, which somebody waits for.
    Render,
    /// Render content again, because it is time.
    Report,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Collect, Self::Sync, Self::Build, Self::Deploy, Self::Render, Self::Report];

    /// As rows have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Sync => "sync",
            Self::Build => "build",
            Self::Deploy => deploy::KIND,
            Self::Render => report::run::RENDER,
            Self::Report => report::run::REPORT,
        }
    }

    fn limit(self, jobs: &Jobs) -> usize {
        match self {
            Self::Collect => jobs.collect,
            Self::Sync => jobs.sync,
            Self::Build => jobs.build,
            Self::Deploy | Self::Render => jobs.deploy,
            Self::Report => jobs.report,
        }
    }
}

/// How a job ended, in a sentence: what came of it, or why not.
pub type Ended = Result<String, String>;

async fn work(kind: Kind, parts: &Parts, log: &Log, input: &str) -> Ended {
    match kind {
        Kind::Collect => collect::collect(parts, log).await,
        Kind::Sync => sync_source(parts, log, input).await,
        Kind::Build => git::build(parts, log, input).await,
        Kind::Deploy => deploy::deploy(parts, log, input).await,
        Kind::Render | Kind::Report => report::run::run(parts, log, input).await,
    }
}

/// `{"source": ID}`.
async fn sync_source(parts: &Parts, log: &Log, input: &str) -> Ended {
    let told: serde_json::Value = serde_json::from_str(input).map_err(|e| e.to_string())?;
    // It may be newer than what this node knows.
    parts.catalog.refresh().await.map_err(|e| Failure::from(e).message().to_owned())?;
    match parts.catalog.remote(told["source"].as_i64().unwrap_or_default()) {
        Some((Language::R, remote)) => remote::sync::sync(parts, log, &remote).await,
        _ => git::sync(parts, log, input).await,
    }
}

/// Does jobs until told to stop, then gives back what is not done. `node`: id of this process in the registry.
pub async fn follow(parts: Parts, node: String, mut stop: watch::Receiver<bool>) {
    let mut running: JoinSet<(Kind, i64)> = JoinSet::new();
    let mut busy: HashMap<Kind, usize> = HashMap::new();
    let mut held: HashSet<i64> = HashSet::new();
    loop {
        give_back(&parts, &node, &held).await;
        for kind in Kind::ALL {
            while busy.get(&kind).copied().unwrap_or(0) < kind.limit(&parts.settings.jobs) {
                let Some(job) = claim(&parts, kind, &node).await else { break };
                *busy.entry(kind).or_default() += 1;
                held.insert(job.id);
                let id = job.id;
                let (parts, stop) = (parts.clone(), stop.clone());
                running.spawn(async move {
                    run(parts, kind, job, stop).await;
                    (kind, id)
                });
            }
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = running.join_next() => {
                if let Ok((kind, id)) = ended {
                    held.remove(&id);
                    busy.entry(kind).and_modify(|count| *count -= 1);
                }
            }
            () = parts.job_added.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    while running.join_next().await.is_some() {}
}

/// Jobs that rows say we have and we have not, because an answer of the database was lost.
async fn give_back(parts: &Parts, node: &str, held: &HashSet<i64>) {
    for job in parts.store.held(node).await.unwrap_or_default() {
        if !held.contains(&job.id) {
            let _ = parts.store.release(&job).await;
        }
    }
}

async fn claim(parts: &Parts, kind: Kind, node: &str) -> Option<Claimed> {
    let claimed = async { parts.store.claim(kind.as_str(), node, heard(parts).await?).await };
    match claimed.await {
        Ok(job) => job,
        Err(error) => {
            // The heartbeat tells it.
            tracing::debug!(error = %Causes(&error), "the queue of jobs cannot be looked into");
            None
        }
    }
}

/// A node that has not been heard of since then is dead, microseconds since 1970 by the database's clock.
///
/// # Errors
/// See [`StoreError`].
pub async fn heard(parts: &Parts) -> Result<i64, StoreError> {
    // After the database was away nobody has been heard of, until everybody had the time to be.
    Ok(match parts.beating.since() {
        Some(since) if since.elapsed() > registry::ALIVE => {
            let alive = i64::try_from(registry::ALIVE.as_micros()).unwrap_or(i64::MAX);
            schedule::ago(Duration::ZERO) - parts.store.clock_offset().await? - alive
        }
        _ => i64::MIN,
    })
}

/// One job, from its claim to its end.
async fn run(parts: Parts, kind: Kind, job: Claimed, mut stop: watch::Receiver<bool>) {
    let Ok(log) = Log::open(parts.store.clone(), job.clone()).await else {
        return drop(parts.store.release(&job).await);
    };
    tracing::info!(kind = kind.as_str(), job = job.id, subject = job.subject, attempt = job.attempt, "a job begins");
    let began = clock::now();
    if job.attempt > 1 {
        log.say(&format!("attempt {}: the node that had it before left or died", job.attempt));
    }
    // In a task of its own, so that its panic is this job's failure only. Dropped, it ends.
    let mut working = JoinSet::new();
    if job.deaths < DEATHS_MAX {
        let (parts, log, input) = (parts.clone(), log.clone(), job.input.clone());
        working.spawn(async move { work(kind, &parts, &log, &input).await });
    }
    let (state, result) = loop {
        tokio::select! {
            biased;
            ended = working.join_next() => break match ended {
                Some(Ok(Ok(done))) => ("done", done),
                Some(Ok(Err(why))) => ("failed", why),
                other => {
                    let why = match other {
                        Some(Err(error)) => format!("the node failed over it: {error}"),
                        _ => format!("{DEATHS_MAX} nodes died over it"),
                    };
                    if kind == Kind::Report {
                        report::run::tell_failure(&parts, &job.input, &why).await;
                    }
                    ("failed", why)
                }
            },
            () = told(&mut stop) => {
                working.shutdown().await;
                log.say("the node leaves; another one begins again");
                log.flush().await;
                let _ = parts.store.release(&job).await;
                return;
            }
            () = tokio::time::sleep(ATTEND) => {}
        }
        log.flush().await;
        match parts.store.attend(&job).await {
            Ok(Attendance::Ours) => {}
            Ok(Attendance::Cancelled) => {
                working.shutdown().await;
                break ("cancelled", "somebody cancelled it".to_owned());
            }
            Ok(Attendance::Lost) => {
                working.shutdown().await;
                tracing::warn!(job = job.id, "another node has taken a job over; leaving it");
                return;
            }
            Err(error) => tracing::debug!(error = %Causes(&error), "a job cannot be attended"),
        }
    };
    match state {
        "failed" => {
            tracing::warn!(kind = kind.as_str(), job = job.id, subject = job.subject, why = result, "a job failed")
        }
        _ => tracing::info!(kind = kind.as_str(), job = job.id, subject = job.subject, state, result, "a job ended"),
    }
    // Programs of others say things no database takes.
    let mut result: String = result.chars().map(|c| if c.is_control() { ' ' } else { c }).take(RESULT_MAX).collect();
    parts.metrics.job(kind.as_str(), state, began.elapsed());
    // Without a database nobody else takes it over, so there is time.
    loop {
        log.flush().await;
        match parts.store.end(&job, state, &result).await {
            Ok(_) => return,
            Err(StoreError::Unavailable(_) | StoreError::NoPrimary) => {}
            Err(error) => {
                tracing::error!(job = job.id, error = %Causes(&error), "a job's end cannot be written");
                "what came of it could not be written down".clone_into(&mut result);
            }
        }
        tokio::select! {
            () = told(&mut stop) => return,
            () = tokio::time::sleep(ATTEND) => {}
        }
    }
}

/// Returns when it is time to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
