//! `/users`, and who one is, in the shapes of Posit Connect's API.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::node::api::{Answer, Body, Manager, Query, read, time};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::{Change, Profile, Role, Scope, StoreError, User};
use crate::runtime::dice;

/// Users on a page, where the client does not say.
const PAGE: usize = 100;
/// Users on a page at most.
const PAGE_MAX: usize = 500;

/// A page of users.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// What a name or address begins with.
    prefix: Option<String>,
    /// From 1.
    page_number: Option<usize>,
    page_size: Option<usize>,
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, query: Query<Wanted>) -> Answer {
    manager.may_everywhere(Scope::Publish)?;
    let axum::extract::Query(Wanted { prefix, page_number, page_size }) = read(query)?;
    let prefix = prefix.unwrap_or_default().to_lowercase();
    let begins = |text: &str| text.to_lowercase().starts_with(&prefix);
    let mut users = parts.store.users().await?;
    users
        .retain(|user| [&user.username, &user.first_name, &user.last_name, &user.email].into_iter().any(|t| begins(t)));
    let (page, size) = (page_number.unwrap_or(1).max(1), page_size.unwrap_or(PAGE).clamp(1, PAGE_MAX));
    let shown: Vec<Value> = users.iter().skip((page - 1).saturating_mul(size)).take(size).map(told).collect();
    Ok(Json(json!({ "results": shown, "current_page": page, "total": users.len() })))
}

/// What a user is to be; absent: as it is.
#[derive(Debug, Default, Deserialize)]
pub(in crate::node) struct Wish {
    username: Option<String>,
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    user_role: Option<String>,
    /// Only of a new user.
    password: Option<String>,
}

pub(in crate::node) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Wish>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(mut wish) = read(body)?;
    let username = wish.username.take().ok_or_else(|| Failure::bad("A user needs a `username`"))?.to_lowercase();
    let password = match wish.password.take() {
        Some(password) => Some(parts.auth.hash_password(password).await?),
        None => None,
    };
    let role = role(wish.user_role.as_deref())?.unwrap_or(Role::Viewer);
    let profile = Profile {
        username: &username,
        email: wish.email.as_deref().unwrap_or_default(),
        first_name: wish.first_name.as_deref().unwrap_or_default(),
        last_name: wish.last_name.as_deref().unwrap_or_default(),
        role,
    };
    check(&profile)?;
    let guid = dice::guid();
    let deed = manager.deed("create_user", &username, role.as_str());
    parts.store.create_user(&guid, profile, password.as_deref(), &deed).await.map_err(|e| taken(e, &username))?;
    Ok(Json(told(&find(&parts, &guid).await?)))
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(user): Path<String>) -> Answer {
    let is_self = manager.caller.user().is_some_and(|own| own.guid == user || own.username == user.to_lowercase());
    if !is_self {
        manager.may_everywhere(Scope::Publish)?;
    }
    Ok(Json(told(&find(&parts, &user).await?)))
}

pub(in crate::node) async fn change(
    State(parts): State<Parts>,
    manager: Manager,
    Path(user): Path<String>,
    body: Body<Wish>,
) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(wish) = read(body)?;
    if wish.password.is_some() {
        return Err(Failure::bad("A password is changed by POST to `password` below the user").into());
    }
    let user = find(&parts, &user).await?;
    let username = wish.username.map(|name| name.to_lowercase());
    let role = role(wish.user_role.as_deref())?;
    let change = Change {
        username: username.as_deref(),
        email: wish.email.as_deref(),
        first_name: wish.first_name.as_deref(),
        last_name: wish.last_name.as_deref(),
        role,
    };
    check(&Profile {
        username: change.username.unwrap_or(&user.username),
        email: change.email.unwrap_or(&user.email),
        first_name: change.first_name.unwrap_or(&user.first_name),
        last_name: change.last_name.unwrap_or(&user.last_name),
        role: role.unwrap_or(user.role),
    })?;
    let said = [
        ("username", change.username),
        ("email", change.email),
        ("first_name", change.first_name),
        ("last_name", change.last_name),
        ("role", role.map(Role::as_str)),
    ];
    let said: Vec<String> = said.iter().filter_map(|(name, to)| Some(format!("{name}={}", (*to)?))).collect();
    let detail = said.join(" ");
    let deed = manager.deed("change_user", &user.username, &detail);
    let changed = parts.store.change_user(user.id, change, &deed).await;
    changed.map_err(|e| taken(e, change.username.unwrap_or(&user.username)))?;
    parts.auth.forget();
    parts.sessions.forget();
    Ok(Json(told(&find(&parts, &user.guid).await?)))
}

