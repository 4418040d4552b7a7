//! Every example is a configuration that works: only addresses and paths are changed before it is started.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::harness::{
    Authority, Client, Folder, Node, Origin, Postgres, Proxy, bowline, eventually, get, tools, within,
};

/// Generated; it shows every key and so fits no machine.
const CHECKED_ONLY: &str = "full.toml";
/// As [`CHECKED_ONLY`], of a node.
const CHECKED_ONLY_NODE: &str = "full-node.toml";

fn examples() -> Vec<(String, String)> {
    let folder = tools::top().join("conf");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(p).unwrap()))
        .collect();
    files.sort();
    assert!(files.iter().any(|(name, _)| name == "proxy.toml"), "{files:?}");
    files
}

/// Every listener on a free port of this machine, every backend an origin, every file in the test's folder.
fn rewrite(table: &mut Table, origins: &mut Vec<Origin>) {
    for listener in table["listener"].as_array_mut().unwrap() {
        listener["address"] = Value::from("127.0.0.1:0");
        if let Some(tls) = listener.get_mut("tls") {
            tls["certificates"] = Value::from("certs");
        }
    }
    if let Some(admin) = table.get_mut("admin").and_then(Value::as_table_mut) {
        admin.insert("address".to_owned(), Value::from("127.0.0.1:0"));
        admin.insert("socket".to_owned(), Value::from("admin.sock"));
    }
    for pool in table["pool"].as_array_mut().unwrap() {
        for backend in pool["backend"].as_array_mut().unwrap() {
            origins.push(Origin::start(backend["key"].as_str().unwrap()));
            backend["address"] = Value::from(origins.last().unwrap().address.clone());
        }
    }
}

#[test]
fn every_example_starts_and_serves() {
    within(120, async {
        for (name, text) in examples().into_iter().filter(|(name, _)| name != CHECKED_ONLY) {
            let mut table: Table = text.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
            if table["role"].as_str() == Some("node") {
                continue;
            }
            let mut origins = Vec::new();
            rewrite(&mut table, &mut origins);
            let (ca, folder) = (Authority::new(), Folder::new());
            let hosts: Vec<String> = hosts(&table);
            let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
            ca.pair(&names).write(&folder, "certs/all");
            let proxy = Proxy::start_exactly(folder, &toml::to_string(&table).unwrap()).await;
            for listener in table["listener"].as_array().unwrap() {
                let address = proxy.listener(listener["name"].as_str().unwrap());
                for host in &hosts {
                    let mut client = match listener.get("tls") {
                        Some(_) => Client::tls(address, &ca.trust(host)).await,
                        None => Client::tcp(address).await,
                    };
                    let expected = if listener.get("redirect_to_https").is_some() { 308 } else { 200 };
                    let answer = client.request("GET", "/", &[("Host", host)], b"").await;
                    assert_eq!(answer.status, expected, "{name}: {host} at {listener}: {answer:?}");
                }
            }
        }
    });
}

#[test]
fn every_example_of_a_node_starts_and_serves() {
    within(120, async {
        let nodes = examples().into_iter().filter(|(name, _)| name != CHECKED_ONLY_NODE);
        let mut seen = 0;
        for (name, text) in nodes {
            let mut table: Table = text.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
            if table["role"].as_str() != Some("node") {
                continue;
            }
            seen += 1;
            let (folder, database) = (Folder::new(), Postgres::start());
            table["key_file"] = Value::from("node.key");
            table["listener"][0]["address"] = Value::from("127.0.0.1:0");
            table["storage"]["default"]["path"] = Value::from("blobs");
            table["cache"]["path"] = Value::from("cache");
            let url = table["database"]["url"].as_str().unwrap();
            let url = if url.starts_with("sqlite:") { "sqlite:b.db".to_owned() } else { database.url() };
            table["database"]["url"] = Value::from(url);
            if let Some(log) = table.get_mut("access_log") {
                log["file"] = Value::from("access.log");
            }
            let node = Node::start_exactly(folder, &toml::to_string(&table).unwrap()).await;
            node.command(&["repo", "create", "pypi"]).await;
            eventually("the repository", async || {
                (get(&node.address, "/packages/pypi/simple/").await.status == 200).then_some(())
            })
            .await;
        }
        assert_eq!(seen, 2, "node.toml and node-ha.toml");
    });
}

/// A host for each route.
fn hosts(table: &Table) -> Vec<String> {
    let routes = table["route"].as_array().unwrap().iter();
    let mut hosts: Vec<_> = routes
        .map(|r| match r.get("host").and_then(Value::as_str) {
            None | Some("*") => "localhost".to_owned(),
            Some(host) => host.replace('*', "any"),
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[test]
fn the_full_example_and_the_schema_are_those_the_binary_prints() {
    within(60, async {
        for (file, arguments) in [
            ("full.toml", &["schema", "proxy", "--example"][..]),
            ("schema.json", &["schema", "proxy"]),
            ("full-node.toml", &["schema", "node", "--example"]),
            ("schema-node.json", &["schema", "node"]),
        ] {
            let printed = bowline(arguments).await.ok().stdout;
            let kept = std::fs::read_to_string(tools::top().join("conf").join(file)).unwrap();
            assert!(printed == kept, "conf/{file} is out of date: `bowline {}` prints another", arguments.join(" "));
        }
    });
}

#[test]
fn the_full_example_is_right_but_for_files_this_machine_lacks() {
    within(60, async {
        let (_, text) = examples().into_iter().find(|(name, _)| name == CHECKED_ONLY).expect("conf/full.toml");
        let (ca, folder) = (Authority::new(), Folder::new());
        let mut table: Table = text.parse().unwrap();
        let mut files = BTreeMap::new();
        for listener in table["listener"].as_array().unwrap() {
            if let Some(tls) = listener.get("tls") {
                files.insert(tls["certificates"].as_str().unwrap().trim_end_matches('/').to_owned(), ());
            }
        }
        for certificates in files.keys() {
            ca.pair(&["localhost"]).write(&folder, &format!("{certificates}/all"));
        }
        for pool in table["pool"].as_array_mut().unwrap() {
            if let Some(file) = pool.get("tls").and_then(|t| t.get("ca_file")) {
                folder.write(file.as_str().unwrap(), ca.pem());
            }
        }
        let file = folder.write("full.toml", &text);
        let report = bowline(&["check", file.to_str().unwrap()]).await;
        assert_eq!(report.code, Some(0), "{report:?}");
    });
}

#[test]
fn the_full_example_of_a_node_is_right_but_for_its_key() {
    within(60, async {
        let (_, text) =
            examples().into_iter().find(|(name, _)| name == CHECKED_ONLY_NODE).expect("conf/full-node.toml");
        let folder = Folder::new();
        let file = folder.write("node.toml", &text);
        let report = bowline(&["check", file.to_str().unwrap()]).await;
        assert!(report.code == Some(78) && report.stdout.contains("bowline keygen"), "{report:?}");
        std::fs::create_dir_all(folder.path("keys")).unwrap();
        for secret in ["keys/node.key", "keys/mail.password", "keys/bootstrap.key"] {
            bowline(&["keygen", folder.path(secret).to_str().unwrap()]).await.ok();
        }
        let report = bowline(&["check", file.to_str().unwrap()]).await;
        assert_eq!(report.code, Some(0), "{report:?}");
    });
}
