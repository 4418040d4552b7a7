//! The legacy upload, as twine, uv and poetry speak it: checked as PyPI checks, stored, then published in one transaction.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};

use super::form::Form;
use super::name::{self, Filename, Kind};
use super::wheel;
use crate::node::blob::Spooled;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{Deed, Language, NewFile, Published, Scope};

/// `POST /packages/{repository}/legacy/`.
///
/// # Errors
/// See [`Failure`]; nothing is left behind.
pub async fn upload(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(repository): Path<String>,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let caller = parts.auth.caller(&fields, origin.0).await?;
    if !caller.may(Scope::Publish, &repository) {
        return Err(match caller {
            crate::node::auth::Caller::Anonymous => Failure::needs_key(),
            crate::node::auth::Caller::Key(_) => Failure::forbidden(format_args!("publish to `{repository}`")),
        });
    }
    let repository = parts.catalog.find(&repository)?;
    let Some(source) = repository.upload_source.filter(|_| repository.language == Language::Python) else {
        return Err(Failure::bad(format!("Repository `{}` takes no Python packages", repository.name)));
    };
    let form = Form::read(&fields, body, &parts.spool, parts.settings.packages.file_bytes_max).await?;
    let Checked { project, named, filename, spooled, metadata, record } = check(form).await?;
    let record = record.to_string();

    let metadata = metadata.map(|text| parts.spool.whole(&text)).transpose()?;
    // Bytes before rows: whatever happens in between leaves bytes that nobody names, never a name without bytes.
    parts.packages.keep(&spooled).await?;
    if let Some(metadata) = &metadata {
        parts.packages.keep(metadata).await?;
    }
    let (sha256, metadata_sha256) = (spooled.digest().to_string(), metadata.map(|m| m.digest().to_string()));
    let address = origin.0.map(|ip| ip.to_string());
    let subject = format!("{}/{filename}", repository.name);
    let deed =
        Deed { who: caller.name(), address: address.as_deref(), action: "publish", subject: &subject, detail: &sha256 };
    let file = NewFile {
        source_id: source,
        project: (&project, &name::normal(&project)),
        filename: &filename,
        version: &named.version,
        kind: named.kind.as_str(),
        size: i64::try_from(spooled.size()).unwrap_or(i64::MAX),
        sha256: &sha256,
        md5: &spooled.md5,
        blake2: &spooled.blake2,
        requires_python: named.requires_python.as_deref(),
        metadata_sha256: metadata_sha256.as_deref(),
        provenance_sha256: None,
        location: "",
        record: &record,
    };
    match parts.store.publish(&file, &deed).await? {
        Published::New => {
            // Whoever asks this node next sees it.
            parts.catalog.refresh().await?;
            Ok((StatusCode::OK, "OK\n").into_response())
        }
        Published::Same => Ok((StatusCode::OK, "OK, it was there already\n").into_response()),
        Published::Conflict => Err(Failure::bad(format!(
            "File already exists ({filename}): its name was given to other bytes, and names are never given twice"
        ))),
        Published::Closed(status) => Err(Failure::forbidden(format_args!("publish: project `{project}` is {status}"))),
    }
}

/// An upload that may be kept.
struct Checked {
    project: String,
    named: Release,
    filename: String,
    spooled: Spooled,
    /// Core metadata to serve beside it.
    metadata: Option<Vec<u8>>,
    /// What the form says of the release.
    record: serde_json::Value,
}

struct Release {
    version: String,
    kind: Kind,
    requires_python: Option<String>,
}

/// PyPI's checks, in PyPI's order where clients could tell.
async fn check(mut form: Form) -> Result<Checked, Failure> {
    if form.get(":action") != Some("file_upload") {
        return Err(Failure::bad("The form has no `:action` with the value `file_upload`"));
    }
    if form.get("protocol_version").is_some_and(|version| version != "1") {
        return Err(Failure::bad("Unknown protocol version: 1 is spoken here"));
    }
    let Some((filename, spooled)) = form.file.take() else {
        return Err(Failure::bad("Upload payload does not have a file"));
    };
    let project = form.get("name").filter(|name| name::is_valid(name)).map(str::to_owned);
    let project = project.ok_or_else(|| Failure::bad("The field `name` is missing or no project's name"))?;
    let version = form.get("version").unwrap_or_default().to_owned();
    if version.parse::<pep440_rs::Version>().is_err() {
        return Err(Failure::bad(format!("The field `version` is missing or not by PEP 440: {version:?}")));
    }
    let named = name::parse(&filename).map_err(Failure::bad)?;
    if form.get("filetype") != Some(named.kind.as_str()) {
        return Err(Failure::bad(format!("The field `filetype` does not fit the filename: {filename}")));
    }
    if name::normal(&named.project) != name::normal(&project) || !wheel::same_version(&named.version, &version) {
        return Err(Failure::bad(format!("The filename {filename} is not one of {project} {version}")));
    }
    check_digests(&form, &spooled)?;
    let requires_python = form.get("requires_python").map(str::to_owned);
    if let Some(needs) = &requires_python
        && needs.parse::<pep440_rs::VersionSpecifiers>().is_err()
    {
        return Err(Failure::bad(format!("The field `requires_python` is not by PEP 440: {needs:?}")));
    }
    let (path, of) = (spooled.path().to_owned(), (named.clone(), filename.clone()));
    let looked = tokio::task::spawn_blocking(move || wheel::inspect(&path, &of.0, &of.1)).await;
    let metadata = looked.map_err(std::io::Error::other)?.map_err(Failure::bad)?;
    let Filename { kind, .. } = named;
    let record = form.record();
    Ok(Checked { project, named: Release { version, kind, requires_python }, filename, spooled, metadata, record })
}

/// Every digest that was sent must be that of what was sent.
fn check_digests(form: &Form, spooled: &Spooled) -> Result<(), Failure> {
    let sha256 = spooled.digest().to_string();
    for (field, is) in
        [("sha256_digest", &sha256), ("blake2_256_digest", &spooled.blake2), ("md5_digest", &spooled.md5)]
    {
        if form.get(field).is_some_and(|told| !told.eq_ignore_ascii_case(is)) {
            return Err(Failure::bad(format!("The digest in `{field}` does not match the file that came")));
        }
    }
    Ok(())
}
