//! What is new in a git repository, as builds in the queue.

use std::collections::HashSet;

use super::program::{self, Ref};
use super::{GitSettings, Wanted};
use crate::node::error::Failure;
use crate::node::jobs::{Ended, Kind, Log};
use crate::node::parts::Parts;
use crate::node::store::{Jobs, NewJob, Source};

/// Does the job: `{"source": ID}`.
pub async fn sync(parts: &Parts, log: &Log, input: &str) -> Ended {
    let input: serde_json::Value = serde_json::from_str(input).map_err(|e| e.to_string())?;
    let source = source(parts, input["source"].as_i64().unwrap_or_default()).await?;
    let settings = settings(&source)?;
    let refs = program::refs(&settings.url).await?;
    let wanted = wanted(&settings, refs)?;
    let told = |e| Failure::from(e).message().to_owned();
    let known: HashSet<String> =
        parts.store.subjects(Kind::Build.as_str(), &of(source.id)).await.map_err(told)?.into_iter().collect();
    let mut new = 0;
    for Ref { name, commit } in wanted {
        let wanted = Wanted { source: source.id, name, commit };
        let subject = wanted.subject(&source.name);
        if known.contains(&subject) {
            continue;
        }
        if build(parts, &wanted, &subject).await.map_err(told)? {
            log.say(&format!("to be built: {} at {}", wanted.short(), wanted.commit));
            new += 1;
        }
    }
    Ok(format!("{new} new"))
}

/// Puts builds into the queue again that failed or were cancelled. How many.
///
/// # Errors
/// 503.
pub async fn retry(parts: &Parts, source: &Source) -> Result<usize, Failure> {
    let (mut seen, mut again) = (HashSet::new(), 0);
    let of = of(source.id);
    let which = Jobs { kind: Some(Kind::Build.as_str()), input: Some(&of), ..Jobs::default() };
    for job in parts.store.jobs(which, RETRIED_MAX).await? {
        // The latest of its subject says how it stands.
        let is_latest = seen.insert(job.subject.clone());
        if !is_latest || !matches!(job.state.as_str(), "failed" | "cancelled") {
            continue;
        }
        let Ok(wanted) = serde_json::from_str::<Wanted>(&job.input) else { continue };
        again += usize::from(build(parts, &wanted, &job.subject).await?);
    }
    Ok(again)
}

/// What the input of a source's builds begins with: its name may have been another source's before.
fn of(source: i64) -> String {
    format!("{{\"source\":{source},")
}

/// Builds looked at, latest first.
const RETRIED_MAX: i64 = 10_000;

async fn build(parts: &Parts, wanted: &Wanted, subject: &str) -> Result<bool, crate::node::store::StoreError> {
    let input = serde_json::to_string(wanted).unwrap_or_default();
    let slot = format!("build/{}/{}/{}", wanted.source, wanted.name, wanted.commit);
    let job = NewJob { kind: Kind::Build.as_str(), subject, input: &input, slot: &slot };
    let is_new = parts.store.enqueue(job, None).await?.is_some();
    parts.job_added.notify_one();
    Ok(is_new)
}

/// The tags, or the branch.
fn wanted(settings: &GitSettings, refs: Vec<Ref>) -> Result<Vec<Ref>, String> {
    let Some(branch) = &settings.branch else {
        return Ok(refs.into_iter().filter(|at| at.name.starts_with("refs/tags/")).collect());
    };
    let name = format!("refs/heads/{branch}");
    let found = refs.into_iter().find(|at| at.name == name);
    found.map(|at| vec![at]).ok_or_else(|| format!("the repository has no branch `{branch}`"))
}

/// A source by its row's id.
pub(super) async fn source(parts: &Parts, id: i64) -> Result<Source, String> {
    let all = parts.store.sources().await.map_err(|e| Failure::from(e).message().to_owned())?;
    all.into_iter()
        .find(|source| source.id == id && source.kind == "git")
        .ok_or_else(|| "the source is gone".to_owned())
}

pub(super) fn settings(source: &Source) -> Result<GitSettings, String> {
    serde_json::from_str(&source.settings).map_err(|e| format!("the settings of source `{}`: {e}", source.name))
}
