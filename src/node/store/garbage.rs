//! Blobs that no row names, and how they end without taking one that is about to be named.

use std::collections::HashSet;
use std::time::Duration;

use super::{Db, Store, StoreError, micros, now, with, within};

/// A node that condemned a blob deletes it within half of this, or not at all. Until it says that it has, or this is over,
/// nobody names it.
pub const SENTENCE: Duration = Duration::from_secs(120);

/// Every digest that rows name. A removed file's blob is not among them.
const NAMED: &str = "SELECT sha256 FROM file WHERE removed_at IS NULL
     UNION SELECT metadata_sha256 FROM file WHERE removed_at IS NULL AND metadata_sha256 IS NOT NULL
     UNION SELECT provenance_sha256 FROM file WHERE removed_at IS NULL AND provenance_sha256 IS NOT NULL
     UNION SELECT sha256 FROM remote_page WHERE sha256 IS NOT NULL
     UNION SELECT sha256 FROM remote_day WHERE sha256 IS NOT NULL
     UNION SELECT sha256 FROM remote_file
     UNION SELECT sha256 FROM bundle
     UNION SELECT sha256 FROM rendering";

/// No row names `$1`.
const UNNAMED: &str = "NOT EXISTS (SELECT 1 FROM file WHERE sha256 = $1 AND removed_at IS NULL)
     AND NOT EXISTS (SELECT 1 FROM file WHERE metadata_sha256 = $1 AND removed_at IS NULL)
     AND NOT EXISTS (SELECT 1 FROM file WHERE provenance_sha256 = $1 AND removed_at IS NULL)
     AND NOT EXISTS (SELECT 1 FROM remote_page WHERE sha256 = $1)
     AND NOT EXISTS (SELECT 1 FROM remote_day WHERE sha256 = $1)
     AND NOT EXISTS (SELECT 1 FROM remote_file WHERE sha256 = $1)
     AND NOT EXISTS (SELECT 1 FROM bundle WHERE sha256 = $1)
     AND NOT EXISTS (SELECT 1 FROM rendering WHERE sha256 = $1)";

/// Before rows that name these digests are written, in their transaction: none of them may be on its way out. `anew`: since
/// when their blobs were written again, by the database's clock.
macro_rules! spare {
    ($store:expr, $tx:ident, $digests:expr, $anew:expr) => {{
        let (digests, anew): (&[Option<&str>; 3], Option<i64>) = ($digests, $anew);
        if let Some(lock) = $store.naming_lock() {
            sqlx::query(lock).execute(&mut *$tx).await?;
        }
        // The latest sentence, and the latest that is not known to be over.
        let (condemned, pending): (Option<i64>, Option<i64>) = sqlx::query_as(
            "SELECT MAX(condemned_at), MAX(CASE WHEN is_deleted THEN NULL ELSE condemned_at END) FROM garbage
             WHERE sha256 IN ($1, $2, $3)",
        )
        .bind(digests[0])
        .bind(digests[1])
        .bind(digests[2])
        .fetch_one(&mut *$tx)
        .await?;
        if let Some(condemned) = condemned {
            let now: i64 = match $store.clock_query() {
                Some(query) => sqlx::query_scalar(query).fetch_one(&mut *$tx).await?,
                None => $crate::node::store::now(),
            };
            let sentence = $crate::node::store::micros($crate::node::store::garbage::SENTENCE);
            if pending.is_some_and(|at| at > now - sentence) {
                return Err($crate::node::store::StoreError::BeingDeleted);
            }
            // What was written before the sentence may be what was deleted.
            if anew.is_none_or(|since| condemned >= since) {
                return Err($crate::node::store::StoreError::Deleted);
            }
            sqlx::query("DELETE FROM garbage WHERE sha256 IN ($1, $2, $3)")
                .bind(digests[0])
                .bind(digests[1])
                .bind(digests[2])
                .execute(&mut *$tx)
                .await?;
        }
    }};
}
pub(super) use spare;

