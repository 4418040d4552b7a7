//! How pages look: nothing is cut off on a phone, whatever can be used has a label, headings are in order, and text can be read in
//! the light and in the dark.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::tools;
use crate::harness::{Client, Folder, Node, eventually, eventually_in, run, script, tool, within};
use crate::packages::make;
use crate::pages::{api, people, site};

/// Pictures of every page go into this folder, for people to look at.
const PICTURES: &str = "BOWLINE_TEST_PICTURES";

/// A bundle is deployed, and its task has ended; whether well.
async fn deployed(node: &Node, key: &str, name: &str, manifest: &Value, files: &[(&str, &str)]) -> (String, bool) {
    let made = api(node, key, "POST", "/content", &json!({ "name": name })).await.json();
    let guid = made["guid"].as_str().unwrap().to_owned();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let manifest = manifest.to_string();
    for (name, text) in files.iter().chain(&[("manifest.json", &*manifest)]) {
        let mut head = tar::Header::new_gnu();
        head.set_size(text.len() as u64);
        head.set_mode(0o644);
        tar.append_data(&mut head, name, text.as_bytes()).unwrap();
    }
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    let fields = [("authorization", &*format!("Key {key}"))];
    let path = format!("/__api__/v1/content/{guid}/bundles");
    let sent = Client::tcp(&node.address).await.request("POST", &path, &fields, &bytes).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    let begun = api(node, key, "POST", &format!("/content/{guid}/deploy"), &json!({})).await.json();
    let task = format!("/tasks/{}?wait=5", begun["task_id"].as_str().unwrap());
    let told = eventually_in(Duration::from_secs(120), "the deployment", async || {
        let told = api(node, key, "GET", &task, &Value::Null).await.json();
        (told["finished"] == true).then_some(told)
    })
    .await;
    (guid, told["code"] == 0)
}

fn python(mode: &str, entrypoint: &str) -> Value {
    json!({
        "version": 1, "metadata": { "appmode": mode, "entrypoint": entrypoint },
        "python": { "version": "3.11.2", "package_manager": { "name": "pip", "package_file": "requirements.txt" } },
    })
}

const NOTEBOOK: &str = r#"{"cells": [{"cell_type": "code", "execution_count": null, "id": "a1", "metadata": {}, "outputs": [],
    "source": "print(6 * 7)"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"#;
/// Slow enough for browsers to be told that it starts.
const SLOW: &str = "import time\ntime.sleep(6)\nfrom fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef root():\n    return 1\n";
const README: &str = "# Alpha\n\nWhat it is for, [where it lives](https://alpha.example/a/rather/long/address/of/a/page/somewhere.html).\n\n\
    ### Use\n\n```python\nimport alpha; alpha.does_something_with(a_long_name=1, another_long_name=2, and_one_more=3)\n```\n\n\
    | column | another column | and a third one with words |\n|---|---|---|\n| a | b | c_d_e_f_g_h_i_j_k_l_m_n_o_p_q_r_s_t |\n";
const TITLE: &str =
    "Sales of all regions and branches, by quarter and product line, with what was forecast and what became of it";

