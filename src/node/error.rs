//! Why a request fails: a status, a text for the client, and one for the log.
//!
//! twine shows the reason phrase and nothing else, so over HTTP/1 the text is the reason phrase too.

use std::io::ErrorKind;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use hyper::ext::ReasonPhrase;

use super::blob::BlobError;
use super::store::StoreError;

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    message: String,
}

/// What a node that ends says.
const LEAVES: &str = "This node is leaving; another one serves";

impl Failure {
    /// With this status and one sentence for people.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("There is no {what}"))
    }

    /// 401 for nobody.
    pub fn needs_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "An API key is needed: user __token__, the key as password")
    }

    /// 401 for a wrong key.
    pub fn wrong_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "The API key does not hold (any more)")
    }

    /// 401 for a wrong name or password.
    pub fn wrong_password() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "There is no such user, or this is not their password")
    }

    /// 401 for a signed request.
    pub fn wrong_signature(why: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, why)
    }

    /// 403.
    pub fn forbidden(why: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, why.to_string())
    }

    /// 503 of a node that is about to end.
    pub fn leaving() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, LEAVES)
    }

    /// Whether it is that one.
    pub fn is_leaving(&self) -> bool {
        self.message == LEAVES
    }

    /// 429.
    pub fn too_many_wrong_keys() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many wrong API keys or passwords; wait a minute")
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "the database does not answer");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer; try again in a moment")
            }
            StoreError::NoPrimary => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "The database takes no writes now; try again in a moment")
            }
            StoreError::BeingDeleted | StoreError::Deleted => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "An old copy of the file is being deleted; try again in a moment",
            ),
            StoreError::Taken => Self::new(StatusCode::CONFLICT, "There is one of this name already"),
            StoreError::Missing => Self::not_found("such thing"),
            StoreError::InUse => Self::new(StatusCode::CONFLICT, "Something else needs it"),
            StoreError::Broken(_)
            | StoreError::Schema(_)
            | StoreError::Migration(_)
            // Found at the start, or while a node looks for another server: not by a request.
            | StoreError::Untrusted { .. } => {
                tracing::error!(error = %error, "a query failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The server failed; its log says why")
            }
        }
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Unavailable(source) => unavailable("storage", &source),
            // A row names it, so it must be there: losing it is the worst there is.
            BlobError::Missing(digest) => {
                tracing::error!(%digest, "a blob that a row names is not there");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The file is lost; the server's log says which")
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        unavailable("cache's disk", &error)
    }
}

/// 503 for what may work again later.
fn unavailable(what: &str, source: &std::io::Error) -> Failure {
    tracing::warn!(error = %source, "the {what} does not take or give bytes");
    let message = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "The server has no space left; try again when its administrator has made some"
        }
        ErrorKind::ReadOnlyFilesystem => "The server's storage is read-only now; try again later",
        _ => "The storage does not answer; try again in a moment",
    };
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(format!("{}\n", self.message)));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"bowline\", charset=\"UTF-8\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                fields.insert(RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        if let Ok(reason) = ReasonPhrase::try_from(phrase(&self.message)) {
            response.extensions_mut().insert(reason);
        }
        response
    }
}

/// What a status line can carry (RFC 9112 §4): visible ASCII and blanks, and not too much of it.
fn phrase(message: &str) -> Vec<u8> {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c as u8 } else { b'?' };
    message.chars().take(200).map(visible).collect()
}
