//! The URLs of a CRAN tree.
//!
//! | below `/packages/{repository}/[{view}/]` | what |
//! |---|---|
//! | `src/contrib/…` | sources |
//! | `bin/windows/contrib/4.2/…`, `bin/macosx/[big-sur-arm64/]contrib/4.2/…` | binaries |
//! | `bin/linux/4.2-bookworm/contrib/4.2/…` | binaries for a Linux distribution, for any client |
//! | `__linux__/bookworm/{view}/src/contrib/…` | binaries where the client's R says that they fit, else sources |
//!
//! A view is `latest`, or a day: see [`crate::node::view`].

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{USER_AGENT, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::agent::RAgent;
use super::archive::Archive;
use super::index::Served;
use super::name;
use super::package::is_word;
use super::tree::Tree;
use crate::node::block;
use crate::node::download::{self, Wanted};
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::remote::{Promise, RemoteBlob};
use crate::node::store::{Language, Remote, Repository};
use crate::node::view::View;

/// `src/contrib/{path}` of now.
///
/// # Errors
/// See [`Failure`].
pub async fn source(
    parts: State<Parts>,
    origin: Extension<Origin>,
    Path((repository, path)): Path<(String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    source_of(parts, origin, Path((repository, View::LATEST.to_owned(), path)), method, fields).await
}

/// `{view}/src/contrib/{path}`.
///
/// # Errors
/// See [`Failure`].
pub async fn source_of(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, view, path)): Path<(String, String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted { method: &method, fields: &fields };
    let asked = Asked::new(&parts, origin, &repository, &view, wanted).await?;
    asked.answer("", &path).await
}

/// `__linux__/{codename}/{view}/src/contrib/{path}`.
///
/// # Errors
/// See [`Failure`].
pub async fn linux(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, codename, view, path)): Path<(String, String, String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted { method: &method, fields: &fields };
    let asked = Asked::new(&parts, origin, &repository, &view, wanted).await?;
    let (repository, view) = (&*asked.repository, asked.view);
    let agent = fields.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).and_then(RAgent::parse);
    let mut binary = (None, None);
    if let Some(RAgent { version, arch }) = agent.filter(|_| is_word(&codename))
        && let Some((package, number, _)) = name::split(&path)
    {
        block::refuse(repository, package, Some(number))?;
        match Tree::of(&parts, repository, &format!("linux/{codename}/{version}/{arch}"), view.as_of()).await {
            Ok(tree) => binary = (tree.file(&path), tree.far(&path).cloned()),
            // Another index is away: its sources, which may be kept here, do as well.
            Err(_) if !repository.remotes.is_empty() => {}
            Err(failure) => return Err(failure),
        }
    }
    let binary = match binary {
        (Some(digest), _) => Some(download::blob(&parts.packages, digest, PACKAGE, repository, asked.wanted).await?),
        (None, Some(far)) => match parts.remotes.file(&parts, repository, far, PACKAGE, asked.wanted).await {
            Ok(response) => Some(response),
            // Binaries have no Archive: of one that its index no longer has, or made anew since, the source does as well.
            Err(failure) if failure.status() == StatusCode::NOT_FOUND => None,
            Err(failure) => return Err(failure),
        },
        (None, None) => None,
    };
    let mut response = match binary {
        Some(response) => {
            parts.stats.count(repository, &path, asked.wanted, response.status());
            response
        }
        None => asked.answer("", &path).await?,
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("User-Agent"));
    Ok(response)
}

