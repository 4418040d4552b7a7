//! Who may see or change content beside its owner, and where it is beside its guid.

use super::audit::{Deed, record};
use super::{Store, StoreError, new_id, now, with, within};

/// What somebody is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// A group; else a user.
    pub is_group: bool,
    /// To change it too.
    pub may_change: bool,
    /// Guid.
    pub principal: String,
}

/// Everything that is allowed of one content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub Vec<Grant>);

impl From<Option<String>> for Grants {
    /// `KIND ROLE GUID;…`. What a newer program wrote allows nothing here.
    fn from(text: Option<String>) -> Self {
        let read = |one: &str| {
            let mut words = one.split(' ');
            let (kind, role, principal) = (words.next()?, words.next()?, words.next()?);
            let is_known = ["user", "group"].contains(&kind) && ["viewer", "owner"].contains(&role);
            is_known.then(|| Grant {
                is_group: kind == "group",
                may_change: role == "owner",
                principal: principal.to_owned(),
            })
        };
        Self(text.unwrap_or_default().split(';').filter_map(read).collect())
    }
}

/// A permission as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PermissionRow {
    /// Of its row.
    pub id: i64,
    /// `user`, `group`.
    pub kind: String,
    /// Guid.
    pub principal: String,
    /// `viewer`, `owner`.
    pub role: String,
    /// What they are called; `None`: they are gone.
    pub name: Option<String>,
}

/// Where content is beside its guid.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct VanityRow {
    /// With both slashes.
    pub path: String,
    /// Of the content.
    pub guid: String,
    /// Microseconds since 1970.
    pub created_at: i64,
}

impl Store {
    /// Who else may see or change content, users first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn permissions(&self, content: i64) -> Result<Vec<PermissionRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT p.id AS id, kind, principal, p.role AS role, COALESCE(u.username, t.name) AS name FROM permission p
                 LEFT JOIN account u ON kind = 'user' AND u.guid = principal
                 LEFT JOIN team t ON kind = 'group' AND t.guid = principal
                 WHERE content_id = $1 ORDER BY kind DESC, name, p.id",
            )
            .bind(content).fetch_all(pool).await?
        ))
    }

    /// Allows somebody something; what they were allowed is replaced. The row's id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn grant(
        &self,
        content: i64,
        kind: &str,
        principal: &str,
        role: &str,
        by: &Deed<'_>,
    ) -> Result<i64, StoreError> {
        within!(self, tx => async {
            let id = sqlx::query_scalar(
                "INSERT INTO permission (id, content_id, kind, principal, role) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (content_id, kind, principal) DO UPDATE SET role = excluded.role RETURNING id",
            )
            .bind(new_id()).bind(content).bind(kind).bind(principal).bind(role).fetch_one(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(id)
        }.await)
    }

    /// Takes a permission away. Whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn ungrant(&self, content: i64, id: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let gone = sqlx::query("DELETE FROM permission WHERE id = $1 AND content_id = $2")
                .bind(id).bind(content).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// All paths that are content.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn vanities(&self) -> Result<Vec<VanityRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT path, guid, vanity.created_at AS created_at FROM vanity JOIN content ON content.id = content_id",
            )
            .fetch_all(pool).await?
        ))
    }

    /// Gives content a path, and takes it from others that have it where `takes`.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: other content has it, or one above or below.
    pub async fn set_vanity(&self, content: i64, path: &str, takes: bool, by: &Deed<'_>) -> Result<(), StoreError> {
        let at = now();
        within!(self, tx => async {
            // Two that are set at once wait for one another here, so that neither comes to be below the other.
            sqlx::query("UPDATE counter SET last = last WHERE name = 'content'").execute(&mut *tx).await?;
            let all: Vec<(String, i64)> =
                sqlx::query_as("SELECT path, content_id FROM vanity").fetch_all(&mut *tx).await?;
            for (other, owner) in all.iter().filter(|(_, owner)| *owner != content) {
                let (a, b) = (other.to_ascii_lowercase(), path.to_ascii_lowercase());
                if a == b && takes {
                    sqlx::query("DELETE FROM vanity WHERE content_id = $1").bind(owner).execute(&mut *tx).await?;
                    sqlx::query("UPDATE content SET generation = generation + 1, updated_at = $2 WHERE id = $1")
                        .bind(owner).bind(at).execute(&mut *tx).await?;
                } else if a.starts_with(&b) || b.starts_with(&a) {
                    return Err(StoreError::Taken);
                }
            }
            sqlx::query(
                "INSERT INTO vanity (path, content_id, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (content_id) DO UPDATE SET path = excluded.path, created_at = excluded.created_at",
            )
            .bind(path).bind(content).bind(at).execute(&mut *tx).await?;
            // Its processes are told the path they are at.
            sqlx::query("UPDATE content SET generation = generation + 1, updated_at = $2 WHERE id = $1")
                .bind(content).bind(at).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Takes content's path away. Whether it had one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_vanity(&self, content: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let gone = sqlx::query("DELETE FROM vanity WHERE content_id = $1")
                .bind(content).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                sqlx::query("UPDATE content SET generation = generation + 1, updated_at = $2 WHERE id = $1")
                    .bind(content).bind(now()).execute(&mut *tx).await?;
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }
}
