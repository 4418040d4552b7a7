//! What a repository shows of R packages.

use super::{DAY, Store, StoreError, with};

/// A file of an R package.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RFile {
    /// Its package.
    pub package: String,
    /// As published.
    pub version: String,
    /// Unique in its source and location.
    pub filename: String,
    /// Bytes.
    pub size: i64,
    /// Hexadecimal digests of its bytes.
    pub sha256: String,
    /// See `sha256`.
    pub md5: String,
    /// What PACKAGES says of it, JSON.
    pub record: String,
    /// Microseconds since 1970.
    pub uploaded_at: i64,
    /// It is in the Archive, whatever its version.
    pub is_archived: bool,
    /// Which of the repository's sources it is from: the first that has a package decides.
    pub position: i64,
}

impl Store {
    /// The files a repository shows in these two locations (of which one may be told twice), by package, as of a moment in
    /// microseconds since 1970: what came later is left out.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn r_files(&self, repository: i64, locations: [&str; 2], as_of: i64) -> Result<Vec<RFile>, StoreError> {
        let mut files: Vec<RFile> = with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT p.name AS package, f.version, f.filename, f.size, f.sha256, f.md5, f.record, f.uploaded_at,
                        (f.archived_at IS NOT NULL AND f.archived_at < $4) AS is_archived, u.position
                 FROM file f JOIN project p ON p.id = f.project_id JOIN subscription u ON u.source_id = f.source_id
                 WHERE u.repository_id = $1 AND (f.location = $2 OR f.location = $3) AND f.uploaded_at < $4
                       AND f.removed_at IS NULL AND p.status <> 'quarantined'",
            )
            .bind(repository).bind(locations[0]).bind(locations[1]).bind(as_of).fetch_all(pool).await?
        ))?;
        // By bytes, whatever order the database's language has.
        files.sort_by(|a, b| (&a.package, a.position, &a.filename).cmp(&(&b.package, b.position, &b.filename)));
        let mut first: Option<(String, i64)> = None;
        files.retain(|file| {
            let is_next = first.as_ref().is_none_or(|(package, _)| *package != file.package);
            if is_next {
                first = Some((file.package.clone(), file.position));
            }
            first.as_ref().is_some_and(|(_, position)| *position == file.position)
        });
        Ok(files)
    }

    /// Days since 1970 (UTC) on which something came to what a repository shows, or went to its Archive; the first first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn r_days(&self, repository: i64) -> Result<Vec<i64>, StoreError> {
        let mut days: Vec<i64> = with!(self, pool => Ok(
            sqlx::query_scalar(
                "SELECT f.uploaded_at / $2 FROM file f JOIN subscription u ON u.source_id = f.source_id
                 WHERE u.repository_id = $1 AND f.removed_at IS NULL
                 UNION
                 SELECT f.archived_at / $2 FROM file f JOIN subscription u ON u.source_id = f.source_id
                 WHERE u.repository_id = $1 AND f.removed_at IS NULL AND f.archived_at IS NOT NULL",
            )
            .bind(repository).bind(DAY).fetch_all(pool).await?
        ))?;
        days.sort_unstable();
        Ok(days)
    }

    /// Every package that a source of this repository ever had, shown or not.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn r_packages(&self, repository: i64) -> Result<Vec<String>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar(
                "SELECT DISTINCT p.name FROM project p JOIN subscription u ON u.source_id = p.source_id
                 WHERE u.repository_id = $1",
            )
            .bind(repository).fetch_all(pool).await?
        ))
    }

    /// Every location that has a file, of all repositories.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn locations(&self) -> Result<Vec<String>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar("SELECT DISTINCT location FROM file WHERE removed_at IS NULL AND location <> ''")
                .fetch_all(pool).await?
        ))
    }
}
