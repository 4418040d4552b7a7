//! What is scheduled: when its time has come its job is put into the queue, by whichever node sees it first.
//!
//! What came due while nobody looked is done once, and what is still being done is not begun again.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::plan::{Every, Plan};
use super::run::{REPORT, Wanted};
use crate::node::parts::Parts;
use crate::node::store::{NewJob, ScheduleRow, StoreError};
use crate::telemetry::Causes;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Schedules of one look.
const FEW: i64 = 100;
/// Beside those, that cannot be read.
const UNREADABLE_MAX: i64 = 1_000;

/// Looks what is due until told to stop.
pub async fn follow(parts: Parts, mut stop: watch::Receiver<bool>) {
    let mut unreadable = HashSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = look(&parts, &mut unreadable).await {
            tracing::debug!(error = %Causes(&error), "schedules cannot be looked up");
        }
    }
}

/// `unreadable`: schedules that were told of.
async fn look(parts: &Parts, unreadable: &mut HashSet<i64>) -> Result<(), StoreError> {
    // By one clock, whichever node looks.
    let now = parts.store.clock().await?;
    // Those that stay due hide none that are.
    let few = FEW + i64::try_from(unreadable.len()).unwrap_or(0).min(UNREADABLE_MAX);
    for due in parts.store.schedules_due(now, few).await? {
        let next = match plan(&due) {
            Ok(plan) => Timestamp::from_microsecond(now).ok().and_then(|now| plan.next(now)),
            Err(why) => {
                // Another node's program may know it.
                if unreadable.insert(due.number) {
                    tracing::warn!(content = due.guid, why, "this schedule cannot be read");
                }
                continue;
            }
        };
        let wanted =
            Wanted { guid: due.guid.clone(), shows: due.activates, mails: due.mails, who: "schedule".to_owned() };
        let input = serde_json::to_string(&wanted).unwrap_or_default();
        let slot = format!("{REPORT}/{}", due.guid);
        let job = NewJob { kind: REPORT, subject: &due.guid, input: &input, slot: &slot };
        if parts.store.run_schedule(&due, next.map(Timestamp::as_microsecond), job).await? {
            parts.job_added.notify_one();
        }
    }
    Ok(())
}

/// What a row says.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn plan(row: &ScheduleRow) -> Result<Plan, String> {
    let start = Timestamp::from_microsecond(row.starts_at).map_err(|e| e.to_string())?;
    Ok(Plan { every: Every::read(&row.kind, &row.plan)?, start, zone: Plan::zone(&row.zone)? })
}
