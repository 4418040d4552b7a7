//! `/v1/content/{guid}/bundles`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use multer::{Constraints, Multipart, SizeLimit};
use serde_json::{Map, Value, json};

use super::content::{manifest, missing, own, unlocked};
use crate::node::api::{Answer, ApiFailure, Manager, time};
use crate::node::blob::Spooled;
use crate::node::content::{bundle, python};
use crate::node::error::Failure;
use crate::node::parts::{Parts, keep_and_name};
use crate::node::publish::append;
use crate::node::store::{BundleRow, ContentRow, NewBundle, StoreError};
use crate::types::Sha256;

const GENERATED_BY: HeaderName = HeaderName::from_static("generated-by");
/// Bytes of what is said of a bundle.
const METADATA_MAX: u64 = 64 << 10;
/// What is kept of it: where it comes from.
const METADATA: &[&str] = &["source", "source_repo", "source_branch", "source_commit"];

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let all = parts.store.bundles(content.id).await?;
    Ok(Json(all.iter().map(|bundle| tell(&content, bundle)).collect()))
}

pub(super) async fn show(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let bundle = find(&parts, &content, &id).await?;
    Ok(Json(tell(&content, &bundle)))
}

pub(in crate::node) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    unlocked(&content)?;
    let bundle = find(&parts, &content, &id).await?;
    let deed = manager.deed("remove_bundle", &content.name, &id);
    parts.store.remove_bundle(bundle.number, &deed).await.map_err(|error| match error {
        StoreError::InUse => Failure::new(StatusCode::CONFLICT, "This bundle runs; activate another one first"),
        other => other.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::node) async fn download(
    State(parts): State<Parts>,
    manager: Manager,
    Path((guid, id)): Path<(String, String)>,
) -> Result<Response, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let bundle = find(&parts, &content, &id).await?;
    let digest: Sha256 = bundle.sha256.parse().map_err(|_| missing(&guid))?;
    let size = parts.bundles.size(&digest).await?;
    let stream = parts.bundles.read(&digest, 0..size).await?;
    let mut response = Response::new(Body::from_stream(stream));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    head.insert(CONTENT_LENGTH, size.into());
    let name = format!("attachment; filename=\"bundle-{}.tar.gz\"", bundle.number);
    head.insert(CONTENT_DISPOSITION, HeaderValue::try_from(name).map_err(|_| missing(&guid))?);
    Ok(response)
}

/// What the environment of the bundle that runs had when it was deployed, as pip freezes it.
pub(super) async fn lockfile(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
) -> Result<Response, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    let none = |why: &str| Failure::new(StatusCode::NOT_FOUND, format!("There is no lock file: {why}"));
    let Some(number) = content.bundle else { return Err(none("this content was not deployed yet").into()) };
    let Some(lock) = parts.store.lock(number).await? else {
        let why = "only content whose bundle lists Python packages has one, and has it since it was last deployed";
        return Err(none(why).into());
    };
    let version = python::version(&lock).unwrap_or_default();
    let by = format!("bowline/{}; python={version}", env!("CARGO_PKG_VERSION"));
    let fields = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"requirements.txt.lock\"")),
        // By it a client chooses the Python that it installs this for.
        (GENERATED_BY, HeaderValue::try_from(by).map_err(std::io::Error::other)?),
    ];
    Ok((fields, lock).into_response())
}

pub(super) async fn create(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    fields: HeaderMap,
    body: Body,
) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let bundle = take(&parts, &manager, &content, &fields, body).await?;
    Ok(Json(tell(&content, &bundle)))
}

