//! `/repos`.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::check_name;
use crate::node::api::{Answer, ApiFailure, Body, Manager, read};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{Language, Scope, StoreError, Subscribed};

fn told((repository, sources): &Subscribed) -> Value {
    json!({
        "name": repository.name,
        "type": repository.language.as_str(),
        "private": !repository.anonymous_read,
        "sources": sources.iter().map(|source| &source.name).collect::<Vec<_>>(),
        "path": format!("/packages/{}/", repository.name),
    })
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    let all = parts.store.repositories().await?;
    let seen = all
        .iter()
        .filter(|(repository, _)| repository.anonymous_read || manager.caller.may(Scope::Read, &repository.name));
    Ok(Json(seen.map(told).collect()))
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(name): Path<String>) -> Answer {
    manager.may(Scope::Read, &name)?;
    Ok(Json(told(&find(&parts, &name).await?)))
}

async fn find(parts: &Parts, name: &str) -> Result<Subscribed, Failure> {
    let all = parts.store.repositories().await?;
    let found = all.into_iter().find(|(repository, _)| repository.name == name);
    found.ok_or_else(|| Failure::not_found(format_args!("repository `{name}`")))
}

/// What a new repository is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    #[serde(rename = "type", default = "pypi")]
    language: String,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    sources: Vec<String>,
}

fn pypi() -> String {
    Language::Python.as_str().to_owned()
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Create>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Create { name, language, private, sources }) = read(body)?;
    check_name(&name, "repository")?;
    let language = language_of(&language)?;
    let deed = manager.deed("create_repository", &name, language.as_str());
    let made = parts.store.create_repository(&name, language, !private, &sources, &deed).await;
    made.map_err(|e| refused(e, &name))?;
    parts.catalog.refresh().await?;
    Ok(Json(told(&find(&parts, &name).await?)))
}

pub(super) fn language_of(text: &str) -> Result<Language, Failure> {
    Language::parse(text).ok_or_else(|| Failure::bad(format!("`{text}` is no type of packages: `pypi` or `cran`")))
}

fn refused(error: StoreError, name: &str) -> ApiFailure {
    match error {
        StoreError::Taken => {
            Failure::new(http::StatusCode::CONFLICT, format!("There is a repository `{name}` already")).into()
        }
        StoreError::Missing => Failure::bad("One of the sources does not exist, or has another type").into(),
        other => other.into(),
    }
}

/// What changes; absent: as it was.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    private: Option<bool>,
    sources: Option<Vec<String>>,
}

pub(super) async fn change(
    State(parts): State<Parts>,
    manager: Manager,
    Path(name): Path<String>,
    body: Body<Change>,
) -> Answer {
    manager.may(Scope::Admin, &name)?;
    let Json(Change { private, sources }) = read(body)?;
    if sources.is_some() {
        // They may show what other repositories hide.
        manager.may_everywhere(Scope::Admin)?;
    }
    let detail = json!({ "private": private, "sources": sources }).to_string();
    let deed = manager.deed("change_repository", &name, &detail);
    let changed =
        parts.store.change_repository(&name, private.map(|private| !private), sources.as_deref(), &deed).await;
    if !changed.map_err(|e| refused(e, &name))? {
        return Err(Failure::not_found(format_args!("repository `{name}`")).into());
    }
    parts.catalog.refresh().await?;
    Ok(Json(told(&find(&parts, &name).await?)))
}

pub(super) async fn remove(State(parts): State<Parts>, manager: Manager, Path(name): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let deed = manager.deed("remove_repository", &name, "");
    if !parts.store.remove_repository(&name, &deed).await? {
        return Err(Failure::not_found(format_args!("repository `{name}`")).into());
    }
    parts.catalog.refresh().await?;
    Ok(Json(json!({ "removed": name })))
}
