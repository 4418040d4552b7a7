//! Where to look: as JSON for programs, as text for people.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::packages;
use super::start::postgres;

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
    /// The package servers, then the Shiny processes.
    pub(super) nodes: Vec<Node>,
    /// What was published.
    pub(super) content: Vec<Content>,
    /// The pages of the Shiny processes that the proxy alone stands before.
    pub(super) plain: Vec<Content>,
    /// The Python repository, as installers want it.
    pub(super) pypi: String,
    /// The R repository, as installers want it.
    pub(super) cran: String,
    /// May do everything with the repositories.
    pub(super) api_key: String,
    /// Who may look at the pages, and do everything there.
    pub(super) login: Login,
    /// Where the demo brought PostgreSQL along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) postgres: Option<Database>,
    /// How the reader called us, to be called again.
    #[serde(skip)]
    pub(super) program: String,
}

/// What a person logs in with.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Login {
    /// The pages, through the proxy.
    pub(super) url: String,
    /// Of an administrator.
    pub(super) username: &'static str,
    /// Another one at each start.
    pub(super) password: String,
}

/// The proxy's process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Proxy {
    /// Process id.
    pub(super) pid: u32,
}

/// A package server, or a Shiny process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Node {
    /// Also the key of its backend.
    pub(super) name: String,
    /// Process id.
    pub(super) pid: u32,
    /// Where it is without the proxy.
    pub(super) url: String,
    /// What it serves: [`PACKAGES`], or which content.
    pub(super) app: &'static str,
}

/// A PostgreSQL cluster.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Database {
    /// Process id.
    pub(super) pid: u32,
    /// With its password.
    pub(super) url: String,
}

/// A page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Content {
    /// Unique; of a plain page also the name of its pool.
    pub(super) name: &'static str,
    /// For people.
    #[serde(skip)]
    pub(super) title: &'static str,
    /// Of what was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) guid: Option<String>,
    /// Through the proxy.
    pub(super) url: String,
}

/// What the proxy's process is called among the kept ones.
pub(super) const PROXY: &str = "proxy";
/// What package servers serve.
pub(super) const PACKAGES: &str = "packages";
/// They send clients of https to another machine first.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// They win over `--cert` of pip and twine (<https://github.com/psf/requests/issues/3829>).
const CA_VARIABLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

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
        if let Some(database) = self.postgres.as_mut().filter(|_| name == postgres::NAME) {
            database.pid = pid;
        }
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            node.pid = pid;
        }
    }

    /// Shell lines that install what the demo published, by pip, uv and R, where `is_set` tells which variables of the
    /// environment are.
    fn installs(&self, is_set: impl Fn(&str) -> bool) -> [String; 3] {
        let (ca, pypi, cran) = (quoted(&self.ca.display().to_string()), &self.pypi, &self.cran);
        let (python, r) = (packages::PYTHON, packages::R);
        let direct = direct(&is_set);
        [
            format!("{}pip install --cert {ca} --index-url {pypi} {python}", self.python_first(&is_set)),
            format!("{direct}SSL_CERT_FILE={ca} uv pip install --index-url {pypi} {python}"),
            format!("{direct}CURL_CA_BUNDLE={ca} Rscript -e 'install.packages(\"{r}\", repos = \"{cran}\")'"),
        ]
    }

    /// What goes before a Python client, where the environment says something else than its options will.
    fn python_first(&self, is_set: impl Fn(&str) -> bool) -> String {
        let ca = quoted(&self.ca.display().to_string());
        let trust = CA_VARIABLES.iter().any(|name| is_set(name));
        direct(&is_set).to_owned() + &if trust { format!("REQUESTS_CA_BUNDLE={ca} ") } else { String::new() }
    }
}

fn direct(is_set: impl Fn(&str) -> bool) -> &'static str {
    let is_sent_elsewhere = PROXY_VARIABLES.iter().any(|name| is_set(name));
    if is_sent_elsewhere { "no_proxy=127.0.0.1 NO_PROXY=127.0.0.1 " } else { "" }
}

