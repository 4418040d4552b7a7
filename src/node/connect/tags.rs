//! `/v1/tags` and `/v1/content/{guid}/tags`: words that content is sorted by. Administrators make them, publishers use them.

use std::collections::{HashMap, HashSet};

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::{own, tell_all, visible};
use crate::node::api::{Answer, ApiFailure, Body, Manager, Query, read, time};
use crate::node::content::access;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{Scope, StoreError, TagRow};

/// Characters of a name.
const NAME_MAX: usize = 200;

/// Which tags.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    name: Option<String>,
    parent_id: Option<String>,
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, query: Query<Wanted>) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    let axum::extract::Query(Wanted { name, parent_id }) = read(query)?;
    let mut all = parts.store.tags().await?;
    all.retain(|tag| name.as_ref().is_none_or(|name| tag.name == *name));
    if let Some(parent) = &parent_id {
        all.retain(|tag| tag.parent.map(|parent| parent.to_string()).as_ref() == Some(parent));
    }
    Ok(Json(all.iter().map(told).collect()))
}

/// What a tag is to be.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    name: String,
    parent_id: Option<String>,
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Wish>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Wish { name, parent_id }) = read(body)?;
    check(&name)?;
    let parent = match &parent_id {
        Some(id) => Some(find(&parts, id).await?.number),
        None => None,
    };
    let number = parts.store.create_tag(&name, parent, &manager.deed("create_tag", &name, "")).await?;
    Ok(Json(told(&find(&parts, &number.to_string()).await?)))
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    Ok(Json(told(&find(&parts, &id).await?)))
}

/// Another name.
#[derive(Debug, Deserialize)]
pub(super) struct Rename {
    name: String,
}

pub(super) async fn rename(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    body: Body<Rename>,
) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Rename { name }) = read(body)?;
    check(&name)?;
    let tag = find(&parts, &id).await?;
    parts.store.rename_tag(tag.number, &name, &manager.deed("rename_tag", &tag.name, &name)).await?;
    Ok(Json(told(&find(&parts, &id).await?)))
}

pub(super) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiFailure> {
    manager.may_everywhere(Scope::Admin)?;
    let tag = find(&parts, &id).await?;
    let removed = parts.store.remove_tag(tag.number, &manager.deed("remove_tag", &tag.name, &id)).await;
    removed.map_err(|error| match error {
        StoreError::InUse => Failure::new(StatusCode::CONFLICT, "There are tags below this one; remove them first"),
        other => other.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// Content that has a tag.
pub(super) async fn contents(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let tag = find(&parts, &id).await?;
    let tagged = parts.store.tagged(None, Some(tag.number)).await?;
    let tagged: HashSet<i64> = tagged.into_iter().map(|(content, _)| content).collect();
    let mut all = parts.store.contents(None, None).await?;
    all.retain(|content| tagged.contains(&content.id) && access::may_see(manager.viewer(), content));
    Ok(Json(tell_all(&parts, &parts.base(&fields, origin), &manager, &all).await?.into()))
}

pub(super) async fn of_content(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    let content = visible(&parts, &manager, &guid).await?;
    let mut found = by_content(&parts, Some(content.id)).await?;
    Ok(Json(found.remove(&content.id).unwrap_or_default().into()))
}

/// Tags by the row of content they are of: of all content, or of one.
///
/// # Errors
/// 503.
pub(super) async fn by_content(parts: &Parts, content: Option<i64>) -> Result<HashMap<i64, Vec<Value>>, Failure> {
    let tagged = parts.store.tagged(content, None).await?;
    let mut found: HashMap<i64, Vec<Value>> = HashMap::new();
    if tagged.is_empty() {
        return Ok(found);
    }
    let tags: HashMap<i64, Value> = parts.store.tags().await?.iter().map(|tag| (tag.number, told(tag))).collect();
    for (content, tag) in tagged {
        found.entry(content).or_default().extend(tags.get(&tag).cloned());
    }
    Ok(found)
}

/// A tag by its number.
#[derive(Debug, Deserialize)]
pub(super) struct Chosen {
    tag_id: String,
}

pub(super) async fn add(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Chosen>,
) -> Result<StatusCode, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let Json(Chosen { tag_id }) = read(body)?;
    let tag = find(&parts, &tag_id).await?;
    parts.store.set_tag(content.id, tag.number, true, &manager.deed("add_tag", &content.name, &tag.name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn take(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let tag = find(&parts, &id).await?;
    parts.store.set_tag(content.id, tag.number, false, &manager.deed("remove_tag", &content.name, &tag.name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(parts: &Parts, id: &str) -> Result<TagRow, Failure> {
    let none = || Failure::not_found(format_args!("tag `{id}`"));
    let number: i64 = id.parse().map_err(|_| none())?;
    parts.store.tags().await?.into_iter().find(|tag| tag.number == number).ok_or_else(none)
}

fn check(name: &str) -> Result<(), Failure> {
    let is_name = !name.trim().is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control);
    is_name.then_some(()).ok_or_else(|| Failure::bad(format!("A tag has a name of up to {NAME_MAX} characters")))
}

fn told(tag: &TagRow) -> Value {
    json!({
        "id": tag.number.to_string(),
        "name": tag.name,
        "parent_id": tag.parent.map(|parent| parent.to_string()),
        "created_time": time(tag.created_at),
        "updated_time": time(tag.updated_at),
    })
}
