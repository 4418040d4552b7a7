//! What R's rsconnect calls: the API from before `/v1`, by numbers instead of guids. All its generations look content up here;
//! those before 1.10 publish by it too.

use axum::body::Body as RawBody;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bundles;
use super::content::{self, Wish, changeable};
use super::deploy;
use super::tasks;
use crate::node::api::{Answer, Body, Manager, Query, read, time};
use crate::node::content::access;
use crate::node::content::journal::TERMINATE;
use crate::node::content::mode::Mode;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::ContentRow;

/// `GET /applications?filter=account_id:1&filter=name:x&count=100&offset=0`. Clients ask for the next page until they have
/// `total`, so all of it is told at once.
pub(super) async fn list(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = query.unwrap_or_default();
    let pairs = || form_urlencoded::parse(query.as_bytes());
    let filters: Vec<String> =
        pairs().filter(|(key, _)| key == "filter").map(|(_, value)| value.into_owned()).collect();
    let named = filters.iter().find_map(|filter| filter.strip_prefix("name:"));
    let of_account = filters.iter().any(|filter| filter.starts_with("account_id:"));
    let offset: usize =
        pairs().find(|(key, _)| key == "offset" || key == "start").and_then(|(_, n)| n.parse().ok()).unwrap_or(0);
    let owner = (of_account || named.is_some()).then(|| access::owner(&manager.caller));
    let base = parts.base(&fields, origin);
    let all = parts.store.contents(owner.as_deref(), named).await?;
    let visible: Vec<&ContentRow> = all.iter().filter(|content| access::may_see(manager.viewer(), content)).collect();
    let told: Vec<Value> = visible.iter().skip(offset).map(|content| tell(&base, content)).collect();
    Ok(Json(json!({
        "applications": told, "count": told.len(), "total": visible.len(), "offset": offset, "continuation": "",
    })))
}

pub(super) async fn create(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    body: Body<Wish>,
) -> Answer {
    let Json(wish) = read(body)?;
    let made = content::make(&parts, &manager, wish).await?;
    Ok(Json(tell(&parts.base(&fields, origin), &made)))
}

pub(super) async fn show(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let content = visible(&parts, &manager, &id).await?;
    Ok(Json(tell(&parts.base(&fields, origin), &content)))
}

/// Where a browser is sent after a deployment.
pub(super) async fn config(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let content = visible(&parts, &manager, &id).await?;
    let base = parts.base(&fields, origin);
    Ok(Json(json!({ "config_url": format!("{base}/connect/content/{}/access", content.guid) })))
}

pub(super) async fn upload(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    fields: HeaderMap,
    body: RawBody,
) -> Answer {
    let content = changeable(&manager, visible(&parts, &manager, &id).await?)?;
    let bundle = bundles::take(&parts, &manager, &content, &fields, body).await?;
    Ok(Json(json!({
        "id": bundle.number, "app_id": content.number, "created_time": time(bundle.created_at), "size": bundle.size,
    })))
}

/// Which bundle.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    bundle: Option<Value>,
}

pub(super) async fn deploy(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    body: Body<Told>,
) -> Answer {
    let content = changeable(&manager, visible(&parts, &manager, &id).await?)?;
    let Json(Told { bundle }) = read(body)?;
    let bundle = deploy::bundle(&parts, &content, bundle.as_ref()).await?;
    let task = deploy::begin(&parts, &manager, &content, &bundle, true).await?;
    Ok(Json(json!({ "id": task })))
}

/// Ends its processes on all nodes; whoever opens it next lets new ones begin. Told is a task that has ended.
pub(super) async fn terminate(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = changeable(&manager, visible(&parts, &manager, &id).await?)?;
    let task = end_processes(&parts, &manager, &content).await?;
    Ok(Json(json!({ "id": task, "task_id": task })))
}

/// Ends the processes of content on all nodes, with their sessions; the task that says so, which has ended.
///
/// # Errors
/// 503.
pub(super) async fn end_processes(parts: &Parts, manager: &Manager, content: &ContentRow) -> Result<String, Failure> {
    let count = parts.store.cancel_processes(&content.guid).await?;
    // Those too that began here a moment ago and are not written down yet.
    parts.contents.workers.remove(&content.guid);
    let line = format!("{count} processes are told to end; opening it begins new ones");
    let deed = manager.deed("terminate", &content.name, &content.guid);
    let lines = std::slice::from_ref(&line);
    let task = parts.store.write_done(TERMINATE, &content.guid, lines, &line, &deed).await?.to_string();
    // Those that were written down meanwhile; which are from now on find this task.
    parts.store.cancel_processes(&content.guid).await?;
    Ok(task)
}

/// Ends a task.
pub(super) async fn kill(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let (job, _) = tasks::look(&parts, &manager, &id, i64::MAX).await?;
    if !parts.store.cancel(job.id, &manager.deed("cancel_job", &job.subject, &id)).await? {
        return Err(Failure::new(StatusCode::CONFLICT, "This task has ended already").into());
    }
    Ok(Json(json!({ "id": id, "task_id": id })))
}

/// What is known already.
#[derive(Debug, Deserialize)]
pub(super) struct Known {
    first_status: Option<i64>,
}

pub(super) async fn task(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    query: Query<Known>,
) -> Answer {
    let axum::extract::Query(Known { first_status }) = read(query)?;
    let after = first_status.unwrap_or(0);
    let (job, lines) = tasks::look(&parts, &manager, &id, after).await?;
    let is_finished = job.ended_at.is_some();
    let is_bad = is_finished && job.state != "done";
    Ok(Json(json!({
        "id": job.id.to_string(),
        "status": lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
        "last_status": lines.last().map_or(after, |line| line.number),
        "finished": is_finished,
        "code": i32::from(is_bad),
        "error": if is_bad { job.result.as_deref().unwrap_or("it was cancelled") } else { "" },
    })))
}

/// Content by its number, or by its guid, as some versions send it.
pub(super) async fn visible(parts: &Parts, manager: &Manager, id: &str) -> Result<ContentRow, Failure> {
    let Ok(number) = id.parse::<i64>() else { return content::visible(parts, manager, id).await };
    let found = parts.store.content_numbered(number).await?.ok_or_else(|| content::missing(id))?;
    if access::may_see(manager.viewer(), &found) {
        return Ok(found);
    }
    Err(manager.caller.refused("see this content"))
}

fn tell(base: &str, content: &ContentRow) -> Value {
    let mode = content.app_mode.as_deref().and_then(Mode::parse);
    let url = format!("{base}/content/{}/", content.guid);
    json!({
        "id": content.number,
        "guid": content.guid,
        "name": content.name,
        "title": if content.title.is_empty() { Value::Null } else { json!(content.title) },
        "url": url,
        "content_url": url,
        "dashboard_url": format!("{base}/connect/content/{}", content.guid),
        "app_mode": mode.map_or(0, Mode::number),
        "access_type": content.access,
        "bundle_id": content.bundle,
        "build_status": if content.bundle.is_some() { 2 } else { 0 },
        "status": if content.bundle.is_some() { "running" } else { "created" },
        "created_time": time(content.created_at),
        // `applications()` makes a table of these, and fails at a null.
        "last_deployed_time": content.deployed_at.map(time).unwrap_or_default(),
        "owner_guid": content.owner,
        "owner_username": content.owner_username,
        "deployment": { "bundle_id": content.bundle },
    })
}
