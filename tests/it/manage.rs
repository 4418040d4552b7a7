//! Managing repositories: the commands, on the node's own machine and from another one through the TLS proxy.

use serde_json::Value;

use crate::builder::Repository;
use crate::harness::{Authority, Folder, Node, Output, bowline, eventually, get, within};
use crate::packages::{Trusting, base, make, proxy};

/// Commands that speak to a cluster from somewhere else.
struct Far {
    url: String,
    ca: String,
    key: String,
}

impl Far {
    async fn runs(&self, arguments: &[&str]) -> Output {
        let there = ["--server", &self.url, "--ca-file", &self.ca, "--key-file", &self.key];
        bowline(&[arguments, &there].concat()).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let done = self.runs(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"))
    }
}

#[test]
fn every_verb_works_from_another_machine_and_clients_see_what_it_did() {
    within(120, async {
        let a = Node::start("a", "").await;
        let b = a.beside("b").await;
        let admin = a.command(&["key", "create", "--admin"]).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let pem = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        let own = Folder::new();
        let key = own.write("key", format!("{admin}\n")).to_str().unwrap().to_owned();
        let far = Far { url: base(&proxy), ca: pem.clone(), key };
        let client = Trusting(pem);

        assert_eq!(far.runs(&["repo", "create", "pypi"]).await.ok().stdout, "made: /packages/pypi/\n");
        let again = far.runs(&["repo", "create", "pypi"]).await;
        assert!(again.code == Some(1) && again.stderr == "There is a repository `pypi` already\n", "{again:?}");
        let wrong = far.runs(&["repo", "create", "../x"]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("is no name of a repository"), "{wrong:?}");
        far.runs(&["repo", "create", "cran", "--type", "cran", "--private"]).await.ok();
        let unnamed = far.json(&["key", "create"]).await;
        let host = client.runs("uname", &["-n"]).await.ok().stdout;
        let named = unnamed["name"].as_str().unwrap();
        assert!(named.ends_with(&format!("@{}", host.trim())) && !named.starts_with('@'), "{named}");
        let listed = far.runs(&["repo", "list"]).await.ok().stdout;
        let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1..], [vec!["cran", "cran", "yes", "cran"], vec!["pypi", "pypi", "no", "pypi"]], "{listed}");

        let files = Folder::new();
        let one = make(&files, "alpha", "1.0", "one").await;
        let two = make(&files, "alpha", "2.0", "two").await;
        let told = far.runs(&["add", "pypi", &one[0], &one[1], &two[0]]).await.ok();
        assert!(told.stderr.contains("3/3 alpha-2.0-py3-none-any.whl: published"), "{told:?}");
        let again = far.runs(&["add", "pypi", &one[0]]).await.ok();
        assert!(again.stderr.contains("it was there already"), "{again:?}");
        let changed = make(&files, "alpha", "1.0", "changed").await;
        let refused = far.runs(&["add", "pypi", &changed[0]]).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("with other content"), "{refused:?}");

        // What pip would choose now.
        let latest = async || {
            let index = format!("{}/packages/pypi/simple/", base(&proxy));
            let told =
                ["-m", "pip", "--disable-pip-version-check", "index", "versions", "alpha", "--index-url", &index];
            client.runs("python3", &told).await.stdout.lines().next().unwrap_or_default().to_owned()
        };
        let page = async |node: &Node| get(&node.address, "/packages/pypi/simple/alpha/").await.text();
        let seen = async |what: &str, words: &str, there: bool| {
            for node in [&a, &b] {
                eventually(what, async || (page(node).await.contains(words) == there).then_some(())).await;
            }
        };
        seen("2.0", "alpha-2.0", true).await;
        assert_eq!(latest().await, "alpha (2.0)");
        let yanked = far.runs(&["yank", "pypi", "Alpha", "2.0", "--reason", "it is <broken>"]).await.ok();
        assert_eq!(yanked.stdout, "alpha: 1 files yanked\n".replace("alpha", "Alpha"));
        seen("the yank", "data-yanked=\"it is &lt;broken&gt;\"", true).await;
        assert_eq!(latest().await, "alpha (1.0)");
        far.runs(&["yank", "pypi", "alpha", "2.0", "--undo"]).await.ok();
        seen("no yank", "data-yanked", false).await;
        let none = far.runs(&["yank", "pypi", "alpha", "9.0"]).await;
        assert!(none.code == Some(1) && none.stderr.contains("There is no file of `alpha`"), "{none:?}");
        assert_eq!(far.runs(&["yank", "pypi", "alpha"]).await.code, Some(64));

