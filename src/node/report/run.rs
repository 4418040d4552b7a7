//! The jobs of rendering: what somebody waits for, and what is scheduled. What a node that died left undone another one does
//! again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::mail::{self, Letter};
use super::render::render;
use crate::node::jobs::{Ended, Log, plain};
use crate::node::parts::Parts;
use crate::node::store::{ContentRow, StoreError};
use crate::telemetry::Causes;

/// What somebody waits for, as rows have it.
pub const RENDER: &str = "render";
/// What is scheduled, as rows have it.
pub const REPORT: &str = "report";
/// Lines of what was said that are mailed.
const LINES: usize = 30;

/// What is to be rendered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// The content.
    pub guid: String,
    /// What comes of it is shown.
    pub shows: bool,
    /// Its owner gets a mail when it is done.
    pub mails: bool,
    /// Who wants it.
    pub who: String,
}

/// Does the job: a [`Wanted`].
pub async fn run(parts: &Parts, log: &Log, input: &str) -> Ended {
    let wanted: Wanted = serde_json::from_str(input).map_err(|e| e.to_string())?;
    let read = |e: StoreError| format!("the database does not answer: {}", Causes(&e));
    let content = parts.store.content(&wanted.guid).await.map_err(read)?.ok_or("the content was removed")?;
    let last = Mutex::new(VecDeque::new());
    let say = |line: &str| {
        log.say(line);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(plain(line));
    };
    let done = rendered(parts, &content, &wanted, &say).await;
    parts.contents.forget(&content.guid);
    let is_scheduled = wanted.who == "schedule";
    let said = last.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect::<Vec<_>>().join("\n");
    let letter = match &done {
        Err(why) if is_scheduled => Some(Letter::failed(parts, &content, why, &said)),
        Ok(number) if wanted.mails => Some(Letter::done(parts, &content, *number)),
        _ => None,
    };
    if let Some(letter) = letter {
        match mail::send(parts, &content, letter).await {
            Ok(Some(to)) => log.say(&format!("Mailed to {to}")),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(content = content.guid, why, "a mail cannot be sent");
                log.say(&format!("No mail was sent: {why}"));
            }
        }
    }
    done.map(|number| format!("rendering {number}"))
}

/// Mails whose scheduled report failed, where the job could not do so itself.
pub async fn tell_failure(parts: &Parts, input: &str, why: &str) {
    let Ok(wanted) = serde_json::from_str::<Wanted>(input) else { return };
    let Ok(Some(content)) = parts.store.content(&wanted.guid).await else { return };
    if let Err(error) = mail::send(parts, &content, Letter::failed(parts, &content, why, "")).await {
        tracing::warn!(content = content.guid, why = error, "a mail cannot be sent");
    }
}

async fn rendered(
    parts: &Parts,
    content: &ContentRow,
    wanted: &Wanted,
    say: &(dyn Fn(&str) + Sync),
) -> Result<i64, String> {
    let read = |e: StoreError| format!("the database does not answer: {}", Causes(&e));
    let number = content.bundle.ok_or("nothing was published to this content yet")?;
    let bundle = parts.store.bundle(number).await.map_err(read)?.ok_or("the bundle was removed")?;
    let rendered = render(parts, content, &bundle, say).await?;
    rendered.keep(parts, content, &bundle, wanted.shows, &wanted.who).await
}
