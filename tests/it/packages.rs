//! Package repositories: what real clients publish is what real clients install, through the TLS proxy, from any node.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{
    Authority, Client, Folder, Node, Output, Proxy, Response, bowline, eventually, get, get_as, run, script, tool,
    within,
};

/// Files of a small package in `folder`: wheel and source distribution.
pub async fn make(folder: &Folder, name: &str, version: &str, content: &str) -> [String; 2] {
    let script = script("packages.py");
    let root = folder.root().to_str().unwrap();
    run(&tool("python3"), &[&script, root, name, version, content], "").await.ok();
    let module = name.to_lowercase().replace(['-', '.'], "_");
    [format!("{module}-{version}-py3-none-any.whl"), format!("{module}-{version}.tar.gz")]
        .map(|file| folder.path(&file).to_str().unwrap().to_owned())
}

/// A proxy with TLS before these nodes, which asks them in turn, whoever asks.
pub async fn proxy(nodes: &[&Node], ca: &Authority) -> Proxy {
    proxy_with(nodes, ca, "policy = \"round_robin\"\naffinity.cookie.enabled = false").await
}

/// A proxy with TLS before these nodes; `pool`: further lines of its pool.
pub async fn proxy_with(nodes: &[&Node], ca: &Authority, pool: &str) -> Proxy {
    let folder = Folder::new();
    ca.pair(&["localhost"]).write(&folder, "certs/localhost");
    folder.write("ca.pem", ca.pem());
    let backends: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| format!("{{ key = \"n{n}\", address = \"{}\" }}", node.address))
        .collect();
    let config = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"\n\
         [[pool]]\nname = \"app\"\npreset = \"bowline\"\n{pool}\n\
         probe = {{ interval = \"200ms\", fast_interval = \"100ms\" }}\nbackend = [{}]\n[[route]]\npool = \"app\"\n",
        backends.join(", ")
    );
    Proxy::start_in(folder, &config).await
}

pub fn base(proxy: &Proxy) -> String {
    format!("https://localhost:{}", proxy.web().rsplit(':').next().unwrap())
}

#[test]
fn what_twine_and_uv_publish_pip_and_uv_install_from_whichever_node() {
    within(120, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        a.command(&["repo", "create", "pypi"]).await;
        let key = a.command(&["key", "create", "--name", "ci", "--scope", "publish", "--repository", "pypi"]).await;
        let ca = Authority::new();
        let mut nodes = [a, b];
        let proxy = proxy(&nodes.iter().collect::<Vec<_>>(), &ca).await;
        let (url, pem) = (base(&proxy), proxy.folder.path("ca.pem").to_str().unwrap().to_owned());
        let (upload, index) = (format!("{url}/packages/pypi/legacy/"), format!("{url}/packages/pypi/simple/"));
        eventually("the repository on both nodes", async || {
            let mut there = true;
            for node in &nodes {
                there &= get(&node.address, "/packages/pypi/simple/").await.status == 200;
            }
            there.then_some(())
        })
        .await;

        let client = Trusting(pem);
        let files = Folder::new();
        let alpha = make(&files, "Alpha.Pkg", "1.0", "from twine").await;
        let told = ["upload", "--non-interactive", "--repository-url", &upload, "-u", "__token__", "-p", &key];
        client.runs("twine", &[&told[..], &[&alpha[0], &alpha[1]]].concat()).await.ok();
        client.runs("twine", &[&told[..], &[&alpha[0]]].concat()).await.ok();
        let changed = make(&files, "Alpha.Pkg", "1.0", "other bytes").await;
        let refused = client.runs("twine", &[&told[..], &[&changed[0]]].concat()).await;
        let words = format!("{}{}", refused.stdout, refused.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(refused.code == Some(1) && words.contains("File already exists"), "{words}");
        let beta = make(&files, "beta", "2.0", "from uv").await;
        let told = ["publish", "--native-tls", "--publish-url", &upload, "--token", &key, "--no-cache"];
        client.runs("uv", &[&told[..], &[&beta[0], &beta[1]]].concat()).await.ok();
        eventually("what was published on both nodes", async || {
            (get(&nodes[1].address, "/packages/pypi/simple/beta/").await.status == 200).then_some(())
        })
        .await;

        for round in 0..2 {
            let to = files.path(&format!("pip{round}")).to_str().unwrap().to_owned();
            let what = ["--index-url", &index, "--target", &to, "alpha-pkg", "beta"];
            let told = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir"];
            client.runs("python3", &[&told[..], &what].concat()).await.ok();
            imports(&client, &to).await;
            let to = files.path(&format!("uv{round}")).to_str().unwrap().to_owned();
            let what = ["--index-url", &index, "--target", &to, "alpha-pkg", "beta"];
            let told = ["pip", "install", "-q", "--no-cache", "--native-tls"];
            client.runs("uv", &[&told[..], &what].concat()).await.ok();
            imports(&client, &to).await;
            // The second time without the node that was there first.
            if round == 0 {
                nodes[0].signal(Signal::KILL);
                nodes[0].exit().await;
                proxy.until_health("n0", "down").await;
            }
        }
    });
}

