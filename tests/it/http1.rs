//! What the lean mover does by itself: connections to backends that are kept, both directions at once, ends of all kinds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Authority, Client, Folder, H2, Origin, Proxy, Site, patiently, within};

#[test]
fn a_request_that_is_at_hand_takes_a_kept_connection_and_a_long_one_its_own() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").affinity(None).text()).await;
        let mut client = proxy.connect().await;
        for n in 0..5 {
            assert_eq!(client.get("/x").await.status, 200);
            let posted = client.request("POST", &format!("/post-{n}"), &[], &[b'p'; 1024]).await;
            assert_eq!(posted.status, 200);
            assert_eq!(origin.last(&format!("/post-{n}")).body, [b'p'; 1024]);
        }
        assert_eq!(origin.connections(), 1, "it can be sent again if the connection turns out to be dead");
        assert_eq!(client.request("PUT", "/long", &[], &vec![b'l'; 300_000]).await.status, 200);
        assert_eq!(origin.connections(), 2, "what is gone cannot be sent again");
        for _ in 0..5 {
            assert_eq!(client.request("PUT", "/long", &[], &vec![b'l'; 300_000]).await.status, 200);
        }
        assert_eq!(origin.connections(), 7);
        origin.until("only what is of use again is kept", |origin| origin.open() <= 1).await;
        // Another client, the same thread or another: at most one more each.
        for _ in 0..10 {
            assert_eq!(proxy.connect().await.get("/y").await.status, 200);
        }
        assert!(origin.connections() <= 7 + std::thread::available_parallelism().unwrap().get());
    });
}

#[test]
fn a_backend_that_closes_what_it_kept_costs_no_request() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.close();
            // It does not say so.
            x.send(format!("HTTP/1.1 200 OK\r\nX-Origin: a\r\nContent-Length: {}\r\n\r\nok", 2)).await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").affinity(None).text()).await;
        let mut client = proxy.connect().await;
        for n in 0..200 {
            let (method, body) = if n % 2 == 0 { ("GET", &b""[..]) } else { ("POST", &b"once"[..]) };
            if method == "POST" {
                // One that comes a moment before the end is reset: nobody knows whether it was read, so it is not sent again.
                origin.until("its end is said", |origin| origin.open() == 0).await;
            }
            let answer = client.request(method, "/x", &[], body).await;
            assert_eq!((answer.status, &*answer.text()), (200, "ok"), "{n}: {method}");
        }
        assert_eq!(origin.count("/x"), 200, "each was seen once");
    });
}

#[test]
fn who_says_that_it_sends_no_more_may_close_its_side() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            x.serve().await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
        for head in ["GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"] {
            let mut client = proxy.connect().await;
            client.send(head).await;
            client.finish().await;
            assert_eq!(client.response("GET").await.text(), "a", "{head}");
            assert!(client.ends().await);
        }
        // Who wanted to stay and closes has gone.
        let mut client = proxy.connect().await;
        client.send("GET /gone HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.finish().await;
        assert_eq!(client.rest().await, b"", "nothing is sent to who has gone");
    });
}

#[test]
fn an_answer_may_begin_before_the_request_ends_and_both_go_on() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            while let Some(part) = x.read_part().await? {
                x.chunk(&part).await?;
            }
            x.send("0\r\n\r\n").await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
        let mut client = proxy.connect().await;
        client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.fields.get("connection")), (200, Some("close")), "its end is not known yet");
        for word in ["one", "two", "three"] {
            client.send(format!("{:x};ext=1\r\n{word}\r\n", word.len())).await;
            assert_eq!(client.chunk().await.unwrap().unwrap(), word.as_bytes());
        }
        client.send("0\r\nX-Trailer: 1\r\n\r\n").await;
        assert_eq!(client.chunk().await, Some(None));
        assert!(client.trailers().await.unwrap().0.is_empty(), "trailers end at the proxy");
        assert!(client.ends().await);
    });
}

