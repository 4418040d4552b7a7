//! HTTP/2 at the front door: streams, their bounds, and what must not be lost on the way to HTTP/1.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::{Authority, Client, Folder, H2, Origin, Proxy, Site, eventually, run, tool, within};

#[test]
fn many_http2_streams_share_a_connection() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::scripted("a", async |x| {
            if x.is_probe() {
                return x.serve().await;
            }
            x.read_body().await?;
            let body = [x.request.target.as_bytes(), b" ", &x.request.body].concat();
            x.reply("200 OK", &[], &body).await
        });
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;

        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let mut streams = JoinSet::new();
        for i in 0..50 {
            let h2 = h2.clone();
            streams.spawn(async move {
                let body = vec![b'x'; if i % 2 == 0 { 0 } else { 20_000 }];
                let method = if body.is_empty() { "GET" } else { "POST" };
                let uri = format!("https://localhost/{i}");
                let request = http::Request::builder().method(method).uri(uri).body(body.clone()).unwrap();
                let response = h2.request(request).await.unwrap();
                assert_eq!(response.status, 200);
                assert_eq!(response.body, [format!("/{i} ").as_bytes(), &body].concat());
            });
        }
        streams.join_all().await;
        let forwarded = origin.last("/1");
        assert_eq!(forwarded.fields.get("host"), Some("localhost"));
        assert_eq!(forwarded.fields.get("x-forwarded-proto"), Some("https"));
    });
}

#[test]
fn an_http2_client_that_stalls_within_its_body_is_cut_and_nobody_else_blamed() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let log = "[access_log]\nenabled = true\nfile = \"access.log\"";
        let site = Site::new(&[&origin]).https().pool("timeouts = { body = \"1s\" }").more(log);
        let proxy = Proxy::start_in(folder, &site.text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        for _ in 0..4 {
            let head = http::Request::post("https://localhost/up").body(()).unwrap();
            let end = h2.stall(head).await;
            assert!(matches!(end, Err(_) | Ok(408)), "{end:?}");
        }
        let get = http::Request::get("https://localhost/").body(Vec::new()).unwrap();
        assert_eq!(h2.request(get).await.unwrap().status, 200, "the connection goes on");
        let backend = eventually("nothing under way", async || {
            let backend = proxy.backend("a").await;
            (backend["in_flight"] == 0).then_some(backend)
        });
        assert_eq!(backend.await["health"], "up");
        eventually("lines of the access log", async || {
            (proxy.folder.read("access.log").matches("body_timeout").count() == 4).then_some(())
        })
        .await;
    });
}

#[test]
fn an_http2_connection_is_bounded_like_any_other() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let limits =
            "limits = { keepalive_timeout = \"1s\", head_count = 20, head_bytes = \"8KiB\", head_timeout = \"1s\" }";
        let site = Site::new(&[&origin]).https().listener(limits);
        let proxy = Proxy::start_in(folder, &site.text()).await;
        let trust = ca.trust("localhost");
        let h2 = H2::connect(proxy.web(), &trust).await;
        let get = |fields: usize, bytes: usize| {
            let mut request = http::Request::builder().uri("https://localhost/x");
            for i in 0..fields {
                request = request.header(format!("x-{i}"), "y".repeat(bytes));
            }
            h2.request(request.body(Vec::new()).unwrap())
        };
        assert_eq!(get(3, 10).await.unwrap().status, 200);
        assert_eq!(get(30, 10).await.unwrap().status, 431, "too many fields");
        assert!(get(4, 4000).await.is_ok_and(|r| r.status == 431) || get(4, 4000).await.is_err(), "too many bytes");
        assert_eq!(origin.count("/x"), 1);
        assert!(h2.ends().await, "idle for longer than it may");
        // Says that it will speak HTTP/2, and then nothing.
        let mut mute = Client::tls(proxy.web(), &trust.clone().alpn(&["h2"])).await;
        assert!(mute.ends().await);
    });
}

#[test]
fn cookies_sent_one_to_a_field_reach_the_backend_as_one() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let get = http::Request::get("https://localhost/x").header("cookie", "a=1").header("cookie", "b=2; c=3");
        let answer = h2.request(get.header("cookie", "d=4").body(Vec::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200);
        let seen = origin.last("/x").fields;
        assert_eq!(seen.all("cookie").collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"], "RFC 9113 §8.2.3");
    });
}

#[test]
fn a_body_without_announced_length_is_never_sent_twice() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let die = |name: &str| {
            Origin::scripted(name, async |x| {
                if x.is_probe() {
                    return x.serve().await;
                }
                x.read_body().await?;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            })
        };
        let (a, b) = (die("a"), die("b"));
        let proxy = Proxy::start_in(folder, &Site::new(&[&a, &b]).https().text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let get = |body: &[u8]| h2.request(http::Request::get("https://localhost/x").body(body.to_vec()).unwrap());
        assert_eq!(get(b"").await.unwrap().status, 502);
        assert_eq!(a.count("/x") + b.count("/x"), 2, "bodiless: once more");
        assert_eq!(get(b"body").await.unwrap().status, 502);
        assert_eq!(a.count("/x") + b.count("/x"), 3, "a GET with a body: not again");
    });
}

