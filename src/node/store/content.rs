//! What is published, and its bundles.

use super::audit::{Deed, record};
use super::garbage::spare;
use super::permission::Grants;
use super::{Store, StoreError, new_id, now, with, within};

/// Something that was published, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ContentRow {
    /// Of its row.
    pub id: i64,
    /// In URLs.
    pub guid: String,
    /// What R's clients know it by.
    pub number: i64,
    /// Guid of whose it is: a user, or a program's key.
    pub owner: String,
    /// Their user name; `None`: a program's key, or they are gone.
    pub owner_username: Option<String>,
    /// Unique among its owner's.
    pub name: String,
    /// For people; may be empty, as the description.
    pub title: String,
    /// See `title`.
    pub description: String,
    /// `all`, `logged_in`, `acl`.
    pub access: String,
    /// As manifests write it; `None`: nothing was deployed yet.
    pub app_mode: Option<String>,
    /// Number of the bundle that runs.
    pub bundle: Option<i64>,
    /// Number of the rendering that is shown, of content that is rendered.
    pub rendering: Option<i64>,
    /// How it runs, JSON.
    pub settings: String,
    /// Nobody changes it.
    pub is_locked: bool,
    /// One more with every change of what runs and how.
    pub generation: i64,
    /// Where it is beside its guid: `/sales/`.
    pub vanity: Option<String>,
    /// Who else may see or change it.
    #[sqlx(try_from = "Option<String>")]
    pub grants: Grants,
    /// Microseconds since 1970, as all that follow.
    pub created_at: i64,
    /// When something of it was last changed.
    pub updated_at: i64,
    /// When a bundle was last activated.
    pub deployed_at: Option<i64>,
}

impl ContentRow {
    /// The path its processes are told they are at: beside its guid, where it has one. Without a slash at the end.
    pub fn prefix(&self) -> String {
        match &self.vanity {
            Some(path) => path.trim_end_matches('/').to_owned(),
            None => format!("/content/{}", self.guid),
        }
    }
}

/// What was sent to be run.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct BundleRow {
    /// In URLs; in order.
    pub number: i64,
    /// Whose.
    pub content_id: i64,
    /// A blob, hexadecimal.
    pub sha256: String,
    /// Hexadecimal.
    pub md5: String,
    /// Bytes.
    pub size: i64,
    /// What runs, JSON: see `content::Manifest`.
    pub manifest: String,
    /// Where it comes from, JSON.
    pub metadata: String,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Who sent it.
    pub created_by: String,
}

/// A bundle that is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewBundle<'a> {
    /// See [`BundleRow`].
    pub content_id: i64,
    /// See [`BundleRow`].
    pub sha256: &'a str,
    /// See [`BundleRow`].
    pub md5: &'a str,
    /// See [`BundleRow`].
    pub size: i64,
    /// See [`BundleRow`].
    pub manifest: &'a str,
    /// See [`BundleRow`].
    pub metadata: &'a str,
}

/// What can be said of content.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// See [`ContentRow`].
    pub name: &'a str,
    /// See [`ContentRow`].
    pub title: &'a str,
    /// See [`ContentRow`].
    pub description: &'a str,
    /// See [`ContentRow`].
    pub access: &'a str,
    /// See [`ContentRow`].
    pub settings: &'a str,
    /// See [`ContentRow`].
    pub is_locked: bool,
}

/// What rows are read with; a macro because queries are literals.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT content.id AS id, content.guid AS guid, content.number AS number, owner, username AS owner_username, name,
             title, description, access, app_mode, bundle, rendering, settings, is_locked, generation, path AS vanity,
             (SELECT STRING_AGG(kind || ' ' || role || ' ' || principal, ';') FROM permission
              WHERE permission.content_id = content.id) AS grants,
             content.created_at AS created_at, content.updated_at AS updated_at, deployed_at
             FROM content LEFT JOIN account ON account.guid = content.owner
             LEFT JOIN vanity ON vanity.content_id = content.id ",
            $rest
        )
    };
}

/// What bundles are read with.
pub(super) const BUNDLE: &str =
    "SELECT number, content_id, sha256, md5, size, manifest, metadata, created_at, created_by FROM bundle";

