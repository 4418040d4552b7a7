//! Work in the background: what nothing refers to is deleted, and nothing else.

use crate::harness::{Folder, Metrics, Node, bowline, eventually, get, get_as, within};
use crate::packages::make;

pub async fn collect(node: &Node) -> String {
    let id = node.command(&["job", "start", "collect"]).await;
    node.command(&["job", "log", "--follow", id.trim_start_matches("job ")]).await
}

fn blobs(node: &Node) -> usize {
    let mut folders = vec![node.folder.path("data/blobs/sha256")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { count += 1 }
        }
    }
    count
}

#[test]
fn what_nothing_refers_to_is_deleted_after_the_grace_period_and_not_while_there_is_a_hold() {
    within(60, async {
        let node = Node::start("a", "[garbage]\ngrace = \"1s\"\n").await;
        node.command(&["repo", "create", "pypi"]).await;
        let files = Folder::new();
        let [alpha, beta] = [make(&files, "alpha", "1.0", "a").await, make(&files, "beta", "1.0", "b").await];
        node.command(&["add", "pypi", &alpha[0], &alpha[1], &beta[0]]).await;
        let kept = blobs(&node);
        assert!(collect(&node).await.contains("0 of"), "all of it is referred to");
        assert_eq!(blobs(&node), kept);

        node.command(&["remove", "pypi", "alpha", "--all"]).await;
        assert!(collect(&node).await.contains("0 of"), "it is seen for the first time");
        node.command(&["hold", "--for", "1h"]).await;
        eventually("the grace period's end", async || {
            let log = collect(&node).await;
            log.contains("there is a hold").then_some(())
        })
        .await;
        assert_eq!(blobs(&node), kept);
        assert!(node.command(&["hold", "--show"]).await.contains("kept until"));
        node.command(&["hold", "--release"]).await;
        let log = collect(&node).await;
        assert!(log.contains("deleted ") && log.contains("done: "), "{log}");
        assert!(blobs(&node) < kept);

        // What is left is whole; and the same bytes may come again, though not under the name of what was removed.
        let page = get(&node.address, "/packages/pypi/simple/beta/").await.text();
        assert!(page.contains("beta-1.0"), "{page}");
        let again = bowline(&["add", "pypi", &alpha[0], "-c", &node.config()]).await;
        assert!(again.code == Some(1) && again.stderr.contains("already exists"), "{again:?}");
        node.command(&["repo", "create", "other"]).await;
        node.command(&["add", "other", &alpha[0]]).await;
        let page = eventually("the other repository", async || {
            let page = get(&node.address, "/packages/other/simple/alpha/").await;
            (page.status == 200).then(|| page.text())
        });
        let path =
            page.await.split('"').find(|text| text.contains(".whl#")).unwrap().replace("../../", "/packages/other/");
        assert_eq!(get(&node.address, path.split('#').next().unwrap()).await.status, 200);
        let list = node.command(&["job", "list", "--kind", "collect", "--json"]).await;
        assert!(list.contains("\"state\":\"done\""), "{list}");
        let wrong = bowline(&["job", "start", "x", "-c", &node.config()]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("is no job"), "{wrong:?}");
    });
}

#[test]
fn what_nobody_does_is_seen_to_wait_and_who_asks_often_asks_the_database_seldom() {
    within(60, async {
        let node = Node::start("a", "[jobs]\ncollect = 0\n").await;
        let id = node.command(&["job", "start", "collect"]).await;
        let queue = async || {
            let metrics = Metrics::parse(get(&node.address, "/metrics").await.text());
            let of = |name: &str| metrics.strict().value(name, &[("kind", "collect")]);
            (of("bowline_node_jobs_waiting"), of("bowline_node_jobs_waiting_age_seconds"))
        };
        let (count, age) = queue().await;
        assert!(count == 1.0 && age > 0.0 && age < 30.0, "{count} {age}");
        // What was seen a moment ago is told again, to the microsecond.
        for _ in 0..20 {
            assert_eq!(queue().await, (count, age));
        }
        eventually("another look", async || (queue().await.1 > age + 4.0).then_some(())).await;
        node.command(&["job", "cancel", id.trim_start_matches("job ")]).await;
        eventually("an empty queue", async || (queue().await == (0.0, 0.0)).then_some(())).await;
    });
}

#[test]
fn downloads_are_counted_by_release_and_client() {
    within(60, async {
        let node = Node::start("a", "").await;
        node.command(&["repo", "create", "pypi"]).await;
        let files = Folder::new();
        let alpha = make(&files, "alpha", "1.0", "a").await;
        node.command(&["add", "pypi", &alpha[0]]).await;
        let page = eventually("the project", async || {
            let page = get(&node.address, "/packages/pypi/simple/alpha/").await;
            (page.status == 200).then(|| page.text())
        });
        let link =
            page.await.split('"').find(|text| text.contains(".whl#")).unwrap().replace("../../", "/packages/pypi/");
        let path = link.split('#').next().unwrap();
        for agent in ["pip/25.0 {}", "pip/25.0 {}", "uv/0.9.0"] {
            assert_eq!(get_as(&node.address, path, &[("User-Agent", agent)]).await.status, 200);
        }
        get(&node.address, &format!("{path}.metadata")).await;
        eventually("the downloads", async || {
            let told = node.command(&["stats", "pypi", "alpha", "--by", "client", "--json"]).await;
            (told == r#"[{"client":"pip","downloads":2},{"client":"uv","downloads":1}]"#).then_some(())
        })
        .await;
        assert!(node.command(&["stats", "pypi"]).await.contains("alpha"));
    });
}
