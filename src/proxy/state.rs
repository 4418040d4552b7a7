//! What requests run on: one immutable snapshot of routes and pools, swapped whole.
//!
//! Built from settings and the files they name. What must live on across reloads (health, counters, admin state) is
//! taken over from the previous state by backend key.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use tokio::sync::Notify;

use super::affinity::recent::Recent;
use super::affinity::{Affinity, KeyRing};
use super::certificates::{CertificateProblem, Certificates, Severity};
use super::dial::UpstreamTlsConfig;
use super::listener::{Current, tls};
use super::metrics::{BackendMetrics, Metrics, PoolMetrics, RouteMetrics};
use super::pool::{Backend, Pool};
use super::route::Table;
use crate::config;
use crate::runtime::dice;

/// One snapshot. A request takes one `Arc` of it at its start and never sees half a reload.
pub struct State {
    /// Counts reloads; 1 is the state the process started with.
    pub generation: u64,
    /// The settings it was built from.
    pub settings: config::proxy::Live,
    /// Which route takes a request.
    pub routes: Table<Arc<Route>>,
    /// In the order of the settings.
    pub pools: Vec<Arc<Backing>>,
    /// What the listeners serve by, in the order of the settings.
    pub listeners: Vec<Arc<Current>>,
    /// Certificates by folder; shared with the listeners' resolvers, replaced in place on renewal.
    pub certificates: HashMap<PathBuf, Arc<ArcSwap<Certificates>>>,
}

/// A route with what a request on it needs.
pub struct Route {
    /// Its label.
    pub name: Arc<str>,
    /// Where its requests go.
    pub backing: Arc<Backing>,
    /// Larger request bodies get 413.
    pub body_bytes_max: Option<u64>,
    /// Its counters, by listener.
    pub metrics: Vec<(Arc<str>, Arc<RouteMetrics>)>,
}

/// Numbers that connections to backends are told apart by; never 0.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A pool with everything about it that is not pure.
pub struct Backing {
    /// The backends and the choice among them.
    pub pool: Arc<Pool>,
    /// `Some`: clients are bound by cookie.
    pub affinity: Option<Affinity>,
    /// The cookies sealed last: for each backend one over http and one over https.
    minted: Vec<[ArcSwapOption<Minted>; 2]>,
    /// What new clients were given in the last two seconds.
    pub recent: Arc<Recent>,
    /// `Some`: backends are dialled by https.
    pub tls: Option<Arc<UpstreamTlsConfig>>,
    /// The first backend's number among all there ever were; the others follow in the pool's order.
    first_id: u64,
    /// Its counters.
    pub metrics: Arc<PoolMetrics>,
    /// The backends' counters, in the pool's order.
    pub backend_metrics: Vec<Arc<BackendMetrics>>,
    /// Told at each verdict; requests that came before the first one wait here.
    pub verdict: Arc<Notify>,
    /// What was read from the files the settings name, to see whether a reload changes anything.
    sources: Sources,
}

/// A cookie, and the second it was sealed in.
struct Minted {
    unix_s: u64,
    cookie: HeaderValue,
}

/// Contents of the files a pool was built from.
#[derive(Clone, PartialEq, Eq, Default)]
struct Sources {
    key_ring: Option<String>,
    ca: Option<Vec<u8>>,
}

/// A problem met while building a state; it carries the file it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", file.display())]
pub struct Problem {
    /// The file at fault.
    pub file: PathBuf,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Only told, not refused.
    pub is_warning: bool,
}

/// Everything of the next state that can be refused, read and checked.
pub struct Prepared {
    settings: config::proxy::Live,
    /// One per pool, in order.
    ingredients: Vec<Ingredients>,
    /// What the listeners will serve by, in the order of the settings.
    pub listeners: Vec<Arc<Current>>,
    certificates: HashMap<PathBuf, Arc<ArcSwap<Certificates>>>,
    /// Problems that do not stop it.
    pub warnings: Vec<Problem>,
}

/// What a pool is built from besides its settings.
#[derive(Default)]
struct Ingredients {
    sources: Sources,
    ring: Option<KeyRing>,
    tls: Option<Arc<UpstreamTlsConfig>>,
}

impl State {
    /// Reads and checks the files the settings name; binds and dials nothing, changes nothing.
    ///
    /// # Errors
    /// Every problem that makes the settings unusable, and the warnings.
    pub fn prepare(
        settings: config::proxy::Live,
        previous: Option<&Self>,
        tickets: &tls::Tickets,
        metrics: &Metrics,
        unix_s: u64,
    ) -> Result<Prepared, Vec<Problem>> {
        let mut problems = Vec::new();
        let ingredients = settings.pools.iter().map(|pool| read_ingredients(pool, &mut problems)).collect();
        let (mut certificates, mut listeners) = (HashMap::new(), Vec::new());
        for listener in &settings.listeners {
            let config = match &listener.tls {
                None => None,
                Some(tls) => {
                    let before = previous.and_then(|p| p.certificates.get(&tls.certificates));
                    let Some(shared) =
                        shared_certificates(&mut certificates, &tls.certificates, before, unix_s, &mut problems)
                    else {
                        continue;
                    };
                    match tls::server_config(tls, shared, tickets) {
                        Ok(config) => Some(config),
                        Err(error) => {
                            let remedy = "look at the TLS settings of this listener";
                            problems.push(Problem::error(&tls.certificates, error.to_string(), remedy));
                            continue;
                        }
                    }
                }
            };
            let metrics = metrics.listener(&listener.name);
            listeners.push(Arc::new(Current { settings: listener.clone(), tls: config, metrics }));
        }
        let (warnings, errors): (Vec<_>, Vec<_>) = problems.into_iter().partition(|p| p.is_warning);
        if !errors.is_empty() {
            return Err(errors.into_iter().chain(warnings).collect());
        }
        Ok(Prepared { settings, ingredients, listeners, certificates, warnings })
    }

