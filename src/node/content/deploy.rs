//! The job of deploying: a bundle is unpacked, its environment made, a process begun on trial; only then it runs in the place
//! of what ran before. What a node that died left undone another one does again.

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::mode::Way;
use super::prepare::{prepare, unpacked};
use super::python;
use super::settings::Settings;
use super::worker::Process;
use crate::node::jobs::{Ended, Log};
use crate::node::parts::Parts;
use crate::node::report::render::render;
use crate::node::store::Deed;
use crate::telemetry::Causes;

/// What was rendered within this time, microseconds, is shown when it is activated.
const DRAFTED: i64 = 3_600_000_000;
/// As rows have it.
pub const KIND: &str = "deploy";

/// What is to be deployed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// The content.
    pub guid: String,
    /// Its bundle.
    pub bundle: i64,
    /// It is to run in the place of what runs.
    pub activates: bool,
    /// Who wants it.
    pub who: String,
    /// Since when, microseconds since 1970.
    pub at: i64,
}

/// Does the job: a [`Wanted`].
pub async fn deploy(parts: &Parts, log: &Log, input: &str) -> Ended {
    let wanted: Wanted = serde_json::from_str(input).map_err(|e| e.to_string())?;
    let read = |e: crate::node::store::StoreError| format!("the database does not answer: {}", Causes(&e));
    let content = parts.store.content(&wanted.guid).await.map_err(read)?.ok_or("the content was removed")?;
    let bundle = parts.store.bundle(wanted.bundle).await.map_err(read)?.ok_or("the bundle was removed")?;
    let manifest: Manifest = serde_json::from_str(&bundle.manifest).map_err(|e| e.to_string())?;
    let mode = manifest.mode().ok_or_else(|| format!("this server does not run `{}`", manifest.mode))?;
    log.say(&format!("Deploying bundle {} of {} as {}", bundle.number, content.name, manifest.mode));
    log.flush().await;
    let say = |line: &str| log.say(line);
    let mut rendering = None;
    match mode.way() {
        Way::Files => drop(unpacked(parts, &bundle).await?),
        Way::Workers => {
            let prefix = content.prefix();
            let start = prepare(parts, &content, &bundle, &prefix, &say).await?;
            python::note(parts, bundle.number, &start.folders).await?;
            log.say("Starting it on trial");
            log.flush().await;
            let limits = Settings::read(&content.settings).limits(&parts.settings.content);
            let process = Process::begin(start)?;
            let ready = process.is_ready(limits.init_timeout).await;
            process.said().iter().for_each(|line| log.say(line));
            let short = |why: &str| why.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
            ready.map_err(|(_, why)| format!("It does not start: {}", short(&why)))?;
        }
        Way::Rendering => {
            // What was looked at before it is activated is what is shown then.
            let drafted = match content.bundle {
                Some(number) if number == bundle.number => None,
                _ => parts.store.renderings(content.id, Some(bundle.number), 1).await.map_err(read)?.pop(),
            };
            // But not if anything was set since.
            let is_new = |at: i64| at > wanted.at - DRAFTED && at >= content.updated_at;
            let drafted = drafted.filter(|drafted| wanted.activates && is_new(drafted.created_at));
            rendering = match drafted {
                Some(drafted) => {
                    log.say(&format!("Rendering {}, which was made of it before, is shown", drafted.number));
                    Some(drafted.number)
                }
                None => {
                    let rendered = render(parts, &content, &bundle, &say).await?;
                    Some(rendered.keep(parts, &content, &bundle, false, &wanted.who).await?)
                }
            };
        }
    }
    if !wanted.activates {
        log.say("It can be looked at; what ran before goes on running");
        return Ok("prepared".to_owned());
    }
    let deed = Deed {
        who: &wanted.who,
        address: None,
        action: "activate",
        subject: &content.name,
        detail: &format!("bundle {} of {}", bundle.number, content.guid),
    };
    let activated = parts.store.activate(content.id, bundle.number, rendering, mode.as_str(), wanted.at, &deed).await;
    let is_there = activated.map_err(read)?;
    if !is_there {
        return Err(
            "a bundle that was wanted later runs already, or the content was locked or removed meanwhile".to_owned()
        );
    }
    parts.contents.forget(&content.guid);
    log.say("It runs now");
    let kept = parts.settings.content.bundles_kept;
    if kept > 0 {
        let deed = Deed { action: "remove_bundle", detail: "", ..deed };
        match parts.store.retire_bundles(content.id, &content.guid, kept, &deed).await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => {
                let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
                log.say(&format!("Removed older bundles, of which {kept} are kept: {}", gone.join(", ")));
            }
            // It is tried again after the next deployment.
            Err(error) => log.say(&format!("Older bundles cannot be removed: {}", Causes(&error))),
        }
    }
    Ok("activated".to_owned())
}
