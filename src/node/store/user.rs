//! People, and what role each has.

use super::audit::{Deed, record};
use super::{Scope, Store, StoreError, new_id, now, with, within};

/// What a person is allowed at most, whichever key they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Installs and looks.
    Viewer,
    /// Publishes too.
    Publisher,
    /// Everything.
    Administrator,
}

impl Role {
    /// As rows, commands and clients write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Administrator => "administrator",
        }
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Publisher, Self::Administrator].into_iter().find(|role| role.as_str() == text)
    }

    /// In all repositories.
    pub fn scope(self) -> Scope {
        match self {
            Self::Viewer => Scope::Read,
            Self::Publisher => Scope::Publish,
            Self::Administrator => Scope::Admin,
        }
    }
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    /// Of its row.
    pub id: i64,
    /// In URLs.
    pub guid: String,
    /// What R's clients know them by.
    pub number: i64,
    /// What one logs in with; lower-case.
    pub username: String,
    /// May be empty, as both names.
    pub email: String,
    /// See `email`.
    pub first_name: String,
    /// See `email`.
    pub last_name: String,
    #[sqlx(try_from = "String")]
    /// What they are allowed.
    pub role: Role,
    /// A password is set.
    pub has_password: bool,
    /// Microseconds since 1970, as all that follow.
    pub created_at: i64,
    /// When something of this was last changed.
    pub updated_at: i64,
    /// When a key of theirs was last used.
    pub active_at: Option<i64>,
    /// Since when nothing of theirs holds; `None`: they are welcome.
    pub locked_at: Option<i64>,
    /// Sessions in browsers that began before hold no more.
    pub sessions_from: i64,
}

impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // A role of a newer program's allows least here.
        Ok(Self::parse(&text).unwrap_or(Self::Viewer))
    }
}

impl User {
    /// Whether somebody could be called so: letters, digits, `.`, `_`, `-`, `+` and `@`, up to 100, beginning with a letter or
    /// digit.
    pub fn is_name(name: &str) -> bool {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._-@+".contains(&b);
        (1..=100).contains(&name.len())
            && name.bytes().all(is_part)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
    }
}

/// What is to be changed of a person; `None`: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// See [`Profile`].
    pub username: Option<&'a str>,
    /// See [`Profile`].
    pub email: Option<&'a str>,
    /// See [`Profile`].
    pub first_name: Option<&'a str>,
    /// See [`Profile`].
    pub last_name: Option<&'a str>,
    /// See [`Profile`].
    pub role: Option<Role>,
}

/// What can be said of a person.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'a> {
    /// Lower-case.
    pub username: &'a str,
    /// May be empty, as both names.
    pub email: &'a str,
    /// See `email`.
    pub first_name: &'a str,
    /// See `email`.
    pub last_name: &'a str,
    /// What they are allowed.
    pub role: Role,
}

/// What rows are read with; a macro because queries are literals.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, guid, number, username, email, first_name, last_name, role, password IS NOT NULL AS has_password,
             created_at, updated_at,
             (SELECT MAX(last_used_at) FROM api_key WHERE api_key.account_id = account.id) AS active_at, locked_at,
             sessions_from FROM account ",
            $rest
        )
    };
}

impl Store {
    /// Makes a user. `guid`: theirs from now on; `password`: as a PHC string.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of this name.
    pub async fn create_user(
        &self,
        guid: &str,
        profile: Profile<'_>,
        password: Option<&str>,
        by: &Deed<'_>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            let number: i64 =
                sqlx::query_scalar("UPDATE counter SET last = last + 1 WHERE name = 'account' RETURNING last")
                    .fetch_one(&mut *tx).await?;
            let at = now();
            sqlx::query(
                "INSERT INTO account (id, guid, number, username, email, first_name, last_name, role, password,
                 created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
            )
            .bind(new_id()).bind(guid).bind(number).bind(profile.username).bind(profile.email)
            .bind(profile.first_name).bind(profile.last_name).bind(profile.role.as_str()).bind(password).bind(at)
            .execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Changes what is said of a user. Whether there is one.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is another one of this name.
    pub async fn change_user(&self, id: i64, change: Change<'_>, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let changed = sqlx::query(
                "UPDATE account SET username = COALESCE($2, username), email = COALESCE($3, email),
                 first_name = COALESCE($4, first_name), last_name = COALESCE($5, last_name), role = COALESCE($6, role),
                 updated_at = $7 WHERE id = $1",
            )
            .bind(id).bind(change.username).bind(change.email).bind(change.first_name).bind(change.last_name)
            .bind(change.role.map(Role::as_str)).bind(now())
            .execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Locks a user out, or lets them in again. Whether there is one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn lock_user(&self, id: i64, is_locked: bool, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let at = now();
            let changed = sqlx::query(
                "UPDATE account SET locked_at = $2, updated_at = $3, sessions_from = $3 WHERE id = $1",
            )
                .bind(id).bind(is_locked.then_some(at)).bind(at).execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Gives a user another password, as a PHC string, or none. Whether there is one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_password(&self, id: i64, password: Option<&str>, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let changed = sqlx::query("UPDATE account SET password = $2, updated_at = $3, sessions_from = $3 WHERE id = $1")
                .bind(id).bind(password).bind(now()).execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                // What was claimed by the old one ends with it.
                sqlx::query("DELETE FROM client_token WHERE account_id = $1 AND api_key_id IS NULL")
                    .bind(id).execute(&mut *tx).await?;
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Removes a user and their keys. Whether there was one.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: content is theirs.
    pub async fn remove_user(&self, id: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let owns: Option<i64> = sqlx::query_scalar(
                "SELECT content.id FROM content JOIN account ON account.guid = owner WHERE account.id = $1 LIMIT 1",
            )
            .bind(id).fetch_optional(&mut *tx).await?;
            if owns.is_some() {
                return Err(StoreError::InUse);
            }
            sqlx::query("DELETE FROM client_token WHERE account_id = $1").bind(id).execute(&mut *tx).await?;
            sqlx::query("DELETE FROM api_key WHERE account_id = $1").bind(id).execute(&mut *tx).await?;
            sqlx::query("DELETE FROM member WHERE account_id = $1").bind(id).execute(&mut *tx).await?;
            let granted = sqlx::query(
                "DELETE FROM permission WHERE kind = 'user' AND principal = (SELECT guid FROM account WHERE id = $1)",
            );
            granted.bind(id).execute(&mut *tx).await?;
            let gone =
                sqlx::query("DELETE FROM account WHERE id = $1").bind(id).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// All users, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        with!(self, pool => Ok(sqlx::query_as(select!("ORDER BY username")).fetch_all(pool).await?))
    }

    /// The user of this guid or name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn user(&self, guid_or_name: &str) -> Result<Option<User>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!("WHERE guid = $1 OR username = $1"))
                .bind(guid_or_name.to_lowercase()).fetch_optional(pool).await?
        ))
    }

    /// The user of this row.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn user_of(&self, id: i64) -> Result<Option<User>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!("WHERE id = $1")).bind(id).fetch_optional(pool).await?
        ))
    }

    /// A user's password, as a PHC string; `None`: there is no such user, they have none, or they are locked out.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn password(&self, id: i64) -> Result<Option<String>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar("SELECT password FROM account WHERE id = $1 AND locked_at IS NULL")
                .bind(id).fetch_optional(pool).await?.flatten()
        ))
    }
}
