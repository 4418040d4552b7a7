//! Where to look: as JSON for programs, as text for people.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::apps::App;

/// What a running demo is made of. Its JSON is a contract: keys are added, never changed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The proxy, without a trailing slash.
    pub(super) url: String,
    /// Whom to trust, PEM.
    pub(super) ca: PathBuf,
    /// The admin endpoint, for reading.
    pub(super) admin: String,
    /// The admin endpoint, for changing.
    pub(super) admin_socket: PathBuf,
    /// The proxy's configuration.
    pub(super) config: PathBuf,
    /// The proxy's process.
    pub(super) proxy: Proxy,
    /// The Shiny processes.
    pub(super) nodes: Vec<Node>,
    /// The pages.
    pub(super) content: Vec<Content>,
    /// How the reader called us, to be called again.
    #[serde(skip)]
    pub(super) program: String,
}

/// The proxy's process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Proxy {
    /// Process id.
    pub(super) pid: u32,
}

/// A Shiny process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Node {
    /// Also the key of its backend.
    pub(super) name: String,
    /// Process id.
    pub(super) pid: u32,
    /// Where it is without the proxy.
    pub(super) url: String,
    /// Which content it serves.
    pub(super) app: &'static str,
}

/// A page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Content {
    /// Also the name of its pool.
    pub(super) name: &'static str,
    /// Through the proxy.
    pub(super) url: String,
}

/// What the proxy's process is called among the kept ones.
pub(super) const PROXY: &str = "proxy";

impl Report {
    /// One line, without its end.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("the report serialises because its paths were checked to be UTF-8")
    }

    /// A process was started anew.
    pub(super) fn set_pid(&mut self, name: &str, pid: u32) {
        if name == PROXY {
            self.proxy.pid = pid;
        }
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            node.pid = pid;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nBowline serves.\n")?;
        for content in &self.content {
            let title = if content.name == App::Python.name() { "Shiny for Python" } else { "Shiny for R" };
            writeln!(f, "    {title:<18}{}", content.url)?;
        }
        writeln!(f, "\nYour browser will warn of an authority it does not know: {}", self.ca.display())?;
        writeln!(f, "\nEnd the process that serves your tab, and see it come back on the other one:\n")?;
        for node in &self.nodes {
            writeln!(f, "    {:<8}kill -9 {:<9}{:<14}{}", node.name, node.pid, node.app, node.url)?;
        }
        writeln!(f, "\nLook inside:\n")?;
        let (program, socket) = (&self.program, self.admin_socket.display());
        writeln!(f, "    {program} status --admin {socket}")?;
        writeln!(f, "    {program} drain shiny-python/node-a --admin {socket}")?;
        writeln!(f, "    curl {}/metrics", self.admin)?;
        let folder = self.config.parent().unwrap_or(&self.config);
        writeln!(f, "\nConfiguration: {}    logs: {}", self.config.display(), folder.join("logs").display())?;
        writeln!(f, "Ctrl-C ends everything.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            url: "https://127.0.0.1:8443".into(),
            ca: "/d/ca.pem".into(),
            admin: "http://127.0.0.1:9443".into(),
            admin_socket: "/d/admin.sock".into(),
            config: "/d/proxy.toml".into(),
            proxy: Proxy { pid: 1 },
            nodes: vec![Node {
                name: "node-a".into(),
                pid: 2,
                url: "http://127.0.0.1:4001".into(),
                app: "shiny-python",
            }],
            content: vec![Content { name: "shiny-python", url: "https://127.0.0.1:8443/".into() }],
            program: "target/debug/bowline".into(),
        }
    }

    #[test]
    fn the_json_is_one_line_with_the_agreed_keys() {
        insta::assert_snapshot!(report().json(), @r#"{"url":"https://127.0.0.1:8443","ca":"/d/ca.pem","admin":"http://127.0.0.1:9443","admin_socket":"/d/admin.sock","config":"/d/proxy.toml","proxy":{"pid":1},"nodes":[{"name":"node-a","pid":2,"url":"http://127.0.0.1:4001","app":"shiny-python"}],"content":[{"name":"shiny-python","url":"https://127.0.0.1:8443/"}]}"#);
    }

    #[test]
    fn a_new_process_id_replaces_the_old_one() {
        let mut report = report();
        report.set_pid("node-a", 22);
        report.set_pid(PROXY, 11);
        report.set_pid("somebody", 33);
        assert_eq!((report.nodes[0].pid, report.proxy.pid), (22, 11));
    }

    #[test]
    fn people_are_told_every_address_and_how_to_end_a_process() {
        let text = report().to_string();
        for wanted in [
            "https://127.0.0.1:8443/",
            "kill -9 2 ",
            "target/debug/bowline status --admin /d/admin.sock",
            "/d/ca.pem",
            "/d/logs",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
    }
}
