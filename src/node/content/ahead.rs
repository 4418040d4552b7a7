//! Before anybody asks: what was activated, here or on another node, is unpacked and its environment made.
//!
//! So a session that has to move finds it ready. Processes that are to run always are begun, and begun again when one ends; those
//! of content that was removed end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::mode::Way;
use super::prepare::{prepare, unpacked};
use super::settings::{Limits, Settings};
use super::worker::Key;
use crate::node::parts::Parts;
use crate::node::store::{ContentRow, StoreError};
use crate::runtime::clock;
use crate::telemetry::Causes;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks whether content was removed: looks at what was activated.
const REMOVAL_LOOKS: u32 = 5;
/// Rows are written a moment before they are seen, by clocks that differ.
const MARGIN: Duration = Duration::from_secs(30);
/// Contents that are prepared at once: one that takes long does not hold up all others.
const AT_ONCE: usize = 2;
/// Guids of one query.
const GUIDS_MAX: usize = 500;

/// What is to be there of a content.
#[derive(Debug)]
struct Wish {
    bundle: i64,
    generation: i64,
    /// What does not work is told to whoever asks for it; here it is tried once.
    is_tried: bool,
    /// Processes are to run always.
    running: Option<Arc<Running>>,
}

#[derive(Debug)]
struct Running {
    content: ContentRow,
    key: Key,
    limits: Limits,
}

/// Looks what is new until told to stop.
pub async fn follow(parts: Parts, mut stop: watch::Receiver<bool>) {
    let mut wishes: HashMap<String, Wish> = HashMap::new();
    let mut working: JoinSet<String> = JoinSet::new();
    let mut busy: HashSet<String> = HashSet::new();
    let (mut since, mut looks) = (0, 0_u32);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            Some(done) = working.join_next(), if !working.is_empty() => {
                match done {
                    Ok(guid) => drop(busy.remove(&guid)),
                    // Whose it was is not known.
                    Err(_) => busy.clear(),
                }
                begin(&parts, &mut wishes, &mut working, &mut busy, false);
                continue;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        looks = looks.wrapping_add(1);
        let looked = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            looked = look(&parts, since, looks.is_multiple_of(REMOVAL_LOOKS), &mut wishes) => looked,
        };
        match looked {
            Ok(()) => {
                let before = clock::unix().saturating_sub(MARGIN);
                since = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
            }
            Err(error) => tracing::debug!(error = %Causes(&error), "what was activated cannot be looked up"),
        }
        begin(&parts, &mut wishes, &mut working, &mut busy, true);
    }
}

/// Takes down what is wanted now.
async fn look(
    parts: &Parts,
    since: i64,
    looks_for_removals: bool,
    wishes: &mut HashMap<String, Wish>,
) -> Result<(), StoreError> {
    for content in parts.store.contents_changed(since).await? {
        let Some(bundle) = content.bundle else { continue };
        let (guid, generation) = (content.guid.clone(), content.generation);
        if content.is_locked {
            wishes.remove(&guid);
            parts.contents.workers.remove(&guid);
            continue;
        }
        parts.contents.workers.outdate(&guid, generation);
        if wishes.get(&guid).is_some_and(|wish| (wish.bundle, wish.generation) == (bundle, generation)) {
            continue;
        }
        let limits = Settings::read(&content.settings).limits(&parts.settings.content);
        let running = (limits.min_processes > 0).then(|| {
            let key = Key { guid: guid.clone(), prefix: content.prefix(), bundle, generation };
            Arc::new(Running { content: content.clone(), key, limits })
        });
        wishes.insert(guid, Wish { bundle, generation, is_tried: false, running });
    }
    if looks_for_removals {
        let mut guids = parts.contents.workers.guids();
        guids.extend(wishes.iter().filter(|(_, wish)| wish.running.is_some()).map(|(guid, _)| guid.clone()));
        guids.sort_unstable();
        guids.dedup();
        for some in guids.chunks(GUIDS_MAX) {
            let there: HashSet<String> = parts.store.contents_there(some).await?.into_iter().collect();
            for guid in some.iter().filter(|guid| !there.contains(*guid)) {
                tracing::info!(content = guid, "content was removed: what runs of it ends");
                wishes.remove(guid);
                parts.contents.forget(guid);
                parts.contents.workers.remove(guid);
            }
        }
    }
    Ok(())
}

/// Begins what is to be done, as much as may be at once. `again`: processes too that ended, or did not begin when last tried.
fn begin(
    parts: &Parts,
    wishes: &mut HashMap<String, Wish>,
    working: &mut JoinSet<String>,
    busy: &mut HashSet<String>,
    again: bool,
) {
    for (guid, wish) in wishes {
        if working.len() >= AT_ONCE {
            return;
        }
        let lacking = wish
            .running
            .as_ref()
            .filter(|running| parts.contents.workers.lacks(&running.key, running.limits.min_processes));
        if busy.contains(guid) || wish.is_tried && (lacking.is_none() || !again) {
            continue;
        }
        wish.is_tried = true;
        busy.insert(guid.clone());
        let (parts, guid, bundle, running) = (parts.clone(), guid.clone(), wish.bundle, lacking.map(Arc::clone));
        working.spawn(async move {
            if let Err(why) = ready(&parts, &guid, bundle, running.as_deref()).await {
                tracing::info!(content = guid, why, "content cannot be prepared on this node");
            }
            guid
        });
    }
}

/// Prepares content, and begins a process of it if some are to run always and fewer do.
async fn ready(parts: &Parts, guid: &str, number: i64, running: Option<&Running>) -> Result<(), String> {
    let bundle = parts.contents.bundle(&parts.store, number).await.map_err(|e| e.to_string())?;
    let Some(bundle) = bundle else { return Ok(()) };
    match bundle.manifest.mode().map(super::mode::Mode::way) {
        Some(Way::Workers) => {}
        Some(_) => return unpacked(parts, &bundle).await.map(drop),
        None => return Ok(()),
    }
    let say = |line: &str| tracing::debug!(content = guid, line, "preparing content");
    let Some(Running { content, key, limits }) = running else {
        let content = parts.store.content(guid).await.map_err(|e| e.to_string())?;
        let Some(content) = content else { return Ok(()) };
        return prepare(parts, &content, &bundle, &content.prefix(), &say).await.map(drop);
    };
    let Some(turn) = parts.contents.workers.more(key, *limits, limits.min_processes) else { return Ok(()) };
    let start = prepare(parts, content, &bundle, &key.prefix, &say).await;
    // Others are prepared while it starts, however long that takes.
    let guid = guid.to_owned();
    tokio::spawn(async move {
        if let Err(refused) = turn.begin(start).await {
            tracing::info!(content = guid, why = ?refused, "a process that is to run always did not begin");
        }
    });
    Ok(())
}
