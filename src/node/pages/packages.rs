//! The package repositories: what they have, and how it is installed.

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::markdown::{is_web, markdown};
use super::page::{Section, ago, bytes, copyable};
use super::{Shown, Visit, refused};
use crate::node::manage::packages;
use crate::node::parts::Parts;
use crate::node::pypi::name::normal;
use crate::node::stats::today;
use crate::node::store::{By, Language, Repository};

/// Packages of a page; who has more searches.
const ROWS_MAX: usize = 500;
/// Days of downloads that are shown.
const DAYS: i64 = 90;
/// Bytes of a description that are shown.
const README_MAX: usize = 256 << 10;

pub(super) async fn repositories(State(parts): State<Parts>, visit: Visit) -> Shown {
    parts.catalog.refresh().await?;
    let all = parts.catalog.all();
    let body = html! {
        h1 { "Packages" }
        @if all.is_empty() { p.notice { "There is no repository yet: an administrator makes one by " code { "bowline repo create" } "." } }
        div.grid {
            @for repository in all.iter() {
                section.card {
                    div.row {
                        span class={ "icon " (if repository.language == Language::R { "r" } else { "py" }) } aria-hidden="true" {
                            @if repository.language == Language::R { "R" } @else { "Py" }
                        }
                        h2 { a href=(visit.at(&format!("/connect/packages/{}", repository.name))) { (repository.name) } }
                    }
                    p.quiet {
                        @if repository.language == Language::R { "R packages" } @else { "Python packages" }
                        @if !repository.anonymous_read { ", for who has logged in" }
                        @for remote in &repository.remotes { ", with those of " (remote.url) }
                    }
                    (copyable(&use_line(&visit, repository)))
                }
            }
        }
    };
    Ok(visit.page("Packages", Section::Packages, &body))
}

fn use_line(visit: &Visit, repository: &Repository) -> String {
    let url = format!("{}{}/packages/{}", visit.base, visit.prefix, repository.name);
    match repository.language {
        Language::Python => format!("pip config set global.index-url {url}/simple/"),
        Language::R => format!("options(repos = c({} = \"{url}/latest\"))", repository.name),
    }
}

/// What is looked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    q: Option<String>,
}

