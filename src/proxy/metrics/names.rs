//! Every metric of a proxy: name, unit, labels, help. No other file knows a metric's name.
//!
//! Names follow OpenMetrics: counters end in `_total`, information in `_info`, units are seconds, bytes or ratios and
//! stand at the end of the name. Labels come from the configuration or from closed sets, never from the wire.

use std::time::Duration;

use crate::telemetry::metrics::{Family, Kind, families};

// The comment is the help text. `{…}` names the labels.
families! {
    /// Constant 1; the labels say what runs. {version, commit}
    BUILD = Gauge "bowline_build_info";
    /// Whether the last attempt to load the configuration succeeded.
    RELOAD_SUCCESSFUL = Gauge "bowline_config_last_reload_successful";
    /// When the configuration was last loaded, seconds since 1970.
    RELOAD_TIME = Gauge "bowline_config_last_reload_success_timestamp_seconds";
    /// Log lines dropped because whoever reads the log was slow or its disk full. {log = access, process}
    LOG_DROPPED = Counter "bowline_log_lines_dropped_total";
    /// When a certificate in use expires, seconds since 1970. {server_name}
    CERTIFICATE_NOT_AFTER = Gauge "bowline_tls_certificate_not_after_timestamp_seconds";

    /// Open client connections. {listener}
    CONNECTIONS = Gauge "bowline_proxy_connections";
    /// TLS handshakes that came to nothing. {listener, reason}
    HANDSHAKE_FAILURES = Counter "bowline_proxy_handshake_failures_total";
    /// Requests refused before a route was looked for, or for want of one. {listener, reason}
    REFUSED = Counter "bowline_proxy_refused_requests_total";
    /// Requests answered. {listener, route, pool, method, code}
    REQUESTS = Counter "bowline_proxy_requests_total";
    /// From the complete request head to the last byte of the answer, or to the 101. {route, pool}
    REQUEST_DURATION = Histogram "bowline_proxy_request_duration_seconds";
    /// Dialling a backend, TLS included; successes only. {pool}
    UPSTREAM_CONNECT_DURATION = Histogram "bowline_proxy_upstream_connect_duration_seconds";
    /// Requests a backend is working on. {pool, backend}
    REQUESTS_IN_FLIGHT = Gauge "bowline_proxy_requests_in_flight";
    /// Live sessions: websockets and other tunnels. {pool, backend}
    SESSIONS = Gauge "bowline_proxy_sessions";
    /// Sessions that ended without either side closing them. {pool, cause}
    SESSIONS_LOST = Counter "bowline_proxy_sessions_lost_total";
    /// Websocket sessions by the close code they ended with; `none` without one. {pool, code}
    SESSION_CLOSES = Counter "bowline_proxy_session_closes_total";
    /// Choices of a backend, by why. {pool, reason = sticky, balanced, rebound}
    PICKS = Counter "bowline_proxy_picks_total";
    /// Affinity cookies that bound nobody. {pool, cause = expired, unsealed, unknown}
    AFFINITY_REJECTED = Counter "bowline_proxy_affinity_rejected_total";
    /// Attempts on another backend after one failed. {pool, cause}
    RETRIES = Counter "bowline_proxy_retries_total";
    /// Requests and sessions that failed, by whose fault. {pool, side = downstream, upstream, internal, cause}
    ERRORS = Counter "bowline_proxy_errors_total";
    /// Whether health checks and requests find the backend up. {pool, backend}
    BACKEND_UP = Gauge "bowline_proxy_backend_up";
    /// Whether the backend takes no new clients but keeps its own. {pool, backend}
    BACKEND_DRAINING = Gauge "bowline_proxy_backend_draining";
    /// Whether the operator took the backend out. {pool, backend}
    BACKEND_DISABLED = Gauge "bowline_proxy_backend_disabled";
    /// Active health checks. {pool, backend, outcome = ok, failed, refused, timed_out, leaving}
    PROBES = Counter "bowline_proxy_probes_total";
}

/// From a cached page on one machine to an R session that computes for a minute.
pub(super) const REQUEST_BUCKETS: &[Duration] = &[
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// From a unix socket to a handshake with a busy machine.
pub(super) const CONNECT_BUCKETS: &[Duration] = &[
    Duration::from_micros(100),
    Duration::from_micros(250),
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
];
