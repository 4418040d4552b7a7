//! `pypi/{project}/json`: what PyPI's own JSON API tells of a project. Installers do not ask it; dashboards and scripts do.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::name;
use crate::node::block;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{Project, Told};
use crate::telemetry::Timestamp;

/// The latest release, and every file.
///
/// # Errors
/// See [`Failure`].
pub async fn project_json(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, project)): Path<(String, String)>,
    fields: HeaderMap,
) -> Result<Json<Value>, Failure> {
    answer(&parts, origin, &repository, &project, None, &fields).await
}

/// One release.
///
/// # Errors
/// See [`Failure`].
pub async fn release_json(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, project, version)): Path<(String, String, String)>,
    fields: HeaderMap,
) -> Result<Json<Value>, Failure> {
    answer(&parts, origin, &repository, &project, Some(&version), &fields).await
}

async fn answer(
    parts: &Parts,
    origin: Origin,
    repository: &str,
    project: &str,
    version: Option<&str>,
    fields: &HeaderMap,
) -> Result<Json<Value>, Failure> {
    let repository = parts.readable(repository, fields, origin).await?;
    let missing = || Failure::not_found(format_args!("project `{project}` in repository `{}`", repository.name));
    let found = parts.store.project(repository.id, &name::normal(project), i64::MAX).await?;
    let (project, _) = found.filter(|(project, _)| project.status != "quarantined").ok_or_else(missing)?;
    block::refuse(&repository, &project.normal_name, None)?;
    let files = parts.store.told(project.id).await?;
    let version = match version {
        Some(version) => files.iter().find(|file| file.version == version).map(|file| file.version.clone()),
        None => latest(&files),
    };
    let version = version.ok_or_else(missing)?;
    let base = format!("{}/packages/{}", parts.base(fields, origin), repository.name);
    Ok(Json(render(&project, &files, &version, &base)))
}

/// The newest version that is neither yanked nor a pre-release, or of what there is the newest.
fn latest(files: &[Told]) -> Option<String> {
    let rank = |file: &&Told| {
        let version = file.version.parse::<pep440_rs::Version>().ok();
        let is_final = version.as_ref().is_some_and(|version| !version.any_prerelease());
        (file.yanked.is_none() && is_final, file.yanked.is_none(), version)
    };
    files.iter().max_by_key(rank).map(|file| file.version.clone())
}

fn render(project: &Project, files: &[Told], version: &str, base: &str) -> Value {
    let of_version: Vec<&Told> = files.iter().filter(|file| file.version == version).collect();
    let record = of_version.first().map(|file| file.record.as_str()).unwrap_or_default();
    let mut info: Map<String, Value> = serde_json::from_str(record).unwrap_or_default();
    let urls = info.remove("project_urls").unwrap_or_default();
    let urls: BTreeMap<String, String> = urls
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter_map(|pair| pair.split_once(','))
        .map(|(label, url)| (label.trim().to_owned(), url.trim().to_owned()))
        .collect();
    let yanked = of_version.iter().all(|file| file.yanked.is_some()).then(|| of_version.first()).flatten();
    info.insert("name".into(), json!(project.name));
    info.insert("version".into(), json!(version));
    info.insert("project_urls".into(), if urls.is_empty() { Value::Null } else { json!(urls) });
    info.insert("project_url".into(), json!(format!("{base}/simple/{}/", project.normal_name)));
    info.insert("package_url".into(), json!(format!("{base}/simple/{}/", project.normal_name)));
    info.insert("release_url".into(), json!(format!("{base}/pypi/{}/{version}/json", project.normal_name)));
    info.insert("yanked".into(), json!(yanked.is_some()));
    info.insert("yanked_reason".into(), json!(yanked.and_then(|file| reason(file))));
    for absent in [
        "author",
        "author_email",
        "classifiers",
        "description",
        "description_content_type",
        "home_page",
        "keywords",
        "license",
        "license_expression",
        "license_files",
        "maintainer",
        "maintainer_email",
        "platform",
        "provides_extra",
        "requires_dist",
        "requires_python",
        "summary",
    ] {
        info.entry(absent).or_insert(Value::Null);
    }
    let mut releases: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for file in files {
        releases.entry(&file.version).or_default().push(in_json(file, base));
    }
    json!({
        "info": info,
        "last_serial": files.iter().map(|file| file.uploaded_at).max().unwrap_or_default(),
        "releases": releases,
        "urls": of_version.iter().map(|file| in_json(file, base)).collect::<Vec<_>>(),
        "vulnerabilities": [],
    })
}

fn reason(file: &Told) -> Option<&str> {
    file.yanked.as_deref().filter(|reason| !reason.is_empty())
}

fn in_json(file: &Told, base: &str) -> Value {
    let uploaded = Timestamp::from_unix(Duration::from_micros(file.uploaded_at.unsigned_abs())).to_string();
    let record: Map<String, Value> = serde_json::from_str(&file.record).unwrap_or_default();
    json!({
        "comment_text": null,
        "digests": { "blake2b_256": file.blake2, "md5": file.md5, "sha256": file.sha256 },
        "downloads": -1,
        "filename": file.filename,
        "has_sig": false,
        "md5_digest": file.md5,
        "packagetype": file.kind,
        "python_version": record.get("pyversion").cloned().unwrap_or_else(|| json!("source")),
        "requires_python": file.requires_python,
        "size": file.size,
        "upload_time": uploaded.split('.').next().unwrap_or_default().trim_end_matches('Z'),
        "upload_time_iso_8601": uploaded,
        "url": format!("{base}/files/{}/{}", file.sha256, file.filename),
        "yanked": file.yanked.is_some(),
        "yanked_reason": reason(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: &str, yanked: Option<&str>) -> Told {
        Told {
            filename: format!("a-{version}.tar.gz"),
            version: version.into(),
            kind: "sdist".into(),
            size: 5,
            sha256: "s".into(),
            md5: "m".into(),
            blake2: "b".into(),
            requires_python: Some(">=3.8".into()),
            metadata_sha256: None,
            provenance_sha256: None,
            yanked: yanked.map(Into::into),
            uploaded_at: 1_700_000_000_123_456,
            record: json!({ "summary": "small", "project_urls": ["Home, https://x.example"] }).to_string(),
        }
    }

    #[test]
    fn the_latest_is_final_and_not_yanked_where_there_is_such() {
        let of = |files: &[Told]| latest(files);
        let all =
            [file("1.0", None), file("1.9", None), file("1.10", None), file("2.0a1", None), file("3.0", Some(""))];
        assert_eq!(of(&all).as_deref(), Some("1.10"));
        assert_eq!(of(&[file("2.0a1", None), file("3.0", Some(""))]).as_deref(), Some("2.0a1"));
        assert_eq!(of(&[file("3.0", Some(""))]).as_deref(), Some("3.0"));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn it_reads_as_pypi_writes_it() {
        let project =
            Project { id: 1, name: "A".into(), normal_name: "a".into(), status: "active".into(), status_reason: None };
        let files = [file("1.0", Some("broken")), file("1.1", None)];
        insta::assert_json_snapshot!(render(&project, &files, "1.0", "https://p.example/packages/pypi"));
    }
}
