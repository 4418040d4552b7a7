//! Index pages: rendered once per generation of a repository, kept compressed, answered without a query.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::{Extension, response::IntoResponse};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Digest;

use super::name;
use super::negotiate::{self, Form};
use crate::node::download::{self, Wanted};
use crate::node::error::Failure;
use crate::node::known::Known;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{PackageFile, Project, Repository};
use crate::telemetry::Timestamp;
use crate::types::Sha256;

/// Rendered pages, bounded in bytes, shared by all requests; `None`: there is no such project.
#[derive(Clone)]
pub struct Pages(Known<Key, Option<Arc<Page>>>);

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    repository: i64,
    /// `None`: the list of projects.
    project: Option<String>,
    form: Form,
}

/// One page in one form.
struct Page {
    plain: Bytes,
    gzip: Bytes,
    /// Strong, of the plain form; the compressed one has its own.
    etag: String,
    form: Form,
}

impl Pages {
    /// At most this many bytes.
    pub fn new(bytes_max: u64) -> Self {
        let weigh = |_: &Key, page: &Option<Arc<Page>>| {
            let bytes = page.as_ref().map_or(0, |page| page.plain.len() + page.gzip.len());
            u32::try_from(bytes + PAGE_OVERHEAD).unwrap_or(u32::MAX)
        };
        Self(Known::new(bytes_max, weigh))
    }
}

/// What may follow the `?`.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    format: Option<String>,
}

/// `/packages/{repository}/simple/`: every project.
///
/// # Errors
/// See [`Failure`].
pub async fn root(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(repository): Path<String>,
    Query(asked): Query<Asked>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let repository = parts.readable(&repository, &fields, origin).await?;
    let key = key(&repository, None, &fields, &asked);
    let form = key.form;
    let read = async || {
        parts.metrics.indexes.increment();
        let projects = parts.store.projects(repository.id).await?;
        Ok(Some(Arc::new(Page::new(render_root(&projects, form), form))))
    };
    let page = parts.pages.0.get::<Failure>(key, repository.generation, read).await?;
    page.map(|page| page.answer(&repository, Wanted { method: &method, fields: &fields }))
        .ok_or_else(|| Failure::not_found("list of projects"))
}

/// `/packages/{repository}/simple/{project}/`: every file of a project.
///
/// # Errors
/// See [`Failure`].
pub async fn project(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, project)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let repository = parts.readable(&repository, &fields, origin).await?;
    let normal = name::normal(&project);
    if normal != project {
        return Ok(moved(&format!("../{normal}/")));
    }
    let key = key(&repository, Some(normal), &fields, &asked);
    let form = key.form;
    let read = async || {
        parts.metrics.indexes.increment();
        let found = parts.store.project(repository.id, &project).await?;
        let shown = found.filter(|(project, _)| project.status != "quarantined");
        Ok(shown.map(|(project, files)| Arc::new(Page::new(render_project(&project, &files, form), form))))
    };
    let page = parts.pages.0.get::<Failure>(key, repository.generation, read).await?;
    let missing = || Failure::not_found(format_args!("project `{project}` in repository `{}`", repository.name));
    page.map(|page| page.answer(&repository, Wanted { method: &method, fields: &fields })).ok_or_else(missing)
}

