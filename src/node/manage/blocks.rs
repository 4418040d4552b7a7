//! `/repos/{repo}/blocks`: what a repository withholds.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use crate::node::api::{Answer, Body, Manager, Query, read};
use crate::node::block;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::pypi;
use crate::node::store::{Block, Language, Repository, Scope};

/// Rules of one repository: each is looked at for each file of its package.
const RULES_MAX: usize = 10_000;

fn normal(repository: &Repository, package: &str) -> String {
    match repository.language {
        Language::Python => pypi::name::normal(package),
        Language::R => package.to_owned(),
    }
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, Path(repo): Path<String>) -> Answer {
    manager.may(Scope::Read, &repo)?;
    parts.catalog.refresh().await?;
    let repository = parts.catalog.find(&repo)?;
    let told = repository
        .blocks
        .iter()
        .map(|block| json!({ "package": block.package, "versions": block.versions, "reason": block.reason }));
    Ok(Json(told.collect()))
}

/// A new rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    package: String,
    /// Such as `<2.0`; absent: all.
    versions: Option<String>,
    reason: String,
}

pub(super) async fn create(
    State(parts): State<Parts>,
    manager: Manager,
    Path(repo): Path<String>,
    body: Body<Create>,
) -> Answer {
    manager.may(Scope::Admin, &repo)?;
    let Json(Create { package, versions, reason }) = read(body)?;
    parts.catalog.refresh().await?;
    let repository = parts.catalog.find(&repo)?;
    let package = normal(&repository, &package);
    let versions = versions.unwrap_or_default();
    if package.is_empty() || package.len() > 256 || versions.len() > 1_000 {
        return Err(Failure::bad("A rule needs the name of a package, and a short condition on its versions").into());
    }
    if reason.trim().is_empty() || reason.len() > 500 || reason.chars().any(char::is_control) {
        return Err(Failure::bad("A rule needs a reason of one line: clients show it").into());
    }
    if !versions.is_empty() {
        block::check(repository.language, &versions).map_err(Failure::bad)?;
    }
    if repository.blocks.len() >= RULES_MAX {
        return Err(Failure::bad(format!("There are {RULES_MAX} rules already")).into());
    }
    let (subject, detail) = (format!("{repo}/{package}"), format!("{versions} {reason}"));
    let block = Block { package, versions, reason };
    parts.store.block(repository.id, &block, &manager.deed("block", &subject, detail.trim())).await?;
    parts.catalog.refresh().await?;
    Ok(Json(json!({ "package": block.package, "versions": block.versions, "reason": block.reason })))
}

/// Which rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// That about these; absent: all about the package.
    versions: Option<String>,
}

pub(super) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path((repo, package)): Path<(String, String)>,
    which: Query<Which>,
) -> Answer {
    manager.may(Scope::Admin, &repo)?;
    let versions = read(which)?.0.versions;
    parts.catalog.refresh().await?;
    let repository = parts.catalog.find(&repo)?;
    let package = normal(&repository, &package);
    let subject = format!("{repo}/{package}");
    let deed = manager.deed("unblock", &subject, versions.as_deref().unwrap_or_default());
    let gone = parts.store.unblock(repository.id, &package, versions.as_deref(), &deed).await?;
    if gone == 0 {
        return Err(Failure::not_found(format_args!("such rule about `{package}` in repository `{repo}`")).into());
    }
    parts.catalog.refresh().await?;
    Ok(Json(json!({ "package": package, "removed": gone })))
}
