//! A package server of the demo: `bowline node`, on the database and the folder that all of them share.

use std::path::Path;

use rustix::process::Signal;

use super::{NODE_PORT, START_TRIES, StartError, listens, serves, start};
use crate::cli::demo::ask;
use crate::cli::demo::folder::{Folder, FolderError};
use crate::cli::demo::ports::{self, Ports};
use crate::cli::demo::report;
use crate::cli::demo::supervise::{Launcher, Program, Running};

/// A node that serves.
pub(super) struct StartedNode {
    pub(super) program: Program,
    pub(super) running: Running,
    pub(super) port: u16,
}

impl StartedNode {
    pub(super) fn listed(&self) -> report::Node {
        report::Node {
            name: self.program.name.clone(),
            pid: self.running.id(),
            url: format!("http://127.0.0.1:{}", self.port),
            app: report::PACKAGES,
        }
    }
}

/// Its configuration.
fn file(name: &str) -> String {
    format!("{name}.toml")
}

/// Writes DIR/NAME.toml.
///
/// # Errors
/// When the file system refuses.
pub(super) fn configure(folder: &Folder, name: &str, port: u16, database: &str, uv: &str) -> Result<(), FolderError> {
    let text = TEXT.replace("NAME", name).replace("PORT", &port.to_string()).replace("DATABASE", database);
    let text = text.replace("UV", uv);
    folder.write(&file(name), &text)
}

/// Starts a node on the first free port.
pub(super) async fn launch(
    launcher: &Launcher,
    folder: &Folder,
    name: &str,
    database: &str,
    uv: &str,
    ports: &Ports,
) -> Result<StartedNode, StartError> {
    let program = program(folder, name).map_err(|error| StartError::Spawn(name.to_owned(), error))?;
    for _ in 0..START_TRIES {
        let port = ports.next(NODE_PORT)?;
        configure(folder, name, port, database, uv)?;
        let running = start(launcher, &program)?;
        let pid = running.id();
        let look = || look(port, folder.join(&ports_file(name)), pid);
        match serves(running, &program, look).await {
            Ok(running) => return Ok(StartedNode { program, running, port }),
            // Somebody took the port between our look and its start.
            Err(StartError::Ended { .. }) if !ports::is_free(port) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StartError::Unlucky(name.to_owned()))
}

async fn look(port: u16, ports_file: impl AsRef<Path>, pid: u32) -> Result<(), String> {
    if !listens(ports_file.as_ref(), pid) {
        return Err("it does not listen yet".to_owned());
    }
    match ask::http(port, "/__ping__").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

fn ports_file(name: &str) -> String {
    format!("{name}.ports.json")
}

fn program(folder: &Folder, name: &str) -> std::io::Result<Program> {
    let words = [
        std::env::current_exe()?.into(),
        "node".into(),
        "-c".into(),
        folder.join(&file(name)).into(),
        "--ports-file".into(),
        folder.join(&ports_file(name)).into(),
    ];
    Ok(Program {
        name: name.to_owned(),
        command: words.into(),
        environment: vec![("TMPDIR", folder.join("tmp").into())],
        folder: folder.path().to_owned(),
        log: folder.log(name),
        stop: Signal::TERM,
    })
}

/// All paths in it are relative to it.
const TEXT: &str = r#"# Written by `bowline demo` at each start. All nodes share the key, the database and the storage.
role = "node"
name = "NAME"
key_file = "keys/node.key"

[[listener]]
name = "http"
address = "127.0.0.1:PORT"
trusted = ["127.0.0.1", "::1"]

[database]
url = "DATABASE"

[storage.default]
type = "directory"
path = "data/blobs"

[cache]
path = "data/cache"

[content]
uv = "UV"

[access_log]
file = "logs/NAME.access.log"

[shutdown]
deadline = "2s"
"#;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::node::DatabaseUrl;

    #[test]
    fn a_node_can_read_its_configuration() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::prepare(Some(parent.path()), "x", Duration::from_secs(1_800_000_000)).unwrap();
        crate::node::secret::ClusterKey::generate(&folder.join("keys/node.key")).unwrap();
        let read = || crate::config::node::load(&folder.join("node-b.toml")).unwrap_or_else(|e| panic!("{e}"));
        configure(&folder, "node-b", 4002, super::super::SQLITE, "uv").unwrap();
        let settings = read();
        assert_eq!(settings.name.as_deref(), Some("node-b"));
        assert_eq!(settings.listeners[0].address.to_string(), "127.0.0.1:4002");
        assert!(matches!(settings.database.url, DatabaseUrl::Sqlite(path) if path == folder.join("data/bowline.db")));
        configure(&folder, "node-b", 4002, "postgres://bowline:x@127.0.0.1:5433/postgres", "uv").unwrap();
        assert!(matches!(read().database.url, DatabaseUrl::Postgres(_)));
    }
}
