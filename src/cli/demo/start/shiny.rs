//! A Shiny process of the demo.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;

use super::{APP_PORT, START_TRIES, StartError, serves, start};
use crate::cli::demo::apps::App;
use crate::cli::demo::ask;
use crate::cli::demo::folder::Folder;
use crate::cli::demo::ports::{self, Ports};
use crate::cli::demo::report::{Content, Node};
use crate::cli::demo::supervise::{Launcher, Program, Running};

/// A Shiny process to be.
pub(super) struct Plan {
    pub(super) app: App,
    pub(super) interpreter: PathBuf,
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) log: PathBuf,
    pub(super) tmp: PathBuf,
    /// In its page, so that a stranger on the same port is not taken for it.
    pub(super) mark: String,
}

/// A Shiny process that serves.
pub(super) struct Started {
    pub(super) plan: Plan,
    pub(super) program: Program,
    pub(super) running: Running,
    pub(super) port: u16,
}

impl Started {
    pub(super) fn listed(&self) -> Node {
        Node {
            name: self.plan.name.clone(),
            pid: self.running.id(),
            url: format!("http://127.0.0.1:{}", self.port),
            app: self.plan.app.name(),
        }
    }
}

impl Plan {
    pub(super) fn new(app: App, interpreter: PathBuf, name: String, folder: &Folder) -> Self {
        Self {
            app,
            interpreter,
            folder: folder.join("apps").join(app.name()),
            log: folder.log(&name),
            tmp: folder.join("tmp"),
            mark: format!("{name}-{}", crate::cli::demo::random_name()),
            name,
        }
    }

    pub(super) fn program(&self, port: u16) -> Program {
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
            stop: Signal::TERM,
        }
    }

    pub(super) async fn start(self, launcher: Launcher, ports: Arc<Ports>) -> Result<Started, StartError> {
        for _ in 0..START_TRIES {
            let port = ports.next(APP_PORT)?;
            let program = self.program(port);
            let running = start(&launcher, &program)?;
            match serves(running, &program, || self.look(port)).await {
                Ok(running) => return Ok(Started { plan: self, program, running, port }),
                // Somebody took the port between our look and its start.
                Err(StartError::Ended { .. }) if !ports::is_free(port) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StartError::Unlucky(self.name))
    }

    /// It, and not somebody else, serves on the port.
    pub(super) async fn look(&self, port: u16) -> Result<(), String> {
        match ask::http(port, "/").await {
            Ok(answer) if answer.status == 200 && answer.has(&self.mark) => Ok(()),
            Ok(answer) => Err(format!("the answer on port {port} (status {}) is not its own", answer.status)),
            Err(error) => Err(format!("port {port}: {error}")),
        }
    }
}

/// The host under which an app is reached through the proxy.
pub(super) fn host(app: App) -> &'static str {
    match app {
        App::Python => "127.0.0.1",
        App::R => "r.localhost",
    }
}

/// Its page.
pub(super) fn content(app: App, port: u16) -> Content {
    let title = match app {
        App::Python => "Shiny for Python",
        App::R => "Shiny for R",
    };
    Content { name: app.name(), title, guid: None, url: format!("https://{}:{port}/", host(app)) }
}
