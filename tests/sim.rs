//! A seeded simulation of the proxy's pure core: clients, failures, drains and reloads in random order, and after every
//! step what must hold whatever happened. Nothing here sleeps or opens a socket; time is a number.
//!
//! A failure names its seed; `SIM_SEED=7 cargo test --test sim` runs only that one, `SIM_SEEDS=10000` runs more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::config::proxy as settings;
use bowline::config::proxy::{AdminState, CookieAffinity, HostPattern, Policy, PoolTimeouts, Probe, ProbeKind};
use bowline::proxy::affinity::recent::{Recent, fingerprint};
use bowline::proxy::affinity::{Affinity, Cause, Hint, KeyRing};
use bowline::proxy::pool::{Backend, Health, InFlight, NoPick, Outcome, Pick, Pool, Reason, SessionGuard};
use bowline::proxy::route::Table;
use bowline::runtime::clock;
use bowline::types::{BackendAddress, BackendKey};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

#[test]
fn the_core_keeps_its_promises_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = number("SIM_SEED").map_or(0..number("SIM_SEEDS").unwrap_or(150), |seed| seed..seed + 1);
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        match catch_unwind(|| World::new(seed).run()) {
            Ok(more) => more.into_iter().for_each(|(what, times)| *seen.entry(what).or_default() += times),
            Err(_) => panic!("seed {seed} failed; run it alone with SIM_SEED={seed}"),
        }
    }
    if seeds.end - seeds.start >= 100 {
        for what in ["sticky", "rebound", "detour", "unknown", "trial", "fail open", "waits", "tried all", "nobody"] {
            assert!(seen.get(what).is_some_and(|times| *times > 50), "hardly any `{what}` in {seen:?}");
        }
    }
}

/// How often something happened, so that the simulation cannot quietly stop covering it.
type Seen = HashMap<&'static str, u64>;

/// What a machine really does, whatever the pool believes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reality {
    Works,
    Refuses,
    Hangs,
}

/// One pool and all that is true of it.
struct Site {
    settings: settings::Pool,
    pool: Pool,
    affinity: Affinity,
    /// Those not in it work.
    reality: HashMap<BackendKey, Reality>,
    /// When a down backend last failed or was tried, by key and port.
    touched: HashMap<(BackendKey, u16), Instant>,
}

/// A cookie, and what we know it says.
struct Held {
    value: String,
    backend: BackendKey,
    issued: u64,
    key_generation: u64,
    is_altered: bool,
}

struct Client {
    address: IpAddr,
    keeps_cookies: bool,
    /// One per site.
    jar: [Option<Held>; 2],
}

