//! `/v1/content/{guid}/vanity`: where content is beside its guid.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::{own, visible};
use crate::node::api::{Answer, ApiFailure, Body, Manager, read, time};
use crate::node::content::{access, vanity};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{StoreError, VanityRow};

/// A path, and whether it is taken from content that has it.
#[derive(Debug, Deserialize)]
pub(in crate::node) struct Wish {
    path: String,
    #[serde(default)]
    force: bool,
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    let content = visible(&parts, &manager, &guid).await?;
    let found = parts.store.vanities().await?.into_iter().find(|row| row.guid == content.guid);
    let row = found.ok_or_else(|| Failure::not_found("path of this content beside its guid"))?;
    Ok(Json(told(&row)))
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(crate::node::store::Scope::Admin)?;
    Ok(Json(parts.store.vanities().await?.iter().map(told).collect()))
}

pub(in crate::node) async fn set(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Wish>,
) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let Json(Wish { path, force }) = read(body)?;
    let path = vanity::check(&path).map_err(Failure::bad)?;
    if let Some(folder) = &parts.settings.landing_dir {
        // Nobody hides a page of the operator's.
        let first = path.trim_matches('/').split('/').next().unwrap_or_default();
        if tokio::fs::symlink_metadata(folder.join(first)).await.is_ok() {
            let why = format!("`{path}` is a page of this server's own (`landing_dir`); choose another path");
            return Err(Failure::new(StatusCode::CONFLICT, why).into());
        }
    }
    let all = parts.store.vanities().await?;
    let holder = all.iter().find(|row| row.path.eq_ignore_ascii_case(&path) && row.guid != content.guid);
    if let (Some(holder), true) = (holder, force) {
        // It is taken from others by who could take it away from them.
        let other = parts.store.content(&holder.guid).await?;
        if other.is_some_and(|other| !access::may_change(manager.viewer(), &other)) {
            return Err(manager.caller.refused("take this path from other content").into());
        }
    }
    let deed = manager.deed("set_vanity", &content.name, &path);
    parts.store.set_vanity(content.id, &path, force, &deed).await.map_err(|error| match error {
        StoreError::Taken => Failure::new(
            StatusCode::CONFLICT,
            format!("Other content is at `{path}`, or above or below it; `force` takes a path that is the same"),
        ),
        other => other.into(),
    })?;
    parts.contents.forget(&content.guid);
    if let Some(holder) = holder {
        parts.contents.forget(&holder.guid);
    }
    show(State(parts), manager, Path(guid)).await
}

pub(in crate::node) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
) -> Result<StatusCode, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    parts.store.remove_vanity(content.id, &manager.deed("remove_vanity", &content.name, &guid)).await?;
    parts.contents.forget(&content.guid);
    Ok(StatusCode::NO_CONTENT)
}

fn told(row: &VanityRow) -> Value {
    json!({ "content_guid": row.guid, "path": row.path, "created_time": time(row.created_at) })
}
