//! Work that some node does, and the lines it writes meanwhile.

use super::audit::{Deed, record};
use super::{Db, Store, StoreError, new_id, now, with, within};

/// A job as it is now.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct JobRow {
    /// Of its row.
    pub id: i64,
    /// `collect`, `sync`, `build`.
    pub kind: String,
    /// What it is about, for people.
    pub subject: String,
    /// What it needs, JSON.
    pub input: String,
    /// `waiting`, `running`, `done`, `failed`, `cancelled`.
    pub state: String,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Name of the API key, `host`, or `schedule`.
    pub created_by: String,
    /// How often it was claimed.
    pub attempt: i64,
    /// See [`Self::created_at`].
    pub started_at: Option<i64>,
    /// See [`Self::created_at`].
    pub ended_at: Option<i64>,
    /// What came of it, in a sentence.
    pub result: Option<String>,
    /// Name of the node that has or had it, while that is known.
    pub node: Option<String>,
}

/// A job that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct NewJob<'a> {
    /// See [`JobRow::kind`].
    pub kind: &'a str,
    /// See [`JobRow::subject`].
    pub subject: &'a str,
    /// See [`JobRow::input`].
    pub input: &'a str,
    /// Only one job that has not ended has this.
    pub slot: &'a str,
}

/// A job that a node has claimed.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Claimed {
    /// See [`JobRow::id`].
    pub id: i64,
    /// See [`JobRow::subject`].
    pub subject: String,
    /// See [`JobRow::input`].
    pub input: String,
    /// See [`JobRow::attempt`].
    pub attempt: i64,
    /// How often its node died over it.
    pub deaths: i64,
    /// See [`JobRow::created_by`].
    pub created_by: String,
}

/// What is to become of a job that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// Go on.
    Ours,
    /// Somebody wants it to end.
    Cancelled,
    /// Another node has it.
    Lost,
}

/// Which jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jobs<'a> {
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// In this state.
    pub state: Option<&'a str>,
    /// Created before, microseconds since 1970.
    pub before: Option<i64>,
    /// Whose input begins so.
    pub input: Option<&'a str>,
}

/// Jobs of one kind that nobody does and somebody should.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Claimable {
    /// See [`JobRow::kind`].
    pub kind: String,
    /// How many.
    pub count: i64,
    /// When the oldest was wanted, microseconds since 1970.
    pub oldest: i64,
}

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct JobLine {
    /// From 1.
    pub number: i64,
    /// Microseconds since 1970.
    pub at: i64,
    /// What it says.
    pub text: String,
}

const COLUMNS: &str = "j.id, j.kind, j.subject, j.input, j.state, j.created_at, j.created_by, j.attempt, j.started_at, \
                       j.ended_at, j.result, (SELECT n.name FROM node n WHERE n.id = j.node) AS node";

impl Store {
    /// Puts a job in the queue; `None`: one with its slot has not ended. `by`: `None` where the schedule wants it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn enqueue(&self, job: NewJob<'_>, by: Option<&Deed<'_>>) -> Result<Option<i64>, StoreError> {
        let id = new_id();
        within!(self, tx => async {
            let made = sqlx::query(
                "INSERT INTO job (id, kind, subject, input, slot, state, created_at, created_by, attempt, deaths, is_cancelled)
                 VALUES ($1, $2, $3, $4, $5, 'waiting', $6, $7, 0, 0, $8) ON CONFLICT (slot) DO NOTHING",
            )
            .bind(id).bind(job.kind).bind(job.subject).bind(job.input).bind(job.slot).bind(now())
            .bind(by.map_or("schedule", |deed| deed.who)).bind(false).execute(&mut *tx).await?;
            if made.rows_affected() == 0 {
                return Ok(None);
            }
            if let Some(by) = by {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(Some(id))
        }.await)
    }

