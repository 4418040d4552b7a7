//! `/keys`, and who one is.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Body, Manager, read, time};
use crate::node::auth::{self, Caller};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{NewKey, Scope};
use crate::runtime::clock;
use crate::types::HumanDuration;

pub(super) async fn whoami(manager: Manager) -> Answer {
    Ok(Json(match &manager.caller {
        Caller::Key(key) => json!({ "name": key.name, "scope": key.scope.as_str(), "repository": key.repository }),
        _ => json!({ "name": manager.caller.name(), "scope": "admin", "repository": null }),
    }))
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let keys = parts.store.keys().await?;
    let told = keys.into_iter().map(|key| {
        json!({
            "id": key.id.to_string(),
            "name": key.name,
            "scope": key.scope,
            "repository": key.repository,
            "created": time(key.created_at),
            "created_by": key.created_by,
            "expires": key.expires_at.map(time),
            "last_used": key.last_used_at.map(time),
        })
    });
    Ok(Json(told.collect()))
}

/// What a new key is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    scope: String,
    repository: Option<String>,
    /// From now, such as `30d`; absent: it never expires.
    expires_in: Option<String>,
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Create>) -> Answer {
    let Json(Create { name, scope, repository, expires_in }) = read(body)?;
    // Who administrates one repository makes keys for that one.
    match &repository {
        Some(repository) => manager.may(Scope::Admin, repository)?,
        None => manager.may_everywhere(Scope::Admin)?,
    }
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Failure::bad("A key needs a name of up to 100 characters").into());
    }
    let wrong = || Failure::bad(format!("`{scope}` is no scope: `read`, `publish` or `admin`"));
    let scope = Scope::parse(&scope).ok_or_else(wrong)?;
    if let Some(repository) = &repository {
        parts.catalog.refresh().await?;
        parts.catalog.find(repository)?;
    }
    let expires_at = expires_in.map(|text| from_now(&text)).transpose()?;
    let key = auth::new_key();
    let hash = auth::hash(key.expose());
    let new = NewKey { name: &name, hash: &hash, scope, repository: repository.as_deref(), expires_at };
    let detail = format!("{} {}", scope.as_str(), repository.as_deref().unwrap_or("*"));
    parts.store.create_key(new, &manager.deed("create_key", &name, &detail)).await?;
    Ok(Json(json!({
        "name": name,
        "scope": scope.as_str(),
        "repository": repository,
        "expires": expires_at.map(time),
        "key": key.expose(),
    })))
}

/// So long from now, `30d`, in microseconds since 1970.
pub(super) fn from_now(text: &str) -> Result<i64, Failure> {
    let after: HumanDuration =
        text.parse().map_err(|_| Failure::bad(format!("`{text}` is no duration, such as `30d`")))?;
    let at = clock::unix().checked_add(after.get()).filter(|_| after.get() > Duration::ZERO);
    let at = at.and_then(|at| i64::try_from(at.as_micros()).ok());
    at.ok_or_else(|| Failure::bad(format!("`{text}` is no time anything could hold for")))
}

pub(super) async fn revoke(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let missing = || Failure::not_found(format_args!("API key `{id}`"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    let key = parts.store.keys().await?.into_iter().find(|key| key.id == number).ok_or_else(missing)?;
    match &key.repository {
        Some(repository) => manager.may(Scope::Admin, repository)?,
        None => manager.may_everywhere(Scope::Admin)?,
    }
    if !parts.store.revoke_key(number, &manager.deed("revoke_key", &key.name, &id)).await? {
        return Err(missing().into());
    }
    parts.auth.forget();
    Ok(Json(json!({ "revoked": key.name })))
}
