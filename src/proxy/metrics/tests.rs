use http::Method as HttpMethod;

use super::names;
use super::*;
use crate::telemetry::metrics::Kind;

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn key(text: &str) -> BackendKey {
    text.parse().unwrap()
}

fn idle() -> Observed {
    let backend = |key_: &str| ObservedBackend {
        pool: name("shiny"),
        key: key(key_),
        is_up: true,
        is_draining: key_ == "b",
        is_disabled: false,
        in_flight: 0,
        sessions: 0,
    };
    Observed {
        listeners: vec![(name("http"), 0), (name("https"), 0)],
        backends: vec![backend("a"), backend("b")],
        reload_successful: true,
        reload_success: Duration::from_millis(1_780_000_000_042),
        certificates: vec![("apps.example.org".into(), 1_800_000_000)],
        access_log_dropped: 0,
        process_log_dropped: 0,
    }
}

#[test]
fn an_idle_proxy_shows_every_metric() {
    let metrics = Metrics::new("0.1.0", "abc1234");
    let (pool, route) = (name("shiny"), name("apps.example.org/"));
    let _held = (
        metrics.listener(&name("http")),
        metrics.listener(&name("https")),
        metrics.route(&name("https"), &route, &pool),
        metrics.pool(&pool),
        metrics.backend(&pool, &key("a")),
        metrics.backend(&pool, &key("b")),
    );
    insta::assert_snapshot!("idle", metrics.render(&idle(), Exposition::default()));
}

