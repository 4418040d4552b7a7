//! `/v1/content/{guid}/permissions`: who else may see or change content.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::own;
use crate::node::api::{Answer, ApiFailure, Body, Manager, read};
use crate::node::error::Failure;
use crate::node::manage::find_user;
use crate::node::parts::Parts;
use crate::node::store::{ContentRow, PermissionRow};

/// Permissions of one content.
const COUNT_MAX: usize = 1_000;

/// Who is to be allowed what.
#[derive(Debug, Deserialize)]
pub(in crate::node) struct Wish {
    principal_guid: String,
    principal_type: String,
    role: String,
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let all = parts.store.permissions(content.id).await?;
    Ok(Json(all.iter().map(|row| told(&content, row)).collect()))
}

pub(super) async fn show(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    Ok(Json(told(&content, &find(&parts, &content, &id).await?)))
}

pub(in crate::node) async fn create(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Wish>,
) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let Json(wish) = read(body)?;
    if parts.store.permissions(content.id).await?.len() >= COUNT_MAX {
        return Err(
            Failure::bad(format!("Content has up to {COUNT_MAX} permissions; make a group of its users")).into()
        );
    }
    let id = grant(&parts, &manager, &content, &wish).await?;
    Ok(Json(told(&content, &find(&parts, &content, &id.to_string()).await?)))
}

pub(super) async fn change(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
    body: Body<Wish>,
) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let Json(wish) = read(body)?;
    let old = find(&parts, &content, &id).await?;
    if (old.principal.as_str(), old.kind.as_str()) != (&wish.principal_guid, &wish.principal_type) {
        return Err(Failure::bad("Whose permission it is does not change; remove it and add another one").into());
    }
    grant(&parts, &manager, &content, &wish).await?;
    Ok(Json(told(&content, &find(&parts, &content, &id).await?)))
}

pub(in crate::node) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let old = find(&parts, &content, &id).await?;
    let detail = format!("{} {}", old.kind, old.name.as_deref().unwrap_or(&old.principal));
    parts.store.ungrant(content.id, old.id, &manager.deed("remove_permission", &content.name, &detail)).await?;
    parts.contents.forget(&content.guid);
    Ok(StatusCode::NO_CONTENT)
}

async fn grant(parts: &Parts, manager: &Manager, content: &ContentRow, wish: &Wish) -> Result<i64, Failure> {
    let Wish { principal_guid, principal_type, role } = wish;
    if !["viewer", "owner"].contains(&role.as_str()) {
        return Err(Failure::bad(format!("`{role}` is no role of a permission: `viewer` or `owner`")));
    }
    let (name, guid) = match principal_type.as_str() {
        "user" => {
            let user = find_user(parts, principal_guid).await?;
            (user.username, user.guid)
        }
        "group" => {
            let group = super::groups::find(parts, principal_guid).await?;
            (group.name, group.guid)
        }
        other => return Err(Failure::bad(format!("`{other}` is no `principal_type`: `user` or `group`"))),
    };
    if guid == content.owner {
        return Err(Failure::bad("Whose content it is may see and change it anyway"));
    }
    let detail = format!("{principal_type} {name}: {role}");
    let deed = manager.deed("set_permission", &content.name, &detail);
    let id = parts.store.grant(content.id, principal_type, &guid, role, &deed).await?;
    parts.contents.forget(&content.guid);
    Ok(id)
}

async fn find(parts: &Parts, content: &ContentRow, id: &str) -> Result<PermissionRow, Failure> {
    let none = || Failure::not_found(format_args!("permission `{id}` of this content"));
    let number: i64 = id.parse().map_err(|_| none())?;
    parts.store.permissions(content.id).await?.into_iter().find(|row| row.id == number).ok_or_else(none)
}

fn told(content: &ContentRow, row: &PermissionRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "content_guid": content.guid,
        "principal_guid": row.principal,
        "principal_type": row.kind,
        "role": row.role,
    })
}