/// `bin/{path}` of now.
///
/// # Errors
/// See [`Failure`].
pub async fn binary(
    parts: State<Parts>,
    origin: Extension<Origin>,
    Path((repository, path)): Path<(String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    binary_of(parts, origin, Path((repository, View::LATEST.to_owned(), path)), method, fields).await
}

/// `{view}/bin/{path}`.
///
/// # Errors
/// See [`Failure`].
pub async fn binary_of(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, view, path)): Path<(String, String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted { method: &method, fields: &fields };
    let asked = Asked::new(&parts, origin, &repository, &view, wanted).await?;
    let agent = fields.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).and_then(RAgent::parse);
    let arch = agent.map_or_else(|| "x86_64".to_owned(), |agent| agent.arch);
    let missing = || Failure::not_found(format_args!("file at `bin/{path}`"));
    let (location, file) = locate(&path, &arch).ok_or_else(missing)?;
    let mut response = asked.answer(&location, file).await?;
    if location.starts_with("linux/") {
        response.headers_mut().insert(VARY, HeaderValue::from_static("User-Agent"));
    }
    Ok(response)
}

/// `windows/contrib/4.2/PACKAGES` as location and file.
fn locate<'a>(path: &'a str, arch: &str) -> Option<(String, &'a str)> {
    let (folder, rest) = path.split_once("/contrib/")?;
    let (version, file) = rest.split_once('/')?;
    let is_version = version.split('.').count() == 2 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_version || version.len() > 8 {
        return None;
    }
    let location = match folder.split_once('/') {
        None if folder == "windows" || folder == "macosx" => format!("{folder}/{version}"),
        Some(("macosx", platform)) if is_word(platform) => format!("macosx/{platform}/{version}"),
        Some(("linux", platform)) => {
            let (r, codename) = platform.split_once('-')?;
            if r != version || !is_word(codename) {
                return None;
            }
            format!("linux/{codename}/{version}/{arch}")
        }
        _ => return None,
    };
    Some((location, file))
}

/// A request for something of a repository.
struct Asked<'a> {
    parts: &'a Parts,
    repository: Arc<Repository>,
    view: View,
    wanted: Wanted<'a>,
}

impl<'a> Asked<'a> {
    async fn new(
        parts: &'a Parts,
        origin: Origin,
        repository: &str,
        view: &str,
        wanted: Wanted<'a>,
    ) -> Result<Self, Failure> {
        let repository = parts.readable(repository, wanted.fields, origin).await?;
        match repository.language {
            Language::R => Ok(Self { parts, repository, view: View::parse(view)?, wanted }),
            Language::Python => Err(Failure::not_found(format_args!("R package in repository `{}`", repository.name))),
        }
    }

    async fn answer(&self, location: &str, path: &str) -> Result<Response, Failure> {
        let Self { parts, repository, view, wanted } = self;
        let missing = || Failure::not_found(format_args!("file `{path}` in repository `{}`", repository.name));
        // Nobody makes trees of what cannot be.
        let archived = path.strip_prefix("Archive/").or_else(|| path.strip_prefix("archive/"));
        let file = match archived.map(|path| path.split_once('/')) {
            Some(Some((package, file))) if name::split(file).is_some_and(|(of, _, _)| of == package) => file,
            Some(_) => return Err(missing()),
            None => path,
        };
        let is_index = matches!(path, "PACKAGES" | "PACKAGES.gz" | "PACKAGES.rds" | "Meta/archive.rds");
        if !is_index && name::split(file).is_none() {
            return Err(missing());
        }
        let tree = Tree::of(parts, repository, location, view.as_of()).await?;
        let (served, content_type) = match path {
            "PACKAGES" => (&tree.index.text, "text/plain; charset=utf-8"),
            "PACKAGES.gz" => (&tree.index.gzip, "application/gzip"),
            "PACKAGES.rds" => (&tree.index.rds, "application/octet-stream"),
            "Meta/archive.rds" if location.is_empty() && !tree.is_ours_alone() => {
                let archive = Archive::of(parts, repository, &tree, view.as_of()).await?;
                let Served { bytes, etag } = &archive.served;
                return Ok(download::index(bytes, etag, "application/octet-stream", repository, *wanted));
            }
            "Meta/archive.rds" => (&tree.archive, "application/octet-stream"),
            _ => {
                if let Some((package, version, _)) = name::split(file) {
                    block::refuse(repository, package, Some(version))?;
                }
                let response = if let Some(digest) = tree.file(file) {
                    download::blob(&parts.packages, digest, PACKAGE, repository, *wanted).await?
                } else if let Some(far) = tree.far(file) {
                    parts.remotes.file(parts, repository, far.clone(), PACKAGE, *wanted).await?
                } else {
                    self.archived(&tree, location, file).await.unwrap_or_else(|| Err(missing()))?
                };
                parts.stats.count(repository, file, *wanted, response.status());
                return Ok(response);
            }
        };
        Ok(download::index(&served.bytes, &served.etag, content_type, repository, *wanted))
    }
}

