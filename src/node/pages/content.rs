//! One content: itself, its bundles, what is written of it, its end. What is set of it is in [`super::setting`].

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::contents::title;
use super::guard::TOKEN;
use super::login;
use super::page::{Section, access_words, ago, bytes, csrf, icon, kind};
use super::{Failed, Sent, Shown, Visit, refused};
use crate::node::connect::variants::is_rendered;
use crate::node::connect::{bundles, content, deploy, tasks};
use crate::node::content::access;
use crate::node::content::journal::KIND as PROCESS;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::report::run::{RENDER, REPORT};
use crate::node::store::{ContentRow, JobLine, JobRow};

/// Which part of content's pages is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    View,
    Access,
    Settings,
    Variables,
    Bundles,
    Schedule,
    Logs,
}

/// In the order they are shown; all but the first are for who may change it.
const TABS: &[(Tab, &str, &str)] = &[
    (Tab::View, "", "View"),
    (Tab::Access, "/access", "Access"),
    (Tab::Settings, "/settings", "Settings"),
    (Tab::Variables, "/variables", "Variables"),
    (Tab::Bundles, "/bundles", "Bundles"),
    (Tab::Schedule, "/schedule", "Schedule"),
    (Tab::Logs, "/logs", "Logs"),
];

/// Lines of a log that are shown at once.
const LINES_MAX: i64 = 1000;
/// Tasks that are listed.
const TASKS_MAX: i64 = 20;

/// Where something of content is.
pub(super) fn at(content: &ContentRow, below: &str) -> String {
    format!("/connect/content/{}{below}", content.guid)
}

/// A page of content's.
pub(super) fn framed(visit: &Visit, content: &ContentRow, tab: Tab, body: &Markup) -> Response {
    let may_change = access::may_change(visit.manager.viewer(), content);
    let whole = html! {
        div.row.head {
            (icon(content.app_mode.as_deref()))
            h1 { (title(content)) }
            @if content.is_locked { span.tag { "locked" } }
            @if content.bundle.is_some() {
                a.button.primary href=(visit.at(&format!("/connect/open?next={}/", content.prefix()))) target="_blank" rel="noopener" {
                    "Open" span aria-hidden="true" { " ↗" }
                }
            }
        }
        @if may_change {
            nav aria-label="This content" {
                ul.tabs {
                    @for (of, path, name) in TABS.iter().filter(|(of, ..)| *of != Tab::Schedule || is_rendered(content)) {
                        li { a href=(visit.at(&at(content, path))) aria-current=[(*of == tab).then_some("page")] { (name) } }
                    }
                }
            }
        }
        (body)
    };
    visit.page(title(content), Section::Content, &whole)
}

pub(super) async fn show(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::visible(&parts, &visit.manager, &guid).await?;
    let body = html! {
        @if content.bundle.is_some() {
            (stage(&parts, &visit, &content, &format!("{}/", content.prefix())))
        } @else {
            p.notice { "Nothing was deployed yet. " a href=(visit.at("/connect/publish")) { "How to publish" } }
        }
        (about(&parts, &visit, &content))
    };
    Ok(framed(&visit, &content, Tab::View, &body))
}

/// A bundle that does not run yet.
pub(super) async fn draft(
    State(parts): State<Parts>,
    visit: Visit,
    Path((guid, bundle)): Path<(String, String)>,
) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let found = bundles::find(&parts, &content, &bundle).await?;
    let runs = content.bundle == Some(found.number);
    let body = html! {
        div.row.head {
            p.notice {
                @if runs { "Bundle " (found.number) " is what runs." }
                @else { "This is bundle " (found.number) ", which does not run yet: nobody else sees it." }
            }
            @if !runs { (activate(&visit, &content, found.number)) }
        }
        (stage(&parts, &visit, &content, &format!("/content/{}/_bundle{}/", content.guid, found.number)))
    };
    Ok(framed(&visit, &content, Tab::Bundles, &body))
}

/// Content in a frame. At our own origin it gets none of its own, so that its scripts cannot reach the page around it.
fn stage(parts: &Parts, visit: &Visit, content: &ContentRow, path: &str) -> Markup {
    let is_apart = parts.settings.content.external_url.is_some();
    let allowed = "allow-scripts allow-forms allow-popups allow-downloads allow-modals";
    let sandbox = if is_apart { format!("{allowed} allow-same-origin") } else { allowed.to_owned() };
    html! {
        iframe.stage src=(login::framed(parts, visit, path)) title=(title(content)) sandbox=(sandbox) allow="fullscreen" {}
        @if !is_apart {
            p.quiet { "A preview that is shut off from this page: what needs cookies or storage works in a tab of its own, see Open." }
        }
    }
}

