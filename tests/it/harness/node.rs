//! A node: `bowline node` with a folder of its own, or beside another one on the same data.

use std::process::{Child, ExitStatus};
use std::sync::Arc;

use rustix::process::{Pid, Signal};

use super::proxy::{bowline, spawn, spawn_by};
use super::{Folder, eventually, get};

/// Killed when dropped.
pub struct Node {
    child: Child,
    pub folder: Arc<Folder>,
    /// `IP:PORT` of its listener.
    pub address: String,
    name: String,
    more: String,
}

impl Node {
    /// A first node, with a key, a database and a storage of its own; `more` is further configuration.
    pub async fn start(name: &str, more: &str) -> Self {
        let folder = Arc::new(Folder::new());
        let key = folder.path("node.key");
        bowline(&["keygen", key.to_str().unwrap()]).await.ok();
        Self::start_in(name, folder, more).await
    }

    /// Another one on the same data, key and all.
    pub async fn beside(&self, name: &str) -> Self {
        Self::start_in(name, Arc::clone(&self.folder), &self.more).await
    }

    /// With this configuration and nothing added to it; its one listener is named `http`, its key `node.key`.
    pub async fn start_exactly(folder: Folder, config: &str) -> Self {
        bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        Self::launch("node", Arc::new(folder), config.to_owned(), "", None).await
    }

    /// As [`Self::start_exactly`], in a folder that has a key.
    pub async fn start_exactly_in(folder: Arc<Folder>, config: &str) -> Self {
        Self::launch("node", folder, config.to_owned(), "", None).await
    }

    /// As [`Self::start`], or beside others in their folder, run by way of a shell's script that ends in `exec "$0" "$@"`.
    pub async fn start_by(script: &str, name: &str, folder: Arc<Folder>, more: &str) -> Self {
        let key = folder.path("node.key");
        if !key.exists() {
            bowline(&["keygen", key.to_str().unwrap()]).await.ok();
        }
        Self::launch(name, folder, config(name, more), more, Some(script)).await
    }

    pub async fn start_in(name: &str, folder: Arc<Folder>, more: &str) -> Self {
        Self::launch(name, folder, config(name, more), more, None).await
    }

    /// Starts it anew at the address it had, after its end.
    pub async fn again(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "it has not ended");
        let file = format!("{}.toml", self.name);
        let config = self.folder.read(&file).replace("127.0.0.1:0", &self.address);
        self.folder.remove(&format!("{}.ports", self.name));
        let (folder, more) = (Arc::clone(&self.folder), self.more.clone());
        let name = self.name.clone();
        *self = Self::launch(&name, folder, config, &more, None).await;
    }

    async fn launch(name: &str, folder: Arc<Folder>, config: String, more: &str, script: Option<&str>) -> Self {
        let file = folder.write(&format!("{name}.toml"), config);
        let ports = folder.path(&format!("{name}.ports"));
        let (out, err) = (folder.path(&format!("{name}.out")), folder.path(&format!("{name}.err")));
        let arguments = ["node", "-c", file.to_str().unwrap(), "--ports-file", ports.to_str().unwrap()];
        let mut child = match script {
            Some(script) => spawn_by(script, &arguments, &out, &err),
            None => spawn(&arguments, &out, &err),
        };
        let text = eventually("the node's ports file", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the node ended at once: {status}\n{}", std::fs::read_to_string(&err).unwrap());
            }
            std::fs::read_to_string(&ports).ok()
        })
        .await;
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let address = told["listeners"]["http"].as_str().unwrap().to_owned();
        assert_eq!(get(&address, "/__ping__").await.status, 200);
        Self { child, folder, address, name: name.to_owned(), more: more.to_owned() }
    }

    /// Its configuration.
    pub fn config(&self) -> String {
        self.folder.path(&format!("{}.toml", self.name)).to_str().unwrap().to_owned()
    }

    /// A command on its database; what it printed, without the line's end.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let config = self.config();
        let all = [arguments, &["-c", &config]].concat();
        bowline(&all).await.ok().stdout.trim_end().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the node's end", async || self.child.try_wait().unwrap()).await
    }
}

fn config(name: &str, more: &str) -> String {
    format!(
        "role = \"node\"\nname = \"{name}\"\nkey_file = \"node.key\"\n[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n\
         trusted = [\"127.0.0.1\"]\n{more}"
    )
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let name = format!("{}.err", self.name);
            eprintln!("--- {} ---\n{}", self.name, self.folder.read(&name));
        }
    }
}