fn is_in_environment(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// As a shell reads it as one word.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nBowline serves.\n")?;
        let Login { url, username, password } = &self.login;
        writeln!(f, "Its pages, for who logs in as `{username}` with the password `{password}`:\n")?;
        writeln!(f, "    {:<20}{url}\n", "Pages")?;
        writeln!(f, "Published, and run by the nodes:\n")?;
        for Content { title, url, .. } in &self.content {
            writeln!(f, "    {title:<20}{url}")?;
        }
        writeln!(f, "\nShiny processes of your own, behind the proxy alone:\n")?;
        for Content { title, url, .. } in &self.plain {
            writeln!(f, "    {title:<20}{url}")?;
        }
        writeln!(f, "\nPackages:\n")?;
        writeln!(f, "    {:<20}{}", "For Python", self.pypi)?;
        writeln!(f, "    {:<20}{}", "For R", self.cran)?;
        writeln!(f, "\nYour browser will warn of an authority it does not know: {}", self.ca.display())?;
        let folder = self.config.parent().unwrap_or(&self.config);
        self.packages(f, &quoted(&folder.display().to_string()))?;
        writeln!(f, "\nEnd the process that serves your tab, and see it come back on the other one; or end a node:\n")?;
        for node in &self.nodes {
            writeln!(f, "    {:<10}kill -9 {:<9}{:<14}{}", node.name, node.pid, node.app, node.url)?;
        }
        writeln!(f, "\nLook inside:\n")?;
        let (program, socket) = (quoted(&self.program), quoted(&self.admin_socket.display().to_string()));
        writeln!(f, "    {program} status --admin {socket}")?;
        writeln!(f, "    {program} drain shiny-python/python-a --admin {socket}")?;
        writeln!(f, "    curl {}/metrics", self.admin)?;
        writeln!(f, "    {program} doctor -c {}", quoted(&folder.join("node-a.toml").display().to_string()))?;
        if let Some(database) = &self.postgres {
            writeln!(f, "    psql {}", database.url)?;
        }
        writeln!(f, "\nConfiguration: {}    logs: {}", self.config.display(), folder.join("logs").display())?;
        writeln!(f, "Ctrl-C ends everything.")
    }
}

