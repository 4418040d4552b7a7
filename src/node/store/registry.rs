//! The registry: which nodes run, by what each says of itself every few seconds.

use std::time::Duration;

use super::{Store, StoreError, micros, now, with};

/// What a node says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    /// Of this process.
    pub id: &'a str,
    /// For people.
    pub name: &'a str,
    /// Tells machines apart.
    pub machine: &'a str,
    /// When it started, microseconds since 1970 by its own clock.
    pub started_at: i64,
    /// Anything else, JSON.
    pub report: &'a str,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct NodeRow {
    /// Of the process.
    pub id: String,
    /// For people.
    pub name: String,
    /// Tells machines apart.
    pub machine: String,
    /// Of the program.
    pub version: String,
    /// The last migration it knows.
    pub schema_known: i64,
    /// Microseconds since 1970.
    pub started_at: i64,
    /// Microseconds since 1970, by the database's clock.
    pub seen_at: i64,
    /// JSON.
    pub report: String,
}

impl Store {
    /// How far our clock is ahead of the database's, in microseconds, as well as one exchange can tell.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn clock_offset(&self) -> Result<i64, StoreError> {
        // Not on another machine: the same clock.
        let Some(sql) = self.clock_query() else { return Ok(0) };
        with!(self, pool => {
            // The first query may have to connect.
            sqlx::query("SELECT 1").execute(pool).await?;
            let before = now();
            let there: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
            Ok((before + now()) / 2 - there)
        })
    }

    /// Writes down that a node is alive, and forgets who has not been for a week. `offset`: see [`Self::clock_offset`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn beat(&self, beat: &Beat<'_>, offset: i64) -> Result<(), StoreError> {
        let at = now() - offset;
        with!(self, pool => {
            sqlx::query(
                "INSERT INTO node (id, name, machine, version, schema_known, started_at, seen_at, report)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, report = excluded.report",
            )
            .bind(beat.id).bind(beat.name).bind(beat.machine).bind(env!("CARGO_PKG_VERSION"))
            .bind(Self::schema_known()).bind(beat.started_at).bind(at).bind(beat.report)
            .execute(pool).await?;
            sqlx::query("DELETE FROM node WHERE seen_at < $1").bind(at - micros(FORGOTTEN)).execute(pool).await?;
            Ok(())
        })
    }

    /// A node that leaves is gone at once.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn leave(&self, id: &str) -> Result<(), StoreError> {
        with!(self, pool => {
            sqlx::query("DELETE FROM node WHERE id = $1").bind(id).execute(pool).await?;
            Ok(())
        })
    }

    /// Who has been seen within this time, by name. `offset`: see [`Self::clock_offset`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn nodes(&self, within: Duration, offset: i64) -> Result<Vec<NodeRow>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT id, name, machine, version, schema_known, started_at, seen_at, report FROM node
                 WHERE seen_at >= $1 ORDER BY name, started_at",
            )
            .bind(now() - offset - micros(within)).fetch_all(pool).await?
        ))
    }
}

const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);