fn about(parts: &Parts, visit: &Visit, content: &ContentRow) -> Markup {
    let address = format!("{}{}{}/", visit.base, visit.prefix, content.prefix());
    html! {
        section.card aria-labelledby="about" {
            h2 id="about" { "About" }
            @if !content.description.is_empty() { p { (content.description) } }
            dl {
                dt { "Kind" } dd { (kind(content.app_mode.as_deref()).2) }
                dt { "Owner" } dd { (content.owner_username.as_deref().unwrap_or("a program")) }
                dt { "Seen by" } dd { (access_words(&content.access)) }
                dt { "Address" } dd { a href=(visit.at(&format!("/connect/open?next={}/", content.prefix()))) target="_blank" rel="noopener" { (address) } }
                dt { "Deployed" } dd { @match content.deployed_at { Some(at) => (ago(at)), None => "never" } }
                dt { "Changed" } dd { (ago(content.updated_at)) }
                dt { "Live here" } dd { (parts.contents.workers.connections_of(&content.guid)) " connections on this node" }
            }
        }
    }
}

fn activate(visit: &Visit, content: &ContentRow, bundle: i64) -> Markup {
    html! {
        form method="post" action=(visit.at(&at(content, "/bundles"))) {
            (csrf(&visit.token))
            input type="hidden" name="bundle" value=(bundle);
            button name="do" value="activate" { "Activate" span.unseen { " bundle " (bundle) } }
        }
    }
}

