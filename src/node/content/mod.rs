//! Content: what people publish and browsers open. From bundles to pages.

pub mod access;
pub mod ahead;
pub mod bundle;
pub mod copies;
pub mod deploy;
pub mod fit;
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

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use self::copies::Copies;
use self::interpreter::Interpreters;
use self::manifest::Manifest;
use self::settings::{Limits, Settings};
use self::worker::Workers;
use super::store::{BundleRow, ContentRow, RenderingRow, Store, StoreError};
use crate::config::node::Content;

/// What another node changes is seen after this at the latest.
const FRESH: Duration = Duration::from_millis(500);
/// What was known is better than nothing while the database is away, for so long.
const STALE: Duration = Duration::from_secs(3600);
/// Contents that are remembered.
const COUNT_MAX: u64 = 10_000;

/// Content as requests need it: read once for all of them.
#[derive(Debug)]
pub struct Shown {
    row: ContentRow,
    /// How it runs on this node.
    pub limits: Limits,
}

impl Deref for Shown {
    type Target = ContentRow;

    fn deref(&self) -> &ContentRow {
        &self.row
    }
}

/// A bundle as requests need it.
#[derive(Debug)]
pub struct Kept {
    row: BundleRow,
    /// What runs.
    pub manifest: Manifest,
}

impl Deref for Kept {
    type Target = BundleRow;

    fn deref(&self) -> &BundleRow {
        &self.row
    }
}

/// What this node knows and has of content.
#[derive(Clone)]
pub struct Contents {
    node: Arc<Content>,
    fresh: Cache<String, Option<Arc<Shown>>>,
    stale: Cache<String, Option<Arc<Shown>>>,
    /// What never changes.
    kept: Cache<i64, Arc<Kept>>,
    /// As `kept`.
    rendered: Cache<i64, Arc<RenderingRow>>,
    /// Unpacked bundles, by digest.
    pub bundles: Copies,
    /// Unpacked renderings, by digest.
    pub renderings: Copies,
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
            node: Arc::new(settings.clone()),
            kept: Cache::new(COUNT_MAX),
            rendered: Cache::new(COUNT_MAX),
            bundles: Copies::new(below.join("bundles")),
            renderings: Copies::new(below.join("renderings")),
            environments: Copies::new(below.join("python")),
            interpreters: Arc::new(Interpreters::new(settings)),
            workers: Workers::default(),
        }
    }

    /// The content of this guid, as it was half a second ago at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find(&self, store: &Store, guid: &str) -> Result<Option<Arc<Shown>>, StoreError> {
        if let Some(found) = self.fresh.get(guid) {
            return Ok(found);
        }
        match store.content(guid).await {
            Ok(found) => {
                let shown =
                    |row: ContentRow| Arc::new(Shown { limits: Settings::read(&row.settings).limits(&self.node), row });
                let found = found.map(shown);
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
    pub async fn bundle(&self, store: &Store, number: i64) -> Result<Option<Arc<Kept>>, StoreError> {
        if let Some(found) = self.kept.get(&number) {
            return Ok(Some(found));
        }
        let Some(row) = store.bundle(number).await? else { return Ok(None) };
        // What a newer program wrote is nothing this one runs.
        let Ok(manifest) = serde_json::from_str(&row.manifest) else { return Ok(None) };
        let kept = Arc::new(Kept { row, manifest });
        self.kept.insert(number, Arc::clone(&kept));
        Ok(Some(kept))
    }

    /// The rendering of this number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn rendering(&self, store: &Store, number: i64) -> Result<Option<Arc<RenderingRow>>, StoreError> {
        if let Some(found) = self.rendered.get(&number) {
            return Ok(Some(found));
        }
        let Some(row) = store.rendering(number).await? else { return Ok(None) };
        let row = Arc::new(row);
        self.rendered.insert(number, Arc::clone(&row));
        Ok(Some(row))
    }

    /// Reads it again: it was changed here.
    pub fn forget(&self, guid: &str) {
        self.fresh.invalidate(guid);
        self.stale.invalidate(guid);
    }
}
