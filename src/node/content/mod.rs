//! Content: what people publish and browsers open. From bundles to pages.

pub mod access;
pub mod account;
pub mod ahead;
pub mod bundle;
pub mod caches;
pub mod copies;
pub mod deploy;
pub mod files;
pub mod fit;
pub mod forward;
pub mod interpreter;
pub mod journal;
pub mod launch;
pub mod library;
pub mod locked;
pub mod manifest;
pub mod mode;
pub mod nodejs;
pub mod prepare;
pub mod python;
pub mod serve;
pub mod session;
pub mod settings;
pub mod shared;
pub mod starting;
pub mod tunnel;
pub mod vanity;
pub mod variable;
pub mod visitor;
pub mod worker;

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use self::account::Accounts;
use self::copies::Copies;
use self::interpreter::Interpreters;
use self::manifest::Manifest;
use self::session::Sessions;
use self::settings::{Limits, Settings};
use self::worker::Workers;
use super::metrics::Metrics;
use super::store::{BundleRow, ContentRow, RenderingRow, Store, StoreError};
use crate::config::node::Content;

/// What another node changes is seen after this at the latest.
const FRESH: Duration = Duration::from_millis(500);
/// What was known is better than nothing while the database is away, for so long.
const STALE: Duration = Duration::from_secs(3600);
/// Contents that are remembered.
const COUNT_MAX: u64 = 10_000;

/// Paths without the slash at their end, and guids.
type Vanities = HashMap<String, String>;

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
    /// Guids by path.
    vanities: Cache<(), Arc<Vanities>>,
    stale_vanities: Cache<(), Arc<Vanities>>,
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
    /// R libraries.
    pub libraries: Copies,
    /// Packages they are made of, installed.
    pub packages: Copies,
    /// Python and R.
    pub interpreters: Arc<Interpreters>,
    /// Who it may run as.
    pub accounts: Accounts,
    /// Processes.
    pub workers: Workers,
    /// Websockets that outlive their browsers' connections.
    pub sessions: Sessions,
}

impl Contents {
    /// With copies below this folder.
    pub fn new(settings: &Content, cache: &Path, metrics: Arc<Metrics>) -> Self {
        let below = cache.join("content");
        Self {
            fresh: Cache::builder().max_capacity(COUNT_MAX).time_to_live(FRESH).build(),
            stale: Cache::builder().max_capacity(COUNT_MAX).time_to_live(STALE).build(),
            vanities: Cache::builder().max_capacity(1).time_to_live(FRESH).build(),
            stale_vanities: Cache::builder().max_capacity(1).time_to_live(STALE).build(),
            node: Arc::new(settings.clone()),
            kept: Cache::new(COUNT_MAX),
            rendered: Cache::new(COUNT_MAX),
            bundles: Copies::new(below.join("bundles")),
            renderings: Copies::new(below.join("renderings")),
            environments: Copies::new(below.join("python")),
            libraries: Copies::new(below.join("r")),
            packages: Copies::new(below.join("r-packages")),
            interpreters: Arc::new(Interpreters::new(settings)),
            accounts: Accounts::new(settings),
            workers: Workers::new(Arc::clone(&metrics)),
            sessions: Sessions::new(settings, metrics),
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
        Ok(store.bundle(number).await?.and_then(|row| self.keep(row)))
    }

    /// The bundles of these numbers, of those that are there, by number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bundles_of(&self, store: &Store, numbers: &[i64]) -> Result<HashMap<i64, Arc<Kept>>, StoreError> {
        let mut all: HashMap<i64, Arc<Kept>> =
            numbers.iter().filter_map(|number| Some((*number, self.kept.get(number)?))).collect();
        let missing: Vec<i64> = numbers.iter().copied().filter(|number| !all.contains_key(number)).collect();
        for row in store.bundles_numbered(&missing).await? {
            if let Some(kept) = self.keep(row) {
                all.insert(kept.number, kept);
            }
        }
        Ok(all)
    }

    /// `None`: what a newer program wrote is nothing this one runs.
    fn keep(&self, row: BundleRow) -> Option<Arc<Kept>> {
        let manifest = serde_json::from_str(&row.manifest).ok()?;
        let kept = Arc::new(Kept { row, manifest });
        self.kept.insert(kept.number, Arc::clone(&kept));
        Some(kept)
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

    /// The content that is at a path beside its guid or below, and that path without the slash at its end.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn at(&self, store: &Store, path: &str) -> Result<Option<(String, String)>, StoreError> {
        let all = match self.vanities.get(&()) {
            Some(all) => all,
            None => match store.vanities().await {
                Ok(rows) => {
                    let all = rows.into_iter().map(|row| (row.path.trim_end_matches('/').to_owned(), row.guid));
                    let all: Arc<Vanities> = Arc::new(all.collect());
                    self.vanities.insert((), Arc::clone(&all));
                    self.stale_vanities.insert((), Arc::clone(&all));
                    all
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::NoPrimary)) => {
                    self.stale_vanities.get(&()).ok_or(error)?
                }
                Err(error) => return Err(error),
            },
        };
        // None is below another one.
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).filter(|at| *at > 0);
        let found = ends.take(vanity::DEPTH_MAX + 1).find_map(|end| all.get_key_value(&path[..end]));
        Ok(found.map(|(path, guid)| (path.clone(), guid.clone())))
    }

    /// Reads it again: it was changed here.
    pub fn forget(&self, guid: &str) {
        self.vanities.invalidate(&());
        self.fresh.invalidate(guid);
        self.stale.invalidate(guid);
    }
}
