//! Change without loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::harness::{
    Authority, Client, Folder, Origin, Proxy, Site, Socket, bowline, cookie_of, eventually, get, within,
};

async fn generation(proxy: &Proxy) -> u64 {
    proxy.status().await["config"]["generation"].as_u64().unwrap()
}

async fn until_generation_after(proxy: &Proxy, before: u64) -> u64 {
    eventually("a reload", async || Some(generation(proxy).await).filter(|g| *g > before)).await
}

#[test]
fn fifty_reloads_go_unnoticed_by_pinned_clients_and_open_websockets() {
    within(280, reloads_unnoticed(50));
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn a_thousand_reloads_go_unnoticed() {
    within(1500, reloads_unnoticed(1000));
}

async fn reloads_unnoticed(rounds: usize) {
    let (ca, folder) = (Authority::new(), Arc::new(Folder::new()));
    ca.pair(&["localhost"]).write(&folder, "certs/localhost");
    let (a, b, late) = (Origin::start("a"), Origin::start("b"), Origin::start("late"));
    let tls = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"\n\
                   [log]\nlevel = \"info\"";
    let site = Site::new(&[&a, &b]).more(tls);
    let proxy = Proxy::start_in(Arc::clone(&folder), &site.text()).await;
    let (web, tls, trust) = (proxy.web().to_owned(), proxy.listener("tls").to_owned(), ca.trust("localhost"));

    let connect = async |i: usize| {
        if i.is_multiple_of(4) { Client::tls(&tls, &trust).await } else { Client::tcp(&web).await }
    };
    let mut sockets = Vec::new();
    for i in 0..100 {
        sockets.push(Socket::open(connect(i).await, "/ws", &[("Sec-Fetch-Mode", "navigate")]).await);
    }
    // Pinned clients: half keep their connection, half come anew each time.
    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut pinned = JoinSet::new();
    for i in 0..100 {
        let mut client = connect(i).await;
        let first = client.request("GET", "/", &[("Sec-Fetch-Mode", "navigate")], b"").await;
        let (cookie, home) = (cookie_of(&first), first.origin().to_owned());
        let (is_over, asked, web) = (Arc::clone(&is_over), Arc::clone(&asked), web.clone());
        pinned.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                if i % 2 == 1 {
                    client = Client::tcp(&web).await;
                }
                let answer = client.request("GET", "/", &[("Cookie", &cookie)], b"").await;
                assert_eq!((answer.status, answer.origin()), (200, &*home), "client {i}");
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    for round in 0..rounds {
        let text = match round % 50 {
            10..30 => site.clone().backend("late", &late.address, "weight = 2").text(),
            _ => site.clone().pool(&format!("retries = {}", 1 + round % 2)).text(),
        };
        if round % 50 == 20 {
            ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        }
        let before = asked.load(Ordering::SeqCst);
        proxy.reload(&text).await;
        for (i, socket) in sockets.iter_mut().enumerate().skip(round % 10).step_by(10) {
            socket.echo(&format!("socket {i} in round {round}")).await;
        }
        eventually("clients to ask meanwhile", async || (asked.load(Ordering::SeqCst) > before + 20).then_some(()))
            .await;
    }
    is_over.store(true, Ordering::SeqCst);
    pinned.join_all().await;
    for (i, socket) in sockets.iter_mut().enumerate() {
        socket.echo(&format!("socket {i} at the end")).await;
    }
    let status = proxy.status().await;
    assert!(status["config"]["generation"].as_u64().unwrap() > rounds as u64, "{status}");
    assert_eq!(status["config"]["last_reload"]["ok"], true);
    let counted =
        proxy.backend("a").await["sessions"].as_u64().unwrap() + proxy.backend("b").await["sessions"].as_u64().unwrap();
    assert_eq!(counted, 100, "counts live on");
    assert_eq!(proxy.sessions().await.len(), 100);
}

#[test]
fn listeners_trade_names_and_addresses_without_closing_a_socket() {
    within(60, async {
        let origin = Origin::start("a");
        let other = "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n[access_log]\nenabled = true\nfile = \"access.log\"";
        let site = Site::new(&[&origin]).more(other);
        let proxy = Proxy::start(&site.text()).await;
        let (web, second) = (proxy.web().to_owned(), proxy.listener("other").to_owned());
        let mut socket = proxy.socket(&[]).await;
        let mut kept = Client::tcp(&web).await;
        kept.get("/before").await;
        // First they swap their addresses, then one gets another name.
        let place = |text: &str, name: &str, to: &str| {
            let old = format!("name = \"{name}\"\naddress = \"127.0.0.1:0\"");
            assert!(text.contains(&old), "{text}");
            text.replace(&old, &format!("name = \"{name}\"\naddress = \"{to}\""))
        };
        let swapped = place(&place(&site.text(), "web", &second), "other", &web);
        for text in [swapped.clone(), swapped.replace("name = \"other\"", "name = \"renamed\"")] {
            proxy.reload(&text).await;
            for address in [&web, &second] {
                assert_eq!(get(address, "/").await.status, 200);
            }
            kept.get("/kept").await;
            socket.echo("still here").await;
        }
        get(&web, "/by-its-new-name").await;
        eventually("a line of the renamed listener", async || {
            let log = proxy.folder.read("access.log");
            log.lines().any(|l| l.contains("/by-its-new-name") && l.contains("\"renamed\"")).then_some(())
        })
        .await;
    });
}

#[test]
fn a_listener_may_widen_or_narrow_its_address_on_the_same_port() {
    within(60, async {
        let origin = Origin::start("a");
        let site = Site::new(&[&origin]);
        let proxy = Proxy::start(&site.text()).await;
        let port = proxy.web().rsplit(':').next().unwrap().to_owned();
        let mut socket = proxy.socket(&[]).await;
        let mut kept = Client::tcp(proxy.web()).await;
        kept.get("/before").await;
        let at = |ip: &str| site.text().replace("address = \"127.0.0.1:0\"", &format!("address = \"{ip}:{port}\""));
        for ip in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
            // Who has connected, but was not accepted yet, is not sent away either.
            let mut waiting = JoinSet::new();
            for _ in 0..50 {
                let web = proxy.web().to_owned();
                waiting.spawn(async move { get(&web, "/").await.status });
            }
            proxy.reload(&at(ip)).await;
            assert!(waiting.join_all().await.iter().all(|status| *status == 200), "{ip}");
            kept.get("/kept").await;
            socket.echo("still here").await;
            let elsewhere = format!("127.0.0.2:{port}");
            assert_eq!(ip == "0.0.0.0", Client::try_tcp(&elsewhere).await.is_ok(), "{ip}");
            if ip == "0.0.0.0" {
                assert_eq!(get(&elsewhere, "/").await.status, 200);
            }
        }
        // The port was shared for a moment only, and with nobody else.
        let second = proxy.folder.write("second.toml", format!("role = \"proxy\"\n{}", at("127.0.0.1")));
        let refused = bowline(&["proxy", "-c", second.to_str().unwrap()]).await;
        assert!(refused.stderr.contains("cannot be bound"), "{refused:?}");
    });
}

#[test]
fn a_bad_configuration_is_refused_and_the_old_state_serves() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]);
        let proxy = Proxy::start(&site.text()).await;
        let mut socket = proxy.socket(&[]).await;
        let before = generation(&proxy).await;
        let broken = site
            .clone()
            .without("b")
            .text()
            .replace("[[route]]\npool = \"app\"", "[[route]]\npool = \"appp\"\ncolour = 1");
        proxy.write_config(&broken);
        let refused = proxy.command(&["reload"]).await;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        let line = 1 + proxy.folder.read("proxy.toml").lines().position(|l| l.contains("\"appp\"")).unwrap();
        for part in [&format!("proxy.toml:{line}:"), "appp", "colour", "did you mean `app`"] {
            assert!(refused.stderr.contains(part), "{part} is missing: {}", refused.stderr);
        }
        socket.echo("did not notice").await;
        assert_eq!(generation(&proxy).await, before);
        assert_eq!(proxy.backend("b").await["health"], "up", "the old state serves whole");
        let status = proxy.status().await;
        assert_eq!(status["config"]["last_reload"]["ok"], false);
        assert!(status["config"]["last_reload"]["report"].to_string().contains("appp"), "{status}");
        assert_eq!(proxy.metrics().await.value("bowline_config_last_reload_successful", &[]), 0.0);

        proxy.write_config("this is no TOML");
        assert_eq!(proxy.command(&["reload"]).await.code, Some(78));
        proxy.reload(&site.text()).await;
        assert_eq!(proxy.status().await["config"]["last_reload"]["ok"], true);
        assert_eq!(proxy.metrics().await.value("bowline_config_last_reload_successful", &[]), 1.0);
        socket.echo("all the while").await;
    });
}

