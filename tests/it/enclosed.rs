//! What content cannot get out of, and what it is let out to: the network, its neighbours, its secrets.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::content::{Publisher, two_nodes};
use crate::harness::{Authority, Client, Folder, Node, Response, bowline, eventually, eventually_in, get_as, within};
use crate::packages::proxy;

/// An app that does what it is asked.
const OBEDIENT: &str = r#"
import os, socket, subprocess, sys
from fastapi import FastAPI
app = FastAPI()

@app.get('/')
def root():
    return {'uid': os.getuid(), 'secret': os.environ.get('SECRET')}

@app.get('/reach')
def reach(host: str, port: int, device: str = ''):
    with socket.socket() as s:
        s.settimeout(3)
        try:
            if device:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            s.connect((host, port))
            return {'reached': True}
        except OSError as error:
            return {'reached': False, 'why': str(error)}

@app.get('/route')
def route():
    tried = [['ip', 'route', 'del', 'prohibit', '169.254.0.0/16'], ['ip', 'route', 'flush', 'table', 'main']]
    return {'changed': [t for t in tried if subprocess.run(t, stderr=subprocess.DEVNULL).returncode == 0]}

@app.get('/bomb')
def bomb():
    begun = []
    try:
        while len(begun) < 3000:
            begun.append(os.posix_spawn('/bin/sleep', ['sleep', '300'], {}))
    except OSError:
        pass
    return {'begun': len(begun)}

@app.get('/write')
def write(path: str):
    try:
        with open(path, 'a') as f:
            f.write('x')
        return {'wrote': os.stat(path).st_uid, 'gid': os.stat(path).st_gid, 'groups': os.getgroups()}
    except OSError as error:
        return {'why': str(error)}

@app.get('/eat')
def eat(many: int):
    # Who is to be ended first is for a process to say.
    each = 'open("/proc/self/oom_score_adj", "w").write("1000"); all = bytearray(30 << 20); print(1, flush=True); input()'
    begun = [subprocess.Popen([sys.executable, '-c', each], stdin=-1, stdout=-1) for _ in range(many)]
    for one in begun:
        one.stdout.readline()
    ended = [one.poll() for one in begun]
    for one in begun:
        one.kill()
        one.wait()
    return {'ended': ended.count(-9), 'lived': ended.count(None)}

@app.get('/fill')
def fill():
    written = 0
    try:
        with open('/run/worker/x', 'wb') as f:
            while written < 64 << 20:
                written += f.write(b'x' * 65536)
                f.flush()
    except OSError:
        pass
    return {'written': written}
"#;

/// Content that was published, on one node.
struct App<'a> {
    node: &'a Node,
    path: String,
    key: String,
}

impl App<'_> {
    async fn get(&self, what: &str) -> Response {
        get_as(&self.node.address, &format!("{}{what}", self.path), &[("authorization", &*self.key)]).await
    }

    /// Its answer, once it has one.
    async fn asks(&self, what: &str) -> Value {
        let answer = eventually("an answer", async || {
            let answer = self.get(what).await;
            (answer.status == 200).then_some(answer)
        });
        answer.await.json()
    }

    async fn reaches(&self, host: &str, port: &str, device: &str) -> bool {
        let told = self.asks(&format!("reach?host={host}&port={port}&device={device}")).await;
        told["reached"].as_bool().unwrap()
    }

    async fn is_set(&self, to: Value) -> Response {
        let path = format!("/__api__/v1{}", self.path.trim_end_matches('/'));
        let fields = [("authorization", &*self.key), ("content-type", "application/json")];
        Client::tcp(&self.node.address).await.request("PATCH", &path, &fields, to.to_string().as_bytes()).await
    }
}

async fn published<'a>(publisher: &Publisher, node: &'a Node, more: &[&str]) -> App<'a> {
    let app = Folder::new();
    app.write("app.py", OBEDIENT);
    app.write("requirements.txt", "fastapi\n");
    let arguments = [&["-N"][..], more, &[app.root().to_str().unwrap()]].concat();
    let told = publisher.runs(&["deploy", "fastapi"], &arguments).await.ok();
    let path = format!("/content/{}/", Publisher::guid(&told));
    App { node, path, key: format!("Key {}", publisher.key) }
}

