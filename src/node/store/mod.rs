//! What we know: rows in SQLite (one machine) or PostgreSQL (more than one). SQL is written here and nowhere else.
//!
//! Both databases run the same migrations and the same queries; what differs is how a transaction begins. Nothing here
//! has heard of HTTP.

mod audit;
mod block;
mod bundle;
mod content;
mod cran;
mod download;
mod errand;
pub mod garbage;
mod group;
mod job;
mod key;
mod package;
mod permission;
mod registry;
mod remote;
mod report;
mod repository;
mod schema;
mod servers;
mod session;
mod tag;
mod token;
mod user;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::watch;

pub use self::audit::AuditRow;
pub use self::audit::Deed;
pub use self::block::Block;
pub use self::content::{About, BundleRow, ContentRow, NewBundle};
pub use self::cran::RFile;
pub use self::download::{By, Downloads};
pub use self::errand::Errand;
pub use self::group::GroupRow;
pub use self::job::{Attendance, Claimable, Claimed, JobLine, JobRow, Jobs, NewJob};
pub use self::key::{ApiKey, KeyRow, NewKey, Scope};
pub use self::package::{FileRow, KnownFile, NewFile, PackageFile, Project, ProjectRow, Published, Told, Which};
pub use self::permission::{Grant, Grants, PermissionRow, VanityRow};
pub use self::registry::{Beat, NodeRow};
pub use self::remote::{RemoteDay, RemoteNames, RemotePage, UsedFile};
pub use self::report::{NewRendering, NewSchedule, RenderingRow, ScheduleRow};
pub use self::repository::{Language, Remote, Repository, Source, Subscribed};
pub use self::schema::Migrate;
use self::servers::Servers;
pub use self::tag::TagRow;
pub use self::token::TokenRow;
pub use self::user::{Change, Profile, Role, User};
use crate::config::node::DatabaseUrl;
use crate::runtime::{clock, dice};

/// In microseconds, as rows have all times.
pub const DAY: i64 = 24 * 3600 * 1_000_000;

/// A database.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    /// For one answer: what the database should have given up itself by then.
    patience: Duration,
}

#[derive(Clone)]
enum Db {
    Sqlite(SqlitePool),
    Postgres(Arc<Servers>),
}

// The options of a connection hold a password.
impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        })
    }
}

/// Does the same with whichever database it is; the body gives a `Result`.
macro_rules! with {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.db {
            $crate::node::store::Db::Sqlite($pool) => {
                $crate::node::store::bounded($store.patience, async { $body }).await
            }
            $crate::node::store::Db::Postgres(servers) => match servers.pool() {
                Ok(pool) => {
                    let $pool = &*pool;
                    $crate::node::store::bounded($store.patience, async { $body }).await
                }
                Err(lost) => Err(lost),
            },
        }
    };
}
use with;

/// As [`with`], in a transaction that is committed when the body gives `Ok`.
macro_rules! within {
    ($store:expr, $tx:ident => $body:expr) => {
        match &$store.db {
            $crate::node::store::Db::Sqlite(pool) => {
                let work = async {
                    // Writers queue up at the beginning: one that has read first could not become a writer later.
                    let mut $tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                    let result = $body?;
                    $tx.commit().await?;
                    Ok(result)
                };
                $crate::node::store::bounded($store.patience, work).await
            }
            $crate::node::store::Db::Postgres(servers) => match servers.pool() {
                Ok(pool) => {
                    let work = async {
                        let mut $tx = pool.begin().await?;
                        let result = $body?;
                        $tx.commit().await?;
                        Ok(result)
                    };
                    $crate::node::store::bounded($store.patience, work).await
                }
                Err(lost) => Err(lost),
            },
        }
    };
}
use within;

/// A database that hangs is one that is away.
async fn bounded<T>(patience: Duration, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let done = tokio::time::timeout(patience, work).await;
    done.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is away or too busy; the same may succeed in a moment.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// Somebody else was first.
    #[error("it is there already")]
    Taken,
    /// What is referred to is not there.
    #[error("it is not there")]
    Missing,
    /// A blob that was to be named was deleted before that; it must be kept anew.
    #[error("a blob was deleted before it was named")]
    Deleted,
    /// As [`Self::Deleted`], but its deletion may still be under way.
    #[error("a blob is being deleted")]
    BeingDeleted,
    /// Something else needs it.
    #[error("something else needs it")]
    InUse,
    /// A fault of ours, or of the database.
    #[error("the database refuses: {0}")]
    Broken(sqlx::Error),
    /// None of several servers takes writes.
    #[error("no database server takes writes")]
    NoPrimary,
    /// A server does not prove who it is.
    #[error("the database server {server} cannot be trusted: {why}; {remedy}")]
    Untrusted {
        /// Which.
        server: String,
        /// What is wrong.
        why: String,
        /// What helps.
        remedy: &'static str,
    },
    /// The schema could not be brought up to date.
    #[error("the schema of the database cannot be brought up to date: {0}")]
    Migration(sqlx::migrate::MigrateError),
    /// The schema is not one this program can work with.
    #[error("the schema of the database does not fit this program: {0}")]
    Schema(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => Self::Unavailable(error),
            E::Database(told) if told.is_unique_violation() => Self::Taken,
            E::Database(told) if told.code().is_some_and(|code| is_passing(&code)) => Self::Unavailable(error),
            _ => Self::Broken(error),
        }
    }
}

