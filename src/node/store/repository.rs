//! Repositories, and the sources they show.

use std::sync::Arc;

use super::audit::{Deed, record};
use super::package::bump;
use super::{Block, Store, StoreError, new_id, now, with, within};

/// Subscribes a repository to sources by name, in their order.
macro_rules! subscribe {
    ($tx:ident, $repository:expr, $language:expr, $sources:expr) => {
        for (position, source) in $sources.iter().enumerate() {
            let subscribed = sqlx::query(
                "INSERT INTO subscription (repository_id, source_id, position)
                 SELECT $1, id, $2 FROM source WHERE name = $3 AND language = $4",
            )
            .bind($repository)
            .bind(i64::try_from(position).unwrap_or(i64::MAX))
            .bind(&**source)
            .bind($language.as_str())
            .execute(&mut *$tx)
            .await?;
            if subscribed.rows_affected() != 1 {
                return Err(StoreError::Missing);
            }
        }
    };
}

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
    /// Sources whose packages are kept here, local and git, in their order.
    pub own_sources: Vec<i64>,
    /// Other indexes that are asked for what no local source has, in this order.
    pub remotes: Vec<Arc<Remote>>,
    /// What it withholds, by package.
    pub blocks: Vec<Block>,
}

#[cfg(test)]
impl Repository {
    /// One that shows nothing.
    pub fn empty(language: Language) -> Self {
        Self {
            id: 1,
            name: "repo".to_owned(),
            language,
            anonymous_read: true,
            generation: 1,
            upload_source: None,
            own_sources: Vec::new(),
            remotes: Vec::new(),
            blocks: Vec::new(),
        }
    }
}

/// Another index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Of its source's row.
    pub id: i64,
    /// Of the source.
    pub name: String,
    /// The simple repository API, or a CRAN-like repository; with a slash at the end.
    pub url: String,
    /// What it said before this moment, microseconds since 1970, is asked again.
    pub synced_at: i64,
    /// The only packages it is asked for, as looked up, in order; `None`: all.
    pub allow: Option<Vec<String>>,
}

impl Remote {
    /// Whether it may be asked for a package. `package`: as looked up.
    pub fn allows(&self, package: &str) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.binary_search_by(|allowed| (**allowed).cmp(package)).is_ok())
    }
}

/// What a repository shows: one source after the other.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Source {
    /// Of its row.
    pub id: i64,
    /// Unique.
    pub name: String,
    /// Language of its packages: see [`Language::as_str`].
    pub language: String,
    /// `local`, `remote`, `git`.
    pub kind: String,
    /// What its kind needs, JSON.
    pub settings: String,
}

impl Source {
    fn remote(&self) -> Option<Remote> {
        let settings: serde_json::Value = serde_json::from_str(&self.settings).ok()?;
        let url = settings["url"].as_str()?.to_owned();
        let synced_at = settings["synced_at"].as_i64().unwrap_or(0);
        let names =
            |list: &Vec<serde_json::Value>| list.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
        let mut allow: Option<Vec<String>> = settings["allow"].as_array().map(names);
        allow.iter_mut().for_each(|allow| allow.sort_unstable());
        Some(Remote { id: self.id, name: self.name.clone(), url, synced_at, allow })
    }
}

/// A repository and the sources it shows.
pub type Subscribed = (Repository, Vec<Source>);

