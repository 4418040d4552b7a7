//! `/repos/{repo}/packages`: what was published there. Uploading has its own URLs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use crate::node::api::{Answer, Body, Manager, Query, read, time};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::pypi;
use crate::node::store::{Language, ProjectRow, Repository, Scope, Which};

/// A package, or what would be one.
struct Place {
    repository: Arc<Repository>,
    /// The first source of the repository that has it, else where it would be uploaded.
    source: i64,
    /// As it is looked up.
    normal: String,
}

impl Place {
    /// To be looked at.
    async fn of(parts: &Parts, name: &str, package: &str) -> Result<Self, Failure> {
        let repository = found(parts, name).await?;
        let normal = match repository.language {
            Language::Python => pypi::name::normal(package),
            Language::R => package.to_owned(),
        };
        for source in &repository.own_sources {
            if parts.store.project_of(*source, &normal).await?.is_some() {
                return Ok(Self { source: *source, repository, normal });
            }
        }
        Err(missing(package, name))
    }

    /// To be changed. What a repository shows of a source that it does not publish to is not its own.
    async fn changing(
        parts: &Parts,
        manager: &Manager,
        scope: Scope,
        name: &str,
        package: &str,
    ) -> Result<Self, Failure> {
        manager.may(scope, name)?;
        let place = Self::of(parts, name, package).await?;
        if place.repository.upload_source != Some(place.source) {
            manager.may_everywhere(scope)?;
        }
        Ok(place)
    }
}

async fn found(parts: &Parts, name: &str) -> Result<Arc<Repository>, Failure> {
    // Another node may have made it a moment ago.
    parts.catalog.refresh().await?;
    parts.catalog.find(name)
}

fn missing(package: &str, repository: &str) -> Failure {
    Failure::not_found(format_args!("package `{package}` in repository `{repository}`"))
}