/// Runs clients that trust one authority, whatever else this machine has configured for them.
pub struct Trusting(pub String);

impl Trusting {
    pub async fn runs(&self, program: &str, arguments: &[&str]) -> Output {
        self.runs_at(&tool(program), arguments).await
    }

    /// The program at this path.
    pub async fn runs_at(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut all = ["PIP_CONFIG_FILE=/dev/null", "PIP_FIND_LINKS=", "UV_NO_CONFIG=1", "NO_PROXY=localhost"]
            .map(String::from)
            .to_vec();
        all.extend(
            ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"]
                .map(|name| format!("{name}={}", self.0)),
        );
        all.push(program.to_str().unwrap().to_owned());
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        run(&tool("env"), &all.iter().map(String::as_str).collect::<Vec<_>>(), "").await
    }
}

/// What was installed in this folder is what was published.
async fn imports(client: &Trusting, folder: &str) {
    let text = format!(
        "import sys; sys.path.insert(0, {folder:?}); import alpha_pkg, beta; print(alpha_pkg.CONTENT, beta.CONTENT)"
    );
    assert_eq!(client.runs("python3", &["-c", &text]).await.ok().stdout, "from twine from uv\n");
}

/// An upload as a form, with these fields and a file.
pub async fn post(node: &Node, key: &str, fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> Response {
    let authorization = format!("Bearer {key}");
    let head = [FORM, ("Authorization", &authorization)];
    Client::tcp(&node.address).await.request("POST", "/packages/pypi/legacy/", &head, &form(fields, file)).await
}

/// What [`form`] makes.
pub const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=bnd");

/// The body of an upload.
pub fn form(fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--bnd\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    if let Some((name, bytes)) = file {
        body.extend(
            format!("--bnd\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\n\r\n").bytes(),
        );
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--bnd--\r\n");
    body
}

#[test]
fn what_is_not_right_is_refused_in_words_and_leaves_nothing() {
    within(120, async {
        let node = Node::start("a", "[packages]\nfile_bytes_max = \"100KiB\"\n").await;
        node.command(&["repo", "create", "pypi"]).await;
        let key = node.command(&["key", "create", "--scope", "publish"]).await;
        eventually("the repository", async || {
            (get(&node.address, "/packages/pypi/simple/").await.status == 200).then_some(())
        })
        .await;
        let files = Folder::new();
        let [wheel, sdist] = make(&files, "good", "1.0", "x").await.map(|path| std::fs::read(path).unwrap());
        let good = [
            (":action", "file_upload"),
            ("protocol_version", "1"),
            ("name", "good"),
            ("version", "1.0"),
            ("filetype", "bdist_wheel"),
        ];
        let but = |name: &'static str, value: &'static str| {
            good.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect::<Vec<_>>()
        };
        let whl = "good-1.0-py3-none-any.whl";
        let and = |name: &'static str, value: &'static str| [&good[..], &[(name, value)]].concat();
        let zeros = vec![0; 200_000];
        type Case<'a> = (Vec<(&'a str, &'a str)>, Option<(&'a str, &'a [u8])>, u16, &'a str);
        let cases: Vec<Case<'_>> = vec![
            (but(":action", "x"), Some((whl, &wheel)), 400, ":action"),
            (but("protocol_version", "2"), Some((whl, &wheel)), 400, "protocol"),
            (but("name", "-bad-"), Some((whl, &wheel)), 400, "`name`"),
            (but("version", "one"), Some((whl, &wheel)), 400, "PEP 440"),
            (but("name", "other"), Some((whl, &wheel)), 400, "is not one of other"),
            (but("filetype", "sdist"), Some((whl, &wheel)), 400, "filetype"),
            (good.to_vec(), None, 400, "does not have a file"),
            (good.to_vec(), Some(("../good-1.0-py3-none-any.whl", &wheel)), 400, "Invalid filename"),
            (good.to_vec(), Some((whl, b"no zip")), 400, "not a zip"),
            (good.to_vec(), Some((whl, &wheel[..wheel.len() / 2])), 400, "not a zip"),
            (good.to_vec(), Some((whl, &zeros)), 413, "larger than the 102400 bytes"),
            (and("sha256_digest", "00"), Some((whl, &wheel)), 400, "sha256_digest"),
            (and("md5_digest", "00"), Some((whl, &wheel)), 400, "md5_digest"),
            (and("requires_python", "three"), Some((whl, &wheel)), 400, "requires_python"),
            (but("version", "2.0"), Some(("good-2.0-py3-none-any.whl", &wheel)), 400, "another project or version"),
            (and("name", "other"), Some((whl, &wheel)), 400, "`name` comes twice"),
            (and("version", "2.0"), Some((whl, &wheel)), 400, "`version` comes twice"),
            (vec![("x", "y"); 10_000], Some((whl, &wheel)), 400, "more than 2000 fields"),
        ];
        for (fields, file, status, words) in &cases {
            let answer = post(&node, &key, fields, *file).await;
            assert_eq!(answer.status, *status, "{words}: {answer:?}");
            assert!(answer.reason.contains(words) && answer.text().contains(words), "{words}: {answer:?}");
        }
        let nobody = post(&node, "bwl_wrong", &good, Some((whl, &wheel))).await;
        assert_eq!((nobody.status, nobody.fields.has("www-authenticate")), (401, true));
        let reader = node.command(&["key", "create", "--scope", "read"]).await;
        assert_eq!(post(&node, &reader, &good, Some((whl, &wheel))).await.status, 403);

        assert_eq!(get(&node.address, "/packages/pypi/simple/good/").await.status, 404, "nothing of it is shown");
        let kept = std::fs::read_dir(node.folder.path("data/blobs/sha256")).unwrap().count();
        let incoming = std::fs::read_dir(node.folder.path("data/blobs/incoming")).unwrap().count();
        assert_eq!((kept, incoming), (0, 0), "nor kept");

        // And what is right is taken after all of that.
        assert_eq!(post(&node, &key, &good, Some((whl, &wheel))).await.status, 200);
        let source = but("filetype", "sdist");
        assert_eq!(post(&node, &key, &source, Some(("good-1.0.tar.gz", &sdist))).await.status, 200);
        let json = [("Accept", "application/vnd.pypi.simple.v1+json")];
        let page = get_as(&node.address, "/packages/pypi/simple/good/", &json).await.json();
        assert_eq!(page["files"].as_array().unwrap().len(), 2, "{page}");
        let link = page["files"][0]["url"].as_str().unwrap().replace("../../", "/packages/pypi/");
        let file = get(&node.address, &link).await;
        assert_eq!(file.body, wheel);
        let etag = file.fields.get("etag").unwrap();
        let part = get_as(&node.address, &link, &[("Range", "bytes=2-5"), ("If-Range", etag)]).await;
        assert_eq!((part.status, &part.body[..]), (206, &wheel[2..6]));
        assert_eq!(get_as(&node.address, &link, &[("If-None-Match", etag)]).await.status, 304);
        let whole = get_as(&node.address, &link, &[("Range", "bytes=2-5"), ("If-Range", "\"other\"")]).await;
        assert_eq!(
            (whole.status, whole.body.len()),
            (200, wheel.len()),
            "what was begun of another file is not resumed"
        );
        let metadata = get(&node.address, &format!("{link}.metadata")).await;
        assert!(metadata.text().starts_with("Metadata-Version: 2.1\nName: good\n"), "{metadata:?}");
        let head = Client::tcp(&node.address).await.request("HEAD", &link, &[], b"").await;
        assert_eq!((head.status, head.fields.get("content-length")), (200, Some(wheel.len().to_string().as_str())));
    });
}

