//! What is known of other indexes.

use super::garbage::spare;
use super::{Store, StoreError, now, with, within};

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

    /// Writes down what a source said. `anew`: see [`Self::publish`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_remote_page(
        &self,
        source: i64,
        name: &str,
        page: &RemotePage,
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
            Ok::<_, StoreError>(())
        }.await)
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

    /// Writes down that a file is kept here. `anew`: see [`Self::publish`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_remote_file(
        &self,
        source: i64,
        path: &str,
        sha256: &str,
        anew: Option<i64>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            spare!(self, tx, &[Some(sha256), None, None], anew);
            sqlx::query(
                "INSERT INTO remote_file (source_id, path, sha256, fetched_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (source_id, path) DO UPDATE SET sha256 = excluded.sha256, fetched_at = excluded.fetched_at",
            )
            .bind(source).bind(path).bind(sha256).bind(now()).execute(&mut *tx).await?;
            Ok::<_, StoreError>(())
        }.await)
    }
}
