//! From an upload to a row, for every language: who may, bytes before rows, one transaction.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::blob::{Spool, Spooled};
use super::error::Failure;
use super::parts::{Origin, Parts, keep_and_name};
use super::store::{Deed, Language, NewFile, Published, Scope};
use super::{cran, pypi};

/// Where an upload goes, and whose it is.
#[derive(Clone, Debug)]
pub struct Target {
    /// What people call it: a repository, a source.
    pub place: String,
    /// Whose packages it takes.
    pub language: Language,
    /// Id of the source's row.
    pub source: i64,
    /// Who publishes, for people.
    pub who: String,
    /// From where.
    pub address: Option<String>,
}

/// A file that was found good.
#[derive(Debug)]
pub struct Prepared {
    /// As its publisher writes it.
    pub project: String,
    /// As it is looked up.
    pub normal_name: String,
    /// Of the release.
    pub version: String,
    /// `""`, or where in a CRAN tree.
    pub location: String,
    /// The file's name.
    pub filename: String,
    /// `bdist_wheel`, `sdist`, `source`, `binary`.
    pub kind: &'static str,
    /// PEP 345.
    pub requires_python: Option<String>,
    /// Its bytes.
    pub spooled: Spooled,
    /// A text of its own that is served beside it: core metadata, DESCRIPTION.
    pub metadata: Option<Vec<u8>>,
    /// Attestations of where it comes from, as they were sent.
    pub attestations: Option<String>,
    /// What indexes say of it.
    pub record: serde_json::Value,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is there now.
    New,
    /// It was there.
    Same,
    /// Other bytes have this filename.
    Conflict(String),
}

/// Whether the caller may publish there.
///
/// # Errors
/// 401, 403, 404, 503.
pub async fn target(parts: &Parts, repository: &str, fields: &HeaderMap, origin: Origin) -> Result<Target, Failure> {
    let caller = parts.auth.caller(fields, origin).await?;
    if !caller.may(Scope::Publish, repository) {
        return Err(caller.refused(format_args!("publish to `{repository}`")));
    }
    let repository = parts.catalog.find(repository)?;
    let missing = || Failure::bad(format!("Repository `{}` has no local source and takes no uploads", repository.name));
    let source = repository.upload_source.ok_or_else(missing)?;
    Ok(Target {
        place: repository.name.clone(),
        language: repository.language,
        source,
        who: caller.name().to_owned(),
        address: origin.address.map(|ip| ip.to_string()),
    })
}

/// Keeps the bytes, then publishes.
///
/// # Errors
/// 403 where the project is closed, 503 without storage or database.
pub async fn publish(parts: &Parts, target: &Target, file: Prepared) -> Result<Ended, Failure> {
    let provenance = file.attestations.as_ref().map(|attestations| {
        pypi::provenance::object(attestations, &file.filename, &file.spooled.digest(), &target.who)
    });
    let provenance = provenance.transpose()?.map(|object| parts.spool.whole(&object)).transpose()?;
    let metadata = file.metadata.as_ref().map(|text| parts.spool.whole(text)).transpose()?;
    let provenance_sha256 = provenance.as_ref().map(|p| p.digest().to_string());
    let metadata_sha256 = metadata.as_ref().map(|m| m.digest().to_string());
    let sha256 = file.spooled.digest().to_string();
    let place = if file.location.is_empty() { String::new() } else { format!("{}/", file.location) };
    let subject = format!("{}/{place}{}", target.place, file.filename);
    let deed = Deed {
        who: &target.who,
        address: target.address.as_deref(),
        action: "publish",
        subject: &subject,
        detail: &sha256,
    };
    let record = file.record.to_string();
    let new = NewFile {
        source_id: target.source,
        project: (&file.project, &file.normal_name),
        filename: &file.filename,
        location: &file.location,
        version: &file.version,
        kind: file.kind,
        size: i64::try_from(file.spooled.size()).unwrap_or(i64::MAX),
        sha256: &sha256,
        md5: &file.spooled.md5,
        blake2: &file.spooled.blake2,
        requires_python: file.requires_python.as_deref(),
        metadata_sha256: metadata_sha256.as_deref(),
        provenance_sha256: provenance_sha256.as_deref(),
        record: &record,
    };
    let language = target.language.as_str();
    let blobs: Vec<&Spooled> = [&file.spooled].into_iter().chain(&metadata).chain(&provenance).collect();
    match keep_and_name!(parts, packages, &blobs, anew => parts.store.publish(&new, anew, &deed).await).await? {
        Published::New => {
            parts.metrics.upload(language, "new");
            // Whoever asks this node next sees it. It is published even if this fails; the next look sees it then.
            let _ = parts.catalog.refresh().await;
            Ok(Ended::New)
        }
        Published::Same => {
            parts.metrics.upload(language, "same");
            Ok(Ended::Same)
        }
        Published::Conflict => {
            parts.metrics.upload(language, "conflict");
            Ok(Ended::Conflict(file.filename))
        }
        Published::Closed(status) => {
            Err(Failure::forbidden(format_args!("Project `{}` is {status} and takes no files", file.project)))
        }
    }
}

/// What may follow the `?`.
#[derive(Debug, Deserialize)]
pub struct Asked {
    /// For which Linux or macOS a binary R package was made.
    distribution: Option<String>,
}

/// `PUT /packages/{repository}/upload/{filename}`: a file by itself, as `curl -T` and `bowline add` send it.
///
/// # Errors
/// See [`Failure`]; nothing is left behind. 409 where other bytes have this name.
pub async fn put(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, filename)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let target = target(&parts, &repository, &fields, origin).await?;
    let spooled = spooled(&parts.spool, body, parts.settings.packages.file_bytes_max).await?;
    let prepared = match target.language {
        Language::Python => pypi::alone(&filename, spooled).await?,
        Language::R => cran::prepare(&filename, spooled, asked.distribution).await?,
    };
    match publish(&parts, &target, prepared).await? {
        Ended::New => Ok((StatusCode::CREATED, "published\n").into_response()),
        Ended::Same => Ok((StatusCode::OK, "it was there already\n").into_response()),
        Ended::Conflict(filename) => Err(Failure::new(
            StatusCode::CONFLICT,
            format!("File already exists ({filename}) with other content; give the package a new version"),
        )),
    }
}

/// The whole body in the spool.
async fn spooled(spool: &Spool, body: Body, bytes_max: u64) -> Result<Spooled, Failure> {
    let mut spooling = spool.begin()?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Failure::bad("The upload broke off"))?;
        spooling = append(spooling, piece, bytes_max).await?;
    }
    if spooling.size() == 0 {
        return Err(Failure::bad("The upload is empty"));
    }
    Ok(spooling.finish()?)
}

/// Large pieces are hashed and written off the threads that move requests.
///
/// # Errors
/// 413 beyond `bytes_max`, 503 where the spool is full.
pub async fn append(
    mut spooling: super::blob::Spooling,
    piece: bytes::Bytes,
    bytes_max: u64,
) -> Result<super::blob::Spooling, Failure> {
    if spooling.size() + piece.len() as u64 > bytes_max {
        let message = format!("The file is larger than the {bytes_max} bytes this server takes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let written = tokio::task::spawn_blocking(move || spooling.write(&piece).map(|()| spooling)).await;
    Ok(written.map_err(std::io::Error::other)??)
}
