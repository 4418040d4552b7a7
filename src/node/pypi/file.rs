//! Files and their core metadata: named by digest, so they never change and may be kept for ever.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method};

use crate::node::download::{self, Wanted};
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::types::Sha256;

/// `/packages/{repository}/files/{sha256}/{filename}`, with `.metadata` behind it for a wheel's core metadata (PEP 658).
///
/// # Errors
/// See [`Failure`].
pub async fn file(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, digest, filename)): Path<(String, String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let repository = parts.readable(&repository, &fields, origin).await?;
    let missing = || Failure::not_found(format_args!("file `{filename}` in repository `{}`", repository.name));
    let digest: Sha256 = digest.parse().map_err(|_| missing())?;
    let (name, wants_metadata) = match filename.strip_suffix(".metadata") {
        Some(name) => (name, true),
        None => (filename.as_str(), false),
    };
    let key = (repository.id, digest, name.to_owned());
    let read = async || parts.store.file(repository.id, &digest.to_string(), name).await;
    let known = parts.files.get::<Failure>(key, repository.generation, read).await?.ok_or_else(missing)?;
    let (wanted, content_type) = match (wants_metadata, &known.metadata_sha256) {
        (false, _) => (digest, "application/octet-stream"),
        (true, Some(metadata)) => (metadata.parse().map_err(|_| missing())?, "text/plain; charset=utf-8"),
        (true, None) => return Err(missing()),
    };
    download::blob(&parts.packages, wanted, content_type, &repository, Wanted { method: &method, fields: &fields })
        .await
}
