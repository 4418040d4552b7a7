//! Pull-through of another index: a second Bowline, and an index that says only what a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cran::{build, r};
use crate::harness::{Folder, Node, bowline, eventually, get, get_as, within};
use crate::packages::{Trusting, make};

async fn until_there(node: &Node, path: &str) {
    eventually(path, async || (get(&node.address, path).await.status == 200).then_some(())).await;
}

async fn installs(node: &Node, client: &Trusting, program: &str, to: &Folder, project: &str) -> bool {
    let index = format!("http://{}/packages/pypi/simple/", node.address);
    let target = to.path(&format!("{program}-{project}")).to_str().unwrap().to_owned();
    let first: &[&str] = match program {
        "uv" => &["pip", "install", "--no-cache"],
        _ => &["-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0"],
    };
    let done =
        client.runs(program, &[first, &["-q", "--index-url", &index, "--target", &target, project]].concat()).await;
    done.code == Some(0)
}

#[test]
fn what_another_index_has_is_installed_kept_and_served_while_it_is_away() {
    within(120, async {
        let mut far = Node::start("far", "").await;
        far.command(&["repo", "create", "pypi"]).await;
        let files = Folder::new();
        let [alpha, _] = make(&files, "alpha", "1.0", "theirs").await;
        let [ours_there, _] = make(&files, "ours", "9.9", "an attack").await;
        far.command(&["add", "pypi", &alpha, &ours_there]).await;
        until_there(&far, "/packages/pypi/simple/alpha/").await;

        let near = Node::start("near", "").await;
        let url = format!("http://{}/packages/pypi/simple", far.address);
        near.command(&["source", "create", "world", "--url", &url]).await;
        near.command(&["source", "create", "own"]).await;
        near.command(&["repo", "create", "pypi", "--source", "own", "--source", "world"]).await;
        let [ours, _] = make(&files, "ours", "1.0", "ours").await;
        near.command(&["add", "pypi", &ours]).await;
        let beside = near.beside("beside").await;
        until_there(&near, "/packages/pypi/simple/ours/").await;

        let client = Trusting(String::from("/dev/null"));
        let to = Folder::new();
        assert!(installs(&near, &client, "python3", &to, "alpha").await);
        assert!(installs(&near, &client, "uv", &to, "alpha").await);
        // A name of ours is ours alone, whatever newer version somebody else shows.
        let page = get(&near.address, "/packages/pypi/simple/ours/").await.text();
        assert!(page.contains("ours-1.0") && !page.contains("9.9"), "{page}");
        for path in ["simple/neither/", "2024-01-01/simple/ours/", "simple/%252e%252e%2Fours/", "simple/ours%3F/"] {
            assert_eq!(get(&near.address, &format!("/packages/pypi/{path}")).await.status, 404, "{path}");
        }

        far.signal(rustix::process::Signal::KILL);
        far.exit().await;
        for node in [&near, &beside] {
            let again = Folder::new();
            assert!(installs(node, &client, "python3", &again, "alpha").await, "kept, on whichever node");
        }
        let unknown = get(&near.address, "/packages/pypi/simple/never-asked/").await;
        assert!(unknown.status == 503 && unknown.text().contains("Source `world`"), "{unknown:?}");
        assert_eq!(get(&near.address, "/packages/pypi/simple/neither/").await.status, 404, "as it said");
    });
}

