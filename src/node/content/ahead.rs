//! Before anybody asks: what was activated, here or on another node, is unpacked and its environment made.
//!
//! So a session that has to move finds it ready. And processes that are to run always are begun.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use super::mode::Way;
use super::prepare::{prepare, unpacked};
use super::settings::Settings;
use super::worker::{Got, Key};
use crate::node::parts::Parts;
use crate::node::store::{ContentRow, StoreError};
use crate::runtime::clock;
use crate::telemetry::Causes;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Rows are written a moment before they are seen, by clocks that differ.
const MARGIN: Duration = Duration::from_secs(30);

/// Looks what is new until told to stop.
pub async fn follow(parts: Parts, mut stop: watch::Receiver<bool>) {
    // What is prepared, by guid: bundle and generation.
    let mut done: HashMap<String, (i64, i64)> = HashMap::new();
    let mut since = 0;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let looked = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            looked = look(&parts, since, &mut done) => looked,
        };
        match looked {
            Ok(()) => {
                let before = clock::unix().saturating_sub(MARGIN);
                since = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
            }
            Err(error) => tracing::debug!(error = %Causes(&error), "what was activated cannot be looked up"),
        }
    }
}

async fn look(parts: &Parts, since: i64, done: &mut HashMap<String, (i64, i64)>) -> Result<(), StoreError> {
    let changed = parts.store.contents_changed(since).await?;
    for content in changed {
        let Some(bundle) = content.bundle else { continue };
        let now = (bundle, content.generation);
        if done.get(&content.guid) == Some(&now) {
            continue;
        }
        // What does not work is told to whoever asks for it; here it is tried once.
        done.insert(content.guid.clone(), now);
        if let Err(why) = ready(parts, &content, bundle).await {
            tracing::info!(content = content.guid, why, "content cannot be prepared on this node");
        }
    }
    Ok(())
}

async fn ready(parts: &Parts, content: &ContentRow, number: i64) -> Result<(), String> {
    let bundle = parts.contents.bundle(&parts.store, number).await.map_err(|e| e.to_string())?;
    let Some(bundle) = bundle else { return Ok(()) };
    match bundle.manifest.mode().map(super::mode::Mode::way) {
        Some(Way::Workers) => {}
        Some(_) => return unpacked(parts, &bundle).await.map(drop),
        None => return Ok(()),
    }
    let prefix = content.prefix();
    let say = |line: &str| tracing::debug!(content = content.guid, line, "preparing content");
    let start = prepare(parts, content, &bundle, &prefix, &say).await?;
    let limits = Settings::read(&content.settings).limits(&parts.settings.content);
    let key = Key { guid: content.guid.clone(), bundle: number, generation: content.generation };
    if limits.min_processes > 0
        && let Ok(Got::Turn(turn)) = parts.contents.workers.get(&key, limits, None).await
    {
        let begun = turn.begin(Ok(start)).await;
        parts.metrics.worker_begun(begun.is_ok());
        begun.map(drop).map_err(|refused| format!("{refused:?}"))?;
    }
    Ok(())
}
