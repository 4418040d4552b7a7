//! Environments of a version of Python that somebody wants to be made anew: every node removes its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::copies::Copies;
use super::python;
use crate::node::jobs;
use crate::node::parts::Parts;
use crate::node::store::{Errand, StoreError};
use crate::telemetry::Causes;

/// As rows have it: a job that each node does, and none claims.
pub const KIND: &str = "cache";
/// Between two looks what is to be done.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be removed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Environments made for this version of Python.
    pub version: String,
}

/// Versions whose environments this node has.
pub async fn versions(environments: Copies) -> Vec<String> {
    let found = tokio::task::spawn_blocking(move || {
        let mut all: Vec<String> = environments.all().iter().filter_map(|path| python::made_for(path)).collect();
        all.sort_unstable();
        all.dedup();
        all
    });
    found.await.unwrap_or_default()
}

/// Removes what is wanted, until told to stop. `node`: id of this process.
pub async fn follow(parts: Parts, node: String, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = look(&parts, &node).await {
            tracing::debug!(error = %Causes(&error), "what caches are to be removed cannot be looked up");
        }
    }
}

async fn look(parts: &Parts, node: &str) -> Result<(), StoreError> {
    for errand in parts.store.errands().await? {
        let Errand { name, input, seen_at, .. } = &errand;
        if errand.node != node {
            let heard = jobs::heard(parts).await?;
            if seen_at.is_none_or(|at| at < heard) {
                let why = format!("The node {name} left or died before it did so");
                parts.store.answer_errand(&errand, Err(&why)).await?;
            }
            continue;
        }
        let environments = parts.contents.environments.clone();
        let wanted: Result<Wanted, _> = serde_json::from_str(input);
        let came = match wanted {
            Ok(Wanted { version }) => {
                let cleared = tokio::task::spawn_blocking(move || clear(&environments, &version));
                cleared.await.map_err(|e| format!("The node {name} failed over it: {e}"))
            }
            Err(error) => Err(format!("The node {name} does not understand it: {error}")),
        };
        let told = came.map(|(gone, stayed)| match stayed {
            0 => format!("Removed {gone} environments from the node {name}"),
            _ => format!(
                "Removed {gone} environments from the node {name}, {stayed} stay, because something runs on them"
            ),
        });
        parts.store.answer_errand(&errand, told.as_deref().map_err(String::as_str)).await?;
    }
    Ok(())
}

/// Removes environments of this version; how many went, and how many stayed. Blocks.
fn clear(environments: &Copies, version: &str) -> (usize, usize) {
    let all = environments.all();
    let of: Vec<_> = all.iter().filter(|path| python::made_for(path).as_deref() == Some(version)).collect();
    let gone = of.iter().filter(|path| environments.remove(path)).count();
    (gone, of.len() - gone)
}