        far.runs(&["repo", "status", "pypi", "alpha", "quarantined", "--reason", "malware"]).await.ok();
        for node in [&a, &b] {
            eventually("the quarantine", async || {
                (get(&node.address, "/packages/pypi/simple/alpha/").await.status == 404).then_some(())
            })
            .await;
        }
        far.runs(&["repo", "status", "pypi", "alpha", "active"]).await.ok();
        far.runs(&["archive", "pypi", "alpha"]).await.ok();
        seen("the archived project", "content=\"archived\"", true).await;
        let closed = far.runs(&["add", "pypi", &two[1]]).await;
        assert!(closed.code == Some(1) && closed.stderr.contains("`alpha` is archived"), "{closed:?}");
        far.runs(&["archive", "pypi", "alpha", "--undo"]).await.ok();
        far.runs(&["remove", "pypi", "alpha", "1.0"]).await.ok();
        seen("the removal", "alpha-1.0", false).await;
        let name = far.runs(&["add", "pypi", &one[0]]).await;
        assert!(name.code == Some(1) && name.stderr.contains("already exists"), "a name is given once: {name:?}");
        let shown = far.json(&["repo", "show", "pypi", "alpha"]).await;
        assert_eq!(shown["files"].as_array().unwrap().len(), 1);

        // Keys: one that publishes to one repository, for a while.
        let publisher = far
            .json(&["key", "create", "--name", "ci", "--scope", "publish", "--repository", "cran", "--expires", "1h"])
            .await;
        let small = Far {
            key: own.write("ci", publisher["key"].as_str().unwrap()).to_str().unwrap().to_owned(),
            ..Far { url: far.url.clone(), ca: far.ca.clone(), key: String::new() }
        };
        let refused = small.runs(&["add", "pypi", &two[1]]).await;
        assert!(
            refused.code == Some(1) && refused.stderr.contains("does not allow to publish to `pypi`"),
            "{refused:?}"
        );
        assert!(small.runs(&["repo", "create", "x"]).await.stderr.contains("does not allow to administrate"));
        assert_eq!(small.runs(&["repo", "show", "cran"]).await.code, Some(0));
        let keys = far.json(&["key", "list"]).await;
        let ci = keys.as_array().unwrap().iter().find(|key| key["name"] == "ci").unwrap();
        assert!(ci["expires"].is_string() && !keys.to_string().contains("bwl_"), "{keys}");
        far.runs(&["key", "revoke", ci["id"].as_str().unwrap()]).await.ok();
        eventually("the revocation", async || {
            (small.runs(&["repo", "show", "cran"]).await.code == Some(1)).then_some(())
        })
        .await;

        let audit = far.runs(&["audit"]).await.ok().stdout;
        for deed in ["create_repository", "publish", "yank", "set_status", "remove", "create_key", "revoke_key"] {
            assert!(audit.contains(deed), "{deed}: {audit}");
        }
        assert!(audit.contains("127.0.0.1") && audit.contains("host"), "{audit}");

