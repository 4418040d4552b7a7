//! Every upgrade becomes a tunnel, and none is lost at the moment it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::harness::websocket::upgrade_bytes;
use crate::harness::{Authority, Client, ClientTls, Folder, Frame, Origin, Proxy, Site, Socket, eventually, within};

/// So many upgrades with one echo each, so many at a time; returns what failed.
async fn storm(address: &str, tls: Option<&ClientTls>, total: usize, width: usize) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..width {
        let (next, address, tls) = (Arc::clone(&next), address.to_owned(), tls.cloned());
        workers.spawn(async move {
            let mut failures = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= total {
                    return failures;
                }
                if let Err(what) = one(&address, tls.as_ref(), &format!("message {i} {}", "x".repeat(80))).await {
                    failures.push(format!("{i}: {what}"));
                }
            }
        });
    }
    workers.join_all().await.concat()
}

async fn one(address: &str, tls: Option<&ClientTls>, text: &str) -> Result<(), String> {
    let client = match tls {
        Some(tls) => Client::try_tls(address, tls).await,
        None => Client::try_tcp(address).await,
    };
    let mut socket = Socket::try_open(client.map_err(|e| e.to_string())?, "/ws", &[]).await?;
    socket.try_echo(text).await
}

/// A configuration that logs little: this is about speed.
fn quiet(site: &Site) -> String {
    format!("{}\n[log]\nlevel = \"warn\"\n", site.text())
}

#[test]
fn twenty_thousand_upgrades_and_none_is_lost() {
    within(300, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&quiet(&Site::new(&[&a, &b]))).await;
        let failures = storm(proxy.web(), None, 20_000, 64).await;
        assert!(failures.is_empty(), "{} failed, such as {:?}", failures.len(), &failures[..failures.len().min(5)]);
        assert_eq!(a.count("/ws") + b.count("/ws"), 20_000);
        for key in ["a", "b"] {
            proxy.until_sessions(key, 0).await;
        }
        assert_eq!(proxy.metrics().await.value("bowline_proxy_sessions", &[]), 0.0);
        assert!(proxy.sessions().await.is_empty(), "the ledger is empty again");
    });
}

#[test]
fn two_thousand_upgrades_under_tls_on_both_sides_and_none_is_lost() {
    within(300, upgrades_under_tls(2_000));
}

#[test]
#[ignore = "long: `make test-all` runs it"]
fn fifty_thousand_upgrades_under_tls_on_both_sides_and_none_is_lost() {
    within(1500, upgrades_under_tls(50_000));
}

async fn upgrades_under_tls(total: usize) {
    let (ca, folder) = (Authority::new(), Folder::new());
    let pair = ca.pair(&["localhost", "app.internal"]).write(&folder, "certs/localhost");
    folder.write("ca.pem", ca.pem());
    let origin = Origin::tls("a", &pair);
    let site = Site::new(&[&origin]).https().pool("tls = { ca_file = \"ca.pem\", server_name = \"app.internal\" }");
    let proxy = Proxy::start_in(folder, &quiet(&site)).await;
    let failures = storm(proxy.web(), Some(&ca.trust("localhost")), total, 32).await;
    assert!(failures.is_empty(), "{} failed, such as {:?}", failures.len(), &failures[..failures.len().min(5)]);
    proxy.until_sessions("a", 0).await;
}

#[test]
fn bytes_glued_to_either_head_are_delivered_in_order() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        // Greets in the same write as its 101, then echoes.
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            x.accept_upgrade(&Frame::text("welcome").bare()).await?;
            while let Some(frame) = x.frame().await? {
                x.send(frame.bare()).await?;
            }
            Ok(())
        });
        let tls = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"";
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).more(tls).text()).await;
        for listener in ["web", "tls"] {
            let mut client = match listener {
                "web" => proxy.connect().await,
                _ => Client::tls(proxy.listener("tls"), &ca.trust("localhost")).await,
            };
            let mut bytes = upgrade_bytes("/ws", &[]);
            bytes.extend(Frame::text("first").masked());
            let second = Frame::text(&"second".repeat(20_000)).masked();
            bytes.extend_from_slice(&second[..1000]);
            client.send(bytes).await;
            client.send(&second[1000..]).await;
            assert_eq!(client.head().await.unwrap().status, 101);
            let mut socket = Socket { client, head: crate::harness::Response::default() };
            for text in ["welcome", "first", &"second".repeat(20_000)] {
                assert_eq!(socket.next().await, Some(Frame::text(text)), "{listener}");
            }
        }
    });
}

