//! Projects and their files.

use super::audit::{Deed, record};
use super::garbage::spare;
use super::{Store, StoreError, new_id, now, with, within};

/// What a source's repositories show has changed.
macro_rules! bump {
    ($tx:ident, $source:expr) => {
        sqlx::query(
            "UPDATE repository SET generation = generation + 1
             WHERE id IN (SELECT repository_id FROM subscription WHERE source_id = $1)",
        )
        .bind($source)
        .execute(&mut *$tx)
        .await?
    };
}
pub(super) use bump;

/// A project of a source.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Project {
    /// Of its row.
    pub id: i64,
    /// As its publisher writes it.
    pub name: String,
    /// PEP 503's form of the name.
    pub normal_name: String,
    /// PEP 792: `active`, `archived`, `quarantined`, `deprecated`.
    pub status: String,
    /// Why, for people.
    pub status_reason: Option<String>,
}

/// A project, and how far behind in a repository.
#[derive(sqlx::FromRow)]
struct ProjectAt {
    #[sqlx(flatten)]
    project: Project,
    position: i64,
}

/// All that is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Told {
    /// See [`PackageFile`], as what is not told of here.
    pub filename: String,
    /// See [`PackageFile`].
    pub version: String,
    /// `bdist_wheel` or `sdist`.
    pub kind: String,
    /// Bytes.
    pub size: i64,
    /// Hexadecimal, as all digests.
    pub sha256: String,
    /// See `sha256`.
    pub md5: String,
    /// BLAKE2b-256.
    pub blake2: String,
    /// PEP 345.
    pub requires_python: Option<String>,
    /// See [`PackageFile`].
    pub metadata_sha256: Option<String>,
    /// Of the provenance object's blob (PEP 740).
    pub provenance_sha256: Option<String>,
    /// PEP 592.
    pub yanked: Option<String>,
    /// Microseconds since 1970.
    pub uploaded_at: i64,
    /// Core metadata by PyPI's names, JSON.
    pub record: String,
}

/// A file that can be installed.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PackageFile {
    /// Unique in its source.
    pub filename: String,
    /// Of the release it belongs to, as published.
    pub version: String,
    /// Bytes; `None`: another index does not tell.
    pub size: Option<i64>,
    /// Of its bytes, hexadecimal.
    pub sha256: String,
    /// PEP 345's `Requires-Python`.
    pub requires_python: Option<String>,
    /// Of its core metadata, hexadecimal; `None`: it has none that is served.
    pub metadata_sha256: Option<String>,
    /// PEP 592: `Some`: yanked, for this reason, which may be empty.
    pub yanked: Option<String>,
    /// Microseconds since 1970; `None`: another index does not tell.
    pub uploaded_at: Option<i64>,
    /// Its publisher told where it comes from (PEP 740).
    pub has_provenance: bool,
}

/// A file that is to be published; its blobs are stored already.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// The source it goes to.
    pub source_id: i64,
    /// The project's name as written, and PEP 503's form of it.
    pub project: (&'a str, &'a str),
    /// The file's name.
    pub filename: &'a str,
    /// Of the release.
    pub version: &'a str,
    /// `bdist_wheel` or `sdist`.
    pub kind: &'a str,
    /// Bytes.
    pub size: i64,
    /// Hexadecimal digests of its bytes.
    pub sha256: &'a str,
    /// See `sha256`.
    pub md5: &'a str,
    /// See `sha256`.
    pub blake2: &'a str,
    /// `Requires-Python`.
    pub requires_python: Option<&'a str>,
    /// SHA-256 of the core metadata's blob.
    pub metadata_sha256: Option<&'a str>,
    /// SHA-256 of the blob that tells where it comes from (PEP 740).
    pub provenance_sha256: Option<&'a str>,
    /// `''`, or where in a CRAN tree.
    pub location: &'a str,
    /// What its publisher says of it, JSON.
    pub record: &'a str,
}

/// How a publication ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The file is there now.
    New,
    /// The same bytes were there already under this name: nothing was done.
    Same,
    /// Other bytes have, or had, this name.
    Conflict,
    /// The project takes no files; its status says why.
    Closed(String),
}

