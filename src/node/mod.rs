//! The content and package server: from URL to blob. Stateless; several nodes share a database and a storage.

pub mod api;
pub mod archive;
pub mod auth;
pub mod blob;
pub mod block;
pub mod catalog;
pub mod connect;
pub mod content;
pub mod cran;
pub mod download;
pub mod error;
pub mod git;
pub mod jobs;
pub mod known;
pub mod manage;
pub mod metrics;
pub mod numbers;
pub mod observe;
pub mod operator;
pub mod pages;
pub mod parts;
pub mod password;
pub mod publish;
pub mod pypi;
pub mod registry;
pub mod remote;
pub mod report;
pub mod rest;
pub mod router;
pub mod sandbox;
pub mod secret;
pub mod serve;
pub mod session;
pub mod signature;
pub mod stats;
pub mod store;
pub mod view;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::parts::Parts;
use self::registry::doctor::{self, Check, Here};
use self::registry::{JoinError, Member};
use self::secret::ClusterKey;
use self::serve::Bound;
use self::store::{Bounds, Migrate, Store, StoreError};
use crate::config::node::{DatabaseUrl, Settings};
use crate::runtime::mounts::Mount;
use crate::runtime::ready::{Notifier, Ports};
use crate::runtime::signal::{Signal, Signals};
use crate::telemetry::access::AccessLog;

/// Why a node did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// SQLite's locks hold on one machine only.
    #[error(
        "the SQLite database {path} is on a network filesystem ({kind} at {point}), where it would be damaged: put it on a \
         disk of this machine, or use PostgreSQL"
    )]
    Network {
        /// The database.
        path: String,
        /// The filesystem.
        kind: String,
        /// Where it is mounted.
        point: String,
    },
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
    /// The other nodes do not want us.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What was right when we started is not any more.
    #[error("this node cannot go on: {0}")]
    Unfit(Arc<str>),
    /// Something of the system cannot be used.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> NodeError {
    let what = what.into();
    |source| NodeError::System { what, source }
}

/// Opens the database the settings name; what is missing of a local one is made.
///
/// # Errors
/// See [`NodeError`].
pub async fn open_store(settings: &Settings, migrate: Migrate) -> Result<Store, NodeError> {
    if let DatabaseUrl::Sqlite(path) = &settings.database.url
        && let Some(folder) = path.parent()
    {
        registry::refuse_network(folder).map_err(|Mount { point, kind, .. }| NodeError::Network {
            path: path.display().to_string(),
            kind,
            point: point.display().to_string(),
        })?;
        std::fs::create_dir_all(folder).map_err(system(format!("the folder {} cannot be made", folder.display())))?;
    }
    let bounds = Bounds { connections: settings.database.connections, timeout: settings.database.timeout };
    Ok(Store::open(&settings.database.url, bounds, migrate).await?)
}

/// Reads the cluster's key.
///
/// # Errors
/// [`NodeError::System`].
pub fn read_key(settings: &Settings) -> Result<ClusterKey, NodeError> {
    let key = settings.key_file.display();
    ClusterKey::read(&settings.key_file).map_err(system(format!("the key file {key} cannot be used")))
}

/// The checklist of `bowline doctor`.
///
/// # Errors
/// The key or the database cannot be used.
pub async fn doctor(settings: &Settings) -> Result<Vec<Check>, NodeError> {
    let here = Here {
        key_fingerprint: read_key(settings)?.fingerprint(),
        config_fingerprint: registry::fingerprint(settings),
        is_local: matches!(settings.database.url, DatabaseUrl::Sqlite(_)),
    };
    let store = open_store(settings, Migrate::Never).await?;
    let offset = store.clock_offset().await?;
    let nodes: Vec<_> = store.nodes(registry::ALIVE, offset).await?.into_iter().map(Into::into).collect();
    store.close().await;
    Ok(doctor::judge(&nodes, &here))
}