struct World {
    random: Random,
    start: Instant,
    elapsed: Duration,
    sites: Vec<Site>,
    routes: Table<usize>,
    recent: Recent,
    clients: Vec<Client>,
    sessions: Vec<(usize, SessionGuard)>,
    slow: Vec<(usize, InFlight)>,
    /// Of the keys in the ring, newest first.
    key_generations: Vec<u64>,
    /// The last one given: who comes back under an old key comes at a new port, so key and port name one life.
    port: u16,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut random, start, key_generations) = (Random(seed), clock::now(), vec![0]);
        let sites = ["app", "api"].map(|name| {
            let policies = [Policy::LeastSessions, Policy::LeastSessions, Policy::LeastRequests, Policy::RoundRobin];
            let policy = random.among(policies);
            let settings = pool_settings(name, policy, random.one_in(4), !random.one_in(3));
            let pool = Pool::new(Arc::new(settings.clone()), None, start);
            let affinity = affinity_of(name, &key_generations);
            Site { settings, pool, affinity, reality: HashMap::new(), touched: HashMap::new() }
        });
        let routes = Table::new(vec![
            (HostPattern::Any, "/api".to_owned(), 1),
            (HostPattern::Exact("api.example.org".to_owned()), "/".to_owned(), 1),
            (HostPattern::Any, "/".to_owned(), 0),
        ]);
        Self {
            random,
            start,
            elapsed: Duration::ZERO,
            sites: sites.into(),
            routes,
            recent: Recent::new(),
            clients: Vec::new(),
            sessions: Vec::new(),
            slow: Vec::new(),
            key_generations,
            port: 80,
            seen: Seen::new(),
        }
    }

    fn run(mut self) -> Seen {
        for _ in 0..500 {
            self.step();
            self.counters_agree();
        }
        self.settle();
        self.seen
    }

    fn step(&mut self) {
        let site = self.random.below(2);
        match self.random.below(100) {
            0..50 if !self.clients.is_empty() => {
                let client = self.random.below(self.clients.len());
                let served = self.request(client, site, None);
                if let Some(backend) = served.and_then(|key| self.sites[site].pool.backend(key.as_str()))
                    && self.random.one_in(3)
                {
                    self.sessions.push((site, backend.begin_session()));
                }
            }
            50..58 => self.open_page(site),
            58..66 => {
                for _ in 0..self.random.below(4).min(self.sessions.len()) {
                    let ended = self.random.below(self.sessions.len());
                    drop(self.sessions.swap_remove(ended));
                }
            }
            66..70 if !self.slow.is_empty() => {
                let (site, request) = self.slow.swap_remove(self.random.below(self.slow.len()));
                let outcome = self.random.among([Outcome::Broken, Outcome::Answered, Outcome::Answered]);
                self.observe(site, request.backend(), outcome);
            }
            70..83 => {
                self.elapsed += Duration::from_millis(self.random.among([50, 500, 2_000, 11_000]));
                self.probe();
            }
            83..89 => {
                let key = self.some_backend(site);
                let reality = self.random.among([Reality::Works, Reality::Works, Reality::Refuses, Reality::Hangs]);
                if reality == Reality::Refuses {
                    // The process died: so did its sessions.
                    self.sessions.retain(|(s, session)| *s != site || *session.backend().key() != key);
                }
                self.sites[site].reality.insert(key, reality);
            }
            89..93 => {
                let (key, now) = (self.some_backend(site), self.now());
                let admin = [AdminState::Enabled, AdminState::Enabled, AdminState::Draining, AdminState::Disabled];
                let backend = self.sites[site].pool.backend(key.as_str()).expect("it is in the pool");
                backend.set_admin(self.random.among(admin), now);
            }
            93..97 => self.reload(site),
            97 => self.rotate_keys(),
            98 if !self.clients.is_empty() => {
                let client = self.random.below(self.clients.len());
                self.spoil_cookie(client, site);
            }
            _ => {}
        }
    }

    /// A new client opens a page; its first requests are on their way before the first answer brings a cookie.
    fn open_page(&mut self, site: usize) {
        // Few addresses: many clients share one.
        let address = IpAddr::from([10, 0, 0, self.random.below(3) as u8]);
        let keeps_cookies = !self.random.one_in(5);
        self.clients.push(Client { address, keeps_cookies, jar: [None, None] });
        let client = self.clients.len() - 1;
        let Some(first) = self.request(client, site, None) else { return };
        let (name, now) = (Arc::clone(&self.sites[site].settings.name), self.now());
        let newcomer = fingerprint(address, b"agent", &name);
        self.recent.remember(newcomer, &first, now);
        let answered = self.clients[client].jar[site].take();
        for _ in 0..3 {
            self.elapsed += Duration::from_millis(100);
            let recalled = self.recent.recall(fingerprint(self.clients[client].address, b"agent", &name), self.now());
            assert_eq!(recalled.as_ref(), Some(&first), "the first requests of a page agree");
            let backend = self.sites[site].pool.backend(first.as_str()).expect("nothing was reloaded since");
            let may_stay = backend.health() == Health::Up && backend.admin() != AdminState::Disabled;
            let works = self.sites[site].reality_of(&first) == Reality::Works;
            let served = self.request(client, site, recalled);
            assert!(!(may_stay && works) || served.as_ref() == Some(&first), "a page stays together");
            self.clients[client].jar[site] = None;
        }
        self.clients[client].jar[site] = answered;
    }

    /// One request with its retries, as the proxy makes it. Returns the backend that served it.
    fn request(&mut self, client: usize, site: usize, recalled: Option<BackendKey>) -> Option<BackendKey> {
        let (host, path) = self.random.among(
            [
                [("app.example.org", "/x"), ("app.example.org", "/apis")],
                [("API.example.org:8443", "/"), ("app.example.org", "/api/x?y")],
            ][site],
        );
        assert_eq!(self.routes.find(Some(host), path), Some(&site));

        let cookies = self.cookies(client);
        let values = cookies.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let hint = self.sites[site].affinity.read(values, self.unix_s());
        assert_eq!(hint, self.expected_hint(client, site));
        let (bound, renew) = match hint {
            Hint::Bound { backend, renew } => (Some(backend), renew),
            Hint::None | Hint::Rejected(_) => (recalled, true),
        };
        let mut tried = Vec::new();
        while tried.len() < 3 {
            let pick = self.judged_pick(site, bound.as_ref(), &tried).ok()?;
            let request = pick.backend.begin_request();
            let key = pick.backend.key().clone();
            let outcome = match self.sites[site].reality_of(&key) {
                Reality::Works => Outcome::Answered,
                Reality::Refuses => Outcome::Refused,
                Reality::Hangs => Outcome::TimedOut,
            };
            self.observe(site, &pick.backend, outcome);
            if outcome != Outcome::Answered {
                tried.push(key);
                continue;
            }
            if self.random.one_in(8) {
                self.slow.push((site, request));
            }
            if pick.writes_cookie(renew) && self.clients[client].keeps_cookies {
                self.bind(client, site, key.clone());
            }
            return Some(key);
        }
        None
    }

    /// Picks, and holds the pick against every promise.
    fn judged_pick(&mut self, site: usize, bound: Option<&BackendKey>, tried: &[BackendKey]) -> Result<Pick, NoPick> {
        let now = self.now();
        let Site { settings, pool, touched, .. } = &mut self.sites[site];
        let before: Vec<_> = pool.backends().iter().map(|b| State::of(b, settings.policy, tried)).collect();
        let own = bound.and_then(|key| before.iter().find(|b| b.key == *key));
        let candidates = |health| before.iter().filter(move |b| b.takes_new && b.health == health);
        let is_somebody_up = candidates(Health::Up).next().is_some();
        let is_own_allowed = own.is_some_and(|b| b.takes_bound && b.health == Health::Up);
        let picked = pool.pick(bound, tried, now);
        let what = match &picked {
            Ok(pick) => {
                let it = before.iter().find(|b| b.key == *pick.backend.key()).expect("it is in the pool");
                let is_own = own.is_some_and(|b| b.key == it.key);
                assert!(it.takes_new || (is_own && it.takes_bound), "disabled, tried, or draining for a new client");
                assert!(is_own || !is_own_allowed, "a bound client left its backend for {}", it.key);
                assert_eq!(pick.reason == Reason::Sticky, is_own);
                assert_eq!(pick.was_unknown, bound.is_some() && own.is_none());
                match own {
                    Some(_) if is_own => assert!(!pick.binds),
                    Some(own) => {
                        let must_move = own.admin == AdminState::Disabled || own.health == Health::Down;
                        assert_eq!(pick.binds, must_move, "only who must move is bound anew");
                        assert_eq!(pick.reason == Reason::Rebound, must_move);
                    }
                    None => assert!(pick.binds && pick.reason == Reason::Balanced),
                }
                match it.health {
                    Health::Unknown => panic!("{} has no verdict yet", it.key),
                    Health::Leaving => panic!("{}: no backend of this world says that it leaves", it.key),
                    Health::Up => {
                        let least = candidates(Health::Up).map(|b| b.load).fold(f64::INFINITY, f64::min);
                        assert!(is_own || it.load <= least, "{} is not the least loaded", it.key);
                        match (is_own, pick.was_unknown, pick.reason, pick.binds) {
                            (true, ..) => "sticky",
                            (_, true, ..) => "unknown",
                            (.., Reason::Rebound, _) => "rebound",
                            (.., true) => "new",
                            (.., false) => "detour",
                        }
                    }
                    Health::Down => {
                        let pause = Duration::from_secs(if is_somebody_up { 10 } else { 1 });
                        let place = (it.key.clone(), port_of(pick.backend.address()));
                        let is_due = touched.get(&place).is_none_or(|last| now - *last >= pause);
                        let is_trial = settings.probe.is_none() && is_due;
                        if is_trial {
                            touched.insert(place, now);
                        }
                        assert!(is_trial || (settings.fail_open && !is_somebody_up), "{} is down", it.key);
                        if is_trial { "trial" } else { "fail open" }
                    }
                }
            }
            Err(why) => {
                assert!(!is_own_allowed, "{why:?} for a client whose backend is there");
                let own_waits = own.is_some_and(|b| b.takes_bound && b.health == Health::Unknown);
                let somebody_waits = candidates(Health::Unknown).next().is_some();
                assert!(own_waits || !is_somebody_up, "{why:?} though somebody is up");
                match why {
                    NoPick::NoVerdictYet => {
                        assert!(own_waits || somebody_waits);
                        "waits"
                    }
                    NoPick::AllTried => {
                        assert!(!tried.is_empty());
                        "tried all"
                    }
                    NoPick::NobodyReady => {
                        assert!(!somebody_waits, "a verdict is due");
                        let is_open = settings.fail_open && candidates(Health::Down).next().is_some();
                        assert!(!is_open, "the pool fails open");
                        "nobody"
                    }
                }
            }
        };
        *self.seen.entry(what).or_default() += 1;
        picked
    }

    fn observe(&mut self, site: usize, backend: &Backend, outcome: Outcome) {
        let (now, before) = (self.now(), backend.health());
        let transition = backend.observe(outcome, now).map(|t| (t.from, t.to));
        let after = backend.health();
        assert_eq!(transition, (before != after).then_some((before, after)));
        assert!(outcome != Outcome::Refused || after == Health::Down);
        let failed = matches!(outcome, Outcome::Refused | Outcome::TimedOut | Outcome::Broken);
        if failed && after == Health::Down {
            let place = (backend.key().clone(), port_of(backend.address()));
            self.sites[site].touched.insert(place, now);
        }
    }

    fn probe(&mut self) {
        for site in 0..self.sites.len() {
            if self.sites[site].settings.probe.is_some() {
                for backend in self.sites[site].pool.backends().to_vec() {
                    let works = self.sites[site].reality_of(backend.key()) == Reality::Works;
                    self.observe(site, &backend, if works { Outcome::ProbeOk } else { Outcome::ProbeFailed });
                }
            }
        }
    }

    fn reload(&mut self, site: usize) {
        let (now, random) = (self.now(), &mut self.random);
        self.port += 1;
        let Site { settings, pool, .. } = &mut self.sites[site];
        let count = settings.backends.len();
        let some = random.below(count);
        match random.below(8) {
            0 | 1 if count < 6 => {
                let is_free = |key: &String| settings.backends.iter().all(|b| b.key.as_str() != key);
                let key = (0..6).map(|n| format!("b{n}")).find(is_free).expect("at most five are used");
                settings.backends.insert(some, backend_settings(&key, self.port, random.among([1, 2, 3])));
            }
            2 | 3 if count > 1 => drop(settings.backends.remove(some)),
            4 => settings.backends[some].weight = random.among([1, 2, 3]),
            5 => settings.backends[some].address = address(self.port),
            6 => settings.fail_open = !settings.fail_open,
            7 if random.one_in(2) => settings.probe = if settings.probe.is_some() { None } else { Some(probe()) },
            _ => settings.backends[some].admin = random.among([AdminState::Enabled, AdminState::Draining]),
        }
        let known: Vec<_> = pool.backends().iter().map(|b| (Arc::clone(b), b.health())).collect();
        *pool = Pool::new(Arc::new(settings.clone()), Some(pool), now);
        for backend in pool.backends() {
            let known = known.iter().find(|(b, _)| b.key() == backend.key());
            if let Some((old, _)) = known {
                assert_eq!(backend.requests(), old.requests());
            }
            let health = known.filter(|(old, _)| old.address() == backend.address()).map(|(_, health)| *health);
            let expected = match (health, &settings.probe) {
                (None | Some(Health::Unknown), Some(_)) => Health::Unknown,
                (None | Some(Health::Unknown), None) => Health::Up,
                (Some(health), _) => health,
            };
            assert_eq!(backend.health(), expected, "health stays with key and address");
        }
    }

    fn rotate_keys(&mut self) {
        self.key_generations.insert(0, self.key_generations[0] + 1);
        self.key_generations.truncate(2);
        for site in &mut self.sites {
            site.affinity = affinity_of(&site.settings.name, &self.key_generations);
        }
    }

    fn spoil_cookie(&mut self, client: usize, site: usize) {
        let held = &mut self.clients[client].jar[site];
        if self.random.one_in(2) {
            *held = None;
        } else if let Some(held) = held.as_mut().filter(|h| !h.is_altered) {
            let at = self.random.below(held.value.len());
            let other = if held.value.as_bytes()[at] == b'A' { "B" } else { "A" };
            held.value.replace_range(at..=at, other);
            held.is_altered = true;
        }
    }

    fn bind(&mut self, client: usize, site: usize, backend: BackendKey) {
        let (issued, key_generation) = (self.unix_s(), self.key_generations[0]);
        let nonce = std::array::from_fn(|_| self.random.next() as u8);
        let field = self.sites[site].affinity.set_cookie(&backend, issued, nonce, true);
        let pair = field.to_str().expect("ASCII").split("; ").next().expect("a pair");
        let value = pair.split_once('=').expect("a value").1.to_owned();
        self.clients[client].jar[site] = Some(Held { value, backend, issued, key_generation, is_altered: false });
    }

    /// As a client sends them that takes attributes for cookies.
    fn cookies(&self, client: usize) -> HeaderMap {
        let held = self.clients[client].jar.iter().zip(&self.sites);
        let pairs =
            held.filter_map(|(held, site)| Some(format!("{}={}", site.affinity.cookie_name(), held.as_ref()?.value)));
        let text = pairs.chain(["path=/; HttpOnly".to_owned()]).collect::<Vec<_>>().join("; ");
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(text).expect("a field"))])
    }

    fn expected_hint(&self, client: usize, site: usize) -> Hint {
        let Some(held) = &self.clients[client].jar[site] else { return Hint::None };
        if held.is_altered || !self.key_generations.contains(&held.key_generation) {
            return Hint::Rejected(Cause::Unsealed);
        }
        let age = self.unix_s() - held.issued;
        if age >= LIFETIME_S {
            return Hint::Rejected(Cause::Expired);
        }
        let renew = age > LIFETIME_S / 2 || held.key_generation != self.key_generations[0];
        Hint::Bound { backend: held.backend.clone(), renew }
    }

    /// What is counted by key is what is held, also of backends that left and came back.
    fn counters_agree(&self) {
        for (at, site) in self.sites.iter().enumerate() {
            for backend in site.pool.backends() {
                let is_here = |s: usize, b: &Backend| s == at && b.key() == backend.key();
                let sessions = self.sessions.iter().filter(|(s, g)| is_here(*s, g.backend())).count() as u64;
                let in_flight = self.slow.iter().filter(|(s, g)| is_here(*s, g.backend())).count() as u64;
                assert_eq!((backend.sessions(), backend.in_flight()), (sessions, in_flight), "{}", backend.key());
            }
        }
    }

    /// All ends well: everybody works and is enabled again. Then everybody is soon up, bound clients are at home,
    /// new sessions spread, and counters return to zero.
    fn settle(&mut self) {
        self.sessions.clear();
        self.slow.clear();
        let now = self.now();
        for site in &mut self.sites {
            site.reality.clear();
            site.pool.backends().iter().for_each(|b| b.set_admin(AdminState::Enabled, now));
        }
        self.probe();
        self.probe();
        // Without probes a down backend recovers by trials: one request each, after the pause.
        self.elapsed += Duration::from_secs(11);
        for site in 0..self.sites.len() {
            for _ in 0..self.sites[site].pool.backends().len() {
                let pick = self.judged_pick(site, None, &[]).expect("somebody is up or due for a trial");
                self.observe(site, &pick.backend, Outcome::Answered);
            }
            assert!(self.sites[site].pool.backends().iter().all(|b| b.is_ready()), "everybody is ready again");
            for client in 0..self.clients.len() {
                let home = match self.expected_hint(client, site) {
                    Hint::Bound { backend, .. } if self.sites[site].pool.backend(backend.as_str()).is_some() => {
                        Some(backend)
                    }
                    _ => None,
                };
                let served = self.request(client, site, None).expect("everybody works");
                assert!(home.is_none_or(|home| home == served), "a bound client is not at home");
            }
        }
        self.slow.clear();
        self.counters_agree();
        for Site { pool, .. } in self.sites.iter().filter(|s| s.settings.policy == Policy::LeastSessions) {
            let new = || pool.pick(None, &[], now).expect("everybody is up").backend.begin_session();
            let sessions: Vec<_> = (0..60).map(|_| new()).collect();
            let total: u32 = pool.backends().iter().map(|b| b.weight()).sum();
            for backend in pool.backends() {
                let share = 60.0 * f64::from(backend.weight()) / f64::from(total);
                let off = (backend.sessions() as f64 - share).abs();
                assert!(off <= f64::from(backend.weight()) + 1.0, "{} sessions of {share}", backend.sessions());
            }
            drop(sessions);
        }
        self.counters_agree();
    }

    fn some_backend(&mut self, site: usize) -> BackendKey {
        let backends = self.sites[site].pool.backends();
        backends[self.random.below(backends.len())].key().clone()
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn unix_s(&self) -> u64 {
        1_800_000_000 + self.elapsed.as_secs()
    }
}

