//! Messages pass as they are: streamed, unbounded, unaltered where nobody asked for a change.

use std::io;

use crate::harness::{Exchange, Fields, Origin, Proxy, Site, eventually, within};

/// An origin with a few peculiar paths; everything else is served as usual.
async fn peculiar(x: &mut Exchange) -> io::Result<()> {
    match x.request.path() {
        "/odd-reason" => x.reply("299 Tres Special, (really)", &[], b"odd").await,
        "/no-reason" => x.reply("200 ", &[], b"none").await,
        "/not-modified" => x.reply("304 Not Modified", &[("ETag", "\"1\""), ("Content-Length", "99")], b"").await,
        "/nothing" => x.reply("204 No Content", &[], b"").await,
        "/until-close" => {
            x.close();
            x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\n\r\n").await?;
            x.send(vec![b'z'; 300_000]).await
        }
        "/http10" => {
            x.close();
            x.send("HTTP/1.0 200 OK\r\nX-Origin: a\r\nContent-Length: 3\r\n\r\nold").await
        }
        "/chunks" => {
            x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await?;
            for size in [1, 8191, 8192, 65_537, 3] {
                x.chunk(&vec![b'c'; size]).await?;
            }
            x.send("0\r\nX-Sum: 81924\r\n\r\n").await
        }
        "/early-hints" => {
            x.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n").await?;
            x.reply("200 OK", &[], b"final").await
        }
        "/range" => {
            assert_eq!(x.request.fields.get("range"), Some("bytes=2-4"));
            x.reply("206 Partial Content", &[("Content-Range", "bytes 2-4/10"), ("Accept-Ranges", "bytes")], b"234")
                .await
        }
        "/two-cookies" => x.reply("200 OK", &[("Set-Cookie", "one=1; Path=/x"), ("Set-Cookie", "two=2")], b"").await,
        "/hop" => {
            let fields = [
                ("Connection", "keep-alive, X-Private"),
                ("X-Private", "1"),
                ("Keep-Alive", "timeout=9"),
                ("X-Public", "2"),
            ];
            x.reply("200 OK", &fields, b"").await
        }
        _ => x.serve().await,
    }
}

async fn with_peculiar_origin() -> (Origin, Proxy) {
    let origin = Origin::scripted("a", async |x| peculiar(x).await);
    let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
    (origin, proxy)
}

#[test]
fn status_lines_pass_unchanged() {
    within(60, async {
        let (_origin, proxy) = with_peculiar_origin().await;
        let mut client = proxy.connect().await;
        for (target, status, reason, body) in [
            ("/odd-reason", 299, "Tres Special, (really)", "odd"),
            ("/no-reason", 200, "", "none"),
            ("/nothing", 204, "No Content", ""),
            ("/not-modified", 304, "Not Modified", ""),
            ("/x", 200, "OK", "a"),
        ] {
            let answer = client.get(target).await;
            assert_eq!((answer.status, &*answer.reason, &*answer.text()), (status, reason, body), "{target}");
            assert_eq!(answer.version, "HTTP/1.1");
        }
        assert_eq!(client.get("/not-modified").await.fields.get("etag"), Some("\"1\""));
    });
}

