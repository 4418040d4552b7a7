//! Who is calling, and what may they do.
//!
//! A credential is an API key: as password of Basic whatever the user name (`__token__` for pip and twine), as Bearer
//! token, or as `Key`. Keys are looked up by hash, a found one is remembered for a moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use moka::sync::Cache;
use sha2::Digest;
use tokio::sync::watch;

use super::error::Failure;
use super::parts::Origin;
use super::store::{ApiKey, Scope, Store, StoreError};
use crate::runtime::{clock, dice};
use crate::types::{Secret, Sha256};

/// What every key begins with, so that scanners for lost secrets can find it.
const PREFIX: &str = "bwl_";

/// Finds keys, and slows down who guesses.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    /// By hash, for a moment.
    known: Cache<String, Arc<ApiKey>>,
    /// By hash, for as long as the database may be away.
    remembered: Cache<String, Arc<ApiKey>>,
    /// When keys were used, microseconds since 1970, by id, until it is written down.
    used: Cache<i64, i64>,
    /// Wrong keys of the last minute, by address.
    wrong: Cache<Option<IpAddr>, u32>,
}

/// Who is calling.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody said so.
    Anonymous,
    /// Who works on the machine itself.
    Host,
    /// Who holds this key.
    Key(Arc<ApiKey>),
}

impl Auth {
    /// For the keys of this store.
    pub fn new(store: Store) -> Self {
        // A key that was revoked works this much longer at most.
        let known = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(5)).build();
        let remembered = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(3600)).build();
        let wrong = Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(60)).build();
        let used = Cache::builder().max_capacity(10_000).build();
        Self { store, known, remembered, used, wrong }
    }

    /// Who sent these fields.
    ///
    /// # Errors
    /// 401 for a key that does not hold, 429 for who tried too many, 503 without a database.
    pub async fn caller(&self, fields: &HeaderMap, origin: Origin) -> Result<Caller, Failure> {
        if origin.is_host {
            return Ok(Caller::Host);
        }
        let address = origin.address;
        let Some(written) = fields.get(AUTHORIZATION) else { return Ok(Caller::Anonymous) };
        let Some(key) = written.to_str().ok().and_then(credential) else { return Err(Failure::wrong_key()) };
        let hash = hash(&key);
        if let Some(key) = self.known.get(&hash) {
            return Ok(Caller::Key(key));
        }
        let tried = self.wrong.get(&address).unwrap_or(0);
        if tried >= WRONG_MAX {
            return Err(Failure::too_many_wrong_keys());
        }
        let found = match self.store.key(&hash).await {
            Err(StoreError::Unavailable(_) | StoreError::NoPrimary) if self.remembered.contains_key(&hash) => {
                return self.remembered.get(&hash).map(Caller::Key).ok_or_else(Failure::wrong_key);
            }
            found => found?,
        };
        match found {
            Some(key) => {
                let key = Arc::new(key);
                self.known.insert(hash.clone(), Arc::clone(&key));
                self.remembered.insert(hash, Arc::clone(&key));
                self.used.insert(key.id, i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX));
                Ok(Caller::Key(key))
            }
            None => {
                self.remembered.invalidate(&hash);
                self.wrong.insert(address, tried + 1);
                Err(Failure::wrong_key())
            }
        }
    }
}

impl Auth {
    /// Looks every key up again: one was revoked.
    pub fn forget(&self) {
        self.known.invalidate_all();
        self.remembered.invalidate_all();
    }

    /// Writes down now and then which keys are used, until told to stop.
    pub async fn follow(&self, mut stop: watch::Receiver<bool>) {
        loop {
            let is_over = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => true,
                () = tokio::time::sleep(USED) => false,
            };
            let used: Vec<(i64, i64)> = self.used.iter().map(|(id, at)| (*id, at)).collect();
            if !used.is_empty() {
                match self.store.keys_used(&used).await {
                    // What was used meanwhile is used again, or was by now.
                    Ok(()) => used.iter().for_each(|(id, _)| self.used.invalidate(id)),
                    Err(error) => tracing::debug!(%error, "when keys were used cannot be written"),
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// Between two times of writing down which keys are used.
const USED: Duration = Duration::from_secs(10);
/// From one address within a minute: netrc and typing errors are far below.
const WRONG_MAX: u32 = 100;

impl Caller {
    /// Whether this is allowed in a repository.
    pub fn may(&self, scope: Scope, repository: &str) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Host => true,
            Self::Key(key) => key.scope >= scope && key.repository.as_deref().is_none_or(|only| only == repository),
        }
    }

    /// Whether this is allowed in all repositories, and outside of them.
    pub fn may_everywhere(&self, scope: Scope) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Host => true,
            Self::Key(key) => key.scope >= scope && key.repository.is_none(),
        }
    }

    /// For the audit log.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Host => "host",
            Self::Key(key) => &key.name,
        }
    }
}

/// The key in the value of `Authorization` (RFC 7617, RFC 6750).
fn credential(written: &str) -> Option<String> {
    let (scheme, rest) = written.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    let is_plain = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("key");
    is_plain.then(|| rest.to_owned())
}

/// As rows have it.
pub fn hash(key: &str) -> String {
    Sha256::new(sha2::Sha256::digest(key).into()).to_string()
}

/// A new key: 256 random bits, shown once.
pub fn new_key() -> Secret<String> {
    Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(dice::secret::<32>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_however_clients_send_it() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for written in
            [basic("__token__:k:1"), basic("ann:k:1"), "Bearer k:1".into(), "bearer  k:1".into(), "Key k:1".into()]
        {
            assert_eq!(credential(&written).as_deref(), Some("k:1"), "{written}");
        }
        for wrong in ["", "Basic", "Basic %%%", "Digest k", "Bearer"] {
            assert_eq!(credential(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn scopes_include_those_below_and_a_repository_is_a_bound() {
        let key = |scope, repository: Option<&str>| {
            Caller::Key(Arc::new(ApiKey { id: 1, name: "k".into(), scope, repository: repository.map(Into::into) }))
        };
        assert!(key(Scope::Admin, None).may(Scope::Publish, "a"));
        assert!(key(Scope::Publish, Some("a")).may(Scope::Read, "a"));
        assert!(!key(Scope::Publish, Some("a")).may(Scope::Publish, "b"));
        assert!(!key(Scope::Read, None).may(Scope::Publish, "a"));
        assert!(!Caller::Anonymous.may(Scope::Read, "a"));
    }
}
