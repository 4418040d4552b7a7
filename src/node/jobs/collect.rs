//! The end of blobs that nothing refers to: seen once and remembered, deleted when they still are it after the grace period.
//! And of rows that nobody will look at any more.

use std::time::Duration;

use super::schedule::ago;
use super::{Ended, Log};
use crate::node::blob::BlobError;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::stats::today;
use crate::node::store::garbage::SENTENCE;
use crate::runtime::clock;
use crate::types::Sha256;

/// Blobs condemned at once: few enough to be deleted in time.
const FEW: usize = 50;

/// How long jobs that ended are remembered.
const JOBS: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long it is remembered that another index has not what somebody once asked for.
const ABSENT: Duration = Duration::from_secs(2 * 24 * 3600);
/// What is to be fetched again needs somebody to fetch it from: an index that answered so lately.
const ANSWERED: Duration = Duration::from_secs(2 * 24 * 3600);
/// How long downloads are remembered.
const DOWNLOADS_DAYS: i64 = 3 * 366;

/// For one deletion.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn collect(parts: &Parts, log: &Log) -> Ended {
    collected(parts, log).await.map_err(|failure| failure.message().to_owned())
}

async fn collected(parts: &Parts, log: &Log) -> Result<String, Failure> {
    parts.store.forget_jobs(ago(JOBS)).await?;
    parts.store.forget_absent(ago(ABSENT)).await?;
    let kept = i64::from(parts.settings.content.renderings_kept);
    parts.store.forget_renderings(kept).await?;
    parts.store.forget_tokens().await?;
    parts.store.forget_downloads(today() - DOWNLOADS_DAYS).await?;
    if let Some(unused) = parts.settings.garbage.remote_unused {
        let days = days(unused);
        let forgotten = parts.store.forget_unused(today().saturating_sub(days), ago(ANSWERED)).await?;
        log.say(&format!("{forgotten} files of other indexes forgotten, which nobody used for {days} days"));
    }
    // Bytes before rows: what is named by the time the rows are read was there, or came later.
    let mut there = Vec::new();
    for (class, blobs) in parts.places() {
        let found = blobs.digests().await?;
        log.say(&format!("{} blobs where {class} are", found.len()));
        there.extend(found);
    }
    there.sort_unstable();
    there.dedup();
    // Whatever class a row is of, its blob stays wherever there is one: two places may be one under two names, and what was
    // moved may be moved back.
    let named = parts.store.named().await?;
    let unnamed: Vec<String> = there.iter().map(ToString::to_string).filter(|digest| !named.contains(digest)).collect();
    log.say(&format!("{} blobs, of which nothing refers to {}", there.len(), unnamed.len()));
    for few in unnamed.chunks(FEW) {
        parts.store.suspect(few).await?;
    }
    parts.store.acquit().await?;
    let ripe = parts.store.suspects(ago(parts.settings.garbage.grace)).await?;
    let (mut deleted, mut freed) = (0, 0);
    for few in ripe.chunks(FEW) {
        if parts.store.hold().await? > ago(Duration::ZERO) {
            log.say("there is a hold: nothing is deleted");
            break;
        }
        let since = clock::now();
        let condemned = parts.store.condemn(few).await?;
        let mut gone = Vec::new();
        for sha256 in condemned {
            // Afterwards somebody may keep it anew.
            if since.elapsed() > SENTENCE / 2 {
                break;
            }
            let Ok(digest) = sha256.parse::<Sha256>() else { continue };
            let Ok(deleted) = tokio::time::timeout(DELETE_TIMEOUT, delete(parts, &digest)).await else { break };
            freed += deleted?;
            log.say(&format!("deleted {sha256}"));
            gone.push(sha256);
        }
        deleted += gone.len();
        parts.store.executed(&gone).await?;
    }
    parts.metrics.collected(deleted as u64, freed);
    Ok(format!("{deleted} of {} blobs deleted, {freed} bytes; nothing refers to {}", there.len(), unnamed.len()))
}

/// Deletes a blob wherever there is one; what it took, bytes.
async fn delete(parts: &Parts, digest: &Sha256) -> Result<u64, BlobError> {
    let mut freed = 0;
    for (_, blobs) in parts.places() {
        freed += blobs.delete(digest).await?;
    }
    Ok(freed)
}

/// Whole days, of which all is over after this time: of a use only the day is known.
fn days(unused: Duration) -> i64 {
    i64::try_from(unused.as_secs().div_ceil(24 * 3600)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forgotten_before_its_time() {
        let hours = |hours: u64| days(Duration::from_secs(hours * 3600));
        assert_eq!((hours(1), hours(24), hours(36), hours(48)), (1, 1, 2, 2));
    }
}
