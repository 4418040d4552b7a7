//! Packages built from git repositories, by nodes that share the work.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use crate::cran::r;
use crate::harness::{Folder, Node, bowline, eventually, get, patiently_for, run, tool, within};
use crate::packages::{Trusting, make};

/// A git repository in a folder of its own.
pub struct Repository {
    folder: Folder,
}

impl Repository {
    pub async fn new() -> Self {
        let repository = Self { folder: Folder::new() };
        repository.git(&["init", "--quiet", "--initial-branch", "main", "."]).await;
        repository
    }

    pub async fn git(&self, arguments: &[&str]) {
        let root = self.folder.root().to_str().unwrap();
        let who = ["-C", root, "-c", "user.name=t", "-c", "user.email=t@example.org"];
        run(&tool("git"), &[&who[..], arguments].concat(), "").await.ok();
    }

    pub async fn commit(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.folder.write(name, *text);
        }
        self.git(&["add", "--all"]).await;
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "x"]).await;
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.folder.root().display())
    }
}

/// A build backend (PEP 517) in the package itself, which needs another package from the index.
const BACKEND: &str = r#"
import io, os, tarfile, zipfile
import buildtool
assert buildtool.CONTENT == "a tool", buildtool.CONTENT
NAME = "frompy"
VERSION = os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION") or open("version").read().strip()
METADATA = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"

def build_sdist(to, settings=None):
    name = f"{NAME}-{VERSION}"
    with tarfile.open(os.path.join(to, name + ".tar.gz"), "w:gz") as out:
        for path, text in [("PKG-INFO", METADATA), ("pyproject.toml", open("pyproject.toml").read()),
                           ("backend/backend.py", open("backend/backend.py").read()), ("version", VERSION)]:
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size = len(text.encode())
            out.addfile(info, io.BytesIO(text.encode()))
    return name + ".tar.gz"

def build_wheel(to, settings=None, metadata=None):
    name = f"{NAME}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(to, name), "w") as out:
        out.writestr(f"{NAME}.py", f"content = 'built {VERSION}'\n")
        info = f"{NAME}-{VERSION}.dist-info"
        out.writestr(f"{info}/METADATA", METADATA)
        out.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{info}/RECORD", "")
    return name
"#;
const PYPROJECT: &str =
    "[build-system]\nrequires = [\"buildtool\"]\nbuild-backend = \"backend\"\nbackend-path = [\"backend\"]\n";

async fn jobs(node: &Node, query: &[&str]) -> Vec<Value> {
    let told = node.command(&[&["job", "list", "--json", "--limit", "1000"], query].concat()).await;
    serde_json::from_str::<Value>(&told).unwrap().as_array().unwrap().clone()
}