#[test]
fn a_changed_file_is_taken_up_however_it_was_changed() {
    within(90, async {
        let origins = ["a", "b"].map(Origin::start);
        let site = Site::new(&origins.each_ref());
        let folder = Arc::new(Folder::new());
        let proxy = Proxy::start_in(Arc::clone(&folder), &site.text()).await;
        let full = folder.read("proxy.toml");
        let path = folder.path("proxy.toml");
        let next = |weight: u32| full.replace("key = \"a\",", &format!("key = \"a\", weight = {weight},"));

        let mut at = generation(&proxy).await;
        // As `echo >` does.
        std::fs::write(&path, next(2)).unwrap();
        at = until_generation_after(&proxy, at).await;
        // As vim does: the old file is moved away, a new one takes its name.
        std::fs::rename(&path, folder.path("proxy.toml~")).unwrap();
        std::fs::write(&path, next(3)).unwrap();
        at = until_generation_after(&proxy, at).await;
        // As editors that write beside and rename do.
        folder.write("proxy.toml", next(4));
        at = until_generation_after(&proxy, at).await;
        // As Kubernetes does: the name is a link through a link that is swapped.
        for (version, weight) in [("v1", 5), ("v2", 6)] {
            std::fs::create_dir(folder.path(version)).unwrap();
            std::fs::write(folder.path(version).join("proxy.toml"), next(weight)).unwrap();
        }
        std::os::unix::fs::symlink("v1", folder.path("current")).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("current/proxy.toml", &path).unwrap();
        at = until_generation_after(&proxy, at).await;
        std::os::unix::fs::symlink("v2", folder.path("next")).unwrap();
        std::fs::rename(folder.path("next"), folder.path("current")).unwrap();
        until_generation_after(&proxy, at).await;
        assert_eq!(proxy.get("/").await.status, 200);
    });
}