#[test]
fn curl_reads_why_its_upload_is_refused() {
    within(60, async {
        let (curl, ca, folder) = (tool("curl"), Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let pem = folder.write("ca.pem", ca.pem());
        let upload = folder.write("upload", vec![b'x'; 8 * 1024 * 1024]);
        let origin = Origin::scripted("a", async |x| match x.request.path() {
            // Answers before it has read the body, and closes.
            "/hasty" => {
                x.close();
                x.reply("403 Forbidden", &[("Connection", "close")], b"not you").await
            }
            _ => x.serve().await,
        });
        let limited = "[[route]]\npath = \"/limited\"\npool = \"app\"\nbody_bytes_max = \"1KiB\"";
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().more(limited).text()).await;
        let port = proxy.web().rsplit(':').next().unwrap();
        let resolve = format!("localhost:{port}:127.0.0.1");
        let (ca, data) = (pem.to_str().unwrap(), format!("@{}", upload.display()));
        for (path, status) in [("limited", " 413"), ("hasty", "not you 403")].repeat(10) {
            let url = format!("https://localhost:{port}/{path}");
            let length = if path == "limited" { "Content-Length:" } else { "X-Any: 1" };
            let told = ["-sS", "--http2", "--cacert", ca, "--resolve", &resolve, "-H", length, "-w", " %{http_code}"];
            let told = [&told[..], &["--data-binary", &data, &url]].concat();
            let output = run(&curl, &told, "").await;
            let output = output.ok();
            assert!(output.stdout.ends_with(status), "{path}: {}", output.stdout);
        }
    });
}

#[test]
fn a_client_that_opens_no_window_holds_no_error_page_for_ever() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let limits = "timeouts = { body = \"1s\" }";
        let route = "body_bytes_max = \"1KiB\"";
        let site = Site::new(&[&origin]).https().pool(limits).route(route);
        let proxy = Proxy::start_in(folder, &site.text()).await;
        let h2 = H2::without_window(proxy.web(), &ca.trust("localhost")).await;
        let post = http::Request::post("https://localhost/up").header("content-length", "9999");
        let error = h2.request(post.body(vec![b'x'; 9999]).unwrap()).await.unwrap_err();
        assert!(error.is_reset(), "{error}");
        eventually("no stream left", async || {
            (proxy.metrics().await.sum("bowline_proxy_errors_total", &[("cause", "body_too_large")]) == 1.0)
                .then_some(())
        })
        .await;
    });
}

#[test]
fn waiting_for_a_backend_is_not_the_clients_silence() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::scripted("a", async |x| {
            if x.is_probe() {
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
            x.serve().await
        });
        let site = Site::new(&[&origin]).https().pool("timeouts = { body = \"1s\", startup = \"30s\" }");
        let config = site.probe("path = \"/__ping__\", timeout = \"10s\", interval = \"10s\"").text();
        let proxy = Proxy::start_unready_in(folder, &config).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let post = http::Request::post("https://localhost/up").body(b"whole".to_vec()).unwrap();
        assert_eq!(h2.request(post).await.unwrap().status, 200);
        assert_eq!(origin.last("/up").body, b"whole");
    });
}

