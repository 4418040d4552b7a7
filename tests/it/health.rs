//! Who is up: asked by probes, taught by requests.

use std::time::Duration;

use crate::harness::{Folder, Origin, Proxy, Site, eventually, get, within};

#[test]
fn a_backend_goes_down_after_fall_and_comes_up_after_rise() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b])
            .affinity(None)
            .probe("path = \"/__ping__\", interval = \"200ms\", fast_interval = \"100ms\", timeout = \"2s\", rise = 2, fall = 3");
        let proxy = Proxy::start(&site.text()).await;
        proxy.until_health("a", "up").await;
        proxy.until_health("b", "up").await;
        let since = proxy.backend("a").await["since"].clone();
        let before = a.pings();
        a.set_sick(true);
        proxy.until_health("a", "down").await;
        let asked = a.pings() - before;
        assert!((3..=6).contains(&asked), "three failures make it down, one more or two were good before: {asked}");
        assert_ne!(proxy.backend("a").await["since"], since);
        for _ in 0..4 {
            assert_eq!(proxy.get("/").await.origin(), "b");
        }
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.value("bowline_proxy_backend_up", &[("pool", "app"), ("backend", "a")]), 0.0);
        assert!(metrics.value("bowline_proxy_probes_total", &[("backend", "a")]) >= 3.0);

        let before = a.pings();
        a.set_sick(false);
        proxy.until_health("a", "up").await;
        assert!(a.pings() - before >= 2, "one good answer is not enough");
        let log = proxy.stderr();
        assert!(log.lines().any(|l| l.contains("down") && l.contains("app")), "operators read of it: {log}");
    });
}

#[test]
fn one_failed_probe_is_no_verdict() {
    within(60, async {
        let fails_next = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = std::sync::Arc::clone(&fails_next);
        let a = Origin::scripted("a", async move |x| {
            if x.is_probe() && flag.swap(false, std::sync::atomic::Ordering::SeqCst) {
                return x.reply("500 Oops", &[], b"").await;
            }
            x.serve().await
        });
        let proxy = Proxy::start(&Site::new(&[&a]).text()).await;
        proxy.until_health("a", "up").await;
        for _ in 0..3 {
            fails_next.store(true, std::sync::atomic::Ordering::SeqCst);
            let before = a.pings();
            a.until("three more probes", |a| a.pings() >= before + 3).await;
            assert_eq!(proxy.backend("a").await["health"], "up");
        }
    });
}

#[test]
fn a_refused_connection_is_a_verdict_at_once() {
    within(60, async {
        let (mut a, b) = (Origin::start("a"), Origin::start("b"));
        // Probes come too rarely to tell.
        let site = Site::new(&[&a, &b])
            .affinity(None)
            .probe("path = \"/__ping__\", interval = \"60s\", fast_interval = \"200ms\"");
        let proxy = Proxy::start(&site.text()).await;
        proxy.until_health("a", "up").await;
        proxy.until_health("b", "up").await;
        a.kill();
        while proxy.backend("a").await["health"] != "down" {
            assert_eq!(proxy.get("/").await.origin(), "b", "nobody notices");
        }
        // It is asked often while it is away, so that its return does not take a minute.
        let _a = Origin::at("a", &a.address);
        proxy.until_health("a", "up").await;
    });
}

