//! `bowline demo` as a child process.

use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal};

use super::proxy::{self, bowline};
use super::{Folder, eventually};

/// A running demo. Ended with all its children when dropped.
pub struct Demo {
    child: Child,
    folder: Folder,
    /// The JSON line.
    pub told: serde_json::Value,
}

impl Demo {
    /// Starts one in a folder of its own and waits for its line.
    pub async fn start() -> Self {
        Self::launch(Folder::open_to_all(), &["--json", "--without-content"]).with_line().await
    }

    /// One that publishes content too.
    pub async fn start_whole() -> Self {
        let wheels = super::tools::top().join(".venv-clients/wheels");
        Self::launch(Folder::open_to_all(), &["--json", "--wheels", wheels.to_str().unwrap()]).with_line().await
    }

    /// Another one in the folder of this one, which has ended.
    pub async fn again(mut self, arguments: &[&str]) -> Self {
        let folder = std::mem::replace(&mut self.folder, Folder::new());
        Self::launch(folder, &[&["--without-content"], arguments].concat()).with_line().await
    }

    async fn with_line(mut self) -> Self {
        // R takes its time; a demo is more than one wait.
        for _ in 0..6 {
            if self.wait_for_line().await {
                return self;
            }
        }
        panic!("the demo told nothing");
    }

    /// Starts one that tells people, with further arguments; what it tells.
    pub async fn start_for_people(arguments: &[&str]) -> (Self, String) {
        let mut demo = Self::launch(Folder::open_to_all(), &[&["--without-content"], arguments].concat());
        for _ in 0..6 {
            let started = tokio::time::Instant::now();
            while started.elapsed() < super::PATIENCE {
                if let Some(status) = demo.child.try_wait().unwrap() {
                    panic!("the demo ended at once: {status}");
                }
                let text = demo.folder.read("demo.out");
                if text.ends_with("Ctrl-C ends everything.\n") {
                    demo.told = demo.now();
                    return (demo, text);
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        panic!("the demo told nothing");
    }

    fn launch(folder: Folder, arguments: &[&str]) -> Self {
        let data = folder.path("d");
        let (out, err) = (folder.path("demo.out"), folder.path("demo.err"));
        let all = [&["demo", "--dir", data.to_str().unwrap()], arguments].concat();
        Self { child: proxy::spawn(&all, &out, &err), folder, told: serde_json::Value::Null }
    }

    /// What the JSON line would tell now: who died has a new process.
    pub fn now(&self) -> serde_json::Value {
        serde_json::from_str(&self.folder.read("d/demo.json")).unwrap()
    }

    async fn wait_for_line(&mut self) -> bool {
        let started = tokio::time::Instant::now();
        while started.elapsed() < super::PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the demo ended at once: {status}");
            }
            if let Some((line, rest)) = self.folder.read("demo.out").split_once('\n') {
                assert_eq!(rest, "", "one line and no more");
                self.told = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                return true;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        false
    }

    /// A text of the line.
    pub fn text(&self, key: &str) -> &str {
        self.told[key].as_str().unwrap_or_else(|| panic!("no `{key}`: {}", self.told))
    }

    /// `host:port` of its https listener.
    pub fn address(&self) -> &str {
        self.text("url").strip_prefix("https://").unwrap().trim_end_matches('/')
    }

    /// `host:port` of its admin endpoint.
    pub fn admin(&self) -> &str {
        self.text("admin").strip_prefix("http://").unwrap().trim_end_matches('/')
    }

    /// The child processes it names: the proxy, the nodes, and PostgreSQL where there is one.
    pub fn children(&self) -> Vec<u32> {
        let nodes = self.told["nodes"].as_array().unwrap().iter().map(|n| &n["pid"]);
        let all = std::iter::once(&self.told["proxy"]["pid"]).chain(nodes).chain([&self.told["postgres"]["pid"]]);
        all.filter_map(|pid| Some(pid.as_u64()? as u32)).collect()
    }

    /// Kills one of its processes as a crash does.
    pub fn kill(&self, name: &str) {
        let nodes = self.told["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|n| n["name"] == name).unwrap_or_else(|| panic!("no `{name}`: {}", self.told));
        let pid = Pid::from_raw(node["pid"].as_i64().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    /// What its proxy thinks of a backend.
    pub async fn health(&self, pool: &str, backend: &str) -> String {
        let status = bowline(&["status", "--json", "--admin", self.text("admin_socket")]).await.ok().json();
        let find = |list: &serde_json::Value, key: &str, name: &str| {
            list.as_array().unwrap().iter().find(|one| one[key] == name).unwrap().clone()
        };
        let pool = find(&status["pools"], "name", pool);
        find(&pool["backends"], "key", backend)["health"].as_str().unwrap().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the end of the demo", async || self.child.try_wait().unwrap()).await
    }

    /// Waits until none of these processes is there any more.
    pub async fn until_gone(pids: &[u32]) {
        eventually("every child to be gone", async || (!pids.iter().any(|p| is_alive(*p))).then_some(())).await;
    }
}

/// Whether a process runs; one that waits to be collected does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Politely first, so that it ends its children; it is promised to, even by SIGKILL.
            self.signal(Signal::TERM);
            for _ in 0..100 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- demo ---\n{}{}", self.folder.read("demo.out"), self.folder.read("demo.err"));
        }
    }
}
