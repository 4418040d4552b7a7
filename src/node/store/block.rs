//! What repositories withhold.

use super::audit::{Deed, record};
use super::{Store, StoreError, now, within};

/// A rule of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// As looked up.
    pub package: String,
    /// Such as `<2.0`; empty: all.
    pub versions: String,
    /// For people.
    pub reason: String,
}

impl Store {
    /// Withholds a package, or some of its versions.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn block(&self, repository: i64, block: &Block, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => async {
            sqlx::query(
                "INSERT INTO block (repository_id, package, versions, reason, created_at, created_by)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (repository_id, package, versions) DO UPDATE SET reason = excluded.reason",
            )
            .bind(repository).bind(&block.package).bind(&block.versions).bind(&block.reason).bind(now()).bind(by.who)
            .execute(&mut *tx).await?;
            sqlx::query("UPDATE repository SET generation = generation + 1 WHERE id = $1")
                .bind(repository).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Takes rules about a package back: that about these versions, or all. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unblock(
        &self,
        repository: i64,
        package: &str,
        versions: Option<&str>,
        by: &Deed<'_>,
    ) -> Result<u64, StoreError> {
        within!(self, tx => async {
            let gone = sqlx::query(
                "DELETE FROM block WHERE repository_id = $1 AND package = $2 AND ($3 IS NULL OR versions = $3)",
            )
            .bind(repository).bind(package).bind(versions).execute(&mut *tx).await?.rows_affected();
            if gone > 0 {
                sqlx::query("UPDATE repository SET generation = generation + 1 WHERE id = $1")
                    .bind(repository).execute(&mut *tx).await?;
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }
}
