//! Who is calling, and what may they do.
//!
//! A credential is an API key: as password of Basic whatever the user name (`__token__` for pip and twine), as Bearer
//! token, or as `Key`; or a user's name and password by Basic; or a signature, see [`super::signature`]. Keys are looked up by hash; whoever was found is remembered
//! for a moment.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use moka::sync::Cache;
use ring::hmac;
use sha2::Digest;
use tokio::sync::{Mutex, watch};

use super::content::access::Groups;
use super::error::Failure;
use super::parts::Origin;
use super::password::Passwords;
use super::store::{ApiKey, Scope, Store, StoreError, TokenRow, User};
use crate::runtime::{clock, dice};
use crate::types::{Secret, Sha256};

/// What every key begins with, so that scanners for lost secrets can find it.
pub const PREFIX: &str = "bwl_";

/// Finds keys and users, and slows down who guesses.
#[derive(Clone)]
pub struct Auth {
    store: Store,
    passwords: Passwords,
    /// By what names the credential, for a moment.
    known: Cache<String, Caller>,
    /// The same, for as long as the database may be away.
    remembered: Cache<String, Caller>,
    /// Passwords that were right, as the row had them: while it does no work is needed to see that again.
    proved: Cache<String, String>,
    /// When keys were used, microseconds since 1970, by id, until it is written down.
    used: Cache<i64, i64>,
    /// Tokens that users claimed, for a moment.
    tokens: Cache<String, Arc<Held>>,
    /// Groups users are in, by the user's row, for a moment.
    groups: Cache<i64, Groups>,
    /// The same, for as long as the database may be away.
    remembered_groups: Cache<i64, Groups>,
    /// Wrong credentials of the last minute, by address.
    wrong: Cache<Place, u32>,
    /// Passwords that were tried and not right, in the last minute, by user name and address.
    tried: Cache<(String, Place), u32>,
    /// The same by user name, wherever from.
    tried_anywhere: Cache<String, u32>,
    /// From where a user was let in within the last hour.
    familiar: Cache<(String, Place), ()>,
    /// Who sends one password many times at once waits for one answer.
    turns: Arc<[Mutex<()>; TURNS]>,
    hasher: RandomState,
    /// What passwords are named by in memory.
    naming: Arc<hmac::Key>,
}

/// Where a client is: its address, or the network it has many of.
pub type Place = Option<IpAddr>;

const TURNS: usize = 64;

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
    /// Who has the private key of a token that a user claimed.
    Client(Arc<Client>),
}

/// A client of a user's, without their password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whose.
    pub user: User,
    /// For the audit log.
    pub who: String,
}

/// A token, and whose it is.
struct Held {
    /// RSAPublicKey as DER.
    key: Vec<u8>,
    /// `None`: nobody has claimed it.
    caller: Option<Caller>,
}

/// Why it is not known who calls.
enum Unknown {
    /// The database does not say.
    Store(StoreError),
    /// They are not let in.
    Refused(Failure),
}