#[test]
fn every_page_fits_a_phone_and_can_be_read_by_everybody() {
    within(400, async {
        let node = crate::api::node("").await;
        let [admin, bob, _] = people(&node).await;
        let own = Folder::new();

        // People.
        let long = "maximiliane.von-und-zu-hohenlohe-schillingsfuerst";
        let mail = format!("{long}@a-department.of-a-company.example.org");
        let names = ["--first-name", "Maximiliane", "--last-name", "von und zu Hohenlohe-Schillingsfürst"];
        node.command(&[&["user", "create", long, "--email", &mail][..], &names].concat()).await;
        node.command(&["user", "lock", long]).await;
        let group = "Everybody who works for the department of regional sales";
        node.command(&["group", "create", group]).await;
        node.command(&["group", "add", group, "bob", "cy", long]).await;
        node.command(&["group", "create", "Empty"]).await;
        for name in ["laptop", "the-continuous-integration-of-the-forecast"] {
            node.command(&["key", "create", "--user", "ann", "--name", name, "--scope", "publish"]).await;
        }

        // Packages.
        node.command(&["repo", "create", "cran", "--type", "cran"]).await;
        let mut files = Vec::new();
        for n in 0..12 {
            files.extend(make(&own, "alpha", &format!("1.{n}.0"), &format!("readme:{README}")).await);
        }
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        node.command(&[&["add", "pypi"][..], &files].concat()).await;
        node.command(&["yank", "pypi", "alpha", "1.3.0"]).await;
        node.command(&[
            "repo",
            "status",
            "pypi",
            "alpha",
            "deprecated",
            "--reason",
            "beta does all of this, and faster",
        ])
        .await;

        // Content.
        let report = site(&node, &admin, "report", "<h1>Report</h1>").await;
        let about = json!({ "title": TITLE, "description": "Made every Monday.\nAsk sales.", "access_type": "acl" });
        api(&node, &admin, "PATCH", &format!("/content/{report}"), &about).await;
        api(
            &node,
            &admin,
            "PUT",
            &format!("/content/{report}/vanity"),
            &json!({ "path": "/sales/of/all/regions/and/branches/" }),
        )
        .await;
        let variables = json!([{ "name": "DATABASE_PASSWORD_OF_THE_WAREHOUSE_FOR_READING_ONLY", "value": "x" }, { "name": "A", "value": "b" }]);
        api(&node, &admin, "PATCH", &format!("/content/{report}/environment"), &variables).await;
        for user in api(&node, &admin, "GET", "/users", &Value::Null).await.json()["results"].as_array().unwrap() {
            let wish = json!({ "principal_guid": user["guid"], "principal_type": "user", "role": "viewer" });
            if user["username"] != "cy" {
                api(&node, &admin, "POST", &format!("/content/{report}/permissions"), &wish).await;
            }
        }
        let fastapi = [("app.py", SLOW), ("requirements.txt", "fastapi\n")];
        let (slow, is_good) = deployed(&node, &admin, "slow", &python("python-fastapi", "app"), &fastapi).await;
        assert!(is_good);
        let broken = [("app.py", "raise RuntimeError('no luck today')\n"), ("requirements.txt", "fastapi\n")];
        let (broken, is_good) = deployed(&node, &bob, "broken", &python("python-fastapi", "app"), &broken).await;
        assert!(!is_good);
        let notebook = [("report.ipynb", NOTEBOOK), ("requirements.txt", "ipykernel\n")];
        let (notebook, is_good) =
            deployed(&node, &admin, "notebook", &python("jupyter-static", "report.ipynb"), &notebook).await;
        assert!(is_good);
        let when = json!({ "type": "dayofweek", "schedule": "{\"Days\":[1,2,3,4,5]}", "timezone": "America/Argentina/Buenos_Aires" });
        assert_eq!(api(&node, &admin, "PUT", &format!("/content/{notebook}/schedule"), &when).await.status, 200);
        let locked = site(&node, &bob, "locked", "<h1>Locked</h1>").await;
        let lock = json!({ "locked": true, "locked_message": "## Moved\n\nto [another place](https://new.example/)", "access_type": "all" });
        assert_eq!(api(&node, &bob, "PATCH", &format!("/content/{locked}"), &lock).await.status, 200);
        for n in 0..30 {
            api(&node, &bob, "POST", "/content", &json!({ "name": format!("draft-{n}"), "access_type": "logged_in" }))
                .await;
        }
        let unpublished = api(&node, &admin, "POST", "/content", &json!({ "name": "unpublished" })).await.json();
        let unpublished = unpublished["guid"].as_str().unwrap().to_owned();

        // The slow one is to start in front of who looks.
        let fields = [("authorization", &*format!("Key {admin}"))];
        let ended = format!("/__api__/applications/{slow}/terminate");
        assert_eq!(Client::tcp(&node.address).await.request("POST", &ended, &fields, b"").await.status, 200);
        eventually("the end of its processes", async || {
            let jobs = api(&node, &admin, "GET", &format!("/content/{slow}/jobs"), &Value::Null).await.json();
            jobs.as_array()?.iter().all(|job| job["status"] != 0).then_some(())
        })
        .await;

        let at = |who: &str, path: &str| json!({ "who": who, "path": path });
        let fails = |who: &str, path: &str, status: u16| json!({ "who": who, "path": path, "status": status });
        let of = |guid: &str, below: &str| format!("/connect/content/{guid}{below}");
        let mut pages = vec![
            at("", "/"),
            at("", "/connect/login"),
            json!({ "who": "", "name": "a wrong password", "path": "/connect/login", "status": 401, "press": "button",
                "fill": { "[name=username]": "ann", "[name=password]": "not it" } }),
            fails("", "/elsewhere/", 404),
            fails("", &format!("/content/{locked}/"), 423),
            fails("cy", &format!("/content/{report}/"), 403),
            fails("cy", &of(&report, ""), 403),
            fails("cy", "/connect/users", 403),
            fails("cy", &of("00000000-0000-4000-8000-000000000000", ""), 404),
            at("cy", "/connect/"),
            at("cy", "/connect/publish"),
            fails("ann", &format!("/content/{slow}/"), 503),
        ];
        for path in [
            "/connect/",
            "/connect/?q=sales",
            "/connect/?q=nothing+is+called+so",
            "/connect/publish",
            "/connect/account",
            "/connect/packages",
            "/connect/packages/cran",
            "/connect/packages/pypi",
            "/connect/packages/pypi?q=nothing",
            "/connect/packages/pypi/alpha",
            "/connect/packages/pypi/pydantic-core",
            "/connect/users",
            "/connect/groups",
            "/connect/nodes",
        ] {
            pages.push(at("ann", path));
        }
        for below in ["", "/access", "/settings", "/variables", "/bundles", "/logs", "/remove"] {
            pages.push(at("ann", &of(&report, below)));
        }
        for (guid, below) in [
            (&slow, ""),
            (&slow, "/logs"),
            (&slow, "/bundles"),
            (&broken, ""),
            (&broken, "/logs"),
            (&broken, "/bundles"),
            (&notebook, ""),
            (&notebook, "/schedule"),
            (&locked, ""),
            (&locked, "/settings"),
            (&unpublished, ""),
            (&unpublished, "/bundles"),
            (&unpublished, "/logs"),
            (&unpublished, "/variables"),
        ] {
            pages.push(at("ann", &of(guid, below)));
        }
        let bundles = api(&node, &admin, "GET", &format!("/content/{broken}/bundles"), &Value::Null).await.json();
        pages.push(at("bob", &of(&broken, &format!("/draft/{}", bundles[0]["id"].as_str().unwrap()))));
        pages.push(
            json!({ "who": "ann", "name": "a new key", "path": "/connect/account", "press": "button[value=create]",
            "fill": { "#keys ~ form [name=name]": "desk" } }),
        );
        pages.push(
            json!({ "who": "ann", "name": "a password that is not changed", "path": "/connect/account", "status": 403,
            "press": "button[value=password]",
            "fill": { "[name=old]": "not it", "[name=new]": "another one", "[name=again]": "another one" } }),
        );

        let (chromium, server) = (tool("chromium"), format!("http://{}", node.address));
        let (count, pages) = (pages.len() + 3, Value::Array(pages).to_string());
        let pictures = std::env::var(PICTURES).unwrap_or_default();
        let words = [&script("looks.mjs"), chromium.to_str().unwrap(), &server, &pages, &pictures];
        let told = run(&tools::node(), &words, "").await.ok().json();
        let problems: Vec<&str> = told["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        assert_eq!(told["count"], count);
    });
}