impl Report {
    fn packages(&self, f: &mut fmt::Formatter<'_>, folder: &str) -> fmt::Result {
        writeln!(
            f,
            "\nInstall packages from it, those for Python in a virtual environment; a node may die meanwhile:\n"
        )?;
        for line in self.installs(is_in_environment) {
            writeln!(f, "    {line}")?;
        }
        let (program, url) = (quoted(&self.program), &self.url);
        writeln!(f, "\nPublish and manage some of your own; the API key is in {folder}/keys/api.key:\n")?;
        writeln!(
            f,
            "    {}twine upload --cert {folder}/ca.pem --repository-url {url}/packages/pypi/legacy/ -u __token__ \
             -p $(cat {folder}/keys/api.key) dist/*",
            self.python_first(is_in_environment)
        )?;
        writeln!(f, "    {program} repo list --server {url} --ca-file {folder}/ca.pem --key-file {folder}/keys/api.key")
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
            nodes: vec![
                Node { name: "node-a".into(), pid: 2, url: "http://127.0.0.1:4001".into(), app: PACKAGES },
                Node { name: "python-a".into(), pid: 3, url: "http://127.0.0.1:4101".into(), app: "shiny-python" },
            ],
            content: vec![Content {
                name: "static",
                title: "A static site",
                guid: Some("g".into()),
                url: "https://127.0.0.1:8443/content/g/".into(),
            }],
            plain: vec![Content {
                name: "shiny-python",
                title: "Shiny for Python",
                guid: None,
                url: "https://127.0.0.1:8443/".into(),
            }],
            pypi: "https://127.0.0.1:8443/packages/pypi/simple/".into(),
            cran: "https://127.0.0.1:8443/packages/cran/latest".into(),
            api_key: "bwl_x".into(),
            login: Login {
                url: "https://127.0.0.1:8443/connect/".into(),
                username: "demo",
                password: "0a1b2c3d4e5f".into(),
            },
            postgres: None,
            program: "target/debug/bowline".into(),
        }
    }

    #[test]
    fn the_json_is_one_line_with_the_agreed_keys() {
        insta::assert_snapshot!(report().json(), @r#"{"url":"https://127.0.0.1:8443","ca":"/d/ca.pem","admin":"http://127.0.0.1:9443","admin_socket":"/d/admin.sock","config":"/d/proxy.toml","proxy":{"pid":1},"nodes":[{"name":"node-a","pid":2,"url":"http://127.0.0.1:4001","app":"packages"},{"name":"python-a","pid":3,"url":"http://127.0.0.1:4101","app":"shiny-python"}],"content":[{"name":"static","guid":"g","url":"https://127.0.0.1:8443/content/g/"}],"plain":[{"name":"shiny-python","url":"https://127.0.0.1:8443/"}],"pypi":"https://127.0.0.1:8443/packages/pypi/simple/","cran":"https://127.0.0.1:8443/packages/cran/latest","api_key":"bwl_x","login":{"url":"https://127.0.0.1:8443/connect/","username":"demo","password":"0a1b2c3d4e5f"}}"#);
    }

    #[test]
    fn a_new_process_id_replaces_the_old_one() {
        let mut report = report();
        report.set_pid("node-a", 22);
        report.set_pid(PROXY, 11);
        report.set_pid("somebody", 33);
        report.postgres = Some(Database { pid: 4, url: "postgres://x".into() });
        report.set_pid(postgres::NAME, 44);
        assert_eq!((report.nodes[0].pid, report.nodes[1].pid, report.proxy.pid), (22, 3, 11));
        assert!(report.json().ends_with(r#""postgres":{"pid":44,"url":"postgres://x"}}"#));
    }

    #[test]
    fn people_are_told_every_address_and_how_to_end_a_process() {
        let text = report().to_string();
        for wanted in [
            "https://127.0.0.1:8443/",
            "https://127.0.0.1:8443/content/g/",
            "as `demo` with the password `0a1b2c3d4e5f`",
            "kill -9 2 ",
            "target/debug/bowline status --admin /d/admin.sock",
            "/d/ca.pem",
            "/d/logs",
            "/d/keys/api.key",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
        assert!(!text.contains("bwl_x"), "the key itself is not shown");
    }

    #[test]
    fn install_lines_are_for_a_shell() {
        let mut report = report();
        assert_eq!(
            report.installs(|_| false),
            [
                "pip install --cert /d/ca.pem --index-url https://127.0.0.1:8443/packages/pypi/simple/ bowline-hello",
                "SSL_CERT_FILE=/d/ca.pem uv pip install \
                 --index-url https://127.0.0.1:8443/packages/pypi/simple/ bowline-hello",
                "CURL_CA_BUNDLE=/d/ca.pem Rscript -e \
                 'install.packages(\"bowlinehello\", repos = \"https://127.0.0.1:8443/packages/cran/latest\")'",
            ]
        );
        report.ca = "/my d's/ca.pem".into();
        let [pip, uv, _] = report.installs(|_| true);
        let ca = "'/my d'\\''s/ca.pem'";
        let wanted = format!("no_proxy=127.0.0.1 NO_PROXY=127.0.0.1 REQUESTS_CA_BUNDLE={ca} pip install --cert {ca} ");
        assert!(pip.starts_with(&wanted), "{pip}");
        assert!(uv.contains("127.0.0.1 SSL_CERT_FILE='/my"), "{uv}");
    }
}
