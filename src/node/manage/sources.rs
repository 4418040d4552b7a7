//! `/sources`.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::repos::language_of;
use super::{Answer, Body, Manager, check_name, read};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{Scope, StoreError};

pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    let all = parts.store.sources().await?;
    let told = all.into_iter().map(|source| {
        let settings: Value = serde_json::from_str(&source.settings).unwrap_or_default();
        json!({ "name": source.name, "type": source.language, "kind": source.kind, "settings": settings })
    });
    Ok(Json(told.collect()))
}

/// What a new source is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    #[serde(rename = "type")]
    language: String,
    kind: String,
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Create>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Create { name, language, kind }) = read(body)?;
    check_name(&name, "source")?;
    let language = language_of(&language)?;
    if kind != "local" {
        return Err(Failure::bad(format!("`{kind}` is no kind of source: `local`")).into());
    }
    let deed = manager.deed("create_source", &name, &kind);
    parts.store.create_source(&name, language, &kind, "{}", &deed).await.map_err(|error| match error {
        StoreError::Taken => Failure::new(StatusCode::CONFLICT, format!("There is a source `{name}` already")),
        other => other.into(),
    })?;
    Ok(Json(json!({ "name": name, "type": language.as_str(), "kind": kind })))
}

pub(super) async fn remove(State(parts): State<Parts>, manager: Manager, Path(name): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let deed = manager.deed("remove_source", &name, "");
    let removed = parts.store.remove_source(&name, &deed).await.map_err(|error| match error {
        StoreError::InUse => Failure::new(
            StatusCode::CONFLICT,
            format!("A repository shows source `{name}`: take it out of there, or remove the repository, first"),
        ),
        other => other.into(),
    })?;
    if !removed {
        return Err(Failure::not_found(format_args!("source `{name}`")).into());
    }
    Ok(Json(json!({ "removed": name })))
}
