//! What there is to open.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::html;
use serde::Deserialize;

use super::page::{Section, access_words, ago, icon, kind};
use super::{Shown, Visit, to};
use crate::node::content::access;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{ContentRow, Scope};

/// Rows of a page; who has more searches.
const ROWS_MAX: usize = 500;

pub(super) async fn moved(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    fields: HeaderMap,
) -> Response {
    to(&format!("{}/connect/", parts.prefix(&fields, origin, "/connect")))
}

/// What is looked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    q: Option<String>,
}

/// What content is called.
pub(super) fn title(content: &ContentRow) -> &str {
    if content.title.is_empty() { &content.name } else { &content.title }
}

/// Everything of it that is searched.
fn words(content: &ContentRow) -> String {
    let (_, _, kind) = kind(content.app_mode.as_deref());
    let owner = content.owner_username.as_deref().unwrap_or_default();
    [title(content), &content.name, &content.description, owner, kind, content.vanity.as_deref().unwrap_or_default()]
        .join(" ")
}

pub(super) async fn list(State(parts): State<Parts>, visit: Visit, Query(asked): Query<Asked>) -> Shown {
    let mut all = parts.store.contents(None, None).await?;
    all.retain(|content| access::may_see(visit.manager.viewer(), content));
    let query = asked.q.unwrap_or_default();
    let wanted: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    all.retain(|content| {
        let words = words(content).to_lowercase();
        wanted.iter().all(|word| words.contains(word))
    });
    let (found, is_searched) = (all.len(), !wanted.is_empty());
    all.truncate(ROWS_MAX);
    let may_publish = visit.manager.may_everywhere(Scope::Publish).is_ok();
    let body = html! {
        div.row.head {
            h1 { "Content" }
            form role="search" method="get" action=(visit.at("/connect/")) {
                input type="search" name="q" value=(query) data-filter placeholder="Title, owner, kind …" aria-label="Search content";
            }
        }
        div.card.flush {
            @if all.is_empty() {
                p.notice {
                    @if is_searched { "Nothing is called so." }
                    @else { "Nothing was published that you may see." }
                }
            }
            ul.list {
                @for content in &all {
                    li data-row=(words(content)) {
                        (icon(content.app_mode.as_deref()))
                        div {
                            a.name href=(visit.at(&format!("/connect/content/{}", content.guid))) { (title(content)) }
                            div.meta.quiet {
                                span { (kind(content.app_mode.as_deref()).2) }
                                span { "by " (content.owner_username.as_deref().unwrap_or("a program")) }
                                span { (access_words(&content.access)) }
                                @if let Some(path) = &content.vanity { span { (path) } }
                                @if content.is_locked { span.tag { "locked" } }
                            }
                        }
                        div.side.quiet {
                            @match content.deployed_at {
                                Some(at) => { "deployed " (ago(at)) },
                                None => "not deployed",
                            }
                            @let live = parts.contents.workers.connections_of(&content.guid);
                            @if live > 0 { div { span.tag.good { (live) " live here" } } }
                        }
                    }
                }
            }
            p.notice data-empty hidden { "Nothing is called so." }
        }
        @if found > all.len() { p.quiet { "The latest " (all.len()) " of " (found) ": search for the others." } }
        @if may_publish && all.is_empty() && !is_searched {
            p { a.button.primary href=(visit.at("/connect/publish")) { "Publish something" } }
        }
    };
    Ok(visit.page("Content", Section::Content, &body))
}