pub(in crate::node) async fn list(State(parts): State<Parts>, manager: Manager, Path(repo): Path<String>) -> Answer {
    manager.may(Scope::Read, &repo)?;
    let repository = found(&parts, &repo).await?;
    let mut all = Vec::new();
    for source in &repository.own_sources {
        // The first source that has a package decides.
        for project in parts.store.projects_of(*source).await? {
            if !all.iter().any(|known: &ProjectRow| known.name == project.name) {
                all.push(project);
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let told = all.into_iter().map(|project| {
        json!({
            "name": project.name,
            "status": project.status,
            "files": project.files,
            "last_upload": project.last_upload_at.map(time),
        })
    });
    Ok(Json(told.collect()))
}

pub(in crate::node) async fn show(
    State(parts): State<Parts>,
    manager: Manager,
    Path((repo, package)): Path<(String, String)>,
) -> Answer {
    manager.may(Scope::Read, &repo)?;
    let place = Place::of(&parts, &repo, &package).await?;
    let found = parts.store.project_of(place.source, &place.normal).await?;
    let (project, files) = found.ok_or_else(|| missing(&package, &repo))?;
    let files = files.into_iter().map(|file| {
        json!({
            "filename": file.filename,
            "location": file.location,
            "version": file.version,
            "size": file.size,
            "sha256": file.sha256,
            "yanked": file.yanked,
            "archived": file.archived_at.map(time),
            "uploaded": time(file.uploaded_at),
            "uploaded_by": file.uploaded_by,
        })
    });
    Ok(Json(json!({
        "name": project.name,
        "status": project.status,
        "status_reason": project.status_reason,
        "files": files.collect::<Vec<_>>(),
    })))
}

/// A new status.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewStatus {
    status: String,
    reason: Option<String>,
}

pub(super) async fn status(
    State(parts): State<Parts>,
    manager: Manager,
    Path((repo, package)): Path<(String, String)>,
    body: Body<NewStatus>,
) -> Answer {
    let Json(NewStatus { status, reason }) = read(body)?;
    if !["active", "archived", "deprecated", "quarantined"].contains(&status.as_str()) {
        let told = format!("`{status}` is no status: `active`, `archived`, `deprecated` or `quarantined`");
        return Err(Failure::bad(told).into());
    }
    let place = Place::changing(&parts, &manager, Scope::Publish, &repo, &package).await?;
    let subject = format!("{repo}/{package}");
    let detail = format!("{status} {}", reason.as_deref().unwrap_or_default());
    let deed = manager.deed("set_status", &subject, &detail);
    let changed = parts.store.set_status(place.source, &place.normal, &status, reason.as_deref(), &deed).await?;
    if !changed {
        return Err(missing(&package, &repo).into());
    }
    parts.catalog.refresh().await?;
    Ok(Json(json!({ "name": package, "status": status, "status_reason": reason })))
}

/// Which files, and whether to take it back.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Files {
    version: Option<String>,
    file: Option<String>,
    reason: Option<String>,
    undo: bool,
}

impl Files {
    fn which<'a>(&'a self, place: &'a Place) -> Which<'a> {
        Which {
            source: place.source,
            normal_name: &place.normal,
            version: self.version.as_deref(),
            filename: self.file.as_deref(),
        }
    }

    fn told(&self) -> String {
        let parts = [self.version.as_deref(), self.file.as_deref(), self.reason.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// Says how many files were changed; none is an error.
async fn changed(parts: &Parts, files: u64, what: &str, package: &str, repo: &str) -> Answer {
    if files == 0 {
        return Err(Failure::not_found(format_args!(
            "file of `{package}` in repository `{repo}` that could be {what}"
        ))
        .into());
    }
    parts.catalog.refresh().await?;
    Ok(Json(json!({ "package": package, "files": files, "done": what })))
}

pub(super) async fn yank(
    State(parts): State<Parts>,
    manager: Manager,
    Path((repo, package)): Path<(String, String)>,
    body: Body<Files>,
) -> Answer {
    let files = read(body)?.0;
    let place = Place::changing(&parts, &manager, Scope::Publish, &repo, &package).await?;
    if place.repository.language == Language::R {
        return Err(Failure::bad("R knows no yanked packages: `archive` moves a version into the Archive").into());
    }
    let (subject, detail) = (format!("{repo}/{package}"), files.told());
    let which = files.which(&place);
    let (done, what) = if files.undo {
        (parts.store.unyank(which, &manager.deed("unyank", &subject, &detail)).await?, "unyanked")
    } else {
        let reason = files.reason.as_deref().unwrap_or_default();
        (parts.store.yank(which, reason, &manager.deed("yank", &subject, &detail)).await?, "yanked")
    };
    changed(&parts, done, what, &package, &repo).await
}

pub(super) async fn archive(
    State(parts): State<Parts>,
    manager: Manager,
    Path((repo, package)): Path<(String, String)>,
    body: Body<Files>,
) -> Answer {
    let files = read(body)?.0;
    let place = Place::changing(&parts, &manager, Scope::Publish, &repo, &package).await?;
    let (subject, detail) = (format!("{repo}/{package}"), files.told());
    if place.repository.language == Language::Python {
        // PEP 792: a whole project is archived.
        if files.version.is_some() || files.file.is_some() {
            return Err(Failure::bad("A Python project is archived as a whole; `yank` is for a version or file").into());
        }
        let status = if files.undo { "active" } else { "archived" };
        let deed = manager.deed("set_status", &subject, status);
        if !parts.store.set_status(place.source, &place.normal, status, files.reason.as_deref(), &deed).await? {
            return Err(missing(&package, &repo).into());
        }
        parts.catalog.refresh().await?;
        return Ok(Json(json!({ "package": package, "done": status })));
    }
    let which = files.which(&place);
    let (done, what) = if files.undo {
        (parts.store.unarchive(which, &manager.deed("unarchive", &subject, &detail)).await?, "restored")
    } else {
        (parts.store.archive(which, &manager.deed("archive", &subject, &detail)).await?, "archived")
    };
    changed(&parts, done, what, &package, &repo).await
}

/// Which files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removed {
    version: Option<String>,
    file: Option<String>,
}

pub(super) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path((repo, package)): Path<(String, String)>,
    asked: Query<Removed>,
) -> Answer {
    let Removed { version, file } = read(asked)?.0;
    let files = Files { version, file, ..Files::default() };
    let place = Place::changing(&parts, &manager, Scope::Admin, &repo, &package).await?;
    let (subject, detail) = (format!("{repo}/{package}"), files.told());
    let done = parts.store.remove(files.which(&place), &manager.deed("remove", &subject, &detail)).await?;
    changed(&parts, done, "removed", &package, &repo).await
}
