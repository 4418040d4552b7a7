//! What a node counts.

mod names;
mod render;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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
    job_durations: Named<&'static str, 16, JobDuration>,
    environments: Named<(&'static str, &'static str), 8>,
    environment_durations: Named<&'static str, 4, JobDuration>,
    environment_hits: Named<&'static str, 4>,
    renders: Named<(&'static str, &'static str), 16>,
    workers_ready: Counter,
    workers_failed: Counter,
    worker_failures: [Counter; WorkerFailure::ALL.len()],
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

/// How long what takes minutes takes.
#[derive(Debug)]
struct JobDuration(Histogram);

impl Default for JobDuration {
    fn default() -> Self {
        Self(Histogram::new(names::JOB_BUCKETS))
    }
}

impl Deref for JobDuration {
    type Target = Histogram;

    fn deref(&self) -> &Histogram {
        &self.0
    }
}

/// What others know now.
#[derive(Clone, Debug, Default)]
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
    /// Bytes that are kept for browsers.
    pub session_bytes: u64,
    /// Sessions of each content that has some.
    pub contents: Vec<ContentSessions>,
    /// The queue; `None`: the database does not answer.
    pub queue: Option<Vec<Waiting>>,
}

/// Sessions of one content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentSessions {
    /// Which.
    pub guid: String,
    /// With a browser.
    pub live: u64,
    /// Without.
    pub held: u64,
}

/// Jobs of one kind that some node should have begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waiting {
    /// Which kind.
    pub kind: &'static str,
    /// How many.
    pub count: u64,
    /// Since the oldest of them was wanted.
    pub age: Duration,
}

/// Why a process of content is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerFailure {
    /// What it needs could not be made: its files, its environment.
    Unprepared,
    /// The system refused to begin it.
    Refused,
    /// It ended before it listened.
    Ended,
    /// It did not listen in time.
    Late,
    /// It was there, and ended by itself.
    Crashed,
}

impl WorkerFailure {
    /// All of them, in the order they are declared in.
    pub const ALL: [Self; 5] = [Self::Unprepared, Self::Refused, Self::Ended, Self::Late, Self::Crashed];

    /// As labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unprepared => "unprepared",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Late => "late",
            Self::Crashed => "crashed",
        }
    }
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
            job_durations: Named::new(),
            environments: Named::new(),
            environment_durations: Named::new(),
            environment_hits: Named::new(),
            renders: Named::new(),
            workers_ready: Counter::new(),
            workers_failed: Counter::new(),
            worker_failures: [const { Counter::new() }; WorkerFailure::ALL.len()],
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
    pub fn end(&self, route: Route, code: Option<u16>, took: Duration, sent: u64) {
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
    pub fn job(&self, kind: &'static str, state: &'static str, took: Duration) {
        self.jobs.counter((kind, state)).increment();
        self.job_durations.counter(kind).record(took);
    }

    /// An environment was made, or could not be.
    pub fn environment(&self, language: &'static str, is_made: bool, took: Duration) {
        self.environments.counter((language, if is_made { "made" } else { "failed" })).increment();
        self.environment_durations.counter(language).record(took);
    }

    /// An environment was there already.
    pub fn environment_hit(&self, language: &'static str) {
        self.environment_hits.counter(language).increment();
    }

    /// Content of this mode was rendered, or could not be.
    pub fn rendered(&self, mode: &'static str, is_done: bool) {
        self.renders.counter((mode, if is_done { "done" } else { "failed" })).increment();
    }

    /// A process of content was to begin, and is ready or why not.
    pub fn worker_begun(&self, outcome: Result<(), WorkerFailure>) {
        match outcome {
            Ok(()) => self.workers_ready.increment(),
            Err(why) => {
                self.workers_failed.increment();
                self.worker_failures[why as usize].increment();
            }
        }
    }

    /// A process of content that was ready ended by itself.
    pub fn worker_crashed(&self) {
        self.worker_failures[WorkerFailure::Crashed as usize].increment();
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

    /// Everything as text.
    pub fn render(&self, live: &Live, text: Exposition) -> String {
        render::render(self, live, text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
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
        metrics.job("deploy", "failed", Duration::from_secs(20));
        metrics.environment("python", true, Duration::from_secs(9));
        metrics.environment("python", false, Duration::from_secs(1));
        metrics.environment_hit("python");
        metrics.rendered("rmd-static", false);
        metrics.worker_begun(Err(WorkerFailure::Late));
        metrics.worker_crashed();
        let of = |at: u64| ContentSessions { guid: format!("guid-{at:03}"), live: at, held: 1 };
        let live = Live {
            session_bytes: 7,
            contents: (1..=names::CONTENTS_MAX as u64 + 2).map(of).collect(),
            queue: Some(vec![Waiting { kind: "deploy", count: 2, age: Duration::from_millis(1500) }]),
            ..Live::default()
        };
        let text = metrics.render(&live, Exposition::default()).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        for family in names::ALL {
            assert!(text.contains(&format!("# TYPE {} ", family.name)), "{}", family.name);
        }
        let shown: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).collect();
        let of_contents = |line: &&str| line.contains("{content=\"guid-");
        assert_eq!(shown.iter().copied().filter(of_contents).count(), 2 * names::CONTENTS_MAX);
        let shown: Vec<&str> = shown.into_iter().filter(|line| !of_contents(line) || line.contains("102")).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
