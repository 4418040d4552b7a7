//! What fails, whose fault it is, and what is tried again.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Exchange, Origin, Proxy, Response, Site, cookie_of, eventually, within};

#[test]
fn a_request_nobody_accepted_goes_to_another_backend_whatever_its_method() {
    within(60, async {
        let (mut a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]).affinity(None).probe("enabled = false").pool("policy = \"round_robin\"");
        let proxy = Proxy::start(&site.text()).await;
        a.kill();
        for (method, body) in [("POST", &b"abc"[..]), ("GET", b""), ("PUT", b"x"), ("DELETE", b"")] {
            for _ in 0..3 {
                let answer = proxy.connect().await.request(method, "/", &[], body).await;
                assert_eq!((answer.status, answer.origin()), (200, "b"), "{method}");
            }
        }
        assert!(b.seen().iter().filter(|r| r.method == "POST").all(|r| r.body == b"abc"));
        assert!(proxy.metrics().await.value("bowline_proxy_retries_total", &[("pool", "app")]) >= 1.0);
    });
}

/// Two origins that read each `/die` request whole and hang up; how often both were asked, and the answer.
async fn dying(method: &str, body: &[u8]) -> (usize, Response) {
    let script = async |x: &mut Exchange| {
        if x.request.path() != "/die" {
            return x.serve().await;
        }
        x.read_body().await?;
        Err(io::ErrorKind::ConnectionReset.into())
    };
    let (a, b) = (Origin::scripted("a", script), Origin::scripted("b", script));
    let proxy = Proxy::start(&Site::new(&[&a, &b]).affinity(None).text()).await;
    let answer = proxy.connect().await.request(method, "/die", &[], body).await;
    (a.count("/die") + b.count("/die"), answer)
}

#[test]
fn a_request_whose_backend_dies_is_repeated_once_if_that_is_safe_and_never_a_post() {
    within(60, async {
        for (method, body, asked) in [
            ("GET", &b""[..], 2),
            ("HEAD", b"", 2),
            ("POST", b"abc", 1),
            ("POST", b"", 1),
            ("GET", b"abc", 1),
            ("DELETE", b"", 1),
        ] {
            let (count, answer) = dying(method, body).await;
            assert_eq!((count, answer.status), (asked, 502), "{method} with {} bytes", body.len());
            if method != "HEAD" {
                let page = answer.json();
                assert_eq!((&page["fault"], &page["error"]), (&"upstream".into(), &"upstream_closed".into()));
            }
        }
    });
}

#[test]
fn a_post_that_was_read_is_not_sent_again_though_the_reset_acknowledges_nothing() {
    within(60, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    // By the third request the system acknowledges what comes only with the answer.
                    for n in 1..=4 {
                        let mut request = Vec::new();
                        while !request.ends_with(b"\r\n\r\nx") {
                            if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        if n < 4 {
                            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                        }
                    }
                    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                });
            }
        });
        let site = Site::new(&[]).backend("a", &address, "").probe("enabled = false").affinity(None);
        let proxy = Proxy::start(&site.text()).await;
        let mut client = proxy.connect().await;
        for wanted in [200, 200, 200, 502] {
            assert_eq!(client.request("POST", "/", &[], b"x").await.status, wanted);
        }
        serving.abort();
    });
}

#[test]
fn a_get_whose_backend_dies_is_answered_by_another() {
    within(60, async {
        let dying = Origin::scripted("dying", async |x| match x.is_probe() {
            true => x.serve().await,
            false => Err(io::ErrorKind::ConnectionReset.into()),
        });
        let b = Origin::start("b");
        let proxy =
            Proxy::start(&Site::new(&[&dying, &b]).affinity(None).pool("policy = \"round_robin\"").text()).await;
        for _ in 0..10 {
            assert_eq!(proxy.get("/").await.origin(), "b");
        }
        assert!(!dying.seen().is_empty(), "it had its turn");
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_made_whole() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            x.close();
            match x.request.path() {
                "/length" => x.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await,
                "/chunked" => x.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n").await,
                "/garbage" => x.send("I am no HTTP server\r\n\r\n").await,
                _ => x.serve().await,
            }
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).affinity(None).text()).await;
        for target in ["/length", "/chunked"] {
            let mut client = proxy.connect().await;
            client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert_eq!(client.head().await.unwrap().status, 200);
            let rest = client.rest().await;
            assert!(rest.windows(9).any(|w| w == b"only this"), "{target}: {}", rest.escape_ascii());
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{target}: the client must see that something is missing");
            assert_eq!(origin.count(target), 1, "never repeated after the first byte");
        }
        let answer = proxy.get("/garbage").await;
        assert_eq!((answer.status, &answer.json()["error"]), (502, &"upstream_invalid".into()));
    });
}

