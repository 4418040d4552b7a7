//! Every URL of a node in one table, grouped by who calls it.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Path;
use axum::routing::{get, post};

use super::parts::Parts;
use super::pypi;

/// All of them.
pub fn router(parts: Parts) -> Router {
    Router::new()
        // Load balancers and operators.
        .route("/__ping__", get(async || "pong\n"))
        // pip, uv, poetry.
        .route("/packages/{repository}/simple/", get(pypi::root))
        .route("/packages/{repository}/simple", get(async || pypi::moved("simple/")))
        .route("/packages/{repository}/simple/{project}/", get(pypi::project))
        .route(
            "/packages/{repository}/simple/{project}",
            get(async |Path((_, project)): Path<(String, String)>| pypi::moved(&format!("{project}/"))),
        )
        .route("/packages/{repository}/files/{digest}/{filename}", get(pypi::file))
        // twine, uv publish, poetry publish. What bounds the body is in the handler, piece by piece.
        .route("/packages/{repository}/legacy/", post(pypi::upload).layer(DefaultBodyLimit::disable()))
        .fallback(async || super::error::Failure::not_found("page at this address"))
        .with_state(parts)
}
