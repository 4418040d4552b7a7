//! `bowline demo`: everything on one machine, in one command, and nothing of it left afterwards.

use rustix::process::Signal;

use crate::harness::demo::is_alive;
use crate::harness::{Client, ClientTls, Demo, Folder, Output, eventually, run, tool, within};
use crate::pages;

fn needs_shiny() {
    // Says what to do when they are missing.
    tool("python3");
    tool("Rscript");
}

/// How a client trusts this demo.
fn trust(demo: &Demo, name: &str) -> ClientTls {
    use rustls::pki_types::pem::PemObject;
    let ca = rustls::pki_types::CertificateDer::from_pem_file(demo.text("ca")).unwrap();
    ClientTls::new(&ca, name)
}

/// Each page it names is there, verified by its CA.
async fn serves(demo: &Demo) {
    let plain = demo.told["plain"].as_array().unwrap();
    assert!(plain.len() >= 2, "Python and R: {}", demo.told);
    for page in plain {
        let url = page["url"].as_str().unwrap();
        let host = url.strip_prefix("https://").unwrap().split(['/', ':']).next().unwrap();
        let name = if host == "127.0.0.1" { "localhost" } else { host };
        let mut client = Client::tls(demo.address(), &trust(demo, name)).await;
        let answer = client.request("GET", "/", &[("Host", name), ("Accept", "text/html")], b"").await;
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
        assert!(answer.text().contains("shiny"), "{page}");
    }
}

/// Each content it names is there.
async fn shows(demo: &Demo) {
    let content = demo.told["content"].as_array().unwrap();
    let names: Vec<_> = content.iter().map(|content| content["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shiny-python", "shiny-r", "fastapi", "static", "notebook"], "{}", demo.told);
    for (content, words) in content.iter().zip(["shiny", "shiny", "interest", "as it was published", "steps, from"]) {
        let path = format!("/content/{}/", content["guid"].as_str().unwrap());
        assert_eq!(content["url"], format!("https://{}{path}", demo.address()));
        let mut client = Client::tls(demo.address(), &trust(demo, "localhost")).await;
        let answer = client.request("GET", &path, &[("Host", "localhost"), ("Accept", "text/html")], b"").await;
        assert!(answer.status == 200 && answer.text().contains(words), "{content}: {answer:?}");
    }
}

