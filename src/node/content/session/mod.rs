//! Sessions that outlive the browser's connection: see [`crate::shiny::resume`] for what is said on it.
//!
//! Each is a task that has the worker's websocket and, while one is there, the browser's. When the browser's breaks, the
//! task waits for the next one and keeps what the worker says meanwhile, within bounds: then it reads no more from the worker.
//! The id of a session is not enough to get it: whoever comes back must bring the cookie of the browser that began it, be the
//! same caller, and ask at the same address. The worker sees one ordinary websocket.

mod parts;
mod run;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::header::{CONNECTION, COOKIE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::tunnel;
use super::visitor::Visitor;
use super::worker::Lease;
use crate::config::node::Content;
use crate::node::metrics::{ContentSessions, Metrics};
use crate::runtime::dice;
use crate::shiny::resume::{self, PROTOCOL};

/// The cookie that binds sessions to the browser that began them.
pub const COOKIE_NAME: &str = "bowline_resume";
/// Between two pings, and for the answer.
pub const PING_AFTER: Duration = Duration::from_secs(25);
/// After so many without an answer a browser is gone.
pub const UNANSWERED: u32 = 2;
/// For both sides to leave HTTP.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a message of a browser's; uvicorn takes no more either.
const BROWSER_MESSAGE_MAX: usize = 16 << 20;
/// Bytes of a message of a worker's.
const WORKER_MESSAGE_MAX: usize = 64 << 20;
/// What a connection reads at once.
const READ_BYTES: usize = 4 << 10;

/// The browser's connection and the worker's, which leave HTTP.
type Both = (OnUpgrade, OnUpgrade);
/// A websocket on a connection that was HTTP.
type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// All of this node.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Mutex<HashMap<String, Entry>>,
    /// Processes by where what belongs to their sessions is: see [`Sessions::process_of`].
    processes: Mutex<HashMap<String, String>>,
    /// What is kept for all browsers.
    bytes: AtomicUsize,
    /// How many there are.
    total: Tally,
    /// Of each content that has some, or had.
    tallies: Mutex<HashMap<String, Weak<Tally>>>,
    leaving: watch::Sender<bool>,
    hold: Duration,
    session_bytes_max: usize,
    bytes_max: usize,
    metrics: Arc<Metrics>,
}

/// Websockets with a browser, and without.
#[derive(Debug, Default)]
struct Tally {
    live: AtomicUsize,
    held: AtomicUsize,
}

impl Tally {
    fn read(&self) -> (usize, usize) {
        (self.live.load(Ordering::Relaxed), self.held.load(Ordering::Relaxed))
    }
}

/// A session that is counted until this is dropped.
#[derive(Debug)]
struct Seat {
    shared: Arc<Shared>,
    own: Arc<Tally>,
    is_live: bool,
}

impl Seat {
    fn counts(&self) -> [&AtomicUsize; 2] {
        [&self.shared.total, &*self.own].map(|tally| if self.is_live { &tally.live } else { &tally.held })
    }

    fn take(&self) {
        for count in self.counts() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leave(&self) {
        for count in self.counts() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Its browser is there now, or not.
    fn turn(&mut self, is_live: bool) {
        self.leave();
        self.is_live = is_live;
        self.take();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How to get at a session.
#[derive(Debug)]
struct Entry {
    owner: Owner,
    came: mpsc::Sender<Came>,
}

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The path of the content, or of its draft.
    pub prefix: String,
    /// The browser's cookie.
    pub cookie: String,
    /// Who asked.
    pub caller: String,
}

/// A browser that comes back.
struct Came {
    socket: Socket,
    /// Messages it has.
    has: u64,
    /// Who they are now.
    visitor: Visitor,
}

/// What a request for a websocket wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A session that can be resumed.
    New,
    /// This one, of whose messages so many came.
    Resumed(String, u64),
}

/// What the script of a page wants; `None`: somebody else asks, or for something else.
pub fn wanted(fields: &HeaderMap, query: Option<&str>) -> Option<Wanted> {
    let is_websocket = fields.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let mut offered = fields.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let is_ours = offered.any(|list| list.split(',').any(|name| name.trim() == PROTOCOL));
    if !is_websocket || !is_ours {
        return None;
    }
    Some(match query.and_then(resume::wanted) {
        Some((id, has)) => Wanted::Resumed(id.to_owned(), has),
        None => Wanted::New,
    })
}

/// The browser's cookie, if it has one of ours.
pub fn cookie_of(fields: &HeaderMap) -> Option<String> {
    let all = fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    all.filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE_NAME && value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(|(_, value)| value.to_owned())
}

/// A number nobody guesses.
pub fn secret() -> String {
    format!("{:032x}", u128::from_be_bytes(dice::secret()))
}

/// The answer to a browser's request for a websocket that we speak ourselves (RFC 6455 §4.2.2); `None`: it is no such request.
pub fn switched(fields: &HeaderMap) -> Option<HeaderMap> {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    use base64::Engine as _;
    let key = fields.get(SEC_WEBSOCKET_KEY)?.as_bytes();
    if fields.get("sec-websocket-version").is_none_or(|version| version != "13") {
        return None;
    }
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(accept).ok()?);
    answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Some(answer)
}

impl Sessions {
    /// None yet.
    pub fn new(settings: &Content, metrics: Arc<Metrics>) -> Self {
        let bytes = |told: u64| usize::try_from(told).unwrap_or(usize::MAX);
        Self(Arc::new(Shared {
            all: Mutex::default(),
            processes: Mutex::default(),
            bytes: AtomicUsize::new(0),
            total: Tally::default(),
            tallies: Mutex::default(),
            leaving: watch::Sender::new(false),
            hold: settings.session_hold,
            session_bytes_max: bytes(settings.session_bytes_max),
            bytes_max: bytes(settings.sessions_bytes_max),
            metrics,
        }))
    }

