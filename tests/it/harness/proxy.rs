//! The product's binary as a child process.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use super::{Client, Folder, Metrics, Response, Socket, eventually, get, patiently};

/// A running proxy. Killed when dropped; what it printed is shown if the test fails.
pub struct Proxy {
    child: Child,
    pub folder: std::sync::Arc<Folder>,
    /// Tells several proxies of one folder apart.
    name: String,
    ports: Ports,
}

/// What `--ports-file` says.
#[derive(Debug, serde::Deserialize)]
struct Ports {
    listeners: BTreeMap<String, String>,
    admin: Option<String>,
    admin_socket: Option<PathBuf>,
    pid: u32,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Asserts exit code 0.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_bowline");

/// Runs the binary to its end.
pub async fn bowline(arguments: &[&str]) -> Output {
    ended(tokio::process::Command::new(BINARY), arguments).await
}

/// The same by way of a shell's script that ends in `exec "$0" "$@"`.
pub async fn bowline_by(script: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", script, BINARY]);
    ended(command, arguments).await
}

async fn ended(mut command: tokio::process::Command, arguments: &[&str]) -> Output {
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = patiently(&format!("`bowline {}`", arguments.join(" ")), command.output()).await.unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A child of the product's binary with its output in files, not yet ready.
pub fn spawn(arguments: &[&str], stdout: &Path, stderr: &Path) -> Child {
    start(Command::new(BINARY).args(arguments), stdout, stderr)
}

/// The same by way of a shell's script that ends in `exec "$0" "$@"`.
pub fn spawn_by(script: &str, arguments: &[&str], stdout: &Path, stderr: &Path) -> Child {
    start(Command::new("sh").args(["-c", script, BINARY]).args(arguments), stdout, stderr)
}

fn start(command: &mut Command, stdout: &Path, stderr: &Path) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(File::create(stdout).unwrap())
        .stderr(File::create(stderr).unwrap())
        .spawn()
        .unwrap()
}

impl Proxy {
    /// Starts with this configuration in a folder of its own and waits until it is ready.
    pub async fn start(config: &str) -> Self {
        Self::start_in(Folder::new(), config).await
    }

    /// Starts in a folder that has files already.
    pub async fn start_in(folder: impl Into<std::sync::Arc<Folder>>, config: &str) -> Self {
        Self::start_as("proxy", folder, config).await
    }

    /// Starts beside another one in the same folder.
    pub async fn start_as(name: &str, folder: impl Into<std::sync::Arc<Folder>>, config: &str) -> Self {
        let mut proxy = Self::launch(name, folder, &complete(name, config)).await;
        proxy.wait_until_ready().await;
        proxy
    }

    /// Starts with this configuration and nothing added to it.
    pub async fn start_exactly(folder: Folder, config: &str) -> Self {
        let mut proxy = Self::launch("proxy", folder, config).await;
        proxy.wait_until_ready().await;
        proxy
    }

    /// As [`Proxy::start`], without waiting until it has a verdict on every pool.
    pub async fn start_unready(config: &str) -> Self {
        Self::start_unready_in(Folder::new(), config).await
    }

    /// Both.
    pub async fn start_unready_in(folder: Folder, config: &str) -> Self {
        Self::launch("proxy", folder, &complete("proxy", config)).await
    }

