//! What each node is asked to do: one task for all, whose last line is written by the last of them.

use super::audit::{Deed, record};
use super::{NewJob, Store, StoreError, new_id, now, with, within};

/// What one node is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Errand {
    /// Of the job's row.
    pub job_id: i64,
    /// Id of the node, a process.
    pub node: String,
    /// Its name.
    pub name: String,
    /// What the job needs, JSON.
    pub input: String,
    /// When the node was last heard of, microseconds since 1970 by the database's clock; `None`: it has left.
    pub seen_at: Option<i64>,
}

impl Store {
    /// Writes down a job that each of these nodes has to do, by id and name; `None`: one with its slot has not ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn send_errands(
        &self,
        job: NewJob<'_>,
        nodes: &[(String, String)],
        by: &Deed<'_>,
    ) -> Result<Option<i64>, StoreError> {
        let (id, at) = (new_id(), now());
        within!(self, tx => async {
            let made = sqlx::query(
                "INSERT INTO job (id, kind, subject, input, slot, state, created_at, created_by, attempt, deaths,
                 started_at, is_cancelled) VALUES ($1, $2, $3, $4, $5, 'running', $6, $7, 1, 0, $6, $8)
                 ON CONFLICT (slot) DO NOTHING",
            )
            .bind(id).bind(job.kind).bind(job.subject).bind(job.input).bind(job.slot).bind(at).bind(by.who).bind(false)
            .execute(&mut *tx).await?;
            if made.rows_affected() == 0 {
                return Ok(None);
            }
            for (node, name) in nodes {
                sqlx::query("INSERT INTO errand (job_id, node, name) VALUES ($1, $2, $3)")
                    .bind(id).bind(node).bind(name).execute(&mut *tx).await?;
            }
            record!(&mut *tx, by)?;
            Ok::<_, StoreError>(Some(id))
        }.await)
    }

    /// What nodes have not done yet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn errands(&self) -> Result<Vec<Errand>, StoreError> {
        with!(self, pool => Ok(
            sqlx::query_as(
                "SELECT e.job_id, e.node, e.name, j.input, n.seen_at FROM errand e JOIN job j ON j.id = e.job_id
                 LEFT JOIN node n ON n.id = e.node ORDER BY j.created_at, e.name",
            )
            .fetch_all(pool).await?
        ))
    }

    /// Writes down what came of an errand, in a sentence; the last one ends the job. `Err`: why it was not done, which fails it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn answer_errand(&self, errand: &Errand, came: Result<&str, &str>) -> Result<(), StoreError> {
        let (Ok(line) | Err(line)) = came;
        let at = now();
        within!(self, tx => async {
            let answered = sqlx::query("DELETE FROM errand WHERE job_id = $1 AND node = $2")
                .bind(errand.job_id).bind(&errand.node).execute(&mut *tx).await?;
            if answered.rows_affected() == 0 {
                return Ok(());
            }
            // Nodes take turns from here: the last one sees what all others did.
            sqlx::query("UPDATE job SET result = COALESCE(result, $2) WHERE id = $1")
                .bind(errand.job_id).bind(came.err()).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO job_line (job_id, number, at, text)
                 VALUES ($1, (SELECT COALESCE(MAX(number), 0) + 1 FROM job_line WHERE job_id = $1), $2, $3)",
            )
            .bind(errand.job_id).bind(at).bind(line).execute(&mut *tx).await?;
            sqlx::query(
                "UPDATE job SET state = CASE WHEN result IS NULL THEN 'done' ELSE 'failed' END, ended_at = $2,
                 result = COALESCE(result, 'done on every node'), slot = NULL
                 WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM errand WHERE job_id = $1)",
            )
            .bind(errand.job_id).bind(at).execute(&mut *tx).await?;
            Ok::<_, StoreError>(())
        }.await)
    }
}
