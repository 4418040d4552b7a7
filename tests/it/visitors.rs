//! Who sees content, for as long as they may.

use serde_json::{Value, json};

use crate::content::{Publisher, two_nodes};
use crate::harness::{Authority, Client, Folder, Node, Socket, eventually, get_as, within};
use crate::packages::proxy;
use crate::pages::{Jar, api, people, site};

const ECHO: &str = "from fastapi import FastAPI, WebSocket\napp = FastAPI()\n\
     @app.get('/')\ndef root():\n    return 'seen'\n\
     @app.websocket('/ws')\nasync def ws(socket: WebSocket):\n    await socket.accept()\n    while True:\n        \
     await socket.send_text(await socket.receive_text())\n";

/// A node with content of bob's that ann, bob and cy may see; their keys, and its guid.
async fn published() -> (Node, [String; 3], String) {
    let (a, _) = two_nodes("").await;
    let ca = Authority::new();
    let proxy = proxy(&[&a], &ca).await;
    let keys = people(&a).await;
    let publisher = Publisher::new(&proxy, keys[1].clone());
    let app = Folder::new();
    app.write("app.py", ECHO);
    app.write("requirements.txt", "fastapi\n");
    let told = publisher.runs(&["deploy", "fastapi"], &[app.root().to_str().unwrap()]).await.ok();
    let guid = Publisher::guid(&told);
    let cy = api(&a, &keys[2], "GET", "/user", &Value::Null).await.json()["guid"].clone();
    let grant = json!({ "principal_guid": cy, "principal_type": "user", "role": "viewer" });
    assert_eq!(api(&a, &keys[1], "POST", &format!("/content/{guid}/permissions"), &grant).await.status, 200);
    (a, keys, guid)
}

async fn open(node: &Node, guid: &str, fields: &[(&str, &str)]) -> Socket {
    let mut socket = Socket::open(Client::tcp(&node.address).await, &format!("/content/{guid}/ws"), fields).await;
    socket.echo("hello").await;
    socket
}

/// The code it is closed with.
async fn closed(socket: &mut Socket) -> Option<u16> {
    socket.next().await.and_then(|frame| frame.close_code())
}

#[test]
fn a_websocket_ends_with_what_it_was_opened_by() {
    within(180, async {
        let (a, [ann, bob, cy], guid) = published().await;
        let by = |key: &str| format!("Key {key}");
        let (ann, cys) = (by(&ann), by(&cy));
        let (_, jar) = Jar::log_in(&a, "cy", "secret of cy", "/connect/", &[]).await;
        let (_, bobs) = Jar::log_in(&a, "bob", "secret of bob", "/connect/", &[]).await;
        let key = open(&a, &guid, &[("authorization", &cys)]).await;
        let session = open(&a, &guid, &[("cookie", &jar.0)]).await;
        let left = open(&a, &guid, &[("cookie", &bobs.0)]).await;
        let mut stays = open(&a, &guid, &[("authorization", &ann)]).await;

        let granted = api(&a, &bob, "GET", &format!("/content/{guid}/permissions"), &Value::Null).await.json();
        let id = granted[0]["id"].as_str().unwrap();
        let gone = api(&a, &bob, "DELETE", &format!("/content/{guid}/permissions/{id}"), &Value::Null).await;
        assert_eq!(gone.status, 204, "{}", gone.text());
        bobs.post(&a, "/connect/logout", &[], &format!("token={}", bobs.token(&a).await)).await;
        for mut socket in [key, session, left] {
            assert_eq!(closed(&mut socket).await, Some(1008));
        }
        stays.echo("still here").await;
    });
}