/// Runs a node until it is told to leave and has left.
///
/// # Errors
/// [`NodeError`] when it did not start or had to stop.
pub async fn run(settings: Settings, ports_file: Option<PathBuf>) -> Result<(), NodeError> {
    let mut signals = Signals::new().map_err(system("signals cannot be received"))?;
    // Before anything begins that would stay behind in the group we leave.
    if let Err(why) = sandbox::cgroups() {
        tracing::info!("what content takes is bounded process by process: {why}");
    }
    let access_log = AccessLog::start(&settings.access_log).map_err(system("the access log cannot be opened"))?;
    let (parts, unfit) = Parts::open(settings, Migrate::Always, Some(access_log.clone())).await?;
    let metrics = Arc::clone(&parts.metrics);
    let (settings, store, catalog, auth) =
        (Arc::clone(&parts.settings), parts.store.clone(), parts.catalog.clone(), parts.auth.clone());
    let mut fitness = parts.fitness.clone();
    let mut bound = Vec::new();
    for listener in &settings.listeners {
        let what = format!("listener `{}` cannot be bound to {}", listener.name, listener.address);
        bound.push(Bound::bind(listener).await.map_err(system(what))?);
    }
    let told: BTreeMap<_, _> = bound.iter().map(Bound::told).collect();
    let member = Member::join(&parts, told.clone()).await?;
    let deadline = settings.shutdown_deadline;
    let router = router::router(parts.clone());
    // First no new work, then no new connections.
    let (leave, leaving) = watch::channel(false);
    let (stop, stopping) = watch::channel(false);
    let mut serving = JoinSet::new();
    for bound in bound {
        serving.spawn(bound.serve(router.clone(), stopping.clone()));
    }
    let mut tending = JoinSet::new();
    tending.spawn({
        let stopping = stopping.clone();
        async move { catalog.follow(&metrics, stopping).await }
    });
    tending.spawn({
        let (store, stopping) = (store.clone(), stopping.clone());
        async move { store.watch(stopping).await }
    });
    tending.spawn({
        let stopping = stopping.clone();
        async move { auth.follow(stopping).await }
    });
    tending.spawn(jobs::schedule(parts.clone(), leaving.clone()));
    tending.spawn(report::due::follow(parts.clone(), leaving.clone()));
    tending.spawn(stats::follow(parts.clone(), stopping.clone()));
    tending.spawn({
        let (workers, stopping) = (parts.contents.workers.clone(), stopping.clone());
        async move { workers.follow(stopping).await }
    });
    tending.spawn(content::ahead::follow(parts.clone(), leaving.clone()));
    let journal = content::journal::follow(parts.clone(), member.id().to_owned(), stopping.clone());
    tending.spawn(journal);
    tending.spawn(content::caches::follow(parts.clone(), member.id().to_owned(), stopping.clone()));
    tending.spawn(content::fit::follow(parts.clone(), stopping.clone()));
    let parts_counted = parts.clone();
    let (workers, sessions) = (parts.contents.workers.clone(), parts.contents.sessions.clone());
    let working = tokio::spawn(jobs::follow(parts.clone(), member.id().to_owned(), leaving));
    let name = member.name().to_owned();
    // It is heard of until nobody is connected any more.
    let (gone, going) = watch::channel(false);
    tending.spawn(numbers::follow(parts_counted, going.clone()));
    tending.spawn(member.follow(going, unfit));
    for (listener, address) in &told {
        tracing::info!(listener, address, node = name, "listening");
    }
    if let Some(file) = ports_file {
        let ports = Ports { listeners: told, admin: None, admin_socket: None, pid: std::process::id() };
        ports.write(&file).map_err(system("the ports file cannot be written"))?;
    }
    let notifier = Notifier::from_environment();
    notifier.ready();
    let why = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    access_log.reopen();
                    tracing::info!("log files are opened again; a node's configuration is read at its start only");
                }
                _ => break None,
            },
            Ok(why) = fitness.wait_for(Option::is_some) => break why.clone(),
        }
    };
    notifier.stopping();
    let deadline = match &why {
        None => {
            tracing::info!(deadline_seconds = deadline.as_secs(), "leaving: no new sessions");
            parts.is_leaving.store(true, Ordering::Relaxed);
            deadline
        }
        Some(why) => {
            tracing::error!("this node cannot go on: {why}; leaving");
            // Long enough for the proxies to have asked `/__ping__`.
            tokio::time::sleep(UNFIT_NOTICE).await;
            deadline.min(UNFIT_DEADLINE)
        }
    };
    let _ = leave.send(true);
    let finished = async {
        // What a session's page asks for beside its websocket finds it here until its end.
        while why.is_none() && sessions.counts() != (0, 0) {
            tokio::time::sleep(LOOK).await;
        }
        let _ = stop.send(true);
        sessions.leave();
        while serving.join_next().await.is_some() {}
        // What is no HTTP any more is not among those.
        while workers.connections() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = finished => tracing::info!("left: nobody is connected any more"),
        () = tokio::time::sleep(deadline) => tracing::warn!("left at the deadline"),
        _ = signals.next() => tracing::warn!("left at a second signal"),
    }
    let _ = stop.send(true);
    sessions.leave();
    workers.end().await;
    let _ = gone.send(true);
    // Jobs that cannot be given back in time are claimed again when this node is not heard of any more.
    let _ = tokio::time::timeout(Duration::from_secs(5), working).await;
    let tended = async { while tending.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), tended).await;
    let _ = tokio::time::timeout(Duration::from_secs(2), store.close()).await;
    access_log.flush(Duration::from_secs(2));
    why.map_or(Ok(()), |why| Err(NodeError::Unfit(why)))
}

/// Between two looks whether a node that leaves has anybody left.
const LOOK: Duration = Duration::from_millis(100);
/// How long a node that cannot go on answers 503 before it stops listening.
const UNFIT_NOTICE: Duration = Duration::from_secs(3);
/// How long its requests in flight may take then.
const UNFIT_DEADLINE: Duration = Duration::from_secs(15);
