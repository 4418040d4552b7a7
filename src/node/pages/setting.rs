//! What is set of content: who sees it, how it runs, where it is, what its processes find in their environment.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use maud::html;
use serde_json::{Value, json};

use super::content::{Tab, at, framed};
use super::page::csrf;
use super::{Sent, Shown, Visit, body, done, refused};
use crate::node::connect::{content, permissions, vanity, variables};
use crate::node::content::settings::Settings;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::types::ByteSize;

/// Who sees content, as a person reads it.
const ACCESS: &[(&str, &str, &str)] = &[
    ("acl", "Chosen people", "its owner, administrators, and those who are named here"),
    ("logged_in", "Everybody who has logged in", "all users of this server"),
    ("all", "Anyone", "without logging in"),
];

pub(super) async fn access(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let all = parts.store.permissions(content.id).await?;
    let (users, groups) = (parts.store.users().await?, parts.store.groups().await?);
    let action = visit.at(&at(&content, "/access"));
    let shown = html! {
        div.grid {
            form.card method="post" action=(action) {
                (csrf(&visit.token))
                fieldset {
                    legend { h2 { "Who may see it" } }
                    @for (value, name, more) in ACCESS {
                        label.choice {
                            input type="radio" name="access" value=(value) checked[content.access == *value];
                            span { (name) small { (more) } }
                        }
                    }
                }
                button.primary name="do" value="access" { "Save" }
            }
            section.card aria-labelledby="people" {
                h2 id="people" { "People and groups" }
                p.quiet { "Viewers see it where chosen people do. Collaborators may change it too, where their role lets them publish." }
                table {
                    thead { tr { th scope="col" { "Who" } th scope="col" { "May" } th scope="col" { "" } } }
                    tbody {
                        tr { td { (content.owner_username.as_deref().unwrap_or("a program")) } td.whole { "own it" } td {} }
                        @for row in &all {
                            tr {
                                td { (row.name.as_deref().unwrap_or("somebody who is gone")) " " @if row.kind == "group" { span.tag { "group" } } }
                                td.whole { @if row.role == "owner" { "change it" } @else { "see it" } }
                                td {
                                    form method="post" action=(action) {
                                        (csrf(&visit.token))
                                        input type="hidden" name="id" value=(row.id);
                                        button name="do" value="remove" { "Remove" span.unseen { " " (row.name.as_deref().unwrap_or_default()) } }
                                    }
                                }
                            }
                        }
                    }
                }
                h3 { "Add" }
                form.inline method="post" action=(action) {
                    (csrf(&visit.token))
                    label { "User or group"
                        input name="who" list="principals" autocomplete="off" required;
                    }
                    datalist id="principals" {
                        @for user in users.iter().filter(|user| user.guid != content.owner) { option value=(user.username) {} }
                        @for group in &groups { option value={ "group: " (group.name) } {} }
                    }
                    label { "May"
                        select name="role" { option value="viewer" { "see it" } option value="owner" { "change it" } }
                    }
                    button name="do" value="add" { "Add" }
                }
            }
        }
    };
    Ok(framed(&visit, &content, Tab::Access, &shown))
}

pub(super) async fn set_access(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(guid): Path<String>,
    Sent { visit, form }: Sent,
) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let (manager, state) = (visit.manager.clone(), State(parts.clone()));
    match form.text("do") {
        "add" => {
            let who = form.text("who");
            let (kind, principal) = match who.strip_prefix("group:") {
                Some(name) => ("group", crate::node::connect::groups::find(&parts, name.trim()).await?.guid),
                None => ("user", crate::node::manage::find_user(&parts, who).await?.guid),
            };
            let wish = json!({ "principal_guid": principal, "principal_type": kind, "role": form.text("role") });
            done(permissions::create(state, manager, Path(guid), body(wish)?).await)?;
        }
        "remove" => {
            let path = Path((guid, form.text("id").to_owned()));
            permissions::remove(state, manager, path).await.map_err(refused)?;
        }
        _ => {
            let wish = body(json!({ "access_type": form.text("access") }))?;
            let changed = content::change(state, Extension(origin), manager, HeaderMap::new(), Path(guid), wish).await;
            done(changed)?;
        }
    }
    Ok(visit.to(&at(&content, "/access")))
}

