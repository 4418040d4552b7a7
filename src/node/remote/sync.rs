//! Asks another CRAN-like repository what it has now in every folder that is used here, so that there is something to make
//! dated views of even of days on which nobody else asked.

use super::{Remotes, archive};
use crate::node::error::Failure;
use crate::node::jobs::{Ended, Log};
use crate::node::parts::Parts;
use crate::node::store::{DAY, Remote, RemoteNames, StoreError};
use crate::runtime::clock;

/// What is asked for even if nobody did: its sources, and what is in its Archive, without which a day has no old versions.
const ALWAYS: [&str; 2] = ["src/contrib", archive::PATH];

/// Does it. One folder that does not answer does not keep the others from being asked.
pub async fn sync(parts: &Parts, log: &Log, remote: &Remote) -> Ended {
    let told = |failure: Failure| failure.message().to_owned();
    let mut names: Vec<String> =
        known(parts, remote).await.map_err(|e| told(e.into()))?.into_iter().map(|(name, _)| name).collect();
    for name in ALWAYS {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    // What is known from before is not enough.
    let remote = Remote { synced_at: now(), ..remote.clone() };
    let (mut asked, mut failed) = (0, None);
    for name in names {
        match ask(&parts.remotes, parts, &remote, &name).await {
            Ok(count) => {
                log.say(&format!("{name}: {count} packages"));
                asked += 1;
            }
            Err(why) => {
                log.say(&format!("{name}: {why}"));
                failed.get_or_insert(why);
            }
        }
    }
    match failed {
        None => Ok(format!("{asked} folders asked")),
        Some(why) => Err(why),
    }
}

async fn ask(remotes: &Remotes, parts: &Parts, remote: &Remote, name: &str) -> Result<usize, String> {
    let told = |failure: Failure| failure.message().to_owned();
    let (is_old, count) = if name == archive::PATH {
        let listed = remotes.archive(parts, remote).await.map_err(told)?;
        (listed.is_old, listed.files.as_ref().map_or(0, Vec::len))
    } else {
        let listed = remotes.tree(parts, remote, name).await.map_err(told)?;
        (listed.is_old, listed.files.as_ref().map_or(0, Vec::len))
    };
    if is_old { Err("it does not answer".to_owned()) } else { Ok(count) }
}

/// Whether a folder was not asked for since the moment of the day at which this is due: another one for each source, so that
/// not everybody asks at midnight.
///
/// # Errors
/// See [`StoreError`].
pub async fn is_due(parts: &Parts, remote: &Remote) -> Result<bool, StoreError> {
    let due = last_due(now(), remote.id);
    for name in ALWAYS {
        // That it has no such thing is an answer too.
        let page = parts.store.remote_page(remote.id, name).await?;
        if page.is_none_or(|page| page.asked_at < due) {
            return Ok(true);
        }
    }
    Ok(known(parts, remote).await?.iter().any(|(_, asked_at)| *asked_at < due))
}

fn last_due(now: i64, source: i64) -> i64 {
    let moment = source.rem_euclid(DAY);
    now - (now - moment).rem_euclid(DAY)
}

async fn known(parts: &Parts, remote: &Remote) -> Result<RemoteNames, StoreError> {
    parts.store.remote_names(remote.id).await
}

fn now() -> i64 {
    i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_due_moment_in_each_day() {
        for source in [0, 1, DAY - 1, DAY + 7, i64::MAX] {
            let due = last_due(100 * DAY, source);
            assert!(due > 99 * DAY && due <= 100 * DAY, "{source}");
            assert_eq!(last_due(due, source), due);
            assert_eq!(last_due(due - 1, source), due - DAY);
            assert_eq!(last_due(due + DAY - 1, source), due);
        }
    }
}
