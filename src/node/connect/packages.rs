//! `/v1/packages` and `/v1/content/{guid}/packages`: what content runs with. Of R as the bundle that runs lists it, of Python as
//! its environment had it when it was last deployed.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::content::own;
use crate::node::api::{Answer, Manager, Query, read};
use crate::node::content::manifest::Manifest;
use crate::node::content::{access, python};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::store::ContentRow;

/// Packages on a page, where the client does not say, and at most: posit-sdk asks for a million.
const PAGE: usize = 500;
const PAGE_MAX: usize = 50_000;
/// Contents that are looked up at once.
const CONTENTS: usize = 200;

/// Which packages.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    language: Option<String>,
    name: Option<String>,
    version: Option<String>,
    /// Of an R package's description; none is known here, so that none has one.
    hash: Option<String>,
    bundle_id: Option<String>,
    /// The number of content.
    app_id: Option<String>,
    app_guid: Option<String>,
    /// From 1.
    page_number: Option<usize>,
    page_size: Option<usize>,
}

impl Wanted {
    /// # Errors
    /// 400.
    fn check(&self) -> Result<(), Failure> {
        match self.language.as_deref() {
            None | Some(PYTHON | R) => Ok(()),
            Some(other) => Err(Failure::bad(format!("`{other}` is no `language`: `{PYTHON}` or `{R}`"))),
        }
    }

    fn is_of(&self, content: &ContentRow) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        let bundle = content.bundle.map(|number| number.to_string());
        is(&self.app_guid, &content.guid)
            && is(&self.app_id, &content.number.to_string())
            && is(&self.bundle_id, bundle.as_deref().unwrap_or_default())
    }

    fn is_it(&self, package: &Package<'_>) -> bool {
        let is = |wanted: &Option<String>, own: Option<&str>| wanted.is_none() || wanted.as_deref() == own;
        is(&self.language, Some(package.language))
            && is(&self.name, Some(package.name))
            && is(&self.version, package.version)
            && self.hash.is_none()
    }
}

const PYTHON: &str = "python";
const R: &str = "r";

/// One that something runs with.
struct Package<'a> {
    language: &'static str,
    language_version: Option<&'a str>,
    name: &'a str,
    /// `None`: it is not from an index, or the bundle does not say.
    version: Option<&'a str>,
}

impl Package<'_> {
    fn tell(&self) -> Value {
        json!({
            "language": self.language,
            "language_version": self.language_version,
            "name": self.name,
            "version": self.version,
            "hash": null,
        })
    }
}

/// Of all content that the caller may change.
pub(super) async fn list(State(parts): State<Parts>, manager: Manager, query: Query<Wanted>) -> Answer {
    let axum::extract::Query(wanted) = read(query)?;
    wanted.check()?;
    let (page, size) = (wanted.page_number.unwrap_or(1).max(1), wanted.page_size.unwrap_or(PAGE).clamp(1, PAGE_MAX));
    let first = (page - 1).saturating_mul(size);
    let mut all = parts.store.contents(None, None).await?;
    all.retain(|content| access::may_change(manager.viewer(), content) && wanted.is_of(content));
    // The same on every page, whatever is changed meanwhile.
    all.sort_by_key(|content| content.number);
    let (mut total, mut shown) = (0, Vec::new());
    for some in all.chunks(CONTENTS) {
        for (content, packages) in some.iter().zip(told(&parts, some, &wanted).await?) {
            for mut package in packages {
                if (first..first.saturating_add(size)).contains(&total) {
                    package["bundle_id"] = content.bundle.map(|number| number.to_string()).into();
                    package["app_id"] = content.number.to_string().into();
                    package["app_guid"] = content.guid.as_str().into();
                    shown.push(package);
                }
                total += 1;
            }
        }
    }
    Ok(Json(json!({ "results": shown, "current_page": page, "total": total })))
}

/// Of one content.
pub(super) async fn of_content(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    query: Query<Wanted>,
) -> Answer {
    let axum::extract::Query(wanted) = read(query)?;
    wanted.check()?;
    let content = own(&parts, &manager, &guid).await?;
    let packages = told(&parts, std::slice::from_ref(&content), &wanted).await?;
    Ok(Json(packages.into_iter().flatten().collect()))
}

/// What of these contents is wanted, in their order.
async fn told(parts: &Parts, contents: &[ContentRow], wanted: &Wanted) -> Result<Vec<Vec<Value>>, Failure> {
    let numbers: Vec<i64> = contents.iter().filter_map(|content| content.bundle).collect();
    let bundles = parts.contents.bundles_of(&parts.store, &numbers).await?;
    let locks = parts.store.locks(&numbers).await?;
    let of = |content: &ContentRow| -> Option<Vec<Value>> {
        let number = content.bundle?;
        let lock = locks.get(&number).map(String::as_str).unwrap_or_default();
        Some(
            listed(&bundles.get(&number)?.manifest, lock)
                .filter(|one| wanted.is_it(one))
                .map(|one| one.tell())
                .collect(),
        )
    };
    Ok(contents.iter().map(|content| of(content).unwrap_or_default()).collect())
}

/// What a manifest lists of R, and a lock of Python.
fn listed<'a>(manifest: &'a Manifest, lock: &'a str) -> impl Iterator<Item = Package<'a>> {
    let r = manifest.packages.iter().map(|package| Package {
        language: R,
        language_version: manifest.r.as_deref(),
        name: &package.name,
        version: package.version.as_deref(),
    });
    let of = python::version(lock);
    let python = lock.lines().filter_map(move |line| {
        let (name, version) = match (line.split_once("=="), line.split_once(" @ ")) {
            (Some((name, version)), _) => (name, Some(version.trim())),
            (None, Some((name, _))) => (name, None),
            (None, None) => return None,
        };
        let name = name.trim();
        (!name.starts_with('#')).then_some(Package { language: PYTHON, language_version: of, name, version })
    });
    r.chain(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_manifests_and_locks() {
        let manifest: Manifest = serde_json::from_value(json!({
            "mode": "shiny", "entrypoint": null, "r": "4.2.2", "python": null, "requirements": null, "has_parameters": false,
            "packages": [{ "name": "R6", "version": "2.5.1" }, { "name": "cli" }],
        }))
        .unwrap();
        let lock = "# python=3.11.2\nfastapi==0.1.0\nown @ file:///x/own-1.0-py3-none-any.whl\n# a==1\n\n-e .\n";
        let all: Vec<Value> = listed(&manifest, lock).map(|one| one.tell()).collect();
        let one = |language: &str, of: &str, name: &str, version: Option<&str>| json!({ "language": language, "language_version": of, "name": name, "version": version, "hash": null });
        assert_eq!(
            all,
            [
                one("r", "4.2.2", "R6", Some("2.5.1")),
                one("r", "4.2.2", "cli", None),
                one("python", "3.11.2", "fastapi", Some("0.1.0")),
                one("python", "3.11.2", "own", None),
            ]
        );
        assert_eq!(listed(&manifest, "").count(), 2);
    }
}