#[test]
fn r_installs_what_another_repository_has_and_what_its_archive_keeps_while_it_is_away() {
    within(120, async {
        let mut far = Node::start("far", "").await;
        far.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let (files, old_files, our_files) = (Folder::new(), Folder::new(), Folder::new());
        let dependency = build(&files, "tinydep", "0.1", "", true).await;
        let old = build(&old_files, "tinyr", "1.0", "tinydep", false).await;
        let new = build(&files, "tinyr", "1.1", "tinydep", false).await;
        let attack = build(&files, "ours", "9.9", "", true).await;
        let ours = build(&our_files, "ours", "1.0", "", false).await;
        far.command(&["add", "cran", &dependency[0], &old[0], &new[0], &attack[0]]).await;
        far.command(&["add", "cran", "--distribution", "bookworm", &dependency[1], &attack[1]]).await;
        until_there(&far, "/packages/cran/latest/src/contrib/tinyr_1.1.tar.gz").await;

        let near = Node::start("near", "").await;
        let url = format!("http://{}/packages/cran/latest", far.address);
        near.command(&["source", "create", "world", "--type", "cran", "--url", &url]).await;
        near.command(&["source", "create", "own", "--type", "cran"]).await;
        near.command(&["repo", "create", "cran", "--type", "cran", "--source", "own", "--source", "world"]).await;
        near.command(&["add", "cran", &ours[0]]).await;
        let beside = near.beside("beside").await;
        until_there(&near, "/packages/cran/latest/src/contrib/ours_1.0.tar.gz").await;
        until_there(&beside, "/packages/cran/latest/src/contrib/ours_1.0.tar.gz").await;
        let client = Trusting(String::from("/dev/null"));
        let installs = async |node: &Node, what: &str, url: &str| {
            let library = Folder::new();
            let root = library.root().to_str().unwrap();
            let cran = format!("http://{}/packages/cran/{url}", node.address);
            let text = format!(
                ".libPaths('{root}'); options(timeout = 20, HTTPUserAgent = sprintf('R/%s R (%s)', getRversion(), \
                 paste(getRversion(), R.version$platform, R.version$arch, R.version$os))); \
                 {what}; cat(tinyr::content(), tinydep::content())"
            );
            r(&client, &text.replace("CRAN", &cran)).await
        };
        let newest = "install.packages('tinyr', repos = 'CRAN', quiet = TRUE)";
        let archived = "install.packages('tinydep', repos = 'CRAN', quiet = TRUE); \
                        install.packages('CRAN/src/contrib/Archive/tinyr/tinyr_1.0.tar.gz', repos = NULL, quiet = TRUE)";
        assert_eq!(installs(&near, newest, "latest").await.ok().stdout, "tinyr 1.1 tinydep 0.1");
        assert_eq!(installs(&near, archived, "latest").await.ok().stdout, "tinyr 1.0 tinydep 0.1");
        let binary = installs(&near, &newest.replace(", quiet = TRUE", ""), "__linux__/bookworm/latest").await.ok();
        assert!(binary.stderr.contains("installing *binary* package ‘tinydep’"), "{binary:?}");

        // A name of ours is ours alone: as source, in the archive, and as a binary that we have not.
        let index = get(&near.address, "/packages/cran/latest/src/contrib/PACKAGES").await.text();
        assert!(index.contains("Package: ours\nVersion: 1.0\n") && index.contains("Package: tinyr"), "{index}");
        let name = attack[0].rsplit('/').next().unwrap();
        let theirs = get(&near.address, &format!("/packages/cran/latest/src/contrib/Archive/ours/{name}")).await;
        assert_eq!(theirs.status, 404);
        let version = r(&client, "cat(sub('[.][0-9]+$', '', getRversion()))").await.ok().stdout;
        let folder = format!("/packages/cran/bin/linux/{version}-bookworm/contrib/{version}/PACKAGES");
        let linux = get(&near.address, &folder).await.text();
        assert!(linux.contains("Package: tinydep") && !linux.contains("ours"), "{linux}");

        far.signal(rustix::process::Signal::KILL);
        far.exit().await;
        for node in [&near, &beside] {
            assert_eq!(installs(node, newest, "latest").await.ok().stdout, "tinyr 1.1 tinydep 0.1");
            assert_eq!(installs(node, archived, "latest").await.ok().stdout, "tinyr 1.0 tinydep 0.1");
        }
        let unknown = get(&near.address, "/packages/cran/latest/src/contrib/Archive/tinyr/tinyr_0.1.tar.gz").await;
        assert!(unknown.status == 503 && unknown.text().contains("Source `world`"), "{unknown:?}");
    });
}

/// An index with one project whose file comes slowly, in two halves; counts what it is asked.
struct Slow {
    address: String,
    pages: Arc<AtomicUsize>,
    files: Arc<AtomicUsize>,
}