/// Command lines, and what else can be read of processes.
fn processes(of: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let told = all.filter_map(|process| std::fs::read(process.path().join(of)).ok());
    told.map(|told| String::from_utf8_lossy(&told).replace('\0', " ")).collect()
}

#[test]
fn contents_of_one_node_are_kept_apart_and_their_secrets_are_seen_by_nobody() {
    within(240, async {
        let (a, _b) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let secret = format!("hunter-{}", std::process::id());
        let first = published(&publisher, &a, &["-E", &format!("SECRET={secret}")]).await;
        let said = first.asks("").await;
        assert_eq!(said["secret"], secret.as_str());
        let lines = processes("cmdline");
        assert!(lines.iter().any(|line| line.contains("bwrap --args")), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains(&secret)), "on a command line");
        assert!(first.asks("fill").await["written"].as_u64().unwrap() <= 1 << 20, "the folder of sockets is small");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Nobody else's process reads its environment.
        let others = "for f in /proc/[0-9]*/environ; do tr '\\0' '\\n' < $f; done 2>/dev/null | grep -c hunter-";
        let mut command = tokio::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", others]).stdin(Stdio::null());
        assert_eq!(String::from_utf8_lossy(&command.output().await.unwrap().stdout).trim(), "0");

        let second = published(&publisher, &a, &[]).await;
        let uids = [&said["uid"], &second.asks("").await["uid"]].map(|uid| uid.as_u64().unwrap());
        assert!(uids[0] != uids[1] && uids.iter().all(|uid| *uid > 1_900_000_000), "{uids:?}");
        let begun = first.asks("bomb").await["begun"].as_u64().unwrap();
        assert!((100..1_100).contains(&begun), "{begun}");
        // Set up anew, so that a process begins.
        assert_eq!(second.is_set(json!({ "description": "again" })).await.status, 200);
        assert_eq!(second.asks("").await["uid"], uids[1]);
        let other = published(&publisher, &a, &[]).await;
        assert!(other.asks("bomb").await["begun"].as_u64().unwrap() >= 100, "a bound of its own");
    });
}

/// Runs the test of this name again as root of a network of its own, where processes end with it: `lan` is its other address,
/// another machine is at 192.0.2.9.
fn in_own_network(name: &str, test: impl FnOnce()) {
    const INSIDE: &str = "BOWLINE_TEST_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root makes networks");
        return;
    }
    let script = "set -e; ip link set lo up; ip link add out type veth peer name far; \
                  unshare --net sh -c 'until ip link show far 2>/dev/null; do sleep 0.05; done; ip link set lo up; \
                  ip addr add 192.0.2.9/24 dev far; ip link set far up; \
                  exec python3 -m http.server 8080 --bind 192.0.2.9' >/dev/null 2>&1 & far=$!; \
                  while [ \"$(readlink /proc/$far/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.05; done; \
                  ip link set far netns $far; ip addr add 192.0.2.1/24 dev out; ip link set out up; exec \"$@\"";
    let status = std::process::Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn content_reaches_other_machines_where_it_may_and_never_this_one() {
    let name = "enclosed::content_reaches_other_machines_where_it_may_and_never_this_one";
    in_own_network(name, || within(240, reaches()));
}

/// A node that has wheels. `content`: what is in `[content]`, and before it.
async fn one_node(before: &str, content: &str) -> Node {
    let uv = crate::harness::tool("uv");
    let a = Node::start("a", &format!("{before}[content]\n{content}uv = \"{}\"\n", uv.display())).await;
    a.command(&["repo", "create", "pypi"]).await;
    let wheels = crate::content::wheels("wheels");
    let files: Vec<&str> = wheels.iter().map(String::as_str).collect();
    a.command(&[&["add", "pypi"][..], &files].concat()).await;
    a
}

