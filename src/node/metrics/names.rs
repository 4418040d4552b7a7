//! Every metric of a node: name, unit, labels, help. No other file knows a metric's name. See `proxy/metrics/names.rs`.

use std::time::Duration;

use crate::telemetry::metrics::{Family, Kind, families};

families! {
    /// Constant 1; the labels say what runs. {version, commit}
    BUILD = Gauge "bowline_build_info";
    /// Log lines dropped because whoever reads the log was slow or its disk full. {log = access, process}
    LOG_DROPPED = Counter "bowline_log_lines_dropped_total";
    /// Requests answered. {route, code}
    REQUESTS = Counter "bowline_node_requests_total";
    /// From the complete request head to the last byte of the answer. {route}
    REQUEST_DURATION = Histogram "bowline_node_request_duration_seconds";
    /// Requests being answered.
    REQUESTS_IN_FLIGHT = Gauge "bowline_node_requests_in_flight";
    /// Bytes of answers. {route}
    SENT = Counter "bowline_node_sent_bytes_total";
    /// Uploads that ended. {language, outcome = new, same, conflict}
    UPLOADS = Counter "bowline_node_uploads_total";
    /// Jobs that ended on this node. {kind, state = done, failed, cancelled}
    JOBS = Counter "bowline_node_jobs_total";
    /// From the claim of a job to its end, on this node. {kind}
    JOB_DURATION = Histogram "bowline_node_job_duration_seconds";
    /// Jobs of the whole cluster that some node should begin; looked up every five seconds at most. {kind}
    JOBS_WAITING = Gauge "bowline_node_jobs_waiting";
    /// Since the oldest of them was wanted. {kind}
    JOBS_WAITING_AGE = Gauge "bowline_node_jobs_waiting_age_seconds";
    /// Blobs deleted because nothing referred to them.
    BLOBS_DELETED = Counter "bowline_node_blobs_deleted_total";
    /// What they took.
    BYTES_FREED = Counter "bowline_node_blob_bytes_freed_total";
    /// Whether the database answered when it was last asked.
    DATABASE_UP = Gauge "bowline_node_database_up";
    /// Environments of content that were made, or could not be. {language, outcome = made, failed}
    ENVIRONMENT_BUILDS = Counter "bowline_node_environment_builds_total";
    /// What that took. {language}
    ENVIRONMENT_DURATION = Histogram "bowline_node_environment_build_duration_seconds";
    /// Environments that were wanted and were there. {language}
    ENVIRONMENT_HITS = Counter "bowline_node_environment_cache_hits_total";
    /// Documents rendered, for whatever reason: deployed, scheduled, wanted. {mode, outcome = done, failed}
    RENDERS = Counter "bowline_node_renders_total";
    /// Processes of content that live.
    WORKERS = Gauge "bowline_node_workers";
    /// Requests and sessions these have now.
    WORKER_CONNECTIONS = Gauge "bowline_node_worker_connections";
    /// Processes of content that were to begin, but for the trials of deployments. {outcome = ready, failed}
    WORKER_STARTS = Counter "bowline_node_worker_starts_total";
    /// Why they failed; with them those that were ready and ended by themselves. {reason = unprepared, refused, ended, late,
    /// crashed}
    WORKER_FAILURES = Counter "bowline_node_worker_failures_total";
    /// Websockets of content. {state = live, held}
    SESSIONS = Gauge "bowline_node_sessions";
    /// The same of each content that has some; of more than a hundred the least busy together, as `other`. {content, state}
    CONTENT_SESSIONS = Gauge "bowline_node_content_sessions";
    /// Bytes that are kept for browsers until they have them.
    SESSION_BYTES = Gauge "bowline_node_session_bytes";
    /// Browsers that came back to their session. {outcome = resumed, gone}
    SESSION_RESUMES = Counter "bowline_node_session_resumes_total";
    /// Sessions that ended while they waited for their browser. {cause = timeout, worker, leaving}
    SESSION_HOLDS_ENDED = Counter "bowline_node_session_holds_ended_total";
    /// Indexes made anew because a repository had changed.
    INDEXES_MADE = Counter "bowline_node_indexes_made_total";
}

/// Contents with a series of their own.
pub(super) const CONTENTS_MAX: usize = 100;

/// From a page in memory to a package of gigabytes.
pub(super) const REQUEST_BUCKETS: &[Duration] = &[
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// From a bundle of pages to a report of hours.
pub(super) const JOB_BUCKETS: &[Duration] = &[
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
    Duration::from_secs(3_600),
    Duration::from_secs(14_400),
];
