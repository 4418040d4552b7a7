//! The file of a proxy as written: every table and key there is, with its range, its default and its explanation.
//!
//! The comments on the keys are what operators read: [`super::schema`] copies them into the full example and the JSON
//! Schema. What a value may be is in [`super::value`] and [`super::word`]; what must hold between values is checked in [`super::build`].

use std::net::SocketAddr;

use ipnet::IpNet;
use toml::Spanned;

use crate::types::{BackendAddress, BackendKey, ListenAddress};

use super::default;
use super::preset::Preset;
use super::proxy::{AdminState, HostPattern, LogFormat, Policy, TlsVersion};
use super::reader::Presence::{self, AtLeastOne, Commented, Optional, Preset as ByPreset, Required, Table};
use super::reader::section;
use super::value::{
    Authority, CookieName, Count, FilePath, GraphiteAddress, GraphitePrefix, LogLevel, Name, PathPrefix, ServerName,
    Size, StatusRange, Target, Wait,
};
use super::word::{ProbeType, Protocol, ProxyRole, Shown};

section! {
    /// Configuration of a Bowline proxy. Durations are written "30s" or "1m 30s", sizes "64KiB". Relative paths are
    /// relative to the folder of this file. Unknown keys are refused. `bowline check FILE` tells every mistake.
    File("the top level") {
        /// What this file configures.
        role: ProxyRole = Required("\"proxy\""),
        /// Worker threads. Default: one per core. Needs a restart.
        threads: Count<1, 1024> = Optional("4"),
        admin: Admin = Table,
        log: Log = Table,
        access_log: AccessLog = Table,
        metrics: Metrics = Table,
        shutdown: Shutdown = Table,
        upstream: Upstream = Table,
        listener: Vec<Spanned<Listener>> = AtLeastOne("[[listener]]"),
        pool: Vec<Spanned<Pool>> = Table,
        route: Vec<Spanned<Route>> = Table,
    }

    /// The operator's endpoint. Needs a restart.
    Admin("`[admin]`") {
        /// Read-only HTTP: /livez, /readyz, /metrics, /status, /sessions. Default: none.
        address: SocketAddr = Optional("\"127.0.0.1:9443\""),
        /// A unix socket (mode 0660) that also takes changes: drain, enable, disable, reload. Default: none.
        socket: FilePath = Optional("\"admin.sock\""),
    }

    /// The process log, on stderr. Needs a restart.
    Log("`[log]`") {
        /// `error`, `warn`, `info`, `debug`, or levels by target: "info,bowline::proxy=debug". A debug build knows `trace` too.
        level: LogLevel = shown(default::LOG_LEVEL),
        /// `text` for people, `json` for machines.
        format: LogFormat = shown(default::LOG_FORMAT),
    }

    /// One JSON line per request.
    AccessLog("`[access_log]`") {
        /// Write it.
        enabled: bool = shown(default::ACCESS_LOG),
        /// Where to; opened for appending. Default: standard output.
        file: FilePath = Optional("\"access.log\""),
    }

    /// What is counted can be read at `/metrics`, for Prometheus, and be sent to others. Needs a restart.
    Metrics("`[metrics]`") {
        graphite: Graphite = Table,
    }

    /// The same for Graphite: sent to Carbon's plaintext port, as `PREFIX.METRIC.LABEL.VALUE… NUMBER TIME`.
    Graphite("`[metrics.graphite]`") {
        /// "host:port". Default: nothing is sent.
        address: GraphiteAddress = Optional("\"graphite.example.org:2003\""),
        /// What paths begin with; another one for each process. Default: `bowline.` and the process's name, which is the
        /// machine's where it has none.
        prefix: GraphitePrefix = Optional("\"bowline.a\""),
        /// Between two sendings.
        interval: Wait<1000, { DAY }> = shown(default::GRAPHITE_INTERVAL),
    }

    /// Leaving after SIGTERM.
    Shutdown("`[shutdown]`") {
        /// Live sessions may go on this long; "0s" ends them at once.
        deadline: Wait<0, { 30 * DAY }> = shown(default::SHUTDOWN_DEADLINE),
    }

    /// Connections to backends, all pools together. Needs a restart.
    Upstream("`[upstream]`") {
        /// Idle connections kept for reuse.
        keepalive_connections: Count<0, 1_000_000> = shown(default::UPSTREAM_KEEPALIVE_CONNECTIONS),
    }

    /// A named address to accept on. At least one.
    Listener("`[[listener]]`", appendix SECOND_LISTENER) {
        /// Unique; shows up in metrics and status.
        name: Name = Required("\"https\""),
        /// IP address and port, or "unix:/absolute/path". Port 0 lets the kernel choose.
        address: ListenAddress = Required("\"0.0.0.0:443\""),
        /// `http` or `https`. Default: `http`.
        protocol: Protocol = Optional("\"https\""),
        /// Answer every request by a redirect (308) to https on this port. Only with protocol `http`, see below.
        redirect_to_https: Count<1, 65_535> = Commented("443"),
        /// Whose X-Forwarded-*, Forwarded and X-Request-Id are believed: networks or addresses. Default: nobody's.
        trusted: Vec<Spanned<IpNet>> = Optional("[\"10.0.0.0/8\", \"192.168.7.1\"]"),
        tls: ListenerTls = Table,
        limits: Limits = Table,
    }

    /// TLS. Needed by protocol `https`.
    ListenerTls("`listener.tls`") {
        /// A folder of PEM certificates with their keys. Chosen by name, watched for changes.
        certificates: FilePath = Required("\"certs/\""),
        /// Oldest TLS version to speak, "1.2" or "1.3".
        minimum: TlsVersion = shown(default::TLS_MINIMUM),
        /// Offer HTTP/2.
        http2: bool = shown(default::HTTP2),
    }

    /// Bounds on what clients may use.
    Limits("`listener.limits`") {
        /// Open connections of this listener; more wait in the kernel's queue.
        connections: Count<1, 10_000_000> = shown(default::CONNECTIONS),
        /// For the TLS handshake.
        handshake_timeout: Wait<100, { 10 * MINUTE }> = shown(default::HANDSHAKE_TIMEOUT),
        /// From the first byte of a request's head to its end.
        head_timeout: Wait<100, { 10 * MINUTE }> = shown(default::HEAD_TIMEOUT),
        /// Request line and header fields together.
        head_bytes: Size<1024, 1_048_576> = shown(default::HEAD_BYTES),
        /// Number of header fields, at most 256.
        head_count: Count<1, 256> = shown(default::HEAD_COUNT),
        /// An idle connection is closed after this.
        keepalive_timeout: Wait<100, DAY> = shown(default::KEEPALIVE_TIMEOUT),
    }

    /// Interchangeable backends of one application, and how one is chosen.
    Pool("`[[pool]]`") {
        /// Unique; shows up in metrics, in status and in the affinity cookie's name.
        name: Name = Required("\"connect\""),
        /// What is behind: `bowline`, `shiny`, `connect`, `package-manager`, `workbench` or `shiny-server`. Sets the
        /// defaults of policy, affinity, probe, reconnect_shim and rsc_request. Default: none, which means no affinity
        /// and a tcp probe.
        preset: Preset = Optional("\"connect\""),
        /// Who gets a new client: `least_sessions`, `least_requests` or `round_robin`. Default: by the preset, else
        /// `least_sessions`.
        policy: Policy = ByPreset("\"least_sessions\""),
        /// Put a script into HTML pages that brings Shiny apps with `session$allowReconnect(TRUE)` back. Default: by the
        /// preset (`shiny`), else off.
        reconnect_shim: bool = ByPreset("false"),
        /// Tell the backend the URL the client asked for in X-RSC-Request. Default: by the preset (`bowline`,
        /// `connect`), else off.
        rsc_request: bool = ByPreset("true"),
        /// When every backend is down, try them all the same.
        fail_open: bool = shown(default::FAIL_OPEN),
        /// Attempts on other backends after the first, where repeating is safe.
        retries: Count<0, 10> = shown(default::RETRIES),
        affinity: Affinity = Table,
        tls: UpstreamTls = Table,
        probe: Probe = Table,
        timeouts: Timeouts = Table,
        backend: Vec<Spanned<Backend>> = AtLeastOne("backend = [{ key = \"a\", address = \"10.0.0.11:3939\" }]"),
    }

    /// Session affinity: a client comes back to its backend.
    Affinity("`pool.affinity`") {
        cookie: Cookie = Table,
    }

    /// By a sealed cookie.
    Cookie("`pool.affinity.cookie`") {
        /// Bind clients. Default: yes, if this table is there or the preset says so.
        enabled: bool = ByPreset("true"),
        /// Name of the cookie; two pools on one host need two. Default: `bowline_` and the pool's name.
        name: CookieName = ByPreset("\"bowline_connect\""),
        /// Key ring, mode 0600; made on first start. Several proxies for one host share a copy.
        key_file: FilePath = shown(default::KEY_FILE),
        /// How long a binding lasts; renewed after half. Default: as long as the browser is open.
        lifetime: Wait<{ MINUTE }, { 366 * DAY }> = Optional("\"1day\""),
        /// Send the cookie inside other sites' frames too: SameSite=None instead of Lax. Needs https.
        cross_site: bool = shown(default::CROSS_SITE),
    }

    /// Speak https to the backends, always verified. Default: http.
    UpstreamTls("`pool.tls`") {
        /// Certificates to trust, PEM. Default: the system's.
        ca_file: FilePath = Optional("\"internal-ca.pem\""),
        /// The name their certificates must have; also sent as SNI.
        server_name: ServerName = Required("\"connect.internal\""),
    }

    /// Active health checks.
    Probe("`pool.probe`") {
        /// Probe at all. Without, a backend counts as up until a request fails.
        enabled: bool = shown(default::PROBE),
        /// `http`: a GET; `tcp`: a connection. Both over TLS if the pool has `tls`. Default: by the preset, else `http`
        /// if one of the next three keys is there, else `tcp`.
        r#type: ProbeType = ByPreset("\"http\""),
        /// What to GET. Default: by the preset, else `/`.
        path: Target = ByPreset("\"/__ping__\""),
        /// Host header. Default: the backend's address.
        host: Authority = Optional("\"connect.example.org\""),
        /// Good answers: one status or a range.
        status: StatusRange = shown(default::PROBE_STATUS),
        /// Between probes; a tenth more or less by chance.
        interval: Wait<100, { HOUR }> = shown(default::PROBE_INTERVAL),
        /// Between probes while the verdict is changing.
        fast_interval: Wait<100, { HOUR }> = shown(default::PROBE_FAST_INTERVAL),
        /// For one probe, all of it.
        timeout: Wait<10, { 10 * MINUTE }> = shown(default::PROBE_TIMEOUT),
        /// Successes in a row that make a backend up.
        rise: Count<1, 1000> = shown(default::RISE),
        /// Failures in a row that make it down.
        fall: Count<1, 1000> = shown(default::FALL),
    }

    /// How long to wait for what.
    Timeouts("`pool.timeouts`") {
        /// For a connection to a backend, TLS included.
        connect: Wait<10, { 10 * MINUTE }> = shown(default::CONNECT_TIMEOUT),
        /// For the backend's answer to begin, and to go on.
        response: Wait<100, DAY> = shown(default::RESPONSE_TIMEOUT),
        /// For more of a request's body, and for either side to take what we send.
        body: Wait<100, DAY> = shown(default::BODY_TIMEOUT),
        /// An unused connection to a backend is kept this long. Keep it below the backend's own limit.
        keepalive: Wait<100, DAY> = shown(default::UPSTREAM_KEEPALIVE_TIMEOUT),
        /// A silent upgraded connection is cut after this: no websocket, or one whose backend stopped within a frame or takes nothing.
        tunnel_idle: Wait<1000, { 30 * DAY }> = shown(default::TUNNEL_IDLE_TIMEOUT),
        /// A quiet websocket client is pinged after this; one that answers is never cut.
        tunnel_ping: Wait<1000, DAY> = shown(default::TUNNEL_PING),
        /// At start-up a request waits this long for the first verdict on a backend.
        startup: Wait<0, { 10 * MINUTE }> = shown(default::STARTUP_WAIT),
    }

    /// The members; at least one.
    Backend("`[[pool.backend]]`", appendix SECOND_BACKEND) {
        /// Unique in the pool and stable: it is what the cookie names, whatever the address.
        key: BackendKey = Required("\"a\""),
        /// Name or IP address with port, or "unix:/absolute/path".
        address: BackendAddress = Required("\"10.0.0.11:3939\""),
        /// Share of new clients relative to the others.
        weight: Count<1, 1000> = shown(default::WEIGHT),
        /// `enabled`: takes everybody; `draining`: bound clients only; `disabled`: nobody.
        admin: AdminState = shown(default::ADMIN_STATE),
    }

    /// Host and path → pool. The most specific host wins, then the longest path.
    Route("`[[route]]`") {
        /// A name, "*.example.org" for the names below one, or "*". Default: every host.
        host: HostPattern = Optional("\"connect.example.org\""),
        /// Path prefix; matches whole segments.
        path: PathPrefix = shown(default::ROUTE_PATH),
        /// Name of a pool.
        pool: Name = Required("\"connect\""),
        /// Larger request bodies are refused with 413. Default: no limit.
        body_bytes_max: Size<0, { 1 << 60 }> = Optional("\"10GiB\""),
    }
}

const SECOND_LISTENER: &str = r#"
# A second listener, which sends browsers to the first.
[[listener]]
name = "http"
address = "0.0.0.0:80"
protocol = "http"
redirect_to_https = 443
"#;

const SECOND_BACKEND: &str = r#"
[[pool.backend]]
key = "b"
address = "10.0.0.12:3939"
"#;

// Milliseconds.
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A default as the full example shows it.
#[expect(clippy::needless_pass_by_value, reason = "the table above reads better without `&`")]
pub(super) fn shown(default: impl Shown) -> Presence {
    Presence::Default(default.toml())
}
