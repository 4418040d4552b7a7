//! What the operator wants of a proxy. [`Startup`] needs a restart; [`Live`] changes by reload.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::types::{BackendAddress, BackendKey, ListenAddress};

/// A proxy's whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What only a restart can change.
    pub startup: Startup,
    /// What a reload changes.
    pub live: Live,
}

/// What only a restart can change.
#[derive(Clone, Debug, PartialEq)]
pub struct Startup {
    /// Worker threads; `None`: one per core.
    pub threads: Option<usize>,
    /// The operator's endpoint.
    pub admin: Admin,
    /// Idle upstream connections kept for reuse, all pools together.
    pub upstream_keepalive_connections: usize,
    /// The process log.
    pub log: Log,
    /// Where metrics are sent to; `None`: nowhere.
    pub graphite: Option<Graphite>,
}

/// A Carbon that metrics are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graphite {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// What paths begin with, without a dot at the end; `None`: `bowline.` and the name of the process or its machine.
    pub prefix: Option<String>,
    /// Between two sendings.
    pub interval: Duration,
}

/// The process log, on stderr.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or a filter as `tracing` reads it; `trace` too, where that is compiled in.
    pub level: String,
    /// Text for people or JSON, one object a line.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The operator's endpoint: reading over TCP, changing only over the unix socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Read-only HTTP; `None`: none.
    pub address: Option<std::net::SocketAddr>,
    /// Reading and changing; mode 0660; `None`: none.
    pub socket: Option<PathBuf>,
}

/// What a reload changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// In file order; names are unique.
    pub listeners: Vec<Listener>,
    /// In file order; names are unique.
    pub pools: Vec<Pool>,
    /// In file order; no two match the same host and path.
    pub routes: Vec<Route>,
    /// One JSON line per request.
    pub access_log: AccessLog,
    /// How long live tunnels may go on after SIGTERM.
    pub shutdown_deadline: Duration,
}

/// The access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Off: no line is made.
    pub enabled: bool,
    /// `None`: standard output.
    pub file: Option<PathBuf>,
}

/// A named address we accept on.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique among listeners; a metric label.
    pub name: Arc<str>,
    /// Where to bind.
    pub address: ListenAddress,
    /// `Some`: https.
    pub tls: Option<ListenerTls>,
    /// `Some`: every request is answered by a redirect (308) to https on this port.
    pub redirect_to_https: Option<u16>,
    /// Whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are kept.
    pub trusted: Vec<IpNet>,
    /// Bounds.
    pub limits: ListenerLimits,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// A folder of `NAME.crt|.pem|…` certificates with their keys; watched. See `proxy::certificates`.
    pub certificates: PathBuf,
    /// TLS 1.2 or 1.3 at least.
    pub minimum: TlsVersion,
    /// Offer HTTP/2 in ALPN.
    pub http2: bool,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Bounds of one listener; all are per listener or per connection as named.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    /// Open connections of the listener; more wait in the kernel's queue.
    pub connections: usize,
    /// TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request head to its end.
    pub head_timeout: Duration,
    /// Request line and fields together.
    pub head_bytes: usize,
    /// Number of fields.
    pub head_count: usize,
    /// An idle keep-alive connection is closed after this.
    pub keepalive_timeout: Duration,
}

/// Interchangeable backends of one application, and how one is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique among pools; a metric label.
    pub name: Arc<str>,
    /// How a backend is chosen when nothing binds the client.
    pub policy: Policy,
    /// `Some`: clients are bound by a sealed cookie.
    pub affinity: Option<CookieAffinity>,
    /// `Some`: backends are dialled by https, verified.
    pub tls: Option<UpstreamTls>,
    /// Active health checks; `None`: off, backends count as up until a request fails.
    pub probe: Option<Probe>,
    /// In file order; keys are unique; never empty.
    pub backends: Vec<Backend>,
    /// Waits.
    pub timeouts: PoolTimeouts,
    /// Put the reconnect shim into HTML pages.
    pub reconnect_shim: bool,
    /// Set `X-RSC-Request` from the original URL and strip what a Connect server trusts.
    pub rsc_request: bool,
    /// Its backends are nodes, whose word that they leave counts in every answer; of others only in those to probes.
    pub heeds_leaving: bool,
    /// Use down backends when nobody is up.
    pub fail_open: bool,
    /// Attempts on other backends after the first.
    pub retries: u32,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Least (live sessions + requests in flight) ÷ weight.
    LeastSessions,
    /// Least requests in flight ÷ weight.
    LeastRequests,
    /// Smooth weighted round robin.
    RoundRobin,
}

/// Affinity by sealed cookie.
#[derive(Clone, Debug, PartialEq)]
pub struct CookieAffinity {
    /// Cookie name, default `bowline_<pool>`.
    pub name: String,
    /// Key ring, mode 0600; first key seals, all open.
    pub key_file: PathBuf,
    /// Sealed age; renewed after half; `None`: as long as the browser's session.
    pub lifetime: Option<Duration>,
    /// `SameSite=None` instead of `Lax`.
    pub cross_site: bool,
}

/// TLS towards backends; always verified.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// PEM; `None`: the system's roots.
    pub ca_file: Option<PathBuf>,
    /// SNI and the name the certificate must have; never empty.
    pub server_name: String,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// Between probes, ± 10 % jitter.
    pub interval: Duration,
    /// Between probes while a verdict is changing or not yet known.
    pub fast_interval: Duration,
    /// For one probe, all of it.
    pub timeout: Duration,
    /// Successes in a row that make a down backend up.
    pub rise: u32,
    /// Failures in a row that make an up backend down.
    pub fall: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeKind {
    /// `GET path`, good when the status is in the range. Over TLS when the pool has `tls`.
    Http {
        /// Origin-form path with query.
        path: String,
        /// Host header; `None`: the backend's address.
        host: Option<String>,
        /// First and last good status, inclusive.
        status: (u16, u16),
    },
    /// A connection, and a handshake when the pool has `tls`.
    Tcp,
}

/// One member of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Unique in its pool.
    pub key: BackendKey,
    /// Where it is.
    pub address: BackendAddress,
    /// 1 to 1000.
    pub weight: u32,
    /// Admin state it starts in; later `drain`, `enable`, `disable` change it.
    pub admin: AdminState,
}

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// Takes everybody.
    Enabled,
    /// Takes bound clients only.
    Draining,
    /// Takes nobody.
    Disabled,
}

/// Waits towards and on behalf of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolTimeouts {
    /// TCP (and TLS) connect.
    pub connect: Duration,
    /// Silence of the backend before and within a response.
    pub response: Duration,
    /// Silence of the client within a request body, and of either side in writing.
    pub body: Duration,
    /// An unused upstream connection is kept this long.
    pub keepalive: Duration,
    /// Silence of a tunnel that is not pinged.
    pub tunnel_idle: Duration,
    /// A quiet websocket client is pinged after this.
    pub tunnel_ping: Duration,
    /// Requests wait this long for the first verdict on any backend at start-up.
    pub startup: Duration,
}

/// Host and path → pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique label: `host` + `path`.
    pub name: Arc<str>,
    /// Which hosts.
    pub host: HostPattern,
    /// Path prefix, begins with `/`; matches at segment borders.
    pub path: String,
    /// Name of a pool that exists.
    pub pool: Arc<str>,
    /// Larger request bodies get 413; `None`: no limit.
    pub body_bytes_max: Option<u64>,
}

/// Which hosts a route is for; lower case, no port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, also none.
    Any,
    /// Exactly this.
    Exact(String),
    /// `*.example.org`: one or more labels before this suffix; held without `*`, with the dot.
    Wildcard(String),
}
