//! A client that has been somewhere goes there again, as long as there is a there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::{Authority, Client, Folder, Origin, Proxy, Response, Site, cookie_of, eventually, within};

/// Attributes of a Set-Cookie, lower case, and its value.
fn taken_apart(response: &Response) -> (String, String, BTreeSet<String>) {
    let cookies: Vec<_> = response.fields.all("set-cookie").collect();
    assert_eq!(cookies.len(), 1, "one cookie: {response:?}");
    let mut parts = cookies[0].split("; ");
    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
    (name.to_owned(), value.to_owned(), parts.map(str::to_ascii_lowercase).collect())
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// A browser's navigation by somebody new.
const NAVIGATION: (&str, &str) = ("Sec-Fetch-Mode", "navigate");

#[test]
fn the_cookie_is_opaque_and_has_just_the_attributes_every_client_reads() {
    within(60, async {
        let (ca, folder) = (Authority::new(), Folder::new());
        ca.pair(&["localhost"]).write(&folder, "certs/localhost");
        let origin = Origin::start("node-with-a-name");
        let tls = "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\ntls.certificates = \"certs\"";
        let site = Site::new(&[&origin]).more(tls);
        let proxy = Proxy::start_in(folder, &site.text()).await;

        let (name, value, attributes) = taken_apart(&proxy.get("/deep/path/x?y=1").await);
        assert_eq!(name, "bowline_app");
        assert!(value.len() >= 40 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{value}");
        assert_eq!(attributes, set(&["path=/", "httponly", "samesite=lax"]));
        for secret in [&origin.address, &origin.name] {
            assert!(!value.contains(secret.as_str()), "the cookie tells nobody about {secret}");
        }
        // Those of one second share one: a key must not seal more than so often.
        eventually("a cookie sealed anew", async || {
            let (_, other, _) = taken_apart(&proxy.get_as("/", &[NAVIGATION]).await);
            (value != other).then_some(())
        })
        .await;

        let trust = ca.trust("localhost");
        let secure = Client::tls(proxy.listener("tls"), &trust).await.get("/").await;
        assert_eq!(taken_apart(&secure).2, set(&["path=/", "httponly", "samesite=lax", "secure"]));

        proxy.reload(&site.clone().affinity(Some("name = \"srv\", cross_site = true")).text()).await;
        let secure = Client::tls(proxy.listener("tls"), &trust).await.get("/").await;
        let (name, _, attributes) = taken_apart(&secure);
        assert_eq!(name, "srv");
        assert_eq!(attributes, set(&["path=/", "httponly", "samesite=none", "secure"]));
    });
}

#[test]
fn a_client_with_a_cookie_stays_and_gets_no_other() {
    within(60, async {
        let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
        let proxy = Proxy::start(&Site::new(&[&a, &b, &c]).text()).await;
        for _ in 0..4 {
            let first = proxy.get_as("/", &[NAVIGATION]).await;
            let cookie = cookie_of(&first);
            for (method, body) in [("GET", &b""[..]), ("POST", b"x"), ("HEAD", b""), ("PUT", b"y")] {
                let answer = proxy.connect().await.request(method, "/next", &[("Cookie", &cookie)], body).await;
                assert_eq!(answer.origin(), first.origin());
                assert!(!answer.fields.has("set-cookie"), "{answer:?}");
            }
            // Among others' cookies, and with the junk some clients send along.
            let crowd = format!("x=1; {cookie}; path=/; HttpOnly; y=\"2\"");
            assert_eq!(proxy.get_as("/", &[("Cookie", &crowd)]).await.origin(), first.origin());
            let (one, two) = (("Cookie", "z=0"), ("Cookie", &*cookie));
            assert_eq!(proxy.get_as("/", &[one, two]).await.origin(), first.origin(), "in a second field");
        }
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.value("bowline_proxy_picks_total", &[("pool", "app"), ("reason", "sticky")]), 24.0);
        assert_eq!(metrics.value("bowline_proxy_picks_total", &[("pool", "app"), ("reason", "balanced")]), 4.0);
    });
}

#[test]
fn a_client_whose_backend_died_is_rebound_in_the_same_request_and_stays_there() {
    within(60, async {
        let mut origins = ["a", "b"].map(Origin::start);
        let proxy = Proxy::start(&Site::new(&[&origins[0], &origins[1]]).text()).await;
        let first = proxy.get("/").await;
        let cookie = cookie_of(&first);
        let dead = origins.iter().position(|o| o.name == first.origin()).unwrap();
        let (name, address) = (origins[dead].name.clone(), origins[dead].address.clone());
        origins[dead].kill();

        // A POST too: nothing was sent to the dead one.
        let answer = proxy.connect().await.request("POST", "/", &[("Cookie", &cookie)], b"abc").await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.origin(), name);
        let healed = cookie_of(&answer);
        assert_eq!(proxy.backend(&name).await["health"], "down", "a refused connection is a verdict");

        origins[dead] = Origin::at(&name, &address);
        proxy.until_health(&name, "up").await;
        for _ in 0..5 {
            let stays = proxy.get_as("/", &[("Cookie", &healed)]).await;
            assert_ne!(stays.origin(), name, "who was rebound stays");
            assert!(!stays.fields.has("set-cookie"));
        }
        assert!(proxy.metrics().await.value("bowline_proxy_picks_total", &[("reason", "rebound")]) >= 1.0);
    });
}

