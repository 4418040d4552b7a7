//! The content and package server: from URL to blob. Stateless; several nodes share a database and a storage.

pub mod auth;
pub mod blob;
pub mod catalog;
pub mod error;
pub mod parts;
pub mod pypi;
pub mod router;
pub mod secret;
pub mod serve;
pub mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::auth::Auth;
use self::blob::{Blobs, Spool};
use self::catalog::Catalog;
use self::parts::Parts;
use self::pypi::Pages;
use self::secret::ClusterKey;
use self::serve::Bound;
use self::store::{Bounds, Store, StoreError};
use crate::config::node::{DatabaseUrl, Settings};
use crate::runtime::ready::{Notifier, Ports};
use crate::runtime::signal::{Signal, Signals};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used.
    #[error("the database cannot be used: {0}")]
    Store(#[from] StoreError),
    /// The database belongs to a cluster with another key.
    #[error(
        "the key in `key_file` has the fingerprint {ours}, the cluster's key has {agreed}: copy the key of another node"
    )]
    OtherKey {
        /// Of the key we have.
        ours: String,
        /// Of the key the first node had.
        agreed: String,
    },
    /// Something of the system cannot be used.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    |source| StartError::System { what, source }
}

/// Opens the database the settings name; what is missing of a local one is made.
///
/// # Errors
/// See [`StartError`].
pub async fn open_store(settings: &Settings) -> Result<Store, StartError> {
    if let DatabaseUrl::Sqlite(path) = &settings.database.url
        && let Some(folder) = path.parent()
    {
        std::fs::create_dir_all(folder).map_err(system(format!("the folder {} cannot be made", folder.display())))?;
    }
    let bounds = Bounds { connections: settings.database.connections, timeout: settings.database.timeout };
    Ok(Store::open(&settings.database.url, bounds).await?)
}

/// Runs a node until it is told to leave and has left.
///
/// # Errors
/// [`StartError`] when it did not start.
pub async fn run(settings: Settings, ports_file: Option<PathBuf>) -> Result<(), StartError> {
    let mut signals = Signals::new().map_err(system("signals cannot be received"))?;
    let key = settings.key_file.display();
    let key = ClusterKey::read(&settings.key_file).map_err(system(format!("the key file {key} cannot be used")))?;
    let store = open_store(&settings).await?;
    let agreed = store.agree("key_fingerprint", &key.fingerprint()).await?;
    if agreed != key.fingerprint() {
        return Err(StartError::OtherKey { ours: key.fingerprint(), agreed });
    }
    let place = &settings.storage.packages;
    let packages = Blobs::open(place).map_err(system(format!("the storage {place:?} cannot be used")))?;
    let folder = std::env::temp_dir().join(format!("bowline-node-{}", std::process::id()));
    let spool = Spool::open(&folder).map_err(system(format!("the spool {} cannot be made", folder.display())))?;
    let catalog = Catalog::open(store.clone()).await?;
    let deadline = settings.shutdown_deadline;
    let mut bound = Vec::new();
    for listener in &settings.listeners {
        let what = format!("listener `{}` cannot be bound to {}", listener.name, listener.address);
        bound.push(Bound::bind(listener).await.map_err(system(what))?);
    }
    let told: BTreeMap<_, _> = bound.iter().map(Bound::told).collect();
    let parts = Parts {
        settings: Arc::new(settings),
        auth: Auth::new(store.clone()),
        store: store.clone(),
        packages,
        spool,
        catalog: catalog.clone(),
        pages: Pages::new(PAGES_BYTES_MAX),
    };
    let router = router::router(parts);
    let (stop, stopping) = watch::channel(false);
    let mut serving = JoinSet::new();
    for bound in bound {
        serving.spawn(bound.serve(router.clone(), stopping.clone()));
    }
    serving.spawn(async move { catalog.follow(stopping).await });
    for (name, address) in &told {
        tracing::info!(listener = name, address, "listening");
    }
    if let Some(file) = ports_file {
        let ports = Ports { listeners: told, admin: None, admin_socket: None, pid: std::process::id() };
        ports.write(&file).map_err(system("the ports file cannot be written"))?;
    }
    let notifier = Notifier::from_environment();
    notifier.ready();
    while signals.next().await == Signal::Reload {
        tracing::info!("a node's configuration is read at its start only; restart it");
    }
    notifier.stopping();
    tracing::info!(deadline_seconds = deadline.as_secs(), "leaving: no new connections");
    let _ = stop.send(true);
    let finished = async { while serving.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => tracing::info!("left: nobody is connected any more"),
        () = tokio::time::sleep(deadline) => tracing::warn!("left at the deadline"),
        _ = signals.next() => tracing::warn!("left at a second signal"),
    }
    let _ = std::fs::remove_dir_all(&folder);
    store.close().await;
    Ok(())
}

/// Rendered index pages: a repository of 20,000 projects fits several times.
const PAGES_BYTES_MAX: u64 = 128 << 20;