#[test]
fn a_private_repository_opens_to_its_keys_only() {
    within(60, async {
        let mut node = Node::start("a", "[access_log]\nfile = \"access.log\"\n").await;
        node.command(&["repo", "create", "secret", "--private"]).await;
        node.command(&["repo", "create", "other"]).await;
        let (own, other) = (
            node.command(&["key", "create", "--scope", "read", "--repository", "secret"]).await,
            node.command(&["key", "create", "--scope", "read", "--repository", "other"]).await,
        );
        let page = "/packages/secret/simple/";
        let ask = async |key: &str| {
            let basic = format!("Bearer {key}");
            get_as(&node.address, page, &[("Authorization", &basic)]).await.status
        };
        eventually("the repository", async || (ask(&own).await == 200).then_some(())).await;
        assert_eq!((ask(&other).await, ask("bwl_none").await, get(&node.address, page).await.status), (403, 401, 401));
        let absent = get(&node.address, "/packages/absent/simple/").await.status;
        assert_eq!(absent, 401, "who may see nothing does not learn what there is");

        // What was asked is told: by request and in numbers, but numbers not to whoever comes through a proxy.
        let forwarded = [("X-Forwarded-For", "192.0.2.7"), ("X-Request-Id", "from-the-proxy")];
        assert_eq!(get_as(&node.address, "/metrics", &forwarded).await.status, 404);
        let told = get(&node.address, "/metrics").await.text();
        assert!(told.contains("bowline_node_requests_total{route=\"pypi_projects\",code=\"403\"} 1\n"), "{told}");
        eventually("the line in the access log", async || {
            let log = node.folder.read("access.log");
            let line = log.lines().find(|line| line.contains("from-the-proxy")).map(str::to_owned);
            line.filter(|line| {
                line.contains("\"client.address\":\"192.0.2.7\"") && line.contains("\"route\":\"metrics\"")
            })
        })
        .await;
        assert!(!node.folder.read("access.log").contains(&own), "no key is logged");

        // Another key is another cluster's.
        let second = node.folder.path("second.key");
        bowline(&["keygen", second.to_str().unwrap()]).await.ok();
        let config = node.folder.read("a.toml").replace("node.key", "second.key");
        let file = node.folder.write("second.toml", config);
        let refused = bowline(&["node", "-c", file.to_str().unwrap()]).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("copy the key of another node"), "{refused:?}");

        // It leaves when told to, after the request it is answering.
        node.signal(Signal::TERM);
        let ended = tokio::time::timeout(Duration::from_secs(10), node.exit()).await;
        assert!(ended.expect("in time").success());
    });
}

