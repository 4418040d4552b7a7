//! A real browser on real Shiny apps, over TLS: what a colleague with an open tab sees when a node dies.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::{Demo, Folder, eventually, get, tool, tools, within};

/// Promised from the death of a node until the tab is live elsewhere.
pub const BACK_WITHIN_MS: u64 = 3_000;

/// `tests/clients/browser.mjs`, told what to do a line at a time.
pub struct Browser {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// On a page of ours, with its session.
    pub async fn open(folder: &Folder, url: &str) -> Self {
        let mut browser = Self::start(folder);
        browser.ask(serde_json::json!({ "do": "open", "url": url })).await;
        browser
    }

    /// On any page.
    pub async fn open_at(folder: &Folder, url: &str) -> Self {
        let mut browser = Self::start(folder);
        browser.ask(serde_json::json!({ "do": "visit", "url": url, "wait": "load" })).await;
        browser
    }

    /// With no page yet; the folder is its own.
    pub fn start(folder: &Folder) -> Self {
        let chromium = tool("chromium");
        let mut child = Command::new(tools::node())
            .arg(tools::script("browser.mjs"))
            .args([chromium.as_os_str(), folder.root().as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout).lines() }
    }

    /// Has one thing done and returns what came of it.
    pub async fn ask(&mut self, what: serde_json::Value) -> serde_json::Value {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
        let line =
            self.stdout.next_line().await.unwrap().unwrap_or_else(|| panic!("the browser's driver ended at {what}"));
        let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(told["error"].is_null(), "{what}: {}", told["error"].as_str().unwrap_or_default());
        told
    }

    /// Closes the browser and waits for it.
    pub async fn close(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().await.unwrap().success());
    }
}

