//! Tags: words that content is sorted by, in a tree.

use super::audit::{Deed, record};
use super::{Store, StoreError, now, with, within};

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct TagRow {
    /// In URLs.
    pub number: i64,
    /// For people.
    pub name: String,
    /// The one above; `None`: at the top.
    pub parent: Option<i64>,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// See `created_at`.
    pub updated_at: i64,
}

impl Store {
    /// Makes a tag; its number.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: there is nothing it could be below.
    pub async fn create_tag(&self, name: &str, parent: Option<i64>, by: &Deed<'_>) -> Result<i64, StoreError> {
        within!(self, tx => async {
            if let Some(parent) = parent {
                let there: Option<i64> = sqlx::query_scalar("SELECT number FROM tag WHERE number = $1")
                    .bind(parent).fetch_optional(&mut *tx).await?;
                there.ok_or(StoreError::Missing)?;
            }
            let number: i64 =
                sqlx::query_scalar("UPDATE counter SET last = last + 1 WHERE name = 'tag' RETURNING last")
                    .fetch_one(&mut *tx).await?;
            sqlx::query("INSERT INTO tag (number, name, parent, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)")
                .bind(number).bind(name).bind(parent).bind(now()).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(number)
        }.await)
    }

    /// Gives a tag another name. Whether there is one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn rename_tag(&self, number: i64, name: &str, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let changed = sqlx::query("UPDATE tag SET name = $2, updated_at = $3 WHERE number = $1")
                .bind(number).bind(name).bind(now()).execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Removes a tag that has none below it. Whether there was one.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: it has.
    pub async fn remove_tag(&self, number: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let below: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tag WHERE parent = $1")
                .bind(number).fetch_one(&mut *tx).await?;
            if below > 0 {
                return Err(StoreError::InUse);
            }
            sqlx::query("DELETE FROM tagged WHERE tag = $1").bind(number).execute(&mut *tx).await?;
            let gone = sqlx::query("DELETE FROM tag WHERE number = $1")
                .bind(number).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// All tags, in the order they were made.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tags(&self) -> Result<Vec<TagRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as("SELECT number, name, parent, created_at, updated_at FROM tag ORDER BY number")
                .fetch_all(pool).await?
        ))
    }

    /// Rows of content and numbers of their tags: of one content, of one tag, or all.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tagged(&self, content: Option<i64>, tag: Option<i64>) -> Result<Vec<(i64, i64)>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT content_id, tag FROM tagged WHERE (CAST($1 AS BIGINT) IS NULL OR content_id = $1)
                 AND (CAST($2 AS BIGINT) IS NULL OR tag = $2) ORDER BY tag",
            )
            .bind(content).bind(tag).fetch_all(pool).await?
        ))
    }

    /// Gives content a tag, or takes it away. Whether that changed something.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_tag(&self, content: i64, tag: i64, is_tagged: bool, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let sql = if is_tagged {
                "INSERT INTO tagged (content_id, tag) VALUES ($1, $2) ON CONFLICT (content_id, tag) DO NOTHING"
            } else {
                "DELETE FROM tagged WHERE content_id = $1 AND tag = $2"
            };
            let changed = sqlx::query(sql).bind(content).bind(tag).execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }
}
