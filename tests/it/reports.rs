//! Reports: documents that are published as they are written, rendered by the nodes, again when it is time, and shown to who
//! may see them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::content::{Publisher, two_nodes};
use crate::harness::{
    Authority, Client, Folder, Metrics, Node, Output, Postgres, Response, Smtp, eventually, eventually_in, get_as,
    within,
};
use crate::packages::proxy;
use crate::pages::Jar;

/// A notebook of one cell.
fn notebook(code: &str) -> String {
    json!({
        "cells": [{"cell_type": "code", "execution_count": null, "id": "a1", "metadata": {}, "outputs": [], "source": code}],
        "metadata": {"kernelspec": {"display_name": "Some", "language": "python", "name": "some-other-kernel"}},
        "nbformat": 4, "nbformat_minor": 5,
    })
    .to_string()
}

/// Whom the tests publish as, with a mail address.
async fn ann(node: &Node) -> String {
    let own = Folder::new();
    let password = own.write("password", "secret of ann").to_str().unwrap().to_owned();
    let more = ["--role", "publisher", "--email", "ann@example.org", "--password-file", &password];
    node.command(&[&["user", "create", "ann"][..], &more].concat()).await;
    node.command(&["key", "create", "--user", "ann", "--scope", "publish"]).await
}

/// Asks the API of a node.
async fn api(node: &Node, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let mut client = Client::tcp(&node.address).await;
    let authorization = format!("Key {key}");
    let fields = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.request(method, &format!("/__api__{path}"), &fields, body.as_bytes()).await
}

/// A page of content.
async fn page(node: &Node, key: &str, path: &str) -> Response {
    get_as(&node.address, path, &[("authorization", &format!("Key {key}"))]).await
}

fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

/// RFC 3339, so many seconds from now.
fn soon(seconds: i64) -> String {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64 + seconds;
    jiff::Timestamp::from_second(at).unwrap().to_string()
}