/// Interacts with the app, kills the process behind its websocket, and expects it live on another.
async fn survives(url: &str, nodes: &[u64]) {
    let folder = Folder::new();
    let upload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let file = folder.write("upload.bin", &upload);
    let mut browser = Browser::open(&folder, url).await;

    let greeting = browser.ask(serde_json::json!({ "do": "fill", "name": "Ada", "n": 42 })).await;
    assert_eq!(greeting["greeting"], "Hello, Ada: n = 42");
    let uploaded = browser.ask(serde_json::json!({ "do": "upload", "file": file })).await;
    let told = uploaded["upload_info"].as_str().unwrap();
    let sum = ring::digest::digest(&ring::digest::SHA256, &upload);
    let sum: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(told, format!("upload.bin: 3000000 bytes, sha256 {sum}"));
    let table = browser.ask(serde_json::json!({ "do": "download" })).await;
    assert_eq!((&table["name"], table["text"].as_str().unwrap().lines().count()), (&"data.csv".into(), 43));
    let cookies = browser.ask(serde_json::json!({ "do": "cookies" })).await;
    let cookies = cookies["cookies"].as_array().unwrap().clone();
    let cookie =
        cookies.iter().find(|c| c["name"].as_str().unwrap().starts_with("bowline_")).expect("an affinity cookie");
    assert_eq!(
        (&cookie["httpOnly"], &cookie["secure"], &cookie["sameSite"], &cookie["path"]),
        (&true.into(), &true.into(), &"Lax".into(), &"/".into())
    );

    let before = browser.ask(serde_json::json!({ "do": "who" })).await["pid"].as_u64().unwrap();
    assert!(nodes.contains(&before), "{before} is none of {nodes:?}");
    let killed = tokio::time::Instant::now();
    let pid = rustix::process::Pid::from_raw(before as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let after = browser.ask(serde_json::json!({ "do": "wait-for-other", "pid": before })).await;
    let took = killed.elapsed().as_millis() as u64;
    assert!(nodes.contains(&after["pid"].as_u64().unwrap()), "{after}");
    assert_eq!(after["greeting"], "Hello, Ada: n = 42", "inputs are as they were");
    assert_eq!(after["loads"], 1, "the page itself was not loaded again");
    assert!(took < BACK_WITHIN_MS, "{took} ms");
    println!("live again after {took} ms");

    let again = browser.ask(serde_json::json!({ "do": "fill", "name": "Grace", "n": 7 })).await;
    assert_eq!(again["greeting"], "Hello, Grace: n = 7", "it is live, not only drawn");
    let table = browser.ask(serde_json::json!({ "do": "download" })).await;
    assert_eq!(table["text"].as_str().unwrap().lines().count(), 8, "side requests go where the websocket is");
    browser.close().await;
}

async fn survives_in_demo(app: &str) {
    let demo = Demo::start().await;
    let nodes = demo.told["nodes"].as_array().unwrap().iter().filter(|n| n["app"].as_str().unwrap().contains(app));
    let nodes: Vec<u64> = nodes.map(|n| n["pid"].as_u64().unwrap()).collect();
    assert_eq!(nodes.len(), 2, "{}", demo.told);
    let content = demo.told["plain"].as_array().unwrap();
    let page = content.iter().find(|c| c["name"].as_str().unwrap().contains(app)).unwrap();
    // By name, so that the certificate is verified as a browser does.
    let url = page["url"].as_str().unwrap().replace("127.0.0.1", "localhost");
    survives(&url, &nodes).await;
}

#[test]
fn a_python_app_is_live_again_elsewhere_within_three_seconds_of_its_nodes_death() {
    within(300, survives_in_demo("python"));
}

#[test]
fn an_r_app_is_live_again_elsewhere_within_three_seconds_of_its_nodes_death() {
    within(300, survives_in_demo("-r"));
}

/// Death upon death: as soon as everybody is up again, whoever serves the tab is killed.
async fn survives_every_death(app: &str, deaths: usize) {
    let demo = Demo::start().await;
    let content = demo.told["plain"].as_array().unwrap();
    let page = content.iter().find(|c| c["name"].as_str().unwrap().contains(app)).unwrap();
    let folder = Folder::new();
    let mut browser = Browser::open(&folder, &page["url"].as_str().unwrap().replace("127.0.0.1", "localhost")).await;
    browser.ask(serde_json::json!({ "do": "fill", "name": "Ada", "n": 42 })).await;
    let mut slowest = 0;
    for death in 1..=deaths {
        eventually("everybody to be up", async || {
            let status = get(demo.admin(), "/status").await.json();
            let pools =
                status["pools"].as_array().unwrap().iter().filter(|p| p["name"].as_str().unwrap().contains(app));
            let mut backends = pools.flat_map(|p| p["backends"].as_array().unwrap());
            backends.all(|b| b["health"] == "up").then_some(())
        })
        .await;
        let before = browser.ask(serde_json::json!({ "do": "who" })).await["pid"].as_u64().unwrap();
        let killed = tokio::time::Instant::now();
        let pid = rustix::process::Pid::from_raw(before as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let after = browser.ask(serde_json::json!({ "do": "wait-for-other", "pid": before })).await;
        let took = killed.elapsed().as_millis() as u64;
        assert_eq!((&after["greeting"], &after["loads"]), (&"Hello, Ada: n = 42".into(), &1.into()), "death {death}");
        assert!(took < BACK_WITHIN_MS, "death {death}: {took} ms");
        slowest = slowest.max(took);
    }
    println!("{deaths} deaths, live again after {slowest} ms at the latest");
    browser.close().await;
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn a_python_app_survives_thirty_deaths_in_a_row() {
    within(900, survives_every_death("python", 30));
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn an_r_app_survives_thirty_deaths_in_a_row() {
    within(900, survives_every_death("-r", 30));
}

#[test]
fn the_driver_works_an_app_without_any_proxy() {
    within(120, async {
        let folder = Folder::new();
        let app = tools::top().join("src/cli/demo/apps/shiny-python");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut shiny = Command::new(tool("python3"))
            .args(["-m", "shiny", "run", "--port", &port.to_string(), "app.py"])
            .current_dir(app)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        eventually("the app", async || {
            let mut client = crate::harness::Client::try_tcp(&address).await.ok()?;
            client.try_request("GET", "/", &[]).await.filter(|r| r.status == 200)
        })
        .await;
        let mut browser = Browser::open(&folder, &format!("http://{address}/")).await;
        let greeting = browser.ask(serde_json::json!({ "do": "fill", "name": "Ada", "n": 42 })).await;
        assert_eq!(greeting["greeting"], "Hello, Ada: n = 42");
        let who = browser.ask(serde_json::json!({ "do": "who" })).await;
        assert_eq!(who["pid"].as_u64(), shiny.id().map(u64::from));
        let file = folder.write("upload.bin", "abc");
        let uploaded = browser.ask(serde_json::json!({ "do": "upload", "file": file })).await;
        assert!(
            uploaded["upload_info"].as_str().unwrap().starts_with("upload.bin: 3 bytes, sha256 ba7816bf"),
            "{uploaded}"
        );
        let table = browser.ask(serde_json::json!({ "do": "download" })).await;
        assert_eq!(table["text"].as_str().unwrap().lines().count(), 43);
        browser.close().await;
        shiny.kill().await.unwrap();
    });
}
