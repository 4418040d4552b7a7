//! Every default, once, with its reason.

use std::time::Duration;

use crate::types::ByteSize;

use super::proxy::{AdminState, LogFormat, Policy, TlsVersion};

/// Where the key ring of the affinity cookie is, beside the configuration: a folder of its own can be kept closed.
pub const KEY_FILE: &str = "keys/affinity.key";

/// Frames of other sites are the exception, and `SameSite=None` sends the cookie with every foreign form too.
pub const CROSS_SITE: bool = false;

/// Without probes a dead backend is found by a user.
pub const PROBE: bool = true;

/// Changes of state are logged, requests are not.
pub const LOG_LEVEL: &str = "info";

/// People read first; machines are told to.
pub const LOG_FORMAT: LogFormat = LogFormat::Text;

/// A proxy that answers should be able to say what it answered.
pub const ACCESS_LOG: bool = true;

/// `metrics.graphite.interval`: what Carbon keeps by default.
pub const GRAPHITE_INTERVAL: Duration = Duration::from_secs(60);

/// A working day: whoever has an app open at SIGTERM may finish what they do.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8 * 3600);

/// Enough for the bursts of a thousand users; each costs a descriptor and a few KiB.
pub const UPSTREAM_KEEPALIVE_CONNECTIONS: u64 = 512;

/// Half of what a process may usually open (`ulimit -n` 65,536 under systemd) is reached by three such listeners, since
/// a tunnel costs two descriptors.
pub const CONNECTIONS: u64 = 10_000;

/// A handshake is two round trips; ten seconds forgive a bad mobile link and little else.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A head is a few packets; who needs longer is broken or hostile (slowloris).
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// AWS and Envoy stop at 60 to 64 K; the cookies of single sign-on need up to 32.
pub const HEAD_BYTES: ByteSize = ByteSize::kib(64);

/// Browsers send 20, proxies in front add 10.
pub const HEAD_COUNT: u64 = 200;

/// nginx's value, which clients are used to.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(75);

/// TLS 1.2 is still what older R and Python builds speak; what is weak in it is not offered.
pub const TLS_MINIMUM: TlsVersion = TlsVersion::Tls12;

/// Browsers load a Shiny page's many small files faster over one connection.
pub const HTTP2: bool = true;

/// Shiny sessions cost memory on their node as long as they live, so they are what is evened out.
pub const POLICY: Policy = Policy::LeastSessions;

/// In a local network a connection takes milliseconds; 5 s survives one lost SYN and its retry.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Renders and uploads are slow: an answer may take minutes to begin.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);

/// Silence within an upload; a minute is nginx's value.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Shorter than the 45 s after which shiny-server closes, so that we never write into a connection that is going.
pub const UPSTREAM_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(40);

/// For upgrades we cannot ping; longer than anybody thinks.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Below the 30 s after which the strictest firewalls and balancers forget a silent connection.
pub const TUNNEL_PING: Duration = Duration::from_secs(25);

/// The first probes answer within one interval; later it is better to say that nobody is there.
pub const STARTUP_WAIT: Duration = Duration::from_secs(5);

/// With `FALL` a silent backend is noticed within 15 s by probes alone; requests notice earlier.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// While a verdict is changing we ask often, so that rise and fall take a second or two.
pub const PROBE_FAST_INTERVAL: Duration = Duration::from_millis(500);

/// A health endpoint that needs longer is not healthy.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// One good answer may be luck.
pub const RISE: u64 = 2;

/// Two lost packets are not a dead backend.
pub const FALL: u64 = 3;

/// Success and redirects: many apps answer `/` with a redirect to a login.
pub const PROBE_STATUS: (u16, u16) = (200, 399);

/// When probing by HTTP without a preset.
pub const PROBE_PATH: &str = "/";

/// Two others after the first: where three in a row refuse, more attempts only delay the answer.
pub const RETRIES: u64 = 2;

/// A backend that is known to be down gets no request.
pub const FAIL_OPEN: bool = false;

/// All backends are alike unless said otherwise.
pub const WEIGHT: u64 = 1;

/// A backend in the file is there to be used.
pub const ADMIN_STATE: AdminState = AdminState::Enabled;

/// The whole host.
pub const ROUTE_PATH: &str = "/";

/// One machine needs no server beside it.
pub const DATABASE_FILE: &str = "data/bowline.db";

/// As [`DATABASE_FILE`], as it is written.
pub const DATABASE_URL: &str = "sqlite:data/bowline.db";

/// PostgreSQL allows 100 in all; four nodes fit.
pub const DATABASE_CONNECTIONS: u64 = 20;

/// Every query is a lookup: who needs longer waits for a lock or a broken disk.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Beside the database.
pub const STORAGE_PATH: &str = "data/blobs";

/// A node's own disk, beside its configuration.
pub const CACHE_PATH: &str = "data/cache";

/// Copies of what is in a bucket.
pub const CACHE_BYTES_MAX: ByteSize = ByteSize::kib(10 * 1024 * 1024);

/// Where a bucket is that does not say.
pub const S3_REGION: &str = "us-east-1";

/// What everybody has.
pub(super) const STORAGE_TYPE: super::word::StorageType = super::word::StorageType::Directory;

/// PyPI allows 100 MiB; wheels with CUDA in them are larger.
pub const PACKAGE_BYTES_MAX: ByteSize = ByteSize::kib(4 * 1024 * 1024);

