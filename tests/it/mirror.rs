//! Pull-through of another CRAN as it changes: its Archive, and what it was on a day that is over.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cran::{r, tarball};
use crate::harness::{Folder, Node, eventually, get, get_as, run, tool, within};
use crate::jobs::collect;
use crate::packages::{Trusting, sqlite};

/// Another CRAN: what a test puts there, by path.
struct Cran {
    address: String,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    /// What it was asked for, in order.
    asked: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Cran {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (files, asked) = (Arc::new(Mutex::new(HashMap::new())), Arc::new(Mutex::new(Vec::new())));
        let (there, told) = (Arc::clone(&files), Arc::clone(&asked));
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (files, asked) = (Arc::clone(&there), Arc::clone(&told));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                            return;
                        }
                        head.push(byte[0]);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                    let found: Option<Vec<u8>> = files.lock().unwrap().get(&path).cloned();
                    asked.lock().unwrap().push(path);
                    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                    let body = found.unwrap_or_default();
                    let head = format!(
                        "HTTP/1.1 {status}\r\nCache-Control: max-age=86400\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                });
            }
        });
        Self { address, files, asked, serving }
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(path.to_owned(), bytes);
    }

    /// Shows these, by name and version, and has whatever it showed before in its Archive.
    async fn show(&self, packages: &[(&str, &str)]) {
        let mut text = String::new();
        for (name, version) in packages {
            let bytes = source(name, version);
            let folder = Folder::new();
            std::fs::write(folder.path("x"), &bytes).unwrap();
            let told = run(&tool("md5sum"), &[folder.path("x").to_str().unwrap()], "").await.ok().stdout;
            let md5 = &told[..32];
            text.push_str(&format!("Package: {name}\nVersion: {version}\nMD5sum: {md5}\nLicense: GPL-2\n\n"));
            self.put(&format!("src/contrib/{name}_{version}.tar.gz"), bytes);
        }
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        self.put("src/contrib/PACKAGES.gz", gz.finish().unwrap());
        let mut files = self.files.lock().unwrap();
        let is_old = |path: &str| {
            let of = path.strip_prefix("src/contrib/").and_then(|file| file.strip_suffix(".tar.gz"));
            of.and_then(|of| of.split_once('_')).is_some_and(|of| !packages.contains(&of))
        };
        for path in files.keys().filter(|path| is_old(path)).cloned().collect::<Vec<_>>() {
            let file = path.rsplit('/').next().unwrap();
            let package = file.split('_').next().unwrap();
            let bytes = files.remove(&path).unwrap();
            files.insert(format!("src/contrib/Archive/{package}/{file}"), bytes);
        }
    }

    /// Writes the index of its Archive, as CRAN's own scripts do.
    async fn archive(&self, compress: &str) {
        let folder = Folder::new();
        let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in self.files.lock().unwrap().keys() {
            if let Some((package, file)) = path.strip_prefix("src/contrib/Archive/").and_then(|p| p.split_once('/')) {
                packages.entry(package.to_owned()).or_default().push(file.to_owned());
            }
        }
        for (package, files) in packages {
            for file in files {
                folder.write(
                    &format!("{package}/{file}"),
                    &self.files.lock().unwrap()[&format!("src/contrib/Archive/{package}/{file}")],
                );
            }
        }
        let root = folder.root().to_str().unwrap();
        let text = format!(
            "setwd('{root}'); f <- list.files('.', recursive = TRUE); i <- file.info(f); \
             saveRDS(split(i, dirname(f)), 'archive.rds', compress = '{compress}', version = 2)"
        );
        run(&tool("Rscript"), &["--vanilla", "-e", &text], "").await.ok();
        self.put("src/contrib/Meta/archive.rds", std::fs::read(folder.path("archive.rds")).unwrap());
    }

    /// How often it was asked for something.
    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }
}

/// A source package with nothing but a description.
fn source(name: &str, version: &str) -> Vec<u8> {
    let description = format!("Package: {name}\nVersion: {version}\nLicense: GPL-2\n");
    tarball(&[(&format!("{name}/DESCRIPTION"), &description)])
}