    /// The pool of this name.
    pub fn backing(&self, pool: &str) -> Option<&Arc<Backing>> {
        self.pools.iter().find(|b| **b.pool.name() == *pool)
    }
}

impl Prepared {
    /// The settings it will run on.
    pub fn settings(&self) -> &config::proxy::Live {
        &self.settings
    }

    /// The next state. From here on nothing can be refused, and what lives on is taken over from the previous one.
    pub fn build(self, previous: Option<&State>, metrics: &Metrics, now: Instant) -> State {
        let Self { settings, ingredients, listeners, certificates, .. } = self;
        let pools: Vec<_> = settings
            .pools
            .iter()
            .zip(ingredients)
            .map(|(pool, ingredients)| {
                let was = previous.and_then(|p| p.pools.iter().find(|b| *b.pool.name() == pool.name));
                backing(pool, ingredients, was, metrics, now)
            })
            .collect();
        let route = |route: &config::proxy::Route| {
            let backing = pools.iter().find(|b| *b.pool.name() == route.pool)?;
            let handles = settings
                .listeners
                .iter()
                .map(|l| (Arc::clone(&l.name), metrics.route(&l.name, &route.name, &route.pool)));
            let target = Route {
                name: Arc::clone(&route.name),
                backing: Arc::clone(backing),
                body_bytes_max: route.body_bytes_max,
                metrics: handles.collect(),
            };
            Some((route.host.clone(), route.path.clone(), Arc::new(target)))
        };
        let routes = Table::new(settings.routes.iter().filter_map(route).collect());
        let generation = previous.map_or(1, |p| p.generation + 1);
        State { generation, routes, pools, listeners, certificates, settings }
    }
}

impl Problem {
    fn error(file: &Path, message: String, remedy: &str) -> Self {
        Self { file: file.to_owned(), message, remedy: remedy.to_owned(), is_warning: false }
    }
}

/// One set of certificates per folder, however many listeners use it.
fn shared_certificates(
    all: &mut HashMap<PathBuf, Arc<ArcSwap<Certificates>>>,
    folder: &Path,
    before: Option<&Arc<ArcSwap<Certificates>>>,
    unix_s: u64,
    problems: &mut Vec<Problem>,
) -> Option<Arc<ArcSwap<Certificates>>> {
    if let Some(shared) = all.get(folder) {
        return Some(Arc::clone(shared));
    }
    let loaded = load_certificates(folder, before.map(|b| b.load_full()).as_deref(), unix_s, problems)?;
    let shared = Arc::new(ArcSwap::from_pointee(loaded));
    all.insert(folder.to_owned(), Arc::clone(&shared));
    Some(shared)
}

/// Reads a folder of certificates; what was valid before is never replaced by something expired.
pub fn load_certificates(
    folder: &Path,
    before: Option<&Certificates>,
    unix_s: u64,
    problems: &mut Vec<Problem>,
) -> Option<Certificates> {
    let (loaded, found) = Certificates::load(folder, unix_s);
    problems.extend(found.into_iter().map(Problem::from));
    let loaded = loaded?;
    let Some(before) = before else { return Some(loaded) };
    let (merged, kept) = loaded.succeed(before);
    problems.extend(kept.into_iter().map(Problem::from));
    Some(merged)
}

impl From<CertificateProblem> for Problem {
    fn from(problem: CertificateProblem) -> Self {
        let is_warning = problem.severity() == Severity::Warning;
        Self { message: problem.cause.to_string(), remedy: problem.remedy(), file: problem.file, is_warning }
    }
}