#[test]
fn a_large_chunk_is_looked_at_before_it_goes() {
    within(60, async {
        let came = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&came);
        let origin = Origin::scripted("a", async move |x| {
            loop {
                let bytes = x.some().await?;
                if bytes.is_empty() {
                    return Ok(());
                }
                counted.fetch_add(bytes.len(), Relaxed);
            }
        });
        let site = Site::new(&[&origin]).affinity(None).probe("enabled = false");
        let proxy = Proxy::start(&site.route("body_bytes_max = \"100KiB\"").text()).await;
        let mut client = proxy.connect().await;
        client.send("POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n").await;
        // It does not wait for an answer, and may be cut off.
        let _ = client.try_send(&vec![b'x'; 1 << 20]).await;
        assert_eq!(client.response("POST").await.status, 413);
        origin.until("the end of the backend's connection", |origin| origin.open() == 0).await;
        let came = came.load(Relaxed);
        assert!(came <= 100 << 10, "{came} bytes");
    });
}

#[test]
fn an_answer_without_length_is_put_into_chunks_and_a_broken_one_is_seen_to_be() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.close();
            if x.request.path() == "/cut" {
                x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\nContent-Length: 10\r\n\r\nhalf").await
            } else {
                x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\n\r\nfirst").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
                x.send("second").await
            }
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
        let mut client = proxy.connect().await;
        for _ in 0..3 {
            let answer = client.get("/until-close").await;
            assert_eq!((answer.fields.get("transfer-encoding"), &*answer.text()), (Some("chunked"), "firstsecond"));
        }
        client.send("GET /until-close HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let text = String::from_utf8(client.rest().await).unwrap();
        assert!(text.ends_with("\r\n\r\nfirstsecond") && text.contains("Connection: close\r\n"), "{text}");
        let mut client = proxy.connect().await;
        client.send("GET /cut HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(client.rest().await.ends_with(b"\r\n\r\nhalf"), "and the connection ends");
    });
}

#[test]
fn http_10_is_kept_when_it_asks_and_knows_no_interim_answers() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?;
            x.reply("200 OK", &[("X-Seen", &x.request.version.clone())], b"a").await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
        let mut client = proxy.connect().await;
        for _ in 0..2 {
            client.send("GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").await;
            let answer = client.response("GET").await;
            assert_eq!((answer.status, answer.fields.get("connection")), (200, Some("keep-alive")));
            assert_eq!(answer.fields.get("x-seen"), Some("HTTP/1.1"), "the version is the hop's");
        }
        client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let answer = client.response("GET").await;
        assert_eq!((answer.status, answer.interim.len(), answer.interim[0].0), (200, 1, 103));
    });
}

#[test]
fn an_answer_nobody_can_read_is_no_answer() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.close();
            match x.request.path() {
                "/two-lengths" => x.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab").await,
                "/both" => {
                    x.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await
                }
                "/switch" => x.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").await,
                "/ssh" => x.send("SSH-2.0-OpenSSH\r\n").await,
                "/endless" => x.send("HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)).await,
                "/long" => x.send(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(70_000))).await,
                _ => x.send("HTTP/1.1 200 OK\nContent-Length: 2\nX-Origin: a\n\nok").await,
            }
        });
        let site = Site::new(&[&origin]).probe("enabled = false").pool("fail_open = true").affinity(None);
        let proxy = Proxy::start(&site.text()).await;
        for target in ["/two-lengths", "/both", "/switch", "/ssh", "/endless", "/long"] {
            let mut client = proxy.connect().await;
            client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let text = String::from_utf8(client.rest().await).unwrap();
            let last = text.split("HTTP/1.1 ").last().unwrap();
            assert!(last.starts_with("502 ") && last.contains("upstream_invalid"), "{target}: {last}");
        }
        let lenient = proxy.connect().await.get("/bare-lines").await;
        assert_eq!((lenient.status, &*lenient.text()), (200, "ok"), "a line that ends in LF alone is made one of ours");
    });
}

