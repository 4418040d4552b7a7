//! Nodes that are killed: at every step of a publish, and again and again while people install.
//!
//! At each step a node is held first, so that it is known where it was: by a body that does not go on, by a storage that
//! does not answer, by a table that is locked.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::content::Publisher;
use crate::cran::r;
use crate::harness::{Client, Folder, Link, Node, Response, S3, Strace, bowline, eventually, get_as, tools, within};
use crate::matrix::{Pair, publish_r};
use crate::packages::{FORM, form, make};

/// An upload of a wheel of its own, and the request for it.
pub struct Upload {
    pub filename: String,
    /// Of the wheel.
    size: u64,
    head: String,
    pub body: Vec<u8>,
}

impl Upload {
    pub async fn new(pair: &Pair, files: &Folder, name: &str, content: &str) -> Self {
        let [wheel, _] = make(files, name, "1.0", content).await;
        let bytes = std::fs::read(&wheel).unwrap();
        let filename = wheel.rsplit('/').next().unwrap().to_owned();
        let fields = [(":action", "file_upload"), ("name", name), ("version", "1.0"), ("filetype", "bdist_wheel")];
        let body = form(&fields, Some((&filename, &bytes)));
        let head = format!(
            "POST /packages/pypi/legacy/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{}: {}\r\n\
             Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            pair.key,
            FORM.0,
            FORM.1,
            body.len()
        );
        Self { filename, size: bytes.len() as u64, head, body }
    }

    /// Leaves out what follows so many bytes of the body, as if there had been no more.
    pub fn cut(&mut self, end: usize) {
        self.head = self.head.replace(&format!("Length: {}", self.body.len()), &format!("Length: {end}"));
        self.body.truncate(end);
    }

    /// To another repository.
    pub fn redirect(&mut self, repository: &str) {
        self.head = self.head.replace("/packages/pypi/", &format!("/packages/{repository}/"));
    }

