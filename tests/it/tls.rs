//! TLS at the front door: who is who by name, which versions and protocols, renewal without a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::task::JoinSet;

use crate::harness::{Authority, Client, Folder, Origin, Proxy, Site, eventually, get_as, run, tool, within};

#[test]
fn each_server_name_gets_its_own_certificate() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        let exact = ca.pair(&["shiny.example.org"]).write(&folder, "certs/shiny");
        let wild = ca.pair(&["*.apps.example.org", "*.example.org"]).write(&folder, "certs/apps");
        let default = ca.pair(&["fallback.invalid", "127.0.0.1"]).write(&folder, "certs/default");
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;

        for (name, expected) in [
            ("shiny.example.org", &exact),
            ("SHINY.example.org", &exact),
            ("one.apps.example.org", &wild),
            ("two.example.org", &wild),
            ("127.0.0.1", &default),
        ] {
            let client = Client::tls(proxy.web(), &ca.trust(name)).await;
            assert_eq!(client.agreed.unwrap().certificate, expected.certificate.to_vec(), "for {name}");
        }
        // A wildcard stands for one label; nobody has this name, so the default answers and does not verify.
        for name in ["a.b.apps.example.org", "stranger.test"] {
            let refused = Client::try_tls(proxy.web(), &ca.trust(name)).await.err().expect("no such certificate");
            assert!(refused.to_string().contains("not valid for name"), "{name}: {refused}");
        }
        let client = Client::tls(proxy.web(), &ca.trust("fallback.invalid").without_sni()).await;
        assert_eq!(client.agreed.unwrap().certificate, default.certificate.to_vec(), "without a name");
    });
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_the_minimum_holds() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let strict = "[[listener]]\nname = \"strict\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
                      tls = { certificates = \"certs\", minimum = \"1.3\" }";
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().more(strict).text()).await;

        let trust = ca.trust("localhost");
        for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            let mut client = Client::tls(proxy.web(), &trust.clone().version(version)).await;
            assert_eq!(client.agreed.as_ref().unwrap().version, name);
            assert_eq!(client.get("/").await.status, 200);
        }
        let strict = proxy.listener("strict");
        assert!(Client::try_tls(strict, &trust.clone().version(&TLS12)).await.is_err(), "below the minimum");
        assert_eq!(Client::tls(strict, &trust.version(&TLS13)).await.get("/").await.status, 200);
    });
}

#[test]
fn alpn_agrees_on_what_the_listener_offers() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let old = "[[listener]]\nname = \"old\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
                   tls = { certificates = \"certs\", http2 = false }";
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().more(old).text()).await;

        let trust = ca.trust("localhost");
        for (listener, offer, agreed) in [
            ("web", &["h2", "http/1.1"][..], Some("h2")),
            ("web", &["http/1.1"], Some("http/1.1")),
            ("web", &[], None),
            ("old", &["h2", "http/1.1"], Some("http/1.1")),
        ] {
            let client = Client::tls(proxy.listener(listener), &trust.clone().alpn(offer)).await;
            assert_eq!(client.agreed.unwrap().alpn.as_deref(), agreed, "{listener} {offer:?}");
        }
        let refused = Client::try_tls(proxy.web(), &trust.alpn(&["spdy/3"])).await;
        assert!(refused.is_err(), "RFC 7301 §3.2: no protocol in common ends the handshake");
    });
}

#[test]
fn curl_speaks_both_protocols_with_a_verified_certificate() {
    within(60, async {
        let (curl, ca, folder) = (tool("curl"), Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let pem = folder.write("ca.pem", ca.pem());
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;

        let port = proxy.web().rsplit(':').next().unwrap();
        let (url, resolve) = (format!("https://localhost:{port}/x"), format!("localhost:{port}:127.0.0.1"));
        for (version, number) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let told = [
                "-sS",
                version,
                "--cacert",
                pem.to_str().unwrap(),
                "--resolve",
                &resolve,
                "-w",
                " %{http_version} %{http_code}",
                &url,
            ];
            assert_eq!(run(&curl, &told, "").await.ok().stdout, format!("a {number} 200"));
        }
    });
}

