//! Who changed what, when, from where. Written in the transaction of the change itself.

use super::{Store, StoreError, with};

/// A change somebody made.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    /// Name of the API key, or `host` for who works on the machine itself.
    pub who: &'a str,
    /// Client address; `None` on the machine itself.
    pub address: Option<&'a str>,
    /// A name from a closed set: `publish`, `create_repository`, …
    pub action: &'static str,
    /// What was changed.
    pub subject: &'a str,
    /// Anything else worth knowing.
    pub detail: &'a str,
}

/// What was written down.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow, serde::Serialize)]
pub struct AuditRow {
    /// Microseconds since 1970.
    pub at: i64,
    /// See [`Deed::who`].
    pub who: String,
    /// See [`Deed::action`].
    pub action: String,
    /// See [`Deed::subject`].
    pub subject: String,
    /// See [`Deed::detail`].
    pub detail: String,
    /// See [`Deed::address`].
    pub address: Option<String>,
}

impl Store {
    /// The last deeds before a moment, latest first. `before`: microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn audit(&self, before: i64, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT at, who, action, subject, detail, address FROM audit WHERE at < $1 ORDER BY at DESC LIMIT $2",
            )
            .bind(before).bind(limit).fetch_all(pool).await?
        ))
    }
}

/// Writes the deed down.
macro_rules! record {
    ($executor:expr, $deed:expr) => {
        sqlx::query(
            "INSERT INTO audit (id, at, who, action, subject, detail, address) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind($crate::node::store::new_id())
        .bind($crate::node::store::now())
        .bind($deed.who)
        .bind($deed.action)
        .bind($deed.subject)
        .bind($deed.detail)
        .bind($deed.address)
        .execute($executor)
        .await
    };
}
pub(super) use record;
