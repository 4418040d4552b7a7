//! Index pages as text: JSON (PEP 691, 700, 714, 740, 792) and HTML (PEP 503, as PEP 833 froze it). Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::negotiate::Form;
use crate::node::store::{PackageFile, Project};
use crate::telemetry::Timestamp;

/// Where a page's links lead.
#[derive(Clone, Copy, Debug)]
pub struct Links<'a> {
    /// From a project's page to the repository, relative, so that it holds behind any proxy and prefix.
    pub up: &'a str,
    /// The repository as the world sees it, where the configuration tells: what must be absolute.
    pub absolute: Option<&'a str>,
}

impl Links<'_> {
    fn file(&self, file: &PackageFile) -> String {
        format!("{}/files/{}/{}", self.up, file.sha256, file.filename)
    }

    /// Of who built the file, where its publisher told (PEP 740).
    fn provenance(&self, project: &Project, file: &PackageFile) -> Option<String> {
        let base = self.absolute.filter(|_| file.has_provenance)?;
        let (name, version, filename) = (&project.normal_name, &file.version, &file.filename);
        Some(format!("{base}/integrity/{name}/{version}/{filename}/provenance"))
    }
}

/// The list of projects.
pub fn projects(projects: &[Project], form: Form) -> String {
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

/// A project's page.
pub fn project(project: &Project, files: &[PackageFile], form: Form, links: &Links<'_>) -> String {
    if form == Form::Json {
        return json!({
            "meta": { "api-version": API },
            "name": project.normal_name,
            "versions": versions(files),
            "files": files.iter().map(|file| in_json(project, file, links)).collect::<Vec<_>>(),
            "project-status": status(project),
        })
        .to_string();
    }
    let mut out = head(&format!("Links for {}", project.name), Some(project));
    for file in files {
        let _ = write!(out, "<a href=\"{}#sha256={}\"", links.file(file), file.sha256);
        if let Some(needs) = &file.requires_python {
            let _ = write!(out, " data-requires-python=\"{}\"", escaped(needs));
        }
        if let Some(digest) = &file.metadata_sha256 {
            let _ = write!(out, " data-core-metadata=\"sha256={digest}\" data-dist-info-metadata=\"sha256={digest}\"");
        }
        if let Some(reason) = &file.yanked {
            let _ = write!(out, " data-yanked=\"{}\"", escaped(reason));
        }
        if let Some(url) = links.provenance(project, file) {
            let _ = write!(out, " data-provenance=\"{}\"", escaped(&url));
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

fn in_json(project: &Project, file: &PackageFile, links: &Links<'_>) -> Value {
    let mut out = json!({
        "filename": file.filename,
        "url": links.file(file),
        // No other: pip before 23.3 refuses a file that has a hash whose name it does not know.
        "hashes": { "sha256": file.sha256 },
        "yanked": match &file.yanked {
            None => json!(false),
            Some(reason) if reason.is_empty() => json!(true),
            Some(reason) => json!(reason),
        },
    });
    if let Some(size) = file.size {
        out["size"] = json!(size);
    }
    if let Some(at) = file.uploaded_at {
        out["upload-time"] = json!(Timestamp::from_unix(Duration::from_micros(at.unsigned_abs())).to_string());
    }
    if let Some(needs) = &file.requires_python {
        out["requires-python"] = json!(needs);
    }
    if let Some(digest) = &file.metadata_sha256 {
        // Not under its older name too: pip 22.3 to 23.0 expects no object there and fails (PEP 714).
        out["core-metadata"] = json!({ "sha256": digest });
    }
    if let Some(url) = links.provenance(project, file) {
        out["provenance"] = json!(url);
    }
    out
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

/// The version of the simple API these pages speak (PEP 629, 700, 792).
const API: &str = "1.4";

#[cfg(test)]
mod tests;
