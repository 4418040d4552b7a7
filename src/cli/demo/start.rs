//! From nothing to everything serving: Shiny processes first, side by side, then the proxy.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;

use super::apps::App;
use super::ask;
use super::configuration::{self, Front, Member};
use super::folder::{Folder, FolderError};
use super::ports::{self, NoneFree, Ports};
use super::report::{Content, Node, PROXY, Proxy, Report};
use super::supervise::{Launcher, Program, Running};
use crate::proxy::affinity::KeyRing;

/// What was started so far; dropped, all of it is killed.
pub(super) struct Stage {
    launcher: Launcher,
    processes: Vec<(Program, Running)>,
}

/// Why something does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    NoPort(#[from] NoneFree),
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The process could not be made.
    #[error("cannot start {0}: {1}")]
    Spawn(String, std::io::Error),
    /// It ended instead of serving.
    #[error("{name} ended ({status}) instead of serving; its last words:\n{words}")]
    Ended { name: String, status: ExitStatus, words: String },
    /// It is there but silent.
    #[error("{name} did not serve within {} s: {why}; its last words:\n{words}", START_TIMEOUT.as_secs())]
    Silent { name: String, why: String, words: String },
    /// Ports were taken again and again.
    #[error("{0} found its port taken {START_TRIES} times in a row")]
    Unlucky(String),
}

/// For one process; the first start of an interpreter on a cold, busy disk takes long.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks whether something serves.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Ports tried for one process, each found free and then taken by somebody else.
const START_TRIES: usize = 10;
/// Where the search for free ports begins.
const NODE_PORT: u16 = 4001;
const HTTPS_PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9443;
/// Of a log, to explain a failure.
const LAST_WORDS_LINES: usize = 20;

impl Stage {
    /// Nothing runs yet.
    pub(super) fn new(launcher: Launcher) -> Self {
        Self { launcher, processes: Vec::new() }
    }

    /// How to start things, and what runs.
    pub(super) fn into_parts(self) -> (Launcher, Vec<(Program, Running)>) {
        (self.launcher, self.processes)
    }
}

/// Starts `count` processes of each app and a proxy before them.
///
/// # Errors
/// When one of them does not serve. Nothing is left running once `stage` is dropped.
pub(super) async fn all(
    stage: &mut Stage,
    folder: &Folder,
    interpreters: &[(App, PathBuf)],
    count: u8,
) -> Result<Report, StartError> {
    let ports = Arc::new(Ports::default());
    let mut starting = JoinSet::new();
    let mut letters = 'a'..='z';
    for (app, interpreter) in interpreters {
        for letter in letters.by_ref().take(count.into()) {
            let name = format!("node-{letter}");
            let node = NodePlan::new(*app, interpreter.clone(), name, folder);
            starting.spawn(node.start(stage.launcher.clone(), ports.clone()));
        }
    }
    let mut nodes = Vec::new();
    while let Some(started) = starting.join_next().await {
        let started = started.map_err(|error| StartError::Spawn("a node".to_owned(), error.into()))?;
        nodes.push(started?);
    }
    nodes.sort_by(|one, other| one.plan.name.cmp(&other.plan.name));

    let pools: Vec<_> = interpreters
        .iter()
        .map(|(app, _)| {
            let members = nodes.iter().filter(|node| node.plan.app == *app);
            (*app, members.map(|node| Member { key: node.plan.name.clone(), port: node.port }).collect())
        })
        .collect();
    let listed = nodes.iter().map(StartedNode::listed).collect();
    stage.processes.extend(nodes.into_iter().map(|node| (node.program, node.running)));

    let proxy = start_proxy(&stage.launcher, folder, &pools, &ports).await?;
    let report = Report {
        url: format!("https://127.0.0.1:{}", proxy.https_port),
        ca: folder.join("ca.pem"),
        admin: format!("http://127.0.0.1:{}", proxy.admin_port),
        admin_socket: folder.join("admin.sock"),
        config: folder.join("proxy.toml"),
        proxy: Proxy { pid: proxy.running.id() },
        nodes: listed,
        content: pools.iter().map(|(app, _)| content(*app, proxy.https_port)).collect(),
        program: std::env::args_os()
            .next()
            .map_or_else(|| "bowline".to_owned(), |name| name.to_string_lossy().into_owned()),
    };
    stage.processes.push((proxy.program, proxy.running));
    Ok(report)
}

/// The host under which an app is reached through the proxy.
fn host(app: App) -> &'static str {
    match app {
        App::Python => "127.0.0.1",
        App::R => "r.localhost",
    }
}

fn content(app: App, port: u16) -> Content {
    Content { name: app.name(), url: format!("https://{}:{port}/", host(app)) }
}

/// A Shiny process to be.
struct NodePlan {
    app: App,
    interpreter: PathBuf,
    name: String,
    folder: PathBuf,
    log: PathBuf,
    tmp: PathBuf,
    /// In its page, so that a stranger on the same port is not taken for it.
    mark: String,
}

/// A Shiny process that serves.
struct StartedNode {
    plan: NodePlan,
    program: Program,
    running: Running,
    port: u16,
}

impl StartedNode {
    fn listed(&self) -> Node {
        Node {
            name: self.plan.name.clone(),
            pid: self.running.id(),
            url: format!("http://127.0.0.1:{}", self.port),
            app: self.plan.app.name(),
        }
    }
}

impl NodePlan {
    fn new(app: App, interpreter: PathBuf, name: String, folder: &Folder) -> Self {
        Self {
            app,
            interpreter,
            folder: folder.join("apps").join(app.name()),
            log: folder.log(&name),
            tmp: folder.join("tmp"),
            mark: format!("{name}-{}", super::random_name()),
            name,
        }
    }

