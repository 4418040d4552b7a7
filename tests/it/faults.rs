//! What fails under a node: disks that are full, read-only, slow or broken, and a database that dies; and two nodes that are
//! told different things at once. Clients are told in words, nothing half is kept, and it goes on by itself.

use std::path::PathBuf;
use std::sync::Arc;

use crate::harness::{Authority, Folder, Node, Output, Strace, eventually, get, run, tool, within};
use crate::killed::{Upload, spooled};
use crate::matrix::Pair;
use crate::packages::{Trusting, base, make, proxy};

/// Whether we may mount; says so if not.
fn may_mount() -> bool {
    let done = std::process::Command::new("unshare").args(["--mount", "true"]).output();
    let may = done.is_ok_and(|done| done.status.success());
    if !may {
        eprintln!("only root may mount a small disk here; nothing was looked at");
    }
    may
}

/// A node with a folder of its own on a disk of 2 MiB that nobody else sees.
struct Small {
    node: Node,
    disk: PathBuf,
}

impl Small {
    async fn start(disk: &str) -> Self {
        let folder = Arc::new(Folder::new());
        let disk = folder.path(disk);
        let at = disk.display();
        let inner = format!("mkdir -p {at} && mount -t tmpfs -o size=2m bowline {at} && exec \"$0\" \"$@\"");
        let script = format!("exec unshare --mount sh -c '{inner}' \"$0\" \"$@\"");
        Self { node: Node::start_by(&script, "a", folder, "").await, disk }
    }

    /// `ro` or `rw`.
    async fn remount(&self, how: &str) {
        let pid = self.node.pid().to_string();
        let (how, disk) = (format!("remount,{how}"), self.disk.to_str().unwrap());
        run(&tool("nsenter"), &["--mount", "--target", &pid, "mount", "-o", &how, disk], "").await.ok();
    }

    /// Bytes of all files there.
    fn bytes(&self) -> u64 {
        let root = format!("/proc/{}/root{}", self.node.pid(), self.disk.display());
        let (mut folders, mut bytes) = (vec![PathBuf::from(root)], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let about = entry.metadata().unwrap();
                if about.is_dir() { folders.push(entry.path()) } else { bytes += about.len() }
            }
        }
        bytes
    }
}

/// What twine and uv print, in one line.
fn words(done: &Output) -> String {
    format!("{}{}", done.stdout, done.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Clients that publish to a proxy with a key.
struct Publisher<'a> {
    client: &'a Trusting,
    packages: String,
    key: String,
}

impl Publisher<'_> {
    async fn twine(&self, file: &str) -> Output {
        let upload = format!("{}/pypi/legacy/", self.packages);
        let told = ["upload", "--non-interactive", "--disable-progress-bar", "--repository-url", &upload];
        self.client.runs("twine", &[&told[..], &["-u", "__token__", "-p", &self.key, file]].concat()).await
    }

    async fn uv(&self, file: &str) -> Output {
        let upload = format!("{}/pypi/legacy/", self.packages);
        let told = ["publish", "--native-tls", "--no-cache", "--publish-url", &upload, "--token", &self.key, file];
        self.client.runs("uv", &told).await
    }

    async fn curl(&self, file: &str) -> Output {
        let url = format!("{}/pypi/upload/{}", self.packages, file.rsplit('/').next().unwrap());
        let user = format!("__token__:{}", self.key);
        self.client.runs("curl", &["-sS", "-i", "--http1.1", "-u", &user, "-T", file, &url]).await
    }

    /// Every one of them fails and shows these words.
    async fn are_told(&self, file: &str, told: &str) {
        for (name, done) in
            [("twine", self.twine(file).await), ("uv", self.uv(file).await), ("curl", self.curl(file).await)]
        {
            assert!(words(&done).contains(told), "{name}: {done:?}");
            assert!(name == "curl" || done.code != Some(0), "{name}: {done:?}");
        }
    }
}

