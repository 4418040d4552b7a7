//! How often files were downloaded.

use super::{Store, StoreError, with, within};

/// Downloads to be added.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Downloads {
    /// Of the repository's row.
    pub repository: i64,
    /// Since 1970, UTC.
    pub day: i64,
    /// As looked up.
    pub package: String,
    /// As in the file's name.
    pub version: String,
    /// `pip`, `R`, …
    pub client: &'static str,
    /// How many.
    pub count: i64,
}

/// What a sum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Each day.
    Day,
    /// Each package.
    Package,
    /// Each version.
    Version,
    /// Each kind of client.
    Client,
}

impl By {
    /// Reads what somebody wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "day" => Self::Day,
            "package" => Self::Package,
            "version" => Self::Version,
            "client" => Self::Client,
            _ => return None,
        })
    }

    fn column(self) -> &'static str {
        match self {
            Self::Day => "CAST(day AS TEXT)",
            Self::Package => "package",
            Self::Version => "version",
            Self::Client => "client",
        }
    }
}

impl Store {
    /// Adds downloads.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was added.
    pub async fn add_downloads(&self, downloads: &[Downloads]) -> Result<(), StoreError> {
        within!(self, tx => async {
            for one in downloads {
                sqlx::query(
                    "INSERT INTO download (repository_id, day, package, version, client, count)
                     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (repository_id, day, package, version, client)
                     DO UPDATE SET count = download.count + excluded.count",
                )
                .bind(one.repository).bind(one.day).bind(&one.package).bind(&one.version).bind(one.client)
                .bind(one.count).execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Downloads of a repository since a day, of one package or all; most first, days in their order.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn downloads(
        &self,
        repository: i64,
        package: Option<&str>,
        since: i64,
        by: By,
        limit: i64,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let (column, order) = (by.column(), if by == By::Day { "1" } else { "2 DESC, 1" });
        let sql = format!(
            "SELECT {column}, CAST(SUM(count) AS BIGINT) FROM download
             WHERE repository_id = $1 AND day >= $2 AND ($3 IS NULL OR package = $3)
             GROUP BY 1 ORDER BY {order} LIMIT $4"
        );
        with!(self, pool => Ok(
            sqlx::query_as(sqlx::AssertSqlSafe(&*sql))
                .bind(repository).bind(since).bind(package).bind(limit).fetch_all(pool).await?
        ))
    }

    /// Forgets downloads before a day.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_downloads(&self, before: i64) -> Result<(), StoreError> {
        with!(self, pool => {
            sqlx::query("DELETE FROM download WHERE day < $1").bind(before).execute(pool).await?;
            Ok(())
        })
    }
}
