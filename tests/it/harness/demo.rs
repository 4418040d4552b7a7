//! `bowline demo` as a child process.

use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal};

use super::{Folder, eventually, proxy};

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
        let folder = Folder::new();
        let data = folder.path("d");
        let (out, err) = (folder.path("demo.out"), folder.path("demo.err"));
        let child = proxy::spawn(&["demo", "--json", "--dir", data.to_str().unwrap()], &out, &err);
        let mut demo = Self { child, folder, told: serde_json::Value::Null };
        // R takes its time; a demo is more than one wait.
        for _ in 0..6 {
            if demo.wait_for_line().await {
                return demo;
            }
        }
        panic!("the demo told nothing");
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

    /// The child processes it names: the proxy, then the nodes.
    pub fn children(&self) -> Vec<u32> {
        let nodes = self.told["nodes"].as_array().unwrap().iter().map(|n| &n["pid"]);
        std::iter::once(&self.told["proxy"]["pid"]).chain(nodes).map(|p| p.as_u64().unwrap() as u32).collect()
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
