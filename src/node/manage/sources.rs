//! `/sources`.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::check_name;
use super::repos::language_of;
use crate::node::api::{Answer, Body, Manager, read};
use crate::node::error::Failure;
use crate::node::git::{self, GitSettings};
use crate::node::jobs;
use crate::node::parts::Parts;
use crate::node::pypi;
use crate::node::store::{Language, Scope, StoreError};

pub(super) async fn list(State(parts): State<Parts>, manager: Manager) -> Answer {
    manager.may_everywhere(Scope::Read)?;
    let all = parts.store.sources().await?;
    let told = all.into_iter().map(|source| {
        let settings: Value = serde_json::from_str(&source.settings).unwrap_or_default();
        json!({ "name": source.name, "type": source.language, "kind": source.kind, "settings": settings })
    });
    Ok(Json(told.collect()))
}

/// What a new source is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    #[serde(rename = "type")]
    language: String,
    kind: String,
    /// `remote`: the simple repository API of another index, or a CRAN-like repository. `git`: as git takes it.
    url: Option<String>,
    /// `remote`: the only packages it is asked for; absent: all.
    allow: Option<Vec<String>>,
    /// `git`: build each commit of this branch; absent: each tag.
    branch: Option<String>,
    /// `git`: where the package is in the repository.
    folder: Option<String>,
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Create>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Create { name, language, kind, url, allow, branch, folder }) = read(body)?;
    if kind != "remote" && allow.is_some() {
        return Err(Failure::bad("Only a remote source has packages it may be asked for").into());
    }
    if kind != "git" && (branch.is_some() || folder.is_some()) {
        return Err(Failure::bad("Only a git source has a branch and a folder").into());
    }
    check_name(&name, "source")?;
    let language = language_of(&language)?;
    let settings = match (kind.as_str(), url) {
        ("local", None) => json!({}),
        ("local", Some(_)) => return Err(Failure::bad("A local source has no URL: what it has is uploaded").into()),
        ("remote", Some(url)) => {
            json!({ "url": index_url(&url)?, "allow": allow.map(|allow| names(language, allow)).transpose()? })
        }
        ("remote", None) => return Err(Failure::bad("A remote source needs the URL of another index").into()),
        ("git", Some(url)) => {
            let settings = GitSettings { url, branch, folder };
            settings.check().map_err(Failure::bad)?;
            json!(settings)
        }
        ("git", None) => return Err(Failure::bad("A git source needs the URL of a repository").into()),
        _ => return Err(Failure::bad(format!("`{kind}` is no kind of source: `local`, `remote` or `git`")).into()),
    };
    let deed = manager.deed("create_source", &name, &kind);
    parts.store.create_source(&name, language, &kind, &settings.to_string(), &deed).await.map_err(
        |error| match error {
            StoreError::Taken => Failure::new(StatusCode::CONFLICT, format!("There is a source `{name}` already")),
            other => other.into(),
        },
    )?;
    Ok(Json(json!({ "name": name, "type": language.as_str(), "kind": kind, "settings": settings })))
}

/// As they are looked up.
fn names(language: Language, allow: Vec<String>) -> Result<Vec<String>, Failure> {
    if allow.len() > ALLOWED_MAX {
        return Err(Failure::bad(format!("More than {ALLOWED_MAX} packages are as good as all")));
    }
    let mut names: Vec<String> = match language {
        Language::Python => allow.iter().map(|name| pypi::name::normal(name)).collect(),
        Language::R => allow,
    };
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Packages a source may be asked for.
const ALLOWED_MAX: usize = 10_000;

/// What changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The only packages it is asked for; `null`: all.
    allow: Option<Vec<String>>,
}

pub(super) async fn change(
    State(parts): State<Parts>,
    manager: Manager,
    Path(name): Path<String>,
    body: Body<Change>,
) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let Json(Change { allow }) = read(body)?;
    let all = parts.store.sources().await?;
    let missing = || Failure::not_found(format_args!("remote source `{name}`"));
    let source = all.into_iter().find(|source| source.name == name && source.kind == "remote").ok_or_else(missing)?;
    let language = language_of(&source.language)?;
    let allow = allow.map(|allow| names(language, allow)).transpose()?;
    let detail = allow.as_ref().map_or_else(|| "all".to_owned(), |allow| allow.join(" "));
    let deed = manager.deed("change_source", &name, &detail);
    if !parts.store.set_allowed(&name, allow.as_deref(), &deed).await? {
        return Err(missing().into());
    }
    parts.catalog.refresh().await?;
    Ok(Json(json!({ "name": name, "allow": allow })))
}

/// How to look.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sync {
    /// `git`: build again what failed.
    retry: bool,
}

pub(super) async fn sync(
    State(parts): State<Parts>,
    manager: Manager,
    Path(name): Path<String>,
    body: Body<Sync>,
) -> Answer {
    manager.may_everywhere(Scope::Publish)?;
    let Json(Sync { retry }) = read(body)?;
    let all = parts.store.sources().await?;
    let found = all.into_iter().find(|source| source.name == name);
    let source = found.ok_or_else(|| Failure::not_found(format_args!("source `{name}`")))?;
    let deed = manager.deed("sync_source", &name, &source.kind);
    match source.kind.as_str() {
        "git" => {
            let again = if retry { git::retry(&parts, &source).await? } else { 0 };
            let busy = || Failure::new(StatusCode::CONFLICT, format!("A node is about to look into source `{name}`"));
            let id = jobs::sync(&parts, &source, Some(&deed)).await?.ok_or_else(busy)?;
            Ok(Json(json!({ "source": name, "job": id.to_string(), "again": again })))
        }
        "remote" => {
            parts.store.sync_remote(&name, &deed).await?;
            parts.catalog.refresh().await?;
            // Asked at once, for its dated views too.
            let job = match parts.catalog.remote(source.id) {
                Some((Language::R, _)) => jobs::sync(&parts, &source, None).await?,
                _ => None,
            };
            Ok(Json(json!({ "source": name, "job": job.map(|id| id.to_string()) })))
        }
        _ => Err(Failure::bad(format!("Source `{name}` takes uploads: there is nothing to look at")).into()),
    }
}

pub(super) async fn remove(State(parts): State<Parts>, manager: Manager, Path(name): Path<String>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let deed = manager.deed("remove_source", &name, "");
    let removed = parts.store.remove_source(&name, &deed).await.map_err(|error| match error {
        StoreError::InUse => Failure::new(
            StatusCode::CONFLICT,
            format!("A repository shows source `{name}`: take it out of there, or remove the repository, first"),
        ),
        other => other.into(),
    })?;
    if !removed {
        return Err(Failure::not_found(format_args!("source `{name}`")).into());
    }
    Ok(Json(json!({ "removed": name })))
}

/// With a slash at the end. No credentials: what is listed would show them.
fn index_url(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::bad(format!("`{text}` is no URL of an index, such as `https://pypi.org/simple/`"));
    let url: reqwest::Url = text.parse().map_err(|_| wrong())?;
    let is_plain =
        url.query().is_none() && url.fragment().is_none() && url.password().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() || !is_plain {
        return Err(wrong());
    }
    Ok(format!("{}/", url.as_str().trim_end_matches('/')))
}
