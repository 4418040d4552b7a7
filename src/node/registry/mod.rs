//! A node among others: it says every few seconds that it lives and how it is set up, and learns whether the schema still
//! tolerates it. What all of them say is what `bowline doctor` judges.

pub mod doctor;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::Digest;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::blob::{BlobError, Blobs};
use super::content::account::Accounts;
use super::content::caches;
use super::content::copies::Copies;
use super::content::fit::{self, Fitness};
use super::parts::Parts;
use super::store::{Beat, NodeRow, Store, StoreError};
use crate::config::node::{Place, Settings, Storage, Where};
use crate::runtime::machine::Process;
use crate::runtime::mounts::Mount;
use crate::runtime::{clock, dice, machine};
use crate::telemetry::Causes;
use crate::types::Sha256;

/// Between two looks who content may run as.
const ACCOUNTS: Duration = Duration::from_secs(60);
/// Between two beats.
pub const BEAT: Duration = Duration::from_secs(5);
/// Who has not been heard of for so long is dead: three beats and what a slow database takes.
pub const ALIVE: Duration = Duration::from_secs(20);

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Of the settings that must be the same on all nodes.
    pub config_fingerprint: String,
    /// Of the cluster's key.
    pub key_fingerprint: String,
    /// Our clock less the database's, microseconds.
    pub clock_offset: i64,
    /// Which process it is.
    pub process: Option<Process>,
    /// Who the process is.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// Name and bound address.
    pub listeners: BTreeMap<String, String>,
    /// By class.
    pub storage: BTreeMap<String, StorageReport>,
    /// Versions of Python whose environments it has.
    pub caches: Vec<String>,
    /// How it runs content; `None`: it has not looked yet.
    pub content: Option<Fitness>,
}

/// How a node sees a storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageReport {
    /// `directory`, `s3`.
    pub kind: String,
    /// Where, as its configuration says.
    pub place: String,
    /// Ids of the nodes whose marks are on it.
    pub sees: Vec<String>,
    /// Why it cannot be used.
    pub error: Option<String>,
    /// The filesystem a directory is on.
    pub filesystem: Option<String>,
    /// Its mount options.
    pub options: Vec<String>,
}

/// Why a node may not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The database does not do.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// SQLite is for one machine.
    #[error(
        "node `{0}` of another machine works on this SQLite database; several machines need PostgreSQL (`database.url`)"
    )]
    OtherMachine(String),
}

/// This node.
pub struct Member {
    id: String,
    name: String,
    machine: String,
    started_at: i64,
    store: Store,
    storage: Vec<Watched>,
    /// Looks what it has for content.
    fitness: Option<JoinHandle<Fitness>>,
    /// Looks what is in its caches.
    looking: Option<JoinHandle<Vec<String>>>,
    environments: Copies,
    accounts: Accounts,
    /// Looks who content may run as, and when that was last begun.
    asking: Option<JoinHandle<BTreeMap<String, Result<String, String>>>>,
    asked_at: Instant,
    report: Report,
    beating: Beating,
}

/// A storage whose marks are looked at. One that hangs is not asked again until it has answered.
struct Watched {
    class: &'static str,
    blobs: Blobs,
    said: StorageReport,
    asked: Option<JoinHandle<Result<Vec<String>, BlobError>>>,
}

/// Since when every heartbeat of this node has been written.
#[derive(Clone, Debug, Default)]
pub struct Beating(Arc<Mutex<Option<Instant>>>);

impl Beating {
    /// `None`: the last one was not.
    pub fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_written(&self, is_written: bool) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *since = is_written.then(|| since.unwrap_or_else(clock::now));
    }
}

/// Whether this node may go on: `Some` tells why not.
pub type Unfit = Option<Arc<str>>;