/// A node whose repository `cran` shows its own packages, and others' beside them.
async fn node_before(others: &[&Cran], more: &str) -> Node {
    let node = Node::start("a", more).await;
    node.command(&["source", "create", "own", "--type", "cran"]).await;
    let mut sources = vec!["--source".to_owned(), "own".to_owned()];
    for (number, cran) in others.iter().enumerate() {
        let (name, url) = (format!("world{number}"), format!("http://{}/", cran.address));
        node.command(&["source", "create", &name, "--type", "cran", "--url", &url]).await;
        sources.extend(["--source".to_owned(), name]);
    }
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    node.command(&[&["repo", "create", "cran", "--type", "cran"], &sources[..]].concat()).await;
    node
}

async fn add(node: &Node, packages: &[(&str, &str)]) {
    let folder = Folder::new();
    for (name, version) in packages {
        let file = folder.write(&format!("{name}_{version}.tar.gz"), source(name, version));
        node.command(&["add", "cran", file.to_str().unwrap()]).await;
        let path = format!("src/contrib/{name}_{version}.tar.gz");
        eventually(&path, async || (status(node, &path).await == 200).then_some(())).await;
    }
}

async fn status(node: &Node, path: &str) -> u16 {
    get(&node.address, &format!("/packages/cran/{path}")).await.status
}

#[test]
fn the_archive_of_another_repository_is_beside_ours_and_packages_are_never_mixed() {
    within(120, async {
        let (first, second) = (Cran::start().await, Cran::start().await);
        for packages in
            [&[("alpha", "1.0"), ("ours", "8.0"), ("gone", "1.0")][..], &[("alpha", "1.1"), ("ours", "9.0")]]
        {
            first.show(packages).await;
        }
        for packages in
            [&[("alpha", "0.1"), ("gone", "0.1"), ("beta", "0.1")][..], &[("alpha", "0.2"), ("beta", "0.2")]]
        {
            second.show(packages).await;
        }
        first.archive("xz").await;
        second.archive("gzip").await;
        let node = node_before(&[&first, &second], "").await;
        add(&node, &[("ours", "1.0"), ("ours", "1.1")]).await;

        let client = Trusting(String::from("/dev/null"));
        let read = format!(
            "m <- readRDS(gzcon(url('http://{}/packages/cran/latest/src/contrib/Meta/archive.rds'))); \
             stopifnot(is.numeric(m$alpha$size), m$alpha$size > 0, inherits(m$alpha$mtime, 'POSIXct'), \
             identical(class(m$alpha), 'data.frame'), Sys.time() - m$alpha$mtime < 3600); \
             cat(names(m), unlist(lapply(m, rownames)))",
            node.address
        );
        let told = r(&client, &read).await.ok().stdout;
        assert_eq!(
            told,
            "alpha beta gone ours alpha/alpha_1.0.tar.gz beta/beta_0.1.tar.gz gone/gone_1.0.tar.gz ours/ours_1.0.tar.gz"
        );
        for (path, expected) in [
            ("alpha/alpha_1.0.tar.gz", 200),
            ("beta/beta_0.1.tar.gz", 200),
            ("gone/gone_1.0.tar.gz", 200),
            ("ours/ours_1.0.tar.gz", 200),
            ("ours/ours_8.0.tar.gz", 404),
            // Where one has the package, another one's is something else.
            ("alpha/alpha_0.1.tar.gz", 404),
        ] {
            assert_eq!(status(&node, &format!("latest/src/contrib/Archive/{path}")).await, expected, "{path}");
        }
        node.command(&["repo", "block", "cran", "alpha", "--versions", "<1.1", "--reason", "x"]).await;
        eventually("the rule", async || (!r(&client, &read).await.stdout.contains("alpha_1.0")).then_some(())).await;
    });
}

#[test]
fn an_archive_without_an_index_is_none_and_an_index_that_cannot_be_read_is_told() {
    within(60, async {
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0")]).await;
        let node = node_before(&[&cran], "").await;
        add(&node, &[("ours", "1.0"), ("ours", "1.1")]).await;
        let index = "latest/src/contrib/Meta/archive.rds";
        assert_eq!(status(&node, index).await, 200);
        cran.put("src/contrib/Meta/archive.rds", b"<html>somebody's login</html>".to_vec());
        node.command(&["sync", "world0"]).await;
        eventually("the page that is none", async || {
            let answer = get(&node.address, &format!("/packages/cran/{index}")).await;
            let told = answer.status == 503 || node.folder.read("a.err").contains("no binary serialisation of R");
            told.then_some(())
        })
        .await;
        assert_eq!(status(&node, "latest/src/contrib/PACKAGES.rds").await, 200);
        assert_eq!(status(&node, "latest/src/contrib/alpha_1.0.tar.gz").await, 200);
        assert_eq!(cran.asked("src/contrib/alpha_1.0.tar.gz"), 1);
    });
}

