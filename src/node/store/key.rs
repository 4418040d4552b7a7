//! API keys: stored as hashes, found by hash.

use super::audit::{Deed, record};
use super::{Store, StoreError, User, new_id, now, with, within};

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
    /// Whose it is, by the id of their row; `None`: a program's.
    pub user: Option<i64>,
    /// SHA-256 of the key, hexadecimal.
    pub hash: &'a str,
    /// What it allows.
    pub scope: Scope,
    /// `None`: every repository.
    pub repository: Option<&'a str>,
    /// Microseconds since 1970; `None`: never.
    pub expires_at: Option<i64>,
}

/// A key as it is listed: never the key itself.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyRow {
    /// Of its row.
    pub id: i64,
    /// For people, and for the audit log.
    pub name: String,
    /// Whose it is; `None`: a program's.
    pub username: Option<String>,
    /// See [`Scope::as_str`].
    pub scope: String,
    /// `None`: every repository.
    pub repository: Option<String>,
    /// Microseconds since 1970, as all that follow.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    /// `None`: never.
    pub expires_at: Option<i64>,
    /// `None`: not yet.
    pub last_used_at: Option<i64>,
}

/// A key that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Of its row.
    pub id: i64,
    /// For people.
    pub name: String,
    /// Whose it is; `None`: a program's.
    pub user: Option<User>,
    /// Microseconds since 1970; `None`: never.
    pub expires_at: Option<i64>,
    /// For the audit log: its name, and whose it is.
    pub who: String,
    /// What it allows, and its user's role with it.
    pub scope: Scope,
    /// `None`: every repository.
    pub repository: Option<String>,
}

/// Id, name, its user's row, scope, repository, when it expires.
type Held = (i64, String, Option<i64>, String, Option<String>, Option<i64>);

impl Store {
    /// Makes a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_key(&self, key: NewKey<'_>, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => {
            sqlx::query(
                "INSERT INTO api_key (id, name, account_id, hash, scope, repository, created_at, created_by, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(new_id()).bind(key.name).bind(key.user).bind(key.hash).bind(key.scope.as_str()).bind(key.repository)
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
        let row: Option<Held> = with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT id, name, account_id, scope, repository, expires_at FROM api_key
                 WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
            )
            .bind(hash).bind(now()).fetch_optional(pool).await?
        ))?;
        let Some((id, name, account, scope, repository, expires_at)) = row else { return Ok(None) };
        // A scope this program does not know, written by a newer one, allows nothing here.
        let Some(scope) = Scope::parse(&scope) else { return Ok(None) };
        let user = match account {
            None => None,
            Some(account) => match self.user_of(account).await? {
                Some(user) if user.locked_at.is_none() => Some(user),
                _ => return Ok(None),
            },
        };
        let scope = user.as_ref().map_or(scope, |user| scope.min(user.role.scope()));
        let who = user.as_ref().map_or_else(|| name.clone(), |user| format!("{} ({name})", user.username));
        Ok(Some(ApiKey { id, name, user, expires_at, who, scope, repository }))
    }

    /// Every key that was not revoked, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT api_key.id AS id, name, username, scope, repository, api_key.created_at AS created_at, created_by,
                 expires_at, last_used_at FROM api_key LEFT JOIN account ON account.id = api_key.account_id
                 WHERE revoked_at IS NULL ORDER BY name, api_key.created_at",
            )
            .fetch_all(pool).await?
        ))
    }

    /// Ends a key. Whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke_key(&self, id: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let ended = sqlx::query("UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
                .bind(id).bind(now()).execute(&mut *tx).await?;
            if ended.rows_affected() == 1 {
                sqlx::query("DELETE FROM client_token WHERE api_key_id = $1").bind(id).execute(&mut *tx).await?;
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(ended.rows_affected() == 1)
        }.await)
    }

    /// Writes down when keys were last used: id and microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keys_used(&self, used: &[(i64, i64)]) -> Result<(), StoreError> {
        within!(self, tx => async {
            for (id, at) in used {
                sqlx::query("UPDATE api_key SET last_used_at = $2 WHERE id = $1").bind(id).bind(at)
                    .execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(())
        }.await)
    }
}
