//! Who content runs as where this node is root: as nobody else does, or as an account of this machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::settings::Settings;
use crate::config::node::Content;
use crate::node::parts::Parts;
use crate::node::sandbox::Account;
use crate::node::store::ContentRow;
use crate::runtime::clock;

/// For an account to be found: lists of accounts may be on another machine, which may not answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// What was found holds so long.
const FRESH: Duration = Duration::from_secs(30);

type Found = Option<(Instant, Result<Account, String>)>;

/// Accounts of this machine that content may run as, looked up one at a time each.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<HashMap<String, Arc<Mutex<Found>>>>);

impl Accounts {
    /// Those the settings name.
    pub fn new(settings: &Content) -> Self {
        Self(Arc::new(settings.run_as.iter().map(|name| (name.clone(), Arc::default())).collect()))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// One of them.
    ///
    /// # Errors
    /// Why content does not run as that, in a sentence.
    pub async fn find(&self, name: &str) -> Result<Account, String> {
        if !rustix::process::geteuid().is_root() {
            return Err(format!("this node is not root, so nothing runs as `{name}`"));
        }
        let known = self.0.get(name).ok_or_else(|| format!("`content.run_as` of this node does not name `{name}`"))?;
        let looked = async {
            let mut known = Arc::clone(known).lock_owned().await;
            if let Some((at, found)) = known.as_ref()
                && at.elapsed() < FRESH
            {
                return found.clone();
            }
            let name = name.to_owned();
            // It goes on when nobody waits for it any more, and others wait for it instead of asking too.
            let looking = tokio::spawn(async move {
                let found = tokio::task::spawn_blocking(move || Account::named(&name)).await;
                let found = found.unwrap_or_else(|e| Err(e.to_string()));
                *known = Some((clock::now(), found.clone()));
                found
            });
            looking.await.unwrap_or_else(|e| Err(e.to_string()))
        };
        let looked = tokio::time::timeout(PATIENCE, looked).await;
        looked.unwrap_or_else(|_| Err(format!("the list of accounts does not answer for `{name}`")))
    }
}

/// Who content runs as on this node where that is root. An account it was to run as is asked for anew: administrators may just
/// have taken it away.
///
/// # Errors
/// Why it does not run, in a sentence.
pub async fn of(parts: &Parts, content: &ContentRow) -> Result<Account, String> {
    let own = || Ok(Account::numbered(parts.settings.content.uid_of(content.number)));
    if Settings::read(&content.settings).run_as.is_none() {
        return own();
    }
    let told = |e: &dyn std::fmt::Display| format!("its `run_as`: {e}");
    let now = parts.store.content(&content.guid).await.map_err(|e| told(&e))?;
    match now.and_then(|now| Settings::read(&now.settings).run_as) {
        Some(name) => parts.contents.accounts.find(&name).await.map_err(|why| told(&why)),
        None => own(),
    }
}
