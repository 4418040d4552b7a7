//! Renderings of content, and when it is rendered again.

use super::audit::{Deed, record};
use super::garbage::spare;
use super::{Store, StoreError, new_id, now, with, within};

/// What came of rendering a bundle.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RenderingRow {
    /// In URLs; in order.
    pub number: i64,
    /// Whose.
    pub content_id: i64,
    /// Number of the bundle.
    pub bundle: i64,
    /// A blob, hexadecimal: a .tar of what it wrote.
    pub sha256: String,
    /// Bytes.
    pub size: i64,
    /// The file of it that is shown first.
    pub main: String,
    /// Microseconds it took.
    pub took: i64,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Who wanted it.
    pub created_by: String,
}

/// A rendering that is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewRendering<'a> {
    /// See [`RenderingRow`].
    pub content_id: i64,
    /// See [`RenderingRow`].
    pub bundle: i64,
    /// See [`RenderingRow`].
    pub sha256: &'a str,
    /// See [`RenderingRow`].
    pub size: i64,
    /// See [`RenderingRow`].
    pub main: &'a str,
    /// See [`RenderingRow`].
    pub took: i64,
    /// See [`RenderingRow`].
    pub created_by: &'a str,
}

/// When content is rendered again.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ScheduleRow {
    /// In URLs.
    pub number: i64,
    /// Whose.
    pub content_id: i64,
    /// Its guid.
    pub guid: String,
    /// As clients write it: `day`.
    pub kind: String,
    /// As clients write it: `{"N":1}`.
    pub plan: String,
    /// Microseconds since 1970.
    pub starts_at: i64,
    /// IANA's name of it.
    pub zone: String,
    /// What comes of it is shown.
    pub activates: bool,
    /// Its owner gets a mail when it is done.
    pub mails: bool,
    /// Microseconds since 1970; `None`: never.
    pub next_at: Option<i64>,
    /// Who wants it.
    pub created_by: String,
}

/// A schedule that is to be; fields as in [`ScheduleRow`].
#[derive(Clone, Copy, Debug)]
pub struct NewSchedule<'a> {
    /// See [`ScheduleRow`].
    pub content_id: i64,
    /// See [`ScheduleRow`].
    pub kind: &'a str,
    /// See [`ScheduleRow`].
    pub plan: &'a str,
    /// See [`ScheduleRow`].
    pub starts_at: i64,
    /// See [`ScheduleRow`].
    pub zone: &'a str,
    /// See [`ScheduleRow`].
    pub activates: bool,
    /// See [`ScheduleRow`].
    pub mails: bool,
    /// See [`ScheduleRow`].
    pub next_at: Option<i64>,
}

const RENDERING: &str =
    "SELECT number, content_id, bundle, sha256, size, main, took, created_at, created_by FROM rendering";
const SCHEDULE: &str = "SELECT s.number, s.content_id, c.guid, s.kind, s.plan, s.starts_at, s.zone, s.activates, s.mails, s.next_at, \
     s.created_by FROM schedule s JOIN content c ON c.id = s.content_id";