    fn program(&self, port: u16) -> Program {
        Program {
            name: self.name.clone(),
            command: self.app.command(&self.interpreter, port),
            environment: vec![
                ("BOWLINE_NODE", self.name.clone().into()),
                ("BOWLINE_DEMO", self.mark.clone().into()),
                ("TMPDIR", self.tmp.clone().into()),
            ],
            folder: self.folder.clone(),
            log: self.log.clone(),
        }
    }

    async fn start(self, launcher: Launcher, ports: Arc<Ports>) -> Result<StartedNode, StartError> {
        for _ in 0..START_TRIES {
            let port = ports.next(NODE_PORT)?;
            let program = self.program(port);
            let running = start(&launcher, &program)?;
            match serves(running, &program, || self.look(port)).await {
                Ok(running) => return Ok(StartedNode { plan: self, program, running, port }),
                // Somebody took the port between our look and its start.
                Err(StartError::Ended { .. }) if !ports::is_free(port) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StartError::Unlucky(self.name))
    }

    /// It, and not somebody else, serves on the port.
    async fn look(&self, port: u16) -> Result<(), String> {
        match ask::http(port).await {
            Ok(answer) if answer.status == 200 && answer.has(&self.mark) => Ok(()),
            Ok(answer) => Err(format!("the answer on port {port} (status {}) is not its own", answer.status)),
            Err(error) => Err(format!("port {port}: {error}")),
        }
    }
}

/// The proxy, serving.
struct StartedProxy {
    program: Program,
    running: Running,
    https_port: u16,
    admin_port: u16,
}

/// What we need of the file that the proxy writes once it listens everywhere.
#[derive(Deserialize)]
struct PortsFile {
    pid: u32,
}

async fn start_proxy(
    launcher: &Launcher,
    folder: &Folder,
    pools: &[(App, Vec<Member>)],
    ports: &Ports,
) -> Result<StartedProxy, StartError> {
    if !folder.join("keys/affinity.key").exists() {
        folder.write("keys/affinity.key", &KeyRing::generate(super::random()))?;
    }
    let program = proxy_program(folder).map_err(|error| StartError::Spawn(PROXY.to_owned(), error))?;
    for _ in 0..START_TRIES {
        let (https_port, admin_port) = (ports.next(HTTPS_PORT)?, ports.next(ADMIN_PORT)?);
        let front = Front { https_port, has_ipv6: ports::has_ipv6(), admin_port, pools };
        folder.write("proxy.toml", &configuration::text(&front))?;
        let running = start(launcher, &program)?;
        let pid = running.id();
        let look = || async {
            if !listens(&folder.join("ports.json"), pid) {
                return Err("it does not listen yet".to_owned());
            }
            for (app, _) in pools {
                let answer = ask::https(https_port, host(*app), &folder.join("ca.pem")).await;
                let answer = answer.map_err(|error| format!("{}: {error}", app.name()))?;
                if answer.status != 200 {
                    return Err(format!("{}: status {}", app.name(), answer.status));
                }
            }
            Ok(())
        };
        match serves(running, &program, look).await {
            Ok(running) => return Ok(StartedProxy { program, running, https_port, admin_port }),
            Err(StartError::Ended { .. }) if !(ports::is_free(https_port) && ports::is_free(admin_port)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StartError::Unlucky(PROXY.to_owned()))
}

fn proxy_program(folder: &Folder) -> std::io::Result<Program> {
    let words = [
        std::env::current_exe()?.into(),
        "proxy".into(),
        "-c".into(),
        folder.join("proxy.toml").into(),
        "--ports-file".into(),
        folder.join("ports.json").into(),
    ];
    Ok(Program {
        name: PROXY.to_owned(),
        command: words.into(),
        environment: vec![("TMPDIR", folder.join("tmp").into())],
        folder: folder.path().to_owned(),
        log: folder.log(PROXY),
    })
}

/// The ports file is this process's, not one that an earlier demo left here.
fn listens(ports_file: &Path, pid: u32) -> bool {
    std::fs::read(ports_file)
        .is_ok_and(|bytes| serde_json::from_slice::<PortsFile>(&bytes).is_ok_and(|file| file.pid == pid))
}

fn start(launcher: &Launcher, program: &Program) -> Result<Running, StartError> {
    Running::start(launcher, program).map_err(|error| StartError::Spawn(program.name.clone(), error))
}

/// Waits until `look` finds that the process serves; hands it back then, else kills it.
async fn serves<F: Future<Output = Result<(), String>>>(
    mut running: Running,
    program: &Program,
    look: impl Fn() -> F,
) -> Result<Running, StartError> {
    let mut why = String::new();
    let waited = tokio::time::timeout(START_TIMEOUT, async {
        loop {
            match look().await {
                Ok(()) => return None,
                Err(reason) => why = reason,
            }
            if let Some(status) = running.ended() {
                return Some(status);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    let waited = waited.await;
    let (name, words) = (program.name.clone(), last_words(&program.log));
    match waited {
        Ok(None) => Ok(running),
        Ok(Some(status)) => Err(StartError::Ended { name, status, words }),
        Err(_) => Err(StartError::Silent { name, why, words }),
    }
}

/// The end of a log, indented. The file is as small as a process that just started can make it.
fn last_words(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LAST_WORDS_LINES)..).unwrap_or_default();
    if last.is_empty() {
        return "    (none)".to_owned();
    }
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
