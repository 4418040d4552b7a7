//! SockJS, which Posit's own client speaks, passes as what it is: plain websockets.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::content::{Publisher, open_to_all};
use crate::harness::websocket::CLOSE;
use crate::harness::{
    Authority, Client, Folder, Frame, Node, Proxy, Socket, eventually, get_as, script, tools, within,
};
use crate::packages::{base, proxy_with};

/// What the app needs of npm.
const PACKAGES: [&str; 7] =
    ["sockjs", "faye-websocket", "uuid", "websocket-driver", "http-parser-js", "safe-buffer", "websocket-extensions"];

/// What `sockjs.mjs` prints of connections to a URL. `ca`: authorities to believe.
async fn talks(url: &str, ca: &str) -> Value {
    tools::package("sockjs-client");
    let ca = format!("NODE_EXTRA_CA_CERTS={ca}");
    let node = tools::tool("node");
    let told = [&ca, node.to_str().unwrap(), &script("sockjs.mjs"), url];
    crate::harness::run("/usr/bin/env".as_ref(), &told, "").await.ok().json()
}

/// Three connections over websockets: one ended there, one broken, one ended here.
fn expected() -> Value {
    let of = |how: &str, code: u16, reason: &str, is_clean: bool| json!({"how": how, "transport": "websocket", "code": code, "reason": reason, "wasClean": is_clean});
    json!([of("go", 4567, "as you like", true), of("drop", 1006, "", false), of("close", 1000, "enough", true)])
}

/// The frames of a connection, as they are.
async fn frames(client: Client, path: &str) {
    let path = format!("{path}__sockjs__/n=abcdefghijklmnopqr/000/0a1b2c3d/websocket");
    let mut socket = Socket::open(client, &path, &[]).await;
    assert!(!socket.head.fields.has("sec-websocket-protocol"), "{:?}", socket.head);
    assert_eq!(socket.client.frame().await, Some(Frame::text("o")));
    socket.send(&Frame::text("[\"a1\",\"p\",\"k\"]")).await;
    for text in ["a1", "p", "k"] {
        assert_eq!(socket.client.frame().await, Some(Frame::text(&format!("a[\"{text}\"]"))), "one after the other");
    }
    socket.send(&Frame::close(1000)).await;
    let end = socket.client.frame().await.unwrap();
    assert_eq!((end.opcode, end.close_code()), (CLOSE, Some(1000)), "{end:?}");
}

#[test]
fn content_that_serves_sockjs_has_plain_websockets() {
    within(180, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let proxy = proxy_with(&[&a, &b], &Authority::new(), "").await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let app = Folder::new();
        app.write("app.js", std::fs::read(script("sockjs-app.js")).unwrap());
        app.write("package.json", "{\"name\": \"app\", \"main\": \"app.js\"}");
        app.write("package-lock.json", "{\"name\": \"app\", \"lockfileVersion\": 3, \"packages\": {}}");
        let packages = app.path("packages");
        std::fs::create_dir(&packages).unwrap();
        for name in PACKAGES {
            let copied = Command::new("cp").arg("-rL").args([tools::package(name), packages.join(name)]).status();
            assert!(copied.unwrap().success(), "{name}");
        }
        let told = publisher.runs(&["deploy", "nodejs"], &[app.root().to_str().unwrap()]).await.ok();
        let path = format!("/content/{}/", Publisher::guid(&told));
        open_to_all(&a, &Publisher::guid(&told), &key).await;
        for node in [&a, &b] {
            eventually("the app", async || (get_as(&node.address, &path, &[]).await.status == 200).then_some(())).await;
        }
        frames(Client::tcp(&a.address).await, &path).await;
        // By the proxy one node serves it all: who comes without a cookie would be anywhere.
        drop(b);
        proxy.until_health("n1", "down").await;
        let ca = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        // The connection above is one of those that ended.
        let restart = format!("/__api__/applications/{}/terminate", Publisher::guid(&told));
        let fields = [("authorization", &*format!("Key {key}"))];
        Client::tcp(&a.address).await.request("POST", &restart, &fields, b"").await;
        eventually("a new process", async || {
            let seen = get_as(&a.address, &path, &[]).await;
            (seen.status == 200 && seen.text() == "{\"ended\":0}").then_some(())
        })
        .await;
        let url = format!("{}{}", base(&proxy), path.trim_end_matches('/'));
        assert_eq!(talks(&url, &ca).await, expected());
    });
}

/// A server of its own, killed when dropped.
struct Server(Child, String);

impl Server {
    async fn start(folder: &Folder) -> Self {
        let said = folder.path("port");
        PACKAGES.iter().for_each(|name| drop(tools::package(name)));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(tools::tool("node"))
            .arg(script("sockjs-app.js"))
            .env("NODE_PATH", tools::top().join("node_modules"))
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let port = eventually("the server", async || folder.read("port").trim().parse::<u16>().ok()).await;
        Self(child, format!("127.0.0.1:{port}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_proxy_passes_the_websockets_of_any_sockjs_server() {
    within(120, async {
        let folder = Folder::new();
        let server = Server::start(&folder).await;
        let ca = Authority::new();
        let own = Folder::new();
        ca.pair(&["localhost"]).write(&own, "certs/localhost");
        own.write("ca.pem", ca.pem());
        // As for Shiny, with the script for its pages and pings.
        let config = format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"\n\
             [[pool]]\nname = \"app\"\npreset = \"shiny\"\nbackend = [{{ key = \"n0\", address = \"{}\" }}]\n\
             [[route]]\npool = \"app\"\n",
            server.1
        );
        let proxy = Proxy::start_in(own, &config).await;
        proxy.until_health("n0", "up").await;
        let trusted = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        assert_eq!(talks(&base(&proxy), &trusted).await, expected());
        frames(Client::tls(proxy.web(), &ca.trust("localhost")).await, "/").await;
    });
}