/// Runs SQL on a node's SQLite, as an operator never should.
pub async fn sqlite(node: &Node, sql: &str) {
    let script = format!(
        "import sqlite3; c = sqlite3.connect({:?}, timeout=10); c.execute({sql:?}); c.commit()",
        node.folder.path("data/bowline.db").to_str().unwrap()
    );
    run(&tool("python3"), &["-c", &script], "").await.ok();
}

#[test]
fn a_day_that_is_over_is_seen_as_it_was_and_a_project_tells_all_of_itself() {
    within(60, async {
        let config = "role = \"node\"\nkey_file = \"node.key\"\nexternal_url = \"https://p.example\"\n\
                      [[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n";
        let node = Node::start_exactly(Folder::new(), config).await;
        node.command(&["repo", "create", "pypi"]).await;
        let key = node.command(&["key", "create", "--name", "ci", "--scope", "publish"]).await;
        eventually("the repository", async || {
            (get(&node.address, "/packages/pypi/simple/").await.status == 200).then_some(())
        })
        .await;
        let files = Folder::new();
        let old = make(&files, "alpha", "1.0", "old").await;
        node.command(&["add", "pypi", &old[0], &old[1]]).await;
        // 2024-03-01, and yanked on the day after.
        sqlite(&node, "UPDATE file SET uploaded_at = 1709290000000000, yanked = 'late', yanked_at = 1709376400000000")
            .await;
        sqlite(&node, "UPDATE project SET created_at = 1709290000000000").await;
        let new = make(&files, "alpha", "2.0", "new").await;
        let filename = new[0].rsplit('/').next().unwrap();
        let bytes = std::fs::read(&new[0]).unwrap();
        let digest = sha256(&new[0]).await;
        let statement =
            format!("{{\"subject\": [{{\"name\": \"{filename}\", \"digest\": {{\"sha256\": \"{digest}\"}}}}]}}");
        let encoded = run(&tool("base64"), &["-w0"], &statement).await.ok().stdout;
        let attestations = format!(
            "[{{\"version\": 1, \"verification_material\": {{}}, \"envelope\": {{\"statement\": \"{encoded}\", \"signature\": \"x\"}}}}]"
        );
        let fields = [
            (":action", "file_upload"),
            ("name", "alpha"),
            ("version", "2.0"),
            ("filetype", "bdist_wheel"),
            ("summary", "A small one"),
            ("project_urls", "Home, https://x.example"),
            ("attestations", &attestations),
        ];
        let lying = fields.map(|(name, value)| (name, if name == "attestations" { "[{}]" } else { value }));
        assert!(post(&node, &key, &lying, Some((filename, &bytes))).await.text().contains("`attestations`"));
        assert_eq!(post(&node, &key, &fields, Some((filename, &bytes))).await.status, 200);

        let page = async |day: &str| {
            get_as(
                &node.address,
                &format!("/packages/pypi/{day}/simple/alpha/"),
                &[("Accept", "application/vnd.pypi.simple.v1+json")],
            )
            .await
        };
        let versions = async |day: &str| {
            let page: serde_json::Value = serde_json::from_str(&page(day).await.text()).unwrap();
            (page["versions"].clone(), page["files"][0]["yanked"].clone(), page["files"][0]["url"].clone())
        };
        use serde_json::json;
        assert_eq!(page("2024-02-29").await.status, 404, "not there yet");
        let url = json!(format!("../../../files/{}/alpha-1.0-py3-none-any.whl", sha256(&old[0]).await));
        assert_eq!(versions("2024-03-01").await, (json!(["1.0"]), json!(false), url.clone()));
        assert_eq!(versions("2024-03-02").await, (json!(["1.0"]), json!("late"), url));
        assert_eq!(versions("latest").await.0, json!(["1.0", "2.0"]));
        assert_eq!(page("2999-01-01").await.status, 404);
        let list = get(&node.address, "/packages/pypi/2024-02-01/simple/").await.text();
        assert!(!list.contains("alpha"), "{list}");
        let then = files.path("then").to_str().unwrap().to_owned();
        let index = format!("http://{}/packages/pypi/2024-03-01/simple/", node.address);
        let client = Trusting(String::from("/dev/null"));
        let told = ["-m", "pip", "install", "-q", "--no-cache-dir", "--index-url", &index, "--target", &then, "alpha"];
        client.runs("python3", &told).await.ok();
        assert!(Path::new(&then).join("alpha-1.0.dist-info").exists());

        let told: serde_json::Value =
            serde_json::from_str(&get(&node.address, "/packages/pypi/pypi/alpha/json").await.text()).unwrap();
        assert_eq!(told["info"]["version"], "2.0");
        assert_eq!(told["info"]["summary"], "A small one");
        assert_eq!(told["info"]["project_urls"]["Home"], "https://x.example");
        assert_eq!(told["urls"][0]["digests"]["sha256"], json!(digest));
        assert_eq!(told["releases"]["1.0"].as_array().unwrap().len(), 2);
        let release: serde_json::Value =
            serde_json::from_str(&get(&node.address, "/packages/pypi/pypi/alpha/1.0/json").await.text()).unwrap();
        assert_eq!(release["info"]["yanked_reason"], "late");
        assert_eq!(get(&node.address, "/packages/pypi/pypi/alpha/3.0/json").await.status, 404);

        let latest: serde_json::Value = serde_json::from_str(&page("latest").await.text()).unwrap();
        let files = latest["files"].as_array().unwrap();
        let provenance =
            files.iter().find(|file| file["filename"] == filename).unwrap()["provenance"].as_str().unwrap();
        let path = provenance.strip_prefix("https://p.example").unwrap();
        let object: serde_json::Value = serde_json::from_str(&get(&node.address, path).await.text()).unwrap();
        assert_eq!(object["attestation_bundles"][0]["publisher"]["claims"]["key"], "ci");
    });
}

pub async fn sha256(path: &str) -> String {
    run(&tool("sha256sum"), &[path], "").await.ok().stdout[..64].to_owned()
}
