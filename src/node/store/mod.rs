//! What we know: rows in SQLite (one machine) or PostgreSQL (more than one). SQL is written here and nowhere else.
//!
//! Both databases run the same migrations and the same queries; what differs is how a transaction begins. Nothing here
//! has heard of HTTP.

mod audit;
mod key;
mod package;
mod repository;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

pub use self::audit::Deed;
pub use self::key::{ApiKey, NewKey, Scope};
pub use self::package::{KnownFile, NewFile, PackageFile, Project, Published};
pub use self::repository::{Language, Repository};
use crate::config::node::DatabaseUrl;
use crate::runtime::{clock, dice};

/// The migrations this program knows.
static MIGRATIONS: Migrator = sqlx::migrate!("src/node/store/migrations");

/// A database.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
}

#[derive(Clone, Debug)]
enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Does the same with whichever database it is.
macro_rules! with {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.db {
            $crate::node::store::Db::Sqlite($pool) => $body,
            $crate::node::store::Db::Postgres($pool) => $body,
        }
    };
}
use with;

/// As [`with`], in a transaction that is committed when the body gives `Ok`.
macro_rules! within {
    ($store:expr, $tx:ident => $body:expr) => {
        match &$store.db {
            $crate::node::store::Db::Sqlite(pool) => {
                // Writers queue up at the beginning: one that has read first could not become a writer later.
                let mut $tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                let result = $body?;
                $tx.commit().await?;
                Ok(result)
            }
            $crate::node::store::Db::Postgres(pool) => {
                let mut $tx = pool.begin().await?;
                let result = $body?;
                $tx.commit().await?;
                Ok(result)
            }
        }
    };
}
use within;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is away or too busy; the same may succeed in a moment.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// Somebody else was first.
    #[error("it is there already")]
    Taken,
    /// A fault of ours, or of the database.
    #[error("the database refuses: {0}")]
    Broken(#[source] sqlx::Error),
    /// The schema was made by another version of the program.
    #[error("the schema of the database does not fit: {0}")]
    Schema(#[source] sqlx::migrate::MigrateError),
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

/// PostgreSQL: connection exceptions (08), shutting down or starting (57P), too many connections (53300), read-only standby
/// (25006), serialization (40). SQLite: busy (5), locked (6), disk full (13) and their extended codes.
fn is_passing(code: &str) -> bool {
    if let Ok(number) = code.parse::<u32>()
        && code.len() < 5
    {
        return matches!(number & 0xff, 5 | 6 | 13);
    }
    ["08", "57P", "53", "25006", "40"].iter().any(|class| code.starts_with(class))
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
    /// Connects, and brings an empty or older database to this program's schema.
    ///
    /// # Errors
    /// The database cannot be reached or made, or its schema is another program's.
    pub async fn open(url: &DatabaseUrl, bounds: Bounds) -> Result<Self, StoreError> {
        let db = match url {
            DatabaseUrl::Sqlite(path) => Db::Sqlite(sqlite(path.clone(), bounds).await?),
            DatabaseUrl::Postgres(url) => {
                let options = PgConnectOptions::from_str(url.expose())?
                    .application_name("bowline")
                    .options([("statement_timeout", bounds.timeout.as_millis().to_string())]);
                let pool = PgPoolOptions::new().max_connections(bounds.connections).acquire_timeout(bounds.timeout);
                Db::Postgres(pool.connect_with(options).await?)
            }
        };
        let store = Self { db };
        with!(store, pool => MIGRATIONS.run(pool).await).map_err(StoreError::Schema)?;
        Ok(store)
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

    /// Lets every connection go.
    pub async fn close(&self) {
        with!(self, pool => pool.close().await);
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

/// A new row's id: positive, random, so that nodes need not ask one another.
fn new_id() -> i64 {
    i64::from_le_bytes(dice::secret()) & i64::MAX
}

/// Now, in microseconds since 1970, as rows have it.
fn now() -> i64 {
    i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
