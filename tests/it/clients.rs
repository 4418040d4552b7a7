//! The cookie as the publishing clients of the world read it: their own parsers, not our idea of them.

use crate::harness::{Authority, Client, Folder, Origin, Proxy, Site, run, tool, tools, within};

/// What each client sends back for a Set-Cookie it got from `PROTOCOL://localhost:PORT`.
async fn sent_back(set_cookie: &str, protocol: &str, port: &str) -> [(&'static str, String); 3] {
    let url = format!("{protocol}://localhost:{port}/__api__/server_settings");
    let python = run(&tool("python3"), &[&tools::script("cookies.py")], set_cookie).await.ok();
    let node = run(&tools::node(), &[&tools::script("cookies.mjs"), &url], set_cookie).await.ok();
    let r = run(&tool("Rscript"), &[&tools::script("cookies.R"), protocol, "localhost", port], set_cookie).await;
    assert!(
        !r.stderr.contains("no package called"),
        "this test needs R's `rsconnect` (Debian: r-cran-rsconnect): run `make test`, which installs what tests need"
    );
    let r = r.ok();
    [("Python", python), ("tough-cookie", node), ("rsconnect", r)]
        .map(|(name, out)| (name, out.stdout.trim().to_owned()))
}

#[test]
fn the_parsers_agree_on_a_cookie_made_of_the_promised_parts() {
    within(60, async {
        let value = "bowline_app=AAbb-_0129zZ";
        let cookie = format!("{value}; Path=/; HttpOnly; SameSite=Lax; Secure");
        for (client, sent) in sent_back(&cookie, "https", "443").await {
            assert_eq!(sent, value, "{client}");
        }
    });
}

#[test]
fn every_client_comes_back_to_its_backend_with_the_cookie_it_read() {
    within(120, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origins = ["a", "b", "c", "d"].map(Origin::start);
        let tls = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"";
        let proxy = Proxy::start_in(folder, &Site::new(&origins.each_ref()).more(tls).text()).await;
        let trust = ca.trust("localhost");
        for (listener, protocol) in [("web", "http"), ("tls", "https")] {
            let address = proxy.listener(listener);
            let connect = async || match protocol {
                "http" => Client::tcp(address).await,
                _ => Client::tls(address, &trust).await,
            };
            let first = connect()
                .await
                .request("GET", "/__api__/server_settings", &[("Sec-Fetch-Mode", "navigate")], b"")
                .await;
            let set_cookie = first.fields.get("set-cookie").unwrap();
            for (client, sent) in sent_back(set_cookie, protocol, address.rsplit(':').next().unwrap()).await {
                let mut connection = connect().await;
                for _ in 0..4 {
                    let next = connection.request("GET", "/__api__/v1/user", &[("Cookie", &sent)], b"").await;
                    assert_eq!(
                        next.origin(),
                        first.origin(),
                        "{client} over {protocol} sent {sent:?} for {set_cookie:?}"
                    );
                    assert!(
                        !next.fields.has("set-cookie"),
                        "{client} over {protocol} sent {sent:?} for {set_cookie:?}"
                    );
                }
            }
        }
    });
}