#[test]
fn everything_that_is_counted_shows_up_under_its_labels() {
    let metrics = Metrics::new("0.1.0", "abc1234");
    let (pool, route, listener) = (name("shiny"), name("*/"), name("https"));
    let handle = metrics.route(&listener, &route, &pool);
    handle.answered(&HttpMethod::GET, 200, Duration::from_millis(3));
    handle.answered(&HttpMethod::GET, 200, Duration::from_millis(3));
    handle.answered(&HttpMethod::POST, 599, Duration::from_secs(90));
    handle.answered(&HttpMethod::from_bytes(b"BREW").unwrap(), 999, Duration::ZERO);
    handle.answered(&HttpMethod::GET, 99, Duration::ZERO);
    let pool = metrics.pool(&pool);
    pool.connected(Duration::from_micros(90));
    pool.picked(PickReason::Rebound);
    pool.affinity_rejected(AffinityCause::Unknown);
    pool.retried("refused");
    pool.failed(Side::Upstream, "refused");
    pool.session_lost("ping_timeout");
    for code in [None, Some(1001), Some(4701), Some(4702), Some(4000)] {
        pool.session_closed(code);
    }
    let backend = metrics.backend(&name("shiny"), &key("a"));
    backend.probed(ProbeOutcome::TimedOut);
    let listener = metrics.listener(&listener);
    listener.handshake_failed("timeout");
    listener.refused("two_hosts");
    let text = metrics.render(&Observed::default(), Exposition::default());
    for line in [
        r#"bowline_proxy_requests_total{listener="https",route="*/",pool="shiny",method="GET",code="200"} 2"#,
        r#"bowline_proxy_requests_total{listener="https",route="*/",pool="shiny",method="GET",code="other"} 1"#,
        r#"bowline_proxy_requests_total{listener="https",route="*/",pool="shiny",method="POST",code="599"} 1"#,
        r#"bowline_proxy_requests_total{listener="https",route="*/",pool="shiny",method="other",code="other"} 1"#,
        r#"bowline_proxy_request_duration_seconds_bucket{route="*/",pool="shiny",le="60"} 4"#,
        r#"bowline_proxy_request_duration_seconds_count{route="*/",pool="shiny"} 5"#,
        r#"bowline_proxy_upstream_connect_duration_seconds_bucket{pool="shiny",le="0.0001"} 1"#,
        r#"bowline_proxy_picks_total{pool="shiny",reason="rebound"} 1"#,
        r#"bowline_proxy_affinity_rejected_total{pool="shiny",cause="unknown"} 1"#,
        r#"bowline_proxy_retries_total{pool="shiny",cause="refused"} 1"#,
        r#"bowline_proxy_errors_total{pool="shiny",side="upstream",cause="refused"} 1"#,
        r#"bowline_proxy_sessions_lost_total{pool="shiny",cause="ping_timeout"} 1"#,
        r#"bowline_proxy_session_closes_total{pool="shiny",code="none"} 1"#,
        r#"bowline_proxy_session_closes_total{pool="shiny",code="1001"} 1"#,
        r#"bowline_proxy_session_closes_total{pool="shiny",code="47xx"} 2"#,
        r#"bowline_proxy_session_closes_total{pool="shiny",code="other"} 1"#,
        r#"bowline_proxy_probes_total{pool="shiny",backend="a",outcome="timed_out"} 1"#,
        r#"bowline_proxy_handshake_failures_total{listener="https",reason="timeout"} 1"#,
        r#"bowline_proxy_refused_requests_total{listener="https",reason="two_hosts"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn a_reload_counts_on_and_what_is_gone_leaves() {
    let metrics = Metrics::new("0.1.0", "abc1234");
    let (listener, route, pool) = (name("https"), name("*/"), name("shiny"));
    let before = (metrics.route(&listener, &route, &pool), metrics.pool(&pool));
    before.0.answered(&HttpMethod::GET, 200, Duration::ZERO);
    before.1.picked(PickReason::Balanced);
    // The new state takes its handles while the old one still has its own.
    let after = (metrics.route(&listener, &route, &pool), metrics.pool(&pool));
    drop(before);
    after.0.answered(&HttpMethod::GET, 200, Duration::ZERO);
    after.1.picked(PickReason::Balanced);
    let text = metrics.render(&Observed::default(), Exposition::default());
    assert!(text.contains(r#"method="GET",code="200"} 2"#), "{text}");
    assert!(text.contains(r#"picks_total{pool="shiny",reason="balanced"} 2"#), "{text}");
    drop(after);
    let text = metrics.render(&idle(), Exposition::default());
    assert!(!text.contains("requests_total{") && !text.contains("picks_total{"), "{text}");
    assert!(
        !metrics.render(&Observed::default(), Exposition::default()).contains("backend_up{"),
        "no gauge of a backend that left"
    );
}

#[test]
fn another_listener_of_the_same_route_shares_its_durations() {
    let metrics = Metrics::new("0.1.0", "abc1234");
    let (route, pool) = (name("*/"), name("shiny"));
    let (http, https) = (metrics.route(&name("http"), &route, &pool), metrics.route(&name("https"), &route, &pool));
    http.answered(&HttpMethod::GET, 308, Duration::ZERO);
    https.answered(&HttpMethod::GET, 200, Duration::ZERO);
    let text = metrics.render(&Observed::default(), Exposition::default());
    assert!(text.contains(r#"request_duration_seconds_count{route="*/",pool="shiny"} 2"#), "{text}");
}

#[test]
fn names_are_clean_as_openmetrics_has_it() {
    const UNITS: [&str; 3] = ["_seconds", "_bytes", "_ratio"];
    for family in names::ALL {
        let name = family.name;
        assert!(name.starts_with("bowline_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        assert!(family.kind != Kind::Histogram || UNITS.iter().any(|unit| name.ends_with(unit)), "{name}");
        for reserved in ["_count", "_sum", "_bucket", "_created"] {
            assert!(!name.ends_with(reserved), "{name}");
        }
        assert!(!family.help.is_empty() && !family.help.contains(['\\', '\n']) && family.help.contains('.'), "{name}");
        assert_eq!(names::ALL.iter().filter(|other| other.name == name).count(), 1, "{name} is there twice");
    }
}

#[test]
fn a_route_costs_little_until_it_is_used() {
    assert!(size_of::<RouteMetrics>() < 1_024, "{} bytes", size_of::<RouteMetrics>());
}