/// Numbers that can be set: as the API names them, and as people read them.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("min_processes", "Processes that always run", "on each node"),
    ("max_processes", "Processes at most", "on each node"),
    ("max_conns_per_process", "Connections of one process", ""),
    ("load_factor", "Load factor", "0 to 1: how full processes are before another starts"),
    ("memory_limit", "Memory of one process", "with all it starts, such as 512MiB or 2GB"),
    ("cpu_limit", "Processors of one process", "with all it starts, such as 2 or 0.5"),
    ("init_timeout", "Start-up time", "seconds to the first answer"),
    ("idle_timeout", "Idle time", "seconds until an unused process ends"),
    ("connection_timeout", "Session time", "seconds of silence until a session ends"),
    ("read_timeout", "Answer time", "seconds to the next bytes of an answer"),
];

pub(super) async fn settings(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let settings = Settings::read(&content.settings);
    let told = serde_json::to_value(&settings).unwrap_or_default();
    let said = |name: &str| match (name, settings.memory_limit) {
        ("memory_limit", Some(bytes)) => Some(ByteSize::new(bytes).to_string()),
        _ => told.get(name).filter(|value| !value.is_null()).map(Value::to_string),
    };
    let accounts = &parts.settings.content.run_as;
    let action = visit.at(&at(&content, "/settings"));
    let shown = html! {
        div.grid {
            form.card method="post" action=(action) {
                (csrf(&visit.token))
                h2 { "What it is" }
                label { "Title" input name="title" value=(content.title) maxlength="1000"; }
                label { "Name" small { "Your own; letters, digits, dots, dashes" } input name="name" value=(content.name) maxlength="64" required; }
                label { "Description" textarea name="description" maxlength="4096" { (content.description) } }
                button.primary name="do" value="about" { "Save" }
            }
            form.card method="post" action=(action) {
                (csrf(&visit.token))
                h2 { "How it runs" }
                p.quiet { "Empty: as this server is configured." }
                div.pairs {
                    @for (name, label, more) in NUMBERS {
                        label { (label) small { (more) } input name=(name) value=[said(name)] inputmode=[(*name != "memory_limit").then_some("decimal")] autocomplete="off"; }
                    }
                }
                button.primary name="do" value="numbers" { "Save" }
            }
            @if visit.is_admin() && (!accounts.is_empty() || settings.run_as.is_some()) {
                form.card method="post" action=(action) {
                    (csrf(&visit.token))
                    h2 { "Who it runs as" }
                    p.quiet { "Whoever may publish to this content then has all that this account of the nodes may do." }
                    label { "Account"
                        select name="run_as" {
                            option value="" selected[settings.run_as.is_none()] { "one of its own" }
                            @for name in settings.run_as.iter().filter(|name| !accounts.contains(name)) {
                                option value=(name) selected { (name) ", which this server does not let content run as any more" }
                            }
                            @for name in accounts {
                                option value=(name) selected[settings.run_as.as_ref() == Some(name)] { (name) }
                            }
                        }
                    }
                    button.primary name="do" value="account" { "Save" }
                }
            }
            form.card method="post" action=(action) {
                (csrf(&visit.token))
                h2 { "Address" }
                p.quiet { "Beside " code { "/content/" (content.guid) "/" } }
                label { "Path" small { "Such as " code { "/sales/" } } input name="path" value=[content.vanity.as_deref()] placeholder="/…/" autocomplete="off"; }
                label.choice { input type="checkbox" name="force" value="yes"; span { "Take it from content that has it" } }
                div.row {
                    button.primary name="do" value="vanity" { "Save" }
                }
            }
            section.card {
                h2 { "Lock and removal" }
                form method="post" action=(action) {
                    (csrf(&visit.token))
                    @if content.is_locked {
                        p { "Nobody sees it, nothing of it runs, and nobody can publish to it, until it is unlocked." }
                        label { "What visitors read" small { "Markdown" } textarea name="message" rows="3" { (settings.locked_message) } }
                        div.row {
                            button name="do" value="lock" { "Save" }
                            button.primary name="do" value="unlock" { "Unlock" }
                        }
                    } @else {
                        p { "Nobody sees locked content, its processes end, its reports are not rendered, and it takes no deployments." }
                        label { "What visitors read" small { "Markdown" } textarea name="message" rows="3" { (settings.locked_message) } }
                        button name="do" value="lock" { "Lock" }
                    }
                }
                h3 { "Remove" }
                p { a.button.danger href=(visit.at(&at(&content, "/remove"))) { "Remove this content …" } }
            }
        }
    };
    Ok(framed(&visit, &content, Tab::Settings, &shown))
}

