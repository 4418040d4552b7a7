//! `/keys`, and who one is.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::users::find;
use crate::node::api::{Answer, Body, Manager, read, time};
use crate::node::auth::{self, Caller};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{NewKey, Scope, User};
use crate::runtime::clock;
use crate::types::HumanDuration;

pub(super) async fn whoami(manager: Manager) -> Answer {
    Ok(Json(match &manager.caller {
        Caller::Key(key) => json!({
            "name": key.name,
            "user": key.user.as_ref().map(|user| &user.username),
            "scope": key.scope.as_str(),
            "repository": key.repository,
        }),
        Caller::User(user) => json!({
            "name": user.username, "user": user.username, "scope": user.role.scope().as_str(), "repository": null,
        }),
        Caller::Client(_) | Caller::Host | Caller::Anonymous => {
            json!({ "name": manager.caller.name(), "user": null, "scope": "admin", "repository": null })
        }
    }))
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    let own = match (manager.may_everywhere(Scope::Admin), manager.caller.user()) {
        (Ok(()), _) => None,
        (Err(_), Some(user)) if manager.caller.is_whole() => Some(user.username.clone()),
        (Err(refused), _) => return Err(refused.into()),
    };
    let mut keys = parts.store.keys().await?;
    keys.retain(|key| own.is_none() || key.username == own);
    let told = keys.into_iter().map(|key| {
        json!({
            "id": key.id.to_string(),
            "name": key.name,
            "user": key.username,
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
pub(in crate::node) struct Create {
    name: String,
    /// Whose it is to be, by guid or name. Absent: the caller's, if they are a user.
    user: Option<String>,
    /// It is to be nobody's, and stay when who made it goes.
    #[serde(default)]
    program: bool,
    scope: String,
    repository: Option<String>,
    /// From now, such as `30d`; absent: it never expires.
    expires_in: Option<String>,
}

pub(in crate::node) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Create>) -> Answer {
    let Json(Create { name, user, program, scope, repository, expires_in }) = read(body)?;
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Failure::bad("A key needs a name of up to 100 characters").into());
    }
    let wrong = || Failure::bad(format!("`{scope}` is no scope: `read`, `publish` or `admin`"));
    let scope = Scope::parse(&scope).ok_or_else(wrong)?;
    if let Some(repository) = &repository {
        parts.catalog.refresh().await?;
        parts.catalog.find(repository)?;
    }
    let user = owner(&parts, &manager, user.as_deref(), program, scope, repository.as_deref()).await?;
    let expires_at = expires_in.map(|text| from_now(&text)).transpose()?;
    // What a key of theirs makes for a person ends with it.
    let expires_at = match &manager.caller {
        Caller::Key(own) if user.is_some() && own.user.is_some() => expires_at.into_iter().chain(own.expires_at).min(),
        _ => expires_at,
    };
    let key = auth::new_key();
    let hash = auth::hash(key.expose());
    let user_id = user.as_ref().map(|user| user.id);
    let new = NewKey { name: &name, user: user_id, hash: &hash, scope, repository: repository.as_deref(), expires_at };
    let username = user.map(|user| user.username);
    let whose = username.as_deref().map(|name| format!(" of {name}")).unwrap_or_default();
    let detail = format!("{} {}{whose}", scope.as_str(), repository.as_deref().unwrap_or("*"));
    parts.store.create_key(new, &manager.deed("create_key", &name, &detail)).await?;
    Ok(Json(json!({
        "name": name,
        "user": username,
        "scope": scope.as_str(),
        "repository": repository,
        "expires": expires_at.map(time),
        "key": key.expose(),
    })))
}

/// Whose key it will be, if the caller may make it. Who administrates one repository makes keys for that one; everybody makes
/// keys of their own, with a credential that allows all they may, so that one that was lost makes no others.
async fn owner(
    parts: &Parts,
    manager: &Manager,
    user: Option<&str>,
    program: bool,
    scope: Scope,
    repository: Option<&str>,
) -> Result<Option<User>, Failure> {
    if program && user.is_some() {
        return Err(Failure::bad("A key is a program's or a user's, not both"));
    }
    let administrates = match repository {
        Some(repository) => manager.may(Scope::Admin, repository),
        None => manager.may_everywhere(Scope::Admin),
    };
    let own = manager.caller.user();
    let is_own = |named: &str| own.is_some_and(|own| own.guid == named || own.username == named.to_lowercase());
    match (user, own) {
        (Some(named), _) if !is_own(named) => {
            manager.may_everywhere(Scope::Admin)?;
            find(parts, named).await.map(Some)
        }
        (_, Some(own)) if !program => {
            if administrates.is_err() && !manager.caller.is_whole() {
                return Err(manager.caller.refused("make other keys"));
            }
            match repository {
                Some(repository) => manager.may(scope, repository)?,
                None => manager.may_everywhere(scope)?,
            }
            Ok(Some(own.clone()))
        }
        _ => administrates.map(|()| None),
    }
}

/// So long from now, `30d`, in microseconds since 1970.
pub(super) fn from_now(text: &str) -> Result<i64, Failure> {
    let after: HumanDuration =
        text.parse().map_err(|_| Failure::bad(format!("`{text}` is no duration, such as `30d`")))?;
    let at = clock::unix().checked_add(after.get()).filter(|_| after.get() > Duration::ZERO);
    let at = at.and_then(|at| i64::try_from(at.as_micros()).ok());
    at.ok_or_else(|| Failure::bad(format!("`{text}` is no time anything could hold for")))
}

pub(in crate::node) async fn revoke(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let missing = || Failure::not_found(format_args!("API key `{id}`"));
    let number: i64 = id.parse().map_err(|_| missing())?;
    let key = parts.store.keys().await?.into_iter().find(|key| key.id == number).ok_or_else(missing)?;
    let is_own = manager.caller.is_whole()
        && key.username.is_some()
        && key.username.as_ref() == manager.caller.user().map(|user| &user.username);
    match &key.repository {
        _ if is_own => {}
        Some(repository) => manager.may(Scope::Admin, repository)?,
        None => manager.may_everywhere(Scope::Admin)?,
    }
    if !parts.store.revoke_key(number, &manager.deed("revoke_key", &key.name, &id)).await? {
        return Err(missing().into());
    }
    parts.auth.forget();
    Ok(Json(json!({ "revoked": key.name })))
}
