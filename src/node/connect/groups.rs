//! `/v1/groups`: users who are allowed the same. Administrators say who is in which.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::node::api::{Answer, ApiFailure, Body, Manager, Query, read};
use crate::node::content::access;
use crate::node::error::Failure;
use crate::node::manage::{find_user, told_user};
use crate::node::parts::Parts;
use crate::node::store::{GroupRow, Scope, StoreError};
use crate::runtime::dice;

/// Groups on a page, where the client does not say, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 500;
/// Characters of a name.
const NAME_MAX: usize = 200;

/// A page of groups, or of members.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// What a name begins with.
    prefix: Option<String>,
    /// From 1.
    page_number: Option<usize>,
    page_size: Option<usize>,
}

impl Wanted {
    fn page(&self, all: &[Value]) -> Value {
        let (page, size) = (self.page_number.unwrap_or(1).max(1), self.page_size.unwrap_or(PAGE).clamp(1, PAGE_MAX));
        let shown: Vec<&Value> = all.iter().skip((page - 1).saturating_mul(size)).take(size).collect();
        json!({ "results": shown, "current_page": page, "total": all.len() })
    }
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, query: Query<Wanted>) -> Answer {
    manager.may_everywhere(Scope::Publish)?;
    let axum::extract::Query(wanted) = read(query)?;
    let prefix = wanted.prefix.as_deref().unwrap_or_default().to_lowercase();
    let mut all = parts.store.groups().await?;
    all.retain(|group| group.name.to_lowercase().starts_with(&prefix));
    let all: Vec<Value> = all.iter().map(told).collect();
    Ok(Json(wanted.page(&all)))
}

/// What a group is to be.
#[derive(Debug, Deserialize)]
pub(in crate::node) struct Wish {
    name: String,
}

pub(in crate::node) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Wish>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Wish { name }) = read(body)?;
    check(&name)?;
    let guid = dice::guid();
    let owner = access::owner(&manager.caller);
    let deed = manager.deed("create_group", &name, &guid);
    parts.store.create_group(&guid, &name, &owner, &deed).await.map_err(|error| taken(error, &name))?;
    Ok(Json(told(&find(&parts, &guid).await?)))
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(group): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Publish)?;
    Ok(Json(told(&find(&parts, &group).await?)))
}

pub(super) async fn rename(
    State(parts): State<Parts>,
    manager: Manager,
    Path(group): Path<String>,
    body: Body<Wish>,
) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Wish { name }) = read(body)?;
    check(&name)?;
    let group = find(&parts, &group).await?;
    let deed = manager.deed("rename_group", &group.name, &name);
    parts.store.rename_group(group.id, &name, &deed).await.map_err(|error| taken(error, &name))?;
    parts.auth.forget_groups();
    Ok(Json(told(&find(&parts, &group.guid).await?)))
}

pub(in crate::node) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path(group): Path<String>,
) -> Result<StatusCode, ApiFailure> {
    manager.may_everywhere(Scope::Admin)?;
    let group = find(&parts, &group).await?;
    parts.store.remove_group(group.id, &manager.deed("remove_group", &group.name, &group.guid)).await?;
    parts.auth.forget_groups();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn members(
    State(parts): State<Parts>,
    manager: Manager,
    Path(group): Path<String>,
    query: Query<Wanted>,
) -> Answer {
    manager.may_everywhere(Scope::Publish)?;
    let axum::extract::Query(wanted) = read(query)?;
    let group = find(&parts, &group).await?;
    let all: Vec<Value> = parts.store.members(group.id).await?.iter().map(told_user).collect();
    Ok(Json(wanted.page(&all)))
}

/// Who is to be in it.
#[derive(Debug, Deserialize)]
pub(in crate::node) struct Member {
    user_guid: String,
}

pub(in crate::node) async fn add(
    State(parts): State<Parts>,
    manager: Manager,
    Path(group): Path<String>,
    body: Body<Member>,
) -> Answer {
    let Json(Member { user_guid }) = read(body)?;
    let group = set(&parts, &manager, &group, &user_guid, true).await?;
    Ok(Json(json!({ "group_guid": group.guid, "user_guid": user_guid })))
}

pub(in crate::node) async fn take(
    State(parts): State<Parts>,
    manager: Manager,
    Path((group, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiFailure> {
    set(&parts, &manager, &group, &user, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set(parts: &Parts, manager: &Manager, group: &str, user: &str, is_in: bool) -> Result<GroupRow, Failure> {
    manager.may_everywhere(Scope::Admin)?;
    let (group, user) = (find(parts, group).await?, find_user(parts, user).await?);
    let action = if is_in { "add_member" } else { "remove_member" };
    let deed = manager.deed(action, &group.name, &user.username);
    parts.store.set_member(group.id, user.id, is_in, &deed).await?;
    parts.auth.forget_groups();
    Ok(group)
}

/// The group of this guid or name.
///
/// # Errors
/// 404, 503.
pub(in crate::node) async fn find(parts: &Parts, group: &str) -> Result<GroupRow, Failure> {
    parts.store.group(group).await?.ok_or_else(|| Failure::not_found(format_args!("group `{group}`")))
}

fn check(name: &str) -> Result<(), Failure> {
    let is_name = !name.trim().is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control);
    is_name.then_some(()).ok_or_else(|| Failure::bad(format!("A group has a name of up to {NAME_MAX} characters")))
}

fn taken(error: StoreError, name: &str) -> Failure {
    match error {
        StoreError::Taken => Failure::new(StatusCode::CONFLICT, format!("There is a group `{name}` already")),
        other => other.into(),
    }
}

fn told(group: &GroupRow) -> Value {
    json!({
        "guid": group.guid,
        "name": group.name,
        "owner_guid": group.owner,
        "gid": null,
        "members": group.members,
    })
}
