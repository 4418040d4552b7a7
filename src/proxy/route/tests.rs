use proptest::prelude::*;

use super::*;

fn table(routes: &[(&str, &str)]) -> Table<String> {
    Table::new(routes.iter().map(|&(h, p)| (pattern(h), p.to_owned(), format!("{h}{p}"))).collect())
}

fn pattern(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some("") => HostPattern::Any,
        Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
        None => HostPattern::Exact(text.to_owned()),
    }
}

fn found<'a>(table: &'a Table<String>, host: &str, path: &str) -> Option<&'a str> {
    table.find(Some(host), path).map(String::as_str)
}

#[test]
fn an_exact_host_beats_the_longest_wildcard_beats_any() {
    let t = table(&[("*", "/"), ("*.example.org", "/"), ("*.b.example.org", "/"), ("a.b.example.org", "/")]);
    assert_eq!(found(&t, "a.b.example.org", "/"), Some("a.b.example.org/"));
    assert_eq!(found(&t, "x.b.example.org", "/"), Some("*.b.example.org/"));
    assert_eq!(found(&t, "y.x.b.example.org", "/"), Some("*.b.example.org/"));
    assert_eq!(found(&t, "b.example.org", "/"), Some("*.example.org/"));
    assert_eq!(found(&t, "example.org", "/"), Some("*/"), "a wildcard wants at least one label");
    assert_eq!(found(&t, ".example.org", "/"), Some("*/"), "an empty label is no label");
    assert_eq!(t.find(None, "/").map(String::as_str), Some("*/"));
}

#[test]
fn the_longest_path_wins_and_ends_at_a_segment_border() {
    let t = table(&[("*", "/app"), ("*", "/app/deep"), ("*", "/files/")]);
    for (path, want) in [
        ("/app", Some("*/app")),
        ("/app/", Some("*/app")),
        ("/app/x", Some("*/app")),
        ("/app?x=/app/deep", Some("*/app")),
        ("/app/deep", Some("*/app/deep")),
        ("/app/deep/er", Some("*/app/deep")),
        ("/app/deeper", Some("*/app")),
        ("/apple", None),
        ("/App", None),
        ("/files/", Some("*/files/")),
        ("/files/x", Some("*/files/")),
        ("/files", None),
        ("/", None),
        ("", None),
        ("*", None),
    ] {
        assert_eq!(found(&t, "h", path), want, "{path}");
    }
}

#[test]
fn the_root_prefix_takes_every_target() {
    let t = table(&[("*", "/")]);
    for path in ["/", "/x", "*", "", "/%2e/"] {
        assert_eq!(found(&t, "h", path), Some("*/"), "{path}");
    }
}

#[test]
fn a_host_without_a_fitting_path_falls_back_to_the_less_specific() {
    let t = table(&[("a.example.org", "/only"), ("*.example.org", "/wild"), ("*", "/")]);
    assert_eq!(found(&t, "a.example.org", "/only/x"), Some("a.example.org/only"));
    assert_eq!(found(&t, "a.example.org", "/wild"), Some("*.example.org/wild"));
    assert_eq!(found(&t, "a.example.org", "/else"), Some("*/"));
}

#[test]
fn hosts_are_read_without_case_port_and_final_dot() {
    let t = table(&[("a.example.org", "/"), ("::1", "/"), ("10.0.0.1", "/")]);
    for host in ["A.Example.ORG", "a.example.org:8443", "a.example.org.", "a.example.org.:443", "a.example.org:"] {
        assert_eq!(found(&t, host, "/"), Some("a.example.org/"), "{host}");
    }
    for host in ["[::1]", "[::1]:8443", "::1"] {
        assert_eq!(found(&t, host, "/"), Some("::1/"), "{host}");
    }
    assert_eq!(found(&t, "10.0.0.1:80", "/"), Some("10.0.0.1/"));
    for host in ["", ":", ".", "[", "[::1", "a.example.org..", "xa.example.org", "a.example.orgx"] {
        assert_eq!(found(&t, host, "/"), None, "{host}");
    }
}

#[test]
fn the_first_of_two_equal_routes_counts() {
    let t = Table::new(vec![
        (HostPattern::Any, "/x".to_owned(), 1),
        (HostPattern::Any, "/".to_owned(), 2),
        (HostPattern::Any, "/x".to_owned(), 3),
    ]);
    assert_eq!(t.find(None, "/x"), Some(&1));
}

/// What the table must equal: look at every route, keep the best.
fn naive<'a>(routes: &'a [(HostPattern, String, usize)], host: Option<&str>, path: &str) -> Option<&'a usize> {
    let host = host.map(|h| {
        let h = h.to_ascii_lowercase();
        let h = h.split(':').next().unwrap_or("").to_owned();
        h.strip_suffix('.').map(str::to_owned).unwrap_or(h)
    });
    let rank = |pattern: &HostPattern| match (pattern, &host) {
        (HostPattern::Any, _) => Some(0),
        (HostPattern::Wildcard(s), Some(h)) => (h.len() > s.len() && h.ends_with(s.as_str())).then_some(s.len()),
        (HostPattern::Exact(e), Some(h)) => (e == h).then_some(usize::MAX),
        _ => None,
    };
    let segments = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let under = |prefix: &str| {
        let (mut p, t) = (segments(prefix), segments(path));
        if p.last().is_some_and(String::is_empty) {
            p.pop();
            prefix == "/" || (t.len() > p.len() && t.starts_with(&p))
        } else {
            t.starts_with(&p)
        }
    };
    let mut best: Option<(usize, usize, &usize)> = None;
    for (pattern, prefix, route) in routes {
        let Some(rank) = rank(pattern) else { continue };
        if under(prefix) && best.is_none_or(|(r, l, _)| (rank, prefix.len()) > (r, l)) {
            best = Some((rank, prefix.len(), route));
        }
    }
    best.map(|(_, _, route)| route)
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 1..4).prop_map(|labels| labels.join("."))
}

fn path() -> impl Strategy<Value = String> {
    (prop::collection::vec("[ab]{0,2}", 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        let path = format!("/{}", segments.join("/"));
        if slash && !path.ends_with('/') { path + "/" } else { path }
    })
}

fn some_pattern() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        Just(HostPattern::Any),
        name().prop_map(HostPattern::Exact),
        name().prop_map(|n| HostPattern::Wildcard(format!(".{n}"))),
    ]
}

proptest! {
    #[test]
    fn the_table_equals_a_linear_search(
        routes in prop::collection::vec((some_pattern(), path()), 0..24),
        asked in prop::collection::vec((prop::option::of((name(), "|:80|\\.|\\.:80", any::<bool>())), path()), 1..24),
    ) {
        let routes: Vec<_> = routes.into_iter().enumerate().map(|(i, (h, p))| (h, p, i)).collect();
        let table = Table::new(routes.clone());
        for (host, path) in asked {
            let host = host.map(|(n, tail, upper)| (if upper { n.to_ascii_uppercase() } else { n }) + &tail);
            prop_assert_eq!(table.find(host.as_deref(), &path), naive(&routes, host.as_deref(), &path), "{:?} {}", host, path);
        }
    }

    #[test]
    fn no_text_makes_the_table_panic(host in ".{0,40}", path in ".{0,40}") {
        let t = table(&[("*", "/a"), ("*.b", "/"), ("b", "/")]);
        let _ = t.find(Some(&host), &path);
    }
}
