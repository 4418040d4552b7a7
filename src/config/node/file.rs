//! The file of a node as written; see [`crate::config::file`] for how it is made.

use ipnet::IpNet;
use toml::Spanned;

use crate::config::default;
use crate::config::file::{AccessLog, Log, Metrics, Shutdown, shown};
use crate::config::node::{MailTls, Network};
use crate::config::reader::Presence::{AtLeastOne, Optional, Required, Table};
use crate::config::reader::section;
use crate::config::value::{
    AccountName, BaseUrl, Count, DatabaseAddress, FilePath, Mailbox, Name, PlainText, Processors, Size, Wait,
};
use crate::config::word::{NodeRole, StorageType};
use crate::types::ListenAddress;

section! {
    /// Configuration of a Bowline node. Durations are written "30s" or "1m 30s", sizes "64KiB". Relative paths are
    /// relative to the folder of this file. Unknown keys are refused. `bowline check FILE` tells every mistake.
    File("the top level") {
        /// What this file configures.
        role: NodeRole = Required("\"node\""),
        /// What `bowline doctor` and logs call this node. Default: the machine's name.
        name: Name = Optional("\"node-a\""),
        /// Worker threads. Default: one per core.
        threads: Count<1, 1024> = Optional("4"),
        /// How clients reach the cluster: through the proxy. Default: as each client says in Host.
        external_url: BaseUrl = Optional("\"https://packages.example.org\""),
        /// The cluster's key, made by `bowline keygen`; the same on every node, mode 0600.
        key_file: FilePath = Required("\"keys/node.key\""),
        /// A folder whose files are served at `/` in place of our landing page; `index.html` first.
        landing_dir: FilePath = Optional("\"landing\""),
        listener: Vec<Spanned<Listener>> = AtLeastOne("[[listener]]"),
        database: Database = Table,
        storage: Storage = Table,
        cache: Cache = Table,
        packages: Packages = Table,
        auth: Auth = Table,
        jobs: Jobs = Table,
        builder: Builder = Table,
        content: Content = Table,
        mail: Mail = Table,
        garbage: Garbage = Table,
        log: Log = Table,
        access_log: AccessLog = Table,
        metrics: Metrics = Table,
        shutdown: Shutdown = Table,
    }

    /// A named address to accept HTTP on, from the proxy. At least one.
    Listener("`[[listener]]`") {
        /// Unique.
        name: Name = Required("\"http\""),
        /// IP address and port, or "unix:/absolute/path". Port 0 lets the kernel choose.
        address: ListenAddress = Required("\"10.0.0.11:3939\""),
        /// The proxies, whose X-Forwarded-* and X-Request-Id are believed. Default: nobody's.
        trusted: Vec<Spanned<IpNet>> = Optional("[\"10.0.0.1\", \"10.0.0.2\"]"),
    }

    /// Where rows are kept.
    Database("`[database]`") {
        /// "sqlite:FILE" for one machine, "postgres://USER@HOST/NAME" for more.
        url: DatabaseAddress = shown(default::DATABASE_URL),
        /// Open connections.
        connections: Count<1, 1000> = shown(default::DATABASE_CONNECTIONS),
        /// For one statement.
        timeout: Wait<100, { 10 * MINUTE }> = shown(default::DATABASE_TIMEOUT),
    }

    /// Where bytes are kept, by class.
    Storage("`[storage]`") {
        default: Place = Table,
        packages: Place = Table,
        bundles: Place = Table,
    }

    /// A place for blobs: `default`, and one for a class that is to be elsewhere: `packages`, and `bundles`, which is what
    /// content is made of. Such a table takes nothing over from `default`.
    Place("`[storage.default]`") {
        /// `directory`: a folder, on NFS where several nodes share it. `s3`: a bucket of S3 or what speaks its protocol.
        r#type: StorageType = shown(default::STORAGE_TYPE),
        /// `directory`: the folder.
        path: FilePath = shown(default::STORAGE_PATH),
        /// Seal new blobs with the cluster's key. What is there already is read either way.
        encrypt: bool = shown(false),
        /// `s3`: the bucket.
        bucket: PlainText = Optional("\"bowline\""),
        /// `s3`: what names of objects begin with.
        prefix: PlainText = Optional("\"packages\""),
        /// `s3`: as AWS calls it; others take what they are given.
        region: PlainText = shown(default::S3_REGION),
        /// `s3`: where it is. Default: AWS.
        endpoint: BaseUrl = Optional("\"https://s3.example.org\""),
        /// `s3`: id of the key. Default: as AWS's own tools find one.
        access_key_id: PlainText = Optional("\"AKIAEXAMPLE\""),
        /// `s3`: the key's secret, in a file of mode 0600.
        secret_access_key_file: FilePath = Optional("\"keys/s3.secret\""),
        /// `s3`: the bucket's name is in the path, not in the host name. Default: with an `endpoint`, so.
        path_style: bool = Optional("true"),
        /// `s3`: send clients to the bucket by signed links, instead of fetching for them. Not for bundles.
        redirect: bool = shown(false),
    }

    /// This machine's own disk: uploads on their way, and what can be fetched again. Nothing here needs a backup.
    Cache("`[cache]`") {
        /// The folder; not on a network filesystem. Several nodes of one machine may share it.
        path: FilePath = shown(default::CACHE_PATH),
        /// What copies of packages from a bucket may take.
        bytes_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::CACHE_BYTES_MAX),
    }

    /// Package repositories.
    Packages("`[packages]`") {
        /// Bytes of one uploaded file.
        file_bytes_max: Size<1024, { 1 << 50 }> = shown(default::PACKAGE_BYTES_MAX),
    }

    /// People who log in with a browser.
    Auth("`[auth]`") {
        /// A session that is not used for so long ends.
        session_idle: Wait<{ MINUTE }, { 365 * DAY }> = shown(default::SESSION_IDLE),
        /// Any session ends after this.
        session_lifetime: Wait<{ MINUTE }, { 365 * DAY }> = shown(default::SESSION_LIFETIME),
        /// `rsconnect bootstrap` with what is in this file (base64, mode 0600) makes the first administrator, while there is
        /// no user. Default: that is done by `bowline user create`.
        bootstrap_key_file: FilePath = Optional("\"keys/bootstrap.key\""),
    }

    /// Work in the background, by kind: how much of it this node does at once. 0: other nodes do it.
    Jobs("`[jobs]`") {
        /// Deleting blobs that nothing refers to.
        collect: Count<0, 1> = shown(default::COLLECT_JOBS),
        /// Looking for new tags and commits in git repositories, and once a day into other CRAN-like repositories.
        sync: Count<0, 100> = shown(default::SYNC_JOBS),
        /// Building packages from git repositories.
        build: Count<0, 100> = shown(default::BUILD_JOBS),
        /// Deploying what was published, and rendering what somebody waits for.
        deploy: Count<0, 100> = shown(default::DEPLOY_JOBS),
        /// Rendering what is scheduled.
        report: Count<0, 100> = shown(default::REPORT_JOBS),
    }

    /// How packages are made from git repositories, in a sandbox. It needs `git`, `bwrap` (bubblewrap), and R, or Python
    /// with its `build` package, on each node whose `jobs.build` is not 0.
    Builder("`[builder]`") {
        /// Between two looks into a git repository.
        every: Wait<1000, { 30 * DAY }> = shown(default::SYNC_EVERY),
        /// The repository that Python builds take what they require from, and nothing else. Default: the first that shows
        /// the source.
        pypi: PlainText = Optional("\"pypi\""),
        /// The same for R.
        cran: PlainText = Optional("\"cran\""),
        /// The Python interpreter.
        python: PlainText = shown(default::BUILDER_PYTHON),
        /// R.
        r: PlainText = shown(default::BUILDER_R),
        /// What builds see of this machine, read-only, beside /usr: where those two are.
        readable: Vec<Spanned<FilePath>> = Optional("[\"/opt/R\", \"/opt/python\"]"),
        /// Who builds run as, where the node runs as root; else as the node.
        uid: Count<1, { u32::MAX as u64 - 1 }> = shown(default::BUILDER_UID),
        /// For one build.
        timeout: Wait<1000, { DAY }> = shown(default::BUILDER_TIMEOUT),
        /// Bytes of memory of one process of a build; where there are control groups, of the whole build, beside `disk_max`.
        memory_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::BUILDER_MEMORY_MAX),
        /// Bytes of files of a build, which are kept in memory.
        disk_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::BUILDER_DISK_MAX),
    }

    /// What people publish, and how it runs: each process in a sandbox of its own. It needs `bwrap` (bubblewrap), and R, or
    /// Python with `uv`, on each node.
    Content("`[content]`") {
        /// A second name of the cluster, for what people publish and nothing else, so that no script of theirs shares an
        /// origin with the pages. It leads to the same nodes. Default: everything is at one.
        external_url: BaseUrl = Optional("\"https://apps.example.org\""),
        /// Bytes of one bundle.
        bundle_bytes_max: Size<1024, { 1 << 50 }> = shown(default::BUNDLE_BYTES_MAX),
        /// Bytes it may unpack to.
        unpacked_bytes_max: Size<1024, { 1 << 50 }> = shown(default::UNPACKED_BYTES_MAX),
        /// Who content runs as, where the node runs as root; else all of it as the node. The first of `uid_count`: it makes
        /// environments, and each content has one of those after it, the same on every node.
        uid: Count<1, { u32::MAX as u64 - 1 }> = shown(default::CONTENT_UID),
        /// With 1, all content runs as `uid`. Default: 65536 where `uid` is not written, else 1.
        uid_count: Count<1, { 1 << 24 }> = Optional("65536"),
        /// Accounts of this machine that administrators may let a content run as (`run_as`), where the node runs as root. The
        /// same on every node, with the same numbers.
        run_as: Vec<Spanned<AccountName>> = Optional("[\"finance\", \"research\"]"),
        /// What content reaches: `none`, or `outbound`, other machines by IPv4. Never this machine, nor 169.254.0.0/16. It needs
        /// `slirp4netns` and `ip` (iproute2).
        network: Network = shown(default::CONTENT_NETWORK),
        /// Publishers may choose `outbound` where that is not so for all.
        network_choice: bool = shown(false),
        /// What content never reaches: administrators' own networks, databases.
        network_denied: Vec<Spanned<IpNet>> = Optional("[\"10.1.0.0/16\", \"192.168.7.1\"]"),
        /// What content sees of this machine, read-only, beside /usr: where interpreters are.
        readable: Vec<Spanned<FilePath>> = Optional("[\"/opt/R\", \"/opt/python\"]"),
        /// Folders of this machine that content sees under their own names, and writes to as far as who it runs as may.
        writable: Vec<Spanned<FilePath>> = Optional("[\"/srv/shared\"]"),
        /// Python interpreters; content gets the one nearest to what it was made with.
        python: Vec<Spanned<PlainText>> = Optional("[\"python3\", \"/opt/python/3.12/bin/python3\"]"),
        /// The same for R.
        r: Vec<Spanned<PlainText>> = Optional("[\"R\", \"/opt/R/4.5/bin/R\"]"),
        /// What makes Python environments.
        uv: PlainText = shown(default::CONTENT_UV),
        /// Quarto, where it is installed.
        quarto: PlainText = shown(default::CONTENT_QUARTO),
        /// Node.js, where it is installed.
        nodejs: PlainText = shown(default::CONTENT_NODEJS),
        /// The repository environments are made from. Default: the first for Python.
        pypi: PlainText = Optional("\"pypi\""),
        /// The same for R: the packages a bundle lists come from there. Default: the first for R; while there is none, R has
        /// what is installed on this machine.
        cran: PlainText = Optional("\"cran\""),
        /// For a process to answer its first request.
        init_timeout: Wait<1000, { DAY }> = shown(default::CONTENT_INIT_TIMEOUT),
        /// A process nobody uses ends after this.
        idle_timeout: Wait<1000, { 30 * DAY }> = shown(default::CONTENT_IDLE_TIMEOUT),
        /// For the next bytes of an answer.
        read_timeout: Wait<1000, { 30 * DAY }> = shown(default::CONTENT_READ_TIMEOUT),
        /// A session (websocket) that says nothing ends after this.
        connection_timeout: Wait<1000, { 30 * DAY }> = shown(default::CONTENT_CONNECTION_TIMEOUT),
        /// The session of a Shiny app whose browser is lost waits so long for it, with all it knows. "0s": it does not.
        session_hold: Wait<0, { DAY }> = shown(default::CONTENT_SESSION_HOLD),
        /// Bytes of what one session's app says that are kept until the browser has them; then the app has to wait.
        session_bytes_max: Size<{ 64 << 10 }, { 1 << 40 }> = shown(default::CONTENT_SESSION_BYTES_MAX),
        /// The same for all sessions of this node, and for what came so far of browsers' long messages: those wait for room, but
        /// for no more than 10 s; then the session ends.
        sessions_bytes_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::CONTENT_SESSIONS_BYTES_MAX),
        /// Processes of one content on this node.
        max_processes: Count<1, 1000> = shown(default::CONTENT_MAX_PROCESSES),
        /// Connections of one process.
        max_connections: Count<1, 100_000> = shown(default::CONTENT_MAX_CONNECTIONS),
        /// For making an environment, or an R library.
        environment_timeout: Wait<1000, { DAY }> = shown(default::CONTENT_ENVIRONMENT_TIMEOUT),
        /// Bytes of one environment, or R library.
        environment_bytes_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::CONTENT_ENVIRONMENT_BYTES_MAX),
        /// Bytes of unpacked bundles, renderings and environments below the cache's folder: beyond them what was used longest
        /// ago goes, but not what is in use. It is made again when it is wanted.
        cache_bytes_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::CONTENT_CACHE_BYTES_MAX),
        /// What nobody has used for so long goes.
        cache_unused: Wait<{ DAY }, { 365 * DAY }> = shown(default::CONTENT_CACHE_UNUSED),
        /// For rendering a report.
        render_timeout: Wait<1000, { 7 * DAY }> = shown(default::CONTENT_RENDER_TIMEOUT),
        /// Renderings of one content that are kept.
        renderings_kept: Count<1, 100_000> = shown(default::CONTENT_RENDERINGS_KEPT),
        /// Bundles of one content that are kept: after a deployment older ones go, but never one that is newer than what
        /// runs, that was rendered and is still shown, or that a task is about. 0: all are kept.
        bundles_kept: Count<0, 100_000> = shown(default::CONTENT_BUNDLES_KEPT),
        /// Bytes of writable memory of one process; where there are control groups (cgroups(7)), also of one process of content
        /// with all it starts, beside `disk_max`. Content may be given less (`memory_limit`). Default: no bound.
        memory_max: Size<{ 1 << 20 }, { 1 << 50 }> = Optional("\"4GiB\""),
        /// Processors of one process of content with all it starts, where there are control groups. Content may be given
        /// less (`cpu_limit`). Default: no bound.
        cpus_max: Processors = Optional("2"),
        /// Bytes of files in memory (`/tmp`) of one process.
        disk_max: Size<{ 1 << 20 }, { 1 << 50 }> = shown(default::CONTENT_DISK_MAX),
    }

    /// How mail is sent: to owners whose scheduled report failed, or was wanted by mail.
    Mail("`[mail]`") {
        /// The server that takes it. Default: nothing is sent.
        server: PlainText = Optional("\"smtp.example.org\""),
        /// Its port.
        port: Count<1, 65_535> = shown(default::MAIL_PORT),
        /// How what is sent is encrypted: `starttls`, `tls` from the first byte (port 465), or `none`.
        tls: MailTls = shown(default::MAIL_TLS),
        /// Authorities the server's certificate may be of, PEM. Default: the system's.
        ca_file: FilePath = Optional("\"internal-ca.pem\""),
        /// Who it is from.
        from: Mailbox = Optional("\"Reports <reports@example.org>\""),
        /// Who logs in there. Default: nobody does.
        username: PlainText = Optional("\"reports\""),
        /// Their password, in a file of mode 0600.
        password_file: FilePath = Optional("\"keys/mail.password\""),
    }

    /// Blobs that nothing refers to.
    Garbage("`[garbage]`") {
        /// How often they are looked for.
        every: Wait<{ MINUTE }, { 30 * DAY }> = shown(default::GARBAGE_EVERY),
        /// How long they are kept; longer than the age of a backup of the database that may have to be restored.
        grace: Wait<1000, { 365 * DAY }> = shown(default::GARBAGE_GRACE),
        /// Files fetched from other indexes that nobody downloaded for so long are forgotten, and fetched again when somebody
        /// does: what the other index has given up by then is gone. None of an index that has not answered for two days.
        /// Default: they are kept for ever.
        remote_unused: Wait<{ DAY }, { 3660 * DAY }> = Optional("\"90days\""),
    }
}

impl File {
    /// The keys of the top level.
    pub(super) fn key_names() -> Vec<&'static str> {
        Self::section().keys.iter().map(|key| key.name).collect()
    }
}

// Milliseconds.
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