#[test]
fn content_runs_as_the_account_and_with_the_share_it_is_given() {
    within(240, async {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out: only root runs content as others");
            return;
        }
        // An account that Debian has, of uid 5 and gid 60.
        let shares = Folder::new();
        let shared = shares.root().canonicalize().unwrap().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::os::unix::fs::chown(&shared, Some(5), Some(60)).unwrap();
        std::fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let at = shared.display();
        let settings = format!(
            "run_as = [\"games\"]\nwritable = [\"{at}\"]\nmemory_max = \"1GiB\"\ndisk_max = \"16MiB\"\n\
                                cpus_max = 1.5\n"
        );
        let a = one_node("", &settings).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = published(&publisher, &a, &[]).await;
        let write = format!("write?path={at}/x");
        let told = app.asks(&write).await;
        assert!(told["why"].as_str().unwrap().contains("Permission denied"), "{told}");

        let refused = app.is_set(json!({ "run_as": "root" })).await;
        assert!(refused.status == 400 && refused.text().contains("`games`"), "{}", refused.text());
        let refused = app.is_set(json!({ "cpu_limit": 2 })).await;
        assert!(refused.status == 400 && refused.text().contains("1.5"), "{}", refused.text());
        a.command(&["user", "create", "bob", "--role", "publisher"]).await;
        let bob = a.command(&["key", "create", "--user", "bob", "--scope", "publish", "--name", "bob"]).await;
        let bobs = Publisher::new(&proxy, bob);
        let bobs = published(&bobs, &a, &[]).await;
        assert_eq!(bobs.is_set(json!({ "run_as": "games" })).await.status, 403, "that is for administrators to say");
        assert_eq!(bobs.is_set(json!({ "title": "mine" })).await.status, 200);

        let set = app.is_set(json!({ "run_as": "games", "memory_limit": 128 << 20, "cpu_limit": 0.5 })).await;
        assert_eq!((set.status, &set.json()["run_as"]), (200, &"games".into()));
        let told = eventually("a process of that account", async || {
            let told = app.asks(&write).await;
            (told["wrote"] == 5).then_some(told)
        })
        .await;
        assert_eq!((&told["gid"], app.asks("").await["uid"].as_u64()), (&json!(60), Some(5)), "{told}");

        // Whoever may publish is not left with what it could do.
        let is_as = |uid: &str| processes("status").iter().any(|told| told.contains(&format!("Uid:\t{uid}\t{uid}\t")));
        assert!(is_as("5"));
        assert_eq!(app.is_set(json!({ "run_as": null })).await.json()["run_as"], Value::Null);
        eventually("the end of what runs as that account", async || (!is_as("5")).then_some(())).await;
        assert!(app.asks(&write).await["why"].is_string());

        let checks = eventually("the node to have looked", async || {
            let told = bowline(&["doctor", "-c", &a.config(), "--json"]).await.json();
            let all = told["checks"].as_array().unwrap().clone();
            all.iter().any(|check| check["name"] == "content").then_some(all)
        })
        .await;
        let accounts = checks.iter().find(|check| check["name"] == "same_content_accounts").unwrap();
        assert!(accounts["found"].as_str().unwrap().contains("games=5:60+"), "{accounts}");
        let has_groups = checks.iter().all(|check| check["name"] != "content_bounds");
        if !has_groups {
            eprintln!("left out: control groups cannot be made here");
            return;
        }
        // Each of its processes stays below the bound; more than four of them together do not.
        assert_eq!(app.asks("eat?many=1").await, json!({ "ended": 0, "lived": 1 }));
        let told = app.asks("eat?many=8").await;
        assert!(told["ended"].as_u64().unwrap() >= 1 && told["lived"].as_u64().unwrap() >= 1, "{told}");
    });
}

