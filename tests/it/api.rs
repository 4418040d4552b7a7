//! What rsconnect-python and posit-sdk administer by our API, beside publishing: one node, and the clients as they are.

use std::time::Duration;

use serde_json::Value;

use crate::content::wheels;
use crate::harness::tools::client;
use crate::harness::{Folder, Node, Output, Postgres, eventually, get_as, run, script, tool, within};
use crate::pages::{people, site};

/// rsconnect-python with a home of its own, beside a node.
struct Client<'a> {
    node: &'a Node,
    key: String,
    home: Folder,
}

impl<'a> Client<'a> {
    fn new(node: &'a Node, key: &str) -> Self {
        Self { node, key: key.to_owned(), home: Folder::new() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.node.address)
    }

    /// `rsconnect WORDS -s URL -k KEY REST`; nobody is shown a stack trace.
    async fn runs(&self, words: &str, rest: &[&str]) -> Output {
        let program = client("rsconnect", "rsconnect");
        let words: Vec<&str> = words.split(' ').collect();
        let index = format!("UV_DEFAULT_INDEX={}/packages/pypi/simple/", self.url());
        let own = [
            format!("HOME={}", self.home.root().display()),
            format!("PATH={}:/usr/bin:/bin", tool("uv").parent().unwrap().display()),
            format!("UV_CACHE_DIR={}", self.home.path("uv").display()),
        ];
        // Where it is called it keeps what it knows of builds.
        let home = self.home.root().to_str().unwrap();
        let own = ["-C", home, &own[0], &own[1], &own[2], &index, "NO_COLOR=1", program.to_str().unwrap()];
        let url = self.url();
        let all = [&own[..], &words, &["-s", &url, "-k", &self.key], rest].concat();
        let told = run("/usr/bin/env".as_ref(), &all, "").await;
        assert!(!told.stderr.contains("Traceback"), "{words:?}: {}", told.stderr);
        told
    }

    /// The guid of what it deployed.
    async fn deploys(&self, words: &str, rest: &[&str]) -> String {
        crate::content::Publisher::guid(&self.runs(words, rest).await.ok())
    }