#[test]
fn bodies_of_every_framing_arrive_whole() {
    within(60, async {
        let (_origin, proxy) = with_peculiar_origin().await;
        let mut client = proxy.connect().await;
        let chunks = client.get("/chunks").await;
        assert_eq!(chunks.body, vec![b'c'; 1 + 8191 + 8192 + 65_537 + 3]);
        // Trailers end at the proxy, as RFC 9110 §6.5.1 permits; the connection goes on behind them.
        assert_eq!(chunks.trailers, Fields::default());
        assert_eq!(client.get("/until-close").await.body, vec![b'z'; 300_000]);
        let old = proxy.connect().await.get("/http10").await;
        assert_eq!((old.version.as_str(), old.text().as_str()), ("HTTP/1.1", "old"));
        // The same for a client of HTTP/1.0, which knows no chunks.
        let mut client = proxy.connect().await;
        client.send("GET /chunks HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
        let answer = client.response("GET").await;
        assert!(!answer.fields.has("transfer-encoding"));
        assert_eq!(answer.body.len(), 1 + 8191 + 8192 + 65_537 + 3);
        assert!(client.ends().await);
    });
}

#[test]
fn head_ranges_and_cookies_pass() {
    within(60, async {
        let (origin, proxy) = with_peculiar_origin().await;
        let mut client = proxy.connect().await;
        let head = client.request("HEAD", "/file", &[], b"").await;
        assert_eq!((head.status, head.fields.get("content-length"), head.body.len()), (200, Some("1"), 0));
        assert_eq!(origin.last("/file").method, "HEAD");
        let range = client.request("GET", "/range", &[("Range", "bytes=2-4")], b"").await;
        assert_eq!(
            (range.status, range.fields.get("content-range"), &*range.text()),
            (206, Some("bytes 2-4/10"), "234")
        );
        let cookies = client.get("/two-cookies").await;
        assert_eq!(cookies.fields.all("set-cookie").collect::<Vec<_>>(), ["one=1; Path=/x", "two=2"]);
        for method in ["DELETE", "PUT", "PATCH", "OPTIONS", "PROPFIND", "QUERY"] {
            assert_eq!(client.request(method, "/method", &[], b"").await.status, 200);
            assert_eq!(origin.last("/method").method, method);
        }
    });
}

#[test]
fn targets_pass_byte_for_byte() {
    within(60, async {
        let (origin, proxy) = with_peculiar_origin().await;
        let mut client = proxy.connect().await;
        for target in [
            "/a%2Fb/%7e/%E4?x=%20y&z=a+b",
            "/a//b/./c/../d",
            "/;p=1,2/(x)'!*$@:",
            "/?",
            "/?q=/?&&=",
            "/%zz",
            "/|^{}?`|",
        ] {
            assert_eq!(client.get(target).await.status, 200, "{target}");
            assert_eq!(origin.seen().last().unwrap().target, target);
        }
        // What a proxy is asked in absolute form reaches the backend in origin form (RFC 9112 §3.2.2).
        assert_eq!(client.get("http://localhost/absolute?x=1").await.status, 200);
        assert_eq!(origin.seen().last().unwrap().target, "/absolute?x=1");
    });
}

#[test]
fn interim_answers_pass_and_a_body_waits_for_100() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            if x.request.path() != "/upload" {
                return peculiar(x).await;
            }
            assert_eq!(x.request.fields.get("expect"), Some("100-continue"));
            if x.request.target.ends_with("refuse") {
                x.close();
                return x.reply("417 Expectation Failed", &[("Connection", "close")], b"no").await;
            }
            x.send("HTTP/1.1 100 Continue\r\n\r\n").await?;
            x.read_body().await?;
            x.reply("201 Created", &[], b"stored").await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let hints = proxy.connect().await.get("/early-hints").await;
        assert_eq!((hints.status, &*hints.text()), (200, "final"));
        assert_eq!(hints.interim.len(), 1, "{hints:?}");
        assert_eq!((hints.interim[0].0, hints.interim[0].1.get("link")), (103, Some("</style.css>; rel=preload")));

        let mut client = proxy.connect().await;
        let head = |query| {
            format!(
                "POST /upload{query} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            )
        };
        client.send(head("")).await;
        let interim = client.until(b"\r\n\r\n").await.unwrap();
        assert!(interim.starts_with(b"HTTP/1.1 100"), "{}", interim.escape_ascii());
        client.send("body").await;
        let answer = client.response("POST").await;
        assert_eq!((answer.status, &*answer.text()), (201, "stored"));
        assert_eq!(origin.last("/upload").body, b"body");
        // Refused before the body was sent: that is what the waiting is for.
        let mut client = proxy.connect().await;
        client.send(head("?refuse")).await;
        assert_eq!(client.response("POST").await.status, 417);
    });
}

