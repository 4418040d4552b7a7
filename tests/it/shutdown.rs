//! Leaving: nobody new, everybody there may finish.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Authority, Client, Folder, Origin, Proxy, Site, eventually, get, within};

#[test]
fn a_terminated_proxy_accepts_nobody_keeps_its_tunnels_and_leaves_with_the_last() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::scripted("a", async |x| match x.request.path() {
            "/slow" => {
                x.send("HTTP/1.1 200 OK\r\nX-Origin: a\r\nContent-Length: 8\r\n\r\nhalf").await?;
                // The other half waits for the proxy to be on its way out.
                tokio::time::sleep(Duration::from_millis(700)).await;
                x.send("half").await
            }
            _ => x.serve().await,
        });
        let tls = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"\n\
                   [shutdown]\ndeadline = \"60s\"";
        let mut proxy = Proxy::start_in(folder, &Site::new(&[&origin]).more(tls).text()).await;
        let mut plain = proxy.socket(&[]).await;
        let secure = Client::tls(proxy.listener("tls"), &ca.trust("localhost")).await;
        let mut secure = crate::harness::Socket::open(secure, "/ws", &[]).await;
        let mut idle = proxy.connect().await;
        assert_eq!(idle.get("/").await.status, 200);
        let mut working = proxy.connect().await;
        working.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(working.head().await.unwrap().status, 200);

        proxy.signal(Signal::TERM);
        let web = proxy.web().to_owned();
        eventually("the listener to close", async || Client::try_tcp(&web).await.is_err().then_some(())).await;
        assert_eq!(working.rest().await, b"halfhalf", "what had begun is finished, then the connection ends");
        assert!(idle.ends().await, "idle connections are closed");
        for _ in 0..5 {
            plain.echo("still here").await;
            secure.echo("still here").await;
            assert!(proxy.is_running());
        }
        assert_eq!(get(proxy.admin(), "/readyz").await.status, 503, "a balancer in front looks elsewhere");
        assert_eq!(get(proxy.admin(), "/livez").await.status, 200);
        assert_eq!(proxy.sessions().await.len(), 2, "it stays visible");
        drop(plain);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(proxy.is_running(), "one tunnel is left");
        secure.echo("the last").await;
        drop(secure);
        assert_eq!(proxy.exit().await.code(), Some(0));
    });
}

#[test]
fn the_deadline_ends_what_is_left() {
    within(60, async {
        let origin = Origin::start("a");
        let mut proxy = Proxy::start(&Site::new(&[&origin]).more("[shutdown]\ndeadline = \"1s\"").text()).await;
        let mut socket = proxy.socket(&[]).await;
        proxy.signal(Signal::TERM);
        if let Some(frame) = socket.next().await {
            assert!(!matches!(frame.close_code(), Some(1000 | 1001)), "a clean end would tell Shiny that all is over");
        }
        assert_eq!(proxy.exit().await.code(), Some(0));
    });
}

#[test]
fn without_sessions_it_leaves_at_once_and_takes_its_sockets_along() {
    within(60, async {
        let (origin, folder) = (Origin::start("a"), std::sync::Arc::new(Folder::new()));
        let unix = format!(
            "[[listener]]\nname = \"unix\"\naddress = \"unix:{}\"\nprotocol = \"http\"",
            folder.path("web.sock").display()
        );
        for signal in [Signal::TERM, Signal::INT] {
            let mut proxy =
                Proxy::start_in(std::sync::Arc::clone(&folder), &Site::new(&[&origin]).more(&unix).text()).await;
            assert_eq!(Client::unix(folder.path("web.sock")).await.get("/").await.status, 200);
            proxy.signal(signal);
            assert_eq!(proxy.exit().await.code(), Some(0), "{signal:?}");
            for name in ["web.sock", "proxy.sock"] {
                assert!(!folder.path(name).exists(), "{name} is left behind");
            }
            folder.remove("proxy.ports");
        }
    });
}

#[test]
fn a_killed_proxys_sockets_do_not_hinder_the_next() {
    within(60, async {
        let (origin, folder) = (Origin::start("a"), std::sync::Arc::new(Folder::new()));
        let site = Site::new(&[&origin]);
        let first = Proxy::start_in(std::sync::Arc::clone(&folder), &site.text()).await;
        drop(first);
        assert!(folder.path("proxy.sock").exists(), "killed, it could not clean up");
        folder.remove("proxy.ports");
        let second = Proxy::start_in(std::sync::Arc::clone(&folder), &site.text()).await;
        assert_eq!(second.command(&["status", "--json"]).await.ok().json()["pid"], second.pid());
        // But one that is alive keeps its socket.
        let file = folder.path("proxy.toml");
        let refused = crate::harness::bowline(&["proxy", "-c", file.to_str().unwrap()]).await;
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains("proxy.sock"), "{refused:?}");
        assert_eq!(second.command(&["status", "--json"]).await.ok().json()["pid"], second.pid());
    });
}
