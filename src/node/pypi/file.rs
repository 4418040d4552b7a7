//! Files and their core metadata: named by digest, so they never change and may be kept for ever.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Method};

use super::name;
use crate::node::block;
use crate::node::download::{self, Wanted};
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::remote::{Promise, RemoteBlob};
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
    if !repository.blocks.is_empty() {
        let named = name::parse(name).map_err(|_| missing())?;
        block::refuse(&repository, &name::normal(&named.project), Some(&named.version))?;
    }
    let key = (repository.id, digest, name.to_owned());
    let read = async || parts.store.file(repository.id, &digest.to_string(), name).await;
    let known = parts.files.get::<Failure>(key, repository.generation, read).await?;
    let wanted = Wanted { method: &method, fields: &fields };
    let content_type = if wants_metadata { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    if let Some(known) = known {
        let digest = match (wants_metadata, &known.metadata_sha256) {
            (false, _) => digest,
            (true, Some(metadata)) => metadata.parse().map_err(|_| missing())?,
            (true, None) => return Err(missing()),
        };
        let response = download::blob(&parts.packages, digest, content_type, &repository, wanted).await?;
        if !wants_metadata {
            parts.stats.count(&repository, name, wanted, response.status());
        }
        return Ok(response);
    }
    // Another index's, if it shows one of this name and digest.
    let project = name::normal(&name::parse(name).map_err(|_| missing())?.project);
    let (remote, listed) = parts.remotes.project(&parts, &repository, &project).await?.ok_or_else(missing)?;
    let files = listed.files.as_deref().unwrap_or_default();
    let file = files.iter().find(|file| file.filename == name && file.sha256 == digest.to_string());
    let file = file.ok_or_else(missing)?;
    let (url, digest) = match (wants_metadata, &file.metadata_sha256) {
        (false, _) => (file.url.clone(), digest),
        (true, Some(metadata)) => (format!("{}.metadata", file.url), metadata.parse().map_err(|_| missing())?),
        (true, None) => return Err(missing()),
    };
    let blob = RemoteBlob {
        remote,
        url,
        otherwise: None,
        is_past: false,
        path: format!("{digest}/{filename}"),
        promise: Promise::Sha256(digest),
    };
    let response = parts.remotes.file(&parts, &repository, blob, content_type, wanted).await?;
    if !wants_metadata {
        parts.stats.count(&repository, name, wanted, response.status());
    }
    Ok(response)
}