async fn until_built(node: &Node, count: usize) -> Vec<Value> {
    // The test's own time limit ends it: a node is taken for dead after 20 s, and then there may be much to do.
    loop {
        let all = jobs(node, &["--kind", "build"]).await;
        let ended = all.iter().filter(|job| !job["ended"].is_null()).count();
        if ended == count && all.len() == count {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn a_python_package_is_built_with_what_the_index_has_and_installed_by_pip() {
    within(180, async {
        let more = "[builder]\npython = \"/usr/bin/python3\"\nevery = \"1h\"\n";
        let node = Node::start("a", more).await;
        let git = Repository::new().await;
        git.commit(&[("pkg/pyproject.toml", PYPROJECT), ("pkg/backend/backend.py", BACKEND), ("pkg/version", "0.9")])
            .await;
        git.git(&["tag", "-a", "v1.0", "-m", "x"]).await;
        git.commit(&[("README", "on main")]).await;
        node.command(&["source", "create", "ours", "--git", &git.url(), "--folder", "pkg"]).await;
        node.command(&["source", "create", "own"]).await;
        node.command(&["repo", "create", "pypi", "--private", "--source", "own", "--source", "ours"]).await;

        // What it needs is not there yet: the log says so, in pip's words.
        node.command(&["sync", "ours", "--follow"]).await;
        let failed = until_built(&node, 1).await;
        let id = failed[0]["id"].as_str().unwrap();
        let log = bowline(&["job", "log", id, "-c", &node.config()]).await;
        assert!(log.code == Some(1) && log.stdout.contains("No matching distribution found for buildtool"), "{log:?}");

        let files = Folder::new();
        let [tool, _] = make(&files, "buildtool", "1.0", "a tool").await;
        node.command(&["add", "pypi", &tool]).await;
        node.command(&["sync", "ours", "--retry", "--follow"]).await;
        let built = until_built(&node, 2).await;
        let log = bowline(&["job", "log", built[0]["id"].as_str().unwrap(), "-c", &node.config()]).await;
        assert!(log.code == Some(0) && built[1]["state"] == "failed", "{log:?}");
        assert!(node.command(&["sync", "ours", "--follow"]).await.contains("0 new"));

        let key = node.command(&["key", "create"]).await;
        let client = Trusting(String::from("/dev/null"));
        let to = files.path("to").to_str().unwrap().to_owned();
        let index = format!("http://__token__:{key}@{}/packages/pypi/simple/", node.address);
        let told = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir", "--index-url"];
        client.runs("python3", &[&told[..], &[&index, "--target", &to, "frompy"]].concat()).await.ok();
        assert!(std::fs::read_to_string(files.path("to/frompy.py")).unwrap().contains("built 1.0"));
        let shown = node.command(&["repo", "show", "pypi", "frompy"]).await;
        assert!(shown.contains("git v1.0") && shown.contains("frompy-1.0.tar.gz"), "{shown}");
    });
}

/// An R package, told by its version.
async fn commit_r(git: &Repository, version: &str) {
    let description = format!(
        "Package: fromgit\nVersion: {version}\nTitle: T\nDescription: D.\nAuthor: A\nMaintainer: A <a@example.org>\nLicense: MIT\n"
    );
    let code = format!("content <- function() 'built {version}'\n");
    git.commit(&[("DESCRIPTION", &description), ("NAMESPACE", "export(content)\n"), ("R/c.R", &code)]).await;
}

#[test]
fn ten_builds_drain_across_two_nodes_although_one_of_them_is_killed() {
    drain(10, 240);
}

#[test]
#[ignore = "long: a hundred builds"]
fn a_hundred_builds_drain_across_two_nodes_although_one_of_them_is_killed() {
    drain(100, 900);
}

fn drain(builds: usize, seconds: u64) {
    within(seconds, async move {
        let a = Node::start("a", "[builder]\nevery = \"1h\"\n").await;
        let mut b = a.beside("b").await;
        let git = Repository::new().await;
        for n in 0..builds {
            let version = format!("1.{n}");
            commit_r(&git, &version).await;
            git.git(&["tag", &format!("v{version}")]).await;
        }
        a.command(&["source", "create", "ours", "--type", "cran", "--git", &git.url()]).await;
        a.command(&["repo", "create", "cran", "--type", "cran", "--source", "ours"]).await;
        assert!(a.command(&["sync", "ours", "--follow"]).await.contains(&format!("{builds} new")));
        // Killed over a build, which begins again when it is taken for dead.
        let killed = patiently_for(Duration::from_secs(60), "a build on the second node", async {
            loop {
                let running = jobs(&a, &["--kind", "build", "--state", "running"]).await;
                if let Some(job) = running.iter().find(|job| job["node"] == "b") {
                    return job.clone();
                }
            }
        })
        .await;
        b.signal(rustix::process::Signal::KILL);
        b.exit().await;
        let all = until_built(&a, builds).await;
        assert!(all.iter().all(|job| job["state"] == "done"), "{all:#?}");
        let again = all.iter().find(|job| job["id"] == killed["id"]).unwrap();
        assert_eq!(again["attempt"], 2, "{again}");
        // Never more at once on a node than configured.
        let mut ends: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
        for job in &all {
            let text = |key: &str| job[key].as_str().unwrap();
            ends.entry(job["node"].as_str().unwrap()).or_default().push((text("started"), text("ended")));
        }
        for times in ends.values_mut() {
            times.sort_unstable();
            assert!(times.windows(2).all(|two| two[0].1 <= two[1].0), "{times:?}");
        }
        let index = get(&a.address, "/packages/cran/latest/src/contrib/PACKAGES").await.text();
        let newest = format!("1.{}", builds - 1);
        assert!(index.contains(&format!("Package: fromgit\nVersion: {newest}\n")), "{index}");
        let library = Folder::new();
        let root = library.root().to_str().unwrap();
        let text = format!(
            ".libPaths('{root}'); install.packages('fromgit', repos = 'http://{}/packages/cran/latest', quiet = TRUE); \
             cat(fromgit::content())",
            a.address
        );
        assert_eq!(r(&Trusting(String::from("/dev/null")), &text).await.ok().stdout, format!("built {newest}"));

        // A branch: each version once.
        a.command(&["source", "create", "edge", "--type", "cran", "--git", &git.url(), "--branch", "main"]).await;
        a.command(&["sync", "edge", "--follow"]).await;
        until_built(&a, builds + 1).await;
        git.commit(&[("R/more.R", "more <- 1\n")]).await;
        a.command(&["sync", "edge", "--follow"]).await;
        let all = until_built(&a, builds + 2).await;
        assert!(all[0]["result"].as_str().unwrap().contains("nothing new"), "{}", all[0]);
        let wrong = bowline(&["source", "create", "x", "--git", "ext::sh -c id", "-c", &a.config()]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("is no URL of a git repository"), "{wrong:?}");
    });
}

#[test]
fn what_git_started_ends_with_the_job_it_was_for() {
    within(60, async {
        // A server that never answers: git's helper waits for it.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tidy.git", silent.local_addr().unwrap());
        let node = Node::start("a", "").await;
        node.command(&["source", "create", "tidy", "--git", &url]).await;
        let job = node.command(&["sync", "tidy"]).await;
        let (_connection, _) = silent.accept().await.unwrap();
        let helpers = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let lines = all.filter_map(|of| std::fs::read_to_string(of.path().join("cmdline")).ok());
            lines.filter(|line| line.contains("remote-http") && line.contains(&url)).count()
        };
        assert!(helpers() > 0, "git has a helper for this");
        node.command(&["job", "cancel", job.trim_start_matches("job ")]).await;
        eventually("the helper's end", async || (helpers() == 0).then_some(())).await;
    });
}
