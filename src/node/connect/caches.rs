//! `/v1/system/caches/runtime`: environments that were made. Each node has its own; each removes its own.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::server::installation;
use crate::node::api::{Answer, ApiFailure, Body, Manager, read};
use crate::node::content::caches::{self, KIND};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::registry::{self, Seen};
use crate::node::store::{NewJob, Scope};
use crate::runtime::machine::{self, Process};

/// The only language whose environments are kept by its version.
const PYTHON: &str = "Python";
/// Where content runs: on the node itself.
pub(super) const LOCAL: &str = "Local";

/// Versions whose environments some node has: this one now, others a few seconds ago.
pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let told = |version: &String| json!({ "language": PYTHON, "version": version, "image_name": LOCAL });
    let versions = versions(&parts, &nodes(&parts).await?).await;
    Ok(Json(json!({ "caches": versions.iter().map(told).collect::<Vec<_>>() })))
}

/// Which of them.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    language: String,
    version: String,
    #[serde(default)]
    image_name: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Removes those of a version that nobody runs on, from every node.
pub(super) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    body: Body<Wanted>,
) -> Result<(StatusCode, Json<Value>), ApiFailure> {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Wanted { language, version, image_name, dry_run }) = read(body)?;
    let image = image_name.as_deref().unwrap_or(LOCAL);
    let nodes = nodes(&parts).await?;
    let is_there = language.eq_ignore_ascii_case(PYTHON)
        && image == LOCAL
        && versions(&parts, &nodes).await.binary_search(&version).is_ok();
    if !is_there {
        let why = format!("No node has a cache of {language} {version} ({image})");
        return Err(Failure::new(StatusCode::NOT_FOUND, why).into());
    }
    let mut told = json!({ "language": PYTHON, "version": version, "image_name": LOCAL, "task_id": null });
    if dry_run {
        return Ok((StatusCode::OK, Json(told)));
    }
    if nodes.is_empty() {
        // What nobody is sent nobody ends, and no other could be sent then.
        let why = "No node has been heard of lately, this one neither; try again in a moment";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why).into());
    }
    let (subject, slot) = (format!("{PYTHON} {version}"), format!("{KIND}/{version}"));
    let input = serde_json::to_string(&caches::Wanted { version }).unwrap_or_default();
    let job = NewJob { kind: KIND, subject: &subject, input: &input, slot: &slot };
    let nodes: Vec<_> = nodes.into_iter().map(|seen| (seen.row.id, seen.row.name)).collect();
    let names: Vec<&str> = nodes.iter().map(|(_, name)| name.as_str()).collect();
    let detail = format!("from {}", names.join(", "));
    let task = parts.store.send_errands(job, &nodes, &manager.deed("clear_cache", &subject, &detail)).await?;
    let Some(task) = task else {
        return Err(
            Failure::new(StatusCode::CONFLICT, format!("The cache of {subject} is being removed already")).into()
        );
    };
    told["task_id"] = task.to_string().into();
    Ok((StatusCode::ACCEPTED, Json(told)))
}

/// The nodes that run.
async fn nodes(parts: &Parts) -> Result<Vec<Seen>, Failure> {
    let offset = parts.store.clock_offset().await?;
    Ok(parts.store.nodes(registry::ALIVE, offset).await?.into_iter().map(Seen::from).collect())
}

/// Versions whose environments this node has, and others had when they last said so. Sorted, each once.
async fn versions(parts: &Parts, nodes: &[Seen]) -> Vec<String> {
    let (own, here) = (Process::own(), machine::id());
    let others = nodes.iter().filter(|seen| seen.row.machine != here || seen.report.process != own);
    let mut all: Vec<String> = others.flat_map(|seen| seen.report.caches.iter().cloned()).collect();
    all.extend(caches::versions(parts.contents.environments.clone()).await);
    all.sort_unstable();
    all.dedup();
    all
}

/// `/v1/environments`: where content can run. There is one such place, the node itself.
pub(super) async fn environments(State(parts): State<Parts>, _: Manager) -> Answer {
    Ok(Json(json!([environment(&parts).await])))
}

/// The guid of the only one.
const GUID: &str = "00000000-0000-4000-8000-000000000001";

/// One of them.
pub(super) async fn of_guid(
    State(parts): State<Parts>,
    _: Manager,
    axum::extract::Path(guid): axum::extract::Path<String>,
) -> Answer {
    if guid != GUID {
        return Err(Failure::not_found(format_args!("environment `{guid}`")).into());
    }
    Ok(Json(environment(&parts).await))
}

async fn environment(parts: &Parts) -> Value {
    let found = &parts.contents.interpreters;
    let python: Vec<Value> = found.python().await.iter().map(|one| installation(&one.version)).collect();
    let r: Vec<Value> = found.r().await.iter().map(|one| installation(&one.version)).collect();
    let nodejs: Vec<Value> = found.nodejs().await.iter().map(|one| installation(&one.version)).collect();
    json!({
        "id": "1",
        "guid": GUID,
        "created_time": null,
        "updated_time": null,
        "title": "This server",
        "description": "Content runs on the nodes of this server; these are the interpreters of one of them",
        "cluster_name": LOCAL,
        "name": LOCAL,
        "environment_type": LOCAL,
        "matching": "any",
        "supervisor": null,
        "managed_by": null,
        "python": { "installations": python },
        "quarto": { "installations": [] },
        "r": { "installations": r },
        "nodejs": { "installations": nodejs },
        "tensorflow": { "installations": [] },
        "volume_mounts": [],
    })
}
