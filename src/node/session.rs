//! Sessions in browsers. A cookie says whose it is, sealed with the cluster's key, so that any node believes it; the database
//! is asked once in a while whether it still holds.
//!
//! A session opens pages and content. It never opens the API: scripts of content may be at the same origin, and a browser sends
//! the cookie with whatever they ask for.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};
use moka::sync::Cache;
use ring::hmac;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::auth::Caller;
use super::error::Failure;
use super::secret::{ClusterKey, Sealer};
use super::store::{Deed, Store, StoreError, User};
use crate::config::node::Auth;
use crate::runtime::{clock, dice};
use crate::types::Sha256;

/// A cookie is written anew when the last time was so long ago, or an eighth of what a session may be idle.
const RENEWED: Duration = Duration::from_secs(600);
/// Longer ones are none of ours.
const COOKIE_MAX: usize = 2048;
/// Who is locked out or has another password is seen to be after this.
const FRESH: Duration = Duration::from_secs(4);
/// Who was known is believed for so long while the database is away.
const STALE: Duration = Duration::from_secs(3600);

/// Where a browser keeps a session: a cookie, also at the origin of content, where what it holds opens no pages.
///
/// Over TLS its name says so (RFC 6265bis §4.1.3): no other host of the domain, and nobody on the line, can put one there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jar {
    is_secure: bool,
    /// Below which it is sent, with a slash at the end.
    path: String,
}

impl Jar {
    /// `base`: how browsers call the server. `prefix`: what a proxy takes away of paths.
    pub fn new(base: &str, prefix: &str) -> Self {
        Self { is_secure: base.starts_with("https://"), path: format!("{prefix}/") }
    }

    /// The cookie's name.
    pub fn name(&self) -> &'static str {
        match (self.is_secure, self.path == "/") {
            (true, true) => "__Host-bowline_session",
            (true, false) => "__Secure-bowline_session",
            (false, _) => "bowline_session",
        }
    }

    /// `Set-Cookie` of a session; `None`: it goes.
    pub fn set(&self, value: Option<&str>) -> HeaderValue {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let (value, age) = value.map_or(("", "; Max-Age=0"), |value| (value, ""));
        let text = format!("{}={value}; Path={}{age}; HttpOnly; SameSite=Lax{secure}", self.name(), self.path);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bowline_session=; Max-Age=0"))
    }
}

/// How somebody showed who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Began {
    /// By name and password.
    #[serde(rename = "password")]
    Password,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realm {
    /// The pages, and content where it is at the same origin.
    Pages,
    /// Content at an origin of its own.
    Content,
}

/// What a cookie says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// Guid.
    user: String,
    /// Random.
    id: String,
    /// Microseconds since 1970.
    began: i64,
    /// See `began`.
    renewed: i64,
    how: Began,
}

/// A session that holds.
#[derive(Clone, Debug)]
pub struct Session {
    told: Told,
    /// Whose.
    pub user: Arc<User>,
}

impl Session {
    /// With all they are allowed.
    pub fn caller(&self) -> Caller {
        Caller::User(Arc::clone(&self.user))
    }

    fn hash(&self) -> String {
        hash(&self.told.id)
    }
}

/// Begins, reads and ends sessions.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    pages: Sealer,
    content: Sealer,
    tickets: Sealer,
    tokens: Arc<hmac::Key>,
    known: Cache<String, Option<Arc<User>>>,
    remembered: Cache<String, Option<Arc<User>>>,
    settings: Auth,
}

