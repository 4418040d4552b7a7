//! What is known of other indexes.

use std::collections::HashSet;

use super::garbage::spare;
use super::{DAY, Store, StoreError, now, with, within};

/// What an index said last of a project or folder.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RemotePage {
    /// Microseconds since 1970.
    pub fetched_at: i64,
    /// Microseconds since 1970; not before `fetched_at`.
    pub asked_at: i64,
    /// Until then it need not be asked again.
    pub fresh_until: i64,
    /// As the index sent it.
    pub etag: Option<String>,
    /// Of the blob; `None`: there is no such project.
    pub sha256: Option<String>,
}

/// What an index said last of a folder before some moment.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RemoteDay {
    /// When it was first seen to say so, microseconds since 1970.
    pub seen_at: i64,
    /// Of the blob; `None`: there was no such folder.
    pub sha256: Option<String>,
}

/// A file of another index that is kept here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsedFile {
    /// Of the source's row.
    pub source: i64,
    /// What rows call it.
    pub path: String,
    /// Of its blob.
    pub sha256: String,
}

/// Names of lists, and when each was last asked for, microseconds since 1970.
pub type RemoteNames = Vec<(String, i64)>;

impl Store {
    /// What a source said last.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remote_page(&self, source: i64, name: &str) -> Result<Option<RemotePage>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT fetched_at, asked_at, fresh_until, etag, sha256 FROM remote_page WHERE source_id = $1 AND name = $2",
            )
            .bind(source).bind(name).fetch_optional(pool).await?
        ))
    }

    /// Writes down what a source said. `keeps_days`: for its dated views too. `anew`: see [`Self::publish`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_remote_page(
        &self,
        source: i64,
        name: &str,
        page: &RemotePage,
        keeps_days: bool,
        anew: Option<i64>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            spare!(self, tx, &[page.sha256.as_deref(), None, None], anew);
            sqlx::query(
                "INSERT INTO remote_page (source_id, name, fetched_at, fresh_until, etag, sha256, asked_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (source_id, name) DO UPDATE SET fetched_at = excluded.fetched_at,
                     fresh_until = excluded.fresh_until, etag = excluded.etag, sha256 = excluded.sha256, asked_at = excluded.asked_at",
            )
            .bind(source).bind(name).bind(page.fetched_at).bind(page.fresh_until).bind(page.etag.as_deref())
            .bind(page.sha256.as_deref()).bind(page.asked_at).execute(&mut *tx).await?;
            if keeps_days {
                let last: Option<Option<String>> = sqlx::query_scalar(
                    "SELECT sha256 FROM remote_day WHERE source_id = $1 AND name = $2 ORDER BY day DESC LIMIT 1",
                )
                .bind(source).bind(name).fetch_optional(&mut *tx).await?;
                if last.flatten() != page.sha256 {
                    sqlx::query(
                        "INSERT INTO remote_day (source_id, name, day, seen_at, sha256) VALUES ($1, $2, $3, $4, $5)
                         ON CONFLICT (source_id, name, day) DO UPDATE SET seen_at = excluded.seen_at,
                             sha256 = excluded.sha256 WHERE remote_day.seen_at <= excluded.seen_at",
                    )
                    .bind(source).bind(name).bind(page.fetched_at / DAY).bind(page.fetched_at)
                    .bind(page.sha256.as_deref()).execute(&mut *tx).await?;
                }
            }
            Ok::<_, StoreError>(())
        }.await)
    }

    /// What a source had said of a folder by a moment in microseconds since 1970; `None`: nobody had asked it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remote_day(&self, source: i64, name: &str, before: i64) -> Result<Option<RemoteDay>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT seen_at, sha256 FROM remote_day WHERE source_id = $1 AND name = $2 AND seen_at < $3
                 ORDER BY seen_at DESC LIMIT 1",
            )
            .bind(source).bind(name).bind(before).fetch_optional(pool).await?
        ))
    }

    /// Everything a source was asked for and had, with when it was last asked.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remote_names(&self, source: i64) -> Result<RemoteNames, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT name, asked_at FROM remote_page WHERE source_id = $1 AND sha256 IS NOT NULL ORDER BY name",
            )
            .bind(source).fetch_all(pool).await?
        ))
    }

    /// Forgets what other indexes said they have not, if nobody asked since then.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_absent(&self, before: i64) -> Result<(), StoreError> {
        with!(self, pool => {
            sqlx::query("DELETE FROM remote_page WHERE sha256 IS NULL AND asked_at < $1").bind(before).execute(pool).await?;
            Ok(())
        })
    }

    /// The blob of a file of another index, if it is kept here.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remote_file(&self, source: i64, path: &str) -> Result<Option<String>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar("SELECT sha256 FROM remote_file WHERE source_id = $1 AND path = $2")
                .bind(source).bind(path).fetch_optional(pool).await?
        ))
    }

    /// Writes down that a file is kept here, under each of these names. `anew`: see [`Self::publish`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_remote_file(
        &self,
        source: i64,
        paths: &[&str],
        sha256: &str,
        anew: Option<i64>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            spare!(self, tx, &[Some(sha256), None, None], anew);
            for path in paths {
                sqlx::query(
                    "INSERT INTO remote_file (source_id, path, sha256, fetched_at, used_day) VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (source_id, path) DO UPDATE SET sha256 = excluded.sha256,
                         fetched_at = excluded.fetched_at, used_day = excluded.used_day",
                )
                .bind(source).bind(*path).bind(sha256).bind(now()).bind(now() / DAY).execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Writes down that files were used on a day. Those that are not known.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn use_remote_files(&self, files: &[UsedFile], day: i64) -> Result<Vec<UsedFile>, StoreError> {
        within!(self, tx => async {
            let mut unknown = Vec::new();
            for file in files {
                let used = sqlx::query(
                    "UPDATE remote_file SET used_day = CASE WHEN used_day < $3 THEN $3 ELSE used_day END
                     WHERE source_id = $1 AND path = $2",
                )
                .bind(file.source).bind(&file.path).bind(day).execute(&mut *tx).await?;
                if used.rows_affected() == 0 {
                    unknown.push(file.clone());
                }
            }
            Ok::<_, StoreError>(unknown)
        }.await)
    }

    /// Forgets files that were not used since a day, but none of an index that has not answered anything since a moment in
    /// microseconds since 1970. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_unused(&self, day: i64, answered_since: i64) -> Result<u64, StoreError> {
        with!(self, pool => {
            let gone: Vec<(i64, String)> = sqlx::query_as(
                "DELETE FROM remote_file WHERE used_day < $1 AND EXISTS (SELECT 1 FROM remote_page
                 WHERE remote_page.source_id = remote_file.source_id AND remote_page.asked_at >= $2)
                 RETURNING source_id, sha256",
            )
            .bind(day).bind(answered_since).fetch_all(pool).await?;
            // One that may come to be in an Archive has two names.
            Ok(gone.into_iter().collect::<HashSet<_>>().len() as u64)
        })
    }
}