/// Who it names is let in to the pages, and finds there what was published.
async fn lets_in(demo: &Demo) {
    let login = |key: &str| demo.told["login"][key].as_str().unwrap();
    assert_eq!(login("url"), format!("https://{}/connect/", demo.address()));
    let mut client = Client::tls(demo.address(), &trust(demo, "localhost")).await;
    let form = client.request("GET", "/connect/login", &[("Host", "localhost"), ("Accept", "text/html")], b"").await;
    let cookie = pages::cookie(&form, "bowline_login").unwrap();
    let (token, name, password) = (pages::value(&form, "token"), login("username"), login("password"));
    let sent = format!("token={token}&username={name}&password={password}&next=/connect/");
    let fields = [
        ("Host", "localhost"),
        ("Accept", "text/html"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Cookie", &cookie),
    ];
    let mut client = Client::tls(demo.address(), &trust(demo, "localhost")).await;
    let answer = client.request("POST", "/connect/login", &fields, sent.as_bytes()).await;
    assert_eq!((answer.status, answer.fields.get("location")), (303, Some("/connect/")), "{}", answer.text());
    let session = pages::cookie(&answer, "__Host-bowline_session").unwrap();
    let fields = [("Host", "localhost"), ("Accept", "text/html"), ("Cookie", &session)];
    let mut client = Client::tls(demo.address(), &trust(demo, "localhost")).await;
    let page = client.request("GET", "/connect/", &fields, b"").await.text();
    for content in demo.told["content"].as_array().unwrap() {
        assert!(page.contains(content["guid"].as_str().unwrap()), "{content}: {page}");
    }
    assert!(page.contains("by demo") && page.contains("/connect/users"), "an administrator's: {page}");
}

#[test]
fn one_line_tells_where_everything_is_and_it_is_there() {
    needs_shiny();
    within(200, async {
        let mut demo = Demo::start_whole().await;
        let keys = [
            "url",
            "ca",
            "admin",
            "admin_socket",
            "config",
            "proxy",
            "nodes",
            "content",
            "pypi",
            "cran",
            "api_key",
            "login",
        ];
        for key in keys {
            assert!(!demo.told[key].is_null(), "`{key}` is missing: {}", demo.told);
        }
        serves(&demo).await;
        shows(&demo).await;
        lets_in(&demo).await;
        for name in ["localhost", "python.localhost", "r.localhost", "127.0.0.1"] {
            assert!(
                Client::try_tls(demo.address(), &trust(&demo, name)).await.is_ok(),
                "the certificate is for {name}"
            );
        }
        assert!(crate::harness::get(demo.admin(), "/readyz").await.status == 200);
        let status =
            crate::harness::bowline(&["status", "--json", "--admin", demo.text("admin_socket")]).await.ok().json();
        assert_eq!(status["pid"], demo.told["proxy"]["pid"]);
        let check = crate::harness::bowline(&["check", demo.text("config")]).await;
        assert_eq!(check.code, Some(0), "its configuration can be taken as a start: {check:?}");
        let apps: Vec<_> =
            demo.told["nodes"].as_array().unwrap().iter().map(|n| n["app"].as_str().unwrap().to_owned()).collect();
        assert_eq!(&apps[..2], ["packages", "packages"], "the package servers first");
        assert!(apps.len() >= 6, "two of each: {apps:?}");

        let children = demo.children();
        assert!(children.iter().all(|p| is_alive(*p)));
        demo.signal(Signal::INT);
        assert_eq!(demo.exit().await.code(), Some(0));
        Demo::until_gone(&children).await;
    });
}

#[test]
fn a_second_demo_beside_the_first_works_and_neither_leaves_anything() {
    needs_shiny();
    within(400, async {
        let mut first = Demo::start().await;
        let mut second = Demo::start().await;
        assert_ne!(first.address(), second.address());
        assert_ne!(first.admin(), second.admin());
        serves(&second).await;
        let (of_first, of_second) = (first.children(), second.children());
        // Killed without a chance to clean up, its children end all the same.
        second.signal(Signal::KILL);
        second.exit().await;
        Demo::until_gone(&of_second).await;
        serves(&first).await;
        assert!(of_first.iter().all(|p| is_alive(*p)), "the other one did not notice");
        first.signal(Signal::TERM);
        assert_eq!(first.exit().await.code(), Some(0));
        Demo::until_gone(&of_first).await;
    });
}

/// A newcomer's shell: a Python environment and an R library of their own, and the tools in the search path.
struct Shell(Folder);

impl Shell {
    async fn open() -> Self {
        let folder = Folder::new();
        let environment = folder.path("venv");
        // pip itself is linked to, not copied.
        let told = ["-m", "venv", "--without-pip", environment.to_str().unwrap()];
        run(&tool("python3"), &told, "").await.ok();
        std::fs::create_dir(folder.path("library")).unwrap();
        let python = environment.join("bin/python3");
        let pip =
            format!("#!/bin/sh\nexec '{}' -m pip --python '{}' \"$@\"\n", tool("python3").display(), python.display());
        let pip = folder.write("venv/bin/pip", pip);
        std::fs::set_permissions(pip, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self(folder)
    }

    /// Runs a line as it stands.
    async fn runs(&self, line: &str) -> Output {
        let path = |name: &str| self.0.path(name).to_str().unwrap().to_owned();
        let tools = tool("uv").parent().unwrap().to_str().unwrap().to_owned();
        let places = std::env::var("PATH").unwrap();
        let environment = [
            format!("PATH={}:{places}:{tools}", path("venv/bin")),
            format!("VIRTUAL_ENV={}", path("venv")),
            format!("R_LIBS_USER={}", path("library")),
            // What else this machine is configured with is not what is printed.
            "PIP_CONFIG_FILE=/dev/null".to_owned(),
            "PIP_NO_CACHE_DIR=1".to_owned(),
            "UV_NO_CONFIG=1".to_owned(),
            format!("UV_CACHE_DIR={}", path("uv-cache")),
        ];
        let mut all: Vec<&str> = environment.iter().map(String::as_str).collect();
        all.extend(["sh", "-c", line]);
        run(&tool("env"), &all, "").await
    }

    /// Installs by every line the demo printed; what was installed works, and brought along what it needs.
    async fn installs(&self, told: &str) {
        let line = |of: &str| {
            told.lines().map(str::trim).find(|line| line.contains(of)).unwrap_or_else(|| panic!("{of}: {told}"))
        };
        let (pip, uv) = (line("--cert"), line("uv pip install"));
        assert!(pip.contains("pip install"), "{pip}");
        for python in [pip, uv] {
            self.runs(python).await.ok();
            let said = self.runs("python3 -m bowline_hello").await.ok().stdout;
            assert_eq!(said, "Ahoy, you: this came from your own PyPI.\n");
            self.runs("uv pip uninstall bowline-hello bowline-words").await.ok();
        }
        self.runs(line("install.packages")).await.ok();
        let said = self.runs("Rscript -e 'cat(bowlinehello::hello())'").await.ok().stdout;
        assert_eq!(said, "Ahoy, you: this came from your own CRAN.");
        self.runs("Rscript -e 'remove.packages(c(\"bowlinehello\", \"bowlinewords\"))'").await.ok();
    }
}

/// What the demo prints installs, with all nodes, with one just killed, and after that one is back.
async fn installs_as_printed(arguments: &[&str]) {
    needs_shiny();
    let shell = Shell::open().await;
    let (mut demo, told) = Demo::start_for_people(arguments).await;
    shell.installs(&told).await;
    for (of, word) in [(" repo list ", "cran"), (" doctor ", "same_key")] {
        let line = told.lines().map(str::trim).find(|line| line.contains(of)).unwrap();
        // Nodes find one another's marks a little after their start.
        eventually(line, async || {
            let done = shell.runs(line).await;
            (done.code == Some(0) && done.stdout.contains(word)).then_some(())
        })
        .await;
    }
    demo.kill("node-a");
    shell.installs(&told).await;
    let dead = demo.told["nodes"][0]["pid"].clone();
    eventually("the node to be started again", async || (demo.now()["nodes"][0]["pid"] != dead).then_some(())).await;
    demo.told = demo.now();
    eventually("the proxy to see it", async || (demo.health("packages", "node-a").await == "up").then_some(())).await;
    demo.kill("node-b");
    shell.installs(&told).await;

    let children = demo.children();
    demo.signal(Signal::INT);
    assert_eq!(demo.exit().await.code(), Some(0));
    Demo::until_gone(&children).await;
}

#[test]
fn the_printed_lines_install_packages_while_a_node_dies() {
    within(300, installs_as_printed(&[]));
}

#[test]
fn the_printed_lines_install_packages_from_nodes_on_postgres() {
    within(300, installs_as_printed(&["--postgres"]));
}

#[test]
fn postgres_ends_with_a_demo_that_is_killed_and_serves_the_next_in_its_folder() {
    needs_shiny();
    within(300, async {
        let (mut demo, _) = Demo::start_for_people(&["--postgres", "--nodes", "1"]).await;
        let children = demo.children();
        assert_eq!(children.len(), 5, "proxy, node, PostgreSQL, Python and R: {}", demo.told);
        demo.signal(Signal::KILL);
        demo.exit().await;
        Demo::until_gone(&children).await;
        let mut demo = demo.again(&["--json", "--postgres", "--nodes", "1"]).await;
        let key = demo.text("api_key").to_owned();
        let url = demo.text("url").to_owned();
        let told = ["--server", &url, "--ca-file", demo.text("ca"), "--json"];
        let key_file = std::path::Path::new(demo.text("ca")).with_file_name("keys/api.key");
        assert_eq!(std::fs::read_to_string(&key_file).unwrap(), key);
        let told = [&["repo", "show", "pypi", "--key-file", key_file.to_str().unwrap()], &told[..]].concat();
        let packages = crate::harness::bowline(&told).await.ok().json();
        assert_eq!(packages.as_array().unwrap().len(), 2, "published once: {packages}");
        demo.signal(Signal::INT);
        assert_eq!(demo.exit().await.code(), Some(0));
    });
}
