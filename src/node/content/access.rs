//! Who may see content, and who may change it. Pure.

use std::sync::Arc;

use crate::node::auth::Caller;
use crate::node::store::{ContentRow, Scope};
use crate::types::Sha256;
use sha2::Digest;

/// Groups somebody is in: guid and name of each.
pub type Groups = Arc<Vec<(String, String)>>;

/// Who wants to see or change something.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    /// Who they are.
    pub caller: &'a Caller,
    /// What they are in.
    pub groups: &'a [(String, String)],
}

/// Whose content is what a caller publishes: the guid of the user, or one made of the program's key.
pub fn owner(caller: &Caller) -> String {
    match caller {
        Caller::User(user) => user.guid.clone(),
        Caller::Client(client) => client.user.guid.clone(),
        Caller::Key(key) => key.user.as_ref().map_or_else(|| program(key.id), |user| user.guid.clone()),
        Caller::Host | Caller::Anonymous => program(0),
    }
}

/// A guid for who is no user, the same on every node (RFC 9562 §5.8).
fn program(key: i64) -> String {
    let digest = sha2::Sha256::new_with_prefix(b"bowline program").chain_update(key.to_le_bytes()).finalize();
    let n = Sha256::new(digest.into()).to_string();
    format!("{}-{}-8{}-8{}-{}", &n[..8], &n[8..12], &n[13..16], &n[17..20], &n[20..32])
}

/// Whether somebody may change content: its owner and those who were made owners too, while they may publish, and
/// administrators.
pub fn may_change(viewer: Viewer<'_>, content: &ContentRow) -> bool {
    let caller = viewer.caller;
    caller.may_everywhere(Scope::Admin)
        || caller.may_everywhere(Scope::Publish) && (is_owner(caller, content) || is_granted(viewer, content, true))
}

/// Whether somebody may see content.
pub fn may_see(viewer: Viewer<'_>, content: &ContentRow) -> bool {
    let caller = viewer.caller;
    match content.access.as_str() {
        "all" => true,
        // A key of one repository is for that one.
        "logged_in" => caller.may_everywhere(Scope::Read),
        _ => {
            caller.may_everywhere(Scope::Admin)
                || caller.may_everywhere(Scope::Read)
                    && (is_owner(caller, content) || is_granted(viewer, content, false))
        }
    }
}

/// Whether it has to be known which groups somebody is in.
pub fn asks_for_groups(content: &ContentRow) -> bool {
    content.grants.0.iter().any(|grant| grant.is_group)
}

fn is_owner(caller: &Caller, content: &ContentRow) -> bool {
    match caller.user() {
        Some(user) => user.guid == content.owner,
        None => owner(caller) == content.owner,
    }
}

fn is_granted(viewer: Viewer<'_>, content: &ContentRow, to_change: bool) -> bool {
    let Some(user) = viewer.caller.user() else { return false };
    content.grants.0.iter().filter(|grant| grant.may_change || !to_change).any(|grant| match grant.is_group {
        true => viewer.groups.iter().any(|(group, _)| *group == grant.principal),
        false => grant.principal == user.guid,
    })
}
