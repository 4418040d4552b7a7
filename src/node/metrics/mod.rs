//! What a node counts.

mod names;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::telemetry::metrics::{Counter, Exposition, Histogram, Named};

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    routes: Box<[RouteMetrics]>,
    in_flight: AtomicU64,
    uploads: Named<(&'static str, &'static str), 8>,
    jobs: Named<(&'static str, &'static str), 16>,
    blobs_deleted: Counter,
    bytes_freed: Counter,
    /// Indexes made.
    pub indexes: Counter,
    workers_ready: Counter,
    workers_failed: Counter,
    sessions_resumed: Counter,
    sessions_gone: Counter,
    holds_ended: [Counter; 3],
    is_database_up: AtomicBool,
}

/// What is counted of one kind of request.
#[derive(Debug)]
struct RouteMetrics {
    name: &'static str,
    codes: Named<u16, 32>,
    duration: Histogram,
    sent: Counter,
}

/// What others know now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Lines the access log lost.
    pub dropped: u64,
    /// Processes of content.
    pub workers: u64,
    /// What these have to do.
    pub connections: u64,
    /// Websockets of content with a browser.
    pub sessions_live: u64,
    /// Those that wait for theirs.
    pub sessions_held: u64,
}

/// Why a session ended that waited for its browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// It did not come.
    Timeout,
    /// The worker ended.
    Worker,
    /// The node leaves.
    Leaving,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route(usize);

/// Kinds of requests, by what the path of their route ends in; the first that fits.
const ROUTES: &[(&str, &str)] = &[
    ("/simple/{project}/", "pypi_project"),
    ("/simple/", "pypi_projects"),
    ("/files/{digest}/{filename}", "pypi_file"),
    ("/legacy/", "pypi_upload"),
    ("/upload/{filename}", "upload"),
    ("/src/contrib/{*path}", "cran_source"),
    ("/bin/{*path}", "cran_binary"),
    ("/__ping__", "ping"),
    ("/metrics", "metrics"),
    ("/status", "status"),
];
const MANAGE: &str = "manage";
const CONTENT: &str = "content";
const OTHER: &str = "other";

impl Route {
    /// Of a route's path, as the router has it; `None`: no route fitted.
    pub fn of(path: Option<&str>) -> Self {
        let at = path.and_then(|path| {
            if path.starts_with("/__api__/v1/") {
                return Some(ROUTES.len());
            }
            if path.starts_with("/content/") {
                return Some(ROUTES.len() + 1);
            }
            let known = ROUTES.iter().position(|(ending, _)| path.ends_with(ending));
            known.or_else(|| path.starts_with("/__api__/").then_some(ROUTES.len()))
        });
        Self(at.unwrap_or(ROUTES.len() + 2))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let rest = || [MANAGE, CONTENT].get(self.0 - ROUTES.len()).copied().unwrap_or(OTHER);
        ROUTES.get(self.0).map_or_else(rest, |(_, name)| name)
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let route = |at| RouteMetrics {
            name: Route(at).name(),
            codes: Named::new(),
            duration: Histogram::new(names::REQUEST_BUCKETS),
            sent: Counter::new(),
        };
        Self {
            routes: (0..ROUTES.len() + 3).map(route).collect(),
            in_flight: AtomicU64::new(0),
            uploads: Named::new(),
            jobs: Named::new(),
            blobs_deleted: Counter::new(),
            bytes_freed: Counter::new(),
            indexes: Counter::new(),
            workers_ready: Counter::new(),
            workers_failed: Counter::new(),
            sessions_resumed: Counter::new(),
            sessions_gone: Counter::new(),
            holds_ended: [const { Counter::new() }; 3],
            is_database_up: AtomicBool::new(true),
        }
    }