impl Store {
    /// The projects a repository shows, by normal name: of each name that of the first source that has it.
    ///
    /// `as_of`: microseconds since 1970; what came later is left out.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn projects(&self, repository: i64, as_of: i64) -> Result<Vec<Project>, StoreError> {
        let mut rows: Vec<(Project, i64)> = with!(self, pool => {
            let rows: Vec<ProjectAt> = sqlx::query_as(
                "SELECT p.id, p.name, p.normal_name, p.status, p.status_reason, u.position
                 FROM project p JOIN subscription u ON u.source_id = p.source_id
                 WHERE u.repository_id = $1 AND p.status <> 'quarantined' AND p.created_at < $2",
            )
            .bind(repository).bind(as_of).fetch_all(pool).await?;
            Ok(rows.into_iter().map(|row| (row.project, row.position)).collect())
        })?;
        // By bytes, whatever order the database's language has.
        rows.sort_by(|(a, a_at), (b, b_at)| (&a.normal_name, a_at).cmp(&(&b.normal_name, b_at)));
        rows.dedup_by(|(later, _), (first, _)| later.normal_name == first.normal_name);
        Ok(rows.into_iter().map(|(project, _)| project).collect())
    }

    /// A project and its files, oldest first. The first source that has the name decides: no file of a later one is mixed
    /// in, so that nobody outside can add a version to a name of ours.
    ///
    /// `as_of`: see [`Self::projects`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn project(
        &self,
        repository: i64,
        normal_name: &str,
        as_of: i64,
    ) -> Result<Option<(Project, Vec<PackageFile>)>, StoreError> {
        with!(self, pool => {
            let project: Option<Project> = sqlx::query_as(
                "SELECT p.id, p.name, p.normal_name, p.status, p.status_reason
                 FROM project p JOIN subscription u ON u.source_id = p.source_id
                 WHERE u.repository_id = $1 AND p.normal_name = $2 AND p.created_at < $3
                 ORDER BY u.position LIMIT 1",
            )
            .bind(repository).bind(normal_name).bind(as_of).fetch_optional(pool).await?;
            let Some(project) = project else { return Ok(None) };
            let files = sqlx::query_as(
                "SELECT filename, version, size, sha256, requires_python, metadata_sha256,
                        CASE WHEN yanked_at < $2 THEN yanked END AS yanked, uploaded_at,
                        provenance_sha256 IS NOT NULL AS has_provenance
                 FROM file WHERE project_id = $1 AND removed_at IS NULL AND uploaded_at < $2
                 ORDER BY uploaded_at, filename",
            )
            .bind(project.id).bind(as_of).fetch_all(pool).await?;
            Ok(Some((project, files)))
        })
    }

    /// What publishers said of the files of a project that [`Self::project`] gave, in the same order.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn told(&self, project: i64) -> Result<Vec<Told>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT filename, version, kind, size, sha256, md5, blake2, requires_python, metadata_sha256,
                        provenance_sha256, yanked, uploaded_at, record
                 FROM file WHERE project_id = $1 AND removed_at IS NULL ORDER BY uploaded_at, filename",
            )
            .bind(project).fetch_all(pool).await?
        ))
    }

    /// Publishes a file whose blobs are stored, all in one transaction. Idempotent. `anew`: since when they were stored again, by
    /// [`Self::clock`], after [`StoreError::Deleted`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn publish(&self, file: &NewFile<'_>, anew: Option<i64>, by: &Deed<'_>) -> Result<Published, StoreError> {
        let at = now();
        let blobs = [Some(file.sha256), file.metadata_sha256, file.provenance_sha256];
        within!(self, tx => async {
            spare!(self, tx, &blobs, anew);
            sqlx::query(
                "INSERT INTO project (id, source_id, normal_name, name, status, created_at)
                 VALUES ($1, $2, $3, $4, 'active', $5) ON CONFLICT (source_id, normal_name) DO NOTHING",
            )
            .bind(new_id()).bind(file.source_id).bind(file.project.1).bind(file.project.0).bind(at)
            .execute(&mut *tx).await?;
            let (project, status): (i64, String) =
                sqlx::query_as("SELECT id, status FROM project WHERE source_id = $1 AND normal_name = $2")
                    .bind(file.source_id).bind(file.project.1).fetch_one(&mut *tx).await?;
            let inserted = if matches!(status.as_str(), "active" | "deprecated") {
                sqlx::query(
                    "INSERT INTO file (id, project_id, source_id, location, filename, version, kind, size, sha256, md5, blake2,
                                       requires_python, metadata_sha256, provenance_sha256, record, uploaded_at, uploaded_by)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
                     ON CONFLICT (source_id, location, filename) DO NOTHING",
                )
                .bind(new_id()).bind(project).bind(file.source_id).bind(file.location).bind(file.filename)
                .bind(file.version).bind(file.kind).bind(file.size).bind(file.sha256).bind(file.md5).bind(file.blake2)
                .bind(file.requires_python).bind(file.metadata_sha256).bind(file.provenance_sha256).bind(file.record)
                .bind(at).bind(by.who)
                .execute(&mut *tx).await?.rows_affected()
            } else {
                0
            };
            if inserted == 1 {
                bump!(tx, file.source_id);
                record!(&mut *tx, by)?;
                Ok::<_, StoreError>(Published::New)
            } else if !matches!(status.as_str(), "active" | "deprecated") {
                Ok(Published::Closed(status))
            } else {
                let there: (String, Option<i64>) =
                    sqlx::query_as("SELECT sha256, removed_at FROM file WHERE source_id = $1 AND location = $2 AND filename = $3")
                        .bind(file.source_id).bind(file.location).bind(file.filename).fetch_one(&mut *tx).await?;
                let is_same = there.0 == file.sha256 && there.1.is_none();
                Ok(if is_same { Published::Same } else { Published::Conflict })
            }
        }.await)
    }
}