impl Sessions {
    /// For the users of this store.
    pub fn new(store: Store, key: &ClusterKey, settings: Auth) -> Self {
        let cache = |time| Cache::builder().max_capacity(100_000).time_to_live(time).build();
        Self {
            store,
            pages: Sealer::new(key, "bowline sessions 1"),
            content: Sealer::new(key, "bowline content sessions 1"),
            tickets: Sealer::new(key, "bowline tickets 1"),
            tokens: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key.derived("bowline forms 1"))),
            known: cache(FRESH),
            remembered: cache(STALE),
            settings,
        }
    }

    /// A new session of a user's, as its cookie's value.
    pub fn begin(&self, user: &User, how: Began) -> String {
        let at = now();
        let id = URL_SAFE_NO_PAD.encode(dice::secret::<16>());
        self.write(Realm::Pages, &Told { user: user.guid.clone(), id, began: at, renewed: at, how })
    }

    /// The session that these fields name, if it holds.
    ///
    /// # Errors
    /// 503.
    pub async fn find(&self, fields: &HeaderMap, realm: Realm, jar: &Jar) -> Result<Option<Session>, Failure> {
        let Some(told) = cookie(fields, jar.name()).and_then(|value| self.read(realm, value)) else { return Ok(None) };
        let user = self.user(&told).await?;
        Ok(user.map(|user| Session { told, user }))
    }

    /// Whether a session that somebody is in still holds, however long they opened no page: as it is now.
    ///
    /// # Errors
    /// 503.
    pub async fn still(&self, session: &Session) -> Result<Option<Session>, Failure> {
        let is_young = now() - session.told.began < micros(self.settings.session_lifetime);
        let user = if is_young { self.user(&session.told).await? } else { None };
        Ok(user.map(|user| Session { told: session.told.clone(), user }))
    }

    async fn user(&self, told: &Told) -> Result<Option<Arc<User>>, Failure> {
        let hash = hash(&told.id);
        Ok(match self.known.get(&hash) {
            Some(user) => user,
            None => match self.store.session(&hash, &told.user, told.began).await {
                Ok(user) => {
                    let user = user.map(Arc::new);
                    self.known.insert(hash.clone(), user.clone());
                    self.remembered.insert(hash, user.clone());
                    user
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::NoPrimary)) => {
                    self.remembered.get(&hash).ok_or(error)?
                }
                Err(error) => return Err(error.into()),
            },
        })
    }

    /// The cookie's next value, when it is time for one.
    pub fn renewed(&self, session: &Session, realm: Realm) -> Option<String> {
        let at = now();
        let every = micros(RENEWED.min(self.settings.session_idle / 8));
        (at - session.told.renewed > every).then(|| self.write(realm, &Told { renewed: at, ..session.told.clone() }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// 503.
    pub async fn end(&self, session: &Session, by: &Deed<'_>) -> Result<(), Failure> {
        let hash = session.hash();
        self.store.end_session(&hash, by).await?;
        self.known.insert(hash.clone(), None);
        self.remembered.insert(hash, None);
        Ok(())
    }

    /// What forms of this session send with them: nobody who cannot read its pages knows it.
    pub fn token(&self, session: &Session) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.tokens, format!("form {}", session.told.id).as_bytes()))
    }

    /// Whether that is what they sent.
    pub fn is_token(&self, session: &Session, token: &str) -> bool {
        self.is_signed(&format!("form {}", session.told.id), token)
    }

    /// The same for the form one logs in by. `nonce`: of a cookie.
    pub fn login_token(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.tokens, format!("login {nonce}").as_bytes()))
    }

    /// See [`Self::login_token`].
    pub fn is_login_token(&self, nonce: &str, token: &str) -> bool {
        self.is_signed(&format!("login {nonce}"), token)
    }

    fn is_signed(&self, text: &str, token: &str) -> bool {
        let token = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        hmac::verify(&self.tokens, text.as_bytes(), &token).is_ok()
    }

    /// What takes a session to content's own origin, within a minute and once. `next`: where to. `browser`: see
    /// [`Arriving::trace`].
    pub fn ticket(&self, session: &Session, next: &str, browser: &str) -> String {
        let told = Told { renewed: now(), ..session.told.clone() };
        let plain = serde_json::to_vec(&(told, browser)).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(self.tickets.seal(next.as_bytes(), &plain).unwrap_or_default())
    }

    /// The cookie's value at content's own origin; `None`: the ticket holds no more, was taken, or is for none of these browsers.
    /// Whoever brings it, it is taken.
    ///
    /// # Errors
    /// 503.
    pub async fn redeem(&self, ticket: &str, next: &str, browsers: &[&str]) -> Result<Option<String>, Failure> {
        let sealed = URL_SAFE_NO_PAD.decode(ticket).ok();
        let opened = sealed.and_then(|sealed| self.tickets.open(next.as_bytes(), &sealed));
        let told: Option<(Told, String)> = opened.and_then(|plain| serde_json::from_slice(&plain).ok());
        let told = told.filter(|(told, _)| (now() - told.renewed).abs() < micros(TICKET));
        let Some((told, browser)) = told else { return Ok(None) };
        let is_new = self.store.take_signed(&hash(ticket)).await?;
        let is_theirs = browsers.contains(&&*browser);
        Ok((is_new && is_theirs).then(|| self.write(Realm::Content, &told)))
    }

    fn sealer(&self, realm: Realm) -> &Sealer {
        match realm {
            Realm::Pages => &self.pages,
            Realm::Content => &self.content,
        }
    }

    fn write(&self, realm: Realm, told: &Told) -> String {
        let plain = serde_json::to_vec(told).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(self.sealer(realm).seal(b"session", &plain).unwrap_or_default())
    }

    fn read(&self, realm: Realm, value: &str) -> Option<Told> {
        let sealed = Some(value).filter(|value| value.len() <= COOKIE_MAX)?;
        let plain = self.sealer(realm).open(b"session", &URL_SAFE_NO_PAD.decode(sealed).ok()?)?;
        let told: Told = serde_json::from_slice(&plain).ok()?;
        let at = now();
        let (idle, age) = (at - told.renewed, at - told.began);
        let holds = idle < micros(self.settings.session_idle) && age < micros(self.settings.session_lifetime);
        // Nodes' clocks differ a little.
        (holds && age > -micros(Duration::from_secs(300))).then_some(told)
    }

    /// Looks everybody up again: a user changed.
    pub fn forget(&self) {
        self.known.invalidate_all();
        self.remembered.invalidate_all();
    }
}

