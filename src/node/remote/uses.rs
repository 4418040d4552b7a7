//! Which files of other indexes are used, by day: written down a little later, so that no request waits for it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::node::parts::Parts;
use crate::node::stats::today;
use crate::node::store::{StoreError, UsedFile};
use crate::telemetry::Causes;
use crate::types::Sha256;

/// Files that are remembered to have been used today; further ones are told to the database more often.
const SEEN_MAX: usize = 500_000;
/// Files that wait to be written down; further ones wait for their next use.
const WAITING_MAX: usize = 50_000;
/// Rows of one transaction.
const BATCH: usize = 500;

/// What was used since it was last written down.
#[derive(Debug, Default)]
pub struct Uses {
    now: Mutex<Day>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Day {
    /// Since 1970, UTC.
    day: i64,
    /// Hashes of files that are written down, or wait to be.
    seen: HashSet<u64>,
    waiting: Vec<UsedFile>,
}

impl Uses {
    /// A file was used that is kept here.
    pub fn mark(&self, source: i64, path: &str, digest: &Sha256) {
        let hash = self.hasher.hash_one((source, path));
        let today = today();
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.day != today || now.seen.len() >= SEEN_MAX {
            now.day = today;
            now.seen.clear();
        }
        if now.waiting.len() < WAITING_MAX && now.seen.insert(hash) {
            now.waiting.push(UsedFile { source, path: path.to_owned(), sha256: digest.to_string() });
        }
    }

    fn take(&self) -> Vec<UsedFile> {
        let mut taken = std::mem::take(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner).waiting);
        // In one order on every node, so that none waits for another's locks while holding what that one waits for.
        taken.sort_unstable();
        taken
    }

    fn give_back(&self, files: impl Iterator<Item = UsedFile>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WAITING_MAX.saturating_sub(now.waiting.len());
        now.waiting.extend(files.take(room));
    }
}

/// Writes down what was used. What cannot be written waits for the next time.
pub async fn write(parts: &Parts) {
    let uses = parts.remotes.uses();
    let files = uses.take();
    for (number, batch) in files.chunks(BATCH).enumerate() {
        match parts.store.use_remote_files(batch, today()).await {
            Ok(unknown) => adopt(parts, unknown).await,
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "the use of other indexes' files cannot be written down");
                return uses.give_back(files.into_iter().skip(number * BATCH));
            }
        }
    }
}

/// Files that were forgotten, or never written down, and are used none the less: their blobs are still here, and to be kept.
async fn adopt(parts: &Parts, files: Vec<UsedFile>) {
    for UsedFile { source, path, sha256 } in files {
        let adopted = parts.store.put_remote_file(source, &[&path], &sha256, None).await;
        if let Err(error @ (StoreError::Unavailable(_) | StoreError::NoPrimary | StoreError::Broken(_))) = adopted {
            // Another use, or another fetch, does it.
            tracing::debug!(error = %Causes(&error), path, "a file of another index cannot be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_down_once_a_day_and_again_if_that_failed() {
        let uses = Uses::default();
        let digest: Sha256 = "aa".repeat(32).parse().unwrap();
        for path in ["b", "a", "b", "a"] {
            uses.mark(1, path, &digest);
        }
        let taken = uses.take();
        assert_eq!(taken.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        uses.mark(1, "a", &digest);
        assert!(uses.take().is_empty());
        uses.give_back(taken.into_iter());
        assert_eq!(uses.take().len(), 2);
        uses.now.lock().unwrap().day -= 1;
        uses.mark(1, "a", &digest);
        assert_eq!(uses.take().len(), 1, "the next day");
    }
}
