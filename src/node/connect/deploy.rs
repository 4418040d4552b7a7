//! `/v1/content/{guid}/deploy`: lets a node deploy a bundle.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bundles::find;
use super::content::{own, unlocked};
use crate::node::api::{ApiFailure, Body, Manager, read};
use crate::node::content::deploy::{self, Wanted};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{BundleRow, ContentRow, NewJob};
use crate::runtime::dice;

/// Which bundle.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Told {
    /// Absent or null: the one that runs, else the latest. R sends numbers.
    #[serde(default)]
    bundle_id: Option<Value>,
    /// `false`: it can be looked at, and what runs goes on running.
    #[serde(default)]
    activate: Option<bool>,
}

pub(super) async fn deploy(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Told>,
) -> Result<(StatusCode, Json<Value>), ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let Json(told) = read(body)?;
    let bundle = bundle(&parts, &content, told.bundle_id.as_ref()).await?;
    let task = begin(&parts, &manager, &content, &bundle, told.activate.unwrap_or(true)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "task_id": task }))))
}

/// Makes what a bundle needs, and changes nothing.
pub(super) async fn build(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Told>,
) -> Result<Json<Value>, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let Json(told) = read(body)?;
    let bundle = bundle(&parts, &content, told.bundle_id.as_ref()).await?;
    let task = begin(&parts, &manager, &content, &bundle, false).await?;
    Ok(Json(json!({ "task_id": task })))
}

/// The bundle that is meant.
///
/// # Errors
/// 404.
pub(super) async fn bundle(parts: &Parts, content: &ContentRow, id: Option<&Value>) -> Result<BundleRow, Failure> {
    match id {
        Some(Value::String(id)) => find(parts, content, id).await,
        Some(Value::Number(id)) => find(parts, content, &id.to_string()).await,
        _ => match content.bundle {
            Some(number) => find(parts, content, &number.to_string()).await,
            None => {
                let none = || Failure::bad("Nothing was uploaded to this content yet");
                parts.store.bundles(content.id).await?.into_iter().next().ok_or_else(none)
            }
        },
    }
}

/// Puts it into the queue; the task's id.
///
/// # Errors
/// 409 where content is locked, 503.
pub(in crate::node) async fn begin(
    parts: &Parts,
    manager: &Manager,
    content: &ContentRow,
    bundle: &BundleRow,
    activates: bool,
) -> Result<String, Failure> {
    unlocked(content)?;
    let wanted = Wanted {
        guid: content.guid.clone(),
        bundle: bundle.number,
        activates,
        who: manager.caller.name().to_owned(),
        // By one clock, whichever node was asked.
        at: parts.store.clock().await?,
    };
    let input = serde_json::to_string(&wanted).unwrap_or_default();
    // Each is a task of its own, also of the same bundle.
    let slot = format!("deploy/{:032x}", dice::unique());
    let job = NewJob { kind: deploy::KIND, subject: &content.guid, input: &input, slot: &slot };
    let detail = format!("bundle {}{}", bundle.number, if activates { "" } else { ", not activated" });
    let id = parts.store.enqueue(job, Some(&manager.deed("deploy", &content.name, &detail))).await?;
    parts.job_added.notify_one();
    let id = id.ok_or_else(|| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment"))?;
    Ok(id.to_string())
}
