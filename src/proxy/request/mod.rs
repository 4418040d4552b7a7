//! One request, top to bottom: every decision, in the order it is taken, for every mover.
//!
//! arrive → choose → (dial; [`Context::not_connected`]) → edit the head → (answer; [`Context::answered`] or
//! [`Context::broke`]) → [`Context::finish`]. Movers ask and obey; what they ask with are heads, instants and
//! outcomes. Nothing here touches a socket.

mod connect;
mod end;
mod verdict;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method, request};

use self::connect::Connect;
pub use self::end::End;
pub use self::verdict::{Answer, Broke, Line, Next, NotConnected, Reply};
use super::Proxy;
use super::affinity::{self, Hint};
use super::connection::Facts;
use super::error::Cause;
use super::headers::{self, AnswerEdits, Fields, Hop, Known, RequestEdits};
use super::metrics::AffinityCause;
use super::pool::{Backend, InFlight, NoPick, Outcome, Pick};
use super::state::{Backing, Route};
use crate::config;
use crate::runtime::{clock, dice};
use crate::shiny::shim;
use crate::types::BackendKey;

/// A request as its head says it, whoever read it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Any token.
    pub method: &'a Method,
    /// The authority of the target, else the `Host` field; empty when there is neither.
    pub host: &'a str,
    /// Path and query, or `*`.
    pub target: &'a str,
    /// Its fields.
    pub fields: &'a Fields<'a>,
}

impl<'a> Request<'a> {
    /// As the `http` types have it, with its fields.
    pub fn of(head: &'a request::Parts, fields: &'a Fields<'a>) -> Self {
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        Self {
            method: &head.method,
            host: authority.or_else(|| fields.text(Known::Host)).unwrap_or_default(),
            target: head.uri.path_and_query().map_or("/", |t| t.as_str()),
            fields,
        }
    }

    /// The target without its query.
    pub fn path(&self) -> &'a str {
        memchr::memchr(b'?', self.target.as_bytes()).map_or(self.target, |at| &self.target[..at])
    }
}

/// What one request carries from phase to phase.
pub struct Context {
    proxy: Arc<Proxy>,
    facts: Arc<Facts>,
    started: Instant,
    method: Method,
    /// Host, path and request id, one behind the other.
    texts: Box<str>,
    host_end: u32,
    path_end: u32,
    client: Option<IpAddr>,
    is_trusted: bool,
    route: Option<Arc<Route>>,
    /// A bodiless GET or HEAD: may be sent again as long as no byte of an answer was passed on.
    is_repeatable: bool,
    /// A navigation whose answer may carry the reconnect shim.
    wants_shim: bool,
    /// Whoever asks reads HTML.
    reads_html: bool,
    bound: Bound,
    chosen: Option<Chosen>,
    attempts: u32,
    /// A person coming, as the browser says it.
    is_navigation: bool,
    /// Most requests have none.
    failures: Option<Box<Failures>>,
    was_repeated: bool,
    body_bytes: u64,
    connect: Connect,
}

/// What binds the client to a backend.
enum Bound {
    /// Nothing: the answer will carry a cookie where the pool has affinity.
    Nothing {
        /// Stands for the client, where clients are bound: see [`affinity::recent`].
        newcomer: Option<u64>,
    },
    /// What a parallel request of the same client was given a moment ago; it still needs its cookie.
    Recent(BackendKey),
    /// Its cookie.
    Cookie { backend: BackendKey, renew: bool },
}

/// What went wrong so far.
#[derive(Default)]
struct Failures {
    /// Who is not asked again.
    tried: Vec<BackendKey>,
    /// Why the last attempt failed.
    last: Option<Cause>,
}

/// The backend of the current attempt.
struct Chosen {
    pick: Pick,
    /// `None` once the request became a session.
    in_flight: Option<InFlight>,
}