pub(super) async fn bundles(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let all = parts.store.bundles(content.id).await?;
    let body = html! {
        section.card.wide aria-labelledby="bundles" {
            h2 id="bundles" { "Bundles" }
            p.quiet { "What was uploaded, the latest first. Activate an earlier one to go back to it; what runs goes on until that has started." }
            @if all.is_empty() { p { "Nothing was uploaded yet." } } @else {
                table.stack {
                    thead { tr { th scope="col" { "Bundle" } th scope="col" { "Uploaded" } th scope="col" { "By" } th.number scope="col" { "Size" } th scope="col" { "" } } }
                    tbody {
                        @for bundle in &all {
                            @let runs = content.bundle == Some(bundle.number);
                            tr {
                                td data-label="Bundle" { (bundle.number) " " @if runs { span.tag.good { "runs" } } }
                                td data-label="Uploaded" { (ago(bundle.created_at)) }
                                td data-label="By" { (bundle.created_by) }
                                td.number data-label="Size" { (bytes(bundle.size)) }
                                td {
                                    div.row {
                                        @if !runs {
                                            (activate(&visit, &content, bundle.number))
                                            a href=(visit.at(&at(&content, &format!("/draft/{}", bundle.number)))) { "Look" span.unseen { " at bundle " (bundle.number) } }
                                        }
                                        a href=(visit.at(&at(&content, &format!("/bundles/{}/download", bundle.number)))) { "Download" span.unseen { " bundle " (bundle.number) } }
                                        @if !runs {
                                            form method="post" action=(visit.at(&at(&content, "/bundles"))) {
                                                (csrf(&visit.token))
                                                input type="hidden" name="bundle" value=(bundle.number);
                                                button.danger name="do" value="remove" data-ask={ "Remove bundle " (bundle.number) " for ever?" } { "Remove" span.unseen { " bundle " (bundle.number) } }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(framed(&visit, &content, Tab::Bundles, &body))
}

pub(super) async fn change_bundle(
    State(parts): State<Parts>,
    Path(guid): Path<String>,
    Sent { visit, form }: Sent,
) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let id = form.text("bundle").to_owned();
    if form.text("do") == "remove" {
        let path = Path((guid, id));
        bundles::remove(State(parts), visit.manager.clone(), path).await.map_err(refused)?;
        return Ok(visit.to(&at(&content, "/bundles")));
    }
    let bundle = bundles::find(&parts, &content, &id).await?;
    let task = deploy::begin(&parts, &visit.manager, &content, &bundle, true).await?;
    Ok(visit.to(&at(&content, &format!("/logs?task={task}"))))
}

pub(super) async fn download(State(parts): State<Parts>, visit: Visit, Path(path): Path<(String, String)>) -> Shown {
    bundles::download(State(parts), visit.manager, Path(path)).await.map_err(refused)
}

/// Which task.
#[derive(Debug, Deserialize)]
pub(super) struct Chosen {
    task: Option<String>,
}

pub(super) async fn logs(
    State(parts): State<Parts>,
    visit: Visit,
    Path(guid): Path<String>,
    Query(Chosen { task }): Query<Chosen>,
) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let all = parts.store.jobs_of(&content.guid, TASKS_MAX).await?;
    let id = task.or_else(|| all.first().map(|job| job.id.to_string()));
    let shown = match &id {
        Some(id) => Some(of(&parts, &visit, &content, id, 0).await?),
        None => None,
    };
    let processes = parts.contents.workers.processes_of(&content.guid);
    let body = html! {
        @if let Some((job, lines)) = &shown {
            section.card aria-labelledby="log" {
                div.row { h2 id="log" { (what(job)) } (state(job)) span.quiet { (ago(job.created_at)) " by " (job.created_by) @if let Some(node) = &job.node { " on " (node) } } }
                @if let Some(result) = job.result.as_deref().filter(|_| job.state == "failed") { p.notice.bad { (result) } }
                pre.log tabindex="0" role="log" aria-label="Log" data-log=(visit.at(&at(&content, &format!("/logs/{}", job.id))))
                    data-last=(lines.last().map_or(0, |line| line.number)) data-live=(job.ended_at.is_none()) {
                    @for line in lines { (line.text) "\n" }
                }
            }
        } @else { p.notice { "Nothing was deployed yet." } }
        div.grid {
            section.card aria-labelledby="tasks" {
                h2 id="tasks" { "Tasks" }
                @if all.is_empty() { p.quiet { "None yet." } } @else { table.stack {
                    thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "By" } th scope="col" { "Result" } } }
                    tbody {
                        @for job in &all {
                            tr {
                                td data-label="When" { a href=(visit.at(&at(&content, &format!("/logs?task={}", job.id)))) { (ago(job.created_at)) } }
                                td data-label="What" { (what(job)) }
                                td data-label="By" { (job.created_by) }
                                td data-label="Result" { (state(job)) }
                            }
                        }
                    }
                } }
            }
            section.card aria-labelledby="processes" {
                h2 id="processes" { "Processes on this node" }
                @if processes.is_empty() { p.quiet { "None runs here now; the first visitor starts one." } } @else {
                    table {
                        thead { tr { th scope="col" { "Process" } th.number scope="col" { "Bundle" } th.number scope="col" { "Connections" } } }
                        tbody {
                            @for (bundle, id, load) in &processes {
                                tr { td { code { (id.get(..8).unwrap_or(id)) } } td.number { (bundle) } td.number { (load) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(framed(&visit, &content, Tab::Logs, &body))
}

fn what(job: &JobRow) -> &'static str {
    match job.kind.as_str() {
        RENDER => "Rendering",
        REPORT => "Scheduled rendering",
        PROCESS => "Process",
        _ => "Deployment",
    }
}

fn state(job: &JobRow) -> Markup {
    let class = match job.state.as_str() {
        "done" => "tag good",
        "failed" | "cancelled" => "tag bad",
        _ => "tag",
    };
    html! { span class=(class) { (job.state) } }
}

/// A task of this content, and its lines.
async fn of(
    parts: &Parts,
    visit: &Visit,
    content: &ContentRow,
    id: &str,
    after: i64,
) -> Result<(JobRow, Vec<JobLine>), Failure> {
    let (job, _) = tasks::look(parts, &visit.manager, id, i64::MAX).await?;
    if job.subject != content.guid {
        return Err(Failure::not_found(format_args!("task `{id}` of this content")));
    }
    let lines = parts.store.lines(job.id, after, LINES_MAX).await?;
    Ok((job, lines))
}

/// Lines after one.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: i64,
}

/// For a script of ours, which says the token of the session's forms: others of this origin do not know it.
pub(super) async fn log(
    State(parts): State<Parts>,
    visit: Visit,
    Path((guid, task)): Path<(String, String)>,
    Query(After { after }): Query<After>,
    fields: HeaderMap,
) -> Result<Response, Failed> {
    let token = fields.get(TOKEN).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !parts.sessions.is_token(&visit.session, token) {
        return Err(Failure::forbidden("This is for the page of the log").into());
    }
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let (job, lines) = of(&parts, &visit, &content, &task, after).await?;
    let last = lines.last().map_or(after, |line| line.number);
    let is_over = job.ended_at.is_some() && lines.is_empty();
    let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    Ok(Json(json!({ "lines": lines, "last": last, "is_over": is_over })).into_response())
}

pub(super) async fn ask_remove(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let body = html! {
        form.card method="post" action=(visit.at(&at(&content, "/remove"))) {
            (csrf(&visit.token))
            h2 { "Remove this content?" }
            p { "Its bundles, variables, permissions and address go with it, for everybody. This cannot be undone." }
            label { "Write its name, " code { (content.name) } ", to go on" input name="name" autocomplete="off" required; }
            div.row { button.danger { "Remove for ever" } a href=(visit.at(&at(&content, "/settings"))) { "Keep it" } }
        }
    };
    Ok(framed(&visit, &content, Tab::Settings, &body))
}

pub(super) async fn remove(State(parts): State<Parts>, Path(guid): Path<String>, Sent { visit, form }: Sent) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    if form.text("name") != content.name {
        return Err(Failure::bad(format!("That is not its name: `{}`", content.name)).into());
    }
    content::remove(State(parts), visit.manager.clone(), Path(guid)).await.map_err(refused)?;
    Ok(visit.to("/connect/"))
}
