//! What `/metrics` says is also sent to Graphite.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Carbon, Client, Folder, Metrics, Node, Origin, Proxy, Site, bowline, eventually, get, within};

fn graphite(carbon: &Carbon, more: &str) -> String {
    format!("[metrics.graphite]\naddress = \"{}\"\ninterval = \"1s\"\n{more}", carbon.address)
}

fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Paths of what a page of metrics says.
fn paths(prefix: &str, metrics: &Metrics) -> BTreeSet<String> {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect()
    };
    let path = |line: &str| {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        labels.fold(format!("{prefix}.{name}"), |path, label| {
            let (label, value) = label.split_once("=\"").unwrap();
            format!("{path}.{label}.{}", plain(value.trim_end_matches('"')))
        })
    };
    metrics.text.lines().filter(|line| !line.starts_with('#')).map(path).collect()
}

#[test]
fn a_node_sends_what_its_page_says_through_outages_of_graphite_and_until_it_leaves() {
    within(120, async {
        let carbon = Carbon::start().await;
        let mut node = Node::start("a", &graphite(&carbon, "prefix = \"test.nodes.a\"\n")).await;
        for _ in 0..3 {
            assert_eq!(get(&node.address, "/packages/none/simple/").await.status, 401);
        }
        let requests = "test.nodes.a.bowline_node_requests_total.route.pypi_projects.code.401";
        let (value, at) = eventually("three requests", async || {
            carbon.kept().get(requests).copied().filter(|(value, _)| *value == 3.0)
        })
        .await;
        assert!(value == 3.0 && at.abs_diff(seconds()) < 30, "{at}");
        let kept = carbon.kept();
        let of = |metric: &str| kept.get(&format!("test.nodes.a.bowline_node_{metric}")).map(|(value, _)| *value);
        assert_eq!(of("request_duration_seconds_count.route.pypi_projects"), Some(3.0));
        assert_eq!(of("request_duration_seconds_bucket.route.pypi_projects.le._Inf"), Some(3.0));
        assert!(of("request_duration_seconds_bucket.route.pypi_projects.le.0_005").is_some(), "{kept:?}");
        assert_eq!(
            (of("jobs_waiting.kind.deploy"), of("jobs_waiting_age_seconds.kind.deploy")),
            (Some(0.0), Some(0.0))
        );
        let page = Metrics::parse(get(&node.address, "/metrics").await.text());
        let expected = paths("test.nodes.a", page.strict());
        eventually("the same series as on the page", async || {
            let kept: BTreeSet<String> = carbon.kept().into_keys().collect();
            // Those of the request for the page itself come once it has been answered.
            kept.is_superset(&expected).then_some(())
        })
        .await;

        // Nobody waits for a Carbon that is away; that is said once, and so is its return.
        let address = carbon.address.clone();
        drop(carbon);
        let said = |words: &str| node.folder.read("a.err").matches(words).count();
        eventually("the outage to be told", async || (said("Graphite takes no metrics") == 1).then_some(())).await;
        assert_eq!(get(&node.address, "/packages/none/simple/").await.status, 401);
        let carbon = Carbon::start_at(&address).await;
        eventually("the fourth request", async || {
            carbon.kept().get(requests).is_some_and(|(value, _)| *value == 4.0).then_some(())
        })
        .await;
        assert_eq!((said("Graphite takes no metrics"), said("Graphite takes metrics again")), (1, 1));

        // One that hangs up and is there again at once is no outage: the next values come by a new connection.
        drop(carbon);
        let carbon = Carbon::start_at(&address).await;
        eventually("its metrics", async || carbon.kept().contains_key(requests).then_some(())).await;

        // A node that leaves still counts who is there, and waits for no Carbon.
        let mut client = Client::tcp(&node.address).await;
        assert_eq!(client.get("/__ping__").await.status, 200);
        drop(carbon);
        node.signal(Signal::TERM);
        drop(client);
        let left = tokio::time::timeout(Duration::from_secs(10), node.exit()).await.expect("an end in time");
        assert!(left.success(), "{left}");
    });
}

#[test]
fn a_proxy_sends_its_metrics_below_the_name_of_its_machine() {
    within(60, async {
        let (carbon, origin) = (Carbon::start().await, Origin::start("a"));
        let proxy = Proxy::start(&Site::new(&[&origin]).more(&graphite(&carbon, "")).text()).await;
        assert_eq!(proxy.get("/").await.status, 200);
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let prefix = format!("bowline.{}", machine.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_"));
        let up = format!("{prefix}.bowline_proxy_backend_up.pool.app.backend.a");
        eventually("a backend", async || {
            let kept = carbon.kept();
            let is_up = kept.get(&up).is_some_and(|(value, _)| *value == 1.0);
            let requests = kept.keys().find(|path| path.contains("bowline_proxy_requests_total"));
            (is_up && requests.is_some_and(|path| path.ends_with(".pool.app.method.GET.code.200"))).then_some(())
        })
        .await;
    });
}

#[test]
fn where_metrics_are_to_go_is_checked() {
    within(60, async {
        let folder = Folder::new();
        bowline(&["keygen", folder.path("node.key").to_str().unwrap()]).await.ok();
        let config = "role = \"node\"\nkey_file = \"node.key\"\n[[listener]]\nname = \"http\"\n\
                      address = \"127.0.0.1:0\"\n[metrics.graphite]\n";
        for (more, problem, remedy) in [
            ("interval = \"5s\"\n", "`[metrics.graphite]` does not say where to", "address = "),
            ("address = \"graphite\"\n", "node.toml:7:11: `graphite` is not an address", "graphite.example.org:2003"),
            ("address = \"unix:/run/x\"\n", "is not an address to send metrics to", "host:port"),
            ("address = \"g:2003\"\nprefix = \"a..b\"\n", "node.toml:8:10: `a..b` is not a path in Graphite", "dots"),
            ("address = \"g:2003\"\ninterval = \"1ms\"\n", "out of range", "1s"),
            ("adress = \"g:2003\"\n", "unknown key `adress`", "did you mean `address`?"),
        ] {
            let file = folder.write("node.toml", format!("{config}{more}"));
            let told = bowline(&["check", file.to_str().unwrap()]).await;
            let words = format!("{}{}", told.stdout, told.stderr);
            assert!(told.code == Some(78) && words.contains(problem) && words.contains(remedy), "{more}: {words}");
        }
    });
}
