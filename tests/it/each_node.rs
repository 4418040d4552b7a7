//! What is asked of one node is done by each: caches that are removed, processes that are ended.

use crate::content::{Publisher, wheels};
use crate::harness::{Authority, Client, Folder, Node, Output, eventually, get_as, tool, within};
use crate::packages::proxy_with;

/// Environments that a node has.
fn environments(node: &Node, name: &str) -> usize {
    let found = std::fs::read_dir(node.folder.path(&format!("cache-{name}/content/python"))).into_iter().flatten();
    found.filter(|entry| entry.as_ref().unwrap().path().extension().is_none()).count()
}

fn said(told: &Output) -> String {
    format!("{}{}", told.stdout, told.stderr)
}

#[test]
fn caches_are_removed_from_every_node_and_one_that_died_is_named() {
    within(240, async {
        let uv = tool("uv");
        let more = |name: &str| format!("[cache]\npath = \"cache-{name}\"\n[content]\nuv = \"{}\"\n", uv.display());
        let a = Node::start("a", &more("a")).await;
        let mut b = Node::start_in("b", a.folder.clone(), &more("b")).await;
        let proxy = proxy_with(&[&a, &b], &Authority::new(), "").await;
        a.command(&["repo", "create", "pypi"]).await;
        let files = wheels("wheels");
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        for some in files.chunks(20) {
            a.command(&[&["add", "pypi"][..], some].concat()).await;
        }
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let app = Folder::new();
        app.write("app.py", "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef root():\n    return 1\n");
        app.write("requirements.txt", "fastapi\n");
        let told = publisher.runs(&["deploy", "fastapi"], &[app.root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let (path, key) = (format!("/content/{guid}/"), format!("Key {key}"));
        let fields = [("authorization", key.as_str())];
        let shown = async |node: &Node| {
            eventually("the app", async || (get_as(&node.address, &path, &fields).await.status == 200).then_some(()))
                .await;
        };
        shown(&a).await;
        shown(&b).await;
        assert_eq!((environments(&a, "a"), environments(&b, "b")), (1, 1));
        let listed = publisher.runs(&["system", "caches", "list"], &[]).await.ok().json();
        let version = listed["caches"][0]["version"].as_str().unwrap().to_owned();
        let delete = async || {
            let told = ["--language", "Python", "--version", &version];
            publisher.runs(&["system", "caches", "delete"], &told).await
        };
        let told = said(&delete().await.ok());
        for name in ["a", "b"] {
            let line = format!("Removed 0 environments from the node {name}, 1 stay, because something runs on them");
            assert!(told.contains(&line), "{told}");
        }

        let terminate = async || {
            let path = format!("/__api__/applications/{guid}/terminate");
            let answer = Client::tcp(&a.address).await.request("POST", &path, &fields, b"").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        terminate().await;
        let told = eventually("both environments to go", async || {
            let told = said(&delete().await);
            (environments(&a, "a") + environments(&b, "b") == 0).then_some(told)
        })
        .await;
        assert!(told.contains("Removed 1 environments from the node "), "{told}");
        eventually("nobody to have any", async || {
            let told = delete().await;
            (told.code != Some(0) && said(&told).contains("No node has a cache of Python")).then_some(())
        })
        .await;

        // One that cannot do it is waited for until it is known to be dead, and told of.
        shown(&a).await;
        shown(&b).await;
        terminate().await;
        b.kill().await;
        proxy.until_health("n1", "down").await;
        let told = eventually("the task's end", async || {
            let told = delete().await;
            (!said(&told).contains("1 stay")).then_some(told)
        })
        .await;
        let words = said(&told);
        let why = "The node b left or died before it did so";
        assert!(words.contains("from the node a") && words.contains(why) && words.contains("Task failed"), "{words}");
        assert_eq!((environments(&a, "a"), environments(&b, "b")), (0, 1));
    });
}

const CODE: &str = "
const own = Math.floor(Math.random() * 1e9);
require('node:http').createServer((_, response) => response.end(String(own))).listen(process.env.PORT);
";

#[test]
fn a_process_that_began_elsewhere_a_moment_ago_is_ended_too() {
    within(180, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let proxy = proxy_with(&[&a, &b], &Authority::new(), "").await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let app = Folder::new();
        app.write("app.js", CODE);
        app.write("package.json", "{\"name\": \"app\", \"main\": \"app.js\"}");
        app.write("package-lock.json", "{\"name\": \"app\", \"lockfileVersion\": 3, \"packages\": {}}");
        let told = publisher.runs(&["deploy", "nodejs"], &[app.root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let (path, key) = (format!("/content/{guid}/"), format!("Key {key}"));
        let fields = [("authorization", key.as_str())];
        let own = async || {
            eventually("the app", async || {
                let seen = get_as(&b.address, &path, &fields).await;
                (seen.status == 200).then(|| seen.text())
            })
            .await
        };
        for _ in 0..5 {
            let before = own().await;
            let terminate = format!("/__api__/applications/{guid}/terminate");
            let answer = Client::tcp(&a.address).await.request("POST", &terminate, &fields, b"").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            eventually("all that ran to have ended", async || {
                let jobs = get_as(&a.address, &format!("/__api__/v1/content/{guid}/jobs"), &fields).await.json();
                jobs.as_array()?.iter().all(|job| job["status"] == 2).then_some(())
            })
            .await;
            eventually("another process", async || (own().await != before).then_some(())).await;
        }
    });
}
