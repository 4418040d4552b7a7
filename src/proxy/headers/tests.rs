use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn way(client: Option<&str>, is_tls: bool, port: u16) -> &'static Way {
    Box::leak(Box::new(Way::new(client.map(|client| SocketAddr::new(client.parse().unwrap(), 50_000)), is_tls, port)))
}

fn hop() -> Hop<'static> {
    Hop {
        way: way(Some("192.0.2.7"), true, 8443),
        host: "app.example:8443",
        trusted: false,
        request_id: "id-1",
        rsc_request: true,
        target: "/x?y=1",
        wants_identity: false,
    }
}

fn lines(map: &HeaderMap) -> Vec<httparse::Header<'_>> {
    map.iter().map(|(name, value)| httparse::Header { name: name.as_str(), value: value.as_bytes() }).collect()
}

fn applied(before: &HeaderMap, hop: &Hop<'_>) -> HeaderMap {
    let lines = lines(before);
    let fields = Fields::new(&lines);
    let edits = RequestEdits::new(&fields, *hop);
    let passing = fields.iter().filter(|(field, known)| edits.passes(field.name.as_bytes(), *known));
    let parsed = |name: &str, value| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
    let mut after: HeaderMap = passing.map(|(field, _)| parsed(field.name, field.value)).collect();
    let mut added = Vec::new();
    edits.add(&mut added);
    for line in added.split_inclusive(|b| *b == b'\n') {
        let line = std::str::from_utf8(line.strip_suffix(b"\r\n").unwrap()).unwrap();
        let (name, value) = line.split_once(": ").unwrap();
        let before = after.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        assert_eq!(before, None, "what is added did not pass too");
    }
    after
}

#[test]
fn an_untrusted_account_of_the_way_is_replaced() {
    let sent = headers(&[
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil"),
        ("forwarded", "for=6.6.6.6"),
        ("x-rsc-request", "http://evil/"),
        ("x_rsc_request", "http://evil/"),
        ("x-real-ip", "6.6.6.6"),
        ("x-forwarded-prefix", "/evil"),
        ("rstudio-connect-credentials", "{}"),
        ("shiny_server_credentials", "{}"),
    ]);
    let got = applied(&sent, &hop());
    assert_eq!(got["x-forwarded-for"], "192.0.2.7");
    assert_eq!(got["x-forwarded-proto"], "https");
    assert_eq!(got["x-forwarded-host"], "app.example:8443");
    assert_eq!(got["x-forwarded-port"], "8443");
    assert_eq!(got["x-real-ip"], "192.0.2.7");
    assert_eq!(got["forwarded"], "for=192.0.2.7;proto=https;host=\"app.example:8443\"");
    assert_eq!(got["x-rsc-request"], "https://app.example:8443/x?y=1");
    assert_eq!(got["x-request-id"], "id-1");
    for gone in ["x_rsc_request", "x-forwarded-prefix", "rstudio-connect-credentials", "shiny_server_credentials"] {
        assert!(!got.contains_key(gone), "{gone}");
    }
}

#[test]
fn a_trusted_account_is_kept_and_added_to() {
    let sent = headers(&[
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "outer.example"),
        ("forwarded", "for=198.51.100.1"),
    ]);
    let v6 = Hop { trusted: true, way: way(Some("2001:db8::1"), true, 8443), ..hop() };
    let got = applied(&sent, &v6);
    assert_eq!(got["x-forwarded-for"], "198.51.100.1, 10.0.0.1, 2001:db8::1");
    assert_eq!(got["x-forwarded-proto"], "http");
    assert_eq!(got["forwarded"], "for=198.51.100.1, for=\"[2001:db8::1]\";proto=https;host=\"app.example:8443\"");
    assert_eq!(got["x-rsc-request"], "http://outer.example/x?y=1");
}