    /// Names that a search finds, in order.
    async fn finds(&self, rest: &[&str]) -> Vec<String> {
        let found = self.runs("content search", rest).await.ok().json();
        found.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What the API answers.
    async fn gets(&self, path: &str) -> Value {
        let key = format!("Key {}", self.key);
        get_as(&self.node.address, &format!("/__api__{path}"), &[("authorization", &key)]).await.json()
    }
}

/// A node that runs content, with what that requires.
pub async fn node(more: &str) -> Node {
    let uv = tool("uv");
    let node = Node::start("a", &format!("[content]\nuv = \"{}\"\n{more}", uv.display())).await;
    node.command(&["repo", "create", "pypi"]).await;
    let files = wheels("wheels");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    for some in files.chunks(20) {
        node.command(&[&["add", "pypi"][..], some].concat()).await;
    }
    node
}

/// A FastAPI app, which says which of its processes answers.
fn app() -> Folder {
    let app = Folder::new();
    app.write("app.py", "import uuid\nfrom fastapi import FastAPI\napp = FastAPI()\nown = uuid.uuid4()\n@app.get('/')\ndef root():\n    return own\n");
    app.write("requirements.txt", "fastapi\n");
    app
}

#[test]
fn rsconnect_searches_builds_and_looks_after_what_a_server_has() {
    within(240, async {
        let node = node("bundles_kept = 2\n").await;
        let [admin, ..] = people(&node).await;
        let ann = Client::new(&node, &admin);
        let app = app();
        let root = app.root().to_str().unwrap();
        let guid = ann.deploys("deploy fastapi", &["--title", "Sales today", root]).await;
        let site = Folder::new();
        site.write("index.html", "<h1>a page</h1>");
        let page = site.root().to_str().unwrap();
        let other = ann.deploys("deploy html", &["--title", "A page", page]).await;
        let key = format!("Key {admin}");
        let fields = [("authorization", &*key), ("content-type", "application/json")];
        let made = crate::harness::Client::tcp(&node.address)
            .await
            .request("POST", "/__api__/v1/content", &fields, b"{\"name\": \"bare\"}")
            .await;
        assert_eq!(made.status, 200);
        let bare = made.json()["guid"].as_str().unwrap().to_owned();

        // Search.
        let (sales, paged) = ("sales_today", "a_page");
        assert_eq!(ann.finds(&["--order-by", "created"]).await, ["bare", paged, sales]);
        let mut published = ann.finds(&["--published"]).await;
        published.sort();
        assert_eq!(published, [paged, sales]);
        assert_eq!(ann.finds(&["--unpublished"]).await, ["bare"]);
        assert_eq!(ann.finds(&["--content-type", "python-fastapi"]).await, [sales]);
        assert_eq!(ann.finds(&["--py-version", ">=3.8.0"]).await, [sales]);
        assert!(ann.finds(&["--py-version", "<3.8.0"]).await.is_empty());
        assert!(ann.finds(&["--r-version", ">3.0.0"]).await.is_empty());
        assert_eq!(ann.finds(&["--title-contains", "today"]).await, [sales]);

        // Builds.
        ann.runs("content build add", &["-g", &guid, "-g", &other]).await.ok();
        let refused = ann.runs("content build add", &["-g", &bare]).await;
        assert!(refused.code != Some(0) && refused.stderr.contains("never been published"), "{refused:?}");
        let built = ann.runs("content build run", &["--parallelism", "2"]).await.ok();
        assert!(built.stderr.contains("Success = 2, Error = 0"), "{built:?}");
        let listed = ann.runs("content build ls", &[]).await.ok().json();
        let states: Vec<&Value> = listed.as_array().unwrap().iter().map(|one| &one["rsconnect_build_status"]).collect();
        assert_eq!(states, ["COMPLETE", "COMPLETE"], "{listed}");
        let history = ann.runs("content build history", &["-g", &guid]).await.ok().json();
        assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
        let log = ann.runs("content build logs", &["-g", &guid]).await.ok().stdout;
        assert!(log.contains("Starting it on trial") && !log.contains("It runs now"), "{log}");
        ann.runs("content build rm", &["--all", "--purge"]).await.ok();
        assert_eq!(ann.runs("content build ls", &[]).await.ok().json(), Value::Array(Vec::new()));

        // What its environment has, and the same one elsewhere.
        let (lock, venv) = (ann.home.path("lock.txt"), ann.home.path("venv"));
        let (lock, venv) = (lock.to_str().unwrap(), venv.to_str().unwrap());
        ann.runs("content get-lockfile", &["-g", &guid, "-o", lock]).await.ok();
        let told = std::fs::read_to_string(lock).unwrap();
        assert!(told.starts_with("# python=3.") && told.contains("\nfastapi=="), "{told}");
        let none = ann.runs("content get-lockfile", &["-g", &other, "-o", lock, "--overwrite"]).await;
        assert!(none.code != Some(0) && none.stderr.contains("There is no lock file: only content"), "{none:?}");
        ann.runs("content venv", &["-g", &guid, venv]).await.ok();
        let frozen = run(&tool("uv"), &["pip", "freeze", "--quiet", "--python", venv], "").await.ok().stdout;
        assert_eq!(frozen.trim(), told.split_once('\n').unwrap().1.trim());

        // Caches: one that is in use stays.
        let version = ann.gets(&format!("/v1/content/{guid}")).await["py_version"].as_str().unwrap().to_owned();
        let listed = ann.runs("system caches list", &[]).await.ok().json();
        assert_eq!(listed["caches"][0]["language"], "Python", "{listed}");
        let made = listed["caches"][0]["version"].as_str().unwrap().to_owned();
        assert!(version.starts_with(made.rsplit_once('.').unwrap().0), "{version} {made}");
        let delete = ["--language", "Python", "--version", &made];
        let dry = ann.runs("system caches delete", &[&delete[..], &["--dry-run"]].concat()).await.ok();
        assert!(dry.stdout.contains("Dry run finished"), "{dry:?}");
        let at = format!("/content/{guid}/");
        assert_eq!(get_as(&node.address, &at, &fields[..1]).await.status, 200);
        let kept = ann.runs("system caches delete", &delete).await.ok();
        assert!(format!("{kept:?}").contains("1 stay, because something runs on them"), "{kept:?}");
        let jobs = ann.gets(&format!("/v1/content/{guid}/jobs")).await;
        assert!(jobs.as_array().unwrap().iter().any(|job| job["tag"] == "run_fastapi_app"), "{jobs}");

        // Who uses the API from before `/v1` ends all processes of content; then nothing holds the environment.
        let number = ann.gets(&format!("/v1/content/{guid}")).await["id"].as_str().unwrap().to_owned();
        let mut plain = crate::harness::Client::tcp(&node.address).await;
        let ended = plain.request("POST", &format!("/__api__/applications/{number}/terminate"), &fields, b"[]").await;
        let task = ended.json()["task_id"].as_str().unwrap().to_owned();
        let told = ann.gets(&format!("/tasks/{task}?first_status=0")).await;
        assert_eq!((&told["finished"], &told["code"]), (&true.into(), &0.into()), "{told}");
        let killed = plain.request("POST", &format!("/__api__/tasks/{task}/kill"), &fields, b"[]").await;
        assert_eq!(killed.status, 409, "it has ended: {}", killed.text());
        eventually("its processes to end", async || {
            let all = ann.gets(&format!("/v1/content/{guid}/jobs")).await;
            all.as_array()?.iter().all(|job| job["status"] == 2).then_some(())
        })
        .await;
        eventually("its environment to go", async || {
            let told = format!("{:?}", ann.runs("system caches delete", &delete).await);
            let is_gone = told.contains("Removed 1 environments from the node a");
            assert!(is_gone || told.contains("1 stay, because something runs on them"), "{told}");
            is_gone.then_some(())
        })
        .await;
        let listed = ann.runs("system caches list", &[]).await.ok().json();
        assert_eq!(listed["caches"], Value::Array(Vec::new()));
        let none = ann.runs("system caches delete", &delete).await;
        assert!(none.code != Some(0) && none.stderr.contains("No node has a cache of Python"), "{none:?}");
        eventually("it to be made again", async || {
            (get_as(&node.address, &at, &fields[..1]).await.status == 200).then_some(())
        })
        .await;

        // What this server has not.
        let listed = ann.runs("environment list", &[]).await.ok();
        assert!(listed.stdout.contains("This server"), "{listed:?}");
        let more = ann.runs("environment add", &["ghcr.io/x/y"]).await;
        assert!(more.code != Some(0) && more.stderr.contains("it has no other execution environments"), "{more:?}");
        let listed = ann.runs("integration list", &[]).await.ok();
        assert!(listed.stdout.contains("No integrations found"), "{listed:?}");
        let git = ["--repository", "https://git.example.org/x.git", "--title", "From git"];
        let refused = ann.runs("deploy git", &git).await;
        let words = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code != Some(0) && words.contains("This server does not deploy content from Git"), "{words}");
        assert_eq!(ann.finds(&["--title-contains", "From git"]).await, [""; 0]);
        assert_eq!(ann.finds(&["--unpublished"]).await, ["bare"], "what it made for that is gone");
        let unknown = get_as(&node.address, "/__api__/v1/nothing/of/this", &fields[..1]).await;
        assert_eq!(unknown.status, 404);
        assert_eq!(unknown.json()["error"], "This server has no call `GET /__api__/v1/nothing/of/this`");

        // Of bundles the latest two stay.
        let numbers = async || {
            let all = ann.gets(&format!("/v1/content/{other}/bundles")).await;
            let number = |bundle: &Value| bundle["id"].as_str().unwrap().parse::<i64>().unwrap();
            all.as_array().unwrap().iter().map(number).collect::<Vec<_>>()
        };
        let mut before = numbers().await;
        for n in 0..3 {
            site.write("index.html", format!("<h1>page {n}</h1>"));
            ann.runs("deploy html", &["--app-id", &other, page]).await.ok();
            let after = numbers().await;
            assert_eq!((after.len(), &after[1..]), (2, &before[..1]), "the new one and the one before it");
            before = after;
        }
        let seen = get_as(&node.address, &format!("/content/{other}/"), &fields[..1]).await.text();
        assert_eq!(seen, "<h1>page 2</h1>");
    });
}