#[test]
fn an_answer_streams_to_the_client_while_the_backend_still_writes_it() {
    within(60, async {
        // Each line is only written when the client has asked for it on another connection.
        let (ask, asked) = tokio::sync::mpsc::unbounded_channel::<usize>();
        let asked = std::sync::Mutex::new(Some(asked));
        let origin = Origin::scripted("a", async move |x| {
            if x.request.path() != "/stream" {
                return x.serve().await;
            }
            let mut asked = asked.lock().unwrap().take().unwrap();
            x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            while let Some(i) = asked.recv().await {
                x.chunk(format!("line {i}\n").as_bytes()).await?;
            }
            x.chunk(b"").await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        client.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 200, "the head comes before any byte of the body");
        for i in 0..20 {
            ask.send(i).unwrap();
            assert_eq!(client.chunk().await, Some(Some(format!("line {i}\n").into_bytes())));
        }
        drop(ask);
        assert_eq!(client.chunk().await, Some(None));
    });
}

#[test]
fn an_upload_streams_to_the_backend_while_the_client_still_sends_it() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        for (fields, is_chunked) in [("Content-Length: 30000", false), ("Transfer-Encoding: chunked", true)] {
            let before = origin.seen().len();
            let mut client = proxy.connect().await;
            client.send(format!("POST /up HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n")).await;
            for part in 1..=3 {
                let bytes = vec![b'0' + part; 10_000];
                if is_chunked {
                    client.send(format!("{:x};name=value\r\n", bytes.len())).await;
                }
                client.send(&bytes).await;
                if is_chunked {
                    client.send("\r\n").await;
                }
                let arrived = usize::from(part) * 10_000;
                let what = format!("{arrived} bytes at the backend");
                origin.until(&what, |o| o.seen().get(before).is_some_and(|r| r.body.len() == arrived)).await;
            }
            if is_chunked {
                client.send("0\r\nX-Check: ok\r\n\r\n").await;
            }
            assert_eq!(client.response("POST").await.status, 200);
            let seen = origin.last("/up");
            assert_eq!(seen.body.len(), 30_000);
            assert_eq!(seen.fields.has("content-length"), !is_chunked, "an upload without length stays one: {seen:?}");
            assert_eq!(seen.fields.has("transfer-encoding"), is_chunked);
        }
    });
}

