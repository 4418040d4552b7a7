//! API keys: stored as hashes, found by hash.

use super::audit::{Deed, record};
use super::{Store, StoreError, new_id, now, with, within};

/// What a key allows; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Install.
    Read,
    /// Upload, yank.
    Publish,
    /// Everything.
    Admin,
}

impl Scope {
    /// As rows and commands write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        }
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Publish, Self::Admin].into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A key that is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewKey<'a> {
    /// For people, and for the audit log.
    pub name: &'a str,
    /// SHA-256 of the key, hexadecimal.
    pub hash: &'a str,
    /// What it allows.
    pub scope: Scope,
    /// `None`: every repository.
    pub repository: Option<&'a str>,
    /// Microseconds since 1970; `None`: never.
    pub expires_at: Option<i64>,
}

/// A key that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// For people, and for the audit log.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// `None`: every repository.
    pub repository: Option<String>,
}

impl Store {
    /// Makes a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_key(&self, key: NewKey<'_>, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => {
            sqlx::query(
                "INSERT INTO api_key (id, name, hash, scope, repository, created_at, created_by, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(new_id()).bind(key.name).bind(key.hash).bind(key.scope.as_str()).bind(key.repository)
            .bind(now()).bind(by.who).bind(key.expires_at)
            .execute(&mut *tx).await?;
            record!(&mut *tx, by).map(drop)
        })
    }

    /// The key with this hash, if it holds now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn key(&self, hash: &str) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<(String, String, Option<String>)> = with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT name, scope, repository FROM api_key
                 WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
            )
            .bind(hash).bind(now()).fetch_optional(pool).await?
        ))?;
        // A scope this program does not know, written by a newer one, allows nothing here.
        Ok(row.and_then(|(name, scope, repository)| Some(ApiKey { name, scope: Scope::parse(&scope)?, repository })))
    }
}