impl Store {
    /// Writes down a rendering whose blob is kept; its number. `shows`: it is what the content shows from now on, unless
    /// another bundle is by now. `anew`: see [`Self::publish`].
    ///
    /// # Errors
    /// [`StoreError::Missing`]: the content is gone; [`StoreError::Deleted`], [`StoreError::BeingDeleted`].
    pub async fn create_rendering(
        &self,
        rendering: NewRendering<'_>,
        shows: bool,
        anew: Option<i64>,
    ) -> Result<i64, StoreError> {
        within!(self, tx => async {
            spare!(self, tx, &[Some(rendering.sha256), None, None], anew);
            let there: Option<i64> = sqlx::query_scalar("SELECT id FROM content WHERE id = $1")
                .bind(rendering.content_id).fetch_optional(&mut *tx).await?;
            if there.is_none() {
                return Err(StoreError::Missing);
            }
            let number: i64 =
                sqlx::query_scalar("UPDATE counter SET last = last + 1 WHERE name = 'rendering' RETURNING last")
                    .fetch_one(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO rendering (number, content_id, bundle, sha256, size, main, took, created_at, created_by)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(number).bind(rendering.content_id).bind(rendering.bundle).bind(rendering.sha256).bind(rendering.size)
            .bind(rendering.main).bind(rendering.took).bind(now()).bind(rendering.created_by)
            .execute(&mut *tx).await?;
            if shows {
                sqlx::query(
                    "UPDATE content SET rendering = $3, updated_at = $4 WHERE id = $1 AND bundle = $2
                     AND (rendering IS NULL OR rendering < $3)",
                )
                .bind(rendering.content_id).bind(rendering.bundle).bind(number).bind(now())
                .execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(number)
        }.await)
    }

    /// A rendering.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn rendering(&self, number: i64) -> Result<Option<RenderingRow>, StoreError> {
        let sql = format!("{RENDERING} WHERE number = $1");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(number).fetch_optional(pool).await?))
    }

    /// The latest renderings of content, of one bundle of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn renderings(
        &self,
        content: i64,
        bundle: Option<i64>,
        limit: i64,
    ) -> Result<Vec<RenderingRow>, StoreError> {
        let sql = format!(
            "{RENDERING} WHERE content_id = $1 AND (CAST($2 AS BIGINT) IS NULL OR bundle = $2)
             ORDER BY number DESC LIMIT $3"
        );
        with!(self, pool => Ok(
            sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(content).bind(bundle).bind(limit).fetch_all(pool).await?
        ))
    }

    /// Forgets all but the latest renderings of every content, never one that is shown. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_renderings(&self, kept: i64) -> Result<u64, StoreError> {
        with!(self, pool => {
            let gone = sqlx::query(
                "DELETE FROM rendering WHERE number IN (SELECT old.number FROM rendering old
                     WHERE (SELECT COUNT(*) FROM rendering later
                            WHERE later.content_id = old.content_id AND later.number > old.number) >= $1)
                 AND number NOT IN (SELECT rendering FROM content WHERE rendering IS NOT NULL)",
            )
            .bind(kept).execute(pool).await?;
            Ok(gone.rows_affected())
        })
    }

    /// When content is rendered again; `None`: never.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn schedule_of(&self, content: i64) -> Result<Option<ScheduleRow>, StoreError> {
        let sql = format!("{SCHEDULE} WHERE s.content_id = $1");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(content).fetch_optional(pool).await?))
    }

    /// The schedule of this number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn schedule(&self, number: i64) -> Result<Option<ScheduleRow>, StoreError> {
        let sql = format!("{SCHEDULE} WHERE s.number = $1");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(number).fetch_optional(pool).await?))
    }

    /// All schedules, the next first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn schedules(&self, limit: i64) -> Result<Vec<ScheduleRow>, StoreError> {
        let sql = format!("{SCHEDULE} ORDER BY s.next_at IS NULL, s.next_at, s.number LIMIT $1");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(limit).fetch_all(pool).await?))
    }

    /// Gives content a schedule in the place of the one it had.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_schedule(&self, schedule: NewSchedule<'_>, by: &Deed<'_>) -> Result<(), StoreError> {
        within!(self, tx => async {
            let number: i64 =
                sqlx::query_scalar("UPDATE counter SET last = last + 1 WHERE name = 'schedule' RETURNING last")
                    .fetch_one(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO schedule (number, content_id, kind, plan, starts_at, zone, activates, mails, next_at,
                 created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (content_id) DO UPDATE SET kind = $3, plan = $4, starts_at = $5, zone = $6, activates = $7,
                 mails = $8, next_at = $9, created_by = $10",
            )
            .bind(number).bind(schedule.content_id).bind(schedule.kind).bind(schedule.plan).bind(schedule.starts_at)
            .bind(schedule.zone).bind(schedule.activates).bind(schedule.mails).bind(schedule.next_at).bind(by.who)
            .execute(&mut *tx).await?;
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(())
        }.await)
    }

    /// Takes content's schedule away. Whether it had one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove_schedule(&self, content: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let gone = sqlx::query("DELETE FROM schedule WHERE content_id = $1")
                .bind(content).execute(&mut *tx).await?.rows_affected() == 1;
            if gone {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(gone)
        }.await)
    }

    /// Schedules whose time has come, microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn schedules_due(&self, at: i64, limit: i64) -> Result<Vec<ScheduleRow>, StoreError> {
        let sql = format!(
            "{SCHEDULE} WHERE s.next_at <= $1 AND NOT c.is_locked AND c.app_mode IN ('rmd-static', 'jupyter-static', 'quarto-static')
             ORDER BY s.next_at LIMIT $2"
        );
        with!(self, pool => Ok(
            sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(at).bind(limit).fetch_all(pool).await?
        ))
    }

    /// Puts the job of a schedule whose time has come into the queue, and writes down when it comes next: both or nothing.
    /// `false`: another node did, or it was changed meanwhile; or what it wants is still being done, and this time is left
    /// out.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn run_schedule(
        &self,
        due: &ScheduleRow,
        next_at: Option<i64>,
        job: super::NewJob<'_>,
    ) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let ours = sqlx::query("UPDATE schedule SET next_at = $3 WHERE number = $1 AND next_at = $2")
                .bind(due.number).bind(due.next_at).bind(next_at).execute(&mut *tx).await?.rows_affected() == 1;
            if !ours {
                return Ok(false);
            }
            let made = sqlx::query(
                "INSERT INTO job (id, kind, subject, input, slot, state, created_at, created_by, attempt, deaths, is_cancelled)
                 VALUES ($1, $2, $3, $4, $5, 'waiting', $6, 'schedule', 0, 0, $7) ON CONFLICT (slot) DO NOTHING",
            )
            .bind(new_id()).bind(job.kind).bind(job.subject).bind(job.input).bind(job.slot).bind(now()).bind(false)
            .execute(&mut *tx).await?;
            Ok::<_, StoreError>(made.rows_affected() == 1)
        }.await)
    }
}
