//! Who is calling, and what may they do.
//!
//! A credential is an API key: as password of Basic whatever the user name (`__token__` for pip and twine), as Bearer
//! token, or as `Key`; or a user's name and password by Basic. Keys are looked up by hash; whoever was found is remembered
//! for a moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use moka::sync::Cache;
use sha2::Digest;
use tokio::sync::watch;

use super::error::Failure;
use super::parts::Origin;
use super::password::Passwords;
use super::store::{ApiKey, Scope, Store, User};
use crate::runtime::{clock, dice};
use crate::types::{Secret, Sha256};

/// What every key begins with, so that scanners for lost secrets can find it.
const PREFIX: &str = "bwl_";

/// Finds keys, and slows down who guesses.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    passwords: Passwords,
    /// By hash of the credential, for a moment.
    known: Cache<String, Caller>,
    /// By hash, for as long as the database may be away.
    remembered: Cache<String, Caller>,
    /// When keys were used, microseconds since 1970, by id, until it is written down.
    used: Cache<i64, i64>,
    /// Wrong credentials of the last minute, by address.
    wrong: Cache<Option<IpAddr>, u32>,
    /// Wrong passwords of the last minute, by user name.
    wrong_passwords: Cache<String, u32>,
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
    /// Who knows this user's password.
    User(Arc<User>),
}

/// What `Authorization` says.
#[derive(Debug, PartialEq, Eq)]
enum Credential {
    Key(String),
    Password { username: String, password: String },
}

impl Auth {
    /// For the keys of this store.
    pub fn new(store: Store) -> Self {
        // A key that was revoked works this much longer at most.
        let known = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(5)).build();
        let remembered = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(3600)).build();
        let wrong = Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(60)).build();
        let used = Cache::builder().max_capacity(10_000).build();
        let wrong_passwords = Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(60)).build();
        Self { store, passwords: Passwords::default(), known, remembered, used, wrong, wrong_passwords }
    }

    /// Who sent these fields.
    ///
    /// # Errors
    /// 401 for a key or password that does not hold, 429 for who tried too many, 503 without a database.
    pub async fn caller(&self, fields: &HeaderMap, origin: Origin) -> Result<Caller, Failure> {
        if origin.is_host {
            return Ok(Caller::Host);
        }
        let address = origin.address;
        let Some(written) = fields.get(AUTHORIZATION) else { return Ok(Caller::Anonymous) };
        let said = written.to_str().ok().and_then(credential).ok_or_else(Failure::wrong_key)?;
        let hash = said.hash();
        if let Some(caller) = self.known.get(&hash) {
            return Ok(caller);
        }
        let tried = self.wrong.get(&address).unwrap_or(0);
        if tried >= WRONG_MAX {
            return Err(Failure::too_many_wrong_keys());
        }
        let found = match &said {
            Credential::Key(_) => self.holder(&hash).await,
            Credential::Password { username, password } => self.user(username, password).await,
        };
        let away = |failure: &Failure| failure.status() == StatusCode::SERVICE_UNAVAILABLE;
        match found {
            Ok(Some(caller)) => {
                self.known.insert(hash.clone(), caller.clone());
                self.remembered.insert(hash, caller.clone());
                Ok(caller)
            }
            Ok(None) => {
                self.remembered.invalidate(&hash);
                self.wrong.insert(address, tried + 1);
                Err(said.wrong())
            }
            Err(failure) => self.remembered.get(&hash).filter(|_| away(&failure)).ok_or(failure),
        }
    }

    /// Whose key has this hash.
    async fn holder(&self, hash: &str) -> Result<Option<Caller>, Failure> {
        let Some(key) = self.store.key(hash).await? else { return Ok(None) };
        self.used.insert(key.id, i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX));
        Ok(Some(Caller::Key(Arc::new(key))))
    }

    /// The user of this name, if that is the password.
    ///
    /// # Errors
    /// 429: too many tried; 503: too many at once, or no database.
    pub async fn user(&self, username: &str, password: &str) -> Result<Option<Caller>, Failure> {
        let username = username.to_lowercase();
        let tried = self.wrong_passwords.get(&username).unwrap_or(0);
        if tried >= WRONG_PASSWORDS_MAX {
            return Err(Failure::too_many_wrong_keys());
        }
        let user = self.store.user(&username).await?.filter(|user| user.username == username);
        let hash = match &user {
            Some(user) => self.store.password(user.id).await?,
            None => None,
        };
        if self.passwords.is(password.to_owned(), hash).await? {
            return Ok(user.map(|user| Caller::User(Arc::new(user))));
        }
        self.wrong_passwords.insert(username, tried + 1);
        Ok(None)
    }

    /// A password as rows keep it.
    ///
    /// # Errors
    /// 400: it is too short or too long; 503: too many at once.
    pub async fn hash_password(&self, password: String) -> Result<String, Failure> {
        self.passwords.hash(password).await
    }

    /// Looks everybody up again: a key was revoked, or a user changed.
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