    /// Takes the oldest job of a kind that waits, or whose node has left or has not been heard of since then (microseconds
    /// since 1970, by the database's clock); nobody else gets it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim(&self, kind: &str, node: &str, heard: i64) -> Result<Option<Claimed>, StoreError> {
        const FREE: &str = "SELECT j.id FROM job j
             WHERE j.kind = $1 AND (j.state = 'waiting' OR (j.state = 'running' AND NOT EXISTS
                   (SELECT 1 FROM node n WHERE n.id = j.node AND n.seen_at >= $4)))
             ORDER BY j.created_at, j.id LIMIT 1";
        const TAKE: &str = "UPDATE job SET deaths = deaths + CASE state WHEN 'running' THEN 1 ELSE 0 END,
             state = 'running', node = $2, attempt = attempt + 1, started_at = $3";
        // Nodes that look at once pass over what another one is about to take.
        let skip = match &self.db {
            Db::Sqlite(_) => "",
            Db::Postgres(_) => "FOR UPDATE SKIP LOCKED",
        };
        let sql =
            format!("{TAKE} WHERE id = ({FREE} {skip}) RETURNING id, subject, input, attempt, deaths, created_by");
        within!(self, tx => Ok::<_, StoreError>(
            sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(kind).bind(node).bind(now()).bind(heard)
                .fetch_optional(&mut *tx).await?
        ))
    }

    /// What [`Self::claim`] would find, of all kinds that there are some of.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claimable(&self, heard: i64) -> Result<Vec<Claimable>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT j.kind, COUNT(*) AS count, MIN(j.created_at) AS oldest FROM job j
                 WHERE j.state IN ('waiting', 'running') AND j.kind NOT IN ('process', 'cache') AND (j.state = 'waiting' OR NOT EXISTS
                       (SELECT 1 FROM node n WHERE n.id = j.node AND n.seen_at >= $1))
                 GROUP BY j.kind",
            )
            .bind(heard).fetch_all(pool).await?
        ))
    }

    /// Jobs that rows say a node has.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn held(&self, node: &str) -> Result<Vec<Claimed>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT id, subject, input, attempt, deaths, created_by FROM job WHERE node = $1 AND state = 'running'
                 AND kind <> 'process'",
            )
            .bind(node).fetch_all(pool).await?
        ))
    }

    /// Writes down a process of content that a node has begun: a job nobody has to claim. What was written down of this id stays,
    /// so that who is not told so may try again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin_process(
        &self,
        id: i64,
        kind: &str,
        subject: &str,
        input: &str,
        node: &str,
    ) -> Result<Claimed, StoreError> {
        let at = now();
        with!(self, pool => {
            sqlx::query(
                "INSERT INTO job (id, kind, subject, input, state, created_at, created_by, attempt, deaths, node,
                 started_at, is_cancelled) VALUES ($1, $2, $3, $4, 'running', $5, 'node', 1, 0, $6, $5, $7)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(id).bind(kind).bind(subject).bind(input).bind(at).bind(node).bind(false).execute(pool).await?;
            Ok(Claimed {
                id,
                subject: subject.to_owned(),
                input: input.to_owned(),
                attempt: 1,
                deaths: 0,
                created_by: "node".to_owned(),
            })
        })
    }

    /// Processes of a node that somebody wants to end.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cancelled(&self, node: &str) -> Result<Vec<i64>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar(
                "SELECT id FROM job WHERE node = $1 AND state = 'running' AND kind = 'process' AND is_cancelled",
            )
            .bind(node).fetch_all(pool).await?
        ))
    }

    /// Writes down the end of jobs of a kind nobody else begins again, whose node has not been heard of since then
    /// (microseconds since 1970, by the database's clock).
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end_lost(&self, kind: &str, heard: i64) -> Result<u64, StoreError> {
        with!(self, pool => {
            let ended = sqlx::query(
                "UPDATE job SET state = 'failed', result = 'its node died', ended_at = $3
                 WHERE kind = $1 AND state = 'running' AND NOT EXISTS
                 (SELECT 1 FROM node n WHERE n.id = job.node AND n.seen_at >= $2)",
            )
            .bind(kind).bind(heard).bind(now()).execute(pool).await?;
            Ok(ended.rows_affected())
        })
    }

    /// Forgets the lines of a job up to this number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_lines(&self, job: i64, up_to: i64) -> Result<(), StoreError> {
        with!(self, pool => {
            sqlx::query("DELETE FROM job_line WHERE job_id = $1 AND number <= $2")
                .bind(job).bind(up_to).execute(pool).await?;
            Ok(())
        })
    }

    /// Gives a job back: somebody else begins it again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn release(&self, job: &Claimed) -> Result<(), StoreError> {
        with!(self, pool => {
            sqlx::query(
                "UPDATE job SET state = 'waiting', node = NULL, started_at = NULL
                 WHERE id = $1 AND attempt = $2 AND state = 'running'",
            )
            .bind(job.id).bind(job.attempt).execute(pool).await?;
            Ok(())
        })
    }

    /// What is to become of a job that runs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn attend(&self, job: &Claimed) -> Result<Attendance, StoreError> {
        let found: Option<bool> = with!(self, pool => Ok(
            sqlx::query_scalar("SELECT is_cancelled FROM job WHERE id = $1 AND attempt = $2 AND state = 'running'")
                .bind(job.id).bind(job.attempt).fetch_optional(pool).await?
        ))?;
        Ok(match found {
            Some(false) => Attendance::Ours,
            Some(true) => Attendance::Cancelled,
            None => Attendance::Lost,
        })
    }

    /// Writes down how a job ended; whether it was still ours.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end(&self, job: &Claimed, state: &str, result: &str) -> Result<bool, StoreError> {
        with!(self, pool => {
            let ended = sqlx::query(
                "UPDATE job SET state = $3, result = $4, ended_at = $5, slot = NULL
                 WHERE id = $1 AND attempt = $2 AND state = 'running'",
            )
            .bind(job.id).bind(job.attempt).bind(state).bind(result).bind(now()).execute(pool).await?;
            Ok(ended.rows_affected() == 1)
        })
    }

    /// Lets a job end: at once where it waits, else when its node sees it. Whether it had not ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cancel(&self, id: i64, by: &Deed<'_>) -> Result<bool, StoreError> {
        within!(self, tx => async {
            let waited = sqlx::query(
                "UPDATE job SET state = 'cancelled', ended_at = $2, slot = NULL WHERE id = $1 AND state = 'waiting'",
            )
            .bind(id).bind(now()).execute(&mut *tx).await?.rows_affected();
            let ran = sqlx::query("UPDATE job SET is_cancelled = $2 WHERE id = $1 AND state = 'running'")
                .bind(id).bind(true).execute(&mut *tx).await?.rows_affected();
            if waited + ran > 0 {
                record!(&mut *tx, by)?;
            }
            Ok::<_, StoreError>(waited + ran > 0)
        }.await)
    }

    /// Whether somebody ended all processes of content, of this guid, since then (microseconds since 1970): `kind` is of that job.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn was_told(&self, kind: &str, guid: &str, since: i64) -> Result<bool, StoreError> {
        let found: i64 = with!(self, pool => Ok(
            sqlx::query_scalar("SELECT COUNT(*) FROM job WHERE subject = $1 AND kind = $2 AND created_at >= $3")
                .bind(guid).bind(kind).bind(since).fetch_one(pool).await?
        ))?;
        Ok(found > 0)
    }

    /// Lets all processes of content end, of this guid; their nodes see it. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn cancel_processes(&self, guid: &str) -> Result<u64, StoreError> {
        with!(self, pool => Ok(
            sqlx::query(
                "UPDATE job SET is_cancelled = $2 WHERE subject = $1 AND kind = 'process' AND state = 'running'",
            )
            .bind(guid).bind(true).execute(pool).await?.rows_affected()
        ))
    }

    /// Writes lines of a job; `first`: the number of the first of them. Whether it was still ours.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn write_lines(&self, job: &Claimed, first: i64, lines: &[String]) -> Result<bool, StoreError> {
        let at = now();
        within!(self, tx => async {
            let ours: Option<i64> = sqlx::query_scalar(
                "SELECT attempt FROM job WHERE id = $1 AND attempt = $2 AND state = 'running'",
            )
            .bind(job.id).bind(job.attempt).fetch_optional(&mut *tx).await?;
            if ours.is_none() {
                return Ok(false);
            }
            for (number, line) in (first..).zip(lines) {
                sqlx::query(
                    "INSERT INTO job_line (job_id, number, at, text) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (job_id, number) DO NOTHING",
                )
                .bind(job.id).bind(number).bind(at).bind(line).execute(&mut *tx).await?;
            }
            Ok::<_, StoreError>(true)
        }.await)
    }

    /// Writes down what was done at once because somebody wanted it, as a job that has ended; its number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn write_done(
        &self,
        kind: &str,
        subject: &str,
        lines: &[String],
        result: &str,
        by: &Deed<'_>,
    ) -> Result<i64, StoreError> {
        let (id, at) = (new_id(), now());
        within!(self, tx => async {
            sqlx::query(
                "INSERT INTO job (id, kind, subject, input, state, result, created_at, created_by, attempt, deaths,
                 started_at, ended_at, is_cancelled) VALUES ($1, $2, $3, '{}', 'done', $4, $5, $6, 1, 0, $5, $5, $7)",
            )
            .bind(id).bind(kind).bind(subject).bind(result).bind(at).bind(by.who).bind(false)
            .execute(&mut *tx).await?;
            for (number, line) in (1_i64..).zip(lines) {
                sqlx::query("INSERT INTO job_line (job_id, number, at, text) VALUES ($1, $2, $3, $4)")
                    .bind(id).bind(number).bind(at).bind(line).execute(&mut *tx).await?;
            }
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(id)
        }.await)
    }

    /// Number of a job's last line.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_line(&self, job: i64) -> Result<i64, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar("SELECT COALESCE(MAX(number), 0) FROM job_line WHERE job_id = $1")
                .bind(job).fetch_one(pool).await?
        ))
    }

    /// Lines of a job after this one, at most so many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn lines(&self, job: i64, after: i64, limit: i64) -> Result<Vec<JobLine>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT number, at, text FROM job_line WHERE job_id = $1 AND number > $2 ORDER BY number LIMIT $3",
            )
            .bind(job).bind(after).bind(limit).fetch_all(pool).await?
        ))
    }

    /// A job.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn job(&self, id: i64) -> Result<Option<JobRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM job j WHERE j.id = $1");
        with!(self, pool => Ok(sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(id).fetch_optional(pool).await?))
    }

    /// Jobs, latest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn jobs(&self, which: Jobs<'_>, limit: i64) -> Result<Vec<JobRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM job j WHERE (j.kind = $1 OR $1 IS NULL AND j.kind <> 'process') AND ($2 IS NULL OR j.state = $2)
             AND j.created_at < $3 AND ($5 IS NULL OR SUBSTR(j.input, 1, LENGTH($5)) = $5) ORDER BY j.created_at DESC, j.id DESC LIMIT $4"
        );
        with!(self, pool => Ok(
            sqlx::query_as(sqlx::AssertSqlSafe(&*sql))
                .bind(which.kind).bind(which.state).bind(which.before.unwrap_or(i64::MAX)).bind(limit)
                .bind(which.input)
                .fetch_all(pool).await?
        ))
    }

    /// The latest jobs of content, of this guid.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn jobs_of(&self, guid: &str, limit: i64) -> Result<Vec<JobRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM job j WHERE j.subject = $1 AND j.kind IN ('deploy', 'render', 'report', 'process')
             ORDER BY j.created_at DESC, j.id DESC LIMIT $2"
        );
        with!(self, pool => Ok(
            sqlx::query_as(sqlx::AssertSqlSafe(&*sql)).bind(guid).bind(limit).fetch_all(pool).await?
        ))
    }

    /// Subjects of a kind whose input begins so, each once.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn subjects(&self, kind: &str, beginning: &str) -> Result<Vec<String>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar(
                "SELECT DISTINCT subject FROM job WHERE kind = $1 AND SUBSTR(input, 1, LENGTH($2)) = $2",
            )
            .bind(kind).bind(beginning).fetch_all(pool).await?
        ))
    }

    /// When the same job of the same subject was last wanted, microseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_wanted(&self, job: &NewJob<'_>) -> Result<Option<i64>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_scalar("SELECT MAX(created_at) FROM job WHERE kind = $1 AND subject = $2 AND input = $3")
                .bind(job.kind).bind(job.subject).bind(job.input).fetch_one(pool).await?
        ))
    }

    /// Forgets the lines of jobs that ended before this time, and the jobs; but of each subject the last. How many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_jobs(&self, before: i64) -> Result<u64, StoreError> {
        const OLD: &str = "SELECT j.id FROM job j WHERE j.ended_at < $1 AND EXISTS (SELECT 1 FROM job later
             WHERE later.kind = j.kind AND later.subject = j.subject AND later.created_at > j.created_at)";
        const LINES: &str = "DELETE FROM job_line WHERE job_id IN (SELECT id FROM job WHERE ended_at < $1)";
        let jobs = format!("DELETE FROM job WHERE id IN ({OLD})");
        within!(self, tx => async {
            sqlx::query(LINES).bind(before).execute(&mut *tx).await?;
            let gone = sqlx::query(sqlx::AssertSqlSafe(&*jobs)).bind(before).execute(&mut *tx).await?;
            Ok::<_, StoreError>(gone.rows_affected())
        }.await)
    }
}
