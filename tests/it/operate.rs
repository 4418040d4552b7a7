//! The operator's endpoint and commands.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Client, Origin, Proxy, Site, bowline, eventually, get, within};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

#[test]
fn status_has_exactly_the_promised_shape() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        proxy.until_health("a", "up").await;
        let _kept = proxy.socket(&[]).await;
        let status = proxy.status().await;
        assert_eq!(keys(&status), ["pid", "version", "config", "listeners", "pools"].into());
        assert_eq!(status["pid"], proxy.pid());
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(keys(&status["config"]), ["file", "generation", "last_reload"].into());
        assert_eq!(status["config"]["file"], *proxy.folder.path("proxy.toml").to_str().unwrap());
        assert_eq!(status["config"]["generation"], 1);
        proxy.command(&["reload"]).await.ok();
        let reloaded = proxy.status().await;
        assert_eq!(keys(&reloaded["config"]["last_reload"]), ["at", "ok", "report"].into());
        assert_eq!(keys(&status["listeners"][0]), ["name", "address", "connections"].into());
        assert_eq!(
            (&status["listeners"][0]["name"], &status["listeners"][0]["address"]),
            (&"web".into(), &proxy.web().into())
        );
        assert!(status["listeners"][0]["connections"].as_u64().unwrap() >= 1);
        assert_eq!(keys(&status["pools"][0]), ["name", "policy", "backends"].into());
        assert_eq!(status["pools"][0]["policy"], "least_sessions");
        let backend = &status["pools"][0]["backends"][0];
        let expected = ["key", "address", "health", "admin", "sessions", "in_flight", "requests", "since"];
        assert_eq!(keys(backend), expected.into());
        assert_eq!((&backend["key"], &backend["address"]), (&"a".into(), &a.address.as_str().into()));
        assert_eq!((&backend["health"], &backend["admin"]), (&"up".into(), &"enabled".into()));
    });
}

#[test]
fn tcp_is_for_reading_and_the_socket_for_changing() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mode = std::fs::metadata(proxy.admin_socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        for path in ["/livez", "/readyz", "/metrics", "/status", "/sessions"] {
            assert_eq!(get(proxy.admin(), path).await.status, 200, "{path} over TCP");
            assert_eq!(Client::unix(proxy.admin_socket()).await.get(path).await.status, 200, "{path} over the socket");
        }
        // One request a connection: this is a door for operators, not for load.
        let tcp = async |path: &str| Client::tcp(proxy.admin()).await.request("POST", path, &[], b"").await;
        for path in ["/backends/app/a/drain", "/backends/app/a/disable", "/reload"] {
            let status = tcp(path).await.status;
            assert!(matches!(status, 403..=405), "{path}: {status}");
        }
        assert_eq!(proxy.backend("a").await["admin"], "enabled");
        let unix = async |path: &str| Client::unix(proxy.admin_socket()).await.request("POST", path, &[], b"").await;
        for (verb, admin) in [("drain", "draining"), ("disable", "disabled"), ("enable", "enabled")] {
            let status = unix(&format!("/backends/app/a/{verb}")).await.status;
            assert!((200..300).contains(&status), "{verb}: {status}");
            assert_eq!(proxy.backend("a").await["admin"], admin);
        }
        assert_eq!(unix("/backends/app/nobody/drain").await.status, 404);
        assert_eq!(unix("/reload").await.status, 200);
        proxy.write_config("nonsense");
        let refused = unix("/reload").await;
        assert_eq!(refused.status, 409);
        assert!(refused.text().contains("proxy.toml"), "{refused:?}");
        assert_eq!(unix("/nowhere").await.status, 404);
    });
}

#[test]
fn the_endpoint_survives_what_is_no_request() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let huge = format!("GET /status HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000));
        for bytes in [
            "\0\0\0\0\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
            &huge,
        ] {
            let mut client = Client::tcp(proxy.admin()).await;
            let _ = client.try_send(bytes.as_bytes()).await;
            let answer = client.some().await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", answer.escape_ascii());
        }
        assert_eq!(get(proxy.admin(), "/livez").await.status, 200);
    });
}

#[test]
fn commands_speak_to_people_and_to_programs() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let people = proxy.command(&["status"]).await.ok().stdout;
        for word in ["app", "web", "enabled", &*origin.address] {
            assert!(people.contains(word), "{word} is missing:\n{people}");
        }
        assert_eq!(proxy.command(&["status", "--json"]).await.ok().json()["pid"], proxy.pid());
        assert_eq!(bowline(&["status", "--admin", "/nowhere/admin.sock"]).await.code, Some(1));
        for wrong in [&["no-such-verb"][..], &["status", "--no-such-flag"], &["drain"], &["proxy"]] {
            let refused = bowline(wrong).await;
            assert_eq!(refused.code, Some(64), "{wrong:?}: {refused:?}");
            assert!(refused.stderr.contains("Usage"), "{refused:?}");
        }
        assert!(bowline(&["--help"]).await.ok().stdout.contains("drain"));
        assert!(bowline(&["--version"]).await.ok().stdout.contains(env!("CARGO_PKG_VERSION")));
    });
}