#[test]
fn a_page_gets_its_script_however_it_comes() {
    within(60, async {
        const PAGE: &str = "<html><head><title>A</title></head><body>page</body></html>";
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::scripted("a", async |x| {
            let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"a\"\r\n";
            match x.request.path() {
                "/length" => x.reply("200 OK", &[("Content-Type", "Text/HTML; charset=utf-8")], PAGE.as_bytes()).await,
                "/chunked" => {
                    x.send(format!("{html}Transfer-Encoding: chunked\r\n\r\n")).await?;
                    for part in PAGE.as_bytes().chunks(7) {
                        x.chunk(part).await?;
                        tokio::task::yield_now().await;
                    }
                    x.send("0\r\n\r\n").await
                }
                "/close" => {
                    x.close();
                    x.send(format!("{html}\r\n{PAGE}")).await
                }
                "/plain" => x.reply("200 OK", &[("Content-Type", "text/plain")], PAGE.as_bytes()).await,
                _ => x.serve().await,
            }
        });
        let site = Site::new(&[&origin]).https().pool("reconnect_shim = true");
        let proxy = Proxy::start_in(folder, &site.text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let whole = |text: &str| {
            let (before, after) = text.split_once("<script>").unwrap_or_else(|| panic!("no script: {text}"));
            let (script, after) = after.split_once("</script>").unwrap();
            assert!(script.contains("createSocket"), "{script}");
            assert_eq!((before, after), PAGE.split_at("<html><head>".len()));
        };
        for (path, has_length) in [("/length", true), ("/chunked", false), ("/close", false)] {
            for version in ["1.1", "1.0"] {
                let mut client = Client::tls(proxy.web(), &ca.trust("localhost")).await;
                client.send(format!("GET {path} HTTP/{version}\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")).await;
                let answer = client.response("GET").await;
                assert_eq!(answer.fields.get("content-length").is_some(), has_length, "{path} {version}");
                whole(&answer.text());
                client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")).await;
                if has_length && version == "1.1" {
                    let head = client.response("HEAD").await;
                    assert_eq!(head.fields.get("content-length"), answer.fields.get("content-length"));
                }
            }
            let get = http::Request::get(format!("https://localhost{path}")).header("accept", "text/html");
            let answer = h2.request(get.body(Vec::new()).unwrap()).await.unwrap();
            whole(&answer.text());
            let length = answer.fields.get("content-length").map(|l| l.parse::<usize>().unwrap());
            assert_eq!(length, has_length.then_some(answer.body.len()), "{path}");
            assert_eq!(answer.fields.get("etag"), (!has_length).then_some("W/\"a\""), "the bytes are others");
            assert_eq!(origin.last(path).fields.get("accept-encoding"), Some("identity"));
        }
        let get = http::Request::get("https://localhost/plain").header("accept", "text/html");
        assert_eq!(h2.request(get.body(Vec::new()).unwrap()).await.unwrap().body, PAGE.as_bytes());
    });
}

#[test]
fn how_a_request_is_cut_changes_nothing() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
        for parts in [
            &["\r", "\n\r\n", "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"][..],
            &["\r\n\r", "\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r", "\n"],
            &["*SEARCH /x HT", "TP/1.1\r\nHost: localhost\r\n\r\n"],
            &["*SEARCH /x HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        ] {
            let mut client = proxy.connect().await;
            for part in parts {
                client.send(part).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(client.response("GET").await.status, 200, "{parts:?}");
        }
        assert_eq!(origin.count("/x"), 4);
    });
}

#[test]
fn half_an_answer_to_http10_does_not_look_whole() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| match x.request.path() {
            "/chunks" => {
                x.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await?;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
            "/silent" => {
                x.send("HTTP/1.1 200 OK\r\n\r\nhello").await?;
                while !x.some().await?.is_empty() {}
                Ok(())
            }
            "/whole" => {
                x.close();
                x.send("HTTP/1.1 200 OK\r\n\r\nhello").await
            }
            _ => x.serve().await,
        });
        let site = Site::new(&[&origin]).affinity(None).pool("timeouts = { response = \"1s\" }");
        let proxy = Proxy::start(&site.text()).await;
        for (path, is_whole) in [("/chunks", false), ("/silent", false), ("/whole", true)] {
            let mut socket = tokio::net::TcpStream::connect(proxy.web()).await.unwrap();
            socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let end = patiently("the end", socket.read_to_end(&mut answer)).await;
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{path}");
            assert_eq!(end.is_ok(), is_whole, "{path}: {end:?}");
        }
    });
}
