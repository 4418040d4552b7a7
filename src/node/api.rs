//! What the handlers of our HTTP APIs share: who calls, how bodies are read, how failures are told.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{StatusCode, request};
use serde_json::json;

use super::auth::Caller;
use super::content::access::{Groups, Viewer};
use super::error::Failure;
use super::parts::{Origin, Parts};
use super::signature::Signer;
use super::store::{Deed, Scope};
use crate::telemetry::Timestamp;

/// Who manages, from where.
#[derive(Clone)]
pub struct Manager {
    /// Who it is.
    pub caller: Caller,
    /// Where they are; `None`: on this machine.
    pub address: Option<String>,
    /// Groups they are in.
    pub groups: Groups,
}

impl FromRequestParts<Parts> for Manager {
    type Rejection = ApiFailure;

    async fn from_request_parts(request: &mut request::Parts, parts: &Parts) -> Result<Self, ApiFailure> {
        let origin = request.extensions.get::<Origin>().copied().unwrap_or_default();
        let caller = match request.extensions.get::<Signer>() {
            Some(Signer(caller)) => caller.clone(),
            None => parts.auth.caller(&request.headers, origin).await?,
        };
        // What a browser remembers of a person it sends for every script of this origin, content's too.
        let fields = &request.headers;
        let is_browser =
            ["sec-fetch-site", "sec-fetch-mode", "origin", "referer"].iter().any(|name| fields.contains_key(*name));
        let is_basic = fields
            .get(AUTHORIZATION)
            .is_some_and(|value| value.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic")));
        if is_browser && is_basic {
            return Err(Failure::forbidden("This API takes no passwords from browsers; use an API key").into());
        }
        if matches!(caller, Caller::Anonymous) {
            return Err(Failure::needs_key().into());
        }
        Ok(Self::new(parts, caller, origin).await?)
    }
}

impl Manager {
    /// Who has shown who they are.
    ///
    /// # Errors
    /// 503.
    pub async fn new(parts: &Parts, caller: Caller, origin: Origin) -> Result<Self, Failure> {
        let groups = parts.auth.groups(&caller).await?;
        Ok(Self { caller, address: origin.address.map(|ip| ip.to_string()), groups })
    }

    /// As whom content knows them.
    pub fn viewer(&self) -> Viewer<'_> {
        Viewer { caller: &self.caller, groups: &self.groups }
    }

    /// Allows this in a repository, or refuses.
    ///
    /// # Errors
    /// 401, 403.
    pub fn may(&self, scope: Scope, repository: &str) -> Result<(), Failure> {
        if self.caller.may(scope, repository) {
            return Ok(());
        }
        Err(self.caller.refused(format_args!("{} in `{repository}`", verb(scope))))
    }

    /// Allows what concerns no single repository, or refuses.
    ///
    /// # Errors
    /// 401, 403.
    pub fn may_everywhere(&self, scope: Scope) -> Result<(), Failure> {
        if self.caller.may_everywhere(scope) {
            return Ok(());
        }
        Err(self.caller.refused(format_args!("{} for all repositories", verb(scope))))
    }

    /// What they do, for the audit log.
    pub fn deed<'a>(&'a self, action: &'static str, subject: &'a str, detail: &'a str) -> Deed<'a> {
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
pub struct ApiFailure(Failure);

impl ApiFailure {
    /// As others tell it.
    pub fn into_failure(self) -> Failure {
        self.0
    }
}

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
///
/// # Errors
/// 400.
pub fn read<T, E: Told>(read: Result<T, E>) -> Result<T, Failure> {
    read.map_err(|error| Failure::bad(error.told()))
}

/// Why a body or query could not be read.
pub trait Told {
    /// In a sentence.
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
pub type Body<T> = Result<axum::Json<T>, JsonRejection>;
/// What handlers take a query as.
pub type Query<T> = Result<axum::extract::Query<T>, QueryRejection>;
/// What handlers give.
pub type Answer = Result<axum::Json<serde_json::Value>, ApiFailure>;

/// Microseconds since 1970 as RFC 3339.
pub fn time(micros: i64) -> String {
    Timestamp::from_unix(Duration::from_micros(micros.unsigned_abs())).to_string()
}