#[test]
fn requests_at_start_up_wait_for_the_first_verdict() {
    within(60, async {
        // It listens, and answers nobody until it is done with starting.
        let (finish, starting) = tokio::sync::watch::channel(true);
        let origin = Origin::scripted("a", async move |x| {
            let _ = starting.clone().wait_for(|starts| !starts).await;
            x.serve().await
        });
        let site = Site::new(&[&origin]).pool("timeouts = { startup = \"15s\" }");
        let site = site.probe("path = \"/__ping__\", interval = \"1s\", fast_interval = \"100ms\", timeout = \"10s\"");
        let proxy = Proxy::start_unready(&site.text()).await;
        assert_eq!(proxy.backend("a").await["health"], "unknown");
        assert_eq!(get(proxy.admin(), "/readyz").await.status, 503);
        let mut client = proxy.connect().await;
        client.send("GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(client.is_quiet_for(Duration::from_millis(500)).await, "it waits");
        finish.send(false).unwrap();
        assert_eq!(client.response("GET").await.status, 200);
        assert_eq!(origin.count("/early"), 1);
    });
}

#[test]
fn the_wait_for_a_first_verdict_is_bounded() {
    within(60, async {
        let mute = Origin::scripted("mute", async |x| x.some().await.map(drop));
        let site = Site::new(&[&mute]).pool("timeouts = { startup = \"1s\" }");
        let site = site.probe("path = \"/__ping__\", interval = \"10s\", fast_interval = \"10s\", timeout = \"8s\"");
        let proxy = Proxy::start_unready(&site.text()).await;
        let answer = proxy.get("/").await;
        assert_eq!((answer.status, &answer.json()["error"]), (503, &"starting_up".into()));
    });
}

#[test]
fn probes_can_ask_in_other_ways() {
    within(60, async {
        let folder = Folder::new();
        let a = Origin::scripted("a", async |x| match x.request.target.as_str() {
            "/health?deep=1" => {
                assert_eq!(x.request.fields.get("host"), Some("app.internal"));
                x.reply("418 Fine", &[], b"").await
            }
            _ => x.reply("500 Oops", &[], b"").await,
        });
        let tcp = Origin::scripted("tcp", async |_| Ok(()));
        let unix = Origin::unix("unix", folder.path("app.sock"));
        let pool = |name: &str, address: &str, probe: &str| {
            format!(
                "[[pool]]\nname = \"{name}\"\nprobe = {{ {probe}, interval = \"200ms\", fast_interval = \"100ms\" }}\n\
                 backend = [{{ key = \"x\", address = \"{address}\" }}]\n[[route]]\npath = \"/{name}\"\npool = \"{name}\"\n"
            )
        };
        let more = pool("custom", &a.address, "path = \"/health?deep=1\", host = \"app.internal\", status = \"418\"")
            + &pool("strict", &a.address, "path = \"/other\", status = \"200-299\"")
            + &pool("tcp", &tcp.address, "type = \"tcp\"")
            + &pool("unix", &unix.address, "path = \"/__ping__\"");
        let proxy = Proxy::start_in(folder, &Site::new(&[&unix]).more(&more).text()).await;
        for (name, health) in [("custom", "up"), ("strict", "down"), ("tcp", "up"), ("unix", "up")] {
            eventually(&format!("{name} to be {health}"), async || {
                let status = proxy.status().await;
                let pool = status["pools"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
                (pool["backends"][0]["health"] == health).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_bound_client_of_a_slow_backend_is_not_rebound_by_a_timeout() {
    within(60, async {
        let origins = ["a", "b"].map(|name| {
            Origin::scripted(name, async move |x| match x.request.path() {
                "/hang" if x.name() == "a" => x.some().await.map(drop),
                _ => x.serve().await,
            })
        });
        let site = Site::new(&origins.each_ref()).pool("timeouts = { response = \"1s\" }");
        let proxy = Proxy::start(&site.text()).await;
        let cookie = loop {
            let answer = proxy.get_as("/", &[("Sec-Fetch-Mode", "navigate")]).await;
            if answer.origin() == "a" {
                break crate::harness::cookie_of(&answer);
            }
        };
        let answer = proxy.get_as("/hang", &[("Cookie", &cookie)]).await;
        assert_eq!((answer.status, answer.origin()), (200, "b"), "a GET is answered by another");
        assert!(!answer.fields.has("set-cookie"), "but nobody is moved as long as `a` is up");
        let stays = proxy.get_as("/", &[("Cookie", &cookie)]).await;
        assert_eq!(stays.origin(), "a");
    });
}