/// The URL with a slash at its end, relative to the one without.
pub fn moved(to: &str) -> Response {
    let mut response = StatusCode::MOVED_PERMANENTLY.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn key(repository: &Repository, project: Option<String>, fields: &HeaderMap, asked: &Asked) -> Key {
    let accept: Vec<&str> = fields.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let form = negotiate::form(&accept, asked.format.as_deref());
    Key { repository: repository.id, project, form }
}

impl Page {
    fn new(text: String, form: Form) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::default());
        // Writing into memory does not fail.
        let _ = encoder.write_all(text.as_bytes());
        let gzip = encoder.finish().unwrap_or_default().into();
        let etag = Sha256::new(sha2::Sha256::digest(text.as_bytes()).into()).to_string();
        Self { plain: text.into(), gzip, etag: etag[..32].to_owned(), form }
    }

    fn answer(&self, repository: &Repository, wanted: Wanted<'_>) -> Response {
        let is_gzip = !self.gzip.is_empty() && accepts_gzip(wanted.fields);
        // A strong validator names bytes, and these differ (RFC 9110 §8.8.3.3).
        let (body, etag) =
            if is_gzip { (&self.gzip, format!("{}-gzip", self.etag)) } else { (&self.plain, self.etag.clone()) };
        let mut response = download::index(body, &etag, self.form.content_type(), repository, wanted);
        let head = response.headers_mut();
        head.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if is_gzip {
            head.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn accepts_gzip(fields: &HeaderMap) -> bool {
    let ranges = fields.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).any(|range| {
        let (coding, weight) = range.split_once(';').unwrap_or((range, ""));
        coding.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

fn render_root(projects: &[Project], form: Form) -> String {
    if form == Form::Json {
        let projects: Vec<Value> = projects.iter().map(|p| json!({ "name": p.name })).collect();
        return json!({ "meta": { "api-version": API }, "projects": projects }).to_string();
    }
    let mut out = head("Projects", None);
    for project in projects {
        let _ = writeln!(out, "<a href=\"{}/\">{}</a><br>", project.normal_name, escaped(&project.name));
    }
    out + "</body></html>\n"
}

fn render_project(project: &Project, files: &[PackageFile], form: Form) -> String {
    if form == Form::Json {
        return json!({
            "meta": { "api-version": API },
            "name": project.normal_name,
            "versions": versions(files),
            "files": files.iter().map(in_json).collect::<Vec<_>>(),
            "project-status": status(project),
        })
        .to_string();
    }
    let mut out = head(&format!("Links for {}", project.name), Some(project));
    for file in files {
        let _ = write!(out, "<a href=\"{}#sha256={}\"", url(file), file.sha256);
        if let Some(needs) = &file.requires_python {
            let _ = write!(out, " data-requires-python=\"{}\"", escaped(needs));
        }
        if let Some(digest) = &file.metadata_sha256 {
            let _ = write!(out, " data-core-metadata=\"sha256={digest}\" data-dist-info-metadata=\"sha256={digest}\"");
        }
        if let Some(reason) = &file.yanked {
            let _ = write!(out, " data-yanked=\"{}\"", escaped(reason));
        }
        let _ = writeln!(out, ">{}</a><br>", escaped(&file.filename));
    }
    out + "</body></html>\n"
}

fn status(project: &Project) -> Value {
    match &project.status_reason {
        Some(reason) => json!({ "status": project.status, "reason": reason }),
        None => json!({ "status": project.status }),
    }
}

/// Every version that has a file, oldest first.
fn versions(files: &[PackageFile]) -> Vec<&str> {
    let mut versions: Vec<&str> = files.iter().map(|file| file.version.as_str()).collect();
    let parsed = |text: &str| text.parse::<pep440_rs::Version>().ok();
    versions.sort_by(|a, b| parsed(a).cmp(&parsed(b)).then_with(|| a.cmp(b)));
    versions.dedup();
    versions
}

fn in_json(file: &PackageFile) -> Value {
    let mut out = json!({
        "filename": file.filename,
        "url": url(file),
        // No other: pip before 23.3 refuses a file that has a hash whose name it does not know.
        "hashes": { "sha256": file.sha256 },
        "size": file.size,
        "upload-time": Timestamp::from_unix(Duration::from_micros(file.uploaded_at.unsigned_abs())).to_string(),
        "yanked": match &file.yanked {
            None => json!(false),
            Some(reason) if reason.is_empty() => json!(true),
            Some(reason) => json!(reason),
        },
    });
    if let Some(needs) = &file.requires_python {
        out["requires-python"] = json!(needs);
    }
    if let Some(digest) = &file.metadata_sha256 {
        // PEP 714: the new key, and the one that clients before it read.
        out["core-metadata"] = json!({ "sha256": digest });
        out["dist-info-metadata"] = json!({ "sha256": digest });
    }
    out
}

/// Relative to the project's page, so that it holds behind any proxy and prefix.
fn url(file: &PackageFile) -> String {
    format!("../../files/{}/{}", file.sha256, file.filename)
}

fn head(title: &str, project: Option<&Project>) -> String {
    let mut out = format!("<!DOCTYPE html>\n<html><head>\n<meta name=\"pypi:repository-version\" content=\"{API}\">\n");
    if let Some(project) = project {
        let _ = writeln!(out, "<meta name=\"pypi:project-status\" content=\"{}\">", escaped(&project.status));
        if let Some(reason) = &project.status_reason {
            let _ = writeln!(out, "<meta name=\"pypi:project-status-reason\" content=\"{}\">", escaped(reason));
        }
    }
    let _ = write!(out, "<title>{0}</title>\n</head><body>\n<h1>{0}</h1>\n", escaped(title));
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// What an entry without a page weighs.
const PAGE_OVERHEAD: usize = 256;
/// The version of the simple API these pages speak (PEP 629, 700, 792).
const API: &str = "1.4";

#[cfg(test)]
mod tests;