impl Store {
    /// Makes a repository of these sources, in this order; without any, of a new local one of its own name.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of this name; [`StoreError::Missing`]: no such source of this language.
    pub async fn create_repository(
        &self,
        name: &str,
        language: Language,
        anonymous_read: bool,
        sources: &[String],
        by: &Deed<'_>,
    ) -> Result<(), StoreError> {
        let (repository, at) = (new_id(), now());
        within!(self, tx => async {
            sqlx::query(
                "INSERT INTO repository (id, name, language, anonymous_read, generation, created_at)
                 VALUES ($1, $2, $3, $4, 1, $5)",
            )
            .bind(repository).bind(name).bind(language.as_str()).bind(anonymous_read).bind(at)
            .execute(&mut *tx).await?;
            if sources.is_empty() {
                // Its own source may have outlived an earlier repository of this name.
                sqlx::query(
                    "INSERT INTO source (id, name, language, kind, settings, created_at)
                     VALUES ($1, $2, $3, 'local', '{}', $4) ON CONFLICT (name) DO NOTHING",
                )
                .bind(new_id()).bind(name).bind(language.as_str()).bind(at).execute(&mut *tx).await?;
                subscribe!(tx, repository, language, [name]);
            } else {
                subscribe!(tx, repository, language, sources);
            }
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Changes a repository; `None`: as it was. Whether there is one.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: no such source of its language.
    pub async fn change_repository(
        &self,
        name: &str,
        anonymous_read: Option<bool>,
        sources: Option<&[String]>,
        by: &Deed<'_>,
    ) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let found: Option<(i64, String)> =
                sqlx::query_as("SELECT id, language FROM repository WHERE name = $1")
                    .bind(name).fetch_optional(&mut *tx).await?;
            let Some((id, language)) = found else { return Ok(false) };
            let language = Language::parse(&language).ok_or(StoreError::Missing)?;
            sqlx::query(
                "UPDATE repository SET anonymous_read = COALESCE($2, anonymous_read), generation = generation + 1
                 WHERE id = $1",
            )
            .bind(id).bind(anonymous_read).execute(&mut *tx).await?;
            if let Some(sources) = sources {
                sqlx::query("DELETE FROM subscription WHERE repository_id = $1").bind(id).execute(&mut *tx).await?;
                subscribe!(tx, id, language, sources);
            }
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(true)
        }.await)
    }