#[test]
fn a_certificate_is_renewed_under_load_without_a_failure() {
    within(120, async {
        let (ca, folder) = (Authority::new(), Arc::new(Folder::new()));
        let old = ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(Arc::clone(&folder), &Site::new(&[&origin]).https().text()).await;
        let (address, trust) = (proxy.web().to_owned(), ca.trust("localhost"));
        let mut kept = Client::tls(&address, &trust).await;
        assert_eq!(kept.agreed.as_ref().unwrap().certificate, old.certificate.to_vec());

        let (is_over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut load = JoinSet::new();
        for _ in 0..6 {
            let (address, trust, is_over, done) =
                (address.clone(), trust.clone(), Arc::clone(&is_over), Arc::clone(&done));
            load.spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let answer = Client::tls(&address, &trust).await.get("/").await;
                    assert_eq!(answer.status, 200);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let presented = async || Client::tls(&address, &trust).await.agreed.unwrap().certificate;
        let mut served = old.certificate.to_vec();
        for round in 0..3 {
            let next = ca.pair(&["localhost"]).write(&folder, "certs/localhost");
            assert_ne!(next.certificate.to_vec(), served);
            served = next.certificate.to_vec();
            eventually(&format!("renewal {round}"), async || (presented().await == served).then_some(())).await;
        }
        // What does not fit together is not taken up, and the load goes on with the last good one.
        folder.write("certs/localhost.key", ca.pair(&["localhost"]).key_pem);
        let refused = proxy.command(&["reload"]).await;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("localhost"), "the report names the pair: {refused:?}");
        assert_eq!(presented().await, served);
        // Nor is a valid one given up for one that has expired.
        ca.pair_until(&["localhost"], 2020).write(&folder, "certs/localhost");
        proxy.command(&["reload"]).await.ok();
        assert_eq!(presented().await, served);

        is_over.store(true, Ordering::SeqCst);
        load.join_all().await;
        assert!(done.load(Ordering::SeqCst) > 20, "there was load");
        assert_eq!(kept.get("/").await.status, 200, "a connection from before the first renewal");
    });
}

#[test]
fn a_handshake_that_stalls_is_cut_and_others_are_served() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let site = Site::new(&[&origin]).https().listener("limits = { handshake_timeout = \"1s\" }");
        let proxy = Proxy::start_in(folder, &site.text()).await;

        let mut mute = proxy.connect().await;
        // A handshake record that announces more than ever comes.
        let mut stalled = proxy.connect().await;
        stalled.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
        assert_eq!(Client::tls(proxy.web(), &ca.trust("localhost")).await.get("/").await.status, 200);
        mute.rest().await;
        stalled.rest().await;
        // They are counted once they are closed.
        eventually("both to be counted", async || {
            let told = proxy.metrics().await;
            (told.sum("bowline_proxy_handshake_failures_total", &[("reason", "timeout")]) == 2.0).then_some(())
        })
        .await;
        // Plain HTTP at a TLS port is no handshake either.
        let mut plain = proxy.connect().await;
        plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        plain.rest().await;
        assert_eq!(origin.count("/"), 1, "only the good client got through");
    });
}

#[test]
fn http_is_redirected_to_https() {
    within(60, async {
        let origin = Origin::start("a");
        let more =
            "[[listener]]\nname = \"far\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\nredirect_to_https = 8443";
        let proxy = Proxy::start(&Site::new(&[&origin]).listener("redirect_to_https = 443").more(more).text()).await;
        for (listener, host, target, location) in [
            ("web", "shiny.example.org", "/app/?x=1&y=%20", "https://shiny.example.org/app/?x=1&y=%20"),
            ("web", "shiny.example.org:8080", "/", "https://shiny.example.org/"),
            ("far", "shiny.example.org:8080", "/a", "https://shiny.example.org:8443/a"),
            ("far", "[::1]:8080", "/a", "https://[::1]:8443/a"),
        ] {
            let answer = get_as(proxy.listener(listener), target, &[("Host", host)]).await;
            assert_eq!((answer.status, answer.fields.get("location")), (308, Some(location)));
            assert_eq!(answer.fields.get("x-request-id").map(str::len), Some(32));
        }
        assert_eq!(origin.seen(), []);
        assert_eq!(proxy.metrics().await.sum("bowline_proxy_requests_total", &[]), 0.0, "no pool answered");
    });
}