/// Whether a user is locked out.
#[derive(Debug, Deserialize)]
pub(in crate::node) struct Lock {
    locked: bool,
}

pub(in crate::node) async fn lock(
    State(parts): State<Parts>,
    manager: Manager,
    Path(user): Path<String>,
    body: Body<Lock>,
) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Lock { locked }) = read(body)?;
    let user = find(&parts, &user).await?;
    let deed = manager.deed(if locked { "lock_user" } else { "unlock_user" }, &user.username, "");
    parts.store.lock_user(user.id, locked, &deed).await?;
    parts.auth.forget();
    parts.sessions.forget();
    Ok(Json(told(&find(&parts, &user.guid).await?)))
}

/// Another password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::node) struct Password {
    /// `null`: nobody logs in as this user with one any more.
    password: Option<String>,
}

pub(in crate::node) async fn password(
    State(parts): State<Parts>,
    manager: Manager,
    Path(user): Path<String>,
    body: Body<Password>,
) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Password { password }) = read(body)?;
    let user = find(&parts, &user).await?;
    let hash = match password {
        Some(password) => Some(parts.auth.hash_password(password).await?),
        None => None,
    };
    parts.store.set_password(user.id, hash.as_deref(), &manager.deed("set_password", &user.username, "")).await?;
    parts.auth.forget();
    parts.sessions.forget();
    Ok(Json(told(&find(&parts, &user.guid).await?)))
}

pub(in crate::node) async fn remove(State(parts): State<Parts>, manager: Manager, Path(user): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let user = find(&parts, &user).await?;
    let removed = parts.store.remove_user(user.id, &manager.deed("remove_user", &user.username, &user.guid)).await;
    removed.map_err(|error| match error {
        StoreError::InUse => Failure::new(
            StatusCode::CONFLICT,
            format!("Content of `{}` is there; remove it first, or lock the user instead", user.username),
        ),
        other => other.into(),
    })?;
    parts.auth.forget();
    parts.sessions.forget();
    Ok(Json(json!({ "removed": user.username })))
}

/// The user of this guid or name.
///
/// # Errors
/// 404, 503.
pub async fn find(parts: &Parts, user: &str) -> Result<User, Failure> {
    parts.store.user(user).await?.ok_or_else(|| Failure::not_found(format_args!("user `{user}`")))
}

/// A user as clients want it.
pub fn told(user: &User) -> Value {
    json!({
        "guid": user.guid,
        "username": user.username,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "user_role": user.role.as_str(),
        "created_time": time(user.created_at),
        "updated_time": time(user.updated_at),
        "active_time": user.active_at.map(time),
        "confirmed": user.has_password,
        "locked": user.locked_at.is_some(),
    })
}

fn role(text: Option<&str>) -> Result<Option<Role>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || Failure::bad(format!("`{text}` is no role: `viewer`, `publisher` or `administrator`"));
    Role::parse(text).map(Some).ok_or_else(wrong)
}

fn check(profile: &Profile<'_>) -> Result<(), Failure> {
    let name = profile.username;
    if !User::is_name(name) {
        return Err(Failure::bad(format!(
            "`{name}` is no user name: letters, digits, `.`, `_`, `-`, `+` and `@`, up to 100, beginning with a letter or digit"
        )));
    }
    for (what, text) in
        [("an address", profile.email), ("a first name", profile.first_name), ("a last name", profile.last_name)]
    {
        if text.len() > 200 || text.chars().any(char::is_control) {
            return Err(Failure::bad(format!("{what} has up to 200 characters and no control characters")));
        }
    }
    if !profile.email.is_empty() && !profile.email.contains('@') {
        return Err(Failure::bad(format!("`{}` is no mail address", profile.email)));
    }
    Ok(())
}

fn taken(error: StoreError, username: &str) -> Failure {
    match error {
        StoreError::Taken => Failure::new(StatusCode::CONFLICT, format!("There is a user `{username}` already")),
        other => other.into(),
    }
}
