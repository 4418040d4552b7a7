//! What administrators do, as HTTP: `/__api__/v1/…`. The commands of this program speak it, from anywhere with an API key, or
//! on a node's own machine without (see [`crate::node::operator`]).

mod audit;
mod blocks;
mod jobs;
mod keys;
mod packages;
mod repos;
mod sources;
mod stats;
mod users;

use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{StatusCode, request};
use serde_json::json;

use super::auth::Caller;
use super::error::Failure;
use super::parts::{Origin, Parts};
use super::store::{Deed, Scope};
use crate::telemetry::Timestamp;

/// The routes below `/__api__/v1`.
pub fn router() -> Router<Parts> {
    Router::new()
        .route("/whoami", get(keys::whoami))
        .route("/repos", get(repos::list).post(repos::create))
        .route("/repos/{repo}", get(repos::show).patch(repos::change).delete(repos::remove))
        .route("/repos/{repo}/blocks", get(blocks::list).post(blocks::create))
        .route("/repos/{repo}/blocks/{package}", delete(blocks::remove))
        .route("/repos/{repo}/stats", get(stats::show))
        .route("/repos/{repo}/packages", get(packages::list))
        .route("/repos/{repo}/packages/{package}", patch(packages::status).get(packages::show).delete(packages::remove))
        .route("/repos/{repo}/packages/{package}/yank", post(packages::yank))
        .route("/repos/{repo}/packages/{package}/archive", post(packages::archive))
        .route("/sources", get(sources::list).post(sources::create))
        .route("/sources/{source}", patch(sources::change).delete(sources::remove))
        .route("/sources/{source}/sync", post(sources::sync))
        .route("/user", get(users::current))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{user}", get(users::show).put(users::change).delete(users::remove))
        .route("/users/{user}/lock", post(users::lock))
        .route("/users/{user}/password", post(users::password))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/jobs", get(jobs::list).post(jobs::create))
        .route("/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/jobs/{id}/log", get(jobs::log))
        .route("/hold", get(jobs::hold).put(jobs::set_hold))
        .route("/audit", get(audit::list))
}

/// Who manages, from where.
struct Manager {
    caller: Caller,
    address: Option<String>,
}

impl FromRequestParts<Parts> for Manager {
    type Rejection = ApiFailure;

    async fn from_request_parts(request: &mut request::Parts, parts: &Parts) -> Result<Self, ApiFailure> {
        let origin = request.extensions.get::<Origin>().copied().unwrap_or_default();
        let caller = parts.auth.caller(&request.headers, origin).await?;
        if matches!(caller, Caller::Anonymous) {
            return Err(Failure::needs_key().into());
        }
        Ok(Self { caller, address: origin.address.map(|ip| ip.to_string()) })
    }
}

impl Manager {
    /// Allows this in a repository, or refuses.
    fn may(&self, scope: Scope, repository: &str) -> Result<(), Failure> {
        if self.caller.may(scope, repository) {
            return Ok(());
        }
        Err(self.caller.refused(format_args!("{} in `{repository}`", verb(scope))))
    }

    /// Allows what concerns no single repository, or refuses.
    fn may_everywhere(&self, scope: Scope) -> Result<(), Failure> {
        if self.caller.may_everywhere(scope) {
            return Ok(());
        }
        Err(self.caller.refused(format_args!("{} for all repositories", verb(scope))))
    }

    fn deed<'a>(&'a self, action: &'static str, subject: &'a str, detail: &'a str) -> Deed<'a> {
        Deed { who: self.caller.name(), address: self.address.as_deref(), action, subject, detail }
    }
}

fn verb(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Publish => "publish",
        Scope::Admin => "administrate",
    }
}

/// A [`Failure`] as this API tells it.
struct ApiFailure(Failure);

impl<E: Into<Failure>> From<E> for ApiFailure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        // Posit Connect's numbers, which its clients know.
        let code = match self.0.status() {
            StatusCode::UNAUTHORIZED => 30,
            StatusCode::FORBIDDEN => 22,
            StatusCode::NOT_FOUND => 4,
            _ => 0,
        };
        let text = json!({ "code": code, "error": self.0.message(), "payload": null }).to_string();
        let mut response = self.0.into_response();
        *response.body_mut() = text.into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// A body or query that was read, or why not.
fn read<T, E: Told>(read: Result<T, E>) -> Result<T, Failure> {
    read.map_err(|error| Failure::bad(error.told()))
}

trait Told {
    fn told(&self) -> String;
}

impl Told for JsonRejection {
    fn told(&self) -> String {
        self.body_text()
    }
}

impl Told for QueryRejection {
    fn told(&self) -> String {
        self.body_text()
    }
}

/// What handlers take a JSON body as.
type Body<T> = Result<axum::Json<T>, JsonRejection>;
/// What handlers take a query as.
type Query<T> = Result<axum::extract::Query<T>, QueryRejection>;
/// What handlers give.
type Answer = Result<axum::Json<serde_json::Value>, ApiFailure>;

/// Microseconds since 1970 as RFC 3339.
fn time(micros: i64) -> String {
    Timestamp::from_unix(Duration::from_micros(micros.unsigned_abs())).to_string()
}

/// A name in URLs: of a repository, of a source.
fn check_name(name: &str, what: &str) -> Result<(), Failure> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) || name.starts_with(['.', '_']) {
        return Err(Failure::bad(format!(
            "`{name}` is no name of a {what}: letters, digits, `.`, `_` and `-`, up to 64, beginning with none of `.` and `_`"
        )));
    }
    Ok(())
}