#[test]
fn locked_content_is_seen_by_nobody_and_stays_as_it_is() {
    within(180, async {
        let (a, [_, bob, cy], guid) = published().await;
        let (path, at) = (format!("/content/{guid}/"), format!("/content/{guid}"));
        let by = |key: &str| format!("Key {key}");
        let cys = by(&cy);
        let mut socket = open(&a, &guid, &[("authorization", &cys)]).await;
        let lock =
            json!({ "locked": true, "locked_message": "Use [the **new** one](https://x.example/), <b>please</b>" });
        let told = api(&a, &bob, "PATCH", &at, &lock).await;
        assert_eq!((told.status, &told.json()["locked_message"]), (200, &lock["locked_message"]), "{}", told.text());
        for key in [&cy, &bob] {
            let seen = eventually("the lock", async || {
                let seen = get_as(&a.address, &path, &[("authorization", &by(key)), ("accept", "text/html")]).await;
                (seen.status == 423).then_some(seen)
            })
            .await;
            let text = seen.text();
            assert!(text.contains("<a href=\"https://x.example/\">the <strong>new</strong> one</a>"), "{text}");
            assert!(text.contains("&lt;b&gt;please"), "{text}");
        }
        // Its processes end, and their websockets.
        while socket.next().await.is_some_and(|frame| frame.close_code().is_none()) {}
        eventually("no processes", async || {
            let text = get_as(&a.address, "/metrics", &[]).await.text();
            text.lines().any(|line| line == "bowline_node_workers 0").then_some(())
        })
        .await;
        let bundle = api(&a, &bob, "GET", &at, &Value::Null).await.json()["bundle_id"].as_str().unwrap().to_owned();
        let variables = json!([{ "name": "A", "value": "b" }]);
        for (method, below, body) in [
            ("POST", "/deploy".to_owned(), json!({ "bundle_id": bundle })),
            ("PATCH", "/environment".to_owned(), variables),
            ("DELETE", format!("/bundles/{bundle}"), Value::Null),
            ("DELETE", String::new(), Value::Null),
        ] {
            let refused = api(&a, &bob, method, &format!("{at}{below}"), &body).await;
            assert_eq!(refused.status, 409, "{method} {below}: {}", refused.text());
            assert!(refused.text().contains("locked"), "{}", refused.text());
        }
        let told = api(&a, &bob, "PATCH", &at, &json!({ "locked": false })).await.json();
        assert_eq!((&told["locked"], &told["locked_message"]), (&json!(false), &lock["locked_message"]));
        eventually("the content", async || {
            (get_as(&a.address, &path, &[("authorization", &cys)]).await.status == 200).then_some(())
        })
        .await;
    });
}

#[test]
fn the_operators_pages_are_shown_and_hidden_by_no_content() {
    within(60, async {
        let own = Folder::new();
        own.write("index.html", "<h1>Welcome</h1>");
        own.write("docs/index.html", "<h1>Docs</h1>");
        let top = format!("landing_dir = \"{}\"\n", own.root().display());
        let folder = std::sync::Arc::new(Folder::new());
        crate::harness::bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        let config = format!(
            "role = \"node\"\n{top}key_file = \"node.key\"\n[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n"
        );
        let a = Node::start_exactly_in(folder, &config).await;
        let [ann, bob, _] = people(&a).await;
        for (path, text) in [("/", "<h1>Welcome</h1>"), ("/docs/", "<h1>Docs</h1>")] {
            let seen = get_as(&a.address, path, &[]).await;
            assert_eq!((seen.status, &*seen.text()), (200, text));
        }
        assert_eq!(get_as(&a.address, "/none", &[]).await.status, 404);
        let guid = site(&a, &bob, "report", "<h1>Report</h1>").await;
        api(&a, &bob, "PATCH", &format!("/content/{guid}"), &json!({ "access_type": "all" })).await;
        let at = format!("/content/{guid}/vanity");
        for (path, status) in [("/docs/", 409), ("/docs/more/", 409), ("/report/", 200)] {
            let told = api(&a, &ann, "PUT", &at, &json!({ "path": path })).await;
            assert_eq!(told.status, status, "{path}: {}", told.text());
        }
        let seen = get_as(&a.address, "/report/", &[]).await;
        assert_eq!((seen.status, &*seen.text()), (200, "<h1>Report</h1>"));
    });
}