    /// Sends the head to a node; returns when it wants the body.
    pub async fn begin(&self, node: &Node) -> Client {
        let mut client = Client::tcp(&node.address).await;
        client.send(&self.head).await;
        client.until(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("the node wants the body");
        client
    }

    /// Sends all of it and waits for the answer's status; `None`: the node died before it answered.
    pub async fn whole(&self, node: &Node) -> Option<u16> {
        let mut client = Client::tcp(&node.address).await;
        client.try_send(self.head.as_bytes()).await.ok()?;
        let interim = client.until(b"\r\n\r\n").await?;
        if !interim.starts_with(b"HTTP/1.1 100 ") {
            return Some(Response::parse(&String::from_utf8_lossy(&interim)).status);
        }
        client.try_send(&self.body).await.ok()?;
        Some(client.try_response("POST").await?.status)
    }

    /// How many rows it has.
    pub fn rows(&self, pair: &Pair) -> String {
        pair.database.sql(&format!("SELECT COUNT(*) FROM file WHERE filename = '{}'", self.filename))
    }
}

/// Sizes of the files in all spools of a node's folder, largest first, without their locks.
pub fn spooled(node: &Node) -> Vec<u64> {
    let below = |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = below(node.folder.path("data/cache/spool")).flat_map(|own| below(own.path()));
    let mut sizes: Vec<u64> = files
        .filter(|file| file.file_name() != "lock")
        .filter_map(|file| file.metadata().ok().map(|about| about.len()))
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

/// A step of a publish, and how a node is brought there and held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// It has read the head.
    Head,
    /// It has half of the file.
    Half,
    /// It has the whole body, and the storage does not take it.
    Body,
    /// The storage has the bytes, and the table takes no row.
    Kept,
    /// The row is there, and nobody has read the answer.
    Committed,
}

/// Kills a node at a step, starts it again, and checks what must be true then.
async fn kill_at(step: Step, pair: &mut Pair, files: &Folder, s3: Option<&S3>) {
    let name = format!("{step:?}").to_lowercase();
    let upload = Upload::new(pair, files, &name, "noise:300000").await;
    let rows_before = pair.check_blobs().await;
    let lock = (step == Step::Kept).then(|| pair.database.lock("file"));
    if let Some(s3) = s3.filter(|_| step == Step::Body) {
        s3.hang();
    }
    let node = &pair.nodes[0];
    let mut client = upload.begin(node).await;
    match step {
        Step::Head => {}
        Step::Half => {
            client.send(&upload.body[..upload.body.len() / 2]).await;
            eventually("half of the file in the spool", async || {
                spooled(node).first().filter(|size| (upload.size / 4..upload.size).contains(size)).copied()
            })
            .await;
        }
        Step::Body => {
            client.send(&upload.body).await;
            // Its core metadata is laid beside the file when all of it was found good.
            eventually("both in the spool", async || (spooled(node).len() == 2).then_some(())).await;
            assert_eq!(spooled(node)[0], upload.size);
        }
        Step::Kept => {
            client.send(&upload.body).await;
            eventually("the row to wait", async || (pair.database.waiting("INSERT INTO file") == 1).then_some(()))
                .await;
        }
        Step::Committed => {
            client.send(&upload.body).await;
            eventually("the row", async || (upload.rows(pair) == "1").then_some(())).await;
        }
    }
    pair.nodes[0].kill().await;
    drop((client, lock));
    if let Some(s3) = s3 {
        s3.go_on();
    }
    pair.nodes[0].again().await;
    assert_eq!(spooled(&pair.nodes[0]), [0; 0], "{step:?}: a start sweeps what the dead left");
    let is_there = step == Step::Committed;
    assert_eq!(pair.check_blobs().await, rows_before + usize::from(is_there), "{step:?}");
    for node in &pair.nodes {
        assert_eq!(upload.whole(node).await, Some(200), "{step:?}: what was not answered is sent again");
    }
    assert_eq!((upload.rows(pair).as_str(), pair.check_blobs().await), ("1", rows_before + 1), "{step:?}");
}

const PATIENT: &str = "timeout = \"20s\"\n";

#[test]
fn a_node_killed_at_any_step_of_a_publish_leaves_no_row_without_its_blob() {
    within(120, async {
        let mut pair = Pair::start(PATIENT).await;
        let files = Folder::new();
        for step in [Step::Head, Step::Half, Step::Kept, Step::Committed] {
            kill_at(step, &mut pair, &files, None).await;
        }
    });
}

#[test]
fn nor_does_one_whose_storage_is_a_bucket() {
    within(120, async {
        let s3 = S3::start().await;
        let folder = Arc::new(Folder::new());
        let secret = folder.write("s3.secret", "test\n");
        std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        let mut pair = Pair::start_in(folder, &format!("{PATIENT}{}", s3.config(""))).await;
        let files = Folder::new();
        for step in [Step::Body, Step::Kept, Step::Committed] {
            kill_at(step, &mut pair, &files, Some(&s3)).await;
        }
    });
}

/// Calls by which a node keeps an upload, and talks to the database.
const CALLS: &[&str] = &["openat", "write", "copy_file_range", "fsync", "mkdir", "rename", "unlink", "sendto"];

/// Kills a node at its first call of a kind during an upload, then at its second, and so on, until it lives to answer.
async fn kill_at_calls(calls: &[&str], pair: &mut Pair, files: &Folder) {
    for call in calls {
        for n in 1..100 {
            let upload = Upload::new(pair, files, &format!("{}{n}", call.replace('_', "")), "noise:300000").await;
            let node = &mut pair.nodes[0];
            let inject = format!("{call}:signal=KILL:when={n}");
            let Some(strace) = Strace::attach(node.pid(), call, &inject).await else { return };
            let answered = upload.whole(node).await;
            if answered.is_some() {
                drop(strace);
                node.signal(Signal::KILL);
            }
            node.exit().await;
            node.again().await;
            assert_eq!(spooled(node), [0; 0], "{call} {n}: a start sweeps what the dead left");
            pair.check_blobs().await;
            assert_eq!(upload.whole(&pair.nodes[1]).await, Some(200), "{call} {n}");
            assert_eq!(upload.rows(pair), "1", "{call} {n}");
            if answered.is_some() {
                eprintln!("killed at {} calls of {call}", n - 1);
                assert_eq!(answered, Some(200), "{call} {n}");
                assert!(n > 1, "no upload without {call}");
                break;
            }
        }
    }
    let rows = pair.check_blobs().await;
    assert!(rows > calls.len(), "{rows} rows");
}

#[test]
fn nor_does_one_that_is_killed_within_a_call() {
    within(120, async {
        let mut pair = Pair::start(PATIENT).await;
        kill_at_calls(&["fsync", "rename"], &mut pair, &Folder::new()).await;
    });
}

#[test]
#[ignore = "long: a death at every call of an upload"]
fn nor_does_one_that_is_killed_within_any_call() {
    within(900, async {
        let mut pair = Pair::start(PATIENT).await;
        kill_at_calls(CALLS, &mut pair, &Folder::new()).await;
    });
}

/// Kills one node after the other, each when the proxy has judged the last one up again, while clients install all the
/// time and somebody publishes. None of this may fail: whatever a dying node leaves without an answer, proxy or client may ask another one.
async fn install_while_nodes_die(deaths: usize) {
    let pair = Pair::start("").await;
    let files = Folder::new();
    pair.twine(&make(&files, "alpha", "1.0", "alive").await).await.ok();
    publish_r(&pair, &files).await;
    pair.until("/packages/pypi/simple/alpha/", "alpha-1.0.tar.gz").await;
    let (index, cran) = (format!("{}/pypi/simple/", pair.packages()), format!("{}/cran/latest", pair.packages()));
    let upload = format!("{}/pypi/legacy/", pair.packages());
    let Pair { mut nodes, proxy, client, key, database } = pair;
    let is_over = AtomicBool::new(false);
    let pip = async || {
        let to = Folder::new();
        let told =
            ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir", "--index-url", &index];
        let python = tools::client("pip", "python");
        let root = to.root().to_str().unwrap();
        client.runs_at(&python, &[&told[..], &["--target", root, "alpha"]].concat()).await.ok();
    };
    let uv = async || {
        let to = Folder::new();
        let told = ["pip", "install", "-q", "--native-tls", "--no-cache", "--index-url", &index];
        let root = to.root().to_str().unwrap();
        client.runs("uv", &[&told[..], &["--target", root, "alpha"]].concat()).await.ok();
    };
    let r = async || {
        let library = Folder::new();
        let root = library.root().to_str().unwrap();
        let text = format!(
            ".libPaths('{root}'); install.packages('tinyr', repos = '{cran}', quiet = TRUE); \
             stopifnot(require(tinyr, lib.loc = '{root}'))"
        );
        r(&client, &text).await.ok();
    };
    let published = AtomicUsize::new(0);
    let twine = async || {
        let version = format!("1.{}", published.fetch_add(1, Ordering::Relaxed));
        let to = Folder::new();
        let [wheel, sdist] = make(&to, "beta", &version, "noise:20000").await;
        let told = ["upload", "--non-interactive", "--disable-progress-bar", "--repository-url", &upload];
        client.runs("twine", &[&told[..], &["-u", "__token__", "-p", &key, &wheel, &sdist]].concat()).await.ok();
    };
    let die = async {
        for n in 0..deaths {
            let (node, key) = (&mut nodes[n % 2], format!("n{}", n % 2));
            node.kill().await;
            proxy.until_health(&key, "down").await;
            node.again().await;
            proxy.until_health(&key, "up").await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (_, by_pip, by_uv, by_r, by_twine) =
        tokio::join!(die, repeat(&is_over, pip), repeat(&is_over, uv), repeat(&is_over, r), repeat(&is_over, twine));
    eprintln!("{deaths} deaths, installs by pip {by_pip}, uv {by_uv}, R {by_r}, publications by twine {by_twine}");
    assert!(by_pip > 0 && by_uv > 0 && by_r > 0 && by_twine > 0);
    let pair = Pair { nodes, proxy, client, key, database };
    assert_eq!(pair.check_blobs().await, 2 + 2 * by_twine);
}

/// Does it until all is over; how often.
async fn repeat(is_over: &AtomicBool, work: impl AsyncFn()) -> usize {
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        work().await;
        times += 1;
    }
    times
}

#[test]
fn no_install_fails_while_nodes_die_one_after_the_other() {
    within(180, install_while_nodes_die(16));
}

#[test]
#[ignore = "long: a hundred deaths"]
fn no_install_fails_through_a_hundred_deaths() {
    within(1200, install_while_nodes_die(100));
}

/// Bytes a node has read from files.
fn bytes_read(node: &Node) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{}/io", node.pid())).unwrap();
    told.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn a_download_that_a_death_cuts_off_is_resumed_from_the_other_node() {
    within(180, async {
        let mut pair = Pair::start("").await;
        let files = Folder::new();
        let [large, _] = make(&files, "large", "1.0", "noise:50000000").await;
        pair.twine(&[large]).await.ok();
        pair.until("/packages/pypi/simple/large/", "large-1.0").await;
        let index = format!("{}/pypi/simple/", pair.packages());
        let pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir"];
        let uv = ["pip", "install", "--native-tls", "--no-cache"];
        let python = tools::client("pip", "python");
        for (program, told) in [(python, &pip[..]), (tools::tool("uv"), &uv[..])] {
            // So slow that there is time to kill it within.
            let mut held = Vec::new();
            for node in &pair.nodes {
                let Some(strace) = Strace::attach(node.pid(), "sendto,writev", "sendto,writev:delay_enter=20000").await
                else {
                    return;
                };
                held.push(strace);
            }
            let to = Folder::new();
            let what = ["--index-url", &index, "--target", to.root().to_str().unwrap(), "--no-deps", "large"];
            let before = [0, 1].map(|n| bytes_read(&pair.nodes[n]));
            let arguments = [told, &what].concat();
            let install = pair.client.runs_at(&program, &arguments);
            let nodes = &pair.nodes;
            let death = async {
                let n = eventually("a part of the file to be read", async || {
                    [0, 1].into_iter().find(|n| bytes_read(&nodes[*n]) > before[*n] + 8_000_000)
                })
                .await;
                nodes[n].signal(Signal::KILL);
                n
            };
            let (done, n) = tokio::join!(install, death);
            let words = format!("{}{}", done.stdout, done.stderr);
            drop(held);
            assert_eq!(done.code, Some(0), "{words}");
            pair.nodes[n].exit().await;
            pair.nodes[n].again().await;
            pair.proxy.until_health(&format!("n{n}"), "up").await;
        }
    });
}

/// The node that has so much of an upload in its spool.
fn takes(nodes: &[Node], bytes: u64) -> Option<usize> {
    nodes.iter().position(|node| {
        let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).into_iter().flatten().flatten();
        let files = open.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        files
            .filter(|path| path.extension().is_some_and(|ending| ending == "spool"))
            .any(|path| std::fs::metadata(path).is_ok_and(|about| about.len() > bytes))
    })
}

#[test]
fn a_deployment_whose_node_is_killed_within_its_bundle_leaves_nothing_that_the_next_one_does_not_repair() {
    within(240, async {
        let mut pair = Pair::start("").await;
        let key = pair.nodes[0].command(&["key", "create", "--admin", "--name", "ann"]).await;
        let link = Link::to(pair.proxy.web()).await;
        let url = format!("https://localhost:{}", link.address.port());
        let publisher = Publisher::new(&pair.proxy, key.clone()).by(url);
        let site = Folder::new();
        site.write("index.html", "<h1>all of it</h1>");
        let mut noise = vec![0_u8; 6 << 20];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut noise).unwrap();
        site.write("noise.bin", &noise);
        let told = ["--title", "Sales", site.root().to_str().unwrap()];

        // So slow that there is time to kill it within.
        link.slow(1_000_000);
        let deploy = publisher.runs(&["deploy", "html"], &told);
        let nodes = &pair.nodes;
        let death = async {
            let n = eventually("a part of the bundle", async || takes(nodes, 500_000)).await;
            nodes[n].signal(Signal::KILL);
            n
        };
        let (cut, n) = tokio::join!(deploy, death);
        let words = format!("{}{}", cut.stdout, cut.stderr);
        // The proxy has passed on what it had of the body, so it can ask nobody else: it answers 502, and hangs up on a client
        // that still sends.
        assert!(cut.code == Some(1) && words.contains("[ERROR]"), "{words}");
        assert!(!words.contains("Traceback"), "{words}");
        let log = pair.proxy.folder.read("proxy.out");
        let tried = log.lines().find(|line| line.contains("/bundles\"")).unwrap_or_else(|| panic!("no upload: {log}"));
        assert!(tried.contains("\"http.response.status_code\":502") && tried.contains("\"attempts\":1"), "{tried}");
        let count = |table: &str| pair.database.sql(&format!("SELECT COUNT(*) FROM {table}"));
        let jobs = count("job WHERE kind = 'deploy'");
        assert_eq!((count("content"), count("bundle"), jobs), ("1".into(), "0".into(), "0".into()));
        let guid = pair.database.sql("SELECT guid FROM content");
        let fields = [("authorization", &*format!("Key {key}"))];
        let path = format!("/content/{guid}/");
        pair.nodes[n].exit().await;
        assert!(!spooled(&pair.nodes[1 - n]).is_empty(), "what the dead had is there");
        pair.nodes[n].again().await;
        assert_eq!(spooled(&pair.nodes[n]), [0; 0], "and goes when it starts again");
        pair.proxy.until_health(&format!("n{n}"), "up").await;
        for node in &pair.nodes {
            assert_eq!(get_as(&node.address, &path, &fields).await.status, 404, "nothing is half there");
        }

        link.slow(0);
        let again = publisher.runs(&["deploy", "html"], &[&["--app-id", &guid], &told[..]].concat()).await.ok();
        assert_eq!(Publisher::guid(&again), guid, "{again:?}");
        for node in &pair.nodes {
            eventually("the page", async || {
                let seen = get_as(&node.address, &path, &fields).await;
                (seen.status == 200 && seen.text() == "<h1>all of it</h1>").then_some(())
            })
            .await;
            assert!(get_as(&node.address, &format!("{path}noise.bin"), &fields).await.body == noise);
        }
        let count = |table: &str| pair.database.sql(&format!("SELECT COUNT(*) FROM {table}"));
        assert_eq!((count("content"), count("bundle")), ("1".into(), "1".into()));
    });
}