impl Site {
    fn reality_of(&self, key: &BackendKey) -> Reality {
        self.reality.get(key).copied().unwrap_or(Reality::Works)
    }
}

/// A backend just before a pick, by the table of states and clients in the words of the design.
struct State {
    key: BackendKey,
    admin: AdminState,
    health: Health,
    /// Enabled, and not tried for this request; health apart.
    takes_new: bool,
    /// Enabled or draining, and not tried for this request; health apart.
    takes_bound: bool,
    load: f64,
}

impl State {
    fn of(backend: &Backend, policy: Policy, tried: &[BackendKey]) -> Self {
        let (key, admin) = (backend.key().clone(), backend.admin());
        let load = match policy {
            Policy::LeastSessions => backend.sessions() + backend.in_flight(),
            Policy::LeastRequests => backend.in_flight(),
            Policy::RoundRobin => 0,
        };
        let is_untried = !tried.contains(&key);
        Self {
            key,
            admin,
            health: backend.health(),
            takes_new: admin == AdminState::Enabled && is_untried,
            takes_bound: admin != AdminState::Disabled && is_untried,
            load: load as f64 / f64::from(backend.weight()),
        }
    }
}

fn pool_settings(name: &str, policy: Policy, fail_open: bool, is_probed: bool) -> settings::Pool {
    let second = Duration::from_secs(1);
    settings::Pool {
        name: name.into(),
        policy,
        affinity: Some(cookie_settings(name)),
        tls: None,
        probe: is_probed.then(probe),
        backends: ["b0", "b1", "b2"].map(|key| backend_settings(key, 80, 1)).into(),
        timeouts: PoolTimeouts {
            connect: second,
            response: second,
            body: second,
            keepalive: second,
            tunnel_idle: second,
            tunnel_ping: second,
            startup: second,
        },
        reconnect_shim: false,
        rsc_request: false,
        heeds_leaving: false,
        fail_open,
        retries: 2,
    }
}