impl Store {
    /// Makes content that has no bundle yet; its guid is given.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: its owner has one of this name.
    pub async fn create_content(
        &self,
        guid: &str,
        owner: &str,
        about: About<'_>,
        by: &Deed<'_>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            let number: i64 =
                sqlx::query_scalar("UPDATE counter SET last = last + 1 WHERE name = 'content' RETURNING last")
                    .fetch_one(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO content (id, guid, number, owner, name, title, description, access, settings, is_locked,
                 generation, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $11)",
            )
            .bind(new_id()).bind(guid).bind(number).bind(owner).bind(about.name).bind(about.title)
            .bind(about.description).bind(about.access).bind(about.settings).bind(about.is_locked).bind(now())
            .execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// The content of this guid.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn content(&self, guid: &str) -> Result<Option<ContentRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!("WHERE content.guid = $1")).bind(guid).fetch_optional(pool).await?
        ))
    }

    /// The content of this number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn content_numbered(&self, number: i64) -> Result<Option<ContentRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!("WHERE content.number = $1")).bind(number).fetch_optional(pool).await?
        ))
    }

    /// All content, the latest changed first; of one owner, of one name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn contents(&self, owner: Option<&str>, name: Option<&str>) -> Result<Vec<ContentRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!(
                "WHERE (CAST($1 AS TEXT) IS NULL OR owner = $1) AND (CAST($2 AS TEXT) IS NULL OR name = $2)
                 ORDER BY content.updated_at DESC, content.id"
            ))
            .bind(owner).bind(name).fetch_all(pool).await?
        ))
    }

    /// Content that was changed since, microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn contents_changed(&self, since: i64) -> Result<Vec<ContentRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(select!("WHERE content.updated_at >= $1 ORDER BY content.updated_at"))
                .bind(since).fetch_all(pool).await?
        ))
    }

    /// Which of these guids are there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn contents_there(&self, guids: &[String]) -> Result<Vec<String>, StoreError> {
        if guids.is_empty() {
            return Ok(Vec::new());
        }
        let marks: Vec<String> = (1..=guids.len()).map(|n| format!("${n}")).collect();
        let sql = format!("SELECT guid FROM content WHERE guid IN ({})", marks.join(", "));
        with!(self, pool => {
            let mut query = sqlx::query_scalar(sqlx::AssertSqlSafe(&*sql));
            for guid in guids {
                query = query.bind(guid);
            }
            Ok(query.fetch_all(pool).await?)
        })
    }

    /// Changes what is said of content whose settings are still these; what runs begins anew only if how it runs changed.
    /// Whether it is there, with those.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: its owner has another one of this name.
    pub async fn change_content(
        &self,
        id: i64,
        about: About<'_>,
        settings: &str,
        by: &Deed<'_>,
    ) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let changed = sqlx::query(
                "UPDATE content SET name = $2, title = $3, description = $4, access = $5, settings = $6,
                 is_locked = $7, generation = generation + CASE WHEN settings = $6 THEN 0 ELSE 1 END, updated_at = $8
                 WHERE id = $1 AND settings = $9",
            )
            .bind(id).bind(about.name).bind(about.title).bind(about.description).bind(about.access)
            .bind(about.settings).bind(about.is_locked).bind(now()).bind(settings)
            .execute(&mut *tx).await?.rows_affected() == 1;
            if changed {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }

    /// Removes content and everything of it. Whether it was there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_content(&self, id: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            for of in [
                "DELETE FROM bundle WHERE content_id = $1",
                "DELETE FROM variable WHERE content_id = $1",
                "DELETE FROM permission WHERE content_id = $1",
                "DELETE FROM vanity WHERE content_id = $1",
                "DELETE FROM schedule WHERE content_id = $1",
                "DELETE FROM rendering WHERE content_id = $1",
                "DELETE FROM tagged WHERE content_id = $1",
            ] {
                sqlx::query(of).bind(id).execute(&mut *tx).await?;
            }
            let gone =
                sqlx::query("DELETE FROM content WHERE id = $1").bind(id).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// Removes content that was made after a moment, microseconds since 1970, and of which nothing was said then or since: it has no
    /// bundle, title, permission, or anything else. Whether it was there and such.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_untouched(&self, id: i64, since: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let gone = sqlx::query(
                "DELETE FROM content WHERE id = $1 AND created_at > $2 AND updated_at = created_at AND title = ''
                 AND description = '' AND access = 'acl' AND settings = '{}' AND NOT is_locked
                 AND NOT EXISTS (SELECT 1 FROM bundle WHERE content_id = $1)
                 AND NOT EXISTS (SELECT 1 FROM variable WHERE content_id = $1)
                 AND NOT EXISTS (SELECT 1 FROM permission WHERE content_id = $1)
                 AND NOT EXISTS (SELECT 1 FROM vanity WHERE content_id = $1)
                 AND NOT EXISTS (SELECT 1 FROM schedule WHERE content_id = $1)
                 AND NOT EXISTS (SELECT 1 FROM tagged WHERE content_id = $1)",
            )
            .bind(id).bind(since).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// Writes down a bundle whose blob is kept; its number. `anew`: see [`Self::publish`].
    ///
    /// # Errors
    /// [`StoreError::Missing`]: there is no such content; [`StoreError::Deleted`], [`StoreError::BeingDeleted`].
    pub async fn create_bundle(
        &self,
        bundle: NewBundle<'_>,
        anew: Option<i64>,
        by: &Deed<'_>,
    ) -> Result<i64, StoreError> {
        within!(self, tx => async {
            spare!(self, tx, &[Some(bundle.sha256), None, None], anew);
            let there: Option<i64> = sqlx::query_scalar("SELECT id FROM content WHERE id = $1")
                .bind(bundle.content_id).fetch_optional(&mut *tx).await?;
            if there.is_none() {
                return Err(StoreError::Missing);
            }
            let number: i64 =
                sqlx::query_scalar("UPDATE counter SET last = last + 1 WHERE name = 'bundle' RETURNING last")
                    .fetch_one(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO bundle (number, content_id, sha256, md5, size, manifest, metadata, created_at, created_by)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(number).bind(bundle.content_id).bind(bundle.sha256).bind(bundle.md5).bind(bundle.size)
            .bind(bundle.manifest).bind(bundle.metadata).bind(now()).bind(by.who)
            .execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(number)
        }.await)
    }

    /// A bundle.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bundle(&self, number: i64) -> Result<Option<BundleRow>, StoreError> {
        let sql = format!("{BUNDLE} WHERE number = $1");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(number).fetch_optional(pool).await?))
    }

    /// Bundles of content, the latest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn bundles(&self, content: i64) -> Result<Vec<BundleRow>, StoreError> {
        let sql = format!("{BUNDLE} WHERE content_id = $1 ORDER BY number DESC");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(content).fetch_all(pool).await?))
    }

    /// Forgets a bundle that does not run. Whether it was there.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: it runs.
    pub async fn remove_bundle(&self, number: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let runs: Option<i64> = sqlx::query_scalar("SELECT id FROM content WHERE bundle = $1")
                .bind(number).fetch_optional(&mut *tx).await?;
            if runs.is_some() {
                return Err(StoreError::InUse);
            }
            let gone = sqlx::query("DELETE FROM bundle WHERE number = $1").bind(number).execute(&mut *tx).await?;
            if gone.rows_affected() == 1 {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone.rows_affected() == 1)
        }.await)
    }

    /// Lets a bundle run, or a rendering of it be shown, instead of the one that did. `wanted_at`: when somebody said so,
    /// microseconds since 1970; what was wanted before what runs comes too late. `false`: it does, or content or bundle are
    /// gone, or the content is locked.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn activate(
        &self,
        content: i64,
        bundle: i64,
        rendering: Option<i64>,
        app_mode: &str,
        wanted_at: i64,
        by: &Deed<'_>,
    ) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let done = sqlx::query(
                "UPDATE content SET bundle = $2, app_mode = $3, generation = generation + 1, deployed_at = $4,
                 updated_at = $4, wanted_at = $5, rendering = $6
                 WHERE id = $1 AND NOT is_locked AND (wanted_at IS NULL OR wanted_at <= $5) AND EXISTS (SELECT 1 FROM bundle WHERE number = $2 AND content_id = $1)
                 AND (CAST($6 AS BIGINT) IS NULL OR EXISTS (SELECT 1 FROM rendering WHERE number = $6))",
            )
            .bind(content).bind(bundle).bind(app_mode).bind(now()).bind(wanted_at).bind(rendering).execute(&mut *tx).await?.rows_affected() == 1;
            if done {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(done)
        }.await)
    }

    /// Names and sealed values of content's environment variables, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn variables(&self, content: i64) -> Result<Vec<(String, String)>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as("SELECT name, value FROM variable WHERE content_id = $1 ORDER BY name")
                .bind(content).fetch_all(pool).await?
        ))
    }

    /// Sets variables of content to sealed values, and takes those away that are `None`. `all`: those that are not named go
    /// too.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_variables(
        &self,
        content: i64,
        variables: &[(String, Option<String>)],
        all: bool,
        by: &Deed<'_>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            if all {
                sqlx::query("DELETE FROM variable WHERE content_id = $1").bind(content).execute(&mut *tx).await?;
            }
            for (name, value) in variables {
                match value {
                    Some(value) => sqlx::query(
                        "INSERT INTO variable (content_id, name, value) VALUES ($1, $2, $3)
                         ON CONFLICT (content_id, name) DO UPDATE SET value = $3",
                    )
                    .bind(content).bind(name).bind(value).execute(&mut *tx).await?,
                    None => sqlx::query("DELETE FROM variable WHERE content_id = $1 AND name = $2")
                        .bind(content).bind(name).execute(&mut *tx).await?,
                };
            }
            sqlx::query("UPDATE content SET generation = generation + 1, updated_at = $2 WHERE id = $1")
                .bind(content).bind(now()).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }
}