    async fn launch(name: &str, folder: impl Into<std::sync::Arc<Folder>>, config: &str) -> Self {
        let folder = folder.into();
        let file = folder.write(&format!("{name}.toml"), config);
        let ports = folder.path(&format!("{name}.ports"));
        let (out, err) = (folder.path(&format!("{name}.out")), folder.path(&format!("{name}.err")));
        let arguments = ["proxy", "-c", file.to_str().unwrap(), "--ports-file", ports.to_str().unwrap()];
        let child = spawn(&arguments, &out, &err);
        let ports_of_nobody = Ports { listeners: BTreeMap::new(), admin: None, admin_socket: None, pid: child.id() };
        let mut proxy = Self { child, folder, name: name.to_owned(), ports: ports_of_nobody };
        let text = eventually("the ports file", async || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                panic!("the proxy ended at once: {status}");
            }
            std::fs::read_to_string(&ports).ok()
        })
        .await;
        proxy.ports = serde_json::from_str(&text).unwrap_or_else(|e| panic!("ports file: {e}: {text}"));
        assert_eq!(proxy.ports.pid, proxy.child.id(), "the ports file names the process");
        proxy
    }

    /// Kills it, and starts it anew in its folder; the listener `web` has the address it had.
    pub async fn killed_and_started(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
        let file = format!("{}.toml", self.name);
        let web = format!("name = \"web\"\naddress = \"{}\"", self.web());
        let config = self.folder.read(&file).replace("name = \"web\"\naddress = \"127.0.0.1:0\"", &web);
        assert!(config.contains(&web), "{config}");
        for left in ["ports", "sock"] {
            let _ = std::fs::remove_file(self.folder.path(&format!("{}.{left}", self.name)));
        }
        let (name, folder) = (self.name.clone(), std::sync::Arc::clone(&self.folder));
        *self = Self::launch(&name, folder, &config).await;
        self.wait_until_ready().await;
    }

    /// The other proxy of a pair: in the same folder, so with the same keys, and with the same configuration.
    pub async fn twin(&self, name: &str) -> Self {
        let text = self.folder.read(&format!("{}.toml", self.name));
        let config = text
            .replace(&format!("\"{}.sock\"", self.name), &format!("\"{name}.sock\""))
            .replace(&format!("address = \"{}\"", self.web()), "address = \"127.0.0.1:0\"");
        let mut twin = Self::launch(name, std::sync::Arc::clone(&self.folder), &config).await;
        twin.wait_until_ready().await;
        twin
    }

    async fn wait_until_ready(&mut self) {
        let admin = self.admin().to_owned();
        eventually("/readyz", async || (get(&admin, "/readyz").await.status == 200).then_some(())).await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port` of a listener.
    pub fn listener(&self, name: &str) -> &str {
        self.ports.listeners.get(name).unwrap_or_else(|| panic!("no listener {name}: {:?}", self.ports))
    }

    /// `host:port` of the listener `web`.
    pub fn web(&self) -> &str {
        self.listener("web")
    }

    /// `host:port` of the read-only admin endpoint.
    pub fn admin(&self) -> &str {
        self.ports.admin.as_deref().expect("every test's configuration has an admin address")
    }

    pub fn admin_socket(&self) -> &Path {
        self.ports.admin_socket.as_deref().expect("every test's configuration has an admin socket")
    }

    /// A plain connection to the listener `web`.
    pub async fn connect(&self) -> Client {
        Client::tcp(self.web()).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, target: &str) -> Response {
        get(self.web(), target).await
    }

    /// One GET with these fields on a connection of its own.
    pub async fn get_as(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        super::get_as(self.web(), target, fields).await
    }

    /// A websocket through the listener `web`.
    pub async fn socket(&self, fields: &[(&str, &str)]) -> Socket {
        Socket::tcp(self.web(), fields).await
    }

    pub async fn status(&self) -> serde_json::Value {
        get(self.admin(), "/status").await.json()
    }

    pub async fn sessions(&self) -> Vec<serde_json::Value> {
        match get(self.admin(), "/sessions").await.json() {
            serde_json::Value::Array(rows) => rows,
            other => panic!("no list: {other}"),
        }
    }

    /// One backend of the pool `app` as `/status` tells it.
    pub async fn backend(&self, key: &str) -> serde_json::Value {
        let status = self.status().await;
        let pools = status["pools"].as_array().unwrap();
        let app = pools.iter().find(|p| p["name"] == "app").unwrap();
        let found = app["backends"].as_array().unwrap().iter().find(|b| b["key"] == key);
        found.unwrap_or_else(|| panic!("no backend {key}: {status}")).clone()
    }

    /// Waits until a backend of the pool `app` has this health.
    pub async fn until_health(&self, key: &str, health: &str) {
        let what = format!("{key} to be {health}");
        eventually(&what, async || (self.backend(key).await["health"] == health).then_some(())).await;
    }

    /// Waits until so many sessions live at a backend of the pool `app`.
    pub async fn until_sessions(&self, key: &str, sessions: u64) {
        let what = format!("{key} to have {sessions} sessions");
        eventually(&what, async || (self.backend(key).await["sessions"] == sessions).then_some(())).await;
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(get(self.admin(), "/metrics").await.text())
    }

    /// Runs a command of the binary against this proxy.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut all = arguments.to_vec();
        all.extend(["--admin", self.admin_socket().to_str().unwrap()]);
        bowline(&all).await
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, config: &str) {
        self.folder.write(&format!("{}.toml", self.name), complete(&self.name, config));
    }

    /// Replaces the configuration and has it taken up.
    pub async fn reload(&self, config: &str) {
        self.write_config(config);
        self.command(&["reload"]).await.ok();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the end of the proxy", async || self.child.try_wait().unwrap()).await
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it printed to standard output.
    pub fn stdout(&self) -> String {
        self.folder.read(&format!("{}.out", self.name))
    }

    /// What it logged.
    pub fn stderr(&self) -> String {
        self.folder.read(&format!("{}.err", self.name))
    }

    /// Threads and memory are the kernel's word: resident KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait();
        if std::thread::panicking() {
            let why = status.map(|s| match s.signal() {
                Some(signal) => format!("ended by signal {signal}"),
                None => s.to_string(),
            });
            eprintln!("--- {} ({why:?}) ---\n{}{}", self.name, self.stdout(), tail(&self.stderr()));
        }
    }
}

/// The last lines, enough to see what happened.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(200)..].join("\n")
}

/// Adds what every test's configuration has, unless it has it itself.
fn complete(name: &str, config: &str) -> String {
    let has = |table: &str| config.lines().any(|l| l.trim() == table);
    let mut text = "role = \"proxy\"\n".to_owned();
    if !has("[admin]") {
        text += &format!("[admin]\naddress = \"127.0.0.1:0\"\nsocket = \"{name}.sock\"\n");
    }
    if !has("[log]") {
        text += "[log]\nlevel = \"debug\"\n";
    }
    if !has("[shutdown]") {
        text += "[shutdown]\ndeadline = \"10s\"\n";
    }
    text + "\n" + config
}