#[test]
fn a_cookie_that_does_not_open_is_counted_and_healed_in_the_same_answer() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]);
        let proxy = Proxy::start(&site.text()).await;
        let cookie = cookie_of(&proxy.get("/").await);
        let (name, value) = cookie.split_once('=').unwrap();

        let mut spoiled: Vec<String> = (0..value.len())
            .map(|at| {
                // The next letter of the alphabet the value is written in changes its bits.
                let mut bytes = value.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                String::from_utf8(bytes).unwrap()
            })
            .collect();
        spoiled.extend(
            ["", "x", "!!!", "127.0.0.1:80", &value[..value.len() / 2], &format!("{value}AAAA")].map(str::to_owned),
        );
        spoiled.push("A".repeat(5000));
        let rejected = async || {
            let metrics = proxy.metrics().await;
            metrics.value("bowline_proxy_affinity_rejected_total", &[("pool", "app"), ("cause", "unsealed")])
        };
        let before = rejected().await;
        let mut client = proxy.connect().await;
        for value in &spoiled {
            let answer = client.request("GET", "/", &[("Cookie", &format!("{name}={value}")), NAVIGATION], b"").await;
            assert_eq!(answer.status, 200);
            let healed = cookie_of(&answer);
            let next = client.request("GET", "/", &[("Cookie", &healed)], b"").await;
            assert_eq!(next.origin(), answer.origin());
            assert!(!next.fields.has("set-cookie"), "healed by once");
        }
        assert_eq!(rejected().await - before, spoiled.len() as f64);

        // One sealed by the same key for another pool, or another cookie's name, opens neither.
        let other = Proxy::start_as(
            "other",
            std::sync::Arc::clone(&proxy.folder),
            &site.text().replace("\"app\"", "\"other\""),
        )
        .await;
        let stranger = cookie_of(&other.get("/").await).replacen("bowline_other", name, 1);
        assert!(proxy.get_as("/", &[("Cookie", &stranger)]).await.fields.has("set-cookie"));
    });
}

#[test]
fn a_cookie_for_a_backend_that_is_gone_is_counted_and_healed() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]);
        let proxy = Proxy::start(&site.text()).await;
        let first = proxy.get("/").await;
        let cookie = cookie_of(&first);
        let gone = first.origin().to_owned();
        proxy.reload(&site.without(&gone).text()).await;
        let answer = proxy.get_as("/", &[("Cookie", &cookie)]).await;
        assert_ne!(answer.origin(), gone);
        let healed = cookie_of(&answer);
        assert!(!proxy.get_as("/", &[("Cookie", &healed)]).await.fields.has("set-cookie"));
        assert_eq!(proxy.metrics().await.value("bowline_proxy_affinity_rejected_total", &[("cause", "unknown")]), 1.0);
    });
}

#[test]
fn a_lifetime_is_renewed_after_half_and_then_runs_out() {
    within(120, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        // The shortest there is; this test mostly sleeps.
        let site = Site::new(&[&a, &b]).affinity(Some("lifetime = \"1m\""));
        let proxy = Proxy::start(&site.text()).await;
        let first = proxy.get("/").await;
        let cookie = cookie_of(&first);
        assert!(!proxy.get_as("/", &[("Cookie", &cookie)]).await.fields.has("set-cookie"), "young");
        tokio::time::sleep(Duration::from_secs(33)).await;
        let renewed = proxy.get_as("/", &[("Cookie", &cookie)]).await;
        assert_eq!(renewed.origin(), first.origin());
        let young = cookie_of(&renewed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let expired = proxy.get_as("/", &[("Cookie", &cookie)]).await;
        assert_eq!(expired.status, 200);
        assert!(expired.fields.has("set-cookie"), "past its life");
        assert_eq!(proxy.get_as("/", &[("Cookie", &young)]).await.origin(), first.origin());
        assert_eq!(proxy.metrics().await.value("bowline_proxy_affinity_rejected_total", &[("cause", "expired")]), 1.0);
    });
}

#[test]
fn two_proxies_with_one_key_file_agree_without_talking() {
    within(60, async {
        let origins = ["a", "b", "c", "d"].map(Origin::start);
        let text = Site::new(&origins.each_ref()).text();
        let one = Proxy::start_as("one", Folder::new(), &text).await;
        let two = Proxy::start_as("two", std::sync::Arc::clone(&one.folder), &text).await;
        for _ in 0..8 {
            let first = one.get_as("/", &[NAVIGATION]).await;
            let second = two.get_as("/", &[("Cookie", &cookie_of(&first))]).await;
            assert_eq!(second.origin(), first.origin());
            assert!(!second.fields.has("set-cookie"));
        }
    });
}

