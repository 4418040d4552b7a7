//! What the operator wants of a node. Everything needs a restart: nodes are stateless, and there are several.

mod build;
mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::proxy::{AccessLog, Graphite, Log};
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
    /// Files that are shown at `/`; `None`: our own landing page.
    pub landing_dir: Option<PathBuf>,
    /// Named addresses.
    pub listeners: Vec<Listener>,
    /// Where rows are.
    pub database: Database,
    /// Where bytes are.
    pub storage: Storage,
    /// A folder on this machine, for what may be lost.
    pub cache: PathBuf,
    /// What copies of far blobs may take there.
    pub cache_bytes_max: u64,
    /// What may be uploaded.
    pub packages: Packages,
    /// People who log in with a browser.
    pub auth: Auth,
    /// What is done in the background.
    pub jobs: Jobs,
    /// How packages are made from git repositories.
    pub builder: Builder,
    /// What people publish.
    pub content: Content,
    /// How mail is sent; `None`: not at all.
    pub mail: Option<Mail>,
    /// Blobs that nothing refers to.
    pub garbage: Garbage,
    /// The process log.
    pub log: Log,
    /// One line per request.
    pub access_log: AccessLog,
    /// Where metrics are sent to; `None`: nowhere.
    pub graphite: Option<Graphite>,
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
    /// What content is made of: bundles, and what came of rendering them.
    pub bundles: Place,
}

impl Storage {
    /// Whether its classes are in two places.
    pub fn is_split(&self) -> bool {
        self.packages.at != self.bundles.at
    }
}

/// Where blobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// There.
    pub at: Where,
    /// New ones are sealed with the cluster's key.
    pub encrypt: bool,
}

/// What keeps blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// A folder, which several nodes may share.
    Directory(PathBuf),
    /// A bucket.
    S3(S3),
}

impl std::fmt::Display for Where {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::S3(S3 { bucket, prefix, endpoint, .. }) => {
                let (prefix, endpoint) = (prefix.as_deref().unwrap_or_default(), endpoint.as_deref().unwrap_or("AWS"));
                write!(f, "s3://{bucket}/{prefix} at {endpoint}")
            }
        }
    }
}

/// A bucket of S3 or what speaks its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// What names of objects begin with.
    pub prefix: Option<String>,
    /// As AWS calls it.
    pub region: String,
    /// `None`: AWS.
    pub endpoint: Option<String>,
    /// Id of the key, and the file with its secret; `None`: as AWS's own tools find them.
    pub credentials: Option<(String, PathBuf)>,
    /// The bucket is in the path, not in the host name.
    pub path_style: bool,
    /// Clients are sent to the bucket by signed links.
    pub redirect: bool,
}

/// What may be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packages {
    /// Bytes of one file.
    pub file_bytes_max: u64,
}

/// People who log in with a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// A session that is not used for so long ends.
    pub session_idle: Duration,
    /// Any session ends after this.
    pub session_lifetime: Duration,
    /// Who has what is in it makes the first administrator; `None`: nobody does.
    pub bootstrap_key_file: Option<PathBuf>,
}

/// How many jobs of each kind this node does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Deletes what nothing refers to.
    pub collect: usize,
    /// Looks into git repositories, and other CRAN-like ones.
    pub sync: usize,
    /// Builds packages.
    pub build: usize,
    /// Deploys content, and renders what somebody waits for.
    pub deploy: usize,
    /// Renders what is scheduled.
    pub report: usize,
}

/// How packages are made from git repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    /// Between two looks into one.
    pub every: Duration,
    /// Name of the repository Python builds may read; `None`: the first that shows the source.
    pub pypi: Option<String>,
    /// The same for R.
    pub cran: Option<String>,
    /// The Python interpreter.
    pub python: String,
    /// R.
    pub r: String,
    /// What builds see of this machine beside `/usr`.
    pub readable: Vec<PathBuf>,
    /// Who they run as where this program is root.
    pub uid: u32,
    /// For one build.
    pub timeout: Duration,
    /// Bytes of memory of one process.
    pub memory_max: u64,
    /// Bytes of all files.
    pub disk_max: u64,
}

