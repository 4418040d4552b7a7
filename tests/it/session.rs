//! Sessions are objects: each live tunnel is a row, and how it ended is known.

use std::time::Duration;

use crate::harness::websocket::{CLOSE, PING, PONG};
use crate::harness::{Frame, Origin, Proxy, Site, bowline, cookie_of, eventually, within};

#[test]
fn a_live_tunnel_is_a_row_of_the_ledger() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        assert!(proxy.sessions().await.is_empty());
        let mut socket = proxy.socket(&[]).await;
        socket.echo("hello").await;
        let rows = proxy.sessions().await;
        assert_eq!(rows.len(), 1);
        let row = rows[0].as_object().unwrap();
        let keys: Vec<_> = row.keys().map(String::as_str).collect();
        let mut expected =
            ["id", "kind", "pool", "backend", "client", "since", "last_activity", "bytes_in", "bytes_out"].to_vec();
        expected.sort_unstable();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "exactly the promised fields");
        assert_eq!((&row["kind"], &row["pool"], &row["backend"]), (&"websocket".into(), &"app".into(), &"a".into()));
        assert!(row["client"].as_str().unwrap().starts_with("127.0.0.1"));
        // The frame of five letters: masked by the client (11 bytes), bare from the server (7).
        assert_eq!((row["bytes_in"].as_u64(), row["bytes_out"].as_u64()), (Some(11), Some(7)));

        let (first, id) = (row["last_activity"].clone(), row["id"].clone());
        eventually("activity to show", async || {
            socket.echo("again").await;
            (proxy.sessions().await[0]["last_activity"] != first).then_some(())
        })
        .await;
        assert_eq!(proxy.sessions().await[0]["id"], id);
        let told = proxy.command(&["sessions", "--json"]).await.ok().json();
        assert_eq!(told[0]["id"], id);
        assert!(proxy.command(&["sessions"]).await.ok().stdout.contains("app"));
        let over_tcp = bowline(&["sessions", "--json", "--admin", &format!("http://{}", proxy.admin())]).await;
        assert_eq!(over_tcp.ok().json()[0]["id"], id, "reading needs no socket");

        assert_eq!(proxy.backend("a").await["sessions"], 1);
        assert_eq!(proxy.metrics().await.value("bowline_proxy_sessions", &[("pool", "app"), ("backend", "a")]), 1.0);
        drop(socket);
        proxy.until_sessions("a", 0).await;
        assert!(proxy.sessions().await.is_empty());
    });
}

#[test]
fn close_codes_pass_and_are_counted() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            if x.request.path() == "/server-closes" {
                x.accept_upgrade(&Frame::close(4700).bare()).await?;
                return x.frame().await.map(drop);
            }
            x.echo().await
        });
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        for code in [1000, 1001, 1001] {
            let mut socket = proxy.socket(&[]).await;
            socket.echo("x").await;
            socket.send(&Frame::close(code)).await;
            assert_eq!(socket.next().await.and_then(|f| f.close_code()), Some(code), "the answer to our Close");
            assert!(socket.client.ends().await);
        }
        let mut socket = crate::harness::Socket::open(proxy.connect().await, "/server-closes", &[]).await;
        assert_eq!(socket.next().await.and_then(|f| f.close_code()), Some(4700));
        socket.send(&Frame::close(4700)).await;
        assert!(socket.client.ends().await);
        drop(proxy.socket(&[]).await);
        proxy.until_sessions("a", 0).await;

        let metrics = proxy.metrics().await;
        let count = |code| metrics.value("bowline_proxy_session_closes_total", &[("pool", "app"), ("code", code)]);
        assert_eq!((count("1000"), count("1001"), count("47xx"), count("none")), (1.0, 2.0, 1.0, 1.0));
    });
}