impl Member {
    /// Joins the others: the first beat.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(parts: &Parts, listeners: BTreeMap<String, String>) -> Result<Self, JoinError> {
        let (store, settings) = (parts.store.clone(), &parts.settings);
        let machine = machine::id();
        if store.is_local() {
            let others = store.nodes(ALIVE, 0).await?;
            if let Some(other) = others.into_iter().find(|other| other.machine != machine) {
                return Err(JoinError::OtherMachine(other.name));
            }
        }
        let mut storage = Vec::new();
        for (class, blobs) in parts.places() {
            let said = describe(blobs.place().clone()).await;
            storage.push(Watched { class, blobs: blobs.clone(), said, asked: None });
        }
        let report = Report {
            config_fingerprint: fingerprint(settings),
            key_fingerprint: parts.key.fingerprint(),
            process: Process::own(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            listeners,
            ..Report::default()
        };
        let mut member = Self {
            id: format!("{:032x}", dice::unique()),
            name: settings.name.as_deref().map_or_else(machine::name, str::to_owned),
            machine,
            started_at: i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX),
            store,
            storage,
            fitness: None,
            looking: None,
            environments: parts.contents.environments.clone(),
            accounts: parts.contents.accounts.clone(),
            asking: None,
            asked_at: clock::now(),
            report,
            beating: parts.beating.clone(),
        };
        let offset = member.store.clock_offset().await?;
        member.succeed(offset).await?;
        // The row before the marks: a mark without a row is swept away by others.
        member.write(offset).await?;
        member.beat().await?;
        let parts = parts.clone();
        member.fitness = Some(tokio::spawn(async move { fit::look(&parts).await }));
        Ok(member)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of this process.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Beats until told to stop, or until the schema does not tolerate this program any more, which `unfit` then tells.
    pub async fn follow(mut self, mut stop: watch::Receiver<bool>, unfit: watch::Sender<Unfit>) {
        let mut is_silent = false;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(BEAT) => {}
            }
            match self.store.refusal().await {
                Ok(Some(why)) => {
                    unfit.send_replace(Some(format!("the schema of the database changed: {why}").into()));
                    break;
                }
                Ok(None) => {}
                // Told below, if it goes on.
                Err(error) => tracing::debug!(error = %Causes(&error), "the schema cannot be looked at"),
            }
            let beat = self.beat().await;
            self.beating.is_written(beat.is_ok());
            match (beat, is_silent) {
                (Ok(()), _) => is_silent = false,
                (Err(error), false) => {
                    is_silent = true;
                    tracing::warn!(error = %Causes(&error), "this node's heartbeat cannot be written");
                }
                (Err(_), true) => {}
            }
        }
        let leave = async {
            for storage in &self.storage {
                let _ = storage.blobs.unmark(&self.id).await;
            }
            self.store.leave(&self.id).await
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), leave).await;
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        for storage in &mut self.storage {
            storage.look(&self.id).await;
            self.report.storage.insert(storage.class.to_owned(), storage.said.clone());
        }
        if let Some(looked) = self.fitness.take_if(|looking| looking.is_finished()) {
            self.report.content = looked.await.ok();
        }
        if self.asked_at.elapsed() > ACCOUNTS && self.asking.is_none() {
            let accounts = self.accounts.clone();
            self.asking = Some(tokio::spawn(async move { fit::accounts(&accounts).await }));
            self.asked_at = clock::now();
        }
        if let Some(asked) = self.asking.take_if(|asking| asking.is_finished())
            && let (Ok(accounts), Some(content)) = (asked.await, &mut self.report.content)
        {
            content.accounts = accounts;
        }
        if let Some(looked) = self.looking.take_if(|looking| looking.is_finished()) {
            self.report.caches = looked.await.unwrap_or_default();
        }
        self.looking.get_or_insert_with(|| tokio::spawn(caches::versions(self.environments.clone())));
        let offset = self.store.clock_offset().await?;
        self.report.clock_offset = offset;
        self.write(offset).await?;
        self.sweep(offset).await
    }

    async fn write(&self, offset: i64) -> Result<(), StoreError> {
        let report = serde_json::to_string(&self.report).unwrap_or_default();
        let beat = Beat {
            id: &self.id,
            name: &self.name,
            machine: &self.machine,
            started_at: self.started_at,
            report: &report,
        };
        self.store.beat(&beat, offset).await
    }

    /// Takes away the rows of processes of this node that have ended without a word, and warns of another one of its name.
    ///
    /// Where two machines were copied with one id, the other's row may be taken away too: it comes back with its next beat, and
    /// the doctor sees both.
    async fn succeed(&self, offset: i64) -> Result<(), StoreError> {
        for row in self.store.nodes(ALIVE, offset).await? {
            if row.name != self.name {
                continue;
            }
            let seen = Seen::from(row);
            let is_gone = seen.report.process.as_ref().is_some_and(Process::is_gone);
            if seen.row.machine == self.machine && is_gone {
                tracing::info!(node = self.name, "this node ran before and was ended; it takes its own place");
                self.store.leave(&seen.row.id).await?;
            } else {
                tracing::warn!(
                    node = self.name,
                    machine = seen.row.machine,
                    "another node of this name runs, or was ended a moment ago: every node needs a `name` of its own"
                );
            }
        }
        Ok(())
    }

    /// Takes away the marks of nodes that are forgotten.
    async fn sweep(&self, offset: i64) -> Result<(), StoreError> {
        let known = self.store.nodes(Duration::from_secs(8 * 24 * 3600), offset).await?;
        for storage in &self.storage {
            for left in storage.said.sees.iter().filter(|mark| !known.iter().any(|node| node.id == **mark)) {
                // One of another cluster's on the same storage comes back with its next beat.
                let _ = tokio::time::timeout(Duration::from_secs(1), storage.blobs.unmark(left)).await;
            }
        }
        Ok(())
    }
}