impl Context {
    /// The request has arrived. With an answer, nobody else is asked.
    pub fn arrive(
        proxy: &Arc<Proxy>,
        facts: Arc<Facts>,
        request: &Request<'_>,
        is_bodiless: bool,
    ) -> (Box<Self>, Option<Answer>) {
        let settings = &facts.listener.settings;
        let peer = facts.way.client_ip();
        let is_trusted = peer.is_none_or(|ip| settings.trusted.iter().any(|net| net.contains(&ip)))
            && (peer.is_some() || !settings.trusted.is_empty());
        let (host, path, fields) = (request.host, request.path(), request.fields);
        let mut texts = String::with_capacity(host.len() + path.len() + headers::NEW_REQUEST_ID);
        texts.extend([host, path]);
        headers::push_request_id(&mut texts, fields, is_trusted, dice::unique());
        let mut context = Box::new(Self {
            client: if is_trusted { headers::forwarded_client(fields, &settings.trusted).or(peer) } else { peer },
            route: proxy.state.load().routes.find(Some(host), path).cloned(),
            is_repeatable: is_bodiless && matches!(*request.method, Method::GET | Method::HEAD),
            wants_shim: false,
            reads_html: fields.first(Known::Accept).is_some_and(shim::reads_html),
            bound: Bound::Nothing { newcomer: None },
            chosen: None,
            attempts: 0,
            is_navigation: fields.first(Known::SecFetchMode).is_some_and(|m| m == b"navigate"),
            failures: None,
            was_repeated: false,
            body_bytes: 0,
            connect: Connect::No,
            method: request.method.clone(),
            started: clock::now(),
            proxy: Arc::clone(proxy),
            is_trusted,
            texts: texts.into(),
            // Of a head, which has a MiB at most.
            host_end: host.len() as u32,
            path_end: (host.len() + path.len()) as u32,
            facts,
        });
        let answer = context.admit(request);
        (context, answer)
    }

    fn admit(&mut self, request: &Request<'_>) -> Option<Answer> {
        if let Some(port) = self.facts.listener.settings.redirect_to_https {
            // Nobody is asked, so no pool answers for it.
            self.route = None;
            return Some(match https_url(request, port) {
                Some(url) => Answer::Redirect(url),
                None => Answer::Error(Cause::BadHost),
            });
        }
        let Some(route) = &self.route else { return Some(Answer::Error(Cause::NoRoute)) };
        if let Some(limit) = route.body_bytes_max {
            let announced = request.fields.text(Known::ContentLength).and_then(|l| l.parse::<u64>().ok());
            if announced.is_some_and(|n| n > limit) {
                return Some(Answer::Error(Cause::BodyTooLarge));
            }
        }
        let backing = &route.backing;
        let field = |name| request.fields.first(name);
        self.wants_shim = backing.pool.settings().reconnect_shim
            && shim::applies_to(
                request.method,
                request.fields.has(Known::Range),
                field(Known::SecFetchDest),
                field(Known::Accept),
            );
        self.bound = self.read_bound(backing, request.fields);
        None
    }

    /// The host the client asked for.
    fn host(&self) -> &str {
        &self.texts[..self.host_end as usize]
    }

    /// The path it asked for, without a query.
    fn path(&self) -> &str {
        &self.texts[self.host_end as usize..self.path_end as usize]
    }

    /// Ours, or the one a trusted peer sent.
    pub fn request_id(&self) -> &str {
        &self.texts[self.path_end as usize..]
    }