impl Asked<'_> {
    /// An old version in another index's Archive; `None`: nobody is to be asked.
    async fn archived(&self, tree: &Arc<Tree>, location: &str, file: &str) -> Option<Result<Response, Failure>> {
        let (package, version, _) = name::split(file)?;
        if !location.is_empty() || tree.is_ours(package) {
            return None;
        }
        let mut last = None;
        if self.view != View::NOW {
            // What is older than the newest of that day was there; what is not, if the Archive's index had it.
            let is_older = |(_, newest): &(_, &str)| name::compare(version, newest).is_lt();
            let older = tree.owner(package).filter(is_older).map(|(remote, _)| Arc::clone(remote));
            let owner = match older {
                Some(owner) => owner,
                None => match Archive::of(self.parts, &self.repository, tree, self.view.as_of()).await {
                    Ok(archive) => archive.owner(file).cloned()?,
                    Err(failure) => return Some(Err(failure)),
                },
            };
            return Some(self.archived_at(&owner, package, file).await);
        }
        // Where one has the package, another one's is something else.
        let is_its = |remote: &&Arc<Remote>| tree.owner(package).is_none_or(|(owner, _)| owner.id == remote.id);
        for remote in self.repository.remotes.iter().filter(|remote| remote.allows(package)).filter(is_its) {
            let answer = self.archived_at(remote, package, file).await;
            if !answer.as_ref().is_err_and(|failure| failure.status() == StatusCode::NOT_FOUND) {
                return Some(answer);
            }
            last = Some(answer);
        }
        last
    }

    async fn archived_at(&self, remote: &Arc<Remote>, package: &str, file: &str) -> Result<Response, Failure> {
        let path = super::archive::path(package, file);
        let blob = RemoteBlob {
            url: format!("{}{path}", remote.url),
            otherwise: None,
            path,
            remote: remote.clone(),
            promise: Promise::Nothing,
            is_past: false,
        };
        self.parts.remotes.file(self.parts, &self.repository, blob, PACKAGE, self.wanted).await
    }
}

/// Media type of packages: not one that anybody would want to unpack on the way.
const PACKAGE: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_folders_are_found_as_r_asks_for_them() {
        let of = |path| locate(path, "x86_64");
        assert_eq!(of("windows/contrib/4.2/PACKAGES"), Some(("windows/4.2".into(), "PACKAGES")));
        assert_eq!(of("macosx/contrib/4.2/a_1.0.tgz"), Some(("macosx/4.2".into(), "a_1.0.tgz")));
        let big_sur = Some(("macosx/big-sur-arm64/4.4".into(), "PACKAGES.rds"));
        assert_eq!(of("macosx/big-sur-arm64/contrib/4.4/PACKAGES.rds"), big_sur);
        let linux = Some(("linux/bookworm/4.2/x86_64".into(), "PACKAGES.gz"));
        assert_eq!(of("linux/4.2-bookworm/contrib/4.2/PACKAGES.gz"), linux);
        for wrong in
            ["windows/contrib/PACKAGES", "linux/4.2-x/contrib/4.3/P", "amiga/contrib/4.2/P", "windows/contrib/../P"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