#[test]
fn a_hangup_signal_reloads() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a]);
        let proxy = Proxy::start(&site.text()).await;
        let before = generation(&proxy).await;
        proxy.write_config(&site.backend("b", &b.address, "").text());
        proxy.signal(Signal::HUP);
        until_generation_after(&proxy, before).await;
        proxy.until_health("b", "up").await;
        assert_eq!(proxy.get("/").await.status, 200);
    });
}

#[test]
fn listeners_come_and_go_and_an_unchanged_one_keeps_its_port() {
    within(60, async {
        let origin = Origin::start("a");
        let site = Site::new(&[&origin]);
        let proxy = Proxy::start(&site.text()).await;
        let web = proxy.web().to_owned();
        let mut kept = proxy.connect().await;
        assert_eq!(kept.get("/").await.status, 200);
        let address_of = async |name: &str| {
            let status = proxy.status().await;
            let listeners = status["listeners"].as_array().unwrap();
            let found = listeners.iter().find(|l| l["name"] == name);
            found.map(|l| l["address"].as_str().unwrap().to_owned())
        };
        let more = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"";
        proxy.reload(&site.clone().more(more).text()).await;
        assert_eq!(address_of("web").await, Some(web.clone()), "an unchanged port 0 is not bound again");
        let second = address_of("second").await.expect("the new listener is told");
        let mut on_second = Client::tcp(&second).await;
        assert_eq!(on_second.get("/").await.status, 200);

        proxy.reload(&site.text()).await;
        assert_eq!(address_of("second").await, None);
        eventually("the socket to close", async || Client::try_tcp(&second).await.is_err().then_some(())).await;
        assert_eq!(on_second.get("/").await.status, 200, "its connections live on");
        assert_eq!(kept.get("/").await.status, 200);
        assert_eq!(get(&web, "/").await.status, 200);

        // A listener that cannot be bound refuses the reload as a whole.
        let taken = format!("[[listener]]\nname = \"taken\"\naddress = \"{}\"\nprotocol = \"http\"", origin.address);
        proxy.write_config(&site.clone().route("body_bytes_max = \"1B\"").more(&taken).text());
        let refused = proxy.command(&["reload"]).await;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("taken") || refused.stderr.contains(&origin.address), "{refused:?}");
        let answer = proxy.connect().await.request("POST", "/", &[], b"more than one byte").await;
        assert_eq!(answer.status, 200, "nothing of the refused file holds");
    });
}

#[test]
fn health_counters_and_bindings_live_on_by_backend_key() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]);
        let proxy = Proxy::start(&site.text()).await;
        b.set_sick(true);
        proxy.until_health("b", "down").await;
        let mut socket = proxy.socket(&[]).await;
        let requests = proxy.backend("a").await["requests"].as_u64().unwrap();
        proxy.reload(&site.pool("policy = \"round_robin\"").text()).await;
        let backend = proxy.backend("a").await;
        assert_eq!(backend["sessions"], 1);
        assert!(backend["requests"].as_u64().unwrap() >= requests);
        assert_eq!(proxy.backend("b").await["health"], "down", "no verdict is forgotten");
        for _ in 0..4 {
            assert_eq!(proxy.get("/").await.origin(), "a");
        }
        socket.echo("x").await;
        drop(socket);
        proxy.until_sessions("a", 0).await;
    });
}

#[test]
fn a_backend_removed_under_a_live_session_keeps_that_session() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]);
        let proxy = Proxy::start(&site.text()).await;
        let mut socket = proxy.socket(&[]).await;
        let gone = socket.origin().to_owned();
        proxy.reload(&site.without(&gone).text()).await;
        socket.echo("established connections do not notice").await;
        assert_eq!(proxy.sessions().await[0]["backend"], *gone);
        let again = proxy.socket(&[("Cookie", &cookie_of(&socket.head))]).await;
        assert_ne!(again.origin(), gone);
    });
}