    /// What binds the client.
    fn read_bound(&self, backing: &Backing, fields: &Fields<'_>) -> Bound {
        let Some(affinity) = &backing.affinity else { return Bound::Nothing { newcomer: None } };
        let hint = match fields.has(Known::Cookie) {
            true => affinity.read(fields.all(Known::Cookie), clock::unix_of(self.started).as_secs()),
            false => Hint::None,
        };
        match hint {
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
        let agent = fields.first(Known::UserAgent).unwrap_or_default();
        let Some(client) = self.client else { return Bound::Nothing { newcomer: None } };
        let newcomer = affinity::recent::fingerprint(client, agent, backing.pool.name());
        // Many persons share an address, and each that comes should be placed anew.
        let recalled = if self.is_navigation { None } else { backing.recent.recall(newcomer, self.started) };
        // Whoever has no cookie yet is a new client, also where its siblings went a moment ago.
        let recalled = recalled.filter(|key| backing.pool.backend(key.as_str()).is_some_and(|b| b.is_ready()));
        recalled.map_or(Bound::Nothing { newcomer: Some(newcomer) }, Bound::Recent)
    }

    /// Chooses the backend of the next attempt. Waits, bounded, while the pool has no verdict on anybody.
    ///
    /// # Errors
    /// The cause to answer with when there is nobody.
    pub async fn choose(&mut self) -> Result<(), Cause> {
        if self.choose_at(clock::now())? {
            return Ok(());
        }
        let route = self.route.clone().ok_or(Cause::Internal)?;
        let deadline = tokio::time::Instant::now() + route.backing.pool.settings().timeouts.startup;
        loop {
            // Registered before the look, so that a verdict in between is not missed.
            let verdict = route.backing.verdict.notified();
            if self.choose_at(clock::now())? {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, verdict).await.is_err() {
                match self.bound_to() {
                    // Its own backend has no verdict and will have none in time: a detour, not a new home.
                    Some(key) if !self.tried().contains(key) => {
                        let key = key.clone();
                        self.failures.get_or_insert_default().tried.push(key);
                    }
                    _ => return Err(Cause::StartingUp),
                }
            }
        }
    }

    /// The same without waiting, for a request that has just arrived; `false`: a verdict is to be waited for.
    ///
    /// # Errors
    /// See [`Context::choose`].
    pub fn choose_now(&mut self) -> Result<bool, Cause> {
        self.choose_at(self.started)
    }

    fn choose_at(&mut self, now: Instant) -> Result<bool, Cause> {
        let backing = &self.route.as_ref().ok_or(Cause::Internal)?.backing;
        self.chosen = None;
        let mut pick = match backing.pool.pick(self.bound_to(), self.tried(), now) {
            Ok(pick) => pick,
            Err(NoPick::NoVerdictYet) => return Ok(false),
            // Who failed on somebody is told of that; nobody else could be asked.
            Err(NoPick::NobodyReady | NoPick::AllTried) => {
                return Err(self.failures.as_ref().and_then(|f| f.last).unwrap_or(Cause::NobodyReady));
            }
        };
        // Only what the policy chose is remembered: remembering what was recalled would keep one address for ever.
        if let Bound::Nothing { newcomer: Some(newcomer) } = self.bound {
            let key = pick.backend.key();
            if self.is_navigation || !self.tried().is_empty() {
                backing.recent.remember(newcomer, key, self.started);
            } else if let Some(first) = backing.recent.agree(newcomer, key, self.started) {
                // A parallel request was faster; its backend if that can take this one too.
                if let Ok(same) = backing.pool.pick(Some(&first), self.tried(), now)
                    && *same.backend.key() == first
                    && same.backend.is_ready()
                {
                    pick = same;
                    self.bound = Bound::Recent(first);
                }
            }
        }
        backing.metrics.picked(end::label(pick.reason));
        self.attempts += 1;
        self.chosen = Some(Chosen { in_flight: Some(pick.backend.begin_request()), pick });
        self.connect = Connect::begin(now.saturating_duration_since(self.started));
        Ok(true)
    }

    fn tried(&self) -> &[BackendKey] {
        self.failures.as_ref().map_or(&[], |failures| &failures.tried)
    }

    fn bound_to(&self) -> Option<&BackendKey> {
        match &self.bound {
            Bound::Nothing { .. } => None,
            Bound::Recent(key) | Bound::Cookie { backend: key, .. } => Some(key),
        }
    }

    /// The connection stands.
    pub fn connected(&mut self, is_reused: bool) {
        if let (false, Some(route)) = (is_reused, &self.route)
            && let Some(took) = self.connect.stands(self.started)
        {
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
        self.observe(outcome, cause.as_str(), clock::coarse());
        if self.attempts_left() { self.again(cause) } else { Next::GiveUp(cause) }
    }

    /// The exchange broke before any byte of an answer was passed on. Only a bodiless GET or HEAD is sent again, once, of
    /// anything else the backend may have done its work; and what no backend has seen.
    pub fn broke(&mut self, how: Broke, line: Line) -> Next {
        let (outcome, cause) = match how {
            Broke::Closed => (Outcome::Broken, Cause::UpstreamClosed),
            Broke::TimedOut => (Outcome::TimedOut, Cause::UpstreamTimeout),
            Broke::Invalid => (Outcome::Broken, Cause::UpstreamInvalid),
        };
        let may_be_stale = match line {
            Line::Fresh => false,
            Line::Kept => how == Broke::Closed && self.is_repeatable,
            Line::Unheard => how == Broke::Closed,
        };
        if may_be_stale && !self.was_repeated {
            // A kept connection the backend had closed says nothing about the backend: the same one may be asked.
            self.was_repeated = true;
            self.count_retry("stale_connection");
            return Next::Again;
        }
        self.observe(outcome, cause.as_str(), clock::coarse());
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
            Broke::Closed | Broke::Invalid => self.observe(Outcome::Broken, "its answer broke off", clock::coarse()),
        }
    }

    fn attempts_left(&self) -> bool {
        self.route.as_ref().is_some_and(|r| self.attempts <= r.backing.pool.settings().retries)
    }

    fn again(&mut self, cause: Cause) -> Next {
        self.failures.get_or_insert_default().last = Some(cause);
        self.again_because(cause.as_str());
        Next::Again
    }

    fn again_because(&mut self, why: &'static str) {
        self.count_retry(why);
        if let Some(chosen) = self.chosen.take() {
            self.failures.get_or_insert_default().tried.push(chosen.pick.backend.key().clone());
        }
    }

    fn count_retry(&self, why: &'static str) {
        if let Some(route) = &self.route {
            route.backing.metrics.retried(why);
        }
    }

    /// What a real request taught about the backend goes to its health.
    fn observe(&self, outcome: Outcome, why: &'static str, now: Instant) {
        let (Some(chosen), Some(route)) = (&self.chosen, &self.route) else { return };
        let transition = chosen.pick.backend.observe(outcome, now);
        if let Some(transition) = transition {
            self.proxy.health_changed(&route.backing, &chosen.pick.backend, transition, &why);
        }
    }

    /// The request asks to leave HTTP: its answer is no page.
    pub fn leaves_http(&mut self) {
        self.wants_shim = false;
    }

    /// How the head must change on its way to the backend.
    pub fn edits<'a>(&'a self, request: &Request<'a>) -> RequestEdits<'a> {
        RequestEdits::new(
            request.fields,
            Hop {
                way: &self.facts.way,
                host: self.host(),
                trusted: self.is_trusted,
                request_id: self.request_id(),
                rsc_request: self.route.as_ref().is_some_and(|r| r.backing.pool.settings().rsc_request),
                target: request.target,
                wants_identity: self.wants_shim,
            },
        )
    }

    /// The backend's final answer is here (not 1xx, but 101).
    pub fn answered<'a>(&mut self, status: u16, fields: &'a Fields<'a>) -> Reply<'a> {
        let edits = AnswerEdits::new(status, fields);
        let Some((chosen, route)) = self.chosen.as_ref().zip(self.route.as_ref()) else {
            return Reply::Pass { edits, cookie: None, page: None };
        };
        let now = clock::coarse();
        let heeds = route.backing.pool.settings().heeds_leaving;
        let says_so = heeds && status == 503 && fields.has(Known::BowlineLeaving);
        if says_so {
            self.observe(Outcome::Leaving, "it says that it leaves", now);
        }
        let is_leaving = says_so || matches!(status, 502 | 503) && chosen.pick.backend.is_leaving();
        if is_leaving
            && self.is_repeatable
            && !self.was_repeated
            && self.attempts_left()
            && self.somebody_else_is_ready(route)
        {
            self.was_repeated = true;
            self.again_because("backend_leaving");
            return Reply::Again;
        }
        // 502 and 504 are what a gateway says of a broken application. Where probes ask the gateway itself, one broken
        // application among many must not take it down. 503 and other errors are the application's own.
        match (matches!(status, 502 | 504), route.backing.pool.settings().probe.is_some()) {
            (true, true) => {}
            (true, false) => self.observe(Outcome::Broken, "it answered 502 or 504", now),
            (false, _) if says_so => {}
            (false, _) => self.observe(Outcome::Answered, "", now),
        }
        let may_be_page = self.wants_shim && fields.first(Known::ContentType).is_some_and(shim::may_be_page);
        let page = may_be_page.then(|| fields.to_map());
        let page = page.and_then(|fields| shim::plan(status, &fields, shim::Mode::Reconnect));
        Reply::Pass { edits, cookie: self.cookie(&route.backing, now), page }
    }

    fn somebody_else_is_ready(&self, route: &Route) -> bool {
        let Some(chosen) = &self.chosen else { return false };
        route.backing.pool.backends().iter().any(|b| b.is_ready() && !Arc::ptr_eq(b, &chosen.pick.backend))
    }

    /// The cookie the answer must carry: for who has none, whose cookie does not lead where the request went, or is
    /// half through its life.
    fn cookie(&self, backing: &Backing, now: Instant) -> Option<HeaderValue> {
        let chosen = self.chosen.as_ref()?;
        let renew = match &self.bound {
            Bound::Cookie { renew, .. } => *renew,
            Bound::Nothing { .. } | Bound::Recent(_) => true,
        };
        if !chosen.pick.writes_cookie(renew) {
            return None;
        }
        backing.cookie(&chosen.pick.backend, clock::unix_of(now).as_secs(), self.facts.way.is_tls)
    }

    /// Its body will be counted from the start again.
    pub fn body_starts_over(&mut self) {
        self.body_bytes = 0;
    }

    /// Counts request body bytes; `true` when they are more than the route takes.
    pub fn body_overflows(&mut self, bytes: u64) -> bool {
        self.body_bytes += bytes;
        self.route.as_ref().and_then(|r| r.body_bytes_max).is_some_and(|max| self.body_bytes > max)
    }

    /// What the client reads about a failure, in the format it reads.
    pub fn page(&self, cause: Cause) -> super::error::Page {
        super::error::page(cause, self.request_id(), self.reads_html)
    }

    /// The backend chosen for this attempt, with the pool it belongs to.
    pub fn chosen(&self) -> Option<(&Arc<Backing>, &Arc<Backend>)> {
        let (route, chosen) = (self.route.as_ref()?, self.chosen.as_ref()?);
        Some((&route.backing, &chosen.pick.backend))
    }

    /// The waits of the pool the request goes to.
    pub fn timeouts(&self) -> Option<&config::proxy::PoolTimeouts> {
        self.route.as_ref().map(|r| &r.backing.pool.settings().timeouts)
    }

    /// Will not be sent again, whatever happens to it: must not meet a kept connection that dies under it.
    pub fn needs_fresh_connection(&self) -> bool {
        !self.is_repeatable || self.was_repeated
    }

    /// May be sent again, should its connection turn out to be dead.
    pub fn may_repeat(&self) -> bool {
        self.is_repeatable && !self.was_repeated
    }

    /// May be sent again if no backend has seen it.
    pub fn may_repeat_unheard(&self) -> bool {
        !self.was_repeated
    }

    /// May be sent again though a backend may have seen it.
    pub fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// Its answer may be a page that is to be rewritten.
    pub fn wants_page(&self) -> bool {
        self.wants_shim
    }

    /// Who is at the other end, for the ledger.
    pub fn client_address(&self) -> Option<std::net::SocketAddr> {
        self.facts.way.client
    }

    /// What it became lives on for long: it is no longer among the requests in flight, and keeps nothing to send on.
    pub fn becomes_session(&mut self) {
        if let Some(chosen) = self.chosen.as_mut() {
            chosen.in_flight = None;
        }
        if let Some(facts) = Arc::get_mut(&mut self.facts) {
            facts.way.forget_lines();
        }
    }
}

/// Where the same is served over TLS; `None` without a host.
fn https_url(request: &Request<'_>, port: u16) -> Option<String> {
    let (name, _) = split_port(request.host);
    let target = if request.target.starts_with('/') { request.target } else { "/" };
    (!name.is_empty()).then(|| match port {
        443 => format!("https://{name}{target}"),
        _ => format!("https://{name}:{port}{target}"),
    })
}

/// Host and port of an authority; brackets of an IPv6 address stay.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => (&authority[..at], Some(&authority[at + 1..])),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request has one, and each websocket keeps its own. The allocator has pieces of this size.
    #[test]
    fn what_a_request_carries_is_small() {
        assert!(size_of::<Context>() <= 192, "{} bytes", size_of::<Context>());
    }
}
