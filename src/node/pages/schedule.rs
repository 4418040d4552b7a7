//! When a document is rendered, and what came of it.

use axum::extract::{Path, State};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Map, json};

use super::content::{Tab, at, framed};
use super::page::{ago, ahead, bytes, csrf};
use super::{Sent, Shown, Visit, body, done, refused};
use crate::node::api::read;
use crate::node::connect::content;
use crate::node::connect::variants;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::report::due::plan;
use crate::node::store::{ContentRow, RenderingRow, ScheduleRow};

/// Renderings that are listed.
const RENDERINGS_MAX: i64 = 50;
/// What can be chosen here; the rest by the API.
const KINDS: &[(&str, &str)] = &[
    ("minute", "every so many minutes"),
    ("hour", "every so many hours"),
    ("day", "every so many days"),
    ("weekday", "Monday to Friday"),
    ("week", "every so many weeks"),
    ("dayofmonth", "on a day of every so many months"),
    ("semimonth", "on the 1st and 15th of each month"),
    ("year", "every so many years"),
];

pub(super) async fn show(State(parts): State<Parts>, visit: Visit, Path(guid): Path<String>) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    if !variants::is_rendered(&content) {
        return Err(Failure::new(StatusCode::NOT_FOUND, "Only documents are rendered; this is none").into());
    }
    let schedule = parts.store.schedule_of(content.id).await?;
    let all = parts.store.renderings(content.id, None, RENDERINGS_MAX).await?;
    let body = html! {
        div.grid {
            (when(&visit, &content, schedule.as_ref()))
            section.card aria-labelledby="now" {
                h2 id="now" { "Now" }
                p { "Rendered with the bundle that runs and the variables that are set. What is shown stays until it is done." }
                form method="post" action=(visit.at(&at(&content, "/schedule"))) {
                    (csrf(&visit.token))
                    button.primary name="do" value="render" { "Render now" }
                }
            }
        }
        (history(&visit, &content, &all))
    };
    Ok(framed(&visit, &content, Tab::Schedule, &body))
}

fn when(visit: &Visit, content: &ContentRow, row: Option<&ScheduleRow>) -> Markup {
    let told = row.and_then(|row| plan(row).ok());
    let number = |name: &str| {
        let plan: Map<String, serde_json::Value> = row.and_then(|row| serde_json::from_str(&row.plan).ok())?;
        plan.get(name)?.as_i64()
    };
    let start = told.as_ref().map(|plan| plan.start.to_zoned(plan.zone.clone()).strftime("%Y-%m-%dT%H:%M").to_string());
    html! {
        section.card aria-labelledby="when" {
            h2 id="when" { "When" }
            @match (row, &told) {
                (Some(row), Some(plan)) => {
                    p { (plan.every.told()) ", " (row.zone) "; "
                        @match row.next_at { Some(next) => { "next " (ahead(next)) }, None => "never again" } }
                }
                _ => p.quiet { "It is not scheduled." },
            }
            form method="post" action=(visit.at(&at(content, "/schedule"))) {
                (csrf(&visit.token))
                label { "Recurs" select name="type" {
                    @if let (Some(row), Some(plan)) = (row, &told) {
                        @if !is_shown(row) { option value="" selected { "as it is: " (plan.every.told()) } }
                    }
                    @for (kind, words) in KINDS {
                        option value=(kind) selected[row.is_some_and(|row| is_shown(row) && row.kind == *kind)] { (words) }
                    }
                } }
                label { "So many" input name="n" type="number" min="1" value=(number("N").unwrap_or(1)); }
                label { "Day of the month" input name="day" type="number" min="1" max="31" value=(number("Day").unwrap_or(1)); }
                label { "From" input name="start" type="datetime-local" value=[start]; }
                label { "On the clock of" input name="zone" value=(row.map_or("UTC", |row| row.zone.as_str())) placeholder="Europe/Zurich"; }
                label.choice { input name="mails" type="checkbox" checked[row.is_some_and(|row| row.mails)]; span { "Mail me when it is done, not only when it failed" } }
                div.row {
                    button.primary name="do" value="set" { "Save" }
                    @if row.is_some() { button.danger name="do" value="remove" { "No schedule" } }
                }
            }
        }
    }
}

/// Whether the form can say what recurs.
fn is_shown(row: &ScheduleRow) -> bool {
    KINDS.iter().any(|(kind, _)| *kind == row.kind) && !row.plan.contains("\"First\":false")
}

fn history(visit: &Visit, content: &ContentRow, all: &[RenderingRow]) -> Markup {
    html! {
        section.card.wide aria-labelledby="renderings" {
            h2 id="renderings" { "Renderings" }
            @if all.is_empty() { p { "Nothing was rendered yet." } } @else {
                table.stack {
                    thead { tr { th scope="col" { "Rendering" } th scope="col" { "When" } th scope="col" { "By" } th.number scope="col" { "Took" } th.number scope="col" { "Size" } th scope="col" { "" } } }
                    tbody {
                        @for one in all {
                            tr {
                                td data-label="Rendering" { (one.number) " " @if content.rendering == Some(one.number) { span.tag.good { "shown" } } }
                                td data-label="When" { (ago(one.created_at)) }
                                td data-label="By" { (one.created_by) }
                                td.number data-label="Took" { (format!("{:.1} s", one.took as f64 / 1e6)) }
                                td.number data-label="Size" { (bytes(one.size)) }
                                td { a href=(visit.at(&format!("/connect/open?next={}/_rev{}/", content.prefix(), one.number))) target="_blank" rel="noopener" { "Look" span.unseen { " at rendering " (one.number) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn change(State(parts): State<Parts>, Path(guid): Path<String>, Sent { visit, form }: Sent) -> Shown {
    let content = content::own(&parts, &visit.manager, &guid).await?;
    let path = Path(guid);
    match form.text("do") {
        "render" => {
            let task = variants::begin(&parts, &visit.manager, &content).await?;
            return Ok(visit.to(&at(&content, &format!("/logs?task={task}"))));
        }
        "remove" => drop(variants::remove_schedule(State(parts), visit.manager.clone(), path).await.map_err(refused)?),
        _ => {
            let number = |name: &str| form.text(name).parse::<i64>().unwrap_or(1);
            let kind = form.text("type");
            let plan = match kind {
                "weekday" => json!({}),
                "semimonth" => json!({ "First": true }),
                "dayofmonth" => json!({ "N": number("n"), "Day": number("day") }),
                _ => json!({ "N": number("n") }),
            };
            let mut wish = json!({ "timezone": form.text("zone"), "email": form.has("mails") });
            if !kind.is_empty() {
                wish["type"] = json!(kind);
                wish["schedule"] = json!(plan.to_string());
            }
            if !form.text("start").is_empty() {
                wish["start_time"] = json!(variants::local(form.text("start"), form.text("zone"))?);
            }
            let wish = read(body(wish)?)?.0;
            let old = parts.store.schedule_of(content.id).await?;
            done(variants::set(&parts, &visit.manager, &content, wish, old).await)?;
        }
    }
    Ok(visit.to(&at(&content, "/schedule")))
}