impl Credential {
    /// What it is remembered by.
    fn hash(&self) -> String {
        match self {
            Self::Key(key) => hash(key),
            Self::Password { username, password } => hash(&format!("{username}\0{password}")),
        }
    }

    fn wrong(&self) -> Failure {
        match self {
            Self::Key(_) => Failure::wrong_key(),
            Self::Password { .. } => Failure::wrong_password(),
        }
    }
}

/// Between two times of writing down which keys are used.
const USED: Duration = Duration::from_secs(10);
/// From one address within a minute: netrc and typing errors are far below.
const WRONG_MAX: u32 = 100;
/// For one user within a minute, wherever from.
const WRONG_PASSWORDS_MAX: u32 = 20;

impl Caller {
    /// Whether this is allowed in a repository.
    pub fn may(&self, scope: Scope, repository: &str) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Host => true,
            Self::Key(key) => key.scope >= scope && key.repository.as_deref().is_none_or(|only| only == repository),
            Self::User(user) => user.role.scope() >= scope,
        }
    }

    /// Whether this is allowed in all repositories, and outside of them.
    pub fn may_everywhere(&self, scope: Scope) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Host => true,
            Self::Key(key) => key.scope >= scope && key.repository.is_none(),
            Self::User(user) => user.role.scope() >= scope,
        }
    }

    /// For the audit log.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Host => "host",
            Self::Key(key) => &key.who,
            Self::User(user) => &user.username,
        }
    }

    /// The person, also behind a key of theirs.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Anonymous | Self::Host => None,
            Self::Key(key) => key.user.as_ref(),
            Self::User(user) => Some(user),
        }
    }

    /// 401 or 403 for who may not do this.
    pub fn refused(&self, what: impl std::fmt::Display) -> Failure {
        match self {
            Self::Anonymous => Failure::needs_key(),
            Self::Host | Self::Key(_) => Failure::forbidden(format_args!("The API key does not allow to {what}")),
            Self::User(user) => Failure::forbidden(format_args!("A {} is not allowed to {what}", user.role.as_str())),
        }
    }
}

/// What the value of `Authorization` says (RFC 7617, RFC 6750).
fn credential(written: &str) -> Option<Credential> {
    let (scheme, rest) = written.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (username, password) = pair.split_once(':')?;
        let is_key = username == NO_NAME || username.is_empty() || password.starts_with(PREFIX);
        return Some(match is_key {
            true => Credential::Key(password.to_owned()),
            false => Credential::Password { username: username.to_lowercase(), password: password.to_owned() },
        });
    }
    let is_plain = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("key");
    is_plain.then(|| Credential::Key(rest.to_owned()))
}

/// What pip and twine write where a name belongs that there is none of.
const NO_NAME: &str = "__token__";

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
        let key = |key: &str| Some(Credential::Key(key.to_owned()));
        for written in
            [basic("__token__:k:1"), basic(":k:1"), "Bearer k:1".into(), "bearer  k:1".into(), "Key k:1".into()]
        {
            assert_eq!(credential(&written), key("k:1"), "{written}");
        }
        assert_eq!(credential(&basic("ann:bwl_1:2")), key("bwl_1:2"), "as password of any user");
        let password = Credential::Password { username: "ann".into(), password: "k:1".into() };
        assert_eq!(credential(&basic("Ann:k:1")), Some(password));
        for wrong in ["", "Basic", "Basic %%%", "Digest k", "Bearer"] {
            assert_eq!(credential(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn scopes_include_those_below_and_a_repository_is_a_bound() {
        let key = |scope, repository: Option<&str>| {
            let (name, who) = ("k".into(), "k".into());
            Caller::Key(Arc::new(ApiKey {
                id: 1,
                name,
                user: None,
                who,
                scope,
                repository: repository.map(Into::into),
            }))
        };
        assert!(key(Scope::Admin, None).may(Scope::Publish, "a"));
        assert!(key(Scope::Publish, Some("a")).may(Scope::Read, "a"));
        assert!(!key(Scope::Publish, Some("a")).may(Scope::Publish, "b"));
        assert!(!key(Scope::Read, None).may(Scope::Publish, "a"));
        assert!(!Caller::Anonymous.may(Scope::Read, "a"));
    }
}
