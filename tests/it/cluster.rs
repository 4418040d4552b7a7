//! Nodes as a cluster: one PostgreSQL, one storage, one key; what happens when one of these is lost or differs.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Authority, Folder, Node, Output, Postgres, bowline, eventually, get, within};

/// A wheel that every node takes, as bytes.
async fn publish(node: &Node, key: &str, name: &str) -> u16 {
    let files = Folder::new();
    let [wheel, _] = crate::packages::make(&files, name, "1.0", "x").await;
    let bytes = std::fs::read(&wheel).unwrap();
    let filename = wheel.rsplit('/').next().unwrap().to_owned();
    let fields = [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("name", name),
        ("version", "1.0"),
        ("filetype", "bdist_wheel"),
    ];
    crate::packages::post(node, key, &fields, Some((&filename, &bytes))).await.status
}

async fn status_of(node: &Node, path: &str) -> u16 {
    get(&node.address, path).await.status
}

fn on(database: &Postgres) -> String {
    format!("[database]\nurl = \"{}\"\ntimeout = \"3s\"\n", database.url())
}

async fn doctor(node: &Node) -> (Output, Value) {
    let done = bowline(&["doctor", "-c", &node.config(), "--json"]).await;
    let told = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", done.stdout, done.stderr));
    (done, told)
}

/// Names of the points that are not `ok`.
fn worse(told: &Value) -> Vec<(&str, &str)> {
    let all = told["checks"].as_array().unwrap();
    let worse = all.iter().filter(|check| check["verdict"] != "ok");
    worse.map(|check| (check["name"].as_str().unwrap(), check["verdict"].as_str().unwrap())).collect()
}

#[test]
fn two_nodes_on_postgres_are_what_the_doctor_wants_and_one_that_differs_is_found() {
    within(60, async {
        let database = Postgres::start();
        let a = Node::start("a", &on(&database)).await;
        let mut b = a.beside("b").await;
        eventually("both nodes to have seen one another", async || worse(&doctor(&a).await.1).is_empty().then_some(()))
            .await;
        a.command(&["repo", "create", "pypi"]).await;
        let key = a.command(&["key", "create", "--scope", "publish"]).await;
        eventually("the repository", async || (status_of(&b, "/packages/pypi/simple/").await == 200).then_some(()))
            .await;
        assert_eq!(publish(&b, &key, "alpha").await, 200);
        eventually("it on the other node", async || {
            (status_of(&a, "/packages/pypi/simple/alpha/").await == 200).then_some(())
        })
        .await;

        // A node on a storage of its own, and with other limits.
        let other = format!(
            "{}[storage.default]\npath = \"elsewhere\"\n[packages]\nfile_bytes_max = \"1MiB\"\n",
            on(&database)
        );
        let c = Node::start_in("c", a.folder.clone(), &other).await;
        // At first it may be that the others have not looked for its mark yet.
        let (done, told) = eventually("the doctor's verdict", async || {
            let (done, told) = doctor(&a).await;
            worse(&told).contains(&("storage", "fail")).then_some((done, told))
        })
        .await;
        assert_eq!(done.code, Some(1));
        let found: Vec<_> = worse(&told).into_iter().filter(|(name, _)| *name != "storage").collect();
        assert_eq!(found, [("same_configuration", "fail")]);
        drop(c);

        // One that leaves is gone at once.
        b.signal(Signal::TERM);
        assert!(b.exit().await.success());
        let rows = database.sql("SELECT name FROM node ORDER BY name");
        assert_eq!(rows, "a\nc", "c was killed and is forgotten later");
    });
}