/// What a browser remembers at content's origin while it is at the pages to bring a ticket from there: a ticket is for the
/// browser that wanted it, so that nobody logs in another by sending them a link.
#[derive(Debug)]
pub struct Arriving {
    secret: String,
    is_secure: bool,
}

impl Arriving {
    /// `base`: content's origin.
    pub fn new(base: &str) -> Self {
        let secret = format!("{:032x}", u128::from_be_bytes(dice::secret()));
        Self { secret, is_secure: base.starts_with("https://") }
    }

    /// What a browser remembers.
    pub fn of(fields: &HeaderMap, base: &str) -> Option<Self> {
        let is_secure = base.starts_with("https://");
        let secret = cookie(fields, Self::name(is_secure))?;
        let is_one = secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Self { secret: secret.to_owned(), is_secure })
    }

    /// What others may know of it.
    pub fn trace(&self) -> String {
        hash(&format!("browser {}", self.secret))
    }

    /// `Set-Cookie`.
    pub fn cookie(&self) -> HeaderValue {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let name = Self::name(self.is_secure);
        let text = format!("{name}={}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax{secure}", self.secret);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bowline_arriving="))
    }

    fn name(is_secure: bool) -> &'static str {
        if is_secure { "__Host-bowline_arriving" } else { "bowline_arriving" }
    }
}

/// Of a ticket.
const TICKET: Duration = Duration::from_secs(60);

/// The value of a cookie. `None`: there is none, or several that differ: then somebody else set one of them.
pub fn cookie<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut found = all.filter_map(|pair| pair.trim().split_once('=')).filter(|(told, _)| *told == name);
    let (_, value) = found.next()?;
    found.all(|(_, other)| other == value).then_some(value)
}

/// Whether a request may bring a session: no page of another site made the browser send it.
pub fn is_own(fields: &HeaderMap, authority: &str) -> bool {
    let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(origin) = text(ORIGIN.as_str()) else {
        return text("sec-fetch-site") != Some("cross-site") || is_opened(fields);
    };
    let origin = origin.split_once("://").map_or("", |(_, authority)| authority);
    origin == authority || text(HOST.as_str()) == Some(origin)
}

/// Somebody followed a link.
fn is_opened(fields: &HeaderMap) -> bool {
    fields.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
}

fn hash(id: &str) -> String {
    Sha256::new(sha2::Sha256::digest(id).into()).to_string()
}

fn now() -> i64 {
    micros(clock::unix())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
