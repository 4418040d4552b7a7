//! Index pages: rendered once per generation of a repository, kept compressed, answered without a query.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::{Extension, response::IntoResponse};
use http::header::{ACCEPT, CONTENT_ENCODING, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use sha2::Digest;

use super::coding::{Coded, Variant};
use super::name;
use super::negotiate::{self, Form};
use super::render::{self, Links};
use crate::node::block;
use crate::node::download::{self, Wanted};
use crate::node::error::Failure;
use crate::node::known::Known;
use crate::node::parts::{Origin, Parts};
use crate::node::remote::page::RemoteFile;
use crate::node::store::{PackageFile, Project, Repository, StoreError};
use crate::node::view::View;
use crate::types::Sha256;

/// Rendered pages, bounded in bytes, shared by all requests; `None`: there is no such project.
#[derive(Clone)]
pub struct Pages(Known<Key, Option<Arc<Page>>>);

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    repository: i64,
    /// See [`View::as_of`].
    as_of: i64,
    /// Of the page's URL: its links are relative.
    depth: usize,
    /// `None`: the list of projects.
    project: Option<String>,
    /// Of what another index said; 0: it is ours.
    stamp: i64,
    form: Form,
}

/// One page in one form.
struct Page {
    coded: Coded,
    /// Of its text.
    digest: Sha256,
    form: Form,
}

impl Pages {
    /// At most this many bytes.
    pub fn new(bytes_max: u64) -> Self {
        let weigh = |_: &Key, page: &Option<Arc<Page>>| {
            let bytes = page.as_ref().map_or(0, |page| page.coded.weight());
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

/// A request for a page.
struct Request<'a> {
    parts: &'a Parts,
    repository: Arc<Repository>,
    view: View,
    /// From a project's page to the repository.
    up: &'static str,
    form: Form,
    wanted: Wanted<'a>,
}

/// `simple/`: every project now.
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
    let wanted = Wanted { method: &method, fields: &fields };
    Request::new(&parts, origin, &repository, None, &asked, wanted).await?.root().await
}

/// `{view}/simple/`: every project then.
///
/// # Errors
/// See [`Failure`].
pub async fn root_of(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, view)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted { method: &method, fields: &fields };
    Request::new(&parts, origin, &repository, Some(&view), &asked, wanted).await?.root().await
}

/// `simple/{project}/`: every file of a project now.
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
    let wanted = Wanted { method: &method, fields: &fields };
    Request::new(&parts, origin, &repository, None, &asked, wanted).await?.project(&project).await
}

/// `{view}/simple/{project}/`: every file of a project then.
///
/// # Errors
/// See [`Failure`].
pub async fn project_of(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, view, project)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted { method: &method, fields: &fields };
    Request::new(&parts, origin, &repository, Some(&view), &asked, wanted).await?.project(&project).await
}

impl<'a> Request<'a> {
    async fn new(
        parts: &'a Parts,
        origin: Origin,
        repository: &str,
        view: Option<&str>,
        asked: &Asked,
        wanted: Wanted<'a>,
    ) -> Result<Self, Failure> {
        let repository = parts.readable(repository, wanted.fields, origin).await?;
        let (view, up) = match view {
            None => (View::NOW, "../.."),
            Some(view) => (View::parse(view)?, "../../.."),
        };
        let accept: Vec<&str> = wanted.fields.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let form = negotiate::form(&accept, asked.format.as_deref());
        Ok(Self { parts, repository, view, up, form, wanted })
    }

    async fn root(self) -> Result<Response, Failure> {
        let read = async || {
            let projects = self.parts.store.projects(self.repository.id, self.view.as_of()).await?;
            Ok(Some(render::projects(&projects, self.form)))
        };
        let page = self.page(None, 0, read).await?;
        page.map(|page| page.answer(&self.repository, self.wanted))
            .ok_or_else(|| Failure::not_found("list of projects"))
    }

    async fn project(self, project: &str) -> Result<Response, Failure> {
        let normal = name::normal(project);
        if normal != project {
            return Ok(moved(&format!("../{normal}/")));
        }
        if !name::is_valid(&normal) {
            return Err(Failure::not_found("project of this name: it cannot be one"));
        }
        let base = self.parts.settings.external_url.as_ref();
        let absolute = || base.map(|base| format!("{base}/packages/{}", self.repository.name));
        let missing =
            || Failure::not_found(format_args!("project `{project}` in repository `{}`", self.repository.name));
        let read = async || {
            let found = self.parts.store.project(self.repository.id, &normal, self.view.as_of()).await?;
            // A name of ours stays ours, even without a file that may be shown.
            Ok(found.map(|(project, mut files)| match project.status.as_str() {
                "quarantined" => String::new(),
                _ => {
                    let absolute = absolute();
                    let links = Links { up: self.up, absolute: absolute.as_deref() };
                    withhold(&self.repository, &normal, &mut files);
                    render::project(&project, &files, self.form, &links)
                }
            }))
        };
        if let Some(page) = self.page(Some(normal.clone()), 0, read).await? {
            return if page.coded.is_empty() { Err(missing()) } else { Ok(page.answer(&self.repository, self.wanted)) };
        }
        let remotes = &self.parts.remotes;
        let (_, listed) = remotes.project(self.parts, &self.repository, &normal).await?.ok_or_else(missing)?;
        let read = async || {
            let mut files = remote_files(listed.files.as_deref().unwrap_or_default(), self.view);
            withhold(&self.repository, &normal, &mut files);
            let absolute = absolute();
            let links = Links { up: self.up, absolute: absolute.as_deref() };
            Ok(Some(render::project(&remote_project(&normal), &files, self.form, &links)))
        };
        let page = self.page(Some(normal.clone()), listed.stamp, read).await?;
        page.map(|page| page.answer(&self.repository, self.wanted)).ok_or_else(missing)
    }

