//! What Posit Connect has and this server has not, said so that its clients print it.

use std::time::Duration;

use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use http::header::USER_AGENT;
use http::{Method, StatusCode};
use serde_json::json;

use super::content::{own, visible};
use crate::node::api::{Answer, ApiFailure, Manager};
use crate::node::content::access;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::runtime::clock;

/// A client asks for Git right after it has made content for it.
const JUST_MADE: Duration = Duration::from_secs(10);

/// None: lists of what there is never any of.
pub(super) async fn none(_: Manager) -> Answer {
    Ok(Json(json!([])))
}

/// None of content that is there.
pub(super) async fn none_of(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    visible(&parts, &manager, &guid).await?;
    Ok(Json(json!([])))
}

/// Nothing is by this name.
pub(super) async fn nothing(_: Manager) -> ApiFailure {
    Failure::new(StatusCode::NOT_FOUND, "There is nothing of this name on this server").into()
}

/// Content that comes from no repository.
pub(super) async fn no_repository(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
) -> Result<(), ApiFailure> {
    visible(&parts, &manager, &guid).await?;
    Err(Failure::new(StatusCode::NOT_FOUND, "This content comes from no Git repository").into())
}

/// Git.
pub(super) async fn git(_: Manager) -> ApiFailure {
    lacks("does not deploy content from Git repositories; publish a folder with `rsconnect deploy`")
}

/// Git. `rsconnect deploy git` makes content first, as any deployment does, then says this, and gives up: what it made for that
/// alone goes with the refusal.
pub(super) async fn git_of(
    State(parts): State<Parts>,
    manager: Manager,
    fields: HeaderMap,
    Path(guid): Path<String>,
) -> Result<(), ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let is_rsconnect = fields.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"RSConnectPython/"));
    if is_rsconnect && access::owner(&manager.caller) == content.owner {
        let since = i64::try_from(clock::unix().saturating_sub(JUST_MADE).as_micros()).unwrap_or(i64::MAX);
        let deed = manager.deed("remove_content", &content.name, &guid);
        if parts.store.remove_untouched(content.id, since, &deed).await? {
            parts.contents.forget(&content.guid);
        }
    }
    Err(git(manager).await)
}

/// OAuth.
pub(super) async fn oauth(_: Manager) -> ApiFailure {
    lacks("has no OAuth integrations; give content what it needs as environment variables")
}

/// Other places where content could run.
pub(super) async fn environments(_: Manager) -> ApiFailure {
    lacks("runs content on its own nodes only; it has no other execution environments")
}

fn lacks(what: &str) -> ApiFailure {
    Failure::new(StatusCode::NOT_IMPLEMENTED, format!("This server {what}")).into()
}

/// Everything else.
pub(super) async fn call(method: Method, OriginalUri(at): OriginalUri) -> ApiFailure {
    Failure::new(StatusCode::NOT_FOUND, format!("This server has no call `{method} {}`", at.path())).into()
}
