//! Who may see content, and who may change it.

use crate::node::auth::Caller;
use crate::node::store::{ContentRow, Scope};
use crate::types::Sha256;
use sha2::Digest;

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

/// Whether a caller may change content: its owner while they may publish, and administrators.
pub fn may_change(caller: &Caller, content: &ContentRow) -> bool {
    caller.may_everywhere(Scope::Admin) || (caller.may_everywhere(Scope::Publish) && owner(caller) == content.owner)
}

/// Whether a caller may see content.
pub fn may_see(caller: &Caller, content: &ContentRow) -> bool {
    match content.access.as_str() {
        "all" => true,
        // A key of one repository is for that one.
        "logged_in" => caller.may_everywhere(Scope::Read),
        _ => {
            caller.may_everywhere(Scope::Admin) || caller.may_everywhere(Scope::Read) && owner(caller) == content.owner
        }
    }
}
