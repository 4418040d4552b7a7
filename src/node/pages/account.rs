//! What is somebody's own: their API keys, and the clients of R that publish as them.

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::page::{Section, ago, copyable, csrf};
use super::{Sent, Shown, Visit, body, done, refused};
use crate::node::error::Failure;
use crate::node::manage::keys;
use crate::node::parts::Parts;
use crate::node::store::{Role, Scope};

/// How long keys may hold: as durations are written, and as people read them.
const LIFETIMES: &[(&str, &str)] = &[("30d", "30 days"), ("90d", "90 days"), ("365d", "a year"), ("", "until revoked")];

pub(super) async fn show(State(parts): State<Parts>, visit: Visit) -> Shown {
    shown(&parts, &visit, None).await
}

async fn shown(parts: &Parts, visit: &Visit, made: Option<&Value>) -> Shown {
    let user = visit.user();
    let mut all = parts.store.keys().await?;
    all.retain(|key| key.username.as_ref() == Some(&user.username));
    let tokens = parts.store.tokens_of(user.id).await?;
    let action = visit.at("/connect/account");
    let name = [user.first_name.as_str(), user.last_name.as_str()].join(" ");
    let page = html! {
        h1 { "Your account" }
        @if let Some(key) = made.and_then(|made| made["key"].as_str()) { (new_key(key)) }
        section.card aria-labelledby="keys" {
            h2 id="keys" { "API keys" }
            p.quiet { "For rsconnect, pip, twine and other programs. A key does what you may do, or less." }
            @if all.is_empty() { p { "You have none." } } @else {
                div.wide { table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "May" } th scope="col" { "Made" } th scope="col" { "Last used" } th scope="col" { "Holds" } th scope="col" { "" } } }
                    tbody {
                        @for key in &all {
                            tr {
                                td { (key.name) }
                                td { (key.scope) @if let Some(only) = &key.repository { " in " (only) } }
                                td { (ago(key.created_at)) }
                                td { @match key.last_used_at { Some(at) => (ago(at)), None => "never" } }
                                td { @match key.expires_at { Some(at) => (day(at)), None => "until revoked" } }
                                td {
                                    form method="post" action=(action) {
                                        (csrf(&visit.token))
                                        input type="hidden" name="id" value=(key.id);
                                        button.danger name="do" value="revoke" { "Revoke" span.unseen { " " (key.name) } }
                                    }
                                }
                            }
                        }
                    }
                } }
            }
            h3 { "New key" }
            form.inline method="post" action=(action) {
                (csrf(&visit.token))
                label { "Name" input name="name" maxlength="100" placeholder="laptop" autocomplete="off" required; }
                label { "May"
                    select name="scope" {
                        @for (scope, name) in [(Scope::Publish, "publish"), (Scope::Read, "read"), (Scope::Admin, "administrate")] {
                            @if user.role.scope() >= scope { option value=(scope.as_str()) { (name) } }
                        }
                    }
                }
                label { "Holds" select name="expires_in" { @for (value, name) in LIFETIMES { option value=(value) selected[*value == "90d"] { (name) } } } }
                button.primary name="do" value="create" { "Make key" }
            }
        }
        div.grid {
            section.card aria-labelledby="clients" {
                h2 id="clients" { "R clients" }
                p.quiet { "Where you let R publish as you, by " code { "rsconnect::connectUser()" } "." }
                @if tokens.is_empty() { p { "None." } } @else {
                    table {
                        thead { tr { th scope="col" { "Client" } th scope="col" { "Since" } th scope="col" { "" } } }
                        tbody {
                            @for token in &tokens {
                                tr {
                                    td { (token.address.as_deref().unwrap_or("unknown address")) }
                                    td { @match token.claimed_at { Some(at) => (ago(at)), None => "" } }
                                    td {
                                        form method="post" action=(action) {
                                            (csrf(&visit.token))
                                            input type="hidden" name="id" value=(token.token);
                                            button.danger name="do" value="revoke_token" { "Revoke" }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            section.card aria-labelledby="you" {
                h2 id="you" { "You" }
                dl {
                    dt { "User name" } dd { (user.username) }
                    @if !name.trim().is_empty() { dt { "Name" } dd { (name.trim()) } }
                    @if !user.email.is_empty() { dt { "Mail" } dd { (user.email) } }
                    dt { "Role" } dd { (user.role.as_str()) ": " (may(user.role)) }
                    @if !visit.manager.groups.is_empty() {
                        dt { "Groups" } dd { @for (_, group) in visit.manager.groups.iter() { span.tag { (group) } " " } }
                    }
                }
            }
        }
    };
    Ok(visit.page("Your account", Section::Account, &page))
}

fn new_key(key: &str) -> Markup {
    html! {
        section.notice.good role="status" {
            h2 { "Your new key" }
            p { "Copy it now: it is not shown again." }
            (copyable(key))
        }
    }
}

/// What people of a role may do.
pub(super) fn may(role: Role) -> &'static str {
    match role {
        Role::Viewer => "sees content, installs packages",
        Role::Publisher => "publishes too",
        Role::Administrator => "does everything",
    }
}

fn day(at: i64) -> String {
    crate::node::api::time(at).chars().take(10).collect()
}

pub(super) async fn change(State(parts): State<Parts>, Sent { visit, form }: Sent) -> Result<Response, super::Failed> {
    let (manager, state) = (visit.manager.clone(), State(parts.clone()));
    let id = form.text("id").to_owned();
    match form.text("do") {
        "create" => {
            let expires = Some(form.text("expires_in")).filter(|text| !text.is_empty());
            let wish = json!({ "name": form.text("name"), "scope": form.text("scope"), "expires_in": expires });
            let made = keys::create(state, manager, body(wish)?).await.map_err(refused)?;
            // Not sent elsewhere first: it is shown once.
            return shown(&parts, &visit, Some(&made.0)).await;
        }
        "revoke" => done(keys::revoke(state, manager, Path(id)).await)?,
        _ => {
            let deed = visit.manager.deed("revoke_token", &visit.user().username, "");
            if !parts.store.revoke_token(&id, visit.user().id, &deed).await? {
                return Err(Failure::not_found("such client of yours").into());
            }
            parts.auth.forget();
        }
    }
    Ok(visit.to("/connect/account"))
}