        far.runs(&["source", "create", "more"]).await.ok();
        far.runs(&["repo", "edit", "pypi", "--private", "true", "--source", "pypi", "--source", "more"]).await.ok();
        eventually("the closed repository", async || {
            (get(&b.address, "/packages/pypi/simple/").await.status == 401).then_some(())
        })
        .await;
        let used = far.runs(&["source", "remove", "more"]).await;
        assert!(used.code == Some(1) && used.stderr.contains("A repository shows source `more`"), "{used:?}");
        far.runs(&["repo", "remove", "pypi"]).await.ok();
        far.runs(&["source", "remove", "more"]).await.ok();
        // Its packages are still there for a new repository of that name, also from the machine itself.
        a.command(&["repo", "create", "pypi"]).await;
        assert!(a.command(&["repo", "show", "pypi"]).await.contains("alpha"));
    });
}

#[test]
fn commands_say_what_they_miss() {
    within(30, async {
        let nowhere = bowline(&["repo", "list"]).await;
        assert!(nowhere.code == Some(64) && nowhere.stderr.contains("--server URL"), "{nowhere:?}");
        let keyless = bowline(&["repo", "list", "--server", "https://127.0.0.1:9"]).await;
        assert!(keyless.code == Some(64) && keyless.stderr.contains("--key-file"), "{keyless:?}");
        let folder = Folder::new();
        let key = folder.write("key", "bwl_x").to_str().unwrap().to_owned();
        let away = bowline(&["repo", "list", "--json", "--server", "https://127.0.0.1:9", "--key-file", &key]).await;
        assert!(away.code == Some(1) && away.stdout.starts_with("{\"error\":"), "{away:?}");
        let node = Node::start("a", "").await;
        let url = format!("http://{}", node.address);
        let wrong = bowline(&["repo", "list", "--server", &url, "--key-file", &key]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("does not hold"), "{wrong:?}");
    });
}

#[test]
fn what_a_repository_blocks_is_not_given_and_clients_read_why() {
    within(60, async {
        let far = Node::start("far", "").await;
        far.command(&["repo", "create", "pypi"]).await;
        let files = Folder::new();
        let [other, _] = make(&files, "other", "1.0", "x").await;
        let [evil, _] = make(&files, "evil", "1.0", "x").await;
        far.command(&["add", "pypi", &other, &evil]).await;
        let node = Node::start("a", "").await;
        let url = format!("http://{}/packages/pypi/simple", far.address);
        node.command(&["source", "create", "own"]).await;
        node.command(&["source", "create", "chosen", "--url", &url, "--allow", "Other"]).await;
        node.command(&["repo", "create", "pypi", "--source", "own", "--source", "chosen"]).await;
        for version in ["1.0", "2.0"] {
            let [alpha, _] = make(&files, "alpha", version, version).await;
            node.command(&["add", "pypi", &alpha]).await;
        }
        node.command(&["repo", "block", "pypi", "Alpha", "--versions", ">=2", "--reason", "it eats data"]).await;
        let page = eventually("the rule", async || {
            let page = get(&node.address, "/packages/pypi/simple/alpha/").await.text();
            page.contains("it eats data").then_some(page)
        });
        let page = page.await;
        let link = page.split('"').find(|text| text.contains("alpha-2.0") && text.contains('#')).unwrap();
        let refused = get(&node.address, &link.split('#').next().unwrap().replace("../../", "/packages/pypi/")).await;
        assert!(
            refused.status == 403 && refused.text().contains("alpha 2.0 is blocked in repository pypi: it eats data")
        );

        let client = Trusting(String::from("/dev/null"));
        let index = format!("http://{}/packages/pypi/simple/", node.address);
        let install = async |what: &str| {
            let to = files.path(what).to_str().unwrap().to_owned();
            let told = ["-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--index-url", &index];
            client.runs("python3", &[&told[..], &["--target", &to, what]].concat()).await
        };
        assert!(install("alpha").await.ok().stdout.contains("alpha-1.0"), "another version is chosen");
        let insisted = install("alpha==2.0").await;
        let words = format!("{}{}", insisted.stdout, insisted.stderr);
        assert!(insisted.code == Some(1) && words.contains("it eats data"), "{words}");
        node.command(&["repo", "unblock", "pypi", "alpha"]).await;
        node.command(&["repo", "block", "pypi", "alpha", "--reason", "all of it"]).await;
        let insisted = install("alpha").await;
        let words = format!("{}{}", insisted.stdout, insisted.stderr);
        assert!(insisted.code == Some(1) && words.contains("all of it"), "{words}");
        assert!(node.command(&["repo", "blocks", "pypi"]).await.contains("all of it"));

        // Of the other index only what was chosen.
        install("other").await.ok();
        assert_eq!(get(&node.address, "/packages/pypi/simple/evil/").await.status, 404);
        node.command(&["source", "edit", "chosen", "--allow-all"]).await;
        eventually("all of it", async || {
            (get(&node.address, "/packages/pypi/simple/evil/").await.status == 200).then_some(())
        })
        .await;
        let rule = ["repo", "block", "pypi", "x", "--versions", "new", "--reason", "x", "-c", &node.config()];
        assert_eq!(bowline(&rule).await.code, Some(1));
    });
}