    /// A request began.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended.
    pub fn end(&self, route: Route, code: Option<u16>, took: std::time::Duration, sent: u64) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(route) = self.routes.get(route.0) else { return };
        if let Some(code) = code {
            route.codes.counter(code).increment();
        }
        route.duration.record(took);
        route.sent.add(sent);
    }

    /// An upload ended.
    pub fn upload(&self, language: &'static str, outcome: &'static str) {
        self.uploads.counter((language, outcome)).increment();
    }

    /// A job ended.
    pub fn job(&self, kind: &'static str, state: &'static str) {
        self.jobs.counter((kind, state)).increment();
    }

    /// A process of content was begun, and is ready or not.
    pub fn worker_begun(&self, is_ready: bool) {
        if is_ready { &self.workers_ready } else { &self.workers_failed }.increment();
    }

    /// A browser came back, and its session was there or not.
    pub fn resumed(&self, is_there: bool) {
        if is_there { &self.sessions_resumed } else { &self.sessions_gone }.increment();
    }

    /// A session ended that waited for its browser.
    pub fn hold_ended(&self, cause: HoldEnd) {
        self.holds_ended[cause as usize].increment();
    }

    /// Blobs were deleted, which had so many bytes.
    pub fn collected(&self, blobs: u64, bytes: u64) {
        self.blobs_deleted.add(blobs);
        self.bytes_freed.add(bytes);
    }

    /// Whether the database answers.
    pub fn database(&self, is_up: bool) {
        self.is_database_up.store(is_up, Ordering::Relaxed);
    }

    /// The text a Prometheus server reads.
    pub fn render(&self, live: Live) -> String {
        let mut text = Exposition::default();
        let build =
            [("version", env!("CARGO_PKG_VERSION")), ("commit", option_env!("BOWLINE_COMMIT").unwrap_or("unknown"))];
        text.family(&names::BUILD).sample(&build, 1);
        text.family(&names::LOG_DROPPED).sample(&[("log", "access")], live.dropped);
        let mut requests = text.family(&names::REQUESTS);
        for route in &self.routes {
            for (code, count) in route.codes.values() {
                let code = code.map_or_else(|| "other".to_owned(), |code| code.to_string());
                requests.sample(&[("route", route.name), ("code", &code)], count);
            }
        }
        let used = || self.routes.iter().filter(|route| route.duration.count() > 0);
        let mut durations = text.family(&names::REQUEST_DURATION);
        used().for_each(|route| durations.histogram(&[("route", route.name)], &route.duration));
        text.family(&names::REQUESTS_IN_FLIGHT).sample(&[], self.in_flight.load(Ordering::Relaxed));
        let mut sent = text.family(&names::SENT);
        used().for_each(|route| sent.sample(&[("route", route.name)], route.sent.value()));
        let mut uploads = text.family(&names::UPLOADS);
        for (name, count) in self.uploads.values() {
            let (language, outcome) = name.unwrap_or(("other", "other"));
            uploads.sample(&[("language", language), ("outcome", outcome)], count);
        }
        let mut jobs = text.family(&names::JOBS);
        for (name, count) in self.jobs.values() {
            let (kind, state) = name.unwrap_or(("other", "other"));
            jobs.sample(&[("kind", kind), ("state", state)], count);
        }
        text.family(&names::BLOBS_DELETED).sample(&[], self.blobs_deleted.value());
        text.family(&names::BYTES_FREED).sample(&[], self.bytes_freed.value());
        text.family(&names::DATABASE_UP).sample(&[], u8::from(self.is_database_up.load(Ordering::Relaxed)));
        text.family(&names::WORKERS).sample(&[], live.workers);
        text.family(&names::WORKER_CONNECTIONS).sample(&[], live.connections);
        let mut starts = text.family(&names::WORKER_STARTS);
        for (outcome, count) in [("ready", &self.workers_ready), ("failed", &self.workers_failed)] {
            starts.sample(&[("outcome", outcome)], count.value());
        }
        let mut sessions = text.family(&names::SESSIONS);
        for (state, count) in [("live", live.sessions_live), ("held", live.sessions_held)] {
            sessions.sample(&[("state", state)], count);
        }
        let mut resumes = text.family(&names::SESSION_RESUMES);
        for (outcome, count) in [("resumed", &self.sessions_resumed), ("gone", &self.sessions_gone)] {
            resumes.sample(&[("outcome", outcome)], count.value());
        }
        let mut ended = text.family(&names::SESSION_HOLDS_ENDED);
        for (cause, count) in ["timeout", "worker", "leaving"].iter().zip(&self.holds_ended) {
            ended.sample(&[("cause", cause)], count.value());
        }
        text.family(&names::INDEXES_MADE).sample(&[], self.indexes.value());
        text.finish()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are_for() {
        for (path, name) in [
            (Some("/packages/{repository}/simple/"), "pypi_projects"),
            (Some("/packages/{repository}/{view}/simple/{project}/"), "pypi_project"),
            (Some("/packages/{repository}/__linux__/{codename}/{view}/src/contrib/{*path}"), "cran_source"),
            (Some("/__api__/v1/repos"), "manage"),
            (Some("/__api__/status"), "status"),
            (Some("/__ping__"), "ping"),
            (Some("/content/{guid}/{*rest}"), "content"),
            (Some("/__api__/v1/content/{guid}"), "manage"),
            (None, "other"),
        ] {
            assert_eq!(Route::of(path).name(), name, "{path:?}");
        }
    }

    #[test]
    fn the_text_reads_as_written_here() {
        let metrics = Metrics::new();
        metrics.begin();
        metrics.begin();
        metrics.end(Route::of(Some("/simple/")), Some(200), Duration::from_millis(2), 1000);
        metrics.upload("pypi", "new");
        let text = metrics.render(Live::default()).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        for family in names::ALL {
            assert!(text.contains(&format!("# TYPE {} ", family.name)), "{}", family.name);
        }
        let shown: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
