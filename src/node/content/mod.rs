//! Content: what people publish and browsers open. From bundles to pages.

pub mod access;
pub mod ahead;
pub mod bundle;
pub mod copies;
pub mod deploy;
pub mod forward;
pub mod interpreter;
pub mod launch;
pub mod manifest;
pub mod mode;
pub mod prepare;
pub mod python;
pub mod serve;
pub mod settings;
pub mod variable;
pub mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use self::copies::Copies;
use self::interpreter::Interpreters;
use self::worker::Workers;
use super::store::{BundleRow, ContentRow, Store, StoreError};
use crate::config::node::Content;

/// What another node changes is seen after this at the latest.
const FRESH: Duration = Duration::from_millis(500);
/// What was known is better than nothing while the database is away, for so long.
const STALE: Duration = Duration::from_secs(3600);
/// Contents that are remembered.
const COUNT_MAX: u64 = 10_000;

/// What this node knows and has of content.
#[derive(Clone)]
pub struct Contents {
    fresh: Cache<String, Option<Arc<ContentRow>>>,
    stale: Cache<String, Option<Arc<ContentRow>>>,
    rows: serve::Bundles,
    /// Unpacked bundles, by digest.
    pub bundles: Copies,
    /// Python environments.
    pub environments: Copies,
    /// Python and R.
    pub interpreters: Arc<Interpreters>,
    /// Processes.
    pub workers: Workers,
}

impl Contents {
    /// With copies below this folder.
    pub fn new(settings: &Content, cache: &Path) -> Self {
        let below = cache.join("content");
        Self {
            fresh: Cache::builder().max_capacity(COUNT_MAX).time_to_live(FRESH).build(),
            stale: Cache::builder().max_capacity(COUNT_MAX).time_to_live(STALE).build(),
            rows: Cache::new(COUNT_MAX),
            bundles: Copies::new(below.join("bundles")),
            environments: Copies::new(below.join("python")),
            interpreters: Arc::new(Interpreters::new(settings)),
            workers: Workers::default(),
        }
    }

    /// The content of this guid, as it was half a second ago at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find(&self, store: &Store, guid: &str) -> Result<Option<Arc<ContentRow>>, StoreError> {
        if let Some(found) = self.fresh.get(guid) {
            return Ok(found);
        }
        match store.content(guid).await {
            Ok(found) => {
                let found = found.map(Arc::new);
                self.fresh.insert(guid.to_owned(), found.clone());
                self.stale.insert(guid.to_owned(), found.clone());
                Ok(found)
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::NoPrimary)) => self.stale.get(guid).ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// The bundle of this number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bundle(&self, store: &Store, number: i64) -> Result<Option<Arc<BundleRow>>, StoreError> {
        if let Some(found) = self.rows.get(&number) {
            return Ok(Some(found));
        }
        let found = store.bundle(number).await?.map(Arc::new);
        if let Some(found) = &found {
            self.rows.insert(number, Arc::clone(found));
        }
        Ok(found)
    }

    /// Reads it again: it was changed here.
    pub fn forget(&self, guid: &str) {
        self.fresh.invalidate(guid);
    }
}
