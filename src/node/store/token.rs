//! Tokens of R's clients: a public key each, which a user claims; and what was signed with them lately.

use std::time::Duration;

use super::audit::{Deed, record};
use super::{ApiKey, Store, StoreError, micros, now, with, within};

/// A token nobody claims is forgotten after so long.
const UNCLAIMED: Duration = Duration::from_secs(3600);
/// Tokens nobody has claimed yet, of everybody; beyond that the oldest goes.
const UNCLAIMED_MAX: i64 = 10_000;
/// New ones for one address within a minute.
const MINUTE_MAX: i64 = 30;
/// What was signed is remembered for longer than anybody takes it, whatever their clocks say.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// No session lasts longer: see `config::node::file`.
const SESSION: Duration = Duration::from_secs(366 * 24 * 3600);

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct TokenRow {
    /// What requests name it by.
    pub token: String,
    /// RSAPublicKey as DER, base64.
    pub public_key: String,
    /// Who asked for it: an address, of IPv6 its network.
    pub address: Option<String>,
    /// Microseconds since 1970, as all that follow.
    pub created_at: i64,
    /// Row of the user whose it is; `None`: nobody has claimed it.
    pub account_id: Option<i64>,
    /// When they did.
    pub claimed_at: Option<i64>,
    /// `None`: never.
    pub expires_at: Option<i64>,
}

impl Store {
    /// Writes down a token that somebody may claim. `false`: too many were made from this address within a minute.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of this name.
    pub async fn create_token(&self, token: &str, public_key: &str, address: Option<&str>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let at = now();
            sqlx::query("DELETE FROM client_token WHERE claimed_at IS NULL AND created_at < $1")
                .bind(at - micros(UNCLAIMED)).execute(&mut *tx).await?;
            let lately: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM client_token WHERE created_at > $1 AND COALESCE(address, '') = $2",
            )
            .bind(at - micros(Duration::from_secs(60))).bind(address.unwrap_or_default())
            .fetch_one(&mut *tx).await?;
            if lately >= MINUTE_MAX {
                return Ok::<_, StoreError>(false);
            }
            sqlx::query("INSERT INTO client_token (token, public_key, address, created_at) VALUES ($1, $2, $3, $4)")
                .bind(token).bind(public_key).bind(address).bind(at).execute(&mut *tx).await?;
            sqlx::query(
                "DELETE FROM client_token WHERE claimed_at IS NULL AND created_at <=
                 (SELECT created_at FROM client_token WHERE claimed_at IS NULL ORDER BY created_at DESC LIMIT 1 OFFSET $1)",
            )
            .bind(UNCLAIMED_MAX).execute(&mut *tx).await?;
            Ok(true)
        }.await)
    }

    /// The token of this name, if it holds now or may still be claimed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn token(&self, token: &str) -> Result<Option<TokenRow>, StoreError> {
        let at = now();
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT token, public_key, address, created_at, account_id, claimed_at, expires_at FROM client_token
                 WHERE token = $1 AND (claimed_at IS NOT NULL OR created_at >= $2) AND (expires_at IS NULL OR expires_at > $3)",
            )
            .bind(token).bind(at - micros(UNCLAIMED)).bind(at).fetch_optional(pool).await?
        ))
    }

    /// Tokens a user claimed, the latest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tokens_of(&self, user: i64) -> Result<Vec<TokenRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT token, public_key, address, created_at, account_id, claimed_at, expires_at FROM client_token
                 WHERE account_id = $1 AND (expires_at IS NULL OR expires_at > $2) ORDER BY claimed_at DESC",
            )
            .bind(user).bind(now()).fetch_all(pool).await?
        ))
    }

    /// Ends a token of a user's. Whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke_token(&self, token: &str, user: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let ended = sqlx::query("DELETE FROM client_token WHERE token = $1 AND account_id = $2")
                .bind(token).bind(user).execute(&mut *tx).await?.rows_affected() == 1;
            if ended {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(ended)
        }.await)
    }

    /// Makes a token a user's; `key`: whose end is its end, `None` where they said their password.
    /// `false`: there is none that could be claimed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim_token(
        &self,
        token: &str,
        user: i64,
        key: Option<&ApiKey>,
        by: &Deed<'_>,
    ) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let at = now();
            let claimed = sqlx::query(
                "UPDATE client_token SET account_id = $2, claimed_at = $3, expires_at = $4, api_key_id = $6
                 WHERE token = $1 AND claimed_at IS NULL AND created_at >= $5",
            )
            .bind(token).bind(user).bind(at).bind(key.and_then(|key| key.expires_at)).bind(at - micros(UNCLAIMED))
            .bind(key.map(|key| key.id))
            .execute(&mut *tx).await?.rows_affected() == 1;
            if claimed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(claimed)
        }.await)
    }

    /// Remembers what was signed. `false`: it was taken before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn take_signed(&self, hash: &str) -> Result<bool, StoreError> {
        with!(self, pool => {
            let new = sqlx::query("INSERT INTO signed (hash, taken_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING")
                .bind(hash).bind(now()).execute(pool).await?;
            Ok(new.rows_affected() == 1)
        })
    }

    /// Forgets tokens that hold no more, and what was signed long ago.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_tokens(&self) -> Result<(), StoreError> {
        let at = now();
        with!(self, pool => {
            sqlx::query("DELETE FROM client_token WHERE claimed_at IS NULL AND created_at < $1 OR expires_at < $2")
                .bind(at - micros(UNCLAIMED)).bind(at).execute(pool).await?;
            sqlx::query("DELETE FROM signed WHERE taken_at < $1").bind(at - micros(REMEMBERED)).execute(pool).await?;
            sqlx::query("DELETE FROM ended_session WHERE ended_at < $1")
                .bind(at - micros(SESSION)).execute(pool).await?;
            Ok(())
        })
    }
}