fn probe() -> Probe {
    let second = Duration::from_secs(1);
    Probe { kind: ProbeKind::Tcp, interval: second, fast_interval: second, timeout: second, rise: 2, fall: 3 }
}

fn backend_settings(key: &str, port: u16, weight: u32) -> settings::Backend {
    let key = key.parse().expect("a key");
    settings::Backend { key, address: address(port), weight, admin: AdminState::Enabled }
}

fn address(port: u16) -> BackendAddress {
    BackendAddress::Inet { host: "node".to_owned(), port }
}

fn port_of(address: &BackendAddress) -> u16 {
    match address {
        BackendAddress::Inet { port, .. } => *port,
        BackendAddress::Unix(_) => 0,
    }
}

fn cookie_settings(pool: &str) -> CookieAffinity {
    CookieAffinity {
        name: format!("bowline_{pool}"),
        key_file: "unused".into(),
        lifetime: Some(Duration::from_secs(LIFETIME_S)),
        cross_site: false,
    }
}

fn affinity_of(pool: &str, key_generations: &[u64]) -> Affinity {
    let file = key_generations.iter().map(|&generation| {
        let mut random = Random(generation);
        KeyRing::generate(std::array::from_fn(|_| random.next() as u8))
    });
    let ring = KeyRing::parse(&file.collect::<String>()).expect("a ring");
    Affinity::new(&cookie_settings(pool), pool, Arc::new(ring))
}

/// SplitMix64: small, seeded, good enough to shuffle a world.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn among<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }
}

const LIFETIME_S: u64 = 120;
