//! What becomes of bundles after they were deployed: what their environments had, and which of them go.

use std::collections::HashMap;

use serde_json::Value;

use super::audit::{Deed, record};
use super::content::{BUNDLE, BundleRow};
use super::{Store, StoreError, with, within};

/// Rows that one query names; databases bound that.
const MARKS_MAX: usize = 500;

/// `$1, $2, …`
fn marks(count: usize) -> String {
    (1..=count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

impl Store {
    /// Writes down what a bundle's environment has.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_lock(&self, bundle: i64, lock: Option<&str>) -> Result<(), StoreError> {
        with!(self, pool => {
            sqlx::query("UPDATE bundle SET lock = $2 WHERE number = $1").bind(bundle).bind(lock).execute(pool).await?;
            Ok(())
        })
    }

    /// What a bundle's environment had when it was last deployed; `None`: it had none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn lock(&self, bundle: i64) -> Result<Option<String>, StoreError> {
        let found: Option<Option<String>> = with!(self, pool => Ok(
            sqlx::query_scalar("SELECT lock FROM bundle WHERE number = $1").bind(bundle).fetch_optional(pool).await?
        ))?;
        Ok(found.flatten())
    }

    /// The same of several bundles, of those that had one. By number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn locks(&self, bundles: &[i64]) -> Result<HashMap<i64, String>, StoreError> {
        let mut all = HashMap::new();
        for some in bundles.chunks(MARKS_MAX) {
            let sql =
                format!("SELECT number, lock FROM bundle WHERE lock IS NOT NULL AND number IN ({})", marks(some.len()));
            let found: Vec<(i64, String)> = with!(self, pool => {
                let query = sqlx::query_as(sqlx::AssertSqlSafe(&*sql));
                Ok(some.iter().fold(query, |query, number| query.bind(*number)).fetch_all(pool).await?)
            })?;
            all.extend(found);
        }
        Ok(all)
    }

    /// Several bundles, of those that are there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bundles_numbered(&self, numbers: &[i64]) -> Result<Vec<BundleRow>, StoreError> {
        let mut all = Vec::new();
        for some in numbers.chunks(MARKS_MAX) {
            let sql = format!("{BUNDLE} WHERE number IN ({})", marks(some.len()));
            let found: Vec<BundleRow> = with!(self, pool => {
                let query = sqlx::query_as(sqlx::AssertSqlSafe(&*sql));
                Ok(some.iter().fold(query, |query, number| query.bind(*number)).fetch_all(pool).await?)
            })?;
            all.extend(found);
        }
        Ok(all)
    }

    /// Forgets bundles of content that are older than the one that runs, but for so many of all that are the latest. Those that
    /// were rendered stay as long as their renderings, and those that a task or a process is about until it has ended. `by`:
    /// its detail is the bundle's number. Which went.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn retire_bundles(
        &self,
        content: i64,
        guid: &str,
        kept: u32,
        by: &Deed<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        within!(self, tx => async {
            let mut old: Vec<i64> = sqlx::query_scalar(
                "SELECT number FROM bundle WHERE content_id = $1
                 AND number < (SELECT content.bundle FROM content WHERE content.id = $1)
                 AND number NOT IN (SELECT late.number FROM bundle late WHERE late.content_id = $1
                                    ORDER BY late.number DESC LIMIT $2)
                 AND number NOT IN (SELECT rendering.bundle FROM rendering WHERE rendering.content_id = $1)
                 ORDER BY number",
            )
            .bind(content).bind(i64::from(kept)).fetch_all(&mut *tx).await?;
            if old.is_empty() {
                return Ok(old);
            }
            let inputs: Vec<String> = sqlx::query_scalar(
                "SELECT input FROM job WHERE subject = $1 AND state IN ('waiting', 'running')",
            )
            .bind(guid).fetch_all(&mut *tx).await?;
            let about = |input: &String| serde_json::from_str::<Value>(input).ok()?["bundle"].as_i64();
            let wanted: Vec<i64> = inputs.iter().filter_map(about).collect();
            old.retain(|number| !wanted.contains(number));
            for number in &old {
                sqlx::query("DELETE FROM bundle WHERE number = $1").bind(number).execute(&mut *tx).await?;
                record!(&mut *tx, &Deed { detail: &number.to_string(), ..*by })?;
            }
            Ok::<_, StoreError>(old)
        }.await)
    }
}