impl From<StoreError> for Unknown {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What `Authorization` says.
#[derive(Debug, PartialEq, Eq)]
enum Credential {
    Key(String),
    Password { username: String, password: String },
}

impl Auth {
    /// For the keys and users of this store.
    pub fn new(store: Store) -> Self {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        Self {
            store,
            passwords: Passwords::default(),
            // A key that was revoked works this much longer at most.
            known: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(5)).build(),
            remembered: Cache::builder().max_capacity(10_000).time_to_live(hour).build(),
            proved: Cache::builder().max_capacity(10_000).time_to_live(hour).build(),
            used: Cache::builder().max_capacity(10_000).build(),
            // As keys.
            tokens: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_secs(5)).build(),
            // As content: see there.
            groups: Cache::builder().max_capacity(10_000).time_to_live(Duration::from_millis(500)).build(),
            remembered_groups: Cache::builder().max_capacity(10_000).time_to_live(hour).build(),
            wrong: Cache::builder().max_capacity(100_000).time_to_live(minute).build(),
            tried: Cache::builder().max_capacity(100_000).time_to_live(minute).build(),
            tried_anywhere: Cache::builder().max_capacity(100_000).time_to_live(minute).build(),
            familiar: Cache::builder().max_capacity(100_000).time_to_live(hour).build(),
            turns: Arc::new([const { Mutex::const_new(()) }; TURNS]),
            hasher: RandomState::new(),
            naming: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &dice::secret::<32>())),
        }
    }

    /// Who sent these fields.
    ///
    /// # Errors
    /// 401 for a key or password that does not hold, 429 for who tried too many, 503 without a database.
    pub async fn caller(&self, fields: &HeaderMap, origin: Origin) -> Result<Caller, Failure> {
        if origin.is_host {
            return Ok(Caller::Host);
        }
        let Some(written) = fields.get(AUTHORIZATION) else { return Ok(Caller::Anonymous) };
        match credential(written.as_bytes()).ok_or_else(Failure::wrong_key)? {
            Credential::Key(key) => self.holder(&hash(&key), place(origin.address)).await,
            Credential::Password { username, password } => self.user(&username, &password, origin.address).await,
        }
    }

    /// Who holds the key with this hash.
    async fn holder(&self, hash: &str, place: Place) -> Result<Caller, Failure> {
        if let Some(caller) = self.known.get(hash) {
            return Ok(caller);
        }
        if self.wrong.get(&place).unwrap_or(0) >= WRONG_MAX {
            return Err(Failure::too_many_wrong_keys());
        }
        match self.store.key(hash).await {
            Ok(Some(key)) => {
                self.used.insert(key.id, i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX));
                let caller = Caller::Key(Arc::new(key));
                self.remember(hash, &caller);
                Ok(caller)
            }
            Ok(None) => {
                self.remembered.invalidate(hash);
                count(&self.wrong, place);
                Err(Failure::wrong_key())
            }
            Err(error) => self.last(hash, error),
        }
    }

    /// The user of this name, if that is the password. `address`: of who says so.
    ///
    /// # Errors
    /// 401: it is not; 429: too many were tried; 503: too many at once, or no database.
    pub async fn user(&self, username: &str, password: &str, address: Option<IpAddr>) -> Result<Caller, Failure> {
        let (username, place) = (username.to_lowercase(), place(address));
        // Right passwords are remembered for where they came from, so that nobody else tries theirs against what is remembered.
        let name = hmac::sign(&self.naming, format!("{username}\0{password}\0{place:?}").as_bytes());
        let name = URL_SAFE_NO_PAD.encode(name);
        let here = (username.clone(), place);
        if self.tried.get(&here).unwrap_or(0) >= TRIED_MAX || self.wrong.get(&place).unwrap_or(0) >= WRONG_MAX {
            return Err(Failure::too_many_wrong_keys());
        }
        if let Some(caller) = self.known.get(&name) {
            return Ok(caller);
        }
        let _turn = self.turns[self.hasher.hash_one(&name) as usize % TURNS].lock().await;
        if let Some(caller) = self.known.get(&name) {
            return Ok(caller);
        }
        if !User::is_name(&username) {
            count(&self.wrong, place);
            return Err(Failure::wrong_password());
        }
        match self.prove(&name, &here, password).await {
            Ok(Some(caller)) => {
                self.remember(&name, &caller);
                self.familiar.insert(here, ());
                Ok(caller)
            }
            Ok(None) => {
                self.remembered.invalidate(&name);
                self.proved.invalidate(&name);
                count(&self.wrong, place);
                Err(Failure::wrong_password())
            }
            Err(Unknown::Store(error)) => self.last(&name, error),
            Err(Unknown::Refused(failure)) => Err(failure),
        }
    }

    /// Looks whether it is the password; one that is not has been counted before anybody knows.
    async fn prove(&self, name: &str, here: &(String, Place), password: &str) -> Result<Option<Caller>, Unknown> {
        let user = self.store.user(&here.0).await?.filter(|user| user.username == here.0);
        let row = match &user {
            Some(user) => self.store.password(user.id).await?,
            None => None,
        };
        let caller = user.map(|user| Caller::User(Arc::new(user)));
        if row.is_some() && self.proved.get(name) == row {
            return Ok(caller);
        }
        let anywhere = count(&self.tried_anywhere, here.0.clone());
        if count(&self.tried, here.clone()) > TRIED_MAX
            || anywhere > TRIED_ANYWHERE_MAX && !self.familiar.contains_key(here)
        {
            return Err(Unknown::Refused(Failure::too_many_wrong_keys()));
        }
        if !self.passwords.is(password.to_owned(), row.clone()).await.map_err(Unknown::Refused)? {
            return Ok(None);
        }
        uncount(&self.tried_anywhere, here.0.clone());
        uncount(&self.tried, here.clone());
        if let Some(row) = row {
            self.proved.insert(name.to_owned(), row);
        }
        Ok(caller)
    }

    /// Groups a caller is in, as they were half a second ago at most.
    ///
    /// # Errors
    /// 503.
    pub async fn groups(&self, caller: &Caller) -> Result<Groups, Failure> {
        let Some(user) = caller.user() else { return Ok(Groups::default()) };
        if let Some(found) = self.groups.get(&user.id) {
            return Ok(found);
        }
        match self.store.groups_of(user.id).await {
            Ok(found) => {
                let found = Groups::new(found);
                self.groups.insert(user.id, Arc::clone(&found));
                self.remembered_groups.insert(user.id, Arc::clone(&found));
                Ok(found)
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::NoPrimary)) => {
                self.remembered_groups.get(&user.id).ok_or_else(|| error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks up again who is in which group.
    pub fn forget_groups(&self) {
        self.groups.invalidate_all();
        self.remembered_groups.invalidate_all();
    }

    fn remember(&self, name: &str, caller: &Caller) {
        self.known.insert(name.to_owned(), caller.clone());
        self.remembered.insert(name.to_owned(), caller.clone());
    }

    /// Who it was when the database last said so; only while it says nothing.
    fn last(&self, name: &str, error: StoreError) -> Result<Caller, Failure> {
        match error {
            StoreError::Unavailable(_) | StoreError::NoPrimary => self.remembered.get(name).ok_or_else(|| error.into()),
            error => Err(error.into()),
        }
    }

    /// Who has the private key of this token; `None`: it does, but nobody has claimed it yet. `holds`: whether the request's
    /// signature is one by this public key (RSAPublicKey as DER).
    ///
    /// # Errors
    /// 401: there is no such token, or another key signed; 429: too many were wrong; 503.
    pub async fn signer(
        &self,
        token: &str,
        origin: Origin,
        holds: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Caller>, Failure> {
        let place = place(origin.address);
        let known = self.tokens.get(token);
        let is_known = known.is_some();
        let held = match known {
            Some(held) => Some(held),
            None if self.wrong.get(&place).unwrap_or(0) >= WRONG_MAX => return Err(Failure::too_many_wrong_keys()),
            None => match self.store.token(token).await? {
                Some(row) => self.held(row).await?.map(Arc::new),
                None => None,
            },
        };
        let Some(held) = held.filter(|held| holds(&held.key)) else {
            count(&self.wrong, place);
            return Err(Failure::wrong_signature("This token does not hold (any more), or its key did not sign this"));
        };
        if held.caller.is_some() && !is_known {
            self.tokens.insert(token.to_owned(), Arc::clone(&held));
        }
        Ok(held.caller.clone())
    }

    /// `None`: whose it is is locked out.
    async fn held(&self, row: TokenRow) -> Result<Option<Held>, Failure> {
        let Ok(key) = STANDARD.decode(&row.public_key) else { return Ok(None) };
        let Some(account) = row.account_id else { return Ok(Some(Held { key, caller: None })) };
        let user = self.store.user_of(account).await?.filter(|user| user.locked_at.is_none());
        Ok(user.map(|user| {
            let who = format!("{} (token)", user.username);
            Held { key, caller: Some(Caller::Client(Arc::new(Client { user, who }))) }
        }))
    }

    /// A password as rows keep it.
    ///
    /// # Errors
    /// 400: it is none anybody could log in with; 503: too many at once.
    pub async fn hash_password(&self, password: String) -> Result<String, Failure> {
        if password.starts_with(PREFIX) {
            return Err(Failure::bad(format!("A password does not begin with `{PREFIX}`: API keys do")));
        }
        self.passwords.hash(password).await
    }
}

/// One more; how many these are.
fn count<K: std::hash::Hash + Eq + Send + Sync + 'static>(counts: &Cache<K, u32>, key: K) -> u32 {
    counts.entry(key).and_upsert_with(|old| old.map_or(1, |old| old.into_value().saturating_add(1))).into_value()
}

/// One less.
fn uncount<K: std::hash::Hash + Eq + Send + Sync + 'static>(counts: &Cache<K, u32>, key: K) {
    counts.entry(key).and_upsert_with(|old| old.map_or(0, |old| old.into_value().saturating_sub(1)));
}

/// Of an IPv6 address its network: whoever has one has 2^64.
pub fn place(address: Option<IpAddr>) -> Place {
    address.map(|address| match address {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    })
}

impl Auth {
    /// Looks everybody up again: a key was revoked, or a user changed.
    pub fn forget(&self) {
        self.known.invalidate_all();
        self.remembered.invalidate_all();
        self.proved.invalidate_all();
        self.tokens.invalidate_all();
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
/// For one user from one address within a minute.
const TRIED_MAX: u32 = 20;
/// For one user within a minute, wherever from; where they were let in before they are let in all the same.
const TRIED_ANYWHERE_MAX: u32 = 200;

impl Caller {
    /// Whether this is allowed in a repository.
    pub fn may(&self, scope: Scope, repository: &str) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Host => true,
            Self::Key(key) => key.scope >= scope && key.repository.as_deref().is_none_or(|only| only == repository),
            Self::User(user) => user.role.scope() >= scope,
            Self::Client(client) => client.user.role.scope() >= scope,
        }
    }

    /// Whether this is allowed in all repositories, and outside of them.
    pub fn may_everywhere(&self, scope: Scope) -> bool {
        match self {
            Self::Anonymous => false,
            Self::Host => true,
            Self::Key(key) => key.scope >= scope && key.repository.is_none(),
            Self::User(user) => user.role.scope() >= scope,
            Self::Client(client) => client.user.role.scope() >= scope,
        }
    }

    /// For the audit log.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Host => "host",
            Self::Key(key) => &key.who,
            Self::User(user) => &user.username,
            Self::Client(client) => &client.who,
        }
    }

    /// A person with all they are allowed: who may make and end their keys.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Anonymous | Self::Host | Self::Client(_) => false,
            Self::Key(key) => {
                key.repository.is_none() && key.user.as_ref().is_some_and(|user| user.role.scope() == key.scope)
            }
            Self::User(_) => true,
        }
    }

    /// The person, also behind a key of theirs.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Anonymous | Self::Host => None,
            Self::Key(key) => key.user.as_ref(),
            Self::User(user) => Some(user),
            Self::Client(client) => Some(&client.user),
        }
    }

    /// 401 or 403 for who may not do this.
    pub fn refused(&self, what: impl std::fmt::Display) -> Failure {
        match self {
            Self::Anonymous => Failure::needs_key(),
            Self::Host | Self::Key(_) => Failure::forbidden(format_args!("The API key does not allow to {what}")),
            Self::User(user) => Failure::forbidden(format_args!("A {} is not allowed to {what}", user.role.as_str())),
            Self::Client(client) => {
                Failure::forbidden(format_args!("A {} is not allowed to {what}", client.user.role.as_str()))
            }
        }
    }
}

