//! Groups of users. Their table is `team`, because `GROUP` is a word of SQL's own.

use std::collections::HashSet;

use super::audit::{Deed, record};
use super::{Store, StoreError, User, new_id, now, with, within};

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct GroupRow {
    /// Of its row.
    pub id: i64,
    /// In URLs.
    pub guid: String,
    /// Unique.
    pub name: String,
    /// Guid of who made it.
    pub owner: String,
    /// Users it has.
    pub members: i64,
    /// Microseconds since 1970.
    pub created_at: i64,
}

/// What rows are read with; a macro because queries are literals.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, guid, name, owner, (SELECT COUNT(*) FROM member WHERE team_id = team.id) AS members, created_at
             FROM team ",
            $rest
        )
    };
}

impl Store {
    /// Makes a group.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of this name.
    pub async fn create_group(&self, guid: &str, name: &str, owner: &str, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => async {
            sqlx::query("INSERT INTO team (id, guid, name, owner, created_at) VALUES ($1, $2, $3, $4, $5)")
                .bind(new_id()).bind(guid).bind(name).bind(owner).bind(now()).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// All groups, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn groups(&self) -> Result<Vec<GroupRow>, StoreError> {
        with!(self, pool => Ok(sqlx::query_as(select!("ORDER BY name")).fetch_all(pool).await?))
    }

    /// The group of this guid or name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn group(&self, guid_or_name: &str) -> Result<Option<GroupRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!("WHERE guid = $1 OR name = $1 ORDER BY guid = $1 DESC LIMIT 1"))
                .bind(guid_or_name).fetch_optional(pool).await?
        ))
    }

    /// Gives a group another name. Whether there is one.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is another one of this name.
    pub async fn rename_group(&self, id: i64, name: &str, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let changed = sqlx::query("UPDATE team SET name = $2 WHERE id = $1")
                .bind(id).bind(name).execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Removes a group and what it was allowed. Whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_group(&self, id: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            for of in [
                "DELETE FROM member WHERE team_id = $1",
                "DELETE FROM permission WHERE kind = 'group' AND principal = (SELECT guid FROM team WHERE id = $1)",
            ] {
                sqlx::query(of).bind(id).execute(&mut *tx).await?;
            }
            let gone =
                sqlx::query("DELETE FROM team WHERE id = $1").bind(id).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// Guids of the users of a group.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn members(&self, group: i64) -> Result<Vec<User>, StoreError> {
        let ids: Vec<i64> = with!(self, pool => Ok(
            sqlx::query_scalar("SELECT account_id FROM member WHERE team_id = $1").bind(group).fetch_all(pool).await?
        ))?;
        let ids: HashSet<i64> = ids.into_iter().collect();
        Ok(self.users().await?.into_iter().filter(|user| ids.contains(&user.id)).collect())
    }

    /// Who is in which group: ids of groups and of users.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn memberships(&self) -> Result<Vec<(i64, i64)>, StoreError> {
        with!(self, pool => Ok(sqlx::query_as("SELECT team_id, account_id FROM member").fetch_all(pool).await?))
    }

    /// Adds a user to a group, or takes them out. Whether that changed something.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_member(&self, group: i64, user: i64, is_member: bool, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let sql = if is_member {
                "INSERT INTO member (team_id, account_id) VALUES ($1, $2) ON CONFLICT (team_id, account_id) DO NOTHING"
            } else {
                "DELETE FROM member WHERE team_id = $1 AND account_id = $2"
            };
            let changed = sqlx::query(sql).bind(group).bind(user).execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Guids and names of the groups a user is in, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn groups_of(&self, user: i64) -> Result<Vec<(String, String)>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT guid, name FROM team JOIN member ON team_id = team.id WHERE account_id = $1 ORDER BY name",
            )
            .bind(user).fetch_all(pool).await?
        ))
    }
}
