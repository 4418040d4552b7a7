//! Somebody who has a websocket open, and whether they still may: it outlives what was known when it was opened.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::access::{self, Groups, Viewer};
use crate::node::auth::Caller;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::session::Session;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(15);

/// By what somebody was let in.
#[derive(Debug)]
pub enum Proof {
    /// By nothing: everybody is.
    Nothing,
    /// By the session they are in, however long ago they opened a page.
    Session(Session),
    /// By what their request says.
    Credential(Box<HeaderMap>, Origin),
}

/// Somebody who was let in to content.
pub struct Visitor {
    /// All there is.
    pub parts: Parts,
    /// Of the content.
    pub guid: String,
    /// What they see is for those who may change it.
    pub is_draft: bool,
    /// See [`Proof`].
    pub proof: Proof,
}

impl Visitor {
    /// Returns when they may not see it any more. What cannot be looked up changes nothing.
    pub async fn turned_away(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Ok(false) = self.may_stay().await {
                return;
            }
        }
    }

    async fn may_stay(&mut self) -> Result<bool, Failure> {
        let parts = &self.parts;
        let Some(content) = parts.contents.find(&parts.store, &self.guid).await? else { return Ok(false) };
        if content.is_locked {
            return Ok(false);
        }
        let caller = match &self.proof {
            Proof::Nothing => Caller::Anonymous,
            Proof::Session(session) => {
                let found = parts.sessions.still(session).await?;
                found.map_or(Caller::Anonymous, |session| session.caller())
            }
            Proof::Credential(fields, origin) => match parts.auth.caller(fields, *origin).await {
                Ok(caller) => caller,
                // Not tried again: that would be guessing.
                Err(failure) if matches!(failure.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    self.proof = Proof::Nothing;
                    Caller::Anonymous
                }
                Err(failure) => return Err(failure),
            },
        };
        let groups = match access::asks_for_groups(&content) {
            true => parts.auth.groups(&caller).await?,
            false => Groups::default(),
        };
        let viewer = Viewer { caller: &caller, groups: &groups };
        let may = if self.is_draft { access::may_change } else { access::may_see };
        Ok(may(viewer, &content))
    }
}
