//! One request, top to bottom: every decision, in the order it is taken, for every mover.
//!
//! arrive → choose → (dial; [`Context::not_connected`]) → edit the head → (answer; [`Context::answered`] or
//! [`Context::broke`]) → [`Context::finish`]. Movers ask and obey; what they ask with are header maps, instants and
//! outcomes. Nothing here touches a socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};

use super::Proxy;
use super::affinity::{self, Hint};
use super::connection::Facts;
use super::error::{Cause, Fault};
use super::headers::{self, Edits, Hop};
use super::metrics::{AffinityCause, PickReason, Side};
use super::pool::{Backend, InFlight, NoPick, Outcome, Pick, Reason};
use super::state::{Backing, Route};
use crate::config;
use crate::runtime::{clock, dice};
use crate::shiny::shim;
use crate::telemetry::Timestamp;
use crate::telemetry::access::{Line, LineError};
use crate::types::BackendKey;
use crate::types::LEAVING;

/// What one request carries from phase to phase.
pub struct Context {
    proxy: Arc<Proxy>,
    facts: Arc<Facts>,
    started: Instant,
    method: Method,
    host: String,
    path: String,
    client: Option<IpAddr>,
    is_trusted: bool,
    /// Ours, or the one a trusted peer sent.
    pub request_id: String,
    route: Option<Arc<Route>>,
    /// A bodiless GET or HEAD: may be sent again as long as no byte of an answer was passed on.
    is_repeatable: bool,
    /// A navigation whose answer may carry the reconnect shim.
    wants_shim: bool,
    bound: Bound,
    tried: Vec<BackendKey>,
    chosen: Option<Chosen>,
    attempts: u32,
    /// A person coming, as the browser says it.
    is_navigation: bool,
    /// Why the last attempt failed.
    last_failure: Option<Cause>,
    was_repeated: bool,
    body_bytes: u64,
    connect_started: Option<Instant>,
    connect_time: Option<Duration>,
}

/// What binds the client to a backend.
enum Bound {
    /// Nothing: the answer will carry a cookie where the pool has affinity.
    Nothing,
    /// What a parallel request of the same client was given a moment ago; it still needs its cookie.
    Recent(BackendKey),
    /// Its cookie.
    Cookie { backend: BackendKey, renew: bool },
}

/// The backend of the current attempt.
struct Chosen {
    pick: Pick,
    /// Its place in the pool.
    index: usize,
    /// `None` once the request became a session.
    in_flight: Option<InFlight>,
}

/// What the proxy answers by itself.
#[derive(Debug)]
pub enum Answer {
    /// 308 to this absolute URL.
    Redirect(String),
    /// An error page.
    Error(Cause),
}

/// Why no connection to the backend came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// Refused, or the unix socket is gone: nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The TLS handshake failed.
    Tls,
    /// We are out of descriptors, memory or ports: not the backend's fault.
    Shortage,
    /// Anything else.
    Failed,
}

/// How an exchange broke after the connection stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broke {
    /// The backend closed.
    Closed,
    /// The backend was silent for too long.
    TimedOut,
    /// The backend's answer is not HTTP.
    Invalid,
}

/// What to do next with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Choose again; nothing of an answer was passed on.
    Again,
    /// Answer with this.
    GiveUp(Cause),
}

/// What to do with a backend's answer.
pub enum Reply {
    /// Do not pass it on; choose again.
    Again,
    /// Pass it on with these changes: remove, then set, then append.
    Pass {
        /// Fields to remove.
        remove: Vec<HeaderName>,
        /// Fields to set, replacing.
        set: Vec<(HeaderName, HeaderValue)>,
        /// A cookie to add.
        cookie: Option<HeaderValue>,
        /// Feeds the body through the shim.
        injector: Option<shim::Injector>,
    },
}