    /// Takes a repository away; its sources and their packages stay. Whether there was one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_repository(&self, name: &str, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            sqlx::query(
                "DELETE FROM subscription WHERE repository_id IN (SELECT id FROM repository WHERE name = $1)",
            )
            .bind(name).execute(&mut *tx).await?;
            sqlx::query("DELETE FROM block WHERE repository_id IN (SELECT id FROM repository WHERE name = $1)")
                .bind(name).execute(&mut *tx).await?;
            let gone = sqlx::query("DELETE FROM repository WHERE name = $1").bind(name).execute(&mut *tx).await?;
            if gone.rows_affected() == 1 {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone.rows_affected() == 1)
        }.await)
    }

    /// Every repository with its sources, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn repositories(&self) -> Result<Vec<Subscribed>, StoreError> {
        type Row = (i64, String, String, bool, i64);
        type Shown = (i64, i64, String, String, String, String);
        type Withheld = (i64, String, String, String);
        let (rows, sources, blocks): (Vec<Row>, Vec<Shown>, Vec<Withheld>) = with!(self, pool => Ok((
            sqlx::query_as("SELECT id, name, language, anonymous_read, generation FROM repository").fetch_all(pool).await?,
            sqlx::query_as(
                "SELECT u.repository_id, s.id, s.name, s.language, s.kind, s.settings
                 FROM subscription u JOIN source s ON s.id = u.source_id ORDER BY u.repository_id, u.position",
            )
            .fetch_all(pool).await?,
            sqlx::query_as("SELECT repository_id, package, versions, reason FROM block")
                .fetch_all(pool).await?,
        )))?;
        // One of a language this program does not know is a newer program's business.
        let known = rows.into_iter().filter_map(|(id, name, language, anonymous_read, generation)| {
            let language = Language::parse(&language)?;
            let of = sources.iter().filter(|source| source.0 == id).cloned();
            let sources: Vec<Source> = of
                .map(|(_, id, name, language, kind, settings)| Source { id, name, language, kind, settings })
                .collect();
            let upload_source = sources.iter().find(|source| source.kind == "local").map(|source| source.id);
            let withheld = blocks.iter().filter(|block| block.0 == id).cloned();
            let mut blocks: Vec<Block> =
                withheld.map(|(_, package, versions, reason)| Block { package, versions, reason }).collect();
            // By bytes, whatever order the database's language has.
            blocks.sort_by(|a, b| (&a.package, &a.versions).cmp(&(&b.package, &b.versions)));
            let own = sources.iter().filter(|source| source.kind != "remote");
            let own_sources = own.map(|source| source.id).collect();
            let remotes = sources.iter().filter(|source| source.kind == "remote");
            let remotes = remotes.filter_map(Source::remote).map(Arc::new).collect();
            Some((
                Repository {
                    id,
                    name,
                    language,
                    anonymous_read,
                    generation,
                    upload_source,
                    own_sources,
                    remotes,
                    blocks,
                },
                sources,
            ))
        });
        let mut known: Vec<Subscribed> = known.collect();
        // By bytes, whatever order the database's language has.
        known.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        Ok(known)
    }

    /// Every source, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sources(&self) -> Result<Vec<Source>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as("SELECT id, name, language, kind, settings FROM source ORDER BY name").fetch_all(pool).await?
        ))
    }

    /// Makes a source.
    ///
    /// # Errors
    /// [`StoreError::Taken`]: there is one of this name.
    pub async fn create_source(
        &self,
        name: &str,
        language: Language,
        kind: &str,
        settings: &str,
        by: &Deed<'_>,
    ) -> Result<(), StoreError> {
        within!(self, tx => async {
            sqlx::query(
                "INSERT INTO source (id, name, language, kind, settings, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(new_id()).bind(name).bind(language.as_str()).bind(kind).bind(settings).bind(now())
            .execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Changes the packages another index may be asked for; `None`: all. Whether there is such a source.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_allowed(&self, name: &str, allow: Option<&[String]>, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let found: Option<(i64, String)> =
                sqlx::query_as("SELECT id, settings FROM source WHERE name = $1 AND kind = 'remote'")
                    .bind(name).fetch_optional(&mut *tx).await?;
            let Some((id, settings)) = found else { return Ok(false) };
            let mut settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
            settings["allow"] = serde_json::json!(allow);
            sqlx::query("UPDATE source SET settings = $2 WHERE id = $1")
                .bind(id).bind(settings.to_string()).execute(&mut *tx).await?;
            bump!(tx, id);
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(true)
        }.await)
    }

    /// Lets everything another index said be asked again. Whether there is such a source.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sync_remote(&self, name: &str, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let settings: Option<String> =
                sqlx::query_scalar("SELECT settings FROM source WHERE name = $1 AND kind = 'remote'")
                    .bind(name).fetch_optional(&mut *tx).await?;
            let Some(settings) = settings else { return Ok(false) };
            let mut settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
            settings["synced_at"] = now().into();
            sqlx::query("UPDATE source SET settings = $2 WHERE name = $1")
                .bind(name).bind(settings.to_string()).execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(true)
        }.await)
    }

    /// Takes a source away with all its packages. Whether there was one.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: a repository shows it.
    pub async fn remove_source(&self, name: &str, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let found: Option<i64> = sqlx::query_scalar("SELECT id FROM source WHERE name = $1")
                .bind(name).fetch_optional(&mut *tx).await?;
            let Some(id) = found else { return Ok(false) };
            let shown: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM subscription WHERE source_id = $1")
                .bind(id).fetch_one(&mut *tx).await?;
            if shown > 0 {
                return Err(StoreError::InUse);
            }
            for sql in [
                "DELETE FROM file WHERE source_id = $1",
                "DELETE FROM project WHERE source_id = $1",
                "DELETE FROM remote_page WHERE source_id = $1",
                "DELETE FROM remote_day WHERE source_id = $1",
                "DELETE FROM remote_file WHERE source_id = $1",
                "DELETE FROM source WHERE id = $1",
            ] {
                sqlx::query(sql).bind(id).execute(&mut *tx).await?;
            }
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(true)
        }.await)
    }
}