#[test]
fn a_notebook_is_rendered_and_again_when_it_is_time_and_who_wrote_it_hears_of_its_failure() {
    within(300, async {
        let (database, mail) = (Postgres::start(), Smtp::start().await);
        let more = format!(
            "[database]\nurl = \"{}\"\n[mail]\nserver = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
             from = \"Reports <reports@example.org>\"\n",
            database.url(),
            mail.port
        );
        let (a, b) = two_nodes(&more).await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = ann(&a).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let folder = Folder::new();
        let code = "import os, random\nassert 'FAIL' not in os.environ, 'it was to fail'\nprint('answer', 6 * 7, random.random())";
        let file = folder.write("report.ipynb", notebook(code));
        folder.write("requirements.txt", "ipykernel\n");
        folder.write("secret.csv", "never shown");
        let file = file.to_str().unwrap();
        let more = ["--title", "Weekly", file, folder.path("secret.csv").to_str().unwrap()].map(str::to_owned);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let told = publisher.runs(&["deploy", "notebook"], &more).await.ok();
        let guid = Publisher::guid(&told);
        let path = format!("/content/{guid}/");
        let first = eventually("the page", async || {
            let seen = page(&a, &key, &path).await;
            (seen.status == 200).then_some(seen)
        })
        .await;
        assert!(first.text().contains("answer 42"), "{}", first.text());
        eventually("the same on the other node", async || {
            (page(&b, &key, &path).await.text() == first.text()).then_some(())
        })
        .await;
        assert_eq!(page(&b, &key, &format!("{path}secret.csv")).await.status, 404, "what was only read is not shown");
        assert_eq!(get_as(&a.address, &path, &[]).await.status, 401);

        // In a second, and every minute after that.
        let variants = api(&b, &key, "GET", &format!("/applications/{guid}/variants"), &Value::Null).await.json();
        let (id, number) = (variants[0]["id"].clone(), variants[0]["rendering_id"].as_i64().unwrap());
        let schedule = json!({"app_id": id, "variant_id": id, "type": "minute", "schedule": "{\"N\":1}", "activate": true,
            "start_time": soon(2), "timezone": "Europe/Zurich", "email": false});
        let made = api(&a, &key, "POST", "/schedules", &schedule).await;
        assert_eq!(made.status, 200, "{}", made.text());
        assert_eq!(made.json()["timezone"], "Europe/Zurich");
        let second = eventually_in(Duration::from_secs(60), "a second rendering", async || {
            let seen = page(&b, &key, &path).await.text();
            (seen != first.text()).then_some(seen)
        })
        .await;
        assert!(second.contains("answer 42"));
        let old = page(&b, &key, &format!("{path}_rev{number}/")).await;
        assert_eq!(old.text(), first.text(), "what was shown before is kept");
        assert_eq!(get_as(&a.address, &format!("{path}_rev{number}/"), &[]).await.status, 401);

        // It fails: whoever wrote it gets a mail with the reason, and what was there is still shown.
        let set = json!([{"name": "FAIL", "value": "1"}]);
        assert_eq!(api(&a, &key, "PATCH", &format!("/v1{path}environment"), &set).await.status, 200);
        let at = api(&a, &key, "GET", &format!("/variants/{id}/schedules"), &Value::Null).await.json()[0]["id"].clone();
        let again = json!({"type": "day", "schedule": "{\"N\":1}", "start_time": soon(4)});
        assert_eq!(api(&b, &key, "POST", &format!("/schedules/{at}"), &again).await.status, 200);
        let letter = tokio::time::timeout(Duration::from_secs(60), mail.letter()).await.expect("a mail");
        let seen = page(&a, &key, &path).await;
        for words in ["To: ann@example.org", "Subject: Failed: Weekly", "it was to fail", "is still shown"] {
            assert!(letter.contains(words), "{words} in {letter}");
        }
        assert_eq!(seen.text(), second, "what was shown before is still shown");
        let next = api(&a, &key, "GET", &format!("/schedules/{at}"), &Value::Null).await.json()["next_run"].clone();
        assert!(next.as_str().unwrap() > soon(23 * 3600).as_str(), "{next}: tomorrow");
        assert_eq!(api(&b, &key, "DELETE", &format!("/schedules/{at}"), &Value::Null).await.status, 204);

        // One that cannot be rendered is not published, and the client says why.
        folder.write("report.ipynb", notebook("raise RuntimeError('no luck today')"));
        let broken = publisher.runs(&["deploy", "notebook"], &["--app-id", &guid, file]).await;
        assert!(broken.code != Some(0) && said(&broken).contains("no luck today"), "{}", said(&broken));
        assert_eq!(page(&a, &key, &path).await.text(), second);

        // Whichever node did what was counted. A client deploys twice: a draft, which it looks at, then the same for all.
        let (one, other) = (metrics(&a).await, metrics(&b).await);
        let both =
            |name: &str, labels: &[(&str, &str)]| one.strict().sum(name, labels) + other.strict().sum(name, labels);
        let rendered =
            |outcome| both("bowline_node_renders_total", &[("mode", "jupyter-static"), ("outcome", outcome)]);
        assert!(rendered("done") >= 2.0 && rendered("failed") == 2.0, "{}\n{}", one.text, other.text);
        let ended = |kind, state| both("bowline_node_jobs_total", &[("kind", kind), ("state", state)]);
        assert!(ended("report", "done") >= 1.0);
        assert_eq!((ended("deploy", "done"), ended("deploy", "failed"), ended("report", "failed")), (2.0, 1.0, 1.0));
        assert_eq!(both("bowline_node_job_duration_seconds_count", &[("kind", "deploy")]), 3.0);
    });
}

async fn metrics(node: &Node) -> Metrics {
    Metrics::parse(get_as(&node.address, "/metrics", &[]).await.text())
}