#[test]
fn bodies_have_no_limit_unless_the_route_has_one() {
    within(120, async {
        let origin = Origin::start("a");
        let site = Site::new(&[&origin]).affinity(None);
        let limited =
            "[[route]]\npath = \"/limited\"\npool = \"app\"\nbody_bytes_max = \"1KiB\"\n[log]\nlevel = \"info\"";
        let proxy = Proxy::start(&site.more(limited).text()).await;
        let large = vec![b'x'; 64 * 1024 * 1024];
        let answer = proxy.connect().await.request("POST", "/free", &[], &large).await;
        assert_eq!(answer.status, 200);
        assert_eq!(origin.last("/free").body.len(), large.len());
        assert!(
            proxy.resident_kib() < 200 * 1024,
            "64 MiB passed through, they did not stay: {}",
            proxy.resident_kib()
        );

        let mut client = proxy.connect().await;
        assert_eq!(client.request("POST", "/limited/x", &[], &[b'x'; 1024]).await.status, 200, "just fits");
        let too_large = client.request("POST", "/limited/x", &[], &[b'x'; 1025]).await;
        assert_eq!((too_large.status, &too_large.json()["error"]), (413, &"body_too_large".into()));
        assert_eq!(origin.count("/limited/x"), 1, "an announced length is judged before anybody is asked");
        let mut client = proxy.connect().await;
        client.send("POST /limited/y HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = [b"200\r\n".as_slice(), &[b'x'; 512], b"\r\n"].concat();
        for _ in 0..3 {
            // The last one may meet a connection that is being closed.
            let _ = client.try_send(&chunk).await;
        }
        assert_eq!(client.response("POST").await.status, 413, "counted, where nothing was announced");
        assert!(client.ends().await, "and the connection is over");
        assert!(!origin.seen().iter().any(|r| r.path() == "/limited/y" && r.body.len() > 1024));
    });
}

#[test]
fn what_is_between_two_neighbours_stays_between_them() {
    within(60, async {
        let (origin, proxy) = with_peculiar_origin().await;
        let fields = [
            ("Connection", "keep-alive, X-Mine, Content-Type"),
            ("X-Mine", "secret"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic eA=="),
            ("TE", "trailers, deflate"),
            ("X-Other", "kept"),
            ("Accept-Encoding", "gzip, br"),
        ];
        assert_eq!(proxy.get_as("/x", &fields).await.status, 200);
        let seen = origin.last("/x").fields;
        for gone in ["x-mine", "keep-alive", "proxy-connection"] {
            assert!(!seen.has(gone), "{gone}: {seen:?}");
        }
        let (id, mine) = ("00000000000000000000000000000001", "session=1");
        let fields = [
            ("Connection", "Cookie, Authorization, X-Forwarded-For, X-Request-Id, Rstudio-Connect-Credentials"),
            ("Cookie", mine),
            ("Authorization", "Key k"),
            ("X-Request-Id", id),
        ];
        assert_eq!(proxy.get_as("/named", &fields).await.status, 200);
        let named = origin.last("/named").fields;
        assert_eq!((named.get("cookie"), named.get("authorization")), (Some(mine), Some("Key k")));
        assert!(named.has("x-forwarded-for") && named.has("x-request-id"), "{named:?}");
        assert!(seen.get("connection").is_none_or(|v| v.eq_ignore_ascii_case("keep-alive")), "{seen:?}");
        assert!(seen.get("te").is_none_or(|v| v == "trailers"), "RFC 9110 §10.1.4: {seen:?}");
        assert_eq!((seen.get("x-other"), seen.get("accept-encoding")), (Some("kept"), Some("gzip, br")));

        let answer = proxy.get("/hop").await;
        assert!(!answer.fields.has("x-private") && !answer.fields.has("keep-alive"), "{answer:?}");
        assert_eq!(answer.fields.get("x-public"), Some("2"));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.read_body().await?;
            let told = format!("{} {} {}", x.request.method, x.request.target, x.request.body.len());
            x.reply("200 OK", &[], told.as_bytes()).await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").text()).await;
        let mut client = proxy.connect().await;
        let one = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(one.repeat(5)).await;
        for _ in 0..5 {
            assert_eq!(client.response("GET").await.text(), "GET /1 0");
            assert_eq!(client.response("POST").await.text(), "POST /2 3");
            assert_eq!(client.response("POST").await.text(), "POST /3 5");
            assert_eq!(client.response("HEAD").await.status, 200);
        }
        // And byte by byte.
        for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" {
            client.send([*byte]).await;
        }
        assert_eq!(client.response("GET").await.text(), "GET /slow 0");
    });
}

#[test]
fn what_a_client_still_sends_does_not_destroy_its_last_answer() {
    within(60, async {
        let (_origin, proxy) = with_peculiar_origin().await;
        for _ in 0..20 {
            let mut client = proxy.connect().await;
            let last = "GET /chunks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            client.send([last.as_bytes(), &[b'x'; 40_000]].concat()).await;
            assert_eq!(client.response("GET").await.body.len(), 81_924);
            let _ = client.try_send(&[b'x'; 40_000]).await;
            assert!(client.ends().await);
        }
    });
}

#[test]
fn a_client_that_reads_nothing_holds_its_connection_no_longer_than_allowed() {
    within(60, async {
        let wide = "w".repeat(30_000);
        let origin = Origin::scripted("a", async move |x| match x.is_probe() {
            true => x.serve().await,
            // A head is written in one piece.
            false => x.reply("200 OK", &[("X-Wide", &wide)], b"").await,
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).pool("timeouts = { body = \"1s\" }").text()).await;
        let mut client = proxy.connect().await;
        client.send("GET /wide HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000)).await;
        eventually("the connection's end", async || {
            (proxy.metrics().await.sum("bowline_proxy_connections", &[("listener", "web")]) == 0.0).then_some(())
        })
        .await;
        assert!(origin.count("/wide") < 1000, "the client took them all, which proves nothing");
        drop(client);
    });
}
