//! The legacy upload, as twine, uv and poetry speak it: checked as PyPI checks, stored, then published in one transaction.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};

use super::form::Form;
use super::name::{self, Kind};
use super::wheel;
use crate::node::blob::Spooled;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::publish::{self, Ended, Prepared};
use crate::node::store::Language;

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
    let target = publish::target(&parts, &repository, &fields, origin).await?;
    if target.language != Language::Python {
        return Err(Failure::bad(format!("Repository `{repository}` takes no Python packages")));
    }
    let form = Form::read(&fields, body, &parts.spool, parts.settings.packages.file_bytes_max).await?;
    match publish::publish(&parts, &target, check(form).await?).await? {
        Ended::New => Ok((StatusCode::OK, "OK\n").into_response()),
        Ended::Same => Ok((StatusCode::OK, "OK, it was there already\n").into_response()),
        // The words twine and uv look for.
        Ended::Conflict(filename) => Err(Failure::bad(format!(
            "File already exists ({filename}): its name was given to other bytes, and names are never given twice"
        ))),
    }
}

/// A file that came by itself: what a form would say is read from the file.
///
/// # Errors
/// See [`Failure`].
pub async fn alone(filename: &str, spooled: Spooled) -> Result<Prepared, Failure> {
    let named = name::parse(filename).map_err(Failure::bad)?;
    let (path, of, file) = (spooled.path().to_owned(), named.clone(), filename.to_owned());
    let looked = tokio::task::spawn_blocking(move || wheel::inspect(&path, &of, &file)).await;
    let text = looked.map_err(std::io::Error::other)?.map_err(Failure::bad)?.metadata;
    let mut form = Form::of_metadata(&String::from_utf8_lossy(&text));
    form.set(":action", "file_upload");
    form.set("filetype", named.kind.as_str());
    form.file = Some((filename.to_owned(), spooled));
    check(form).await
}

/// PyPI's checks, in PyPI's order where clients could tell.
async fn check(mut form: Form) -> Result<Prepared, Failure> {
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
    let inspected = looked.map_err(std::io::Error::other)?.map_err(Failure::bad)?;
    let record = form.record();
    let attestations = form.get("attestations").map(str::to_owned);
    Ok(Prepared {
        normal_name: name::normal(&project),
        project,
        version,
        location: String::new(),
        filename,
        kind: named.kind.as_str(),
        requires_python,
        spooled,
        // That of a source distribution may change when it is built (PEP 643).
        metadata: (named.kind == Kind::Wheel).then_some(inspected.metadata),
        attestations,
        record,
    })
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