#[test]
fn a_backend_that_says_503_while_leaving_is_asked_no_more() {
    within(60, async {
        let leaving = Origin::scripted("leaving", async |x| match x.is_probe() {
            true => x.serve().await,
            false => x.reply("503 Service Unavailable", &[], b"going down").await,
        });
        let b = Origin::start("b");
        let proxy = Proxy::start(&Site::new(&[&leaving, &b]).text()).await;
        // Of its own accord a 503 is the application's word and passes.
        let said = loop {
            let answer = proxy.get_as("/", &[("Sec-Fetch-Mode", "navigate")]).await;
            if answer.origin() == "leaving" {
                break answer;
            }
        };
        assert_eq!((said.status, &*said.text()), (503, "going down"));
        let cookie = cookie_of(&said);
        proxy.command(&["drain", "app/leaving"]).await.ok();
        let answer = proxy.get_as("/", &[("Cookie", &cookie)]).await;
        assert_eq!((answer.status, answer.origin()), (200, "b"));
        let post = proxy.connect().await.request("POST", "/", &[("Cookie", &cookie)], b"x").await;
        assert_eq!((post.status, post.origin()), (503, "leaving"), "a POST is not repeated");
    });
}

#[test]
fn slow_backends_get_504_after_their_timeouts() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| match x.request.path() {
            "/never" => x.some().await.map(drop),
            "/stalls" => {
                x.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await?;
                x.some().await.map(drop)
            }
            _ => x.serve().await,
        });
        let site = Site::new(&[&origin]).affinity(None).pool("timeouts = { response = \"1s\" }\nretries = 0");
        let proxy = Proxy::start(&site.text()).await;
        let answer = proxy.get("/never").await;
        assert_eq!((answer.status, &answer.json()["error"]), (504, &"upstream_timeout".into()));
        let mut client = proxy.connect().await;
        client.send("GET /stalls HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 200);
        assert_eq!(client.rest().await, b"half", "an answer that stalls is cut");
    });
}

#[test]
fn a_client_that_stops_sending_its_body_is_told_so() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).pool("timeouts = { body = \"1s\" }").text()).await;
        let mut client = proxy.connect().await;
        client.send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert_eq!(client.response("POST").await.status, 408);
        assert!(client.ends().await);
        assert_eq!(
            proxy
                .metrics()
                .await
                .value("bowline_proxy_errors_total", &[("cause", "body_timeout"), ("side", "downstream")]),
            1.0
        );
    });
}

#[test]
fn error_pages_speak_the_clients_language_and_name_fault_and_request() {
    within(60, async {
        let origin = Origin::start("a");
        let site = Site::new(&[&origin]).route("host = \"known.example.org\"");
        let proxy = Proxy::start(&site.text()).await;
        let json = proxy.get_as("/", &[("Host", "unknown.example.org"), ("Accept", "application/json")]).await;
        assert_eq!((json.status, json.fields.get("content-type")), (404, Some("application/json")));
        let page = json.json();
        assert_eq!(
            (&page["error"], &page["fault"], &page["status"]),
            (&"no_route".into(), &"downstream".into(), &404.into())
        );
        assert_eq!(page["request_id"].as_str(), json.fields.get("x-request-id"));
        assert!(page["message"].as_str().unwrap().ends_with('.'));
        let html = proxy.get_as("/", &[("Host", "unknown.example.org"), ("Accept", "text/html,*/*;q=0.8")]).await;
        assert_eq!((html.status, html.fields.get("content-type")), (404, Some("text/html; charset=utf-8")));
        let id = html.fields.get("x-request-id").unwrap();
        assert!(html.text().contains(id) && html.text().contains("fault: downstream"), "{}", html.text());
        assert_eq!(html.fields.get("cache-control"), Some("no-store"), "an error is of this moment");
        let head = proxy.connect().await.request("HEAD", "/", &[("Host", "unknown.example.org")], b"").await;
        assert_eq!((head.status, head.body.len()), (404, 0));
    });
}

#[test]
fn a_client_that_leaves_ends_the_request_at_the_backend() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| match x.request.path() {
            "/long" => x.some().await.map(drop),
            _ => x.serve().await,
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").text()).await;
        for early in ["", "GET", "GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let before = origin.count("/long");
            let mut client = proxy.connect().await;
            client.send(format!("GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n{early}")).await;
            origin.until("the request", |o| o.count("/long") > before).await;
            // Time for what came early to be read, after which the end is a news of its own.
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(client);
            origin.until("the end of the upstream connection", |o| o.open() == 0).await;
        }
        eventually("the count", async || (proxy.backend("a").await["in_flight"] == 0).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.sum("bowline_proxy_errors_total", &[("side", "upstream")]), 0.0, "not the backend's fault");
    });
}