    /// The process of the session that a path of content is of, whatever process the browser was last told to come back to: its
    /// tabs may have several. `path`: below the prefix.
    pub fn process_of(&self, prefix: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix("/session/")?.split(['/', '?']).next()?;
        let all = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&place(prefix, token)).cloned()
    }

    /// Whether sessions outlive their connections here.
    pub fn are_held(&self) -> bool {
        !self.0.hold.is_zero()
    }

    /// Websockets with a browser, and without.
    pub fn counts(&self) -> (usize, usize) {
        self.0.total.read()
    }

    /// Bytes that are kept for browsers.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Sessions of each content that has some.
    pub fn contents(&self) -> Vec<ContentSessions> {
        let tallies = self.tallies();
        let all = tallies.iter().filter_map(|(guid, tally)| Some((guid, tally.upgrade()?)));
        let counted = all.map(|(guid, tally)| {
            let (live, held) = tally.read();
            ContentSessions { guid: guid.clone(), live: live as u64, held: held as u64 }
        });
        counted.collect()
    }

    /// Counts a session of this content.
    fn seat(&self, guid: &str, is_live: bool) -> Seat {
        let mut tallies = self.tallies();
        let own = tallies.get(guid).and_then(Weak::upgrade).unwrap_or_else(|| {
            tallies.retain(|_, tally| tally.strong_count() > 0);
            let tally = Arc::new(Tally::default());
            tallies.insert(guid.to_owned(), Arc::downgrade(&tally));
            tally
        });
        drop(tallies);
        let seat = Seat { shared: Arc::clone(&self.0), own, is_live };
        seat.take();
        seat
    }

    fn tallies(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Tally>>> {
        self.0.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody can come back to this node any more: what waits for that ends, and nothing waits from now on.
    pub fn leave(&self) {
        self.0.leaving.send_replace(true);
    }

    /// A new session between these, once both have left HTTP. It ends if nothing is said for `timeout`.
    pub fn begin(&self, (here, there): Both, owner: Owner, timeout: Duration, lease: Lease, visitor: Visitor) {
        let sessions = self.clone();
        tokio::spawn(async move {
            let both = async { tokio::join!(here, there) };
            let Ok((Ok(here), Ok(there))) = tokio::time::timeout(UPGRADE_PATIENCE, both).await else { return };
            let browser = socket(here, Role::Server, BROWSER_MESSAGE_MAX).await;
            let worker = socket(there, Role::Client, WORKER_MESSAGE_MAX).await;
            let id = secret();
            let (came, coming) = mpsc::channel(1);
            let prefix = owner.prefix.clone();
            sessions.lock().insert(id.clone(), Entry { owner, came });
            let _listed = Listed { sessions: sessions.clone(), id: id.clone() };
            let seat = sessions.seat(&visitor.guid, false);
            run::run(&sessions.0, &id, (browser, worker), coming, timeout, (lease, seat, visitor, prefix)).await;
        });
    }

    /// Gives a browser that comes back its session, once it has left HTTP; or tells it that there is none.
    pub fn resume(&self, here: OnUpgrade, id: &str, has: u64, owner: &Owner, visitor: Visitor) {
        let came = self.lock().get(id).filter(|entry| entry.owner == *owner).map(|entry| entry.came.clone());
        let metrics = Arc::clone(&self.0.metrics);
        tokio::spawn(async move {
            let Ok(Ok(here)) = tokio::time::timeout(UPGRADE_PATIENCE, here).await else { return };
            let socket = socket(here, Role::Server, BROWSER_MESSAGE_MAX).await;
            let refused = match came {
                Some(came) => came.send(Came { socket, has, visitor }).await.err().map(|refused| refused.0),
                None => Some(Came { socket, has, visitor }),
            };
            if let Some(Came { socket, .. }) = refused {
                metrics.resumed(false);
                run::refuse(socket).await;
            }
        });
    }

    /// A websocket that cannot be resumed, or what else two sides speak that left HTTP.
    pub fn pass(&self, (here, there): Both, is_websocket: bool, timeout: Duration, lease: Lease, visitor: Visitor) {
        let sessions = self.clone();
        tokio::spawn(async move {
            let both = async { tokio::join!(here, there) };
            let Ok((Ok(here), Ok(there))) = tokio::time::timeout(UPGRADE_PATIENCE, both).await else { return };
            let _seat = sessions.seat(&visitor.guid, true);
            let (here, there) = (TokioIo::new(here), TokioIo::new(there));
            tunnel::run(here, there, is_websocket, timeout, visitor.turned_away()).await;
            drop(lease);
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where what belongs to a session of an app is.
fn place(prefix: &str, token: &str) -> String {
    format!("{prefix}/session/{token}")
}

/// A session as the app calls it, until this is dropped.
#[derive(Debug)]
struct Named<'a> {
    shared: &'a Shared,
    place: String,
}

impl<'a> Named<'a> {
    /// `token`: the app's word.
    fn new(shared: &'a Shared, prefix: &str, token: &str, process: &str) -> Self {
        let place = place(prefix, token);
        shared.processes.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), process.to_owned());
        Self { shared, place }
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.shared.processes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

/// In the list until this is dropped.
struct Listed {
    sessions: Sessions,
    id: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
    }
}

async fn socket(upgraded: Upgraded, role: Role, message_max: usize) -> Socket {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BYTES;
    config.write_buffer_size = 0;
    config.max_message_size = Some(message_max);
    config.max_frame_size = Some(message_max);
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), role, Some(config)).await
}

/// The status of an answer that leaves HTTP.
pub const SWITCHED: StatusCode = StatusCode::SWITCHING_PROTOCOLS;
