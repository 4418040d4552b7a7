//! What handlers share.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::{HeaderMap, HeaderValue};
use tokio::sync::{Notify, watch};

use super::auth::Auth;
use super::blob::{Blobs, Spool};
use super::catalog::Catalog;
use super::content::Contents;
use super::cran::archive::{Archives, archives};
use super::cran::dated::builds;
use super::cran::tree::{Trees, trees};
use super::error::Failure;
use super::jobs::Queue;
use super::known::Known;
use super::metrics::Metrics;
use super::pypi::Pages;
use super::registry::{Beating, Unfit};
use super::remote::Remotes;
use super::secret::ClusterKey;
use super::session::{Jar, Sessions};
use super::stats::Stats;
use super::store::{KnownFile, Migrate, Repository, Scope, Store};
use super::{NodeError, system};
use crate::config::node::Settings;
use crate::telemetry::access::AccessLog;
use crate::types::Sha256;

/// Everything a request may need; a clone is one count more, because every request makes several.
#[derive(Clone)]
pub struct Parts(Arc<Shared>);

impl Deref for Parts {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The parts.
pub struct Shared {
    /// What the operator wants.
    pub settings: Arc<Settings>,
    /// What the nodes have in common.
    pub key: ClusterKey,
    /// Rows.
    pub store: Store,
    /// Bytes of packages.
    pub packages: Blobs,
    /// Bytes of what content is made of.
    pub bundles: Blobs,
    /// Uploads on their way.
    pub spool: Spool,
    /// Who is calling.
    pub auth: Auth,
    /// Who is logged in.
    pub sessions: Sessions,
    /// The repositories.
    pub catalog: Catalog,
    /// Rendered index pages of Python repositories.
    pub pages: Pages,
    /// What other indexes have.
    pub remotes: Remotes,
    /// Indexes of R packages.
    pub trees: Trees,
    /// Indexes of Archives of R packages that are not all ours.
    pub archives: Archives,
    /// Rows of files that were asked for, by repository, digest and name.
    pub files: Known<(i64, Sha256, String), Option<KnownFile>>,
    /// Whether names are ours, by repository: see [`Store::owns`].
    pub owned: Known<(i64, String), bool>,
    /// Days on which something of ours changed, by repository: see [`Store::r_days`].
    pub changed: Known<i64, Arc<Vec<i64>>>,
    /// What people publish.
    pub contents: Contents,
    /// Downloads that are not yet written down.
    pub stats: Stats,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// One line per request; `None`: nobody serves.
    pub access_log: Option<AccessLog>,
    /// Since when this node is known to live.
    pub beating: Beating,
    /// How much there is to do.
    pub queue: Queue,
    /// Says that there is a job to do.
    pub job_added: Arc<Notify>,
    /// This node was told to leave: it begins nothing new.
    pub is_leaving: AtomicBool,
    /// Whether this node may go on.
    pub fitness: watch::Receiver<Unfit>,
}

/// Keeps blobs of a class, then writes the rows that name them: whatever happens in between leaves bytes that nobody names, never a name
/// without bytes. The rows' writer is told since when the blobs were kept anew, because what there was is garbage by now.
macro_rules! keep_and_name {
    ($parts:expr, $class:ident, $blobs:expr, $anew:ident => $write:expr) => {
        async {
            let blobs: &[&$crate::node::blob::Spooled] = $blobs;
            for blob in blobs {
                $parts.$class.keep(blob).await?;
            }
            let $anew = None;
            let mut written = $write;
            // Garbage is collected once in a while: twice in a row is a coincidence, more often is none.
            for _ in 0..3 {
                if !matches!(written, Err($crate::node::store::StoreError::Deleted)) {
                    break;
                }
                let $anew = Some($parts.store.clock().await?);
                for blob in blobs {
                    $parts.$class.keep_anew(blob).await?;
                }
                written = $write;
            }
            written.map_err($crate::node::error::Failure::from)
        }
    };
}
pub(super) use keep_and_name;

/// Where a request came from, as far as we believe it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// The client; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// It came through a trusted proxy.
    pub is_forwarded: bool,
    /// Not a request at all but a command on this machine, which may do everything.
    pub is_host: bool,
}