/// What the value of `Authorization` says (RFC 7617, RFC 6750).
fn credential(written: &[u8]) -> Option<Credential> {
    let text = std::str::from_utf8(written).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(rest).ok()?;
        // pip, twine and others that use requests write Latin-1.
        let pair = String::from_utf8(pair).unwrap_or_else(|e| e.as_bytes().iter().map(|b| char::from(*b)).collect());
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
            assert_eq!(credential(written.as_bytes()), key("k:1"), "{written}");
        }
        assert_eq!(credential(basic("ann:bwl_1:2").as_bytes()), key("bwl_1:2"), "as password of any user");
        let password = Credential::Password { username: "ann".into(), password: "k:1".into() };
        assert_eq!(credential(basic("Ann:k:1").as_bytes()), Some(password));
        let latin = format!("Basic {}", STANDARD.encode(b"ann:G\xe4nse"));
        let password = Credential::Password { username: "ann".into(), password: "Gänse".into() };
        assert_eq!(credential(latin.as_bytes()).as_ref(), Some(&password), "as requests writes it");
        assert_eq!(credential(basic("ann:Gänse").as_bytes()), Some(password), "as uv and curl do");
        for wrong in ["", "Basic", "Basic %%%", "Digest k", "Bearer"] {
            assert_eq!(credential(wrong.as_bytes()), None, "{wrong}");
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
                expires_at: None,
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
