//! What is somebody's own: their API keys, and the clients of R that publish as them.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use http::header::SET_COOKIE;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::page::{Section, ago, copyable, csrf};
use super::{Form, Sent, Shown, Visit, body, done, refused, to};
use crate::node::error::Failure;
use crate::node::manage::keys;
use crate::node::parts::{Origin, Parts};
use crate::node::session::Began;
use crate::node::store::{Role, Scope};

/// How long keys may hold: as durations are written, and as people read them.
const LIFETIMES: &[(&str, &str)] = &[("30d", "30 days"), ("90d", "90 days"), ("365d", "a year"), ("", "until revoked")];

/// What was just done.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    done: Option<String>,
}

/// What the page says of what was just done.
#[derive(Clone, Copy, Debug)]
enum News<'a> {
    None,
    /// Made, and shown this once.
    Key(&'a str),
    Password,
    NoPassword(&'a Failure),
}

pub(super) async fn show(State(parts): State<Parts>, visit: Visit, Query(Asked { done }): Query<Asked>) -> Shown {
    let news = if done.as_deref() == Some("password") { News::Password } else { News::None };
    shown(&parts, &visit, news).await
}

async fn shown(parts: &Parts, visit: &Visit, news: News<'_>) -> Shown {
    let user = visit.user();
    let mut all = parts.store.keys().await?;
    all.retain(|key| key.username.as_ref() == Some(&user.username));
    let tokens = parts.store.tokens_of(user.id).await?;
    let action = visit.at("/connect/account");
    let name = [user.first_name.as_str(), user.last_name.as_str()].join(" ");
    let page = html! {
        h1 { "Your account" }
        @match news {
            News::None => {}
            News::Key(key) => (new_key(key)),
            News::Password => p.notice.good role="status" { "Your password is another one now. You are logged in here only." },
            News::NoPassword(failure) => p.notice.bad role="alert" { "Your password was not changed. " (failure.message()) },
        }
        section.card aria-labelledby="keys" {
            h2 id="keys" { "API keys" }
            p.quiet { "For rsconnect, pip, twine and other programs. A key does what you may do, or less." }
            @if all.is_empty() { p { "You have none." } } @else {
                div.wide { table.stack {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "May" } th scope="col" { "Made" } th scope="col" { "Last used" } th scope="col" { "Holds" } th scope="col" { "" } } }
                    tbody {
                        @for key in &all {
                            tr {
                                td data-label="Name" { (key.name) }
                                td data-label="May" { (key.scope) @if let Some(only) = &key.repository { " in " (only) } }
                                td data-label="Made" { (ago(key.created_at)) }
                                td data-label="Last used" { @match key.last_used_at { Some(at) => (ago(at)), None => "never" } }
                                td data-label="Holds" { @match key.expires_at { Some(at) => (day(at)), None => "until revoked" } }
                                td {
                                    form method="post" action=(action) {
                                        (csrf(&visit.token))
                                        input type="hidden" name="id" value=(key.id);
                                        button.danger name="do" value="revoke" data-ask={ "Revoke the key “" (key.name) "”? What uses it stops working." } { "Revoke" span.unseen { " " (key.name) } }
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
                                            button.danger name="do" value="revoke_token" data-ask="Let this client publish as you no more?" { "Revoke" span.unseen { " " (token.address.as_deref().unwrap_or_default()) } }
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
            (password(visit, &action))
        }
    };
    let mut response = visit.page("Your account", Section::Account, &page);
    if let News::NoPassword(failure) = news {
        *response.status_mut() = failure.status();
    }
    Ok(response)
}

fn password(visit: &Visit, action: &str) -> Markup {
    html! {
        form.card method="post" action=(action) aria-labelledby="password" {
            (csrf(&visit.token))
            h2 id="password" { "Password" }
            p.quiet { "Another one logs you out everywhere else. API keys and R clients stay." }
            // For what keeps people's passwords.
            input type="hidden" name="username" autocomplete="username" value=(visit.user().username);
            label { "The one you have" input type="password" name="old" autocomplete="current-password" required; }
            label { "New one" small { "8 characters or more" } input type="password" name="new" autocomplete="new-password" minlength="8" required; }
            label { "New one, again" input type="password" name="again" autocomplete="new-password" minlength="8" required; }
            button.primary name="do" value="password" { "Change password" }
        }
    }
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

pub(super) async fn change(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Sent { visit, form }: Sent,
) -> Shown {
    let (manager, state) = (visit.manager.clone(), State(parts.clone()));
    let id = form.text("id").to_owned();
    match form.text("do") {
        "create" => {
            let expires = Some(form.text("expires_in")).filter(|text| !text.is_empty());
            let wish = json!({ "name": form.text("name"), "scope": form.text("scope"), "expires_in": expires });
            let made = keys::create(state, manager, body(wish)?).await.map_err(refused)?;
            // Not sent elsewhere first: it is shown once.
            return shown(&parts, &visit, made.0["key"].as_str().map_or(News::None, News::Key)).await;
        }
        "password" => {
            return match set_password(&parts, origin, &visit, &form).await {
                Ok(response) => Ok(response),
                Err(failure) => shown(&parts, &visit, News::NoPassword(&failure)).await,
            };
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

/// Gives somebody another password, of their own choice. All their sessions end; here a new one begins.
async fn set_password(parts: &Parts, origin: Origin, visit: &Visit, form: &Form) -> Result<Response, Failure> {
    let user = visit.user();
    let (old, new) = (form.raw("old"), form.raw("new"));
    if new != form.raw("again") {
        return Err(Failure::bad("The new one was not written the same way twice"));
    }
    // Tries count as those of the login do: who found a session open cannot guess here either.
    let wrong = || Failure::forbidden("The one you have is another one than you wrote");
    let shown = match parts.auth.user(&user.username, old, origin.address).await {
        Ok(caller) => caller,
        Err(failure) if failure.status() == StatusCode::UNAUTHORIZED => return Err(wrong()),
        Err(failure) => return Err(failure),
    };
    if shown.user().is_none_or(|shown| shown.id != user.id) {
        return Err(wrong());
    }
    let hash = parts.auth.hash_password(new.to_owned()).await?;
    let deed = visit.manager.deed("set_password", &user.username, "");
    parts.store.set_password(user.id, Some(&hash), &deed).await?;
    parts.auth.forget();
    parts.sessions.forget();
    let mut response = to(&visit.at("/connect/account?done=password"));
    response.headers_mut().append(SET_COOKIE, visit.jar().set(Some(&parts.sessions.begin(user, Began::Password))));
    Ok(response)
}