#[test]
fn the_death_of_a_backend_ends_the_client_without_a_close_frame() {
    within(60, async {
        let (mut a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        let mut at_a = Vec::new();
        let mut at_b = Vec::new();
        while at_a.len() < 3 {
            let mut socket = proxy.socket(&[("Sec-Fetch-Mode", "navigate")]).await;
            socket.echo("x").await;
            if socket.origin() == "a" { at_a.push(socket) } else { at_b.push(socket) }
        }
        a.kill();
        for mut socket in at_a {
            assert_eq!(socket.next().await, None, "a Close frame would tell Shiny that the session is over");
            // Coming back with the same cookie is being live again, elsewhere.
            let mut again = proxy.socket(&[("Cookie", &cookie_of(&socket.head))]).await;
            assert_eq!(again.origin(), "b");
            assert!(again.head.fields.has("set-cookie"), "rebound");
            again.echo("back").await;
        }
        for socket in &mut at_b {
            socket.echo("did not notice").await;
        }
        let labels = [("pool", "app"), ("cause", "upstream_lost")];
        let lost = proxy.metrics().await.value("bowline_proxy_sessions_lost_total", &labels);
        assert_eq!(lost, 3.0);
    });
}

#[test]
fn a_quiet_browser_is_pinged_and_one_that_answers_is_kept() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            // Says what reached it: any control frame of the proxy's own would show.
            x.accept_upgrade(b"").await?;
            while let Some(frame) = x.frame().await? {
                let told = format!("{}:{}", frame.opcode, String::from_utf8_lossy(&frame.payload));
                x.send(Frame::text(&told).bare()).await?;
            }
            Ok(())
        });
        let site = Site::new(&[&origin]).pool("timeouts = { tunnel_ping = \"1s\", tunnel_idle = \"2s\" }");
        let proxy = Proxy::start(&site.text()).await;
        let mut socket = proxy.socket(&[]).await;
        // Four rounds outlast idleness and two missed pings by far.
        for _ in 0..4 {
            let ping = socket.client.frame().await.expect("a browser that answers is alive");
            assert_eq!(ping.opcode, PING);
            socket.send(&Frame::new(PONG, ping.payload)).await;
        }
        socket.send(&Frame::text("first")).await;
        assert_eq!(socket.client.frame().await, Some(Frame::text("1:first")), "no pong of ours reached the backend");
        // The browser's own pings are the backend's business.
        socket.send(&Frame::new(PING, "mine")).await;
        assert_eq!(socket.client.frame().await, Some(Frame::text("9:mine")));
        socket.send(&Frame::new(PONG, "unasked")).await;
        assert_eq!(socket.client.frame().await, Some(Frame::text("10:unasked")));
    });
}

#[test]
fn a_browser_that_answers_no_ping_is_lost() {
    within(60, async {
        let origin = Origin::start("a");
        let site = Site::new(&[&origin]).probe("enabled = false").pool("timeouts = { tunnel_ping = \"1s\" }");
        let proxy = Proxy::start(&site.text()).await;
        let mut socket = proxy.socket(&[]).await;
        let mut pings = 0;
        while let Some(frame) = socket.client.frame().await {
            assert_eq!(frame.opcode, PING, "never a Close frame");
            pings += 1;
        }
        assert_eq!(pings, 2);
        proxy.until_sessions("a", 0).await;
        origin.until("the backend's side to end", |o| o.open() == 0).await;
        let lost = proxy.metrics().await.value("bowline_proxy_sessions_lost_total", &[("cause", "ping_timeout")]);
        assert_eq!(lost, 1.0);
    });
}

#[test]
fn pings_fall_between_frames_never_into_one() {
    within(60, async {
        // One frame whose second half comes only when the client says so.
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            let frame = Frame::text("both halves").bare();
            x.accept_upgrade(&frame[..5]).await?;
            x.frame().await?;
            x.send(&frame[5..]).await?;
            x.frame().await.map(drop)
        });
        let site = Site::new(&[&origin]).pool("timeouts = { tunnel_ping = \"1s\" }");
        let proxy = Proxy::start(&site.text()).await;
        let mut socket = proxy.socket(&[]).await;
        // Longer than the ping's time: it must wait for the frame's end.
        tokio::time::sleep(Duration::from_millis(1600)).await;
        socket.send(&Frame::text("go on")).await;
        assert_eq!(socket.next().await, Some(Frame::text("both halves")));
    });
}

#[test]
fn what_is_not_pinged_is_cut_when_idle() {
    within(60, async {
        let origin = Origin::scripted("a", async |x| {
            if !x.is_upgrade() {
                return x.serve().await;
            }
            x.accept_upgrade(b"").await?;
            x.some().await.map(drop)
        });
        let site = Site::new(&[&origin]).pool("timeouts = { tunnel_idle = \"1s\" }");
        let proxy = Proxy::start(&site.text()).await;
        let mut client = proxy.connect().await;
        client.send("GET /raw HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().status, 101);
        assert!(client.ends().await);
        proxy.until_sessions("a", 0).await;
    });
}

#[test]
fn a_client_that_leaves_is_noticed_by_the_backend() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).probe("enabled = false").text()).await;
        let mut socket = proxy.socket(&[]).await;
        socket.echo("x").await;
        assert_eq!(origin.open(), 1);
        drop(socket);
        origin.until("its connection to end", |o| o.open() == 0).await;
        proxy.until_sessions("a", 0).await;
        let mut socket = proxy.socket(&[]).await;
        socket.send(&Frame::new(CLOSE, Vec::new())).await;
        assert_eq!(socket.next().await, Some(Frame::new(CLOSE, Vec::new())), "a Close without a code");
        origin.until("its connection to end", |o| o.open() == 0).await;
    });
}
