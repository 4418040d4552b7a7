//! Draining a backend with live sessions on it.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::{Origin, Proxy, Site, Socket, bowline, cookie_of, within};

const NAVIGATION: (&str, &str) = ("Sec-Fetch-Mode", "navigate");

/// One socket on each of `a` and `b`.
async fn one_on_each(proxy: &Proxy) -> (Socket, Socket) {
    let first = proxy.socket(&[NAVIGATION]).await;
    let second = proxy.socket(&[NAVIGATION]).await;
    match (first.origin(), second.origin()) {
        ("a", "b") => (first, second),
        ("b", "a") => (second, first),
        other => panic!("least_sessions puts one on each: {other:?}"),
    }
}

#[test]
fn drain_with_wait_returns_when_the_last_session_has_left() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Arc::new(Proxy::start(&Site::new(&[&a, &b]).text()).await);
        let (mut at_a, mut at_b) = one_on_each(&proxy).await;
        let cookie = cookie_of(&at_a.head);

        let waiting = tokio::spawn({
            let proxy = Arc::clone(&proxy);
            async move { proxy.command(&["drain", "app/a", "--wait"]).await }
        });
        crate::harness::eventually("draining", async || {
            (proxy.backend("a").await["admin"] == "draining").then_some(())
        })
        .await;
        at_a.echo("still here").await;
        assert_eq!(proxy.get_as("/", &[("Cookie", &cookie)]).await.origin(), "a", "bound requests still come");
        // A bound client's second tab is a session of the draining backend, too.
        let mut second = proxy.socket(&[("Cookie", &cookie)]).await;
        assert_eq!(second.origin(), "a");
        for _ in 0..4 {
            assert_eq!(proxy.get_as("/", &[NAVIGATION]).await.origin(), "b");
        }
        second.echo("and here").await;
        drop(second);
        proxy.until_sessions("a", 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished(), "one session is left");
        drop(at_a);
        assert_eq!(waiting.await.unwrap().ok().code, Some(0));
        assert_eq!(proxy.backend("a").await["sessions"], 0);
        at_b.echo("did not notice").await;

        proxy.command(&["enable", "app/a"]).await.ok();
        assert_eq!(proxy.socket(&[NAVIGATION]).await.origin(), "a", "it has the fewest sessions");
    });
}

#[test]
fn the_last_order_counts() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        let (mut at_a, mut at_b) = one_on_each(&proxy).await;
        // Thought better of: more time for one, none for the other.
        proxy.command(&["drain", "app/a", "--deadline", "1s"]).await.ok();
        proxy.command(&["drain", "app/a", "--deadline", "1h"]).await.ok();
        proxy.command(&["drain", "app/b", "--deadline", "1h"]).await.ok();
        proxy.command(&["drain", "app/b", "--deadline", "1s", "--wait"]).await.ok();
        assert_eq!(at_b.next().await, None, "its second deadline is over");
        at_a.echo("its first would have been over as well").await;
        assert_eq!(proxy.backend("a").await["admin"], "draining");
    });
}

#[test]
fn the_deadline_ends_the_sessions_that_are_left() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        let (mut at_a, mut at_b) = one_on_each(&proxy).await;
        at_a.echo("x").await;
        proxy.command(&["drain", "app/a", "--deadline", "1s", "--wait"]).await.ok();
        if let Some(frame) = at_a.next().await {
            assert!(!matches!(frame.close_code(), Some(1000 | 1001)), "a clean end would tell Shiny that all is over");
            assert_eq!(at_a.next().await, None);
        }
        at_b.echo("did not notice").await;
        // Who was sent away comes back elsewhere, although its cookie says `a`: the deadline is over.
        let again = proxy.socket(&[("Cookie", &cookie_of(&at_a.head))]).await;
        assert_eq!(again.origin(), "b");
        assert!(again.head.fields.has("set-cookie"));
    });
}

#[test]
fn disabling_moves_everybody_on_their_next_request() {
    within(60, async {
        let (a, b) = (Origin::start("a"), Origin::start("b"));
        let proxy = Proxy::start(&Site::new(&[&a, &b]).text()).await;
        let (at_a, _at_b) = one_on_each(&proxy).await;
        proxy.command(&["disable", "app/a"]).await.ok();
        let answer = proxy.get_as("/", &[("Cookie", &cookie_of(&at_a.head))]).await;
        assert_eq!(answer.origin(), "b");
        assert!(answer.fields.has("set-cookie"));
    });
}

#[test]
fn commands_that_cannot_be_done_say_why() {
    within(60, async {
        let origin = Origin::start("a");
        let proxy = Proxy::start(&Site::new(&[&origin]).text()).await;
        for target in ["app/nobody", "nowhere/a"] {
            let refused = proxy.command(&["drain", target]).await;
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(
                refused.stderr.contains(target.split('/').next_back().unwrap()) || refused.stderr.contains(target),
                "{refused:?}"
            );
        }
        assert_eq!(proxy.command(&["drain", "no-slash"]).await.code, Some(64));
        assert_eq!(bowline(&["drain", "app/a", "--admin", "/nowhere/admin.sock"]).await.code, Some(1));
        // TCP is for reading.
        let over_tcp = bowline(&["drain", "app/a", "--admin", &format!("http://{}", proxy.admin())]).await;
        assert_eq!(over_tcp.code, Some(1), "{over_tcp:?}");
        assert_eq!(proxy.backend("a").await["admin"], "enabled");
    });
}