/// How a request ended, for log and metrics.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The status the client got; `None`: it got none.
    pub status: Option<u16>,
    /// Bytes of bodies, client to us and us to client.
    pub bytes_in: u64,
    /// See `bytes_in`.
    pub bytes_out: u64,
    /// `Some`: it failed.
    pub cause: Option<Cause>,
    /// It became a tunnel.
    pub upgraded: bool,
}

impl Context {
    /// The request has arrived. With an answer, nobody else is asked.
    pub fn arrive(
        proxy: &Arc<Proxy>,
        facts: Arc<Facts>,
        head: &request::Parts,
        is_bodiless: bool,
    ) -> (Self, Option<Answer>) {
        let state = proxy.state();
        let settings = &facts.listener.settings;
        let peer = facts.client.map(|a| a.ip());
        let is_trusted = peer.is_none_or(|ip| settings.trusted.iter().any(|net| net.contains(&ip)))
            && (peer.is_some() || !settings.trusted.is_empty());
        let host = head.uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| head.headers.get(HOST).and_then(|h| h.to_str().ok())).unwrap_or_default().to_owned();
        let mut context = Self {
            client: if is_trusted {
                headers::forwarded_client(&head.headers, &settings.trusted).or(peer)
            } else {
                peer
            },
            request_id: headers::request_id(&head.headers, is_trusted, dice::unique()),
            route: state.routes.find(Some(&host), head.uri.path()).cloned(),
            is_repeatable: is_bodiless && matches!(head.method, Method::GET | Method::HEAD),
            wants_shim: false,
            bound: Bound::Nothing,
            tried: Vec::new(),
            chosen: None,
            attempts: 0,
            is_navigation: head.headers.get("sec-fetch-mode").is_some_and(|m| m.as_bytes() == b"navigate"),
            last_failure: None,
            was_repeated: false,
            body_bytes: 0,
            connect_started: None,
            connect_time: None,
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            started: clock::now(),
            proxy: Arc::clone(proxy),
            is_trusted,
            host,
            facts,
        };
        let answer = context.admit(head);
        (context, answer)
    }

    fn admit(&mut self, head: &request::Parts) -> Option<Answer> {
        if let Some(port) = self.facts.listener.settings.redirect_to_https {
            // Nobody is asked, so no pool answers for it.
            self.route = None;
            return Some(match self.https_url(head, port) {
                Some(url) => Answer::Redirect(url),
                None => Answer::Error(Cause::BadHost),
            });
        }
        let Some(route) = self.route.clone() else { return Some(Answer::Error(Cause::NoRoute)) };
        if let Some(limit) = route.body_bytes_max {
            let announced =
                head.headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
            if announced.is_some_and(|n| n > limit) {
                return Some(Answer::Error(Cause::BodyTooLarge));
            }
        }
        let backing = &route.backing;
        self.wants_shim =
            backing.pool.settings().reconnect_shim && shim::applies_to_request(&head.method, &head.headers);
        self.bound = self.read_bound(backing, &head.headers);
        None
    }

    fn https_url(&self, head: &request::Parts, port: u16) -> Option<String> {
        let (name, _) = split_port(&self.host);
        let target = head.uri.path_and_query().map_or("/", |t| t.as_str());
        let target = if target.starts_with('/') { target } else { "/" };
        (!name.is_empty()).then(|| match port {
            443 => format!("https://{name}{target}"),
            _ => format!("https://{name}:{port}{target}"),
        })
    }

    fn read_bound(&self, backing: &Backing, fields: &HeaderMap) -> Bound {
        let Some(affinity) = &backing.affinity else { return Bound::Nothing };
        match affinity.read(fields, clock::unix_seconds()) {
            Hint::Bound { backend, renew } if backing.pool.backend(backend.as_str()).is_some() => {
                return Bound::Cookie { backend, renew };
            }
            Hint::Bound { .. } => backing.metrics.affinity_rejected(AffinityCause::Unknown),
            Hint::Rejected(cause) => backing.metrics.affinity_rejected(match cause {
                affinity::Cause::Expired => AffinityCause::Expired,
                affinity::Cause::Unsealed => AffinityCause::Unsealed,
            }),
            Hint::None => {}
        }
        // Many persons share an address, and each that comes should be placed anew.
        let recalled = self
            .client
            .filter(|_| !self.is_navigation)
            .and_then(|client| backing.recent.recall(client, user_agent(fields), backing.pool.name(), self.started))
            // Whoever has no cookie yet is a new client, also where its siblings went a moment ago.
            .filter(|key| backing.pool.backend(key.as_str()).is_some_and(|b| b.is_ready()));
        recalled.map_or(Bound::Nothing, Bound::Recent)
    }

    /// Chooses the backend of the next attempt. Waits, bounded, while the pool has no verdict on anybody.
    ///
    /// # Errors
    /// The cause to answer with when there is nobody.
    pub async fn choose(&mut self, fields: &HeaderMap) -> Result<(), Cause> {
        let route = self.route.clone().ok_or(Cause::Internal)?;
        let backing = &route.backing;
        (self.chosen, self.body_bytes) = (None, 0);
        let key = match &self.bound {
            Bound::Nothing => None,
            Bound::Recent(key) | Bound::Cookie { backend: key, .. } => Some(key),
        };
        let deadline = tokio::time::Instant::now() + backing.pool.settings().timeouts.startup;
        let mut pick = loop {
            // Registered before the look, so that a verdict in between is not missed.
            let verdict = backing.verdict.notified();
            match backing.pool.pick(key, &self.tried, clock::now()) {
                Ok(pick) => break pick,
                // Who failed on somebody is told of that; nobody else could be asked.
                Err(NoPick::NobodyReady | NoPick::AllTried) => {
                    return Err(self.last_failure.unwrap_or(Cause::NobodyReady));
                }
                Err(NoPick::NoVerdictYet) => {
                    let is_late = tokio::time::timeout_at(deadline, verdict).await.is_err();
                    match key {
                        // Its own backend has no verdict and will have none in time: a detour, not a new home.
                        Some(key) if is_late && !self.tried.contains(key) => self.tried.push(key.clone()),
                        _ if is_late => return Err(Cause::StartingUp),
                        _ => {}
                    }
                }
            }
        };
        // Only what the policy chose is remembered: remembering what was recalled would keep one address for ever.
        if let (Some(client), true, Bound::Nothing) = (self.client, backing.affinity.is_some(), &self.bound) {
            let (agent, pool, key) = (user_agent(fields), backing.pool.name(), pick.backend.key());
            if self.is_navigation || !self.tried.is_empty() {
                backing.recent.remember(client, agent, pool, key, self.started);
            } else if let Some(first) = backing.recent.agree(client, agent, pool, key, self.started) {
                // A parallel request was faster; its backend if that can take this one too.
                if let Ok(same) = backing.pool.pick(Some(&first), &self.tried, clock::now())
                    && *same.backend.key() == first
                    && same.backend.is_ready()
                {
                    pick = same;
                    self.bound = Bound::Recent(first);
                }
            }
        }
        backing.metrics.picked(label(pick.reason));
        self.attempts += 1;
        let index =
            backing.pool.backends().iter().position(|b| Arc::ptr_eq(b, &pick.backend)).ok_or(Cause::Internal)?;
        self.chosen = Some(Chosen { index, in_flight: Some(pick.backend.begin_request()), pick });
        self.connect_started = Some(clock::now());
        Ok(())
    }

    /// The connection stands.
    pub fn connected(&mut self, is_reused: bool) {
        if let (false, Some(started), Some(route)) = (is_reused, self.connect_started, &self.route) {
            let took = clock::now().saturating_duration_since(started);
            self.connect_time = Some(took);
            route.backing.metrics.connected(took);
        }
    }

    /// No connection came about: nothing was sent, so any request may go to another backend.
    pub fn not_connected(&mut self, why: NotConnected) -> Next {
        let (outcome, cause) = match why {
            NotConnected::Refused => (Outcome::Refused, Cause::ConnectRefused),
            NotConnected::TimedOut => (Outcome::TimedOut, Cause::ConnectTimeout),
            NotConnected::Tls => (Outcome::Broken, Cause::UpstreamTls),
            NotConnected::Failed => (Outcome::Broken, Cause::ConnectFailed),
            NotConnected::Shortage => return Next::GiveUp(Cause::Internal),
        };
        self.observe(outcome, cause.as_str());
        if self.attempts_left() { self.again(cause) } else { Next::GiveUp(cause) }
    }

    /// The exchange broke before any byte of an answer was passed on. Only a bodiless GET or HEAD is sent again, once:
    /// of anything else the backend may have done its work.
    pub fn broke(&mut self, how: Broke, is_stale_connection: bool) -> Next {
        let (outcome, cause) = match how {
            Broke::Closed => (Outcome::Broken, Cause::UpstreamClosed),
            Broke::TimedOut => (Outcome::TimedOut, Cause::UpstreamTimeout),
            Broke::Invalid => (Outcome::Broken, Cause::UpstreamInvalid),
        };
        if is_stale_connection && self.is_repeatable && !self.was_repeated {
            // A kept connection the backend had closed says nothing about the backend: the same one may be asked.
            self.was_repeated = true;
            self.count_retry("stale_connection");
            return Next::Again;
        }
        self.observe(outcome, cause.as_str());
        let may = self.is_repeatable && !self.was_repeated && how != Broke::Invalid && self.attempts_left();
        if !may {
            return Next::GiveUp(cause);
        }
        self.was_repeated = true;
        self.again(cause)
    }

    /// The backend broke after its answer had begun: nothing can be repeated, but its health should know.
    pub fn broke_within_answer(&self, how: Broke) {
        match how {
            // An event stream may be silent for as long as it has nothing to say: too little to judge anybody by.
            Broke::TimedOut => {}
            Broke::Closed | Broke::Invalid => self.observe(Outcome::Broken, "its answer broke off"),
        }
    }

    fn attempts_left(&self) -> bool {
        self.route.as_ref().is_some_and(|r| self.attempts <= r.backing.pool.settings().retries)
    }

    fn again(&mut self, cause: Cause) -> Next {
        self.last_failure = Some(cause);
        self.again_because(cause.as_str());
        Next::Again
    }

    fn again_because(&mut self, why: &'static str) {
        self.count_retry(why);
        if let Some(chosen) = self.chosen.take() {
            self.tried.push(chosen.pick.backend.key().clone());
        }
    }

    fn count_retry(&self, why: &'static str) {
        if let Some(route) = &self.route {
            route.backing.metrics.retried(why);
        }
    }

    /// What a real request taught about the backend goes to its health.
    fn observe(&self, outcome: Outcome, why: &'static str) {
        let (Some(chosen), Some(route)) = (&self.chosen, &self.route) else { return };
        let transition = chosen.pick.backend.observe(outcome, clock::now());
        if let Some(transition) = transition {
            self.proxy.health_changed(&route.backing, &chosen.pick.backend, transition, &why);
        }
    }

    /// The request asks to leave HTTP: its answer is no page.
    pub fn leaves_http(&mut self) {
        self.wants_shim = false;
    }

    /// How the head must change on its way to the backend.
    pub fn edits(&self, head: &request::Parts, upgrade: bool) -> Edits {
        let target = head.uri.path_and_query().map_or("/", |t| t.as_str());
        let mut edits = headers::for_upstream(
            &head.headers,
            &Hop {
                client: self.facts.client.map(|a| a.ip()),
                is_tls: self.facts.is_tls,
                host: &self.host,
                port: self.facts.port,
                trusted: self.is_trusted,
                request_id: &self.request_id,
                rsc_request: self.route.as_ref().is_some_and(|r| r.backing.pool.settings().rsc_request),
                target,
                upgrade,
            },
        );
        if self.wants_shim {
            edits.set.push((http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        }
        edits
    }

    /// The backend's final answer is here (not 1xx, but 101).
    pub fn answered(&mut self, status: u16, fields: &HeaderMap) -> Reply {
        let Some((chosen, route)) = self.chosen.as_ref().zip(self.route.clone()) else {
            return Reply::Pass { remove: Vec::new(), set: Vec::new(), cookie: None, injector: None };
        };
        let heeds = route.backing.pool.settings().heeds_leaving;
        let says_so = heeds && status == 503 && fields.contains_key(LEAVING);
        if says_so {
            self.observe(Outcome::Leaving, "it says that it leaves");
        }
        let is_leaving = says_so || matches!(status, 502 | 503) && chosen.pick.backend.is_leaving();
        if is_leaving
            && self.is_repeatable
            && !self.was_repeated
            && self.attempts_left()
            && self.somebody_else_is_ready(&route)
        {
            self.was_repeated = true;
            self.again_because("backend_leaving");
            return Reply::Again;
        }
        // 502 and 504 are what a gateway says of a broken application. Where probes ask the gateway itself, one broken
        // application among many must not take it down. 503 and other errors are the application's own.
        match (matches!(status, 502 | 504), route.backing.pool.settings().probe.is_some()) {
            (true, true) => {}
            (true, false) => self.observe(Outcome::Broken, "it answered 502 or 504"),
            (false, _) if says_so => {}
            (false, _) => self.observe(Outcome::Answered, ""),
        }
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
        let mut remove = if is_switch { Vec::new() } else { headers::hop_by_hop_of_answer(fields, status == 426) };
        let mut set = Vec::with_capacity(1);
        if let Ok(id) = HeaderValue::from_str(&self.request_id) {
            set.push((headers::X_REQUEST_ID, id));
        }
        let mut injector = None;
        if let Some(plan) = self.wants_shim.then(|| shim::plan(status, fields, shim::Mode::Reconnect)).flatten() {
            remove.extend(plan.remove);
            set.extend(plan.set);
            injector = Some(plan.injector);
        }
        Reply::Pass { remove, set, cookie: self.cookie(&route.backing), injector }
    }

    fn somebody_else_is_ready(&self, route: &Route) -> bool {
        let Some(chosen) = &self.chosen else { return false };
        route.backing.pool.backends().iter().any(|b| b.is_ready() && !Arc::ptr_eq(b, &chosen.pick.backend))
    }

    /// The cookie the answer must carry: for who has none, whose cookie does not lead where the request went, or is
    /// half through its life.
    fn cookie(&self, backing: &Backing) -> Option<HeaderValue> {
        let (affinity, chosen) = (backing.affinity.as_ref()?, self.chosen.as_ref()?);
        let renew = match &self.bound {
            Bound::Cookie { renew, .. } => *renew,
            Bound::Nothing | Bound::Recent(_) => true,
        };
        let key = chosen.pick.backend.key();
        chosen
            .pick
            .writes_cookie(renew)
            .then(|| affinity.set_cookie(key, clock::unix_seconds(), dice::secret(), self.facts.is_tls))
    }

    /// Counts request body bytes; `true` when they are more than the route takes.
    pub fn body_overflows(&mut self, bytes: usize) -> bool {
        self.body_bytes += bytes as u64;
        self.route.as_ref().and_then(|r| r.body_bytes_max).is_some_and(|max| self.body_bytes > max)
    }

    /// The error page's format follows this.
    pub fn page(&self, cause: Cause, accept: Option<&HeaderValue>) -> super::error::Page {
        super::error::page(cause, &self.request_id, accept.map(HeaderValue::as_bytes))
    }

    /// The backend chosen for this attempt, with the pool it belongs to and its place there.
    pub fn chosen(&self) -> Option<(&Arc<Backing>, &Arc<Backend>, usize)> {
        let (route, chosen) = (self.route.as_ref()?, self.chosen.as_ref()?);
        Some((&route.backing, &chosen.pick.backend, chosen.index))
    }

    /// The waits of the pool the request goes to.
    pub fn timeouts(&self) -> Option<&config::proxy::PoolTimeouts> {
        self.route.as_ref().map(|r| &r.backing.pool.settings().timeouts)
    }

    /// Will not be sent again, whatever happens to it: must not meet a kept connection that dies under it.
    pub fn needs_fresh_connection(&self) -> bool {
        !self.is_repeatable || self.was_repeated
    }

    /// Who is at the other end, for the ledger.
    pub fn client_address(&self) -> Option<std::net::SocketAddr> {
        self.facts.client
    }

    /// It is over: count it, write its line, give the backend back.
    pub fn finish(&mut self, end: End) {
        let took = clock::now().saturating_duration_since(self.started);
        let status = end.status.or_else(|| end.cause.map(Cause::status)).unwrap_or(499);
        if let Some(route) = &self.route {
            let listener = &self.facts.listener.settings.name;
            if let Some((_, metrics)) = route.metrics.iter().find(|(name, _)| name == listener) {
                metrics.answered(&self.method, status, took);
            }
            if let Some(cause) = end.cause {
                route.backing.metrics.failed(side(cause.fault()), cause.as_str());
            }
        } else {
            self.facts.listener.metrics.refused(end.cause.map_or("redirect", Cause::as_str));
        }
        if let Some(cause) = end.cause.filter(|c| c.fault() == Fault::Internal) {
            tracing::error!(request_id = %self.request_id, error.r#type = cause.as_str(), "request failed inside the proxy");
        }
        self.log(&end, took);
        self.chosen = None;
    }

    fn log(&self, end: &End, took: Duration) {
        let log = self.proxy.access_log();
        if !log.is_enabled() {
            return;
        }
        let peer = self.facts.client;
        log.write(&Line {
            time: Timestamp::from_unix(clock::unix().saturating_sub(took)),
            listener: &self.facts.listener.settings.name,
            client: self
                .client
                .map(|ip| std::net::SocketAddr::new(ip, peer.filter(|p| p.ip() == ip).map_or(0, |p| p.port()))),
            method: self.method.as_str(),
            path: self.path.as_bytes(),
            host: (!self.host.is_empty()).then_some(self.host.as_bytes()),
            status: end.status,
            route: self.route.as_ref().map(|r| &*r.name),
            pool: self.route.as_ref().map(|r| &**r.backing.pool.name()),
            backend: self.chosen.as_ref().map(|c| c.pick.backend.key()).or(self.tried.last()).map(BackendKey::as_str),
            pick: self.chosen.as_ref().map(|c| label(c.pick.reason).as_str()),
            attempts: self.attempts,
            upgraded: end.upgraded,
            bytes_received: end.bytes_in,
            bytes_sent: end.bytes_out,
            duration: took,
            upstream_connect: self.connect_time,
            request_id: &self.request_id,
            error: end.cause.map(|c| LineError { kind: c.as_str(), side: c.fault().as_str() }),
        });
    }

    /// The requests in flight at the chosen backend no longer include this one.
    pub fn release_in_flight(&mut self) {
        if let Some(chosen) = self.chosen.as_mut() {
            chosen.in_flight = None;
        }
    }
}

fn label(reason: Reason) -> PickReason {
    match reason {
        Reason::Sticky => PickReason::Sticky,
        Reason::Balanced => PickReason::Balanced,
        Reason::Rebound => PickReason::Rebound,
    }
}

fn side(fault: Fault) -> Side {
    match fault {
        Fault::Downstream => Side::Downstream,
        Fault::Upstream => Side::Upstream,
        Fault::Internal => Side::Internal,
    }
}

fn user_agent(fields: &HeaderMap) -> &[u8] {
    fields.get(USER_AGENT).map_or(&[], |v| v.as_bytes())
}

/// Host and port of an authority; brackets of an IPv6 address stay.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}
