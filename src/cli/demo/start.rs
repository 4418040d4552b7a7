//! From nothing to everything serving: the database, Shiny processes and nodes side by side, the proxy, packages, content.
#![expect(clippy::print_stderr, reason = "progress is for people, and programs read stdout")]

mod node;
pub(super) mod postgres;
mod shiny;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use tokio::task::JoinSet;

use self::postgres::{PostgresError, Programs};
use super::apps::App;
use super::configuration::{self, Front, Member};
use super::folder::{Folder, FolderError};
use super::ports::{self, NoneFree, Ports};
use super::publish::{self, PublishError};
use super::report::{Content, Database, Login, PACKAGES, PROXY, Proxy, Report};
use super::repositories::{self, Opened, PrepareError};
use super::supervise::{Launcher, Program, Running};
use super::{ask, content, wheels};
use crate::node::content::interpreter::find;
use crate::node::secret::ClusterKey;
use crate::proxy::affinity::KeyRing;

/// What is wanted.
pub(super) struct Wish {
    /// What runs which app.
    pub(super) interpreters: Vec<(App, PathBuf)>,
    /// Nodes, and processes of each app.
    pub(super) count: u8,
    /// Keep rows in PostgreSQL.
    pub(super) postgres: Option<Programs>,
    /// A folder with what Python content requires; `None`: it is fetched.
    pub(super) wheels: Option<PathBuf>,
    /// Content is published.
    pub(super) publishes: bool,
}

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
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Publish(#[from] PublishError),
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
const APP_PORT: u16 = 4101;
const HTTPS_PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9443;
/// The database, unless it is PostgreSQL.
const SQLITE: &str = "sqlite:data/bowline.db";
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

/// Starts what is wished for: processes of each app, nodes, and a proxy before them; publishes the packages.
///
/// # Errors
/// When one of them does not serve. Nothing is left running once `stage` is dropped.
pub(super) async fn all(stage: &mut Stage, folder: &Folder, wish: &Wish) -> Result<Report, StartError> {
    let ports = Arc::new(Ports::default());
    let mut starting = JoinSet::new();
    for (app, interpreter) in &wish.interpreters {
        for letter in ('a'..='z').take(wish.count.into()) {
            let plan = shiny::Plan::new(*app, interpreter.clone(), format!("{}-{letter}", app.short_name()), folder);
            starting.spawn(plan.start(stage.launcher.clone(), ports.clone()));
        }
    }
    let (database, postgres) = start_database(stage, folder, wish, &ports).await?;
    let uv = uv(wish);
    let Opened { key: api_key, password } = prepare_nodes(folder, &database, &uv).await?;
    let mut nodes = Vec::new();
    for letter in ('a'..='z').take(wish.count.into()) {
        nodes.push(node::launch(&stage.launcher, folder, &node_name(letter), &database, &uv, &ports).await?);
    }
    let mut apps = Vec::new();
    while let Some(started) = starting.join_next().await {
        let started = started.map_err(|error| StartError::Spawn("an app".to_owned(), error.into()))?;
        apps.push(started?);
    }
    apps.sort_by(|one, other| one.plan.name.cmp(&other.plan.name));

    let pools: Vec<_> = wish
        .interpreters
        .iter()
        .map(|(app, _)| {
            let members = apps.iter().filter(|started| started.plan.app == *app);
            (*app, members.map(|started| Member { key: started.plan.name.clone(), port: started.port }).collect())
        })
        .collect();
    let members: Vec<_> = nodes.iter().map(|node| Member { key: node.program.name.clone(), port: node.port }).collect();
    let listed = nodes.iter().map(node::StartedNode::listed).chain(apps.iter().map(shiny::Started::listed)).collect();
    stage.processes.extend(nodes.into_iter().map(|node| (node.program, node.running)));
    stage.processes.extend(apps.into_iter().map(|started| (started.program, started.running)));

    let proxy = start_proxy(&stage.launcher, folder, &pools, &members, &ports).await?;
    let (url, ca) = (format!("https://127.0.0.1:{}", proxy.https_port), folder.join("ca.pem"));
    let proxy_pid = proxy.running.id();
    stage.processes.push((proxy.program, proxy.running));
    let node_ports: Vec<_> = members.iter().map(|member| member.port).collect();
    publish::all(&url, &ca, &api_key, &node_ports).await?;
    let content = publish_content(folder, wish, &url, &ca, &api_key).await?;
    Ok(Report {
        pypi: format!("{url}/packages/pypi/simple/"),
        cran: format!("{url}/packages/cran/latest"),
        url: url.clone(),
        ca,
        admin: format!("http://127.0.0.1:{}", proxy.admin_port),
        admin_socket: folder.join("admin.sock"),
        config: folder.join("proxy.toml"),
        proxy: Proxy { pid: proxy_pid },
        nodes: listed,
        content,
        plain: pools.iter().map(|(app, _)| shiny::content(*app, proxy.https_port)).collect(),
        api_key,
        login: Login { url: format!("{url}/connect/"), username: repositories::USER, password },
        postgres,
        program: std::env::args_os()
            .next()
            .map_or_else(|| "bowline".to_owned(), |name| name.to_string_lossy().into_owned()),
    })
}

/// Publishes the examples; none where there is no sandbox for them.
async fn publish_content(
    folder: &Folder,
    wish: &Wish,
    url: &str,
    ca: &Path,
    key: &str,
) -> Result<Vec<Content>, StartError> {
    if !wish.publishes {
        return Ok(Vec::new());
    }
    if find("bwrap").is_none() {
        eprintln!("Without published content: bubblewrap is not installed. `make demo` installs it.");
        return Ok(Vec::new());
    }
    let python = wish.interpreters.iter().find(|(app, _)| *app == App::Python).map(|(_, python)| python.as_path());
    let wheels = match python {
        Some(python) => wheels::all(python, wish.wheels.as_deref(), &folder.join("wheels")).await,
        None => Err("there is no Python".to_owned()),
    };
    let has_wheels = match &wheels {
        Ok(all) => {
            eprintln!("Publishing {} packages that content requires, and content …", all.len());
            let published = publish::wheels(url, ca, key, all).await;
            published.inspect_err(|why| eprintln!("Without Python content: {why}")).is_ok()
        }
        Err(why) => {
            eprintln!("Without Python content: what it requires cannot be fetched: {why}");
            false
        }
    };
    let has_r = wish.interpreters.iter().any(|(app, _)| *app == App::R);
    Ok(content::all(url, ca, key, has_wheels, has_r, |why| eprintln!("{why}")).await?)
}

fn node_name(letter: char) -> String {
    format!("node-{letter}")
}

/// The database's URL; with PostgreSQL what is to be told of it.
async fn start_database(
    stage: &mut Stage,
    folder: &Folder,
    wish: &Wish,
    ports: &Ports,
) -> Result<(String, Option<Database>), StartError> {
    let Some(programs) = &wish.postgres else { return Ok((SQLITE.to_owned(), None)) };
    let cluster = programs.start(&stage.launcher, folder, ports).await?;
    let told = Database { pid: cluster.running.id(), url: cluster.url.clone() };
    stage.processes.push((cluster.program, cluster.running));
    Ok((cluster.url, Some(told)))
}

/// What makes environments: beside the demo's Python, else on the path.
fn uv(wish: &Wish) -> String {
    let python = wish.interpreters.iter().find(|(app, _)| *app == App::Python);
    let beside = python.and_then(|(_, python)| Some(python.parent()?.join("uv"))).filter(|uv| uv.is_file());
    beside.and_then(|uv| uv.to_str().map(str::to_owned)).unwrap_or_else(|| "uv".to_owned())
}

/// What nodes share: the cluster's key, repositories, a user and an API key, which is also in a file for commands.
async fn prepare_nodes(folder: &Folder, database: &str, uv: &str) -> Result<Opened, StartError> {
    let key = folder.join("keys/node.key");
    if !key.exists() {
        ClusterKey::generate(&key).map_err(|error| FolderError::Io { path: key, error })?;
    }
    let first = node_name('a');
    // No port yet: nothing listens before the node is launched.
    node::configure(folder, &first, 0, database, uv)?;
    let opened = repositories::prepare(&folder.join(&format!("{first}.toml"))).await?;
    folder.write("keys/api.key", &opened.key)?;
    Ok(opened)
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
    nodes: &[Member],
    ports: &Ports,
) -> Result<StartedProxy, StartError> {
    if !folder.join("keys/affinity.key").exists() {
        folder.write("keys/affinity.key", &KeyRing::generate(super::random()))?;
    }
    let program = proxy_program(folder).map_err(|error| StartError::Spawn(PROXY.to_owned(), error))?;
    for _ in 0..START_TRIES {
        let (https_port, admin_port) = (ports.next(HTTPS_PORT)?, ports.next(ADMIN_PORT)?);
        let front = Front { https_port, has_ipv6: ports::has_ipv6(), admin_port, pools, nodes };
        folder.write("proxy.toml", &configuration::text(&front))?;
        let running = start(launcher, &program)?;
        let pid = running.id();
        let look = || async {
            if !listens(&folder.join("ports.json"), pid) {
                return Err("it does not listen yet".to_owned());
            }
            let pages = pools.iter().map(|(app, _)| (app.name(), shiny::host(*app), "/"));
            for (what, host, path) in pages.chain([(PACKAGES, "127.0.0.1", "/packages/pypi/simple/")]) {
                let answer = ask::https(https_port, host, path, &folder.join("ca.pem")).await;
                let answer = answer.map_err(|error| format!("{what}: {error}"))?;
                if answer.status != 200 {
                    return Err(format!("{what}: status {}", answer.status));
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
        stop: Signal::TERM,
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
