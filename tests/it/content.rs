//! Publishing with rsconnect-python and opening what was published, through the TLS proxy before two nodes.

use serde_json::Value;

use crate::browser::{BACK_WITHIN_MS, Browser};
use crate::harness::tools::client;
use crate::harness::{Authority, Folder, Metrics, Node, Output, Postgres, Proxy, eventually, get_as, run, within};
use crate::packages::{base, proxy, proxy_with};

/// rsconnect-python with a home of its own.
pub struct Publisher {
    url: String,
    ca: String,
    pub key: String,
    home: Folder,
}

impl Publisher {
    pub fn new(proxy: &Proxy, key: String) -> Self {
        let ca = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        Self { url: base(proxy), ca, key, home: Folder::new() }
    }

    /// By another way to the proxy.
    pub fn by(self, url: String) -> Self {
        Self { url, ..self }
    }

    /// `rsconnect ARGUMENTS -s URL -k KEY -c CA REST`.
    pub async fn runs(&self, arguments: &[&str], rest: &[&str]) -> Output {
        let program = client("rsconnect", "rsconnect");
        let home = format!("HOME={}", self.home.root().display());
        let own = ["-s", &self.url, "-k", &self.key, "-c", &self.ca];
        let all = [&[&home, "NO_COLOR=1", program.to_str().unwrap()][..], arguments, &own, rest].concat();
        run("/usr/bin/env".as_ref(), &all, "").await
    }

    /// The guid of what a deployment made.
    pub fn guid(told: &Output) -> String {
        let all = format!("{}{}", told.stdout, told.stderr);
        let at = all.find("/content/").unwrap_or_else(|| panic!("no content in: {all}"));
        all[at + "/content/".len()..][..36].to_owned()
    }
}

/// Everybody may see it.
pub async fn open_to_all(node: &Node, guid: &str, key: &str) {
    let mut client = crate::harness::Client::tcp(&node.address).await;
    let fields = [("authorization", &*format!("Key {key}")), ("content-type", "application/json")];
    let path = format!("/__api__/v1/content/{guid}");
    let answer = client.request("PATCH", &path, &fields, b"{\"access_type\": \"all\"}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn page(proxy: &Proxy, path: &str, key: Option<&str>) -> crate::harness::Response {
    let mut fields = vec![("host", "localhost"), ("accept", "text/html")];
    let authorization = key.map(|key| format!("Key {key}"));
    if let Some(value) = &authorization {
        fields.push(("authorization", value));
    }
    proxy.get_as(path, &fields).await
}

#[test]
fn pages_are_published_and_seen_by_who_may() {
    within(120, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let site = Folder::new();
        site.write("index.html", "<h1>first</h1><link href=css/a.css rel=stylesheet>");
        site.write("css/a.css", "h1 {}");
        let root = site.root().to_str().unwrap();
        let told = publisher.runs(&["deploy", "html"], &["--title", "My site", root]).await.ok();
        let guid = Publisher::guid(&told);
        let (path, key) = (format!("/content/{guid}/"), publisher.key.clone());
        for node in [&a, &b] {
            let fields = [("authorization", &*format!("Key {key}"))];
            eventually("the page", async || {
                let seen = get_as(&node.address, &path, &fields).await;
                (seen.status == 200 && seen.text().contains("first")).then_some(())
            })
            .await;
            let style = get_as(&node.address, &format!("{path}css/a.css"), &fields).await;
            assert_eq!((style.status, style.fields.get("content-type")), (200, Some("text/css")));
            assert_eq!(get_as(&node.address, &format!("{path}manifest.json"), &fields).await.status, 404);
            assert_eq!(get_as(&node.address, &format!("{path}%6Danifest.json"), &fields).await.status, 404);
            let moved = get_as(&node.address, &format!("{path}css"), &fields).await;
            assert_eq!(moved.fields.get("location"), Some(&*format!("{path}css/")), "below the content");
            let etag = style.fields.get("etag").unwrap();
            let again = [fields[0], ("if-none-match", etag)];
            assert_eq!(get_as(&node.address, &format!("{path}css/a.css"), &again).await.status, 304);
            assert_eq!(get_as(&node.address, &format!("{path}..%2f..%2fetc/passwd"), &fields).await.status, 404);
            assert_eq!(get_as(&node.address, &path, &[]).await.status, 401, "nobody said that everybody may see it");
        }
        let _ = page(&proxy, &path, Some(&key)).await;
        let described = publisher.runs(&["content", "describe"], &["--guid", &guid]).await.ok();
        let told: Value = serde_json::from_str(&described.stdout).unwrap();
        assert_eq!((&told[0]["title"], &told[0]["app_mode"]), (&"My site".into(), &"static".into()));
    });
}