#[test]
fn a_full_or_read_only_disk_is_told_to_the_client_and_nothing_half_is_kept() {
    if !may_mount() {
        return;
    }
    within(180, async {
        for disk in ["data/blobs", "data/cache"] {
            let small = Small::start(disk).await;
            let node = &small.node;
            node.command(&["repo", "create", "pypi"]).await;
            let key = node.command(&["key", "create", "--scope", "publish"]).await;
            let proxy = proxy(&[node], &Authority::new()).await;
            let client = &Trusting(proxy.folder.path("ca.pem").to_str().unwrap().to_owned());
            let publisher = Publisher { client, packages: format!("{}/packages", base(&proxy)), key };
            let files = Folder::new();
            let [large, _] = make(&files, "large", "1.0", "noise:40000000").await;
            let before = small.bytes();
            publisher.are_told(&large, "The server has no space left").await;
            let answer = words(&publisher.curl(&large).await);
            assert!(answer.contains("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
            assert_eq!(small.bytes(), before, "nothing of it is left in {disk}");
            let [alpha, sdist] = make(&files, "alpha", "1.0", "x").await;
            publisher.twine(&alpha).await.ok();
            // What is locked is open for writing, so a cache is never made read-only.
            if disk == "data/blobs" {
                let before = small.bytes();
                small.remount("ro").await;
                publisher.are_told(&sdist, "The server's storage is read-only now").await;
                small.remount("rw").await;
                assert_eq!(small.bytes(), before);
            }
            publisher.twine(&sdist).await.ok();
            assert_eq!(get(&node.address, "/packages/pypi/simple/large/").await.status, 404);
        }
    });
}

#[test]
fn a_refusal_within_a_large_upload_reaches_the_client_in_words() {
    within(120, async {
        let node = Node::start("a", "[packages]\nfile_bytes_max = \"1MiB\"\n").await;
        node.command(&["repo", "create", "pypi"]).await;
        let key = node.command(&["key", "create", "--scope", "publish"]).await;
        let proxy = proxy(&[&node], &Authority::new()).await;
        let client = &Trusting(proxy.folder.path("ca.pem").to_str().unwrap().to_owned());
        let packages = format!("{}/packages", base(&proxy));
        let files = Folder::new();
        let [large, _] = make(&files, "large", "1.0", "noise:40000000").await;
        let publisher = Publisher { client, packages: packages.clone(), key };
        publisher.are_told(&large, "larger than the 1048576 bytes").await;
        let wrong = Publisher { client, packages, key: "bwl_wrong".to_owned() };
        wrong.are_told(&large, "The API key does not hold").await;
    });
}

#[test]
fn a_slow_disk_is_waited_for_and_a_broken_one_is_a_503() {
    within(120, async {
        let pair = Pair::start("").await;
        let files = Folder::new();
        let node = &pair.nodes[0];
        let slow = Upload::new(&pair, &files, "slow", "x").await;
        let Some(strace) = Strace::attach(node.pid(), "fsync", "fsync:delay_enter=300000").await else { return };
        let started = std::time::Instant::now();
        let (answered, others) = tokio::join!(slow.whole(node), async {
            for _ in 0..20 {
                assert_eq!(get(&node.address, "/packages/pypi/simple/").await.status, 200);
            }
            started.elapsed()
        });
        assert_eq!(answered, Some(200));
        assert!(others < started.elapsed(), "others do not wait for the disk: {others:?}");
        drop(strace);

        for (call, error) in [("fsync", "EIO"), ("copy_file_range", "EDQUOT"), ("rename", "EROFS"), ("mkdir", "EACCES")]
        {
            let broken = Upload::new(&pair, &files, &format!("broken-{}", error.to_lowercase()), "x").await;
            let strace = Strace::attach(node.pid(), call, &format!("{call}:error={error}")).await.unwrap();
            assert_eq!(broken.whole(node).await, Some(503), "{call} {error}");
            drop(strace);
            assert_eq!(broken.rows(&pair), "0");
            assert_eq!(std::fs::read_dir(node.folder.path("data/blobs/incoming")).unwrap().count(), 0, "{call}");
            assert_eq!(spooled(node), [0; 0], "{call}");
            assert_eq!(broken.whole(node).await, Some(200), "{call} {error}: afterwards");
        }
        assert_eq!(pair.check_blobs().await, 5);

        // Nor is a blob believed to be kept because its name is there: who brought it may have died too early.
        let strace = Strace::attach(node.pid(), "fsync", "fsync:error=EIO").await.unwrap();
        node.command(&["repo", "create", "more"]).await;
        let mut elsewhere = slow;
        elsewhere.redirect("more");
        eventually("the repository", async || (elsewhere.whole(node).await == Some(503)).then_some(())).await;
        drop(strace);
        assert_eq!(elsewhere.whole(node).await, Some(200));
    });
}

#[test]
fn a_publish_during_which_postgres_dies_is_a_503_and_then_done_once() {
    within(120, async {
        let mut pair = Pair::start("timeout = \"20s\"\n").await;
        let files = Folder::new();
        let upload = Upload::new(&pair, &files, "alpha", "x").await;
        let lock = pair.database.lock("file");
        let mut client = upload.begin(&pair.nodes[0]).await;
        client.send(&upload.body).await;
        eventually("the row to wait", async || (pair.database.waiting("INSERT INTO file") == 1).then_some(())).await;
        pair.database.down();
        drop(lock);
        let answer = client.response("POST").await;
        assert!(answer.status == 503 && answer.fields.has("retry-after"), "{answer:?}");
        assert!(answer.text().contains("The database does not answer"), "{answer:?}");
        pair.database.up();
        for node in &pair.nodes {
            eventually("the database to be found", async || (upload.whole(node).await == Some(200)).then_some(()))
                .await;
        }
        assert_eq!((upload.rows(&pair).as_str(), pair.check_blobs().await), ("1", 1));
        assert_eq!(spooled(&pair.nodes[0]), [0; 0]);
    });
}

#[test]
fn of_one_name_told_to_two_nodes_at_once_the_same_bytes_are_fine_and_others_refused() {
    within(60, async {
        let pair = Pair::start("timeout = \"20s\"\n").await;
        let files = Folder::new();
        for (name, is_same) in [("same", true), ("other", false)] {
            let first = Upload::new(&pair, &files, name, "x").await;
            let second = Upload::new(&pair, &files, name, if is_same { "x" } else { "y" }).await;
            let second = if is_same { &first } else { &second };
            // Both are ready to tell the database before either may.
            let lock = pair.database.lock("file");
            let (a, b, ()) = tokio::join!(first.whole(&pair.nodes[0]), second.whole(&pair.nodes[1]), async {
                eventually("both to wait", async || (pair.database.waiting("INSERT INTO ") == 2).then_some(())).await;
                drop(lock);
            });
            let mut both = [a.unwrap(), b.unwrap()];
            both.sort_unstable();
            assert_eq!(both, if is_same { [200, 200] } else { [200, 400] }, "{name}");
            assert_eq!(first.rows(&pair), "1");
        }
        assert_eq!(pair.check_blobs().await, 2);
    });
}

/// Of a form.
const END: &str = "\r\n--bnd--\r\n";

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    within(60, async {
        let pair = Pair::start("").await;
        let files = Folder::new();
        let upload = Upload::new(&pair, &files, "alpha", "noise:300000").await;
        let node = &pair.nodes[0];
        for cut in [upload.body.len() / 2, upload.body.len() - END.len() - 1] {
            let mut client = upload.begin(node).await;
            client.send(&upload.body[..cut]).await;
            eventually("a part of it in the spool", async || spooled(node).first().filter(|n| **n > 0).copied()).await;
            drop(client);
            eventually("the spool to be empty", async || spooled(node).is_empty().then_some(())).await;
        }
        assert_eq!(upload.rows(&pair), "0");
        assert_eq!(std::fs::read_dir(node.folder.path("data/blobs/sha256")).unwrap().count(), 0);
        // Whole, but for the end of the form.
        let mut short = Upload::new(&pair, &files, "alpha", "x").await;
        short.cut(short.body.len() - END.len());
        assert_eq!(short.whole(node).await, Some(400));
        assert_eq!(upload.whole(node).await, Some(200));
    });
}