impl Watched {
    async fn look(&mut self, id: &str) {
        let mut asked = self.asked.take().unwrap_or_else(|| {
            let (blobs, id) = (self.blobs.clone(), id.to_owned());
            tokio::spawn(async move { blobs.mark(&id).await })
        });
        match tokio::time::timeout(Duration::from_secs(2), &mut asked).await {
            Ok(Ok(Ok(mut sees))) => {
                sees.sort_unstable();
                self.said.sees = sees;
                self.said.error = None;
            }
            Ok(Ok(Err(error))) => self.said.error = Some(Causes(&error).to_string()),
            Ok(Err(error)) => self.said.error = Some(error.to_string()),
            Err(_) => {
                self.said.error = Some("it does not answer".to_owned());
                self.asked = Some(asked);
            }
        }
    }
}

/// What does not change while a node runs. Blocks where a network filesystem does, so it has a time limit.
async fn describe(place: Place) -> StorageReport {
    let told = place.at.to_string();
    let Where::Directory(path) = place.at else {
        return StorageReport { kind: "s3".to_owned(), place: told, ..Default::default() };
    };
    let mount = tokio::task::spawn_blocking(move || Mount::of(&path).ok());
    let mount = tokio::time::timeout(Duration::from_secs(5), mount).await;
    let mount = mount.ok().and_then(Result::ok).flatten();
    let (filesystem, options) = mount.map_or((None, Vec::new()), |mount| (Some(mount.kind), mount.options));
    StorageReport { kind: "directory".to_owned(), place: told, filesystem, options, ..Default::default() }
}

/// Of what must be the same on every node; what may differ (names, addresses, paths, logs) is not in it.
pub fn fingerprint(settings: &Settings) -> String {
    let Storage { packages, bundles } = &settings.storage;
    let mut same = format!("{:?} {:?} {}", settings.external_url, settings.packages, packages.encrypt);
    // Nothing more where all is in one place, as programs have it that know but one.
    if settings.storage.is_split() || bundles.encrypt != packages.encrypt {
        same += &format!(" {} {}", settings.storage.is_split(), bundles.encrypt);
    }
    Sha256::new(sha2::Sha256::digest(same.as_bytes()).into()).to_string()[..16].to_owned()
}

/// The folder a SQLite database is in must be this machine's own: its locks hold nowhere else.
///
/// # Errors
/// The filesystem that is not.
pub fn refuse_network(database: &std::path::Path) -> Result<(), Mount> {
    match Mount::of(database) {
        Ok(mount) if mount.is_network() => Err(mount),
        // What the kernel does not tell cannot be judged.
        _ => Ok(()),
    }
}

/// A row as the doctor reads it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What every program writes.
    pub row: NodeRow,
    /// What it says of itself; empty where a newer program says it otherwise.
    pub report: Report,
}

impl From<NodeRow> for Seen {
    fn from(row: NodeRow) -> Self {
        let report = serde_json::from_str(&row.report).unwrap_or_default();
        Self { row, report }
    }
}
