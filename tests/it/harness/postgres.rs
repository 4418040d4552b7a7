//! A real PostgreSQL of a test's own, which ends with it. Unit tests of the store use this file too.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Ended at once when dropped.
pub struct Postgres {
    folder: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
}

impl Postgres {
    /// A new cluster with one empty database.
    pub fn start() -> Self {
        let mut cluster = Self::new();
        cluster.up();
        cluster
    }

    /// One that encrypts with this certificate and key, PEM.
    pub fn encrypted(certificate: &str, key: &str) -> Self {
        let mut cluster = Self::new();
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = cluster.data().join(name);
            fs::write(&path, pem).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        cluster.set("ssl = on");
        cluster.up();
        cluster
    }

    /// One that writes down every query: see [`Self::log`].
    pub fn talkative() -> Self {
        let mut cluster = Self::new();
        cluster.set("log_statement = all");
        cluster.up();
        cluster
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn set(&self, line: &str) {
        let mut settings = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).unwrap();
        writeln!(settings, "{line}").unwrap();
    }

    fn new() -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        let done = as_server("initdb")
            .args(["--username=bowline", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&data)
            .output();
        succeeded("initdb", &done.unwrap());
        Self { folder, child: None, port: 0 }
    }

    /// A standby of this one that follows it.
    pub fn standby(&self) -> Self {
        let folder = folder();
        let done = as_server("pg_basebackup")
            .args(["--username=bowline", "--host=127.0.0.1", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--port", &self.port.to_string(), "--pgdata"])
            .arg(folder.path().join("data"))
            .output();
        succeeded("pg_basebackup", &done.unwrap());
        let mut standby = Self { folder, child: None, port: 0 };
        standby.up();
        standby
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        let done = as_server("pg_ctl").arg("promote").arg("--pgdata").arg(self.data()).output();
        succeeded("pg_ctl promote", &done.unwrap());
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As a configuration names it.
    pub fn url(&self) -> String {
        format!("postgres://bowline@{}/postgres", self.address())
    }

    /// Starts it, again where it ran before.
    pub fn up(&mut self) {
        for _ in 0..5 {
            if self.port == 0 {
                self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            }
            let log = fs::File::create(self.folder.path().join("log")).unwrap();
            // It ends with the test even where the test is killed.
            let mut child = dying_with_us("postgres")
                .arg("-D")
                .arg(self.data())
                .args(["-p", &self.port.to_string()])
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
                .args(["-c", "fsync=off", "-c", "max_connections=200"])
                .stderr(log)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            for _ in 0..1_000 {
                if self.answers() {
                    self.child = Some(child);
                    return;
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            // Somebody else took the port in between.
            let _ = child.kill();
            let _ = child.wait();
            self.port = 0;
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    /// Ends it as a crash does.
    pub fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The postmaster takes its children with it on SIGQUIT, but not on SIGKILL.
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = child.wait();
    }

    /// What `psql` prints for this SQL: rows without decoration.
    pub fn sql(&self, sql: &str) -> String {
        let done = self.psql(sql);
        succeeded(sql, &done);
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }

    /// Lets nobody write a table until the lock is dropped.
    pub fn lock(&self, table: &str) -> Locked {
        let sql = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT pg_sleep(600)");
        let mut child = self.client(&sql).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let held = format!(
            "SELECT pid FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'ExclusiveLock' AND granted"
        );
        let mut pid = String::new();
        while pid.is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "who locks {table} has ended");
            pid = self.sql(&held);
        }
        Locked { child, release: self.client(&format!("SELECT pg_terminate_backend({pid})")) }
    }

    /// How many statements that begin so wait for a lock.
    pub fn waiting(&self, statement: &str) -> usize {
        let sql = format!(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{statement}%'"
        );
        self.sql(&sql).parse().unwrap()
    }

    fn answers(&self) -> bool {
        self.psql("SELECT 1").status.success()
    }

    fn psql(&self, sql: &str) -> Output {
        // No test waits for a statement that waits for another.
        self.client(sql).env("PGOPTIONS", "-c statement_timeout=60s").output().unwrap()
    }

    fn client(&self, sql: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--username=bowline", "--host=127.0.0.1"])
            .args(["--port", &self.port.to_string(), "--dbname=postgres", "--command", sql])
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::null());
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.down();
    }
}

/// A table nobody can write.
pub struct Locked {
    child: Child,
    release: Command,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Nobody holds it any more where the server is away.
        let _ = self.release.output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It refuses to run as root, so there it runs as nobody.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
    if is_root() {
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    folder
}

fn as_server(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn dying_with_us(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C").args(["--pdeathsig", "QUIT"]);
    if is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    command.arg("--").arg(program(name));
    command
}

/// Debian keeps the server's programs out of the path.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| Path::new(name).to_owned())
}

fn succeeded(what: &str, done: &Output) {
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
}
