//! Downloads, counted in memory and written down every few seconds: no request waits for it, and a node that is killed loses
//! a few seconds of them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::watch;

use super::download::Wanted;
use super::parts::Parts;
use super::store::{Downloads, Language, Repository};
use super::{cran, pypi, remote};
use crate::runtime::clock;
use crate::telemetry::Causes;

/// Between two writings.
const WRITE: Duration = Duration::from_secs(10);
/// Parts of what is counted, each with a lock of its own.
const SHARDS: usize = 32;
/// Files of one part between two writings; further ones are not counted.
const FILES_MAX: usize = 4_000;
/// Rows of one transaction.
const BATCH: usize = 500;
const DAY: u64 = 24 * 3600;

/// Clients that are told apart, by what is in their User-Agent; the first that fits.
const CLIENTS: [(&str, &str); 9] = [
    ("uv/", "uv"),
    ("poetry/", "poetry"),
    ("pip/", "pip"),
    ("renv", "renv"),
    ("pak", "pak"),
    ("R (", "R"),
    ("libcurl", "R"),
    ("bowline/", "bowline"),
    ("Mozilla/", "browser"),
];
const OTHER: &str = "other";

/// What was downloaded since it was last written down.
#[derive(Debug)]
pub struct Stats {
    shards: Box<[Mutex<Counted>]>,
    hasher: RandomState,
}

/// By repository and file, then by client: the last for all others.
type Counted = HashMap<(i64, Language), HashMap<Box<str>, [u32; CLIENTS.len() + 1]>>;

impl Stats {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Counts an answer to who wanted a file, if it is the whole of it or a link to it.
    pub fn count(&self, repository: &Repository, filename: &str, wanted: Wanted<'_>, status: StatusCode) {
        if *wanted.method != Method::GET || !matches!(status, StatusCode::OK | StatusCode::TEMPORARY_REDIRECT) {
            return;
        }
        let client = client(wanted.fields);
        let place = self.hasher.hash_one(filename) as usize % SHARDS;
        let mut shard = self.shards[place].lock().unwrap_or_else(PoisonError::into_inner);
        let files = shard.entry((repository.id, repository.language)).or_default();
        if let Some(counts) = files.get_mut(filename) {
            counts[client] = counts[client].saturating_add(1);
        } else if files.len() < FILES_MAX {
            let mut counts = [0; CLIENTS.len() + 1];
            counts[client] = 1;
            files.insert(filename.into(), counts);
        }
    }

    /// What was counted, which begins anew.
    fn take(&self, day: i64) -> Vec<Downloads> {
        let mut sums: BTreeMap<(i64, String, String, &'static str), i64> = BTreeMap::new();
        for shard in &self.shards {
            let counted = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            for ((repository, language), files) in counted {
                for (filename, counts) in files {
                    let Some((package, version)) = release(language, &filename) else { continue };
                    for (client, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
                        let client = CLIENTS.get(client).map_or(OTHER, |(_, name)| name);
                        *sums.entry((repository, package.clone(), version.clone(), client)).or_default() +=
                            i64::from(count);
                    }
                }
            }
        }
        // In one order on every node, so that none waits for another's locks while holding what that one waits for.
        let row = |((repository, package, version, client), count)| Downloads {
            repository,
            day,
            package,
            version,
            client,
            count,
        };
        sums.into_iter().map(row).collect()
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

fn client(fields: &HeaderMap) -> usize {
    let agent = fields.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    CLIENTS.iter().position(|(mark, _)| agent.contains(mark)).unwrap_or(CLIENTS.len())
}

fn release(language: Language, filename: &str) -> Option<(String, String)> {
    match language {
        Language::Python => {
            let named = pypi::name::parse(filename).ok()?;
            Some((pypi::name::normal(&named.project), named.version))
        }
        Language::R => {
            cran::name::split(filename).map(|(package, version, _)| (package.to_owned(), version.to_owned()))
        }
    }
}

/// The day it is, since 1970, UTC.
pub fn today() -> i64 {
    i64::try_from(clock::unix_seconds() / DAY).unwrap_or(0)
}

/// Writes down what was counted until told to stop, and once more then.
pub async fn follow(parts: Parts, mut stop: watch::Receiver<bool>) {
    let mut waiting: Vec<Downloads> = Vec::new();
    loop {
        let is_over = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(WRITE) => false,
        };
        // While the database is away they wait, no more than what one writing may have.
        if waiting.len() < SHARDS * FILES_MAX {
            waiting.extend(parts.stats.take(today()));
        }
        while !waiting.is_empty() {
            let batch = waiting.len().min(BATCH);
            if let Err(error) = parts.store.add_downloads(&waiting[..batch]).await {
                tracing::debug!(error = %Causes(&error), "downloads cannot be written down");
                break;
            }
            waiting.drain(..batch);
        }
        remote::uses::write(&parts).await;
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_summed_by_release_and_client() {
        let repository = Repository::empty(Language::Python);
        let stats = Stats::new();
        let mut fields = HeaderMap::new();
        let mut get = |agent: &str, filename: &str, status: StatusCode| {
            fields.insert(USER_AGENT, agent.parse().unwrap());
            stats.count(&repository, filename, Wanted { method: &Method::GET, fields: &fields }, status);
        };
        get("pip/23.0.1 {\"ci\":null}", "My_Pkg-1.0-py3-none-any.whl", StatusCode::OK);
        get("pip/25.0", "my_pkg-1.0.tar.gz", StatusCode::OK);
        get("uv/0.9.1", "my_pkg-1.0.tar.gz", StatusCode::TEMPORARY_REDIRECT);
        get("curl/8", "my_pkg-1.1.tar.gz", StatusCode::OK);
        get("curl/8", "my_pkg-1.1.tar.gz", StatusCode::NOT_MODIFIED);
        get("curl/8", "no package", StatusCode::OK);
        let told = stats.take(3);
        let told: Vec<_> = told.iter().map(|d| (d.package.as_str(), d.version.as_str(), d.client, d.count)).collect();
        assert_eq!(told, [("my-pkg", "1.0", "pip", 2), ("my-pkg", "1.0", "uv", 1), ("my-pkg", "1.1", "other", 1)]);
        assert!(stats.take(3).is_empty(), "counted once");
    }
}