#[test]
fn work_in_the_background_and_downloads_are_seen_and_steered_from_another_machine() {
    within(120, async {
        let a = Node::start("a", "[jobs]\nbuild = 0\n").await;
        let b = a.beside("b").await;
        let admin = a.command(&["key", "create", "--admin", "--name", "ann"]).await;
        let proxy = proxy(&[&a, &b], &Authority::new()).await;
        let ca = proxy.folder.path("ca.pem").to_str().unwrap().to_owned();
        let own = Folder::new();
        let with = |name: &str, key: &str| Far {
            url: base(&proxy),
            ca: ca.clone(),
            key: own.write(name, key).to_str().unwrap().to_owned(),
        };
        let far = with("admin", &admin);
        let git = Repository::new().await;
        git.commit(&[("DESCRIPTION", "Package: tidy\nVersion: 1.0\n")]).await;
        git.git(&["tag", "v1.0"]).await;
        far.runs(&["source", "create", "own"]).await.ok();
        far.runs(&["source", "create", "tidy", "--git", &git.url()]).await.ok();
        far.runs(&["source", "create", "more", "--url", "https://127.0.0.1:9/simple/"]).await.ok();
        far.runs(&["repo", "create", "pypi", "--source", "own", "--source", "tidy"]).await.ok();

        // Looking into git, and what is to be built, which no node here does.
        let said = far.runs(&["sync", "tidy", "--follow"]).await.ok().stdout;
        assert!(said.contains("to be built: v1.0 at ") && said.ends_with("done: 1 new\n"), "{said}");
        let builds = far.json(&["job", "list", "--kind", "build"]).await;
        assert_eq!((builds[0]["state"].as_str(), builds[1].is_null()), (Some("waiting"), true), "{builds}");
        let build = builds[0]["id"].as_str().unwrap();
        assert!(far.runs(&["job", "log", build]).await.ok().stdout.contains("waiting"));
        assert_eq!(far.runs(&["job", "cancel", build]).await.ok().stdout, format!("cancelled: {build}\n"));
        let again = far.runs(&["job", "cancel", build]).await;
        assert!(again.code == Some(1) && again.stderr.contains("has ended already"), "{again:?}");
        let told = far.json(&["sync", "tidy", "--retry", "--follow"]).await;
        assert_eq!(told["job"]["state"], "done", "{told}");
        let listed = far.runs(&["job", "list", "--kind", "build"]).await.ok().stdout;
        assert!(listed.contains("cancelled") && listed.contains("waiting"), "{listed}");
        assert!(far.runs(&["sync", "more"]).await.ok().stdout.contains("is asked again"));
        let absent = far.runs(&["sync", "absent"]).await;
        assert!(absent.code == Some(1) && absent.stderr.contains("`absent`"), "{absent:?}");

        // Nothing is deleted meanwhile.
        assert!(far.runs(&["hold", "--for", "6h"]).await.ok().stdout.starts_with("every blob is kept until 20"));
        assert!(far.json(&["hold", "--show"]).await["until"].is_string());
        let job = far.runs(&["job", "start", "collect"]).await.ok().stdout;
        let id = job.trim_end().strip_prefix("job ").unwrap().to_owned();
        let log = far.runs(&["job", "log", "--follow", &id]).await.ok().stdout;
        assert!(log.contains("done: "), "{log}");
        assert_eq!(far.runs(&["hold", "--release"]).await.ok().stdout, "there is no hold\n");
        assert!(far.json(&["hold", "--show"]).await["until"].is_null());
        assert_eq!(far.runs(&["job", "log", "17"]).await.code, Some(1));

        // Downloads, by whichever node.
        let files = Folder::new();
        let alpha = make(&files, "alpha", "1.0", "a").await;
        far.runs(&["add", "pypi", &alpha[0]]).await.ok();
        let client = Trusting(ca.clone());
        for node in [&a, &b] {
            eventually("the package", async || {
                (get(&node.address, "/packages/pypi/simple/alpha/").await.status == 200).then_some(())
            })
            .await;
        }
        let index = format!("{}/packages/pypi/simple/", base(&proxy));
        for round in ["1", "2", "3"] {
            let to = files.path(round).to_str().unwrap().to_owned();
            let told = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-cache-dir", "-d", &to];
            client.runs("python3", &[&told[..], &["--index-url", &index, "alpha"]].concat()).await.ok();
        }
        eventually("the downloads", async || {
            let told = far.json(&["stats", "pypi", "alpha", "--by", "client"]).await;
            (told == serde_json::json!([{ "client": "pip", "downloads": 3 }])).then_some(())
        })
        .await;
        let told = far.runs(&["stats", "pypi"]).await.ok().stdout;
        let words: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["PACKAGE", "DOWNLOADS"], ["alpha", "3"]]);
        let by_day = far.json(&["stats", "pypi", "--by", "day"]).await;
        assert_eq!((by_day[0]["downloads"].as_u64(), by_day[1].is_null()), (Some(3), true), "{by_day}");
        let absent = far.runs(&["stats", "absent"]).await;
        assert!(absent.code == Some(1) && absent.stderr.contains("`absent`"), "{absent:?}");

        // What a key allows.
        let made = async |scope: &str, more: &[&str]| {
            let told = far.json(&[&["key", "create", "--scope", scope], more].concat()).await;
            with(scope, told["key"].as_str().unwrap())
        };
        let reader = made("read", &["--repository", "pypi"]).await;
        reader.runs(&["stats", "pypi"]).await.ok();
        let publisher = made("publish", &[]).await;
        publisher.runs(&["job", "list"]).await.ok();
        publisher.runs(&["hold", "--show"]).await.ok();
        for (who, verb) in [
            (&reader, &["job", "list"][..]),
            (&reader, &["hold", "--for", "1h"]),
            (&publisher, &["hold", "--for", "1h"]),
            (&publisher, &["job", "start", "collect"]),
            (&publisher, &["job", "cancel", build]),
            (&reader, &["sync", "tidy"]),
        ] {
            let refused = who.runs(verb).await;
            assert!(refused.code == Some(1) && refused.stderr.contains("does not allow to"), "{verb:?}: {refused:?}");
        }
        let audit = far.json(&["audit"]).await;
        for (action, subject) in
            [("hold", "garbage"), ("cancel_job", build), ("sync_source", "tidy"), ("create_job", "collect")]
        {
            let is_there =
                |deed: &&Value| deed["action"] == action && deed["subject"] == subject && deed["who"] == "ann";
            assert!(audit.as_array().unwrap().iter().any(|deed| is_there(&deed)), "{action}: {audit}");
        }
    });
}