/// Reads a bundle, looks through it, keeps it.
///
/// # Errors
/// 400 for what is none, 409 where content is locked, 413 beyond a bound, 503.
pub(super) async fn take(
    parts: &Parts,
    manager: &Manager,
    content: &ContentRow,
    fields: &HeaderMap,
    body: Body,
) -> Result<BundleRow, Failure> {
    unlocked(content)?;
    let bytes_max = parts.settings.content.bundle_bytes_max;
    let told = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (spooled, metadata) = match multer::parse_boundary(told) {
        Ok(boundary) => form(parts, boundary, body, bytes_max).await?,
        Err(_) => (whole(parts, body, bytes_max).await?, Map::new()),
    };
    let unpacked_max = parts.settings.content.unpacked_bytes_max;
    let file = std::fs::File::open(spooled.path())?;
    let examined = tokio::task::spawn_blocking(move || bundle::examine(file, unpacked_max)).await;
    let manifest = examined.map_err(std::io::Error::other)?.map_err(Failure::bad)?;
    let (manifest, metadata) =
        (serde_json::to_string(&manifest).unwrap_or_default(), Value::Object(metadata).to_string());
    let sha256 = spooled.digest().to_string();
    let new = NewBundle {
        content_id: content.id,
        sha256: &sha256,
        md5: &spooled.md5,
        size: i64::try_from(spooled.size()).unwrap_or(i64::MAX),
        manifest: &manifest,
        metadata: &metadata,
    };
    let deed = manager.deed("upload_bundle", &content.name, &sha256);
    let number =
        keep_and_name!(parts, bundles, &[&spooled], anew => parts.store.create_bundle(new, anew, &deed).await).await?;
    parts.store.bundle(number).await?.ok_or_else(|| missing(&content.guid))
}

/// A body that is the bundle.
async fn whole(parts: &Parts, body: Body, bytes_max: u64) -> Result<Spooled, Failure> {
    let mut spooling = parts.spool.begin()?;
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|e| Failure::bad(format!("The upload broke off: {e}")))?;
        spooling = append(spooling, piece, bytes_max).await?;
    }
    Ok(spooling.finish()?)
}

/// A form with the bundle as `archive`, and where it comes from as `metadata`.
async fn form(
    parts: &Parts,
    boundary: String,
    body: Body,
    bytes_max: u64,
) -> Result<(Spooled, Map<String, Value>), Failure> {
    let broken = |e: multer::Error| Failure::bad(format!("The upload is no whole form: {e}"));
    let limits = SizeLimit::new().whole_stream(bytes_max.saturating_add(2 * METADATA_MAX)).per_field(bytes_max + 1);
    let constraints = Constraints::new().size_limit(limits);
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let (mut archive, mut metadata) = (None, Map::new());
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("archive") if archive.is_none() => {
                let mut spooling = parts.spool.begin()?;
                while let Some(piece) = field.chunk().await.map_err(broken)? {
                    spooling = append(spooling, piece, bytes_max).await?;
                }
                archive = Some(spooling.finish()?);
            }
            Some("metadata") => {
                let mut text = Vec::new();
                while let Some(piece) = field.chunk().await.map_err(broken)? {
                    text.extend_from_slice(&piece);
                    if text.len() as u64 > METADATA_MAX {
                        return Err(Failure::bad("The metadata of the bundle is larger than 64 KiB"));
                    }
                }
                let read: Map<String, Value> = serde_json::from_slice(&text)
                    .map_err(|e| Failure::bad(format!("The metadata of the bundle is no JSON object: {e}")))?;
                metadata = read.into_iter().filter(|(name, _)| METADATA.contains(&name.as_str())).collect();
            }
            _ => {}
        }
    }
    Ok((archive.ok_or_else(|| Failure::bad("The form has no `archive`"))?, metadata))
}

/// A bundle of this content.
///
/// # Errors
/// 404.
pub(in crate::node) async fn find(parts: &Parts, content: &ContentRow, id: &str) -> Result<BundleRow, Failure> {
    let none = || Failure::not_found(format_args!("bundle `{id}` of this content"));
    let number: i64 = id.parse().map_err(|_| none())?;
    parts.store.bundle(number).await?.filter(|bundle| bundle.content_id == content.id).ok_or_else(none)
}

fn tell(content: &ContentRow, bundle: &BundleRow) -> Value {
    let manifest = manifest(bundle);
    let mut metadata: Map<String, Value> = serde_json::from_str(&bundle.metadata).unwrap_or_default();
    metadata.insert("archive_md5".into(), json!(bundle.md5));
    metadata.insert("archive_sha256".into(), json!(bundle.sha256));
    json!({
        "id": bundle.number.to_string(),
        "content_guid": content.guid,
        "created_time": time(bundle.created_at),
        "cluster_name": "Local",
        "image_name": "Local",
        "r_version": manifest.as_ref().and_then(|manifest| manifest.r.clone()),
        "py_version": manifest.as_ref().and_then(|manifest| manifest.python.clone()),
        "quarto_version": null,
        "node_version": null,
        "active": content.bundle == Some(bundle.number),
        "size": bundle.size,
        "metadata": metadata,
    })
}