#[test]
fn a_node_that_was_killed_takes_its_own_place_and_another_one_of_its_name_is_told() {
    within(60, async {
        let database = Postgres::start();
        let a = Node::start("a", &on(&database)).await;
        let mut b = a.beside("b").await;
        for _ in 0..2 {
            b.kill().await;
            b.again().await;
            let (done, told) = doctor(&a).await;
            assert_eq!(done.code, Some(0), "nothing fails meanwhile: {told}");
            assert!(!told.to_string().contains("are named"), "{told}");
            assert_eq!(database.sql("SELECT COUNT(*) FROM node WHERE name = 'b'"), "1");
        }
        eventually("everybody to have looked", async || worse(&doctor(&a).await.1).is_empty().then_some(())).await;

        // Somebody else's node of this name: it is not touched, and both are told.
        database.sql(
            "INSERT INTO node SELECT 'far', 'b', 'another machine', version, schema_known, started_at,
             seen_at + 600000000, report FROM node WHERE name = 'b'",
        );
        b.kill().await;
        b.again().await;
        assert!(b.folder.read("b.err").contains("another node of this name runs"), "{}", b.folder.read("b.err"));
        assert_eq!(database.sql("SELECT COUNT(*) FROM node WHERE name = 'b'"), "2");
        let (_, told) = doctor(&a).await;
        assert!(worse(&told).contains(&("own_names", "warn")), "{told}");
        assert!(
            told.to_string().contains("2 nodes are named b") && told.to_string().contains("another machine"),
            "{told}"
        );
    });
}

#[test]
fn when_postgres_fails_over_what_is_known_is_served_and_the_rest_comes_back_by_itself() {
    within(120, async {
        let mut primary = Postgres::start();
        let standby = primary.standby();
        let url = format!("postgres://bowline@{},{}/postgres", primary.address(), standby.address());
        let node = Node::start("a", &format!("[database]\nurl = \"{url}\"\ntimeout = \"3s\"\n")).await;
        node.command(&["repo", "create", "pypi"]).await;
        let key = node.command(&["key", "create", "--scope", "publish"]).await;
        eventually("the repository", async || (status_of(&node, "/packages/pypi/simple/").await == 200).then_some(()))
            .await;
        assert_eq!(publish(&node, &key, "alpha").await, 200);
        assert_eq!(status_of(&node, "/packages/pypi/simple/alpha/").await, 200);
        let page = get(&node.address, "/packages/pypi/simple/alpha/").await.text();
        let href = page.split("../../").nth(1).unwrap().split('#').next().unwrap().to_owned();
        let file = format!("/packages/pypi/{href}");
        assert_eq!(status_of(&node, &file).await, 200);
        eventually("the standby to have it all", async || {
            (standby.sql("SELECT COUNT(*) FROM file") == "1").then_some(())
        })
        .await;

        primary.down();
        let refused = eventually("a 503", async || {
            let answer = get(&node.address, "/packages/pypi/simple/never-asked-for/").await;
            (answer.status == 503).then_some(answer)
        })
        .await;
        assert!(refused.fields.has("retry-after"), "{refused:?}");
        for known in ["/__ping__", "/packages/pypi/simple/", "/packages/pypi/simple/alpha/", &file] {
            assert_eq!(status_of(&node, known).await, 200, "{known} is known");
        }
        assert_eq!(publish(&node, &key, "beta").await, 503);

        standby.promote();
        eventually("the new primary to be found", async || (publish(&node, &key, "beta").await == 200).then_some(()))
            .await;
        assert_eq!(standby.sql("SELECT COUNT(*) FROM file"), "2");
        assert_eq!(status_of(&node, "/packages/pypi/simple/beta/").await, 200);
    });
}

#[test]
fn a_node_whose_schema_is_no_longer_tolerated_leaves_and_does_not_start_again() {
    within(60, async {
        let database = Postgres::start();
        let mut node = Node::start("a", &on(&database)).await;
        database.sql("UPDATE schema_guard SET tolerates = 1000000");
        let answer = eventually("the ping to fail", async || {
            let answer = get(&node.address, "/__ping__").await;
            (answer.status != 200).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 503);
        assert_eq!(node.exit().await.code(), Some(1));
        let log = node.folder.read("a.err");
        assert!(log.contains("the schema of the database changed") && log.contains("1000000"), "{log}");
        let again = bowline(&["node", "-c", &node.config()]).await;
        assert!(again.code == Some(1) && again.stderr.contains("install the version"), "{again:?}");
    });
}

#[test]
fn a_node_with_another_key_or_on_anothers_sqlite_does_not_start() {
    within(60, async {
        let node = Node::start("a", "").await;
        let folder = &node.folder;
        let text = folder.read("a.toml");
        bowline(&["keygen", folder.path("other.key").to_str().unwrap()]).await.ok();
        let other = folder.write("other.toml", text.replace("node.key", "other.key"));
        let refused = bowline(&["node", "-c", other.to_str().unwrap()]).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("copy the key of another node"), "{refused:?}");

        a_far_heartbeat(&folder.path("data/bowline.db")).await;
        let far = bowline(&["node", "-c", &node.config()]).await;
        assert!(far.code == Some(1) && far.stderr.contains("another machine"), "{far:?}");
    });
}

