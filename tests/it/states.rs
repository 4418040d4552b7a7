//! Two axes, health and admin state, and what each of their meetings means for new and for bound clients.

use std::collections::BTreeSet;

use crate::harness::{Origin, Proxy, Site, cookie_of, within};

const NAVIGATION: (&str, &str) = ("Sec-Fetch-Mode", "navigate");

/// What a row of the table promises.
struct Row {
    /// What the operator said of `a`, if anything.
    verb: Option<&'static str>,
    is_down: bool,
    takes_new: bool,
    keeps_bound: bool,
}

const TABLE: [Row; 6] = [
    Row { verb: None, is_down: false, takes_new: true, keeps_bound: true },
    Row { verb: Some("drain"), is_down: false, takes_new: false, keeps_bound: true },
    Row { verb: Some("disable"), is_down: false, takes_new: false, keeps_bound: false },
    Row { verb: None, is_down: true, takes_new: false, keeps_bound: false },
    Row { verb: Some("drain"), is_down: true, takes_new: false, keeps_bound: false },
    Row { verb: Some("disable"), is_down: true, takes_new: false, keeps_bound: false },
];

#[test]
fn every_state_treats_new_and_bound_clients_as_the_table_says() {
    for row in &TABLE {
        within(60, async {
            let (a, b) = (Origin::start("a"), Origin::start("b"));
            let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
            let what = format!("{:?}, {}", row.verb.unwrap_or("enabled"), if row.is_down { "down" } else { "up" });
            let bound = loop {
                let answer = proxy.get_as("/", &[NAVIGATION]).await;
                if answer.origin() == "a" {
                    break cookie_of(&answer);
                }
            };
            if let Some(verb) = row.verb {
                proxy.command(&[verb, "app/a"]).await.ok();
            }
            if row.is_down {
                a.set_sick(true);
                proxy.until_health("a", "down").await;
            }

            let mut new = BTreeSet::new();
            for _ in 0..12 {
                let answer = proxy.get_as("/", &[NAVIGATION]).await;
                assert_eq!(answer.status, 200, "{what}");
                new.insert(answer.origin().to_owned());
            }
            assert_eq!(new.contains("a"), row.takes_new, "new clients, {what}");
            assert!(new.contains("b"), "{what}");

            let answer = proxy.get_as("/", &[("Cookie", &bound)]).await;
            let socket = proxy.socket(&[("Cookie", &bound)]).await;
            if row.keeps_bound {
                assert_eq!((answer.origin(), socket.origin()), ("a", "a"), "bound client, {what}");
                assert!(!answer.fields.has("set-cookie") && !socket.head.fields.has("set-cookie"), "{what}");
            } else {
                assert_eq!((answer.origin(), socket.origin()), ("b", "b"), "bound client, {what}");
                // Rebound once: with the new cookie it stays, also when `a` is fine again.
                let healed = cookie_of(&answer);
                proxy.command(&["enable", "app/a"]).await.ok();
                a.set_sick(false);
                proxy.until_health("a", "up").await;
                let stays = proxy.get_as("/", &[("Cookie", &healed)]).await;
                assert_eq!(stays.origin(), "b", "{what}");
                assert!(!stays.fields.has("set-cookie"), "{what}");
            }
        });
    }
}

#[test]
fn the_states_an_operator_sets_are_told_and_can_be_configured() {
    within(60, async {
        let origins = ["a", "b", "c"].map(Origin::start);
        let site = Site::new(&origins.each_ref()).with("b", "admin = \"draining\"").with("c", "admin = \"disabled\"");
        let proxy = Proxy::start(&site.text()).await;
        for (key, admin) in [("a", "enabled"), ("b", "draining"), ("c", "disabled")] {
            proxy.until_health(key, "up").await;
            assert_eq!(proxy.backend(key).await["admin"], admin);
        }
        for _ in 0..6 {
            assert_eq!(proxy.get_as("/", &[NAVIGATION]).await.origin(), "a");
        }
        let metrics = proxy.metrics().await;
        let value = |name, key| metrics.value(name, &[("pool", "app"), ("backend", key)]);
        assert_eq!(
            (value("bowline_proxy_backend_draining", "a"), value("bowline_proxy_backend_draining", "b")),
            (0.0, 1.0)
        );
        assert_eq!((value("bowline_proxy_backend_up", "b"), value("bowline_proxy_backend_up", "c")), (1.0, 1.0));
        for (verb, state) in [("disable", "disabled"), ("drain", "draining"), ("enable", "enabled")] {
            proxy.command(&[verb, "app/a"]).await.ok();
            assert_eq!(proxy.backend("a").await["admin"], state);
        }
        // What the operator said outlives a reload that does not speak of it.
        proxy.command(&["disable", "app/a"]).await.ok();
        proxy.command(&["enable", "app/b"]).await.ok();
        proxy.reload(&site.pool("retries = 1").text()).await;
        assert_eq!(proxy.backend("a").await["admin"], "disabled");
        assert_eq!(proxy.backend("b").await["admin"], "enabled");
    });
}

#[test]
fn nobody_ready_is_said_as_503_unless_the_pool_fails_open() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let site = Site::new(&[&a, &b]);
        let proxy = Proxy::start(&site.text()).await;
        a.set_sick(true);
        b.set_sick(true);
        proxy.until_health("a", "down").await;
        proxy.until_health("b", "down").await;
        let answer = proxy.get("/").await;
        assert_eq!((answer.status, &answer.json()["error"]), (503, &"nobody_ready".into()));
        proxy.reload(&site.pool("fail_open = true").text()).await;
        let answer = proxy.get("/").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // Maintenance is a decision, not a verdict: failing open does not overrule it.
        proxy.command(&["disable", "app/a"]).await.ok();
        for _ in 0..4 {
            assert_eq!(proxy.get_as("/", &[NAVIGATION]).await.origin(), "b");
        }
        proxy.command(&["disable", "app/b"]).await.ok();
        assert_eq!(proxy.get("/").await.status, 503);
    });
}