/// The wheels that content of the tests requires, of one of the folders that `.ci/setup` fills.
pub fn wheels(folder: &str) -> Vec<String> {
    let folder = crate::harness::tools::top().join(".venv-clients").join(folder);
    let found: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.path().to_str().map(str::to_owned))
        .filter(|name| name.ends_with(".whl"))
        .collect();
    assert!(!found.is_empty(), "this test needs {}: `make test` and `make test-all` fetch it", folder.display());
    found
}

/// Two nodes that run content, with a repository of what it requires.
pub async fn two_nodes(more: &str) -> (Node, Node) {
    two_nodes_with("wheels", more).await
}

/// The same with the wheels of another folder.
pub async fn two_nodes_with(folder: &str, more: &str) -> (Node, Node) {
    let uv = crate::harness::tool("uv");
    let a = Node::start("a", &format!("{more}[content]\nuv = \"{}\"\n", uv.display())).await;
    let b = a.beside("b").await;
    a.command(&["repo", "create", "pypi"]).await;
    let files = wheels(folder);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for some in files.chunks(20) {
        a.command(&[&["add", "pypi"][..], some].concat()).await;
    }
    (a, b)
}

#[test]
fn an_api_runs_in_an_environment_of_its_own_on_every_node() {
    within(180, async {
        let (a, b) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        app.write(
            "app.py",
            "import os, socket\nfrom fastapi import FastAPI, Request\napp = FastAPI()\n\
             @app.get('/')\ndef root(request: Request):\n    \
             return {'colour': os.environ.get('COLOUR'), 'user': request.headers.get('shiny-server-credentials'), \
             'key': request.headers.get('authorization'), 'path': request.scope['root_path'], 'uid': os.getuid()}\n\
             @app.get('/crash')\ndef crash():\n    os._exit(3)\n",
        );
        app.write("requirements.txt", "fastapi\n");
        let root = app.root().to_str().unwrap();
        let told = publisher.runs(&["deploy", "fastapi"], &["-E", "COLOUR=blue", root]).await.ok();
        let guid = Publisher::guid(&told);
        let key = format!("Key {}", publisher.key);
        for node in [&a, &b] {
            let path = format!("/content/{guid}/");
            let seen = eventually("the API", async || {
                let seen = get_as(&node.address, &path, &[("authorization", &key)]).await;
                (seen.status == 200).then_some(seen)
            })
            .await
            .json();
            assert_eq!(seen["colour"], "blue", "{seen}");
            assert_eq!(seen["user"], Value::Null, "a program's key is nobody's name");
            assert_eq!((&seen["key"], &seen["path"]), (&Value::Null, &format!("/content/{guid}").into()));
            assert_ne!(seen["uid"], 0);
        }
        // What a process of the one node says the other one tells too, and ends it.
        let jobs = format!("/__api__/v1/content/{guid}/jobs");
        let fields = [("authorization", key.as_str())];
        let job = eventually("the log of a's process", async || {
            let all = get_as(&b.address, &jobs, &fields).await.json();
            let running =
                |job: &&Value| job["tag"] == "run_fastapi_app" && job["hostname"] == "a" && job["status"] == 0;
            let path = format!("{jobs}/{}", all.as_array()?.iter().find(running)?["key"].as_str()?);
            let log = get_as(&b.address, &format!("{path}/log"), &fields).await.text();
            log.contains("Uvicorn running").then_some(path)
        })
        .await;
        let mut client = crate::harness::Client::tcp(&b.address).await;
        assert_eq!(client.request("DELETE", &job, &fields, b"").await.status, 202);
        let ended = eventually("its end", async || {
            let job = get_as(&b.address, &job, &fields).await.json();
            (job["status"] == 2).then_some(job)
        })
        .await;
        assert!(ended["end_time"].is_string(), "{ended}");

        // What was ended is none that crashed; one that crashes is.
        let metrics = async |node: &Node| Metrics::parse(get_as(&node.address, "/metrics", &[]).await.text());
        let crashed =
            async || metrics(&a).await.strict().value("bowline_node_worker_failures_total", &[("reason", "crashed")]);
        assert_eq!(crashed().await, 0.0);
        let gone = get_as(&a.address, &format!("/content/{guid}/"), &fields).await;
        assert_eq!(gone.status, 200, "another process is begun: {}", gone.text());
        assert_eq!(get_as(&a.address, &format!("/content/{guid}/crash"), &fields).await.status, 502);
        eventually("the crash to be counted", async || (crashed().await == 1.0).then_some(())).await;

        // A bundle that does not start takes nobody's place, and says why.
        app.write("app.py", "raise RuntimeError('no luck today')\n");
        let broken = publisher.runs(&["deploy", "fastapi"], &["--app-id", &guid, root]).await;
        let words = format!("{}{}", broken.stdout, broken.stderr);
        assert!(broken.code != Some(0) && words.contains("no luck today"), "{words}");
        let (one, other) = (metrics(&a).await, metrics(&b).await);
        let both = |name: &str, labels: &[(&str, &str)]| one.sum(name, labels) + other.sum(name, labels);
        // A client deploys twice: a draft, which it looks at, then the same for all.
        let deployed = |state| both("bowline_node_jobs_total", &[("kind", "deploy"), ("state", state)]);
        assert_eq!((deployed("done"), deployed("failed")), (2.0, 1.0), "{}\n{}", one.text, other.text);
        assert_eq!(both("bowline_node_job_duration_seconds_count", &[("kind", "deploy")]), 3.0);
        let python = [("language", "python")];
        let made = both("bowline_node_environment_builds_total", &[python[0], ("outcome", "made")]);
        assert!(
            made >= 1.0 && both("bowline_node_environment_build_duration_seconds_count", &python) == made,
            "{made}"
        );
        assert!(both("bowline_node_environment_cache_hits_total", &python) >= 1.0);
        assert!(both("bowline_node_worker_starts_total", &[("outcome", "ready")]) >= 3.0);
        let waiting = one.value("bowline_node_jobs_waiting", &[("kind", "deploy")]);
        assert_eq!((waiting, one.value("bowline_node_jobs_waiting_age_seconds", &[])), (0.0, 0.0));
        let seen = get_as(&a.address, &format!("/content/{guid}/"), &[("authorization", &key)]).await;
        assert_eq!(seen.status, 200, "{}", seen.text());
    });
}