#[test]
fn an_upgrade_may_follow_other_requests_on_its_connection() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        assert_eq!(client.get("/page").await.status, 200);
        assert_eq!(client.request("POST", "/upload", &[], b"abc").await.status, 200);
        let mut socket = Socket::open(client, "/ws", &[]).await;
        socket.echo("after two requests").await;

        // Pipelined behind a request, in one write.
        let mut client = proxy.connect().await;
        let mut bytes = b"POST /one HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".to_vec();
        bytes.extend(upgrade_bytes("/ws", &[]));
        bytes.extend(Frame::text("glued").masked());
        client.send(bytes).await;
        assert_eq!(client.response("POST").await.status, 200);
        assert_eq!(client.head().await.unwrap().status, 101);
        assert_eq!(client.frame().await, Some(Frame::text("glued")));
    });
}

#[test]
fn nobody_goes_on_asking_for_a_client_that_has_gone() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| match x.is_upgrade() {
            true => x.some().await.map(drop),
            false => x.serve().await,
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        client.send(upgrade_bytes("/ws", &[])).await;
        let until = async |in_flight: u64| {
            eventually("the request to be counted", async || {
                (proxy.backend("a").await["in_flight"] == in_flight).then_some(())
            })
            .await;
        };
        until(1).await;
        drop(client);
        until(0).await;
        assert_eq!(proxy.backend("a").await["health"], "up");
    });
}

#[test]
fn a_refused_upgrade_passes_and_the_connection_goes_on() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| match x.request.path() {
            "/forbidden" => x.reply("403 Not For You", &[("Content-Type", "text/plain")], b"no").await,
            "/page" => x.reply("200 OK", &[("Content-Type", "text/html")], b"<html></html>").await,
            "/required" => x.reply("426 Upgrade Required", &[("Upgrade", "websocket")], b"").await,
            "/chunks" => {
                x.send("HTTP/1.1 404 Not Found\r\nX-Origin: a\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                x.chunk(b"not ").await?;
                x.chunk(b"here").await?;
                x.chunk(b"").await
            }
            _ => x.serve().await,
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        for (target, status, reason, body) in [
            ("/forbidden", 403, "Not For You", "no"),
            ("/page", 200, "OK", "<html></html>"),
            ("/required", 426, "Upgrade Required", ""),
            ("/chunks", 404, "Not Found", "not here"),
        ] {
            client.send(upgrade_bytes(target, &[])).await;
            let answer = client.response("GET").await;
            assert_eq!((answer.status, &*answer.reason, &*answer.text()), (status, reason, body), "{target}");
            assert!(proxy.sessions().await.is_empty(), "no session came of it");
        }
        let mut socket = Socket::open(client, "/ws", &[]).await;
        socket.echo("and then accepted, on the same connection").await;
    });
}

#[test]
fn the_upgrade_reaches_the_backend_as_an_upgrade_with_the_usual_fields() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let fields = [
            ("Sec-WebSocket-Protocol", "chat"),
            ("Origin", "http://localhost"),
            ("Keep-Alive", "timeout=5"),
            ("X-Forwarded-For", "6.6.6.6"),
        ];
        let socket = proxy.socket(&fields).await;
        assert_eq!(socket.head.reason, "Switching Protocols");
        assert_eq!(socket.head.fields.get("upgrade"), Some("websocket"));
        assert!(socket.head.fields.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("upgrade")));
        assert_eq!(socket.head.fields.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let seen = origin.last("/ws");
        assert_eq!(seen.fields.get("upgrade"), Some("websocket"));
        assert!(seen.fields.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("upgrade")), "{seen:?}");
        assert_eq!(seen.fields.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(seen.fields.get("sec-websocket-protocol"), Some("chat"));
        assert_eq!(seen.fields.get("origin"), Some("http://localhost"));
        assert_eq!(seen.fields.get("x-forwarded-for"), Some("127.0.0.1"), "a stranger's word is not passed on");
        assert_eq!(seen.fields.get("x-forwarded-proto"), Some("http"));
        assert!(seen.fields.has("x-request-id"));
        assert!(!seen.fields.has("keep-alive"));
    });
}