async fn reaches() {
    let before = "[[listener]]\nname = \"lan\"\naddress = \"192.0.2.1:7000\"\n";
    let mut a = one_node(before, "network_choice = true\nnetwork_denied = [\"192.0.2.128/25\"]\n").await;
    let ca = Authority::new();
    let proxy = proxy(&[&a], &ca).await;
    let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
    let publisher = Publisher::new(&proxy, key);
    let app = published(&publisher, &a, &[]).await;
    let own = a.address.rsplit(':').next().unwrap().to_owned();
    for address in ["192.0.2.9:8080", "192.0.2.1:7000", &a.address] {
        eventually("the machines to be there", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    }
    assert!(!app.reaches("192.0.2.9", "8080", "").await, "nothing is reached where nobody said so");
    assert!(!app.reaches("127.0.0.1", &own, "").await);

    let set = app.is_set(json!({ "network_access": "outbound" })).await;
    assert_eq!((set.status, &set.json()["network_access"]), (200, &"outbound".into()));
    let told = app.asks("reach?host=192.0.2.9&port=8080").await;
    assert_eq!(told["reached"], true, "{told}");
    for (host, port) in [
        ("127.0.0.1", own.as_str()),
        ("localhost", &own),
        ("198.18.0.2", &own),
        ("198.18.0.3", &own),
        ("192.0.2.1", "7000"),
        ("0.0.0.0", "7000"),
        ("192.0.2.129", "8080"),
        ("169.254.169.254", "80"),
    ] {
        for device in ["", "tap0"] {
            assert!(!app.reaches(host, port, device).await, "{host}:{port} by {device:?}");
        }
    }
    assert_eq!(app.asks("route").await["changed"], json!([]));
    assert!(processes("cmdline").iter().any(|line| line.contains("slirp4netns")));
    // What helped it ends with it, however the node ends.
    drop(proxy);
    a.kill().await;
    eventually("the end of all it started", async || {
        let left = processes("cmdline").into_iter().find(|line| line.contains("slirp4netns") || line.contains("bwrap"));
        left.is_none().then_some(())
    })
    .await;
}

#[test]
fn publishers_choose_the_network_only_where_administrators_let_them() {
    within(60, async {
        let a = Node::start("a", "").await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let authorization = format!("Key {key}");
        let ask = async |body: &str| {
            let fields = [("authorization", &*authorization), ("content-type", "application/json")];
            Client::tcp(&a.address).await.request("POST", "/__api__/v1/content", &fields, body.as_bytes()).await
        };
        let refused = ask(r#"{"name": "x", "network_access": "outbound"}"#).await;
        assert!(refused.status == 400 && refused.text().contains("its administrators say"), "{}", refused.text());
        assert_eq!(ask(r#"{"name": "x", "network_access": "none"}"#).await.json()["network_access"], "none");
        assert_eq!(ask(r#"{"name": "y"}"#).await.json()["network_access"], Value::Null);
    });
}

#[test]
fn the_doctor_says_what_a_node_lacks_to_run_content() {
    within(90, async {
        let a =
            Node::start("a", "[content]\nnetwork = \"outbound\"\npython = [\"no-such-python\"]\nr = [\"no-such-R\"]\n")
                .await;
        let told = eventually_in(std::time::Duration::from_secs(60), "the node to have looked", async || {
            let told = bowline(&["doctor", "-c", &a.config(), "--json"]).await.json();
            let all = told["checks"].as_array().unwrap().clone();
            all.iter().any(|check| check["name"] == "content").then_some(all)
        })
        .await;
        let content: Vec<&Value> = told.iter().filter(|check| check["name"] == "content").collect();
        assert!(content.iter().any(|check| check["found"].as_str().unwrap().contains("no Python")), "{content:?}");
        assert!(content.iter().all(|check| check["verdict"] != "fail"), "the sandbox itself works here: {content:?}");
    });
}

#[test]
fn an_environment_that_outgrows_its_bound_is_given_up() {
    within(120, async {
        let uv = crate::harness::tool("uv");
        let more = format!("[content]\nenvironment_bytes_max = \"2MiB\"\nuv = \"{}\"\n", uv.display());
        let a = Node::start("a", &more).await;
        a.command(&["repo", "create", "pypi"]).await;
        let wheels = crate::content::wheels("wheels");
        let files: Vec<&str> = wheels.iter().map(String::as_str).collect();
        a.command(&[&["add", "pypi"][..], &files].concat()).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a], &ca).await;
        let key = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let publisher = Publisher::new(&proxy, key);
        let app = Folder::new();
        app.write("app.py", OBEDIENT);
        app.write("requirements.txt", "fastapi\nshiny\nnbconvert\nipykernel\n");
        let told = publisher.runs(&["deploy", "fastapi"], &["-N", app.root().to_str().unwrap()]).await;
        let words = format!("{}{}", told.stdout, told.stderr);
        assert!(told.code != Some(0) && words.contains("environment_bytes_max"), "{words}");
        eventually("what was begun to be removed", async || {
            let left = std::fs::read_dir(a.folder.path("data/cache/content/python")).unwrap().count();
            (left == 0).then_some(())
        })
        .await;
    });
}