/// An app of ours that says which of its processes answers, by a number of that process's own.
pub fn shiny_app(folder: &Folder) {
    let app = crate::harness::tools::top().join("src/cli/demo/apps/shiny-python/app.py");
    let text = std::fs::read_to_string(app).unwrap();
    let (own, number) = ("os.getpid()", "INSTANCE");
    assert!(text.contains(own));
    let text = text.replace(own, number).replace("NODE = ", "INSTANCE = int.from_bytes(os.urandom(3), 'big')\nNODE = ");
    folder.write("app.py", text);
    folder.write("requirements.txt", "shiny\n");
}

#[test]
fn a_shiny_app_is_used_in_a_browser_and_comes_back_from_its_nodes_death() {
    within(300, async {
        let database = Postgres::start();
        let (a, b) = two_nodes(&format!("[database]\nurl = \"{}\"\n", database.url())).await;
        let ca = Authority::new();
        let mut nodes = [a, b];
        let proxy = proxy_with(&nodes.iter().collect::<Vec<_>>(), &ca, "").await;
        let key = nodes[0].command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        shiny_app(&app);
        let told = publisher.runs(&["deploy", "shiny"], &[app.root().to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        open_to_all(&nodes[0], &guid, &publisher.key).await;
        for node in &nodes {
            eventually("the page on both nodes", async || {
                (get_as(&node.address, &format!("/content/{guid}/"), &[]).await.status == 200).then_some(())
            })
            .await;
        }

        let folder = Folder::new();
        let url = format!("{}/content/{guid}/", base(&proxy));
        let mut browser = Browser::open(&folder, &url).await;
        let greeting = browser.ask(serde_json::json!({ "do": "fill", "name": "Ada", "n": 42 })).await;
        assert_eq!(greeting["greeting"], "Hello, Ada: n = 42");
        let file = folder.write("upload.bin", vec![7; 3_000_000]);
        let uploaded = browser.ask(serde_json::json!({ "do": "upload", "file": file })).await;
        assert!(uploaded["upload_info"].as_str().unwrap().starts_with("upload.bin: 3000000 bytes"), "{uploaded}");
        let table = browser.ask(serde_json::json!({ "do": "download" })).await;
        assert_eq!(table["text"].as_str().unwrap().lines().count(), 43, "the session's own process answers");

        let before = browser.ask(serde_json::json!({ "do": "who" })).await["pid"].as_u64().unwrap();
        let sessions = proxy.sessions().await;
        let bound = sessions.iter().find(|session| session["kind"] == "websocket").unwrap()["backend"].clone();
        let at = usize::from(bound == "n1");
        let killed = tokio::time::Instant::now();
        nodes[at].kill().await;
        let after = browser.ask(serde_json::json!({ "do": "wait-for-other", "pid": before })).await;
        let took = killed.elapsed().as_millis() as u64;
        assert_eq!((&after["greeting"], &after["loads"]), (&"Hello, Ada: n = 42".into(), &1.into()));
        assert!(took < BACK_WITHIN_MS, "{took} ms");
        browser.close().await;
    });
}

/// What content of ill will tries, and whether it worked.
const HOSTILE: &str = r#"
import glob, os, socket, subprocess
from fastapi import FastAPI
app = FastAPI()

def tried(what):
    try:
        return bool(what())
    except Exception:
        return False

def reached(address):
    with socket.create_connection(address, 2):
        return True

@app.get('/')
def root():
    folder, node, other = os.environ['FOLDER'], int(os.environ['NODE']), os.environ['OTHER']
    said = {
        'key': lambda: open(folder + '/node.key').read(),
        'database': lambda: open(folder + '/data/bowline.db', 'rb').read(1) or os.listdir(folder),
        'folder': lambda: os.listdir(folder),
        'passwords': lambda: open('/etc/shadow').read(),
        'node': lambda: reached(('127.0.0.1', node)),
        'network': lambda: reached(('192.0.2.1', 80)),
        'others': lambda: [p for p in glob.glob('/proc/[0-9]*/cmdline') if b'bowline\0node' in open(p, 'rb').read()],
        'environments': lambda: [p for p in glob.glob('/proc/[0-9]*/environ') if b'CARGO' in open(p, 'rb').read()],
        'own code': lambda: open('/app/app.py', 'a').write('#'),
        'own environment': lambda: open('/env/venv/x', 'w').write('#'),
        'system': lambda: open('/usr/x', 'w').write('#'),
        'sockets': lambda: glob.glob('/tmp/bowline-*') or os.path.exists(other),
        'mounts': lambda: subprocess.run(['unshare', '-Urm', 'true'], stderr=subprocess.DEVNULL).returncode == 0,
        'root': lambda: os.getuid() == 0 or (os.setuid(0) or os.getuid() == 0),
    }
    return {name: tried(what) for name, what in said.items()}
"#;

#[test]
fn content_of_ill_will_gets_at_nothing() {
    within(180, async {
        let (a, b) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        app.write("app.py", HOSTILE);
        app.write("requirements.txt", "fastapi\n");
        let (folder, port) = (a.folder.root().to_str().unwrap(), a.address.rsplit(':').next().unwrap());
        let other = a.folder.path("data/cache").to_str().unwrap().to_owned();
        let [folder, port, other] = [format!("FOLDER={folder}"), format!("NODE={port}"), format!("OTHER={other}")];
        let set = ["-E", &folder, "-E", &port, "-E", &other, app.root().to_str().unwrap()];
        let told = publisher.runs(&["deploy", "fastapi"], &set).await.ok();
        let path = format!("/content/{}/", Publisher::guid(&told));
        let authorization = format!("Key {}", publisher.key);
        let seen = eventually("its report", async || {
            let seen = get_as(&a.address, &path, &[("authorization", &authorization)]).await;
            (seen.status == 200).then_some(seen)
        })
        .await
        .json();
        let worked: Vec<_> = seen.as_object().unwrap().iter().filter(|(_, worked)| **worked == true).collect();
        assert!(worked.is_empty() && seen.as_object().unwrap().len() == 14, "{seen}");
        // Somebody else's program gets nothing of it: neither value is told, only names.
        let names =
            get_as(&a.address, &format!("/__api__/v1{path}environment"), &[("authorization", &authorization)]).await;
        assert_eq!(names.json(), serde_json::json!(["FOLDER", "NODE", "OTHER"]));
        let rows = ["data/bowline.db", "data/bowline.db-wal"].map(|name| std::fs::read(a.folder.path(name)).unwrap());
        let written = |text: &str| rows.iter().any(|row| row.windows(text.len()).any(|w| w == text.as_bytes()));
        assert!(written("FOLDER") && !written(&other["OTHER=".len()..]), "values are sealed");
    });
}

#[test]
fn what_is_no_bundle_is_refused_in_the_clients_own_words() {
    within(60, async {
        let a = Node::start("a", "[content]\nbundle_bytes_max = \"100KiB\"\nunpacked_bytes_max = \"1MiB\"\n").await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let authorization = format!("Key {key}");
        let ask = async |method: &str, path: &str, body: &[u8]| {
            let mut client = crate::harness::Client::tcp(&a.address).await;
            let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
            client.request(method, &format!("/__api__/v1/content{path}"), &fields, body).await
        };
        for (body, words) in [
            (&b"{}"[..], "needs a `name`"),
            (b"{\"name\": \"a/b\"}", "no name of content"),
            (b"{\"name\": \"x\", \"access_type\": \"some\"}", "no `access_type`"),
            (b"{\"name\": \"x\", \"max_processes\": 1000}", "`max_processes` is 1 to"),
            (b"no json", "JSON"),
        ] {
            let refused = ask("POST", "", body).await;
            assert!((400..500).contains(&refused.status) && refused.text().contains(words), "{}", refused.text());
        }
        let made = ask("POST", "", b"{\"name\": \"x\"}").await.json();
        let guid = made["guid"].as_str().unwrap();
        assert_eq!(ask("POST", "", b"{\"name\": \"x\"}").await.status, 409);
        for (body, status, words) in [
            (vec![b'x'; 200], 400, "no .tar.gz"),
            (Vec::new(), 400, "no .tar.gz"),
            (vec![0x1f; 200_000], 413, "larger than the 102400 bytes"),
        ] {
            let refused = ask("POST", &format!("/{guid}/bundles"), &body).await;
            assert!(
                refused.status == status && refused.text().contains(words),
                "{} {}",
                refused.status,
                refused.text()
            );
        }
        assert_eq!(ask("POST", &format!("/{guid}/deploy"), b"{}").await.status, 400, "nothing was uploaded");
        assert_eq!(ask("POST", &format!("/{guid}/deploy"), b"{\"bundle_id\": \"7\"}").await.status, 404);
        assert_eq!(ask("GET", "/not-there", b"").await.status, 404);
        for folder in ["data/blobs/sha256", "data/blobs/incoming"] {
            assert_eq!(std::fs::read_dir(a.folder.path(folder)).unwrap().count(), 0, "nothing is kept in {folder}");
        }
        let strange =
            ask("PATCH", &format!("/{guid}/environment"), b"[{\"name\": \"LD_PRELOAD\", \"value\": \"x\"}]").await;
        assert!(strange.status == 400 && strange.text().contains("set by the server itself"), "{}", strange.text());
        assert_eq!(ask("DELETE", &format!("/{guid}"), b"").await.status, 204);
        assert_eq!(ask("GET", &format!("/{guid}"), b"").await.status, 404);
    });
}

#[test]
fn a_wsgi_app_knows_its_prefix_and_an_older_bundle_runs_again() {
    within(180, async {
        let (a, _) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        let write = |word: &str| {
            app.write(
                "app.py",
                format!(
                    "from flask import Flask, redirect, url_for, request\napp = Flask(__name__)\n\
                     @app.get('/')\ndef root():\n    return '{word} ' + url_for('other')\n\
                     @app.get('/other')\ndef other():\n    return request.url\n\
                     @app.post('/echo')\ndef echo():\n    return request.get_data()\n\
                     @app.get('/away')\ndef away():\n    return redirect(url_for('other'))\n"
                ),
            )
        };
        app.write("requirements.txt", "flask\n");
        let root = app.root().to_str().unwrap();
        write("one");
        let told = publisher.runs(&["deploy", "api"], &[root]).await.ok();
        let guid = Publisher::guid(&told);
        let path = format!("/content/{guid}/");
        let authorization = format!("Key {}", publisher.key);
        let fields = [("authorization", authorization.as_str()), ("host", "localhost")];
        let says = async |word: &str| {
            let words = format!("{word} {path}other");
            eventually("the page", async || {
                let seen = get_as(&a.address, &path, &fields).await;
                (seen.status == 200 && seen.text() == words).then_some(())
            })
            .await;
        };
        says("one").await;
        assert_eq!(
            get_as(&a.address, &format!("{path}other"), &fields).await.text(),
            format!("http://localhost{path}other")
        );
        let away = get_as(&a.address, &format!("{path}away"), &fields).await;
        assert_eq!((away.status, away.fields.get("location")), (302, Some(&*format!("{path}other"))));
        let mut client = crate::harness::Client::tcp(&a.address).await;
        let body = vec![b'x'; 300_000];
        let echo = client.request("POST", &format!("{path}echo"), &fields, &body).await;
        assert!(echo.status == 200 && echo.body == body, "{}", echo.status);

        write("two");
        publisher.runs(&["deploy", "api"], &["--app-id", &guid, root]).await.ok();
        says("two").await;
        let bundles = get_as(&a.address, &format!("/__api__/v1/content/{guid}/bundles"), &fields).await.json();
        let first = bundles.as_array().unwrap().iter().find(|bundle| bundle["active"] == false).unwrap();
        let id = first["id"].as_str().unwrap();
        let order = format!("{{\"bundle_id\": \"{id}\"}}");
        let json = [fields[0], fields[1], ("content-type", "application/json")];
        let at = format!("/__api__/v1/content/{guid}");
        let begun = client.request("POST", &format!("{at}/deploy"), &json, order.as_bytes()).await;
        let task = begun.json()["task_id"].as_str().unwrap().to_owned();
        let ended = get_as(&a.address, &format!("/__api__/v1/tasks/{task}?wait=30"), &fields).await.json();
        assert_eq!((&ended["finished"], &ended["code"]), (&true.into(), &0.into()), "{ended}");
        says("one").await;
        let whole = get_as(&a.address, &format!("{at}/bundles/{id}/download"), &fields).await;
        assert_eq!((whole.status, &whole.body[..2]), (200, &[0x1f, 0x8b][..]));
        assert_eq!(client.request("DELETE", &format!("{at}/bundles/{id}"), &fields, b"").await.status, 409, "it runs");
    });
}

#[test]
fn sessions_finish_on_a_node_that_leaves_and_new_settings_begin_a_new_process() {
    within(180, async {
        let (mut a, _) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        app.write(
            "app.py",
            "import os\nfrom contextlib import asynccontextmanager\nfrom fastapi import FastAPI, WebSocket\n\
             @asynccontextmanager\nasync def life(app):\n    yield\n    print('goodbye', flush=True)\n\
             app = FastAPI(lifespan=life)\nME = os.urandom(8).hex()\n\
             @app.get('/')\ndef root():\n    return ME\n\
             @app.websocket('/ws')\nasync def ws(socket: WebSocket):\n    await socket.accept()\n    while True:\n        \
             await socket.send_text(await socket.receive_text())\n",
        );
        app.write("requirements.txt", "fastapi\n");
        let told = publisher.runs(&["deploy", "fastapi"], &[app.root().to_str().unwrap()]).await.ok();
        let path = format!("/content/{}/", Publisher::guid(&told));
        let authorization = format!("Key {}", publisher.key);
        let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let who = async || {
            let seen = get_as(&a.address, &path, &fields).await;
            (seen.status == 200).then(|| seen.text())
        };
        let first = eventually("the API", who).await;
        let mut client = crate::harness::Client::tcp(&a.address).await;
        let settings = format!("/__api__/v1{}", path.trim_end_matches('/'));
        let set = client.request("PATCH", &settings, &fields, b"{\"idle_timeout\": 1}").await;
        assert_eq!(set.status, 200, "{}", set.text());
        // Set up anew, and then nobody asks for longer than that.
        let second = eventually("another process", async || who().await.filter(|now| *now != first)).await;
        let workers = async || {
            let text = get_as(&a.address, "/metrics", &[]).await.text();
            let line = text.lines().find(|line| line.starts_with("bowline_node_workers ")).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        eventually("the end of those nobody uses", async || (workers().await == 0).then_some(())).await;
        // They were asked to end first.
        eventually("their last words", async || {
            let jobs = get_as(&a.address, &format!("{settings}/jobs"), &fields).await.json();
            for job in jobs.as_array()? {
                let log = format!("{settings}/jobs/{}/log", job["key"].as_str()?);
                if get_as(&a.address, &log, &fields).await.text().contains("\"goodbye\"") {
                    assert_ne!(job["status"], 0, "{job}");
                    return Some(());
                }
            }
            None
        })
        .await;
        assert_ne!(who().await, Some(second));

        // As many as are asked for, and no more.
        let open = async || {
            let client = crate::harness::Client::tcp(&a.address).await;
            crate::harness::Socket::try_open(client, &format!("{path}ws"), &fields[..1]).await
        };
        let few = b"{\"max_conns_per_process\": 1, \"max_processes\": 2, \"idle_timeout\": 60}";
        assert_eq!(client.request("PATCH", &settings, &fields, few).await.status, 200);
        let mut socket = eventually("the new settings", async || open().await.ok()).await;
        socket.echo("one").await;
        let mut other = open().await.unwrap();
        other.echo("another").await;
        eventually("two processes", async || (workers().await == 2).then_some(())).await;
        let full = open().await.err().unwrap();
        assert!(full.contains("503"), "{full}");
        drop(other);
        let mut third = eventually("room again", async || open().await.ok()).await;
        third.echo("third").await;
        drop(third);

        a.signal(rustix::process::Signal::TERM);
        // That the third has gone is noticed a moment later.
        eventually("the word that it leaves, with one", async || {
            let ping = get_as(&a.address, "/__ping__", &[]).await;
            let told = (ping.status, ping.fields.get("bowline-leaving"));
            (told == (503, Some("1")) && ping.text() == "leaving, with 1 sessions\n").then_some(())
        })
        .await;
        let page = [fields[0], ("accept", "text/html")];
        let away = get_as(&a.address, &path, &page).await;
        assert_eq!((away.status, away.fields.has("bowline-leaving")), (503, true), "a page would begin a session");
        socket.echo("two").await;
        assert_eq!(get_as(&a.address, &path, &fields).await.status, 200, "who it has is served");
        drop(socket);
        assert!(a.exit().await.success());
    });
}

#[test]
fn a_socket_that_content_puts_in_the_place_of_its_own_is_followed_nowhere() {
    within(180, async {
        let (a, _) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let target = a.folder.path("target.sock");
        let listener = std::os::unix::net::UnixListener::bind(&target).unwrap();
        listener.set_nonblocking(true).unwrap();
        let app = Folder::new();
        app.write(
            "app.py",
            "import os, time\nfrom fastapi import FastAPI\napp = FastAPI()\n\
             @app.get('/')\ndef root():\n    time.sleep(0.2)\n    return 'here'\n\
             @app.get('/swap')\ndef swap():\n    os.rename('/run/worker/http', '/run/worker/own')\n    \
             os.symlink(os.environ['TARGET'], '/run/worker/http')\n    return 'swapped'\n",
        );
        app.write("requirements.txt", "fastapi\n");
        let to = format!("TARGET={}", target.display());
        let told = publisher.runs(&["deploy", "fastapi"], &["-E", &to, app.root().to_str().unwrap()]).await.ok();
        let path = format!("/content/{}/", Publisher::guid(&told));
        let authorization = format!("Key {}", publisher.key);
        let fields = [("authorization", authorization.as_str())];
        eventually("the swap", async || {
            (get_as(&a.address, &format!("{path}swap"), &fields).await.status == 200).then_some(())
        })
        .await;
        // Many at once need connections that are not there yet.
        let asked = (0..8).map(async |_| get_as(&a.address, &path, &fields).await.status);
        let statuses = futures_util::future::join_all(asked).await;
        assert!(statuses.contains(&502), "{statuses:?}");
        let reached = listener.accept().map(drop).map_err(|e| e.kind());
        assert_eq!(reached, Err(std::io::ErrorKind::WouldBlock), "nobody was asked there");
    });
}

#[test]
fn the_first_administrator_is_made_by_who_has_the_bootstrap_key() {
    within(60, async {
        let folder = Folder::new();
        let text = run(&crate::harness::tool("openssl"), &["rand", "-base64", "32"], "").await.ok().stdout;
        let key = folder.write("bootstrap.key", &text);
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let other = run(&crate::harness::tool("openssl"), &["rand", "-base64", "32"], "").await.ok().stdout;
        let other = folder.write("other.key", other);
        let a = Node::start("a", &format!("[auth]\nbootstrap_key_file = \"{}\"\n", key.display())).await;
        let program = client("rsconnect", "rsconnect");
        let url = format!("http://{}", a.address);
        let home = format!("HOME={}", folder.root().display());
        let bootstraps = async |key: &std::path::Path| {
            let told = [
                &home,
                program.to_str().unwrap(),
                "bootstrap",
                "--server",
                &url,
                "--jwt-keypath",
                key.to_str().unwrap(),
            ];
            run("/usr/bin/env".as_ref(), &told, "").await
        };
        let refused = bootstraps(&other).await;
        assert!(refused.stdout.contains("401"), "{refused:?}");
        let made: Value = serde_json::from_str(&bootstraps(&key).await.ok().stdout).unwrap();
        assert_eq!(made["status"], 200, "{made}");
        let authorization = format!("Key {}", made["api_key"].as_str().unwrap());
        let user = get_as(&a.address, "/__api__/v1/user", &[("authorization", &authorization)]).await.json();
        assert_eq!((&user["username"], &user["user_role"]), (&"admin".into(), &"administrator".into()));
        let again = bootstraps(&key).await;
        assert!(again.stdout.contains("403"), "once: {again:?}");
    });
}