/// Requests are short; a large download may need a minute.
pub const NODE_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);

/// It is quick, and one is enough.
pub const COLLECT_JOBS: u64 = 1;

/// It waits for other machines.
pub const SYNC_JOBS: u64 = 2;

/// A build takes a core.
pub const BUILD_JOBS: u64 = 1;

/// It reads every name in the storage.
pub const GARBAGE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Yesterday's backup may be restored.
pub const GARBAGE_GRACE: Duration = Duration::from_secs(2 * 24 * 3600);

/// Somebody who pushed a tag waits for it.
pub const SYNC_EVERY: Duration = Duration::from_secs(300);

/// What the machine has.
pub const BUILDER_PYTHON: &str = "python3";

/// What the machine has.
pub const BUILDER_R: &str = "R";

/// `nobody`.
pub const BUILDER_UID: u64 = 65_534;

/// Large packages with C++ in them take half of it.
pub const BUILDER_TIMEOUT: Duration = Duration::from_secs(1800);

/// A compiler needs a few.
pub const BUILDER_MEMORY_MAX: ByteSize = ByteSize::kib(8 * 1024 * 1024);

/// Source, what it requires, and what is made of it.
pub const BUILDER_DISK_MAX: ByteSize = ByteSize::kib(2 * 1024 * 1024);

/// `jobs.report`.
pub const REPORT_JOBS: u64 = 2;

/// `jobs.deploy`.
pub const DEPLOY_JOBS: u64 = 4;

/// `content.bundle_bytes_max`.
pub const BUNDLE_BYTES_MAX: ByteSize = ByteSize::kib(1024 * 1024);

/// `content.unpacked_bytes_max`.
pub const UNPACKED_BYTES_MAX: ByteSize = ByteSize::kib(8 * 1024 * 1024);

/// A working day: whoever comes back after lunch is still known.
pub const SESSION_IDLE: Duration = Duration::from_secs(8 * 3600);

/// Nobody logs in more than once a week who comes every day.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// `content.uid`: the first of a range that no system gives to anybody, neither to people nor to containers of theirs.
pub const CONTENT_UID: u64 = 1_900_000_000;
/// `content.uid_count`, where `content.uid` is not said.
pub const CONTENT_UID_COUNT: u64 = 65_536;
/// `content.network`: what runs is what publishers wrote; what it reaches is for administrators to say.
pub const CONTENT_NETWORK: super::node::Network = super::node::Network::None;

/// `content.python`.
pub const CONTENT_PYTHON: &str = "python3";

/// `content.r`.
pub const CONTENT_R: &str = "R";

/// `content.uv`.
pub const CONTENT_UV: &str = "uv";

/// `content.init_timeout`.
pub const CONTENT_INIT_TIMEOUT: Duration = Duration::from_secs(60);

/// `content.idle_timeout`.
pub const CONTENT_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// `content.read_timeout`.
pub const CONTENT_READ_TIMEOUT: Duration = Duration::from_secs(3600);

/// `content.connection_timeout`: an hour, as Posit Connect.
pub const CONTENT_CONNECTION_TIMEOUT: Duration = Duration::from_secs(3600);

/// `content.session_hold`: a train's tunnel, a proxy's failover.
pub const CONTENT_SESSION_HOLD: Duration = Duration::from_secs(60);

/// `content.session_bytes_max`: some plots.
pub const CONTENT_SESSION_BYTES_MAX: ByteSize = ByteSize::kib(4 * 1024);

/// `content.sessions_bytes_max`.
pub const CONTENT_SESSIONS_BYTES_MAX: ByteSize = ByteSize::kib(256 * 1024);

/// `content.max_processes`.
pub const CONTENT_MAX_PROCESSES: u64 = 3;

/// `content.max_connections`.
pub const CONTENT_MAX_CONNECTIONS: u64 = 20;

/// `content.environment_timeout`.
pub const CONTENT_ENVIRONMENT_TIMEOUT: Duration = Duration::from_secs(1800);

/// `content.environment_bytes_max`: some frameworks have several GiB.
pub const CONTENT_ENVIRONMENT_BYTES_MAX: ByteSize = ByteSize::kib(16 * 1024 * 1024);

/// `content.cache_bytes_max`: some environments, and some room.
pub const CONTENT_CACHE_BYTES_MAX: ByteSize = ByteSize::kib(64 * 1024 * 1024);

/// `content.cache_unused`: what is wanted once a month stays.
pub const CONTENT_CACHE_UNUSED: Duration = Duration::from_secs(40 * 24 * 3600);

/// `content.disk_max`.
pub const CONTENT_DISK_MAX: ByteSize = ByteSize::kib(1024 * 1024);

/// `content.quarto`.
pub const CONTENT_QUARTO: &str = "quarto";

/// `content.nodejs`.
pub const CONTENT_NODEJS: &str = "node";

/// `content.render_timeout`.
pub const CONTENT_RENDER_TIMEOUT: Duration = Duration::from_secs(3600);

/// `content.renderings_kept`.
pub const CONTENT_RENDERINGS_KEPT: u64 = 30;

/// `content.bundles_kept`: all.
pub const CONTENT_BUNDLES_KEPT: u64 = 0;

/// `mail.port`: submission (RFC 6409).
pub const MAIL_PORT: u64 = 587;

/// `mail.tls`.
pub(super) const MAIL_TLS: super::node::MailTls = super::node::MailTls::Starttls;