/// What serving a file needs to know.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct KnownFile {
    /// SHA-256 of its core metadata's blob.
    pub metadata_sha256: Option<String>,
}

impl Store {
    /// Whether a source of ours ever had a project, shown or not: then nobody else is asked for it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn owns(&self, repository: i64, normal_name: &str) -> Result<bool, StoreError> {
        let found: i64 = with!(self, pool => Ok(
            sqlx::query_scalar(
                "SELECT COUNT(*) FROM project p JOIN subscription u ON u.source_id = p.source_id
                 WHERE u.repository_id = $1 AND p.normal_name = $2",
            )
            .bind(repository).bind(normal_name).fetch_one(pool).await?
        ))?;
        Ok(found > 0)
    }

    /// A file that a repository shows, by digest and name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn file(&self, repository: i64, sha256: &str, filename: &str) -> Result<Option<KnownFile>, StoreError> {
        with!(self, pool => Ok(sqlx::query_as(
            "SELECT f.metadata_sha256
             FROM file f JOIN project p ON p.id = f.project_id JOIN subscription u ON u.source_id = f.source_id
             WHERE f.sha256 = $1 AND f.filename = $2 AND f.removed_at IS NULL AND p.status <> 'quarantined'
                   AND u.repository_id = $3",
        )
        .bind(sha256).bind(filename).bind(repository).fetch_optional(pool).await?))
    }
}

/// A project as it is managed.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow, serde::Serialize)]
pub struct ProjectRow {
    /// As its publisher writes it.
    pub name: String,
    /// See [`Project::status`].
    pub status: String,
    /// Files that are shown.
    pub files: i64,
    /// Microseconds since 1970; `None` without files.
    pub last_upload_at: Option<i64>,
}

/// A file as it is managed.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow, serde::Serialize)]
pub struct FileRow {
    /// Unique in its source and location.
    pub filename: String,
    /// `''`, or where in a CRAN tree.
    pub location: String,
    /// Of the release.
    pub version: String,
    /// Bytes.
    pub size: i64,
    /// Hexadecimal.
    pub sha256: String,
    /// PEP 592.
    pub yanked: Option<String>,
    /// Microseconds since 1970.
    pub archived_at: Option<i64>,
    /// Microseconds since 1970.
    pub uploaded_at: i64,
    /// Name of the key.
    pub uploaded_by: String,
}

/// Files of a project.
#[derive(Clone, Copy, Debug)]
pub struct Which<'a> {
    /// The source they are in.
    pub source: i64,
    /// As looked up.
    pub normal_name: &'a str,
    /// `None`: of every release.
    pub version: Option<&'a str>,
    /// `None`: every file.
    pub filename: Option<&'a str>,
}

