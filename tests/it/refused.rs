//! What two parsers could read differently reaches no backend, and says why it was refused.
//!
//! The classes are those of AWS' HTTP desync mitigation (AmbiguousUri, BadContentLength, BothTeClPresent, …) and the
//! bounds of a listener.

use std::time::Duration;

use crate::harness::{Client, Origin, Proxy, Site, eventually, within};

/// Bytes of a request, the named reason, the status.
const REFUSED: &[(&str, &str, u16)] = &[
    // Two lengths.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "length_and_encoding",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "length_and_encoding",
        400,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "multiple_lengths", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc", "multiple_lengths", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", "multiple_lengths", 400),
    // Lengths that are none.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "bad_length", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", "bad_length", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", "bad_length", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\nabc", "bad_length", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc", "bad_length", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", "bad_length", 400),
    // Encodings that are none, or that only one side would know.
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "bad_transfer_encoding", 400),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "bad_transfer_encoding",
        400,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "bad_transfer_encoding", 400),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad_transfer_encoding",
        400,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "bad_transfer_encoding", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad_transfer_encoding", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "bad_transfer_encoding", 400),
    // Field names and values.
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "bad_field_name", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", "bad_field_name", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", "bad_field_name", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n", "bad_field_name", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n", "bad_field_value", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", "bad_field_value", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\x7f\r\n\r\n", "bad_field_value", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", "folded_field", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n", "folded_field", 400),
    // Line ends.
    ("GET / HTTP/1.1\nHost: a\n\n", "bare_line_feed", 400),
    ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", "bare_line_feed", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\r\n", "bare_line_feed", 400),
    // Hosts.
    ("GET / HTTP/1.1\r\n\r\n", "missing_host", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "multiple_hosts", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "multiple_hosts", 400),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "bad_host", 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "bad_host", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_host", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad_host", 400),
    ("GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", "bad_host", 400),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_host", 400),
    // Request lines.
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_method", 400),
    ("\0 / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_method", 400),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "connect_method", 405),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "bad_version", 505),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "bad_version", 505),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "bad_version", 505),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", "bad_version", 505),
    ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", 400),
    ("GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", 400),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", 400),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", 400),
    ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target", 400),
];

/// Chunked bodies that are none; the head before them is fine.
const BAD_CHUNKS: &[&str] = &[
    "zz\r\n",
    "-1\r\n",
    "0x3\r\nabc\r\n",
    "3\nabc\r\n",
    "3\r\nabcX",
    "3\r\nabc\n",
    "11111111111111111\r\n",
    "3;\0\r\nabc\r\n",
    "\r\n",
];

/// Sends the bytes with a smuggled request behind them; the answer, after which the connection must be over.
async fn refusal(proxy: &Proxy, bytes: &str) -> (u16, Option<String>) {
    let mut client = proxy.connect().await;
    client.send(bytes).await;
    // It may already be refused and closing.
    let _ = client.try_send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let Some(answer) = client.try_response("GET").await else { return (0, None) };
    assert_eq!(answer.fields.get("connection"), Some("close"), "{bytes:?}: {answer:?}");
    assert!(client.ends().await, "{bytes:?}: nothing comes after a refusal");
    (answer.status, answer.fields.get("x-refused").map(str::to_owned))
}

#[test]
fn what_is_malformed_or_ambiguous_is_refused_by_name() {
    within(120, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").text()).await;
        for (bytes, reason, status) in REFUSED {
            let count = async || {
                proxy
                    .metrics()
                    .await
                    .sum("bowline_proxy_refused_requests_total", &[("listener", "web"), ("reason", reason)])
            };
            let before = count().await;
            let (got, named) = refusal(&proxy, bytes).await;
            assert_eq!((got, named.as_deref()), (*status, Some(*reason)), "{bytes:?}");
            assert_eq!(count().await - before, 1.0, "{bytes:?} is counted");
        }
        assert_eq!(origin.seen(), [], "no backend saw any of it");
        assert_eq!(origin.connections(), 0);
        assert_eq!(proxy.get("/").await.status, 200);
    });
}

#[test]
fn a_refused_request_is_found_in_the_log_by_its_id() {
    within(60, async {
        let origin = Origin::start("a");
        let log = "[access_log]\nenabled = true\nfile = \"access.log\"";
        let proxy = Proxy::start(&Site::new(&[&origin]).more(log).text()).await;
        let mut client = proxy.connect().await;
        client.send("GET /found?secret=1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
        let answer = client.response("GET").await;
        let id = answer.fields.get("x-request-id").unwrap().to_owned();
        assert!(answer.text().contains(&id), "{answer:?}");
        let line = eventually("its line", async || {
            proxy.folder.read("access.log").lines().find(|l| l.contains(&id)).map(str::to_owned)
        })
        .await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["url.path"], &line["http.request.method"]), (&"/found".into(), &"GET".into()), "{line}");
        assert_eq!((&line["http.response.status_code"], &line["error.type"]), (&400.into(), &"multiple_hosts".into()));
        assert!(!line.to_string().contains("secret"));
    });
}

