//! What pages are made of beside themselves: in the program, so that they need nothing from elsewhere.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use crate::node::error::Failure;

/// A file, and what changes with the program.
type Asset = (&'static str, &'static str);

/// How pages look.
pub(super) const STYLE: Asset = (include_str!("style.css"), env!("CARGO_PKG_VERSION"));
/// What they do: copying lines, and following logs. They work without.
pub(super) const SCRIPT: Asset = (include_str!("script.js"), env!("CARGO_PKG_VERSION"));
const ICON: &str = include_str!("icon.svg");

pub(super) async fn show(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE.0),
        "script.js" => ("text/javascript; charset=utf-8", SCRIPT.0),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Failure::not_found("file at this address").into_response(),
    };
    let fields = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=3600"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (fields, text).into_response()
}