/// What people publish, and how it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// A second origin that has content and nothing else, as [`Settings::external_url`]; `None`: it is at the only one.
    pub external_url: Option<String>,
    /// Bytes of one bundle.
    pub bundle_bytes_max: u64,
    /// Bytes it may unpack to.
    pub unpacked_bytes_max: u64,
    /// What makes their environments runs as this where this program is root; they as those after it.
    pub uid: u32,
    /// So many there are with it; one: all run as that.
    pub uid_count: u32,
    /// Accounts of this machine that they may run as.
    pub run_as: Vec<String>,
    /// What they reach where they say nothing.
    pub network: Network,
    /// They may say so.
    pub network_choice: bool,
    /// What they never reach.
    pub network_denied: Vec<IpNet>,
    /// What they see of this machine beside `/usr`.
    pub readable: Vec<PathBuf>,
    /// What of it they write to, as far as who they run as may.
    pub writable: Vec<PathBuf>,
    /// Python interpreters.
    pub python: Vec<String>,
    /// R.
    pub r: Vec<String>,
    /// What makes Python environments.
    pub uv: String,
    /// Quarto.
    pub quarto: String,
    /// Node.js.
    pub nodejs: String,
    /// Name of the repository they are made from; `None`: the first for Python.
    pub pypi: Option<String>,
    /// Name of the repository R libraries are made from; `None`: the first for R.
    pub cran: Option<String>,
    /// For the first answer of a process.
    pub init_timeout: Duration,
    /// An unused process ends after this.
    pub idle_timeout: Duration,
    /// For the next bytes of an answer.
    pub read_timeout: Duration,
    /// A session that says nothing ends after this.
    pub connection_timeout: Duration,
    /// A session waits so long for a browser that was lost.
    pub session_hold: Duration,
    /// Bytes that are kept for one browser.
    pub session_bytes_max: u64,
    /// For all.
    pub sessions_bytes_max: u64,
    /// Processes of one content on a node.
    pub max_processes: usize,
    /// Connections of one process.
    pub max_connections: usize,
    /// For making an environment.
    pub environment_timeout: Duration,
    /// Bytes of one environment.
    pub environment_bytes_max: u64,
    /// Bytes of all that is unpacked and made on this node, unless somebody uses it.
    pub cache_bytes_max: u64,
    /// What nobody has used for so long goes.
    pub cache_unused: Duration,
    /// For rendering a report.
    pub render_timeout: Duration,
    /// Renderings of one content that are kept.
    pub renderings_kept: u32,
    /// Bundles of one content that are kept; 0: all.
    pub bundles_kept: u32,
    /// Bytes of writable memory of one process, with all it starts; `None`: no bound.
    pub memory_max: Option<u64>,
    /// Thousandths of a processor of one process, with all it starts; `None`: no bound.
    pub cpus_max: Option<u32>,
    /// Bytes of files in memory of one process.
    pub disk_max: u64,
}

impl Content {
    /// Who the content of this number runs as where this program is root: the same on every node.
    pub fn uid_of(&self, number: i64) -> u32 {
        match i64::from(self.uid_count) {
            ..2 => self.uid,
            count => self.uid + 1 + u32::try_from(number.rem_euclid(count - 1)).unwrap_or(0),
        }
    }
}

/// What content reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Nothing.
    None,
    /// Other machines, by connections it makes.
    Outbound,
}

/// How mail is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The server that takes it.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How what is sent is encrypted.
    pub tls: MailTls,
    /// PEM, beside the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// Who it is from.
    pub from: String,
    /// Who logs in, and the file with their password.
    pub login: Option<(String, PathBuf)>,
}

/// How mail is encrypted on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// After `STARTTLS` (RFC 3207), or not at all.
    Starttls,
    /// From the first byte (RFC 8314).
    Tls,
    /// It is not: for a server on this machine.
    None,
}

/// What becomes of blobs that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Between two looks.
    pub every: Duration,
    /// They are kept for so long.
    pub grace: Duration,
    /// Files of other indexes that nobody used for so long are forgotten; `None`: none are.
    pub remote_unused: Option<Duration>,
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