const DAY: u64 = 24 * 3600;

/// The first second of a day so many days ago, and how views call it.
fn ago(days: u64) -> (u64, String) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let start = (now / DAY - days) * DAY;
    let text = humantime::format_rfc3339(std::time::UNIX_EPOCH + std::time::Duration::from_secs(start)).to_string();
    (start, text[..10].to_owned())
}

/// Moves what was seen today to noon of another day.
async fn move_to(node: &Node, (start, _): &(u64, String), today: u64) {
    let (day, at) = (start / DAY, (start + DAY / 2) * 1_000_000);
    sqlite(node, &format!("UPDATE remote_day SET day = {day}, seen_at = {at} WHERE day >= {}", today / DAY)).await;
}

#[test]
fn a_day_shows_what_another_repository_had_then_and_never_what_came_later() {
    within(120, async {
        let (today, yesterday, earlier, before) = (ago(0).0, ago(1), ago(3), ago(4));
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0"), ("beta", "1.0"), ("ours", "9.0")]).await;
        let mut node = node_before(&[&cran], "[garbage]\ngrace = \"1s\"\n").await;
        add(&node, &[("ours", "1.0")]).await;
        assert!(node.command(&["sync", "world0", "--follow"]).await.contains("src/contrib: 3 packages"));
        move_to(&node, &earlier, today).await;

        // Two changes in one day, of which the last counts.
        for packages in [&[("alpha", "1.1"), ("gamma", "1.0")][..], &[("alpha", "1.2"), ("gamma", "1.0")]] {
            cran.show(packages).await;
            cran.archive("bzip2").await;
            node.command(&["sync", "world0", "--follow"]).await;
        }
        move_to(&node, &yesterday, today).await;
        // What nothing but a day refers to is kept.
        eventually("the grace period's end", async || collect(&node).await.contains("deleted ").then_some(())).await;

        let index = async |view: &str| {
            let answer = get(&node.address, &format!("/packages/cran/{view}/src/contrib/PACKAGES")).await;
            assert_eq!(answer.status, 200, "{view}");
            let text = answer.text();
            let field =
                |of: &str, name: &str| of.split(name).nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
            let all = text.split("\n\n").filter(|of| !of.is_empty());
            all.map(|of| format!("{} {}", field(of, "Package: "), field(of, "Version: ")))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(index("latest").await, "alpha 1.2, gamma 1.0, ours 1.0");
        assert_eq!(index(&yesterday.1).await, "alpha 1.2, gamma 1.0");
        assert_eq!(index(&ago(2).1).await, "alpha 1.0, beta 1.0", "nothing new was seen");
        assert_eq!(index(&earlier.1).await, "alpha 1.0, beta 1.0");
        assert_eq!(index(&before.1).await, "", "nobody had asked");

        // Files that are no longer the newest there, and were never fetched, come from its Archive.
        for (view, path, expected) in [
            (&earlier, "alpha_1.0.tar.gz", 200),
            (&earlier, "beta_1.0.tar.gz", 200),
            (&earlier, "ours_9.0.tar.gz", 404),
            (&earlier, "ours_1.0.tar.gz", 404),
            (&earlier, "gamma_1.0.tar.gz", 404),
            (&earlier, "alpha_1.1.tar.gz", 404),
            (&earlier, "Archive/alpha/alpha_1.1.tar.gz", 404),
            (&earlier, "Archive/alpha/alpha_1.0.tar.gz", 200),
            (&yesterday, "alpha_1.2.tar.gz", 200),
            (&yesterday, "Archive/alpha/alpha_1.1.tar.gz", 200),
            (&yesterday, "Archive/beta/beta_1.0.tar.gz", 200),
            (&yesterday, "Archive/ours/ours_9.0.tar.gz", 404),
            (&before, "alpha_1.0.tar.gz", 404),
        ] {
            assert_eq!(status(&node, &format!("{}/src/contrib/{path}", view.1)).await, expected, "{} {path}", view.1);
        }
        let asked = |path: &str| cran.asked(&format!("src/contrib/{path}"));
        assert_eq!((asked("alpha_1.0.tar.gz"), asked("Archive/alpha/alpha_1.0.tar.gz")), (1, 1));
        let answer = get(&node.address, &format!("/packages/cran/{}/src/contrib/alpha_1.0.tar.gz", earlier.1)).await;
        assert_eq!(answer.body, source("alpha", "1.0"));
        let client = Trusting(String::from("/dev/null"));
        let read = format!(
            "m <- readRDS(gzcon(url('http://{}/packages/cran/{}/src/contrib/Meta/archive.rds'))); cat(names(m), rownames(m$alpha))",
            node.address, yesterday.1
        );
        assert_eq!(r(&client, &read).await.ok().stdout, "alpha beta alpha/alpha_1.0.tar.gz alpha/alpha_1.1.tar.gz");

        // Another node, without the other repository, shows the same days.
        let times = cran.asked.lock().unwrap().len();
        let address = node.address.clone();
        node.kill().await;
        node.again().await;
        assert_eq!(node.address, address);
        let path = format!("/packages/cran/{}/src/contrib/PACKAGES.gz", earlier.1);
        let answer = get(&node.address, &path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(cran.asked.lock().unwrap().len(), times, "of a day that is over nobody is asked");
    });
}

#[test]
fn days_on_which_nothing_changed_are_one_view() {
    within(60, async {
        let (today, changed, seen) = (ago(0).0, ago(4), ago(6));
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0")]).await;
        let node = node_before(&[&cran], "").await;
        add(&node, &[("ours", "1.0")]).await;
        node.command(&["sync", "world0", "--follow"]).await;
        move_to(&node, &seen, today).await;
        sqlite(&node, &format!("UPDATE file SET uploaded_at = {}", (changed.0 + DAY / 2) * 1_000_000)).await;
        let made = async || {
            let text = get(&node.address, "/metrics").await.text();
            let line = text.lines().find(|line| line.starts_with("bowline_node_indexes_made_total ")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = made().await;
        for days in 1..=12 {
            let view = ago(days).1;
            let answer = get(&node.address, &format!("/packages/cran/{view}/src/contrib/PACKAGES")).await;
            let there: Vec<bool> = ["alpha", "ours"].iter().map(|name| answer.text().contains(name)).collect();
            assert_eq!((answer.status, &there[..]), (200, &[days <= 6, days <= 4][..]), "{days} days ago");
        }
        assert_eq!(made().await - before, 3);
    });
}

#[test]
fn another_repository_is_looked_at_even_if_nobody_asks() {
    within(120, async {
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0")]).await;
        let _node = node_before(&[&cran], "").await;
        // The test's own time limit ends it: a node looks what is due every 20 to 25 s.
        while ["PACKAGES.gz", "Meta/archive.rds"].iter().any(|path| cran.asked(&format!("src/contrib/{path}")) == 0) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    });
}

#[test]
fn files_of_another_repository_that_nobody_uses_are_forgotten_and_fetched_again() {
    within(120, async {
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0"), ("beta", "1.0")]).await;
        let mut node = node_before(&[&cran], "[garbage]\ngrace = \"1s\"\nremote_unused = \"30d\"\n").await;
        let (alpha, beta) = ("src/contrib/alpha_1.0.tar.gz", "src/contrib/beta_1.0.tar.gz");
        eventually("the repository", async || (status(&node, alpha).await == 200).then_some(())).await;
        assert_eq!(status(&node, beta).await, 200);
        sqlite(&node, "UPDATE remote_file SET used_day = used_day - 31").await;
        assert_eq!(status(&node, beta).await, 200);
        // What it saw is written down when it leaves.
        node.signal(rustix::process::Signal::TERM);
        node.exit().await;
        node.again().await;
        assert!(collect(&node).await.contains("1 files of other indexes forgotten"));
        eventually("the grace period's end", async || collect(&node).await.contains("deleted ").then_some(())).await;
        assert_eq!((status(&node, alpha).await, status(&node, beta).await), (200, 200));
        assert_eq!((cran.asked(alpha), cran.asked(beta)), (2, 1));

        // Nobody has it but us.
        cran.serving.abort();
        let long_ago = 3 * DAY * 1_000_000;
        sqlite(&node, "UPDATE remote_file SET used_day = used_day - 31").await;
        sqlite(&node, &format!("UPDATE remote_page SET asked_at = asked_at - {long_ago}")).await;
        assert!(collect(&node).await.contains("0 files of other indexes forgotten"));
        assert_eq!((status(&node, alpha).await, status(&node, beta).await), (200, 200));
    });
}

#[test]
fn what_was_fetched_as_the_newest_is_there_when_it_is_old_and_its_repository_away() {
    within(60, async {
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0")]).await;
        let node = node_before(&[&cran], "").await;
        let (new, old) = ("src/contrib/alpha_1.0.tar.gz", "src/contrib/Archive/alpha/alpha_1.0.tar.gz");
        eventually("the repository", async || (status(&node, new).await == 200).then_some(())).await;
        cran.show(&[("alpha", "1.1")]).await;
        node.command(&["sync", "world0", "--follow"]).await;
        cran.serving.abort();
        assert_eq!(get(&node.address, &format!("/packages/cran/{old}")).await.body, source("alpha", "1.0"));
        assert_eq!((cran.asked(new), cran.asked(old)), (1, 0));
    });
}

#[test]
fn of_a_binary_that_is_gone_the_source_is_given() {
    within(60, async {
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0")]).await;
        let index = cran.files.lock().unwrap()["src/contrib/PACKAGES.gz"].clone();
        cran.put("bin/linux/4.2-bookworm/contrib/4.2/PACKAGES.gz", index);
        let node = node_before(&[&cran], "").await;
        let path = "src/contrib/alpha_1.0.tar.gz";
        eventually("the repository", async || (status(&node, path).await == 200).then_some(())).await;
        let agent = "R/4.2.2 R (4.2.2 x86_64-pc-linux-gnu x86_64 linux-gnu)";
        let path = format!("/packages/cran/__linux__/bookworm/latest/{path}");
        let answer = get_as(&node.address, &path, &[("User-Agent", agent)]).await;
        assert_eq!((answer.status, answer.body), (200, source("alpha", "1.0")));
        assert_eq!(cran.asked("bin/linux/4.2-bookworm/contrib/4.2/alpha_1.0.tar.gz"), 1);
    });
}

#[test]
fn of_a_binary_that_was_made_anew_since_a_day_the_source_is_given_on_that_day() {
    within(60, async {
        let (today, yesterday) = (ago(0).0, ago(1));
        let (binaries, file) = ("bin/linux/4.2-bookworm/contrib/4.2", "src/contrib/alpha_1.0.tar.gz");
        let cran = Cran::start().await;
        cran.show(&[("alpha", "1.0")]).await;
        let index = cran.files.lock().unwrap()["src/contrib/PACKAGES.gz"].clone();
        cran.put(&format!("{binaries}/PACKAGES.gz"), index);
        // Longer than what is held back until the whole is known.
        cran.put(&format!("{binaries}/alpha_1.0.tar.gz"), vec![0; 1 << 20]);
        let node = node_before(&[&cran], "").await;
        eventually("the repository", async || (status(&node, file).await == 200).then_some(())).await;
        assert_eq!(status(&node, &format!("{binaries}/PACKAGES")).await, 200);
        move_to(&node, &yesterday, today).await;
        let agent = ("User-Agent", "R/4.2.2 R (4.2.2 x86_64-pc-linux-gnu x86_64 linux-gnu)");
        let path = format!("/packages/cran/__linux__/bookworm/{}/{file}", yesterday.1);
        let answer = get_as(&node.address, &path, &[agent]).await;
        assert_eq!((answer.status, answer.body), (200, source("alpha", "1.0")));
        assert_eq!(cran.asked(&format!("{binaries}/alpha_1.0.tar.gz")), 1);
        let path = format!("{}/{binaries}/alpha_1.0.tar.gz", yesterday.1);
        assert_eq!(status(&node, &path).await, 404);
        assert_eq!(cran.asked(&format!("{binaries}/alpha_1.0.tar.gz")), 1, "once is enough");
    });
}