pub(super) async fn list(
    State(parts): State<Parts>,
    visit: Visit,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Shown {
    let told =
        packages::list(State(parts.clone()), visit.manager.clone(), Path(name.clone())).await.map_err(refused)?;
    let repository = parts.catalog.find(&name)?;
    let query = asked.q.unwrap_or_default();
    let wanted = query.trim().to_lowercase();
    let empty = Vec::new();
    let mut all: Vec<&Value> = told.0.as_array().unwrap_or(&empty).iter().collect();
    all.retain(|package| package["name"].as_str().is_some_and(|name| name.to_lowercase().contains(&wanted)));
    let found = all.len();
    all.truncate(ROWS_MAX);
    let body = html! {
        nav aria-label="Where you are" { p.quiet { a href=(visit.at("/connect/packages")) { "Packages" } " / " (name) } }
        div.row.head {
            h1 { (name) }
            form role="search" method="get" { input type="search" name="q" value=(query) placeholder="Name of a package" aria-label="Search packages" data-filter; }
        }
        (copyable(&use_line(&visit, &repository)))
        div.card.wide {
            @if all.is_empty() { p { "No package of this server's own is called so." } } @else {
                table {
                    thead { tr { th scope="col" { "Package" } th.number scope="col" { "Files" } th.lesser scope="col" { "Last upload" } th scope="col" { "" } } }
                    tbody {
                        @for package in &all {
                            @let name_of = package["name"].as_str().unwrap_or_default();
                            tr data-row=(name_of) {
                                td { a href=(visit.at(&format!("/connect/packages/{name}/{name_of}"))) { (name_of) } }
                                td.number { (package["files"]) }
                                td.quiet.whole.lesser { (package["last_upload"].as_str().unwrap_or_default().chars().take(10).collect::<String>()) }
                                td { @if package["status"] != "active" { span.tag { (package["status"].as_str().unwrap_or_default()) } } }
                            }
                        }
                    }
                }
                p.quiet data-empty hidden { "No package of this server's own is called so." }
            }
        }
        @if found > all.len() { p.quiet { "The first " (all.len()) " of " (found) ": search for the others." } }
        @for remote in &repository.remotes { p.quiet { "What is not here is fetched from " (remote.url) " when somebody installs it." } }
    };
    Ok(visit.page(&name, Section::Packages, &body))
}

pub(super) async fn show(
    State(parts): State<Parts>,
    visit: Visit,
    Path((name, package)): Path<(String, String)>,
) -> Shown {
    let path = Path((name.clone(), package.clone()));
    let told = packages::show(State(parts.clone()), visit.manager.clone(), path).await.map_err(refused)?.0;
    let repository = parts.catalog.find(&name)?;
    let looked_up = match repository.language {
        Language::Python => normal(&package),
        Language::R => package.clone(),
    };
    let project = parts.store.project(repository.id, &looked_up, i64::MAX).await?;
    let files = match &project {
        Some((project, _)) => parts.store.told(project.id).await?,
        None => Vec::new(),
    };
    let latest = files.last();
    let record: Map<String, Value> =
        latest.and_then(|file| serde_json::from_str(&file.record).ok()).unwrap_or_default();
    let says = |key: &str| record.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let title = told["name"].as_str().unwrap_or(&package);
    let summary = says("summary").or_else(|| says("Title"));
    let url = format!("{}{}/packages/{name}", visit.base, visit.prefix);
    let install = match repository.language {
        Language::Python => format!("pip install --index-url {url}/simple/ {title}"),
        Language::R => format!("install.packages(\"{title}\", repos = \"{url}/latest\")"),
    };
    let since = today() - DAYS + 1;
    let days = parts.store.downloads(repository.id, Some(&looked_up), since, By::Day, DAYS).await?;
    let empty = Vec::new();
    let listed = told["files"].as_array().unwrap_or(&empty);
    let body = html! {
        nav aria-label="Where you are" {
            p.quiet { a href=(visit.at("/connect/packages")) { "Packages" } " / " a href=(visit.at(&format!("/connect/packages/{name}"))) { (name) } " / " (title) }
        }
        div.row.head { h1 { (title) } @if let Some(latest) = latest { span.tag { (latest.version) } } @if told["status"] != "active" { span.tag.bad { (told["status"].as_str().unwrap_or_default()) } } }
        @if let Some(summary) = summary { p { (summary) } }
        @if let Some(reason) = told["status_reason"].as_str() { p.notice { (reason) } }
        (copyable(&install))
        div.grid {
            section.card aria-labelledby="about" {
                h2 id="about" { "About" }
                dl {
                    @for (label, keys) in [("Author", ["author", "Author"]), ("License", ["license_expression", "License"]), ("Requires Python", ["requires_python", "Depends"]), ("Home", ["home_page", "URL"])] {
                        @if let Some(text) = keys.iter().find_map(|key| says(key)) {
                            dt { (if keys[1] == "Depends" && repository.language == Language::R { "Depends" } else { label }) }
                            dd { (linked(text)) }
                        }
                    }
                    dt { "Files" } dd { (listed.len()) }
                    @if let Some(latest) = latest { dt { "Last upload" } dd { (ago(latest.uploaded_at)) } }
                }
            }
            section.card aria-labelledby="downloads" {
                h2 id="downloads" { "Downloads" }
                (plot(&days, since))
            }
        }
        @if let Some(text) = says("description").or_else(|| says("Description")) {
            section.card.prose aria-labelledby="description" { h2 id="description" { "Description" } (readme(text, says("description_content_type"))) }
        }
        section.card.wide aria-labelledby="files" {
            h2 id="files" { "Files" }
            table.stack {
                thead { tr { th scope="col" { "Version" } th scope="col" { "File" } th.number scope="col" { "Size" } th scope="col" { "Uploaded" } th scope="col" { "By" } } }
                tbody {
                    @for file in listed.iter().rev().take(ROWS_MAX) {
                        tr {
                            td data-label="Version" { (file["version"].as_str().unwrap_or_default()) " " @if !file["yanked"].is_null() { span.tag.bad { "yanked" } } @if !file["archived"].is_null() { span.tag { "archived" } } }
                            td data-label="File" { (file["filename"].as_str().unwrap_or_default()) }
                            td.number data-label="Size" { (bytes(file["size"].as_i64().unwrap_or(0))) }
                            td data-label="Uploaded" { (file["uploaded"].as_str().unwrap_or_default().chars().take(10).collect::<String>()) }
                            td data-label="By" { (file["uploaded_by"].as_str().unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    };
    Ok(visit.page(title, Section::Packages, &body))
}

/// A link, where it is one that can do no harm.
fn linked(text: &str) -> Markup {
    let is_link = is_web(text) && !text.contains(char::is_whitespace);
    html! { @if is_link { a href=(text) rel="noopener noreferrer nofollow" { (text) } } @else { (text) } }
}

/// What publishers write of their packages: Markdown without HTML of its own, else as it is.
fn readme(text: &str, kind: Option<&str>) -> Markup {
    let mut end = text.len().min(README_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    if !kind.is_some_and(|kind| kind.starts_with("text/markdown")) {
        return html! { pre tabindex="0" { (text) } };
    }
    markdown(text, 2)
}

/// Downloads by day, as bars.
fn plot(days: &[(String, i64)], since: i64) -> Markup {
    const WIDTH: i64 = 5;
    const HEIGHT: i64 = 90;
    let total: i64 = days.iter().map(|(_, count)| count).sum();
    let most = days.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let bars = days.iter().filter_map(|(day, count)| {
        let at = day.parse::<i64>().ok()? - since;
        let height = (count * HEIGHT / most).max(1);
        (0..DAYS).contains(&at).then_some((at * WIDTH, HEIGHT - height, height))
    });
    html! {
        p { strong { (total) } " in " (DAYS) " days" }
        svg.plot viewBox={ "0 0 " (DAYS * WIDTH) " " (HEIGHT + 1) } role="img" aria-label={ (total) " downloads in " (DAYS) " days, " (most) " on the busiest" } {
            line x1="0" x2=(DAYS * WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for (x, y, height) in bars { rect x=(x) y=(y) width=(WIDTH - 1) height=(height) {} }
        }
        div.ends.quiet aria-hidden="true" { span { (DAYS) " days ago" } span { "today" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_bring_no_html_scripts_or_pictures_of_their_own() {
        let text = "# Hello\n\n#### Deep\n\n[x](javascript:alert(1)) [y](https://y.example/) ![z](https://z.example/z.png) <b onclick=x>b</b>\n\n\
                    <script>alert(1)</script>\n";
        let shown = readme(text, Some("text/markdown; charset=UTF-8")).into_string();
        assert!(
            shown.contains("<h3>Hello</h3>")
                && shown.contains("<h4>Deep</h4>")
                && shown.contains("href=\"https://y.example/\""),
            "{shown}"
        );
        for wrong in ["<script", "javascript:", "<img", "<b "] {
            assert!(!shown.contains(wrong), "{wrong}: {shown}");
        }
        let plain = readme("<b>x</b>", Some("text/x-rst")).into_string();
        assert!(plain.contains("&lt;b&gt;x"), "{plain}");
    }
}
