//! `/jobs`, and the hold on what they delete.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::from_now;
use crate::node::api::{Answer, Body, Manager, Query, read, time};
use crate::node::error::Failure;
use crate::node::jobs::{Kind, STORAGE};
use crate::node::parts::Parts;
use crate::node::store::{JobRow, Jobs, NewJob, Scope};

/// Jobs of one answer.
const LIMIT: i64 = 1000;
/// Lines of one answer.
const LINES: i64 = 1000;

fn told(job: &JobRow) -> Value {
    json!({
        "id": job.id.to_string(),
        "kind": job.kind,
        "subject": job.subject,
        "state": job.state,
        "created": time(job.created_at),
        "created_at": job.created_at,
        "created_by": job.created_by,
        "attempt": job.attempt,
        "node": job.node,
        "started": job.started_at.map(time),
        "ended": job.ended_at.map(time),
        "result": job.result,
    })
}

/// Which jobs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    kind: Option<String>,
    state: Option<String>,
    /// At most so many.
    limit: Option<i64>,
    /// Those created before, microseconds since 1970: `created_at` of a page's last one is the next page's.
    before: Option<i64>,
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, asked: Query<Asked>) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    let Asked { kind, state, limit, before } = read(asked)?.0;
    let which = Jobs { kind: kind.as_deref(), state: state.as_deref(), before, input: None };
    let all = parts.store.jobs(which, limit.unwrap_or(50).clamp(1, LIMIT)).await?;
    Ok(Json(all.iter().map(told).collect()))
}

async fn find(parts: &Parts, id: &str) -> Result<JobRow, Failure> {
    let missing = || Failure::not_found(format_args!("job `{id}`"));
    let number = id.parse().map_err(|_| missing())?;
    parts.store.job(number).await?.ok_or_else(missing)
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    Ok(Json(told(&find(&parts, &id).await?)))
}

/// Which lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    /// Those after this number.
    #[serde(default)]
    after: i64,
}

pub(super) async fn log(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    after: Query<After>,
) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    let after = read(after)?.0.after;
    // Before the lines: whoever sees that it has ended has seen all of them when there are no more.
    let job = find(&parts, &id).await?;
    let lines = parts.store.lines(job.id, after, LINES).await?;
    let last = lines.last().map_or(after, |line| line.number);
    let is_over = job.ended_at.is_some() && lines.is_empty();
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|line| json!({ "number": line.number, "time": time(line.at), "text": line.text }))
        .collect();
    Ok(Json(json!({ "job": told(&job), "lines": lines, "last": last, "is_over": is_over })))
}

/// What is to be done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    kind: String,
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Create>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Create { kind }) = read(body)?;
    if kind != Kind::Collect.as_str() {
        let message = format!("`{kind}` is no job to be begun like this: `collect`; git sources have `bowline sync`");
        return Err(Failure::bad(message).into());
    }
    let job = NewJob { kind: Kind::Collect.as_str(), subject: STORAGE, input: "{}", slot: Kind::Collect.as_str() };
    let deed = manager.deed("create_job", &kind, "");
    let id = parts.store.enqueue(job, Some(&deed)).await?;
    let id = id.ok_or_else(|| {
        Failure::new(http::StatusCode::CONFLICT, "Such a job waits or runs already: see `bowline job list`")
    })?;
    parts.job_added.notify_one();
    Ok(Json(told(&find(&parts, &id.to_string()).await?)))
}

pub(super) async fn cancel(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let job = find(&parts, &id).await?;
    let deed = manager.deed("cancel_job", &id, &job.subject);
    if !parts.store.cancel(job.id, &deed).await? {
        return Err(Failure::new(http::StatusCode::CONFLICT, format!("Job {id} has ended already")).into());
    }
    Ok(Json(json!({ "cancelled": id })))
}

/// How long nothing is deleted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    /// From now, such as `6h`; `null`: no longer.
    duration: Option<String>,
}

pub(super) async fn hold(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    let until = Some(parts.store.hold().await?).filter(|until| *until > 0);
    Ok(Json(json!({ "until": until.map(time) })))
}

pub(super) async fn set_hold(State(parts): State<Parts>, manager: Manager, body: Body<Hold>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Hold { duration }) = read(body)?;
    let until = duration.as_deref().map(from_now).transpose()?.unwrap_or(0);
    let detail = duration.as_deref().unwrap_or("released");
    parts.store.set_hold(until, &manager.deed("hold", "garbage", detail)).await?;
    Ok(Json(json!({ "until": duration.is_some().then(|| time(until)) })))
}