#[test]
fn hop_by_hop_fields_and_what_connection_names_go() {
    let sent = headers(&[
        (
            "connection",
            "close, x-own, Foo, host, cookie, content-length, authorization, x-remote-user, x-forwarded-for",
        ),
        ("foo", "1"),
        ("x-own", "the sender's to strip"),
        ("x-remote-user", "what a gateway before us set is not"),
        ("host", "a"),
        ("cookie", "c=1"),
        ("authorization", "Key k"),
        ("content-length", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "p"),
        ("upgrade", "h2c"),
        ("te", "trailers, gzip"),
    ]);
    let got = applied(&sent, &Hop { trusted: true, ..hop() });
    for gone in ["connection", "foo", "x-own", "keep-alive", "proxy-authorization", "upgrade"] {
        assert!(!got.contains_key(gone), "{gone}");
    }
    for kept in ["host", "cookie", "authorization", "content-length", "x-remote-user", "x-forwarded-for"] {
        assert!(got.contains_key(kept), "{kept}");
    }
    assert!(!got.contains_key("te"), "trailers end at the proxy, so nobody is asked for them");
}

#[test]
fn only_a_trusted_and_sane_request_id_is_kept() {
    let sane = headers(&[("x-request-id", "abc-1")]);
    let request_id = |fields: &Fields<'_>, trusted, random| {
        let mut id = String::new();
        push_request_id(&mut id, fields, trusted, random);
        id
    };
    assert_eq!(request_id(&Fields::new(&lines(&sane)), true, 1), "abc-1");
    assert_eq!(request_id(&Fields::new(&lines(&sane)), false, 1), format!("{:032x}", 1));
    for insane in ["", "with space", &"x".repeat(129)] {
        let sent = headers(&[("x-request-id", insane)]);
        assert_eq!(request_id(&Fields::new(&lines(&sent)), true, 2), format!("{:032x}", 2));
    }
}

#[test]
fn the_client_is_the_last_address_nobody_vouches_for() {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    let client = |list: &str| {
        let sent = headers(&[("x-forwarded-for", list)]);
        forwarded_client(&Fields::new(&lines(&sent)), &trusted).map(|ip| ip.to_string())
    };
    assert_eq!(client("6.6.6.6, 198.51.100.1, 10.0.0.2").as_deref(), Some("198.51.100.1"));
    assert_eq!(client("198.51.100.1:1234").as_deref(), Some("198.51.100.1"));
    assert_eq!(client("[2001:db8::1]:80").as_deref(), Some("2001:db8::1"));
    assert_eq!(client("10.0.0.3, 10.0.0.2").as_deref(), Some("10.0.0.3"));
    assert_eq!(client("garbage"), None);
}

fn any_name() -> impl Strategy<Value = String> {
    let known: Vec<_> = IDENTITY
        .iter()
        .map(|n| (*n).to_owned())
        .chain(["x-forwarded-for", "x-rsc-request", "x-real-ip", "forwarded"].map(str::to_owned))
        .collect();
    prop_oneof![proptest::sample::select(known), "[a-z][a-z0-9_-]{0,12}"]
}

proptest! {
    #[test]
    fn nothing_an_untrusted_peer_says_about_itself_survives(
        fields in proptest::collection::vec((any_name(), "[a-z]{3,8}"), 0..12),
        underscores in any::<bool>(),
    ) {
        let renamed: Vec<_> = fields.iter().map(|(n, v)| (if underscores { n.replace('-', "_") } else { n.clone() }, format!("evil{v}"))).collect();
        let sent = headers(&renamed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>());
        let got = applied(&sent, &hop());
        for (name, value) in &got {
            let dashed = name.as_str().replace('_', "-");
            let is_trusted_by_backends = IDENTITY.contains(&dashed.as_str()) || dashed.starts_with("x-forwarded-") || ["x-rsc-request", "x-real-ip", "forwarded"].contains(&dashed.as_str());
            prop_assert!(!is_trusted_by_backends || !value.to_str().unwrap().contains("evil"), "{name}: {value:?}");
        }
    }

    #[test]
    fn rewriting_twice_is_rewriting_once(fields in proptest::collection::vec((any_name(), "[a-z, ]{0,10}"), 0..12)) {
        let sent = headers(&fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>());
        let once = applied(&sent, &hop());
        prop_assert_eq!(applied(&once, &hop()), once);
    }
}