#[test]
fn upgrades_other_than_websockets_are_tunnelled_as_bytes() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            x.accept_upgrade(b"hello\x00").await?;
            loop {
                let bytes = x.some().await?;
                if bytes.is_empty() {
                    return Ok(());
                }
                x.send(bytes).await?;
            }
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        client.send("GET /raw HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.fields.get("upgrade")), (101, Some("tcp")));
        assert_eq!(client.exactly(6).await, b"hello\x00");
        // Bytes that would be a huge frame, were this a websocket.
        let bytes = [&[0x82, 0xff, 0xff][..], &vec![0xff; 100_000]].concat();
        client.send(&bytes).await;
        assert_eq!(client.exactly(bytes.len()).await, bytes);
        assert_eq!(proxy.sessions().await[0]["kind"], "upgrade");
        // Its end travels both ways: ours first, then, when all is echoed, theirs.
        client.send("bye").await;
        client.finish().await;
        assert_eq!(client.rest().await, b"bye");
    });
}

#[test]
fn h2c_and_tls_upgrades_are_not_a_way_around_the_rules() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        for protocol in ["h2c", "TLS/1.0", "HTTP/2.0"] {
            let mut client = proxy.connect().await;
            let fields = [
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("Upgrade", protocol),
                ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
            ];
            let answer = client.request("GET", "/smuggled", &fields, b"").await;
            assert_eq!(answer.status, 200, "an upgrade a server does not know is ignored (RFC 9110 §7.8)");
            let seen = origin.last("/smuggled");
            assert!(!seen.fields.has("upgrade") && !seen.fields.has("http2-settings"), "{seen:?}");
        }
    });
}

#[test]
fn a_slow_reader_gets_every_byte_and_the_proxy_keeps_little() {
    within(120, async {
        const FRAMES: usize = 256;
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            x.accept_upgrade(b"").await?;
            for i in 0..FRAMES {
                x.send(Frame::new(2, vec![i as u8; 256 * 1024]).bare()).await?;
            }
            x.frame().await.map(drop)
        });
        let proxy = Proxy::start(&quiet(&Site::new(&[&origin]))).await;
        proxy.get("/warm").await;
        let before = proxy.resident_kib();
        let mut socket = proxy.socket(&[]).await;
        assert_eq!(socket.next().await.unwrap().payload, vec![0; 256 * 1024]);
        // Nobody reads now; what is on its way stops in the kernel's buffers. 64 MiB would show.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let grown = proxy.resident_kib().saturating_sub(before);
        assert!(grown < 8 * 1024, "{grown} KiB held for one slow reader");
        for i in 1..FRAMES {
            assert_eq!(socket.next().await.unwrap().payload, vec![i as u8; 256 * 1024]);
        }
    });
}

#[test]
fn an_upgrade_to_a_backend_that_is_away_goes_to_another_or_says_so() {
    within(60, async {
        let (mut a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        a.kill();
        for _ in 0..4 {
            let mut socket = proxy.socket(&[("Sec-Fetch-Mode", "websocket")]).await;
            assert_eq!(socket.origin(), "b");
            socket.echo("x").await;
        }
        drop(b);
        let mut client = proxy.connect().await;
        client.send(upgrade_bytes("/ws", &[])).await;
        let answer = client.response("GET").await;
        assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        assert_eq!(answer.json()["fault"], "upstream");
    });
}
