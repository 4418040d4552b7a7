//! What Posit Connect has and this server has not, said so that its clients print it.

use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use http::{Method, StatusCode};
use serde_json::json;

use super::content::visible;
use crate::node::api::{Answer, ApiFailure, Manager};
use crate::node::error::Failure;
use crate::node::parts::Parts;

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