#[test]
fn what_a_backend_answers_reaches_an_http2_client_whole() {
    within(60, async {
        let (curl, ca, folder) = (tool("curl"), Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let pem = folder.write("ca.pem", ca.pem());
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let answered = large.clone();
        let origin = Origin::scripted("a", async move |x| match x.request.path() {
            "/early" => {
                x.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n").await?;
                x.reply(
                    "200 OK",
                    &[("Connection", "x-hop"), ("X-Hop", "1"), ("X-Twice", "1"), ("X-Twice", "2")],
                    b"late",
                )
                .await
            }
            "/length" => x.reply("200 OK", &[], &answered).await,
            "/chunked" => {
                x.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                for part in answered.chunks(100_001) {
                    x.chunk(part).await?;
                }
                x.send("0\r\nX-Trailer: 1\r\n\r\n").await
            }
            "/close" => {
                x.close();
                x.send("HTTP/1.0 200 OK\r\n\r\n").await?;
                x.send(&answered).await
            }
            "/nonsense" => x.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n").await,
            "/none" => x.send("HTTP/1.1 204 No Content\r\n\r\n").await,
            "/same" => x.send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n").await,
            "/broken" => {
                x.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await?;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
            "/upgrade" => {
                x.send(
                    "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
                )
                .await
            }
            _ => x.serve().await,
        });
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;
        let port = proxy.web().rsplit(':').next().unwrap();
        let get = async |path: &str, more: &[&str]| {
            let (url, resolve) = (format!("https://localhost:{port}{path}"), format!("localhost:{port}:127.0.0.1"));
            let (pem, got) = (pem.to_str().unwrap(), proxy.folder.write("got", ""));
            let told = ["-sS", "--http2", "--cacert", pem, "--resolve", &resolve, "-o", got.to_str().unwrap()];
            let told = [&told[..], &["-D", "-", "-w", "%{http_code} %{http_version}"], more, &[&url]].concat();
            (run(&curl, &told, "").await, std::fs::read(got).unwrap())
        };
        let (told, got) = get("/early", &[]).await;
        let text = told.ok().stdout;
        assert!(text.contains("HTTP/2 103") && text.contains("link: </a.css>"), "{text}");
        assert!(text.ends_with("200 2") && !text.contains("x-hop") && text.contains("x-request-id: "), "{text}");
        assert!(text.contains("x-twice: 1\r\nx-twice: 2\r\n") && text.contains("date: "), "{text}");
        assert_eq!(got, b"late");
        for path in ["/length", "/chunked", "/close"] {
            let (told, got) = get(path, &[]).await;
            let text = told.ok().stdout;
            assert!(text.ends_with("200 2") && !text.contains("trailer") && got == large, "{path}: {text}");
        }
        let (told, _) = get("/length", &["-I"]).await;
        assert!(told.ok().stdout.contains("content-length: 3000000\r\n"), "of HEAD");
        assert!(get("/nonsense", &[]).await.0.ok().stdout.ends_with("502 2"), "nothing of it has gone yet");
        for (path, status) in [("/none", "204"), ("/same", "304"), ("/upgrade", "426")] {
            let (told, got) = get(path, &[]).await;
            let text = told.ok().stdout;
            assert!(text.ends_with(&format!("{status} 2")) && !text.contains("upgrade: "), "{path}: {text}");
            assert_eq!(got, b"", "{path}");
        }
        let (told, got) = get("/broken", &[]).await;
        assert!(told.code != Some(0) && b"only this".starts_with(&got), "half an answer must not look whole");
    });
}

#[test]
fn an_http2_client_that_leaves_takes_its_request_with_it() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::scripted("a", async |x| {
            if x.is_probe() {
                return x.serve().await;
            }
            if x.request.path() == "/within" {
                x.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun").await?;
            }
            // Until the proxy lets go.
            while !x.some().await?.is_empty() {}
            Ok(())
        });
        let log = "[access_log]\nenabled = true\nfile = \"access.log\"";
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().more(log).text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        for path in ["/before", "/within"] {
            let get = http::Request::get(format!("https://localhost{path}")).body(()).unwrap();
            h2.abandon(get, async || {
                eventually("the request is under way", async || (origin.count(path) == 1).then_some(())).await;
            })
            .await;
            eventually("nothing under way", async || (proxy.backend("a").await["in_flight"] == 0).then_some(())).await;
        }
        eventually("two lines", async || {
            (proxy.folder.read("access.log").matches("client_gone").count() == 2).then_some(())
        })
        .await;
        origin.until("no connection left", |origin| origin.open() <= 1).await;
        assert_eq!(proxy.backend("a").await["health"], "up");
    });
}

#[test]
fn one_name_for_one_request() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("a");
        let proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let with = async |fields: &[(&str, &str)]| {
            let get = http::Request::get("https://localhost/x");
            let get = fields.iter().fold(get, |get, (name, value)| get.header(*name, *value));
            let answer = h2.request(get.body(Vec::new()).unwrap()).await.unwrap();
            (answer.status, answer.fields.get("x-refused").map(str::to_owned))
        };
        assert_eq!(with(&[("host", "localhost")]).await, (200, None));
        assert_eq!(with(&[("host", "LOCALHOST")]).await, (200, None));
        let refused = |name: &str| (400, Some(name.to_owned()));
        assert_eq!(with(&[("host", "other")]).await, refused("bad_host"));
        assert_eq!(with(&[("host", "localhost"), ("host", "localhost")]).await, refused("multiple_hosts"));
        assert_eq!(with(&[("content-length", "0"), ("content-length", "0")]).await, refused("multiple_lengths"));
        assert_eq!(origin.count("/x"), 2);
    });
}

#[test]
fn streams_end_in_order_when_the_proxy_leaves() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::scripted("a", async |x| {
            if !x.is_probe() {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            x.serve().await
        });
        let mut proxy = Proxy::start_in(folder, &Site::new(&[&origin]).https().text()).await;
        let h2 = H2::connect(proxy.web(), &ca.trust("localhost")).await;
        let slow = h2.clone();
        let answer = tokio::spawn(async move {
            slow.request(http::Request::get("https://localhost/slow").body(Vec::new()).unwrap()).await
        });
        eventually("the request is under way", async || (origin.count("/slow") == 1).then_some(())).await;
        proxy.signal(rustix::process::Signal::TERM);
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
        assert!(h2.ends().await);
        assert!(proxy.exit().await.success());
    });
}
