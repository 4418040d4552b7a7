//! The logs of content's processes, written down so that any node shows them.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::worker::{KeptJournal, ProcessEnd};
use crate::node::jobs::plain;
use crate::node::parts::Parts;
use crate::node::registry;
use crate::node::store::{Claimed, StoreError, new_id};
use crate::telemetry::Causes;

/// As rows have it: a process is a job that its node began by itself.
pub const KIND: &str = "process";
/// As rows have it: somebody ended all processes of content.
pub const TERMINATE: &str = "terminate";
/// Between two writings.
const WRITE: Duration = Duration::from_secs(1);
/// Lines of one process that are kept, the latest.
const LINES_KEPT: i64 = 5_000;
/// The earlier ones go when there are so many more.
const LINES_MORE: i64 = 500;
/// Characters of a line.
const LINE_MAX: usize = 2_000;
/// Writings between two looks which processes are to end.
const LOOK: u32 = 2;
/// Writings between two looks whose node has died.
const LOOK_FOR_LOST: u32 = 20;

/// A process whose log is being written.
struct Written {
    kept: KeptJournal,
    /// Of its row.
    id: i64,
    row: Option<Claimed>,
    /// Number of its last line, and of the last that went.
    last: i64,
    gone: i64,
}

/// Writes until told to stop, and then until all processes have ended.
pub async fn follow(parts: Parts, node: String, mut stop: watch::Receiver<bool>) {
    let mut all: Vec<Written> = Vec::new();
    let mut count = 0_u32;
    loop {
        let is_over = *stop.borrow_and_update();
        if !is_over {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(WRITE) => {}
            }
        } else {
            tokio::time::sleep(WRITE / 4).await;
        }
        all.extend(parts.contents.workers.journals().into_iter().map(|kept| Written {
            kept,
            id: new_id(),
            row: None,
            last: 0,
            gone: 0,
        }));
        let mut going = Vec::with_capacity(all.len());
        for mut one in all {
            match write(&parts, &node, &mut one).await {
                Ok(true) => {}
                Ok(false) => going.push(one),
                Err(error) => {
                    tracing::debug!(error = %Causes(&error), "the log of a process cannot be written");
                    going.push(one);
                }
            }
        }
        all = going;
        if is_over && all.is_empty() && parts.contents.workers.count() == 0 {
            return;
        }
        count = count.wrapping_add(1);
        if is_over {
            continue;
        }
        let looked = async {
            if !all.is_empty() && count.is_multiple_of(LOOK) {
                end(&parts, &node, &all).await?;
            }
            if count.is_multiple_of(LOOK_FOR_LOST) {
                end_lost(&parts).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = looked.await {
            tracing::debug!(error = %Causes(&error), "which processes are to end cannot be looked up");
        }
    }
}

/// Writes what is new of one; whether that was the last of it.
async fn write(parts: &Parts, node: &str, one: &mut Written) -> Result<bool, StoreError> {
    let row = match &one.row {
        Some(row) => row,
        None => {
            let input = json!({ "bundle": one.kept.bundle }).to_string();
            let row = parts.store.begin_process(one.id, KIND, &one.kept.guid, &input, node).await?;
            // Who ended all of them before this one was written down could not mean it by its row.
            if parts.store.was_told(TERMINATE, &one.kept.guid, one.kept.began).await?
                && let Some(process) = one.kept.process.upgrade()
            {
                process.end();
            }
            one.row.insert(row)
        }
    };
    let (lines, end) = one.kept.journal.take();
    if !lines.is_empty() {
        let told: Vec<String> = lines.iter().map(|line| plain(line).chars().take(LINE_MAX).collect()).collect();
        match parts.store.write_lines(row, one.last + 1, &told).await {
            Ok(true) => {}
            Ok(false) => {
                // While this node was not heard of others took it for dead: the log goes on in another row.
                one.kept.journal.back(lines);
                (one.id, one.row, one.last, one.gone) = (new_id(), None, 0, 0);
                return Ok(false);
            }
            Err(error) => {
                one.kept.journal.back(lines);
                return Err(error);
            }
        }
        one.last += i64::try_from(told.len()).unwrap_or(0);
        let before = one.last - LINES_KEPT;
        if before >= one.gone + LINES_MORE {
            parts.store.forget_lines(row.id, before).await?;
            one.gone = before;
        }
    }
    let Some(ProcessEnd { is_well, how }) = end else { return Ok(false) };
    parts.store.end(row, if is_well { "done" } else { "failed" }, &how).await?;
    Ok(true)
}

/// Ends processes that somebody wants to end.
async fn end(parts: &Parts, node: &str, all: &[Written]) -> Result<(), StoreError> {
    for id in parts.store.cancelled(node).await? {
        let found = all.iter().find(|one| one.row.as_ref().is_some_and(|row| row.id == id));
        if let Some(process) = found.and_then(|one| one.kept.process.upgrade()) {
            process.end();
        }
    }
    Ok(())
}

/// Writes down the end of processes whose node has died.
async fn end_lost(parts: &Parts) -> Result<(), StoreError> {
    // After the database was away nobody has been heard of, until everybody had the time to be.
    if parts.beating.since().is_some_and(|since| since.elapsed() > registry::ALIVE) {
        let alive = i64::try_from(registry::ALIVE.as_micros()).unwrap_or(i64::MAX);
        let heard = parts.store.clock().await? - alive;
        parts.store.end_lost(KIND, heard).await?;
    }
    Ok(())
}