impl Parts {
    /// Opens everything the settings name. With it, the sender of [`Shared::fitness`].
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn open(
        settings: Settings,
        migrate: Migrate,
        access_log: Option<AccessLog>,
    ) -> Result<(Self, watch::Sender<Unfit>), NodeError> {
        let key = super::read_key(&settings)?;
        let store = super::open_store(&settings, migrate).await?;
        let agreed = store.agree("key_fingerprint", &key.fingerprint()).await?;
        if agreed != key.fingerprint() {
            return Err(NodeError::OtherKey { ours: key.fingerprint(), agreed });
        }
        let cache = settings.cache.display();
        let spool = Spool::open(&settings.cache.join("spool"));
        let spool = spool.map_err(system(format!("the cache {cache} cannot be used")))?;
        let place = &settings.storage.packages;
        let opened = Blobs::open(place, key.secret(), spool.clone(), settings.cache_bytes_max).await;
        let packages = opened.map_err(system(format!("the storage {} cannot be used", place.at)))?;
        let place = &settings.storage.bundles;
        let opened = packages.beside(place).await;
        let bundles = opened.map_err(system(format!("the storage {} cannot be used", place.at)))?;
        let catalog = Catalog::open(store.clone()).await?;
        let metrics = Arc::new(Metrics::new());
        let contents = Contents::new(&settings.content, &settings.cache, Arc::clone(&metrics));
        let (unfit, fitness) = watch::channel(None);
        let builds = builds();
        let sessions = Sessions::new(store.clone(), &key, settings.auth.clone());
        let shared = Shared {
            sessions,
            settings: Arc::new(settings),
            key,
            auth: Auth::new(store.clone()),
            store,
            packages,
            bundles,
            spool,
            catalog,
            pages: Pages::new(PAGES_BYTES_MAX),
            remotes: Remotes::new().map_err(system("no client for other indexes"))?,
            trees: trees(TREES_BYTES_MAX, Arc::clone(&builds)),
            archives: archives(ARCHIVES_BYTES_MAX, builds),
            files: Known::new(FILES_MAX, |_, _| 1),
            owned: Known::new(FILES_MAX, |_, _| 1),
            changed: Known::new(DAYS_MAX, |_, days: &Arc<Vec<i64>>| u32::try_from(days.len() + 1).unwrap_or(u32::MAX)),
            contents,
            stats: Stats::new(),
            metrics,
            access_log,
            beating: Beating::default(),
            queue: Queue::default(),
            job_added: Arc::default(),
            is_leaving: AtomicBool::new(false),
            fitness,
        };
        Ok((Self(Arc::new(shared)), unfit))
    }

    /// Every place that holds blobs, by the class it is for; where that is one place, it has the name of the first.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &Blobs)> {
        let bundles = self.settings.storage.is_split().then_some(("bundles", &self.bundles));
        [("packages", &self.packages)].into_iter().chain(bundles)
    }

    /// How the world calls us: as configured, else as this client does. Without a slash at the end.
    pub fn base(&self, fields: &HeaderMap, origin: Origin) -> String {
        if let Some(url) = &self.settings.external_url {
            return url.clone();
        }
        let named = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let scheme = named("x-forwarded-proto").filter(|_| origin.is_forwarded).filter(|scheme| *scheme == "https");
        format!("{}://{}", scheme.unwrap_or("http"), named("host").unwrap_or("localhost"))
    }

    /// The path below which the world finds us: what a proxy takes away on the way. Without a slash at the end. `path`: as we
    /// were asked for.
    pub fn prefix(&self, fields: &HeaderMap, origin: Origin, path: &str) -> String {
        let named = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let whole = named("x-rsc-request").and_then(|url| url.split_once("://")).and_then(|(_, rest)| {
            let told = rest[rest.find('/')?..].split(['?', '#']).next()?;
            told.strip_suffix(path)
        });
        let prefix = whole.or_else(|| named("x-forwarded-prefix")).filter(|_| origin.is_forwarded).unwrap_or_default();
        let prefix = prefix.trim_end_matches('/');
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"/._-~".contains(&b);
        let is_plain = prefix.starts_with('/') && !prefix.starts_with("//") && prefix.bytes().all(is_part);
        if is_plain { prefix.to_owned() } else { String::new() }
    }

    /// Where a browser that asks so keeps its session. `path`: as we were asked for.
    pub fn jar(&self, fields: &HeaderMap, origin: Origin, path: &str) -> Jar {
        Jar::new(&self.base(fields, origin), &self.prefix(fields, origin, path))
    }

    /// The repository of this name, if the caller may install from it.
    ///
    /// # Errors
    /// 401, 403, 404, 503.
    pub async fn readable(&self, name: &str, fields: &HeaderMap, origin: Origin) -> Result<Arc<Repository>, Failure> {
        let caller = self.auth.caller(fields, origin).await?;
        let found = self.catalog.find(name);
        if found.as_ref().is_ok_and(|r| r.anonymous_read) || caller.may(Scope::Read, name) {
            return found;
        }
        // Who may not see it is not told whether it is there.
        Err(caller.refused(format_args!("read repository `{name}`")))
    }
}

/// Rendered index pages: a repository of 20,000 projects fits several times.
const PAGES_BYTES_MAX: u64 = 128 << 20;
/// Indexes of R packages, of now, and as much of days: a CRAN of 22,000 packages, as some 10 days had it.
const TREES_BYTES_MAX: u64 = 128 << 20;
/// Indexes of Archives, as [`TREES_BYTES_MAX`]: CRAN's has some 2 MB.
const ARCHIVES_BYTES_MAX: u64 = 32 << 20;
/// Days on which something changed, of all repositories.
const DAYS_MAX: u64 = 1_000_000;
/// Rows of files that are asked for.
const FILES_MAX: u64 = 100_000;