#[test]
fn a_page_says_when_a_document_is_rendered_and_renders_it_now() {
    within(240, async {
        let (a, b) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = ann(&a).await;
        let folder = Folder::new();
        let file = folder.write("report.ipynb", notebook("import random\nprint('drawn', random.random())"));
        folder.write("requirements.txt", "ipykernel\n");
        let publisher = Publisher::new(&proxy, key.clone());
        let told = publisher.runs(&["deploy", "notebook"], &[file.to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let first = eventually("the page", async || {
            let seen = page(&a, &key, &format!("/content/{guid}/")).await;
            (seen.status == 200).then(|| seen.text())
        })
        .await;

        let (_, jar) = Jar::log_in(&a, "ann", "secret of ann", "/connect/", &[]).await;
        let at = format!("/connect/content/{guid}/schedule");
        let shown = async || jar.get(&a, &at, &[]).await.text();
        let token = jar.token(&a).await;
        let post = async |node: &Node, token: &str, form: &str| {
            let answer = jar.post(node, &at, &[], &format!("token={token}&{form}")).await;
            (answer.status, answer.fields.get("location").map(str::to_owned))
        };
        let back = (303, Some(at.clone()));
        let before = shown().await;
        assert!(before.contains("It is not scheduled") && before.contains("Render now"), "{before}");
        assert!(before.contains("shown</span>") && !before.contains("No schedule"), "{before}");
        let daily = "do=set&type=day&n=2&day=1&start=2031-03-30T02:30&zone=Europe%2FZurich&mails=on";
        assert_eq!(post(&a, "another", daily).await.0, 403);
        assert!(shown().await.contains("It is not scheduled"), "without its token the form does nothing");
        assert_eq!(post(&a, &token, daily).await, back);
        let set = shown().await;
        // That night clocks went from two to three.
        for words in
            ["every 2 days, Europe/Zurich", "No schedule", "value=\"2031-03-30T03:30\"", "2031-03-30</time>", "checked"]
        {
            assert!(set.contains(words), "{words}: {set}");
        }
        assert_eq!(post(&a, &token, "do=set&type=day&n=2&start=2031-03-30T02:30&zone=Europe%2FNowhere").await.0, 400);
        let monthly = "do=set&type=dayofmonth&n=3&day=31&start=2031-01-31T08:00&zone=UTC";
        assert_eq!(post(&b, &token, monthly).await, back);
        let changed = shown().await;
        for words in ["2031-01-31</time>", "value=\"dayofmonth\" selected", "name=\"day\" type=\"number\""] {
            assert!(changed.contains(words), "{words}: {changed}");
        }
        assert!(changed.contains("name=\"zone\" value=\"UTC\"") && !changed.contains("checked"), "{changed}");
        let told = api(&b, &key, "GET", &format!("/applications/{guid}/variants"), &Value::Null).await.json();
        let kept = format!("/variants/{}/schedules", told[0]["id"]);
        let schedules = api(&b, &key, "GET", &kept, &Value::Null).await.json();
        assert_eq!((&schedules[0]["type"], schedules.as_array().unwrap().len()), (&"dayofmonth".into(), 1));

        let (status, location) = post(&a, &token, "do=render").await;
        let log = location.unwrap();
        assert!(status == 303 && log.starts_with(&format!("/connect/content/{guid}/logs?task=")), "{status} {log}");
        eventually_in(Duration::from_secs(60), "another rendering", async || {
            let seen = page(&b, &key, &format!("/content/{guid}/")).await;
            (seen.status == 200 && seen.text() != first).then_some(())
        })
        .await;
        assert!(jar.get(&a, &log, &[]).await.text().contains("Rendering"));
        let listed = shown().await;
        for number in [1, 2] {
            let look = format!("/connect/open?next=/content/{guid}/_rev{number}/");
            assert!(listed.contains(&look), "{look}: {listed}");
        }
        assert_eq!(listed.matches("shown</span>").count(), 1, "the latest: {listed}");

        assert_eq!(post(&a, &token, "do=remove").await, back);
        assert!(shown().await.contains("It is not scheduled"));
        assert_eq!(api(&b, &key, "GET", &kept, &Value::Null).await.json(), json!([]));
    });
}

#[test]
fn what_a_killed_node_was_rendering_another_one_renders() {
    within(240, async {
        let (a, b) = two_nodes("").await;
        let ca = Authority::new();
        let proxy = proxy(&[&a, &b], &ca).await;
        let key = ann(&a).await;
        let publisher = Publisher::new(&proxy, key.clone());
        let folder = Folder::new();
        let code =
            "import os, random, time\ntime.sleep(int(os.environ.get('SLOW', 0)))\nprint('drawn', random.random())";
        let file = folder.write("report.ipynb", notebook(code));
        folder.write("requirements.txt", "ipykernel\n");
        let told = publisher.runs(&["deploy", "notebook"], &[file.to_str().unwrap()]).await.ok();
        let guid = Publisher::guid(&told);
        let path = format!("/content/{guid}/");
        let first = eventually("the page", async || {
            let seen = page(&a, &key, &path).await;
            (seen.status == 200).then(|| seen.text())
        })
        .await;
        let set = json!([{"name": "SLOW", "value": "4"}]);
        assert_eq!(api(&a, &key, "PATCH", &format!("/v1{path}environment"), &set).await.status, 200);
        let variants = api(&a, &key, "GET", &format!("/applications/{guid}/variants"), &Value::Null).await.json();
        let schedule =
            json!({"variant_id": variants[0]["id"], "type": "day", "schedule": "{\"N\":1}", "start_time": soon(4)});
        assert_eq!(api(&a, &key, "POST", "/schedules", &schedule).await.status, 200);
        let running = eventually("a scheduled run", async || {
            let jobs = api(&a, &key, "GET", &format!("/v1{path}jobs"), &Value::Null).await.json();
            let running =
                jobs.as_array().unwrap().iter().find(|job| job["queue_name"] == "report" && job["status"] == 0)?;
            running["hostname"].is_string().then(|| running.clone())
        })
        .await;
        assert_eq!((&running["tag"], &running["end_time"]), (&"build_jupyter".into(), &Value::Null));
        let mut nodes = [a, b];
        let at = usize::from(running["hostname"] == "b");
        nodes[at].kill().await;
        let other = &nodes[1 - at];
        let second = eventually_in(Duration::from_secs(90), "a rendering by the other node", async || {
            let seen = page(other, &key, &path).await.text();
            (seen != first).then_some(seen)
        })
        .await;
        assert!(second.contains("drawn 0."), "{second}");
        let job = format!("/v1{path}jobs/{}", running["key"].as_str().unwrap());
        let ended = eventually("the end of the job", async || {
            let job = api(other, &key, "GET", &job, &Value::Null).await.json();
            (job["status"] == 2).then_some(job)
        })
        .await;
        assert_eq!((&ended["exit_code"], &ended["hostname"]), (&0.into(), &["b", "a"][at].into()));
        let log = api(other, &key, "GET", &format!("{job}/log?maxLogLines=50"), &Value::Null).await.text();
        assert!(log.contains("attempt 2: the node that had it before left or died"), "{log}");
        let told = other
            .command(&[
                "content",
                "schedule",
                "report",
                "--type",
                "dayofweek",
                "--day",
                "1,3",
                "--timezone",
                "Asia/Tokyo",
            ])
            .await;
        assert!(told.starts_with("Monday, Wednesday, Asia/Tokyo; next at 20"), "{told}");
        assert_eq!(other.command(&["content", "schedule", "report", "--remove"]).await, "it is not scheduled");
        assert!(other.command(&["content", "log", "report"]).await.contains("attempt 2"), "of the latest job");
        let id = variants[0]["id"].as_i64().unwrap();
        let renderings = api(other, &key, "GET", &format!("/variants/{id}/renderings"), &Value::Null).await.json();
        assert_eq!(renderings.as_array().unwrap().len(), 2, "{renderings}");
    });
}