impl Store {
    /// What makes who names blobs and who condemns some wait for one another. SQLite has one writer at a time anyhow.
    pub(super) fn naming_lock(&self) -> Option<&'static str> {
        matches!(self.db, Db::Postgres(_)).then_some("SELECT pg_advisory_xact_lock_shared(7310575178674)")
    }

    fn condemning_lock(&self) -> Option<&'static str> {
        matches!(self.db, Db::Postgres(_)).then_some("SELECT pg_advisory_xact_lock(7310575178674)")
    }

    /// Every digest that rows name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn named(&self) -> Result<HashSet<String>, StoreError> {
        let all: Vec<String> = with!(self, pool => Ok(sqlx::query_scalar(NAMED).fetch_all(pool).await?))?;
        Ok(all.into_iter().collect())
    }

    /// Writes down that no row names these, unless that is known.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn suspect(&self, digests: &[String]) -> Result<(), StoreError> {
        let at = now();
        within!(self, tx => async {
            for sha256 in digests {
                sqlx::query("INSERT INTO garbage (sha256, since, is_deleted) VALUES ($1, $2, $3) ON CONFLICT (sha256) DO NOTHING")
                    .bind(sha256).bind(at).bind(false).execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Forgets suspects that rows name by now, and those whose deletion is long over.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn acquit(&self) -> Result<(), StoreError> {
        let named = format!("DELETE FROM garbage WHERE condemned_at IS NULL AND sha256 IN ({NAMED})");
        with!(self, pool => {
            sqlx::query(sqlx::AssertSqlSafe(&*named)).execute(pool).await?;
            sqlx::query("DELETE FROM garbage WHERE is_deleted AND condemned_at < $1")
                .bind(now() - micros(REMEMBERED)).execute(pool).await?;
            Ok(())
        })
    }

    /// A condemned blob is gone.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn executed(&self, digests: &[String]) -> Result<(), StoreError> {
        within!(self, tx => async {
            for sha256 in digests {
                sqlx::query("UPDATE garbage SET is_deleted = $2 WHERE sha256 = $1")
                    .bind(sha256).bind(true).execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Suspects since before this time, microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn suspects(&self, before: i64) -> Result<Vec<String>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar("SELECT sha256 FROM garbage WHERE since < $1 AND NOT is_deleted ORDER BY sha256")
                .bind(before).fetch_all(pool).await?
        ))
    }

    /// Condemns those of a few suspects that are still not named, and none while there is a hold; afterwards they must be deleted within half of
    /// [`SENTENCE`], or left.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn condemn(&self, digests: &[String]) -> Result<Vec<String>, StoreError> {
        let sql = format!("UPDATE garbage SET condemned_at = $2 WHERE sha256 = $1 AND NOT is_deleted AND {UNNAMED}");
        within!(self, tx => async {
            if let Some(lock) = self.condemning_lock() {
                sqlx::query(lock).execute(&mut *tx).await?;
            }
            let mut condemned = Vec::new();
            let held: Option<String> = sqlx::query_scalar("SELECT value FROM fact WHERE name = 'hold'")
                .fetch_optional(&mut *tx).await?;
            if until(held) > now() {
                return Ok(condemned);
            }
            let at: i64 = match self.clock_query() {
                Some(query) => sqlx::query_scalar(query).fetch_one(&mut *tx).await?,
                None => now(),
            };
            for sha256 in digests {
                let done =
                    sqlx::query(sqlx::AssertSqlSafe(&*sql)).bind(sha256).bind(at).execute(&mut *tx).await?;
                if done.rows_affected() == 1 {
                    condemned.push(sha256.clone());
                }
            }
            Ok::<_, StoreError>(condemned)
        }.await)
    }

    /// Until when nothing is deleted, microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn hold(&self) -> Result<i64, StoreError> {
        let told: Option<String> = with!(self, pool => Ok(
            sqlx::query_scalar("SELECT value FROM fact WHERE name = 'hold'").fetch_optional(pool).await?
        ))?;
        Ok(until(told))
    }

    /// Lets nothing be deleted until then.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_hold(&self, until: i64, by: &super::Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => async {
            // After whoever condemns now.
            if let Some(lock) = self.condemning_lock() {
                sqlx::query(lock).execute(&mut *tx).await?;
            }
            sqlx::query(
                "INSERT INTO fact (name, value) VALUES ('hold', $1)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(until.to_string()).execute(&mut *tx).await?;
            super::audit::record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }
}

fn until(held: Option<String>) -> i64 {
    held.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// No publish takes so long between keeping its bytes and writing its rows.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