impl Slow {
    /// `lies`: gives other bytes than it promises.
    async fn start(bytes: Vec<u8>, sha256: String, lies: bool) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (pages, files) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (pages.clone(), files.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (bytes, sha256, counts) = (bytes.clone(), sha256.clone(), counts.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                            return;
                        }
                        head.push(byte[0]);
                    }
                    let asked = String::from_utf8_lossy(&head).into_owned();
                    if asked.contains(" /simple/") {
                        counts.0.fetch_add(1, Ordering::SeqCst);
                        let page = format!("<a href=\"/f/slow-1.0.tar.gz#sha256={sha256}\">slow</a>");
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: max-age=600\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{page}",
                            page.len()
                        );
                        let _ = stream.write_all(head.as_bytes()).await;
                        return;
                    }
                    counts.1.fetch_add(1, Ordering::SeqCst);
                    let head =
                        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", bytes.len());
                    let _ = stream.write_all(head.as_bytes()).await;
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    let _ = stream.write_all(first).await;
                    let _ = stream.flush().await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    let second = if lies { vec![0; second.len()] } else { second.to_vec() };
                    let _ = stream.write_all(&second).await;
                });
            }
        });
        Self { address, pages, files }
    }
}

async fn node_before(slow: &Slow) -> Node {
    let node = Node::start("a", "").await;
    node.command(&["source", "create", "slow", "--url", &format!("http://{}/simple/", slow.address)]).await;
    node.command(&["repo", "create", "pypi", "--source", "slow"]).await;
    until_there(&node, "/packages/pypi/simple/").await;
    node
}

fn noise() -> Vec<u8> {
    (0..3_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

async fn digest(bytes: &[u8]) -> String {
    let folder = Folder::new();
    std::fs::write(folder.path("x"), bytes).unwrap();
    crate::packages::sha256(folder.path("x").to_str().unwrap()).await
}

#[test]
fn many_clients_of_one_file_are_one_fetch_and_get_it_while_it_comes() {
    within(60, async {
        let bytes = noise();
        let sha256 = digest(&bytes).await;
        let slow = Slow::start(bytes.clone(), sha256.clone(), false).await;
        let node = node_before(&slow).await;
        let page = "/packages/pypi/simple/slow/";
        let pages = (0..20).map(|_| get(&node.address, page));
        for answer in futures_util::future::join_all(pages).await {
            assert!(answer.status == 200 && answer.text().contains("slow-1.0.tar.gz"), "{answer:?}");
        }
        assert_eq!(slow.pages.load(Ordering::SeqCst), 1, "one question for all");
        let path = format!("/packages/pypi/files/{sha256}/slow-1.0.tar.gz");
        let clients = (0..20).map(|_| get(&node.address, &path));
        for answer in futures_util::future::join_all(clients).await {
            assert!(answer.status == 200 && answer.body == bytes);
        }
        let part = get_as(&node.address, &path, &[("Range", "bytes=2000000-2000009")]).await;
        assert_eq!((part.status, part.body.as_slice()), (206, &bytes[2_000_000..2_000_010]));
        assert_eq!(slow.files.load(Ordering::SeqCst), 1, "one fetch for all");
        let other = path.replace("slow-1.0.tar.gz", "slow-2.0.tar.gz");
        assert_eq!(get(&node.address, &other).await.status, 404, "what its index does not show is not fetched");
    });
}

#[test]
fn a_file_that_is_not_what_was_promised_reaches_nobody_whole() {
    within(60, async {
        let bytes = noise();
        let slow = Slow::start(bytes.clone(), digest(&bytes).await, true).await;
        let node = node_before(&slow).await;
        let client = Trusting(String::from("/dev/null"));
        assert!(!installs(&node, &client, "python3", &Folder::new(), "slow").await);
        let path = format!("http://{}/packages/pypi/files/{}/slow-1.0.tar.gz", node.address, digest(&bytes).await);
        let curl = client.runs("curl", &["-sS", "-o", "/dev/null", "-w", "%{size_download}", &path]).await;
        assert_ne!(curl.code, Some(0), "{curl:?}");
        assert!(curl.stdout.parse::<usize>().unwrap() < bytes.len(), "{curl:?}");
        assert!(node.folder.read("a.err").contains("other bytes than it promised"));
        let wrong = bowline(&["source", "create", "x", "--url", "ftp://x", "-c", &node.config()]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("is no URL of an index"), "{wrong:?}");
    });
}