#[test]
fn posit_sdk_restarts_renders_and_ends_what_runs() {
    within(240, async {
        let node = node("").await;
        let [admin, ..] = people(&node).await;
        let ann = Client::new(&node, &admin);
        let app = app();
        let guid = ann.deploys("deploy fastapi", &[app.root().to_str().unwrap()]).await;
        let (url, own) = (ann.url(), Folder::new());
        let words = [&script("sdk-runs.py"), &url, &admin, &guid, own.root().to_str().unwrap()];
        let told = run(&client("posit-sdk", "python"), &words, "").await.ok();
        assert_eq!(told.stdout.trim(), "done", "{}", told.stderr);
    });
}

#[test]
fn a_refusal_that_reads_no_body_leaves_the_connection_or_says_that_it_ends() {
    within(60, async {
        let node = Node::start("a", "").await;
        let [admin, ..] = people(&node).await;
        let head = |length: usize| {
            format!(
                "POST /__api__/v1/oauth/integrations HTTP/1.1\r\nHost: a\r\nAuthorization: Key {admin}\r\n\
                 Content-Length: {length}\r\n\r\n"
            )
        };
        let mut client = crate::harness::Client::tcp(&node.address).await;
        // As Python's `http.client` does: the body is a write of its own.
        for _ in 0..3 {
            client.send(head(2)).await;
            assert!(client.is_quiet_for(Duration::from_millis(100)).await, "it hears us out");
            client.send("{}").await;
            let refused = client.response("POST").await;
            assert_eq!((refused.status, refused.fields.get("connection")), (501, None));
        }
        // One that does not come, and one that is long.
        client.send(head(2)).await;
        let refused = client.response("POST").await;
        assert_eq!((refused.status, refused.fields.get("connection")), (501, Some("close")));
        assert!(client.ends().await);
        let mut client = crate::harness::Client::tcp(&node.address).await;
        client.send(head(1 << 30)).await;
        // As much as is taken, so that nothing is left unread, whose end would be a reset.
        client.send("x".repeat(256 << 10)).await;
        let refused = client.response("POST").await;
        assert_eq!((refused.status, refused.fields.get("connection")), (501, Some("close")));
    });
}