pub(super) async fn set_settings(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(guid): Path<String>,
    Sent { visit, form }: Sent,
) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let (manager, state) = (visit.manager.clone(), State(parts.clone()));
    let wish = match form.text("do") {
        "about" => {
            json!({ "title": form.text("title"), "name": form.text("name"), "description": form.text("description") })
        }
        "numbers" => {
            let mut all = serde_json::Map::new();
            for (name, label, _) in NUMBERS.iter().filter(|(name, ..)| form.has(name)) {
                let text = form.text(name);
                let value: Value = match text {
                    "" => Value::Null,
                    text if *name == "memory_limit" => {
                        let size = text.parse::<ByteSize>();
                        json!(size.map_err(|_| Failure::bad(format!("`{text}` is no size, such as 512MiB")))?.bytes())
                    }
                    text => text
                        .parse::<serde_json::Number>()
                        .map(Value::Number)
                        .map_err(|_| Failure::bad(format!("`{text}` is no number for “{label}”")))?,
                };
                all.insert((*name).to_owned(), value);
            }
            Value::Object(all)
        }
        "vanity" => {
            let path = form.text("path");
            match path {
                "" => drop(vanity::remove(state, manager, Path(guid)).await.map_err(refused)?),
                path => {
                    let wish = body(json!({ "path": path, "force": form.has("force") }))?;
                    done(vanity::set(state, manager, Path(guid), wish).await)?;
                }
            }
            return Ok(visit.to(&at(&content, "/settings")));
        }
        "account" => json!({ "run_as": form.text("run_as") }),
        "lock" => json!({ "locked": true, "locked_message": form.text("message") }),
        _ => json!({ "locked": false }),
    };
    let wish = body(wish)?;
    let changed = content::change(state, Extension(origin), manager, HeaderMap::new(), Path(guid), wish).await;
    done(changed)?;
    Ok(visit.to(&at(&content, "/settings")))
}

pub(super) async fn variables(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let all = parts.store.variables(content.id).await?;
    let action = visit.at(&at(&content, "/variables"));
    let shown = html! {
        section.card aria-labelledby="variables" {
            h2 id="variables" { "Environment variables" }
            p.quiet { "What its processes find in their environment. Values are kept encrypted, and nobody is shown them again." }
            @if all.is_empty() { p { "None is set." } } @else {
                table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } th scope="col" { "" } } }
                    tbody {
                        @for (name, _) in &all {
                            tr {
                                td { code { (name) } }
                                td.quiet { "••••••••" }
                                td {
                                    form method="post" action=(action) {
                                        (csrf(&visit.token))
                                        input type="hidden" name="name" value=(name);
                                        button name="do" value="remove" data-ask={ "Forget " (name) " and its value?" } { "Remove" span.unseen { " " (name) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            h3 { "Set one" }
            form.inline method="post" action=(action) {
                (csrf(&visit.token))
                label { "Name" input name="name" autocomplete="off" autocapitalize="none" spellcheck="false" required; }
                label { "Value" input type="password" name="value" autocomplete="new-password"; }
                button name="do" value="set" { "Set" }
            }
        }
    };
    Ok(framed(&visit, &content, Tab::Variables, &shown))
}

pub(super) async fn set_variables(
    State(parts): State<Parts>,
    Path(guid): Path<String>,
    Sent { visit, form }: Sent,
) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let value = (form.text("do") == "set").then(|| form.raw("value"));
    let wish = body(json!([{ "name": form.text("name"), "value": value }]))?;
    done(variables::merge(State(parts), visit.manager.clone(), Path(guid), wish).await)?;
    Ok(visit.to(&at(&content, "/variables")))
}