#[test]
fn the_database_must_prove_who_it_is_and_a_node_that_doubts_it_says_what_helps() {
    within(90, async {
        let (ca, other) = (Authority::new(), Authority::new());
        let pair = ca.pair(&["127.0.0.1"]);
        let database = Postgres::encrypted(&pair.certificate_pem, &pair.key_pem);
        let trust = Folder::new();
        let [right, wrong] = [("right.pem", ca.pem()), ("wrong.pem", other.pem())]
            .map(|(name, pem)| trust.write(name, pem).to_str().unwrap().to_owned());
        let url = |host: &str, query: &str| format!("postgres://bowline@{host}:{}/postgres?{query}", database.port());
        let on = |url: &str| format!("[database]\nurl = \"{url}\"\ntimeout = \"3s\"\n");
        let full = format!("sslmode=verify-full&sslrootcert={right}");
        let node = Node::start("a", &on(&url("127.0.0.1", &full))).await;
        let plain = "SELECT COUNT(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name = 'bowline' AND NOT ssl";
        let sealed = plain.replace("NOT ssl", "ssl");
        assert_eq!(database.sql(plain), "0");
        assert!(database.sql(&sealed).parse::<u32>().unwrap() > 0);

        let on_server = async |verb: &[&str], url: &str| {
            let text = node.folder.read("a.toml");
            let old = text.lines().find(|line| line.starts_with("url = ")).unwrap();
            let file = node.folder.write("other.toml", text.replace(old, &format!("url = \"{url}\"")));
            bowline(&[verb, &["-c", file.to_str().unwrap()]].concat()).await
        };
        // 0.0.0.0 is this machine too, but to nobody who does not know better.
        let refused = [
            (
                "127.0.0.1",
                format!("sslmode=verify-full&sslrootcert={wrong}"),
                "nobody whom this machine trusts",
                "`sslrootcert=FILE`",
            ),
            (
                "127.0.0.1",
                format!("sslmode=require&sslrootcert={wrong}"),
                "nobody whom this machine trusts",
                "`sslrootcert=FILE`",
            ),
            ("localhost", full.clone(), "its certificate is not for `localhost`", "as its certificate does"),
            ("127.0.0.1", format!("{full}.absent"), "is not there", "`sslrootcert`"),
            ("0.0.0.0", String::new(), "nobody whom this machine trusts", "`sslrootcert=FILE`"),
            (
                "0.0.0.0",
                format!("sslrootcert={right}"),
                "its certificate is not for `0.0.0.0`",
                "as its certificate does",
            ),
        ];
        for (host, query, what, remedy) in &refused {
            let done = on_server(&["node"], &url(host, query)).await;
            let told = done.stderr.contains(what) && done.stderr.contains(remedy) && done.stderr.contains(host);
            assert!(done.code == Some(1) && told, "{host} {query}: {done:?}");
        }
        let verify_ca = format!("sslmode=verify-ca&sslrootcert={right}");
        on_server(&["repo", "list"], &url("localhost", &verify_ca)).await.ok();

        let open = Postgres::start();
        let url = |query: &str| format!("postgres://bowline@0.0.0.0:{}/postgres?{query}", open.port());
        let done = on_server(&["node"], &url("")).await;
        let told = done.stderr.contains("it does not encrypt") && done.stderr.contains("`sslmode=disable`");
        assert!(done.code == Some(1) && told, "{done:?}");
        on_server(&["migrate"], &url("sslmode=disable")).await.ok();
    });
}

/// A heartbeat of a node on another machine.
async fn a_far_heartbeat(database: &std::path::Path) {
    let sql = "INSERT INTO node SELECT 'far', 'far', 'another machine', version, schema_known, started_at, seen_at + 600000000, report FROM node";
    let script = format!(
        "import sqlite3; c = sqlite3.connect({:?}, timeout=10); c.execute({sql:?}); c.commit()",
        database.to_str().unwrap()
    );
    crate::harness::run(&crate::harness::tool("python3"), &["-c", &script], "").await.ok();
}