#[test]
fn who_speaks_the_wrong_protocol_is_told_at_once() {
    within(60, async {
        let (curl, ca, folder) = (tool("curl"), Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let patient = "limits = { head_timeout = \"50s\", handshake_timeout = \"50s\" }";
        let plain =
            format!("[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n{patient}");
        let site = Site::new(&[&origin]).https().listener(patient).more(&plain);
        let proxy = Proxy::start_in(folder, &site.text()).await;

        let told = run(&curl, &["-sS", "--max-time", "10", &format!("http://{}/", proxy.web())], "").await.ok();
        assert!(told.stdout.contains("this port speaks HTTPS"), "{told:?}");
        let failures = [("listener", "web"), ("reason", "not_tls")];
        assert_eq!(proxy.metrics().await.value("bowline_proxy_handshake_failures_total", &failures), 1.0);

        let url = format!("https://{}/", proxy.listener("plain"));
        let told = run(&curl, &["-sSk", "--max-time", "10", &url], "").await;
        assert_eq!(told.code, Some(35), "CURLE_SSL_CONNECT_ERROR, not a timeout: {told:?}");
        let refused = [("listener", "plain"), ("reason", "bad_request_line")];
        assert_eq!(proxy.metrics().await.value("bowline_proxy_refused_requests_total", &refused), 1.0);
    });
}

#[test]
fn ipv6_and_unix_listeners_serve() {
    within(60, async {
        let (folder, origin) = (Folder::new(), Origin::start("a"));
        let socket = folder.path("web.sock");
        let more = format!(
            "[[listener]]\nname = \"six\"\naddress = \"[::1]:0\"\nprotocol = \"http\"\n\
             [[listener]]\nname = \"unix\"\naddress = \"unix:{}\"\nprotocol = \"http\"",
            socket.display()
        );
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).more(&more).text()).await;
        assert!(proxy.listener("six").starts_with("[::1]:"));
        assert_eq!(proxy.listener("unix"), format!("unix:{}", socket.display()));
        assert_eq!(Client::tcp(proxy.listener("six")).await.get("/six").await.status, 200);
        assert_eq!(origin.last("/six").fields.get("x-forwarded-for"), Some("::1"));
        assert_eq!(Client::unix(&socket).await.get("/unix").await.status, 200);
        assert_eq!(origin.last("/unix").fields.get("x-forwarded-for"), None, "a unix socket has no address");
    });
}

#[test]
fn connections_beyond_the_limit_wait_and_then_are_served() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).listener("limits = { connections = 2 }").text()).await;
        let (mut first, mut second) = (proxy.connect().await, proxy.connect().await);
        assert_eq!(first.get("/").await.status, 200);
        assert_eq!(second.get("/").await.status, 200);
        let mut third = proxy.connect().await;
        third.send("GET /third HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(third.is_quiet_for(Duration::from_millis(500)).await, "nobody serves it yet");
        drop(first);
        assert_eq!(third.response("GET").await.status, 200);
        assert_eq!(second.get("/").await.status, 200, "the others did not notice");
    });
}

#[test]
fn a_pair_that_cannot_be_used_is_told_until_it_is_mended() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Arc::new(Folder::new()));
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let other = ca.pair(&["other.example.org"]).write(&folder, "certs/other");
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(Arc::clone(&folder), &Site::new(&[&origin]).https().text()).await;
        let last = async || proxy.status().await["config"]["last_reload"].clone();

        folder.write("certs/other.key", ca.pair(&["other.example.org"]).key_pem);
        let told = eventually("the refusal", async || Some(last().await).filter(|l| l["ok"] == false)).await;
        assert!(told["report"].as_str().unwrap().contains("certs/other"), "{told}");
        assert_eq!(proxy.metrics().await.value("bowline_config_last_reload_successful", &[]), 0.0);
        let served = Client::tls(proxy.web(), &ca.trust("other.example.org")).await.agreed.unwrap().certificate;
        assert_eq!(served, other.certificate.to_vec(), "its predecessor answers");

        folder.write("certs/other.key", &other.key_pem);
        eventually("that all is well again", async || Some(last().await).filter(|l| l["ok"] == true)).await;
        assert_eq!(proxy.metrics().await.value("bowline_config_last_reload_successful", &[]), 1.0);
    });
}