#[test]
fn a_websocket_without_a_cookie_gets_one_on_its_101() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        let mut socket = proxy.socket(&[]).await;
        socket.echo("hello").await;
        let (name, _, attributes) = taken_apart(&socket.head);
        assert_eq!(name, "bowline_app");
        assert!(attributes.contains("path=/"));
        let cookie = cookie_of(&socket.head);
        for _ in 0..5 {
            assert_eq!(proxy.get_as("/", &[("Cookie", &cookie)]).await.origin(), socket.origin());
        }
        let again = proxy.socket(&[("Cookie", &cookie)]).await;
        assert_eq!(again.origin(), socket.origin());
        assert!(!again.head.fields.has("set-cookie"));
    });
}

#[test]
fn parallel_first_requests_of_one_client_agree() {
    within(60, async {
        let origins = ["a", "b", "c", "d"].map(Origin::start);
        let proxy = Proxy::start(&Site::new(&origins.each_ref()).text()).await;
        for round in 0..5 {
            let agent = format!("rsconnect/{round}");
            let mut clients = JoinSet::new();
            for _ in 0..16 {
                let (address, agent) = (proxy.web().to_owned(), agent.clone());
                clients.spawn(async move {
                    let answer = Client::tcp(&address).await.request("GET", "/", &[("User-Agent", &agent)], b"").await;
                    answer.origin().to_owned()
                });
            }
            let origins: BTreeSet<_> = clients.join_all().await.into_iter().collect();
            assert_eq!(origins.len(), 1, "round {round}: {origins:?}");
        }
        // People behind one address are many: each of their navigations is placed anew.
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            seen.insert(proxy.get_as("/", &[NAVIGATION, ("User-Agent", "Firefox")]).await.origin().to_owned());
        }
        assert!(seen.len() > 1, "{seen:?}");
    });
}

#[test]
fn new_sessions_go_where_the_fewest_live() {
    within(60, async {
        let origins = ["a", "b", "c"].map(Origin::start);
        let site = Site::new(&origins.each_ref()).with("c", "weight = 2");
        let proxy = Proxy::start(&site.text()).await;
        let mut sockets = Vec::new();
        for _ in 0..40 {
            let mut socket = proxy.socket(&[NAVIGATION]).await;
            socket.echo("here").await;
            sockets.push(socket);
        }
        assert_eq!(
            spread(&sockets.iter().map(|s| s.origin().to_owned()).collect::<Vec<_>>()),
            [("a", 10), ("b", 10), ("c", 20)]
        );
        // Who leaves makes room, and the next ones fill it.
        sockets.retain(|s| s.origin() != "a");
        proxy.until_sessions("a", 0).await;
        for _ in 0..10 {
            let socket = proxy.socket(&[NAVIGATION]).await;
            assert_eq!(socket.origin(), "a");
            sockets.push(socket);
        }
    });
}

fn spread(names: &[String]) -> Vec<(&str, usize)> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn round_robin_takes_turns_by_weight() {
    within(60, async {
        let origins = ["a", "b", "c"].map(Origin::start);
        let site =
            Site::new(&origins.each_ref()).affinity(None).pool("policy = \"round_robin\"").with("b", "weight = 3");
        let proxy = Proxy::start(&site.text()).await;
        let mut names = Vec::new();
        for _ in 0..25 {
            let answer = proxy.get("/").await;
            assert!(!answer.fields.has("set-cookie"), "no affinity, no cookie");
            names.push(answer.origin().to_owned());
        }
        assert_eq!(spread(&names), [("a", 5), ("b", 15), ("c", 5)]);
        for turn in names.chunks(5) {
            assert_eq!(spread(turn), [("a", 1), ("b", 3), ("c", 1)], "smoothly: {names:?}");
        }
    });
}

#[test]
fn least_requests_avoids_the_busy_one() {
    within(60, async {
        let slow = Origin::scripted("slow", async |x| match x.request.path() {
            "/wait" => {
                // Answers when the client has gone, that is: never.
                x.some().await?;
                Ok(())
            }
            _ => x.serve().await,
        });
        let quick = Origin::start("quick");
        let site = Site::new(&[&slow, &quick]).affinity(None).pool("policy = \"least_requests\"");
        let proxy = Proxy::start(&site.text()).await;
        let mut waiting = Vec::new();
        // Until the slow one has one request in flight it takes its turns.
        while slow.count("/wait") == 0 {
            let mut client = proxy.connect().await;
            let arrived = || slow.count("/wait") + quick.count("/wait");
            let before = arrived();
            client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            eventually("the request to arrive", async || (arrived() > before).then_some(())).await;
            waiting.push(client);
        }
        // A request counts until its answer is through.
        let is_idle = async || proxy.backend("quick").await["in_flight"] == 0;
        for _ in 0..10 {
            eventually("the quick one to be idle", async || is_idle().await.then_some(())).await;
            assert_eq!(proxy.get("/").await.origin(), "quick");
        }
    });
}
