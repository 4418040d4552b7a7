//! Sessions in browsers: what is to be known of them beyond what they say themselves.

use super::audit::{Deed, record};
use super::{Store, StoreError, User, now, with, within};

impl Store {
    /// Whose a session is, while it holds. `hash`: SHA-256 of its id, hexadecimal; `began`: microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn session(&self, hash: &str, user: &str, began: i64) -> Result<Option<User>, StoreError> {
        let ended: Option<i64> = with!(self, pool => Ok(
            sqlx::query_scalar("SELECT ended_at FROM ended_session WHERE hash = $1").bind(hash).fetch_optional(pool).await?
        ))?;
        if ended.is_some() {
            return Ok(None);
        }
        let user = self.user(user).await?.filter(|found| found.guid == user);
        Ok(user.filter(|user| user.locked_at.is_none() && began > user.sessions_from))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end_session(&self, hash: &str, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => async {
            sqlx::query("INSERT INTO ended_session (hash, ended_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING")
                .bind(hash).bind(now()).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Writes down what happened outside of the database.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note(&self, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => record!(&mut *tx, by).map(drop))
    }
}