/// What is done to files: `SET` and a condition, with the time as `$5` and a text as `$6`.
macro_rules! change_files {
    ($store:expr, $which:expr, $by:expr, $text:expr, $set:literal) => {{
        let (which, at) = ($which, now());
        within!($store, tx => async {
            let changed = sqlx::query(concat!(
                "UPDATE file SET ", $set, " AND source_id = $1 AND removed_at IS NULL
                 AND project_id IN (SELECT id FROM project WHERE source_id = $1 AND normal_name = $2)
                 AND ($3 IS NULL OR version = $3) AND ($4 IS NULL OR filename = $4)
                 AND $5 > 0 AND ($6 IS NULL OR $6 = $6)"
            ))
            .bind(which.source).bind(which.normal_name).bind(which.version).bind(which.filename).bind(at)
            .bind::<Option<&str>>($text)
            .execute(&mut *tx).await?.rows_affected();
            if changed > 0 {
                bump!(tx, which.source);
                record!(&mut *tx, $by)?;
            }
            Ok::<_, StoreError>(changed)
        }.await)
    }};
}

impl Store {
    /// The projects of a source, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn projects_of(&self, source: i64) -> Result<Vec<ProjectRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT p.name, p.status, COUNT(f.id) AS files, MAX(f.uploaded_at) AS last_upload_at
                 FROM project p LEFT JOIN file f ON f.project_id = p.id AND f.removed_at IS NULL
                 WHERE p.source_id = $1 GROUP BY p.id, p.name, p.status, p.normal_name ORDER BY p.normal_name",
            )
            .bind(source).fetch_all(pool).await?
        ))
    }

    /// A project of a source with all its files, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn project_of(
        &self,
        source: i64,
        normal_name: &str,
    ) -> Result<Option<(Project, Vec<FileRow>)>, StoreError> {
        with!(self, pool => {
            let project: Option<Project> = sqlx::query_as(
                "SELECT id, name, normal_name, status, status_reason FROM project
                 WHERE source_id = $1 AND normal_name = $2",
            )
            .bind(source).bind(normal_name).fetch_optional(pool).await?;
            let Some(project) = project else { return Ok(None) };
            let files = sqlx::query_as(
                "SELECT filename, location, version, size, sha256, yanked, archived_at, uploaded_at, uploaded_by
                 FROM file WHERE project_id = $1 AND removed_at IS NULL ORDER BY uploaded_at, location, filename",
            )
            .bind(project.id).fetch_all(pool).await?;
            Ok(Some((project, files)))
        })
    }

    /// Yanks files, for a reason that may be empty (PEP 592). How many there were.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn yank(&self, which: Which<'_>, reason: &str, by: &Deed<'_>) -> Result<u64, StoreError> {
        change_files!(self, which, by, Some(reason), "yanked = $6, yanked_at = $5 WHERE yanked IS NULL")
    }

    /// Takes that back.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unyank(&self, which: Which<'_>, by: &Deed<'_>) -> Result<u64, StoreError> {
        change_files!(self, which, by, None, "yanked = NULL, yanked_at = NULL WHERE yanked IS NOT NULL")
    }

    /// Moves files into CRAN's Archive. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn archive(&self, which: Which<'_>, by: &Deed<'_>) -> Result<u64, StoreError> {
        change_files!(self, which, by, None, "archived_at = $5 WHERE archived_at IS NULL")
    }

    /// Takes that back.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unarchive(&self, which: Which<'_>, by: &Deed<'_>) -> Result<u64, StoreError> {
        change_files!(self, which, by, None, "archived_at = NULL WHERE archived_at IS NOT NULL")
    }

    /// Removes files, from snapshots too. Their names are never given to other bytes. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove(&self, which: Which<'_>, by: &Deed<'_>) -> Result<u64, StoreError> {
        change_files!(self, which, by, None, "removed_at = $5 WHERE removed_at IS NULL")
    }

    /// Gives a project a status (PEP 792). Whether there is one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_status(
        &self,
        source: i64,
        normal_name: &str,
        status: &str,
        reason: Option<&str>,
        by: &Deed<'_>,
    ) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let changed = sqlx::query(
                "UPDATE project SET status = $3, status_reason = $4 WHERE source_id = $1 AND normal_name = $2",
            )
            .bind(source).bind(normal_name).bind(status).bind(reason).execute(&mut *tx).await?.rows_affected();
            if changed > 0 {
                bump!(tx, source);
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(changed > 0)
        }.await)
    }
}
