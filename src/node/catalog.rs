//! The repositories as this node knows them, looked up by every request without a query. Looked after by one task: what
//! another node changes is seen within half a second.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use super::error::Failure;
use super::metrics::Metrics;
use super::store::{Language, Remote, Repository, Store, StoreError};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// The repositories.
#[derive(Clone)]
pub struct Catalog {
    store: Store,
    now: Arc<ArcSwap<Vec<Arc<Repository>>>>,
    /// One reads at a time, so that what was read first never takes the place of what was read later.
    turn: Arc<Mutex<()>>,
}

impl Catalog {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let catalog = Self { store, now: Arc::default(), turn: Arc::default() };
        catalog.refresh().await?;
        Ok(catalog)
    }

    /// Reads them again, after a change of our own.
    ///
    /// # Errors
    /// See [`StoreError`]; what was known stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let all = self.store.repositories().await?;
        self.now.store(Arc::new(all.into_iter().map(|(repository, _)| Arc::new(repository)).collect()));
        Ok(())
    }

    /// Keeps looking until told to stop. Without a database what was known goes on being served.
    pub async fn follow(&self, metrics: &Metrics, mut stop: watch::Receiver<bool>) {
        let mut is_lost = false;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let looked = self.refresh().await;
            metrics.database(looked.is_ok());
            match (looked, is_lost) {
                (Ok(()), true) => {
                    tracing::info!("the database answers again");
                    is_lost = false;
                }
                (Err(error), false) => {
                    tracing::warn!(%error, "the repositories cannot be read; serving what is known");
                    is_lost = true;
                }
                _ => {}
            }
        }
    }

    /// All of them, by name.
    pub fn all(&self) -> Arc<Vec<Arc<Repository>>> {
        self.now.load_full()
    }

    /// The first repository that shows this source.
    pub fn showing(&self, source: i64) -> Option<String> {
        let now = self.now.load();
        now.iter().find(|repository| repository.own_sources.contains(&source)).map(|repository| repository.name.clone())
    }

    /// The first repository for a language.
    pub fn first(&self, language: Language) -> Option<String> {
        let now = self.now.load();
        now.iter().find(|repository| repository.language == language).map(|repository| repository.name.clone())
    }

    /// Another index that some repository shows, by its source's row.
    pub fn remote(&self, source: i64) -> Option<(Language, Arc<Remote>)> {
        let now = self.now.load();
        now.iter().find_map(|repository| {
            let found = repository.remotes.iter().find(|remote| remote.id == source)?;
            Some((repository.language, Arc::clone(found)))
        })
    }

    /// The repository of this name.
    ///
    /// # Errors
    /// 404.
    pub fn find(&self, name: &str) -> Result<Arc<Repository>, Failure> {
        let now = self.now.load();
        let found = now.binary_search_by(|r| r.name.as_str().cmp(name)).ok().map(|at| Arc::clone(&now[at]));
        found.ok_or_else(|| Failure::not_found(format_args!("repository `{name}`")))
    }
}
