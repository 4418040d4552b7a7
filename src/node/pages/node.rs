//! The nodes of the cluster, for administrators.

use axum::extract::State;
use maud::html;

use super::contents::title;
use super::page::{Section, ago};
use super::{Shown, Visit};
use crate::node::jobs::Kind;
use crate::node::parts::Parts;
use crate::node::registry::{ALIVE, Report};
use crate::node::store::{Jobs, Scope};

/// Jobs that are counted, and those that are shown.
const JOBS_MAX: i64 = 1000;
const JOBS_SHOWN: usize = 15;

pub(super) async fn show(State(parts): State<Parts>, visit: Visit) -> Shown {
    visit.manager.may_everywhere(Scope::Admin)?;
    let offset = parts.store.clock_offset().await?;
    let nodes = parts.store.nodes(ALIVE, offset).await?;
    let (mut running, mut waiting) = (Vec::new(), Vec::new());
    for (state, into) in [("running", &mut running), ("waiting", &mut waiting)] {
        *into = parts.store.jobs(Jobs { state: Some(state), ..Jobs::default() }, JOBS_MAX).await?;
    }
    let latest = parts.store.jobs(Jobs::default(), i64::try_from(JOBS_SHOWN).unwrap_or(1)).await?;
    let workers = &parts.contents.workers;
    let contents = parts.store.contents(None, None).await?;
    let named = |subject: &str| {
        let found = contents.iter().find(|content| content.guid == subject);
        html! { @match found {
            Some(content) => a href=(visit.at(&format!("/connect/content/{subject}/logs"))) { (title(content)) },
            None => (subject),
        } }
    };
    let of = |kind: &str, node: &str| {
        running.iter().filter(|job| job.kind == kind && job.node.as_deref() == Some(node)).count()
    };
    let body = html! {
        h1 { "Nodes" }
        section.card.wide aria-labelledby="nodes" {
            h2 id="nodes" { "Alive" }
            table.stack {
                thead { tr { th scope="col" { "Node" } th scope="col" { "Version" } th scope="col" { "Started" } th scope="col" { "Seen" } th scope="col" { "Listens" } th.number scope="col" { "Clock" } } }
                tbody {
                    @for node in &nodes {
                        @let report: Report = serde_json::from_str(&node.report).unwrap_or_default();
                        tr {
                            td data-label="Node" { strong { (node.name) } " " @if Some(node.name.as_str()) == here(&parts) { span.tag { "this one" } } }
                            td data-label="Version" { (node.version) }
                            td data-label="Started" { (ago(node.started_at)) }
                            td data-label="Seen" { (ago(node.seen_at + offset)) }
                            td data-label="Listens" { @for (name, at) in &report.listeners { code { (name) " " (at) } " " } }
                            td.number data-label="Clock" { (report.clock_offset / 1000) " ms" }
                        }
                        @for (class, storage) in &report.storage {
                            @if let Some(error) = &storage.error { tr { td colspan="6" { p.notice.bad { "Storage " (class) ": " (error) } } } }
                        }
                    }
                }
            }
            p.quiet { "Everything that has to agree between nodes is checked by " code { "bowline doctor" } "." }
        }
        div.grid {
            section.card aria-labelledby="here" {
                h2 id="here" { "This node" }
                dl {
                    dt { "Processes" } dd { (workers.count()) }
                    dt { "Connections" } dd { (workers.connections()) " requests and sessions of content" }
                }
            }
            section.card.wide aria-labelledby="queues" {
                h2 id="queues" { "Queues" }
                table.stack {
                    thead { tr { th scope="col" { "Kind" } th.number scope="col" { "Waiting" } @for node in &nodes { th.number scope="col" { (node.name) } } } }
                    tbody {
                        @for kind in Kind::ALL {
                            tr {
                                td data-label="Kind" { (kind.as_str()) }
                                td.number data-label="Waiting" { (waiting.iter().filter(|job| job.kind == kind.as_str()).count()) }
                                @for node in &nodes { td.number data-label=(node.name) { (of(kind.as_str(), &node.name)) } }
                            }
                        }
                    }
                }
            }
        }
        section.card.wide aria-labelledby="jobs" {
            h2 id="jobs" { "Latest jobs" }
            table.stack {
                thead { tr { th scope="col" { "Kind" } th scope="col" { "About" } th scope="col" { "State" } th scope="col" { "Node" } th scope="col" { "Since" } th scope="col" { "Result" } } }
                tbody {
                    @for job in &latest {
                        tr {
                            td data-label="Kind" { (job.kind) }
                            td data-label="About" { (named(&job.subject)) }
                            td data-label="State" { (job.state) }
                            td data-label="Node" { (job.node.as_deref().unwrap_or("–")) }
                            td data-label="Since" { (ago(job.created_at)) }
                            td.quiet data-label="Result" { (job.result.as_deref().unwrap_or_default().chars().take(80).collect::<String>()) }
                        }
                    }
                }
            }
        }
    };
    Ok(visit.page("Nodes", Section::Nodes, &body))
}

/// What the operator calls this node.
fn here(parts: &Parts) -> Option<&str> {
    parts.settings.name.as_deref()
}