#[test]
fn the_second_request_of_a_connection_is_judged_like_the_first() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut client = proxy.connect().await;
        client.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
        assert_eq!(client.response("GET").await.status, 200);
        let refused = client.response("GET").await;
        assert_eq!((refused.status, refused.fields.get("x-refused")), (400, Some("multiple_hosts")));
        assert!(client.ends().await);
        assert_eq!(origin.count("/bad"), 0);
    });
}

#[test]
fn a_malformed_chunk_ends_the_exchange_on_both_sides() {
    within(120, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").text()).await;
        for (i, chunk) in BAD_CHUNKS.iter().enumerate() {
            let mut client = proxy.connect().await;
            client.send(format!("POST /{i} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")).await;
            let _ = client.try_send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = client.response("POST").await;
            assert_eq!(answer.status, 400, "{chunk:?}");
            assert!(client.ends().await, "{chunk:?}");
        }
        let counted = proxy.metrics().await.value("bowline_proxy_refused_requests_total", &[("reason", "bad_chunk")]);
        assert_eq!(counted, BAD_CHUNKS.len() as f64);
        // A head may have gone out before its body broke, but never a whole message.
        origin.until("connections to end", |o| o.open() == 0).await;
        assert!(origin.seen().iter().all(|r| r.body.len() <= 3 && r.path() != "/smuggled"), "{:?}", origin.seen());
        assert_eq!(proxy.get("/").await.status, 200);
    });
}

#[test]
fn heads_have_bounds_in_bytes_fields_and_time() {
    within(60, async {
        let origin = Origin::start("a");
        let limits = "limits = { head_bytes = \"8KiB\", head_count = 20, head_timeout = \"1s\" }";
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").listener(limits).text()).await;

        let long = "x".repeat(9000);
        for bytes in [
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            // No end in sight.
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}"),
            long.clone(),
        ] {
            assert_eq!(refusal(&proxy, &bytes).await, (431, Some("head_too_large".to_owned())));
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(20));
        assert_eq!(refusal(&proxy, &many).await, (431, Some("too_many_fields".to_owned())));
        let fits = format!("GET / HTTP/1.1\r\nHost: a\r\n{}X: {}\r\n\r\n", "X: 1\r\n".repeat(18), &long[..8000]);
        let mut client = proxy.connect().await;
        client.send(fits).await;
        assert_eq!(client.response("GET").await.status, 200);

        // Slowly, byte by byte, but never an end.
        let mut slow = proxy.connect().await;
        slow.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        let mut quick = proxy.connect().await;
        for _ in 0..5 {
            let _ = slow.try_send(b"X: 1\r\n").await;
            assert_eq!(quick.get("/").await.status, 200, "others are served meanwhile");
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let answer = slow.response("GET").await;
        assert_eq!((answer.status, answer.fields.get("x-refused")), (408, Some("head_timeout")));
        assert!(slow.ends().await);
        assert_eq!(origin.seen().len(), 6);
    });
}

#[test]
fn a_connection_that_never_asks_anything_is_closed_without_a_word() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy =
            Proxy::start(&Site::new(&[&origin]).listener("limits = { keepalive_timeout = \"1s\" }").text()).await;
        let mut mute = proxy.connect().await;
        assert!(mute.ends().await);
        let mut idle = proxy.connect().await;
        assert_eq!(idle.get("/").await.status, 200);
        assert!(idle.ends().await, "an idle connection, too");
    });
}

#[test]
fn hundreds_of_slow_clients_do_not_slow_the_others() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        let mut slow = Vec::new();
        for _ in 0..400 {
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await;
            slow.push(client);
        }
        let mut client = Client::tcp(proxy.web()).await;
        for _ in 0..50 {
            let started = tokio::time::Instant::now();
            assert_eq!(client.get("/").await.status, 200);
            assert!(started.elapsed() < Duration::from_secs(2));
        }
    });
}

#[test]
fn http2_requests_that_would_smuggle_reach_nobody() {
    use crate::harness::{Authority, Folder, H2};
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().probe("enabled = false").text()).await;
        let request = |name: &str, value: &str| {
            http::Request::builder()
                .method("POST")
                .uri("https://localhost/x")
                .header(name, value)
                .body(b"abc".to_vec())
                .unwrap()
        };
        // RFC 9113 §8.2.2: connection fields make the request malformed; a wrong length, too (§8.1.1).
        for (name, value) in
            [("transfer-encoding", "chunked"), ("connection", "close"), ("content-length", "9"), ("host", "other")]
        {
            let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
            match h2.request(request(name, value)).await {
                Err(_) => {}
                Ok(answer) => assert_eq!(answer.status, 400, "{name}: {value}: {answer:?}"),
            }
        }
        assert!(origin.seen().iter().all(|r| r.body.is_empty() || r.body == b"abc"), "{:?}", origin.seen());
        assert!(!origin.seen().iter().any(|r| r.fields.has("transfer-encoding") && r.fields.has("content-length")));
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        assert_eq!(h2.request(request("x", "y")).await.unwrap().status, 200);
    });
}
