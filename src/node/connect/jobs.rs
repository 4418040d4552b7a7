//! `/v1/content/{guid}/jobs`: what was and is being done for content, and what it says.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::own;
use crate::node::api::{Answer, ApiFailure, Manager, Query, read, time};
use crate::node::content::mode::{Language, Mode, Way};
use crate::node::content::{deploy, journal};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::report::run::{RENDER, REPORT};
use crate::node::store::{ContentRow, JobRow};

/// Jobs that are told.
const JOBS_MAX: i64 = 200;
/// Lines of a log, where nobody says how many.
const LINES: i64 = 5_000;
/// Lines of a log at most.
const LINES_MAX: i64 = 20_000;

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let jobs = parts.store.jobs_of(&content.guid, JOBS_MAX).await?;
    Ok(Json(jobs.iter().map(|job| tell(&content, job)).collect()))
}

pub(super) async fn show(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, key)): Path<(String, String)>,
) -> Answer {
    let (content, job) = find(&parts, &manager, &guid, &key).await?;
    Ok(Json(tell(&content, &job)))
}

/// How much of it.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    #[serde(rename = "maxLogLines")]
    lines: Option<i64>,
}

pub(super) async fn log(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, key)): Path<(String, String)>,
    query: Query<Wanted>,
) -> Answer {
    let axum::extract::Query(Wanted { lines }) = read(query)?;
    let (_, job) = find(&parts, &manager, &guid, &key).await?;
    let lines = lines.unwrap_or(LINES).clamp(1, LINES_MAX);
    let last = parts.store.last_line(job.id).await?;
    let lines = parts.store.lines(job.id, last - lines, lines).await?;
    let entry = |line: &crate::node::store::JobLine| json!({ "source": "stderr", "timestamp": time(line.at), "data": line.text });
    Ok(Json(json!({ "entries": lines.iter().map(entry).collect::<Vec<_>>() })))
}

/// Ends it.
pub(super) async fn end(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, key)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Value>), ApiFailure> {
    let (content, job) = find(&parts, &manager, &guid, &key).await?;
    if !parts.store.cancel(job.id, &manager.deed("cancel_job", &content.name, &key)).await? {
        return Err(Failure::new(StatusCode::CONFLICT, "This job has ended already").into());
    }
    let told = json!({ "app_id": content.number, "app_guid": content.guid, "job_key": key, "job_id": key, "result": "",
        "code": null, "error": null });
    Ok((StatusCode::ACCEPTED, Json(told)))
}

async fn find(parts: &Parts, manager: &Manager, guid: &str, key: &str) -> Result<(ContentRow, JobRow), Failure> {
    let content = own(parts, manager, guid).await?;
    let missing = || Failure::not_found(format_args!("job `{key}` of this content"));
    let id = key.parse::<i64>().map_err(|_| missing())?;
    let is_its = |job: &JobRow| {
        job.subject == content.guid && [deploy::KIND, RENDER, REPORT, journal::KIND].contains(&&*job.kind)
    };
    let job = parts.store.job(id).await?.filter(is_its).ok_or_else(missing)?;
    Ok((content, job))
}

/// What Posit Connect's clients call it.
fn tag(content: &ContentRow, kind: &str) -> &'static str {
    let mode = content.app_mode.as_deref().and_then(Mode::parse);
    if kind == journal::KIND {
        return match mode {
            Some(Mode::Shiny) => "run_app",
            Some(Mode::RmdShiny | Mode::QuartoShiny) => "render_shiny",
            Some(Mode::Api) => "run_api",
            Some(Mode::PythonApi) => "run_python_api",
            Some(Mode::PythonDash) => "run_dash_app",
            Some(Mode::PythonStreamlit) => "run_streamlit",
            Some(Mode::PythonBokeh) => "run_bokeh_app",
            Some(Mode::PythonFastapi) => "run_fastapi_app",
            Some(Mode::PythonShiny) => "run_pyshiny_app",
            Some(Mode::JupyterVoila) => "run_voila_app",
            _ => "unknown",
        };
    }
    match mode {
        Some(Mode::JupyterStatic) => "build_jupyter",
        Some(mode) if mode.way() == Way::Rendering => "build_report",
        Some(mode) if kind == deploy::KIND && mode.language() == Language::Python => "python_restore",
        Some(mode) if kind == deploy::KIND && mode.language() == Language::R => "packrat_restore",
        _ => "unknown",
    }
}

fn tell(content: &ContentRow, job: &JobRow) -> Value {
    let id = job.id.to_string();
    let input: Value = serde_json::from_str(&job.input).unwrap_or_default();
    let bundle = input["bundle"].as_i64().or(content.bundle);
    json!({
        "id": id,
        "key": id,
        "ppid": null,
        "pid": null,
        "remote_id": null,
        "app_id": content.number.to_string(),
        "app_guid": content.guid,
        "variant_id": content.number.to_string(),
        "bundle_id": bundle.map(|bundle| bundle.to_string()),
        "start_time": time(job.started_at.unwrap_or(job.created_at)),
        "end_time": job.ended_at.map(time),
        "last_heartbeat_time": time(job.ended_at.or(job.started_at).unwrap_or(job.created_at)),
        "queued_time": time(job.created_at),
        "queue_name": job.kind,
        "tag": tag(content, &job.kind),
        "exit_code": job.ended_at.map(|_| i32::from(job.state != "done")),
        // 0: it goes on; 2: it has ended and all of it is written down.
        "status": if job.ended_at.is_some() { 2 } else { 0 },
        "hostname": job.node,
        "result": job.result,
        "cluster": null,
        "image": null,
        "run_as": null,
    })
}
