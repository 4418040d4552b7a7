//! Repositories, and the sources they show.

use super::audit::{Deed, record};
use super::{Store, StoreError, new_id, now, with, within};

/// Whose packages a repository has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// PyPI's protocols.
    Python,
    /// CRAN's.
    R,
}

impl Language {
    /// As rows and commands write it: the name of the public index.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "pypi",
            Self::R => "cran",
        }
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Python, Self::R].into_iter().find(|language| language.as_str() == text)
    }
}

/// A repository as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Of its row.
    pub id: i64,
    /// In URLs.
    pub name: String,
    /// Which protocols it speaks.
    pub language: Language,
    /// Anybody may install from it.
    pub anonymous_read: bool,
    /// One more with every change of what it shows.
    pub generation: i64,
    /// Where uploads go: its first local source.
    pub upload_source: Option<i64>,
}

impl Store {
    /// Makes a repository with a local source of the same name.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of this name.
    pub async fn create_repository(
        &self,
        name: &str,
        language: Language,
        anonymous_read: bool,
        by: &Deed<'_>,
    ) -> Result<(), StoreError> {
        let (repository, source, at) = (new_id(), new_id(), now());
        within!(self, tx => {
            sqlx::query(
                "INSERT INTO repository (id, name, language, anonymous_read, generation, created_at)
                 VALUES ($1, $2, $3, $4, 1, $5)",
            )
            .bind(repository).bind(name).bind(language.as_str()).bind(anonymous_read).bind(at)
            .execute(&mut *tx).await?;
            sqlx::query("INSERT INTO source (id, name, language, kind, created_at) VALUES ($1, $2, $3, 'local', $4)")
                .bind(source).bind(name).bind(language.as_str()).bind(at).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO subscription (repository_id, source_id, position) VALUES ($1, $2, 0)")
                .bind(repository).bind(source).execute(&mut *tx).await?;
            record!(&mut *tx, by).map(drop)
        })
    }

    /// Every repository, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let rows: Vec<(i64, String, String, bool, i64, Option<i64>)> = with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT r.id, r.name, r.language, r.anonymous_read, r.generation,
                        (SELECT s.id FROM subscription u JOIN source s ON s.id = u.source_id
                         WHERE u.repository_id = r.id AND s.kind = 'local' ORDER BY u.position LIMIT 1)
                 FROM repository r ORDER BY r.name",
            )
            .fetch_all(pool).await?
        ))?;
        // One of a language this program does not know is a newer program's business.
        let known = rows.into_iter().filter_map(|(id, name, language, anonymous_read, generation, upload_source)| {
            let language = Language::parse(&language)?;
            Some(Repository { id, name, language, anonymous_read, generation, upload_source })
        });
        Ok(known.collect())
    }
}