    /// A page that is known, or is made.
    async fn page(
        &self,
        project: Option<String>,
        stamp: i64,
        read: impl AsyncFnOnce() -> Result<Option<String>, StoreError>,
    ) -> Result<Option<Arc<Page>>, Failure> {
        let Self { parts, repository, view, up, form, .. } = self;
        let key = Key { repository: repository.id, as_of: view.as_of(), depth: up.len(), project, stamp, form: *form };
        let before = || parts.pages.0.last(&key).flatten();
        let make = async || {
            parts.metrics.indexes.increment();
            let Some(text) = read().await? else { return Ok(None) };
            let (before, form) = (before(), *form);
            if text.len() < LARGE {
                return Ok(Some(Page::make(text, form, before)));
            }
            let made = tokio::task::spawn_blocking(move || Page::make(text, form, before)).await;
            made.map(Some).map_err(|e| StoreError::Unavailable(std::io::Error::other(e).into()))
        };
        parts.pages.0.get(key.clone(), repository.generation, make).await
    }
}

/// Versions that the repository withholds are shown as yanked: nobody chooses them, and who insists reads why (PEP 592), here
/// and in the refusal of the file. A project that is withheld as a whole is shown as it is: installers show people why a file
/// is refused, but not why a page is, nor why nothing but yanked files is there.
fn withhold(repository: &Repository, normal_name: &str, files: &mut [PackageFile]) {
    if repository.blocks.is_empty() || block::reason(repository, normal_name, None).is_some() {
        return;
    }
    for file in files {
        if let Some(reason) = block::reason(repository, normal_name, Some(&file.version)) {
            file.yanked = Some(format!("blocked: {reason}"));
        }
    }
}

/// A project as another index has it.
fn remote_project(normal_name: &str) -> Project {
    Project {
        id: 0,
        name: normal_name.to_owned(),
        normal_name: normal_name.to_owned(),
        status: "active".to_owned(),
        status_reason: None,
    }
}

/// Its files as of a view: on a day that is over, those of which it is known that they were there.
fn remote_files(files: &[RemoteFile], view: View) -> Vec<PackageFile> {
    let seen = files.iter().filter(|file| view == View::NOW || file.uploaded_at.is_some_and(|at| at < view.as_of()));
    let shown = seen.map(|file| PackageFile {
        filename: file.filename.clone(),
        version: file.version.clone(),
        size: file.size.and_then(|size| i64::try_from(size).ok()),
        sha256: file.sha256.clone(),
        requires_python: file.requires_python.clone(),
        metadata_sha256: file.metadata_sha256.clone(),
        yanked: file.yanked.clone(),
        uploaded_at: file.uploaded_at,
        has_provenance: false,
    });
    shown.collect()
}

/// The URL with a slash at its end, relative to the one without.
pub fn moved(to: &str) -> Response {
    let mut response = StatusCode::MOVED_PERMANENTLY.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

impl Page {
    /// Most of a repository's generations change other pages than this: the one there was `before` goes on.
    fn make(text: String, form: Form, before: Option<Arc<Self>>) -> Arc<Self> {
        let digest = Sha256::new(sha2::Sha256::digest(text.as_bytes()).into());
        if let Some(same) = before.filter(|before| before.digest == digest) {
            return same;
        }
        Arc::new(Self { coded: Coded::new(text, &digest.to_string()[..32]), digest, form })
    }

    fn answer(&self, repository: &Repository, wanted: Wanted<'_>) -> Response {
        let Variant { bytes, etag, coding } = self.coded.wanted(wanted.fields);
        let mut response = download::index(bytes, etag, self.form.content_type(), repository, wanted);
        let head = response.headers_mut();
        head.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if let Some(coding) = coding {
            head.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    }
}

/// A text from which on threads that serve do not compress it.
const LARGE: usize = 64 * 1024;
/// What an entry without a page weighs.
const PAGE_OVERHEAD: usize = 256;
#[cfg(test)]
mod tests;
