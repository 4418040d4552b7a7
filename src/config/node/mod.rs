//! What the operator wants of a node. Everything needs a restart: nodes are stateless, and there are several.

mod build;
mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::proxy::{AccessLog, Log};
use super::report::Report;
use crate::types::{ListenAddress, Secret};

/// A node's whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// For people; `None`: the machine's name.
    pub name: Option<Arc<str>>,
    /// Worker threads; `None`: one per core.
    pub threads: Option<usize>,
    /// How clients reach the cluster, `https://host[:port]` without a slash at the end; `None`: as they say.
    pub external_url: Option<String>,
    /// The cluster's key, which every node has.
    pub key_file: PathBuf,
    /// Named addresses.
    pub listeners: Vec<Listener>,
    /// Where rows are.
    pub database: Database,
    /// Where bytes are.
    pub storage: Storage,
    /// A folder on this machine, for what may be lost.
    pub cache: PathBuf,
    /// What may be uploaded.
    pub packages: Packages,
    /// The process log.
    pub log: Log,
    /// One line per request.
    pub access_log: AccessLog,
    /// Requests in flight may take this long after SIGTERM.
    pub shutdown_deadline: Duration,
}

/// Where a node accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique.
    pub name: Arc<str>,
    /// What to bind.
    pub address: ListenAddress,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted: Vec<IpNet>,
}

/// The database.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Which.
    pub url: DatabaseUrl,
    /// Open connections at most.
    pub connections: u32,
    /// For one statement.
    pub timeout: Duration,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file on this machine.
    Sqlite(PathBuf),
    /// A server, as libpq writes it.
    Postgres(Secret<String>),
}

/// Where bytes are, by class.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// Packages and what belongs to them.
    pub packages: Place,
}

/// Where blobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder, which several nodes may share.
    Directory(PathBuf),
}

/// What may be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packages {
    /// Bytes of one file.
    pub file_bytes_max: u64,
}

/// Reads and checks a node's configuration. Opens no database and binds nothing.
///
/// # Errors
/// Every problem there is, at least one.
pub fn load(path: &Path) -> Result<Settings, Report> {
    super::load_file(path, file::File::key_names(), |table, folder, problems| {
        build::build(&file::File::read_table(table, &(0..0), problems), folder, problems)
    })
}

/// What may be written.
pub(super) fn section() -> super::reader::Section {
    file::File::section()
}

#[cfg(test)]
mod tests;