#[test]
fn a_list_of_much_content_asks_the_database_as_often_as_one_of_little() {
    within(120, async {
        let database = Postgres::talkative();
        let a = Node::start("a", &format!("[database]\nurl = \"{}\"\n", database.url())).await;
        let [admin, ..] = people(&a).await;
        let key = format!("Key {admin}");
        let mut counts = Vec::new();
        for (name, more) in [("b", 2), ("c", 10)] {
            for n in 0..more {
                site(&a, &admin, &format!("site-{name}-{n}"), "<h1>a page</h1>").await;
            }
            // One that has not looked at any of it.
            let node = a.beside(name).await;
            let before = database.log().len();
            let path = "/__api__/v1/content?include=owner,tags,vanity_url";
            let told = get_as(&node.address, path, &[("authorization", &key)]).await.json();
            let told = told.as_array().unwrap();
            assert!(
                told.iter().all(|one| one["owner"]["username"] == "ann" && one["bundle_id"].is_string()),
                "{told:?}"
            );
            let log = database.log();
            let of = |words: &str| log[before..].lines().filter(|line| line.contains(words)).count();
            // Nobody else asks for these: background work reads bundles one by one.
            counts.push((told.len(), of("FROM bundle WHERE number IN ("), of(" FROM tagged "), of(" FROM account ")));
        }
        let [few, many] = counts[..] else { panic!("{counts:?}") };
        assert_eq!((few.0, many.0), (2, 12));
        assert!(many.1 <= 1 && many.2 == 1 && few.2 == 1, "{counts:?}");
        assert!(many.3 <= few.3 + 2, "{counts:?}");
    });
}