/// PostgreSQL: connection exceptions (08), cancelled for its time (57014), shutting down or starting (57P), out of
/// something (53), read-only standby (25006), serialization (40), a lock that took too long (55P03). SQLite: busy (5), locked (6), disk full (13) and their extended codes.
fn is_passing(code: &str) -> bool {
    if let Ok(number) = code.parse::<u32>()
        && code.len() < 5
    {
        return matches!(number & 0xff, 5 | 6 | 13);
    }
    ["08", "57014", "57P", "53", "25006", "40", "55P03"].iter().any(|class| code.starts_with(class))
}

/// Bounds on what the program asks of the database.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Open connections.
    pub connections: u32,
    /// For one statement, and for a free connection.
    pub timeout: Duration,
}

impl Store {
    /// Connects, and sees to the schema.
    ///
    /// # Errors
    /// The database cannot be reached or made, or its schema is another program's.
    pub async fn open(url: &DatabaseUrl, bounds: Bounds, migrate: Migrate) -> Result<Self, StoreError> {
        let db = match url {
            DatabaseUrl::Sqlite(path) => Db::Sqlite(sqlite(path.clone(), bounds).await?),
            DatabaseUrl::Postgres(url) => Db::Postgres(Arc::new(Servers::open(url.expose(), bounds).await?)),
        };
        let store = Self { db, patience: bounds.timeout + GRACE };
        // Nodes that start at once on one file take turns; PostgreSQL has a lock of its own for this.
        let _turn = match url {
            DatabaseUrl::Sqlite(path) => Some(schema::turn(path.clone()).await?),
            DatabaseUrl::Postgres(_) => None,
        };
        store.prepare(migrate).await?;
        Ok(store)
    }

    /// Looks after the connection until told to stop.
    pub async fn watch(&self, mut stop: watch::Receiver<bool>) {
        match &self.db {
            Db::Sqlite(_) => drop(stop.wait_for(|stop| *stop).await),
            Db::Postgres(servers) => servers.watch(stop).await,
        }
    }

    /// For one machine only.
    pub fn is_local(&self) -> bool {
        matches!(self.db, Db::Sqlite(_))
    }

    /// The value all nodes agreed on under this name; the first to tell decides.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn agree(&self, name: &str, value: &str) -> Result<String, StoreError> {
        with!(self, pool => {
            sqlx::query("INSERT INTO fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(name).bind(value).execute(pool).await?;
            Ok(sqlx::query_scalar("SELECT value FROM fact WHERE name = $1").bind(name).fetch_one(pool).await?)
        })
    }

    /// The database's clock, microseconds since 1970: what two machines compare.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn clock(&self) -> Result<i64, StoreError> {
        match self.clock_query() {
            None => Ok(now()),
            Some(query) => with!(self, pool => Ok(sqlx::query_scalar(query).fetch_one(pool).await?)),
        }
    }

    /// What asks for it; `None`: it is ours.
    fn clock_query(&self) -> Option<&'static str> {
        matches!(self.db, Db::Postgres(_)).then_some("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT")
    }

    /// Lets every connection go.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite(pool) => pool.close().await,
            Db::Postgres(servers) => servers.close().await,
        }
    }
}

async fn sqlite(path: PathBuf, bounds: Bounds) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was acknowledged survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(bounds.timeout);
    let pool = SqlitePoolOptions::new().max_connections(bounds.connections).acquire_timeout(bounds.timeout);
    pool.connect_with(options).await
}

/// What an answer may take longer than the database was given.
const GRACE: Duration = Duration::from_secs(1);

/// A new row's id: positive, random, so that nodes need not ask one another.
pub fn new_id() -> i64 {
    i64::from_le_bytes(dice::secret()) & i64::MAX
}

/// Now, in microseconds since 1970, as rows have it.
fn now() -> i64 {
    i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
