//! The schema: migrations, and the row that says which programs it still tolerates.

use std::fs::File;
use std::path::PathBuf;
use std::sync::LazyLock;

use sqlx::migrate::Migrator;

use super::{Db, Store, StoreError, with};

/// The migrations this program knows.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut all = sqlx::migrate!("src/node/store/migrations");
    // What a newer program has added and still tolerates us beside is no business of ours.
    all.set_ignore_missing(true);
    all
});

/// What to do with a schema that is not up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrate {
    /// Bring it up to date: a node that starts, and `bowline migrate`.
    Always,
    /// Make one in an empty database: commands.
    IfEmpty,
    /// Leave it as it is.
    Never,
}

impl Store {
    /// The last migration this program knows.
    pub fn schema_known() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Why this program may not work on the database now; `None`: it may. To be asked again and again, because a newer node
    /// may have changed the schema.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn refusal(&self) -> Result<Option<String>, StoreError> {
        let wanted: Option<i64> = with!(self, pool => {
            Ok(sqlx::query_scalar("SELECT tolerates FROM schema_guard WHERE one = 1").fetch_optional(pool).await?)
        })?;
        let ours = Self::schema_known();
        Ok(wanted.filter(|wanted| *wanted > ours).map(|wanted| {
            format!(
                "it wants programs that know migration {wanted} and this one, bowline {}, knows {ours}: install the \
                 version the other nodes run",
                env!("CARGO_PKG_VERSION")
            )
        }))
    }

    pub(super) async fn prepare(&self, migrate: Migrate) -> Result<(), StoreError> {
        let applied = self.applied().await?;
        if applied.is_some()
            && let Some(refusal) = self.refusal().await?
        {
            return Err(StoreError::Schema(refusal));
        }
        let ours = Self::schema_known();
        match (applied, migrate) {
            (Some(applied), _) if applied >= ours => Ok(()),
            (None, Migrate::Never) => {
                Err(StoreError::Schema("it is empty: no node has worked on it, nor `bowline migrate -c FILE`".into()))
            }
            (Some(_), Migrate::IfEmpty | Migrate::Never) => Err(StoreError::Schema(
                "it was made by an older version; `bowline migrate -c FILE`, or a node that starts, brings it up to date"
                    .into(),
            )),
            (None | Some(_), _) => {
                let done = match &self.db {
                    Db::Sqlite(pool) => MIGRATIONS.run(pool).await,
                    Db::Postgres(servers) => {
                        // No time limit: a migration takes as long as it takes, and others wait for its lock.
                        let pool = servers.unhurried();
                        let done = MIGRATIONS.run(&pool).await;
                        pool.close().await;
                        done
                    }
                };
                done.map_err(StoreError::Migration)
            }
        }
    }

    /// The last migration that was run; `None`: the database is empty.
    async fn applied(&self) -> Result<Option<i64>, StoreError> {
        let tables = match &self.db {
            Db::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
            Db::Postgres(_) => {
                "SELECT COUNT(*) FROM information_schema.tables
                 WHERE table_name = '_sqlx_migrations' AND table_schema = current_schema()"
            }
        };
        with!(self, pool => {
            let there: i64 = sqlx::query_scalar(tables).fetch_one(pool).await?;
            if there == 0 {
                return Ok(None);
            }
            Ok(sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations WHERE success").fetch_one(pool).await?)
        })
    }
}

/// Waits for the only right to change the schema of this file, which ends when it is dropped.
pub(super) async fn turn(database: PathBuf) -> Result<File, StoreError> {
    let taken = tokio::task::spawn_blocking(move || {
        let mut path = database.into_os_string();
        path.push(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    });
    taken.await.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| StoreError::Unavailable(e.into()))
}