#[test]
fn a_running_proxy_is_found_by_its_file_however_broken_that_is_now() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let good = proxy.folder.read("proxy.toml");
        let file = proxy.folder.path("proxy.toml").display().to_string();
        for broken in [good.replace("[[route]]", "[[rout]]"), format!("{good}\nthis is no TOML")] {
            proxy.folder.write("proxy.toml", &broken);
            let status = bowline(&["status", "-c", &file, "--json"]).await.ok().json();
            assert_eq!(status["pid"], proxy.pid());
            let refused = bowline(&["reload", "-c", &file, "--json"]).await;
            assert_eq!(refused.code, Some(78));
            assert_eq!(refused.json()["problems"][0]["file"], file.as_str());
        }
        // Whoever reads JSON gets JSON, also when nobody answers.
        for verb in [&["status"][..], &["sessions"], &["drain", "app/a"], &["reload"]] {
            let nobody = bowline(&[verb, &["--admin", "/nowhere.sock", "--json"]].concat()).await;
            assert_eq!(nobody.code, Some(1));
            assert!(nobody.json()["error"].as_str().unwrap().contains("/nowhere.sock"), "{nobody:?}");
        }
    });
}

#[test]
fn metrics_of_an_idle_proxy_keep_their_names() {
    within(60, async {
        let (ca, folder) = (crate::harness::Authority::new(), crate::harness::Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start_in(folder, &Site::new(&[&a, &b]).https().text()).await;
        proxy.until_health("a", "up").await;
        proxy.until_health("b", "up").await;
        let metrics = proxy.metrics().await;
        metrics.strict();
        insta::assert_snapshot!("metrics_of_an_idle_proxy", metrics.shapes().join("\n"));
        let (types, helped) = (metrics.types(), metrics.helped());
        for (name, kind) in &types {
            assert!(name.starts_with("bowline_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(helped.contains(name), "{name} has no help");
        }
        let labels = [("server_name", "localhost")];
        assert!(metrics.value("bowline_tls_certificate_not_after_timestamp_seconds", &labels) > 4e9, "in 2099");
    });
}

#[test]
fn labels_come_from_the_configuration_never_from_the_wire() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        for i in 0..20 {
            let host = format!("host{i}.example.org");
            let fields = [("Host", &*host), ("User-Agent", "agent-of-somebody"), ("X-Forwarded-For", "203.0.113.9")];
            client.request(&format!("METHOD{i}"), &format!("/path-of-somebody-{i}"), &fields, b"").await;
        }
        let metrics = proxy.metrics().await;
        for word in ["somebody", "METHOD", "example.org", "203.0.113.9"] {
            assert!(!metrics.text.contains(word), "{word} in:\n{}", metrics.text);
        }
        assert_eq!(metrics.value("bowline_proxy_requests_total", &[("method", "other"), ("code", "200")]), 20.0);
    });
}

#[test]
fn the_access_log_is_a_json_line_per_request_without_secrets() {
    within(60, async {
        let origin = Origin::start("a");
        let log = "[access_log]\nenabled = true\nfile = \"access.log\"";
        let proxy = Proxy::start(&Site::new(&[&origin]).more(log).text()).await;
        let fields = [("Authorization", "Key secret-key"), ("Cookie", "sid=secret-cookie")];
        let answer = proxy.connect().await.request("POST", "/upload?token=secret-query", &fields, b"12345").await;
        drop(proxy.socket(&[]).await);
        proxy.get_as("/x", &[("Host", "nowhere")]).await;
        let lines = eventually("three lines", async || {
            let text = proxy.folder.read("access.log");
            Some(text).filter(|t| t.lines().count() >= 3)
        })
        .await;
        assert!(!lines.contains("secret") && !proxy.stderr().contains("secret"), "{lines}");
        let rows: Vec<Value> =
            lines.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
        let upload = rows.iter().find(|r| r["url.path"] == "/upload").unwrap();
        for (key, value) in [
            ("http.request.method", Value::from("POST")),
            ("http.response.status_code", 200.into()),
            ("client.address", "127.0.0.1".into()),
            ("listener", "web".into()),
            ("pool", "app".into()),
            ("backend", "a".into()),
            ("pick", "balanced".into()),
            ("attempts", 1.into()),
            ("bytes_received", 5.into()),
            ("bytes_sent", 1.into()),
        ] {
            assert_eq!(upload[key], value, "{key}: {upload}");
        }
        assert_eq!(upload["request_id"].as_str(), answer.fields.get("x-request-id"));
        assert!(rows.iter().any(|r| r["upgraded"] == true), "{lines}");
        // After a rotation by name it goes on in a new file.
        std::fs::rename(proxy.folder.path("access.log"), proxy.folder.path("access.log.1")).unwrap();
        eventually("a new file", async || {
            proxy.get("/after-rotation").await;
            proxy.folder.read("access.log").contains("/after-rotation").then_some(())
        })
        .await;
    });
}

#[test]
fn an_access_log_nobody_can_write_stops_no_request() {
    within(60, async {
        let origin = Origin::start("a");
        // A device that is always full.
        let log = "[access_log]\nenabled = true\nfile = \"/dev/full\"";
        let proxy = Proxy::start(&Site::new(&[&origin]).more(log).text()).await;
        let mut client = proxy.connect().await;
        for _ in 0..200 {
            assert_eq!(client.get("/").await.status, 200);
        }
    });
}
