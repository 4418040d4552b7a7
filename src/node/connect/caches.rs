//! `/v1/system/caches/runtime`: environments that were made. Each node has its own, so each answers for itself.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::server::installation;
use crate::node::api::{Answer, ApiFailure, Body, Manager, read};
use crate::node::content::copies::Copies;
use crate::node::content::python;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::Scope;
use crate::runtime::machine;

/// As rows have it.
pub(super) const KIND: &str = "cache";
/// The only language whose environments are kept by its version.
const PYTHON: &str = "Python";
/// Where content runs: on the node itself.
pub(super) const LOCAL: &str = "Local";

/// Versions whose environments this node has.
pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let mut versions = versions(&parts).await?;
    versions.sort();
    versions.dedup();
    let told = |version: &String| json!({ "language": PYTHON, "version": version, "image_name": LOCAL });
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

/// Removes those of a version that nobody runs on, from this node.
pub(super) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    body: Body<Wanted>,
) -> Result<(StatusCode, Json<Value>), ApiFailure> {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Wanted { language, version, image_name, dry_run }) = read(body)?;
    let image = image_name.as_deref().unwrap_or(LOCAL);
    let is_there =
        language.eq_ignore_ascii_case(PYTHON) && image == LOCAL && versions(&parts).await?.contains(&version);
    let node = machine::name();
    if !is_there {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("The node {node} has no cache of {language} {version} ({image}); each node has its own"),
        )
        .into());
    }
    let mut told = json!({ "language": PYTHON, "version": version, "image_name": LOCAL, "task_id": null });
    if dry_run {
        return Ok((StatusCode::OK, Json(told)));
    }
    let (environments, of) = (parts.contents.environments.clone(), version.clone());
    let (gone, stayed) = blocking(move || clear(&environments, &of)).await?;
    let mut lines = vec![format!("Removed {gone} environments of {PYTHON} {version} from the node {node}")];
    if stayed > 0 {
        lines.push(format!("{stayed} stay, because something runs on them"));
    }
    lines.push("Other nodes have caches of their own, which are as they were".to_owned());
    let detail = format!("{PYTHON} {version} on {node}");
    let deed = manager.deed("clear_cache", &detail, &lines[0]);
    let task = parts.store.write_done(KIND, &detail, &lines, &lines[0], &deed).await?;
    told["task_id"] = task.to_string().into();
    Ok((StatusCode::ACCEPTED, Json(told)))
}

/// Removes environments of this version; how many went, and how many stayed. Blocks.
fn clear(environments: &Copies, version: &str) -> (usize, usize) {
    let all = environments.all();
    let of: Vec<_> = all.iter().filter(|path| python::made_for(path).as_deref() == Some(version)).collect();
    let gone = of.iter().filter(|path| environments.remove(path)).count();
    (gone, of.len() - gone)
}

async fn versions(parts: &Parts) -> Result<Vec<String>, Failure> {
    let environments = parts.contents.environments.clone();
    blocking(move || environments.all().iter().filter_map(|path| python::made_for(path)).collect()).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?)
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
