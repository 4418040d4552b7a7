//! Jobs that nobody asks for: what is due is put into the queue, by whichever node sees it first.

use std::time::Duration;

use tokio::sync::watch;

use super::Kind;
use crate::node::parts::Parts;
use crate::node::remote;
use crate::node::store::{Deed, Language, NewJob, Source, StoreError};
use crate::runtime::{clock, dice};
use crate::telemetry::Causes;

/// Between two looks, more or less.
const LOOK: Duration = Duration::from_secs(20);
/// Between two attempts to ask another CRAN that does not answer.
const AGAIN: Duration = Duration::from_secs(3600);
/// Of whole storages.
pub const STORAGE: &str = "storage";

/// Looks what is due until told to stop.
pub async fn follow(parts: Parts, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = LOOK + Duration::from_millis(u64::from(dice::secret::<1>()[0]) * 20);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = look(&parts).await {
            tracing::debug!(error = %Causes(&error), "what is due cannot be looked up");
        }
    }
}

async fn look(parts: &Parts) -> Result<(), StoreError> {
    let collect = NewJob { kind: Kind::Collect.as_str(), subject: STORAGE, input: "{}", slot: Kind::Collect.as_str() };
    want(parts, collect, parts.settings.garbage.every).await?;
    for source in parts.store.sources().await? {
        let every = match (source.kind.as_str(), parts.catalog.remote(source.id)) {
            ("git", _) => parts.settings.builder.every,
            // Once a day, and once more after a while where it did not answer.
            ("remote", Some((Language::R, remote))) if remote::sync::is_due(parts, &remote).await? => AGAIN,
            _ => continue,
        };
        let (input, slot) = of(&source);
        want(parts, NewJob { kind: Kind::Sync.as_str(), subject: &source.name, input: &input, slot: &slot }, every)
            .await?;
    }
    Ok(())
}

/// Lets a node look into a source's git repository, or ask another CRAN; `None`: one is about to.
///
/// # Errors
/// See [`StoreError`].
pub async fn sync(parts: &Parts, source: &Source, by: Option<&Deed<'_>>) -> Result<Option<i64>, StoreError> {
    let (input, slot) = of(source);
    let job = NewJob { kind: Kind::Sync.as_str(), subject: &source.name, input: &input, slot: &slot };
    let id = parts.store.enqueue(job, by).await?;
    parts.job_added.notify_one();
    Ok(id)
}

/// Input and slot of a look into a source: its name may have been another source's before.
fn of(source: &Source) -> (String, String) {
    (format!("{{\"source\": {}}}", source.id), format!("sync/{}", source.id))
}

/// Puts a job into the queue whose like was not wanted for so long.
async fn want(parts: &Parts, job: NewJob<'_>, every: Duration) -> Result<(), StoreError> {
    let last = parts.store.last_wanted(&job).await?;
    if last.is_none_or(|last| last < ago(every)) && parts.store.enqueue(job, None).await?.is_some() {
        parts.job_added.notify_one();
    }
    Ok(())
}

/// So long before now, in microseconds since 1970.
pub(super) fn ago(time: Duration) -> i64 {
    i64::try_from(clock::unix().saturating_sub(time).as_micros()).unwrap_or(i64::MAX)
}