fn read_ingredients(settings: &config::proxy::Pool, problems: &mut Vec<Problem>) -> Ingredients {
    let mut found = Ingredients::default();
    if let Some(cookie) = &settings.affinity {
        match read_key_ring(&cookie.key_file, problems) {
            Ok((text, ring)) => (found.sources.key_ring, found.ring) = (Some(text), Some(ring)),
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(wanted) = &settings.tls {
        found.sources.ca = wanted.ca_file.as_deref().and_then(|f| std::fs::read(f).ok());
        match UpstreamTlsConfig::load(wanted) {
            Ok(config) => found.tls = Some(Arc::new(config)),
            Err(error) => problems.push(Problem::error(
                wanted.ca_file.as_deref().unwrap_or(Path::new("")),
                format!("TLS towards the backends of pool `{}`: {error}", settings.name),
                "`ca_file` must hold the PEM certificates of the authority that signed the backends' certificates",
            )),
        }
    }
    found
}

fn backing(
    settings: &config::proxy::Pool,
    ingredients: Ingredients,
    was: Option<&Arc<Backing>>,
    metrics: &Metrics,
    now: Instant,
) -> Arc<Backing> {
    let Ingredients { sources, ring, tls } = ingredients;
    if let Some(was) = was.filter(|w| **w.pool.settings() == *settings && w.sources == sources) {
        return Arc::clone(was);
    }
    let settings = Arc::new(settings.clone());
    let pool = Arc::new(Pool::new(Arc::clone(&settings), was.map(|w| &*w.pool), now));
    let affinity = settings
        .affinity
        .as_ref()
        .zip(ring)
        .map(|(cookie, ring)| Affinity::new(cookie, &settings.name, Arc::new(ring)));
    let first_id = NEXT_ID.fetch_add(pool.backends().len() as u64, Ordering::Relaxed);
    let minted = pool.backends().iter().map(|_| Default::default()).collect();
    Arc::new(Backing {
        affinity,
        minted,
        recent: was.map_or_else(|| Arc::new(Recent::new()), |w| Arc::clone(&w.recent)),
        tls,
        first_id,
        metrics: metrics.pool(&settings.name),
        backend_metrics: pool.backends().iter().map(|b| metrics.backend(&settings.name, b.key())).collect(),
        verdict: was.map_or_else(|| Arc::new(Notify::new()), |w| Arc::clone(&w.verdict)),
        pool,
        sources,
    })
}

impl Backing {
    /// What tells connections to the backend at this place from all others: to this address and by this TLS.
    pub fn id(&self, place: usize) -> u64 {
        self.first_id + place as u64
    }

    /// The `Set-Cookie` that binds a client to this backend; `None` where clients are not bound. A cookie says nothing of
    /// who has it, so all that are bound within a second get the same, and one is sealed.
    pub fn cookie(&self, backend: &Backend, unix_s: u64, is_tls: bool) -> Option<HeaderValue> {
        let affinity = self.affinity.as_ref()?;
        let place = self.minted.get(backend.place()).map(|both| &both[usize::from(is_tls)]);
        let minted =
            place.and_then(|place| place.load().as_ref().filter(|m| m.unix_s == unix_s).map(|m| m.cookie.clone()));
        if minted.is_some() {
            return minted;
        }
        let cookie = affinity.set_cookie(backend.key(), unix_s, dice::secret(), is_tls);
        if let Some(place) = place {
            place.store(Some(Arc::new(Minted { unix_s, cookie: cookie.clone() })));
        }
        Some(cookie)
    }

    /// Whether the files it was built from still say the same.
    pub fn sources_are_current(&self) -> bool {
        let settings = self.pool.settings();
        let now = Sources {
            key_ring: settings.affinity.as_ref().and_then(|c| std::fs::read_to_string(&c.key_file).ok()),
            ca: settings.tls.as_ref().and_then(|t| t.ca_file.as_deref()).and_then(|f| std::fs::read(f).ok()),
        };
        now == self.sources
    }
}

/// Reads what the settings name and tells what is wrong with it; makes and keeps nothing.
pub fn check(settings: &config::proxy::Live, unix_s: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pool in &settings.pools {
        // A key ring that is missing is made at the start, so only one that is there can be wrong.
        let without_ring =
            config::proxy::Pool { affinity: pool.affinity.clone().filter(|c| c.key_file.exists()), ..pool.clone() };
        read_ingredients(&without_ring, &mut problems);
    }
    let mut folders: Vec<_> =
        settings.listeners.iter().filter_map(|l| l.tls.as_ref()).map(|t| &t.certificates).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        load_certificates(folder, None, unix_s, &mut problems);
    }
    problems
}

/// Reads the key ring; one that is not there yet is made, readable by the owner only.
fn read_key_ring(file: &Path, problems: &mut Vec<Problem>) -> Result<(String, KeyRing), Problem> {
    let wrong = |message: String, remedy: &str| Problem::error(file, message, remedy);
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = KeyRing::generate(dice::secret());
            write_secret(file, &text).map_err(|e| {
                wrong(
                    format!("the affinity key ring is missing and cannot be made: {e}"),
                    "make the folder writable, or put a key ring there",
                )
            })?;
            problems.push(Problem {
                file: file.to_owned(),
                message: "the affinity key ring was missing; a new one was made".into(),
                remedy: "fine for one proxy; copy this file to every other proxy of the same service".into(),
                is_warning: true,
            });
            text
        }
        Err(e) => {
            return Err(wrong(
                format!("the affinity key ring cannot be read: {e}"),
                "make it readable for the proxy's user, mode 0600",
            ));
        }
    };
    let ring = KeyRing::parse(&text)
        .map_err(|e| wrong(e.to_string(), "one base64 key of 32 bytes a line; the first one seals"))?;
    Ok((text, ring))
}

fn write_secret(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()
}
