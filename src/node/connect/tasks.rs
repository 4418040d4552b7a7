//! `/v1/tasks/{id}`: how a deployment goes on. A client waits here for news; any node has them, from the database.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::node::api::{Answer, Manager, Query, read};
use crate::node::content::access;
use crate::node::content::{caches, deploy, journal};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::report::run;
use crate::node::store::{JobLine, JobRow, Scope};
use crate::runtime::clock;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// A client waits no longer for one answer, so that nothing between takes it for dead.
const WAIT_MAX: u64 = 30;
/// Lines of one answer.
const LINES: i64 = 1000;

/// What is known already.
#[derive(Debug, Deserialize)]
pub(super) struct Known {
    /// Number of the last line the client has.
    first: Option<i64>,
    /// Seconds to wait for news.
    wait: Option<u64>,
}

pub(super) async fn show(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    query: Query<Known>,
) -> Answer {
    let axum::extract::Query(Known { first, wait }) = read(query)?;
    let until = clock::now() + Duration::from_secs(wait.unwrap_or(0).min(WAIT_MAX));
    loop {
        // Who does not say what they have gets the end of it.
        let after = match first {
            Some(first) => first,
            None => (last(&parts, &id).await? - LINES).max(0),
        };
        let (job, lines) = look(&parts, &manager, &id, after).await?;
        // Who does not say what they know wants to know how it ends.
        let has_news = first.is_some() && !lines.is_empty();
        if job.ended_at.is_some() || has_news || clock::now() >= until {
            return Ok(Json(tell(&job, after, &lines, first.is_none())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A task and its lines after this one.
///
/// # Errors
/// 403, 404.
pub(in crate::node) async fn look(
    parts: &Parts,
    manager: &Manager,
    id: &str,
    after: i64,
) -> Result<(JobRow, Vec<JobLine>), Failure> {
    let missing = || Failure::not_found(format_args!("task `{id}`"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    let kinds = [deploy::KIND, run::RENDER, run::REPORT, journal::KIND, journal::TERMINATE, caches::KIND];
    let is_task = |job: &JobRow| kinds.contains(&&*job.kind);
    let job = parts.store.job(number).await?.filter(is_task).ok_or_else(missing)?;
    let content = parts.store.content(&job.subject).await?;
    let may = match &content {
        Some(content) => access::may_change(manager.viewer(), content),
        None => manager.may_everywhere(Scope::Admin).is_ok(),
    };
    if !may {
        return Err(manager.caller.refused("see this task"));
    }
    let lines = parts.store.lines(job.id, after, LINES).await?;
    Ok((job, lines))
}

/// Number of a task's last line.
async fn last(parts: &Parts, id: &str) -> Result<i64, Failure> {
    match id.parse() {
        Ok(id) => Ok(parts.store.last_line(id).await?),
        Err(_) => Ok(0),
    }
}

fn tell(job: &JobRow, after: i64, lines: &[JobLine], is_all: bool) -> Value {
    let last = lines.last().map_or(after, |line| line.number);
    // All of it first, so that nobody stops asking before they have read why.
    let is_finished = job.ended_at.is_some() && (is_all || (lines.len() as i64) < LINES);
    let is_bad = is_finished && job.state != "done";
    json!({
        "id": job.id.to_string(),
        "output": lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
        "last": last,
        "finished": is_finished,
        "code": i32::from(is_bad),
        "error": if is_bad { job.result.as_deref().unwrap_or("it was cancelled") } else { "" },
        "result": null,
    })
}
