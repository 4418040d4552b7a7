use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn page() -> Vec<(&'static str, &'static str)> {
    vec![("content-type", "text/html; charset=utf-8"), ("content-length", "100")]
}

fn injected(html: &str, cuts: &[usize]) -> String {
    let mut injector = Injector::new("[SHIM]".to_owned());
    let (mut out, mut rest) = (Vec::new(), html.as_bytes());
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*cut).min(rest.len()));
        rest = later;
        if let Some(bytes) = injector.feed(Some(Bytes::copy_from_slice(now)), false) {
            out.extend_from_slice(&bytes);
        }
    }
    out.extend(injector.feed(None, true).unwrap_or_default());
    String::from_utf8(out).unwrap()
}

#[test]
fn the_script_goes_right_behind_the_head_tag() {
    for (html, expected) in [
        ("<html><head><title>", "<html><head>[SHIM]<title>"),
        ("<HTML><HEAD lang='>' a=\">\">x", "<HTML><HEAD lang='>' a=\">\">[SHIM]x"),
        ("<!-- <head> --><head\n>x", "<!-- <head> --><head\n>[SHIM]x"),
        ("<header>x</header>", "<header>x</header>[SHIM]"),
        ("<he<head>x", "<he<head>[SHIM]x"),
        ("no tags at all", "no tags at all[SHIM]"),
    ] {
        for cuts in [&[1][..], &[3, 2], &[1000]] {
            assert_eq!(injected(html, cuts), expected, "{cuts:?}");
        }
    }
}

#[test]
fn length_etag_and_ranges_are_put_right() {
    let mut fields = page();
    fields.extend([("etag", "\"abc\""), ("accept-ranges", "bytes"), ("content-md5", "x")]);
    let plan = plan(200, &headers(&fields), Mode::Reconnect).expect("a page");
    let set = |name: HeaderName| plan.set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_str().unwrap().to_owned());
    let len = "<script></script>".len() + SCRIPTS[0].0.len();
    assert_eq!(set(CONTENT_LENGTH), Some((100 + len).to_string()));
    assert_eq!(set(ETAG).as_deref(), Some("W/\"abc\""));
    assert!(plan.remove.contains(&ACCEPT_RANGES) && plan.remove.contains(&HeaderName::from_static("content-md5")));
}

#[test]
fn what_is_no_page_is_left_alone() {
    let with = |name, value| {
        let mut fields: Vec<_> = page().into_iter().filter(|(n, _)| *n != name).collect();
        fields.push((name, value));
        headers(&fields)
    };
    assert!(plan(200, &headers(&page()), Mode::Reconnect).is_some());
    assert!(plan(404, &headers(&page()), Mode::Reconnect).is_none());
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-type", "text/html; charset=UTF-16LE"),
        ("content-encoding", "gzip"),
        ("content-disposition", "attachment; filename=x.html"),
        ("cache-control", "public, no-transform"),
        ("content-length", "0"),
        ("content-security-policy", "sandbox allow-forms"),
        ("content-security-policy", "script-src 'none'"),
    ] {
        assert!(plan(200, &with(name, value), Mode::Reconnect).is_none(), "{name}: {value}");
    }
}

#[test]
fn policies_are_complied_with() {
    let permit = |fields: &[&str]| csp::permit(fields, "'sha256-H'").expect("scripts may run");
    assert_eq!(permit(&[]).policies, None);
    assert_eq!(permit(&["img-src 'self'"]).policies, None);
    assert_eq!(permit(&["script-src 'self' 'unsafe-inline'"]), csp::Permit { nonce: None, policies: None });
    assert_eq!(permit(&["script-src 'nonce-abc' 'strict-dynamic'"]).nonce.as_deref(), Some("abc"));
    let hashed = |fields: &[&str]| permit(fields).policies.expect("changed");
    assert_eq!(hashed(&["default-src 'self'; img-src *"]), "default-src 'self' 'sha256-H'; img-src *");
    assert_eq!(hashed(&["default-src 'none'; script-src 'self'"]), "default-src 'none'; script-src 'self' 'sha256-H'");
    assert_eq!(
        hashed(&["script-src-elem 'self'; script-src 'unsafe-inline'"]),
        "script-src-elem 'self' 'sha256-H'; script-src 'unsafe-inline'"
    );
    let two = permit(&["script-src 'nonce-abc'", "script-src 'nonce-def'"]);
    assert_eq!(
        (two.nonce.as_deref(), two.policies.as_deref()),
        (Some("abc"), Some("script-src 'nonce-abc', script-src 'nonce-def' 'sha256-H'"))
    );
    assert_eq!(hashed(&["script-src 'nonce-\"><x'"]), "script-src 'nonce-\"><x' 'sha256-H'", "not into an attribute");
}

#[test]
fn only_navigations_are_asked_for_plain() {
    let get = |fields: &[(&'static str, &str)]| applies_to_request(&Method::GET, &headers(fields));
    assert!(get(&[("sec-fetch-dest", "document")]));
    assert!(get(&[("sec-fetch-dest", "iframe")]));
    assert!(!get(&[("sec-fetch-dest", "empty"), ("accept", "text/html")]));
    assert!(get(&[("accept", "text/html,*/*")]));
    assert!(!get(&[("accept", "*/*")]));
    assert!(!get(&[("accept", "text/html"), ("range", "bytes=0-1")]));
    assert!(!applies_to_request(&Method::POST, &headers(&[("accept", "text/html")])));
}

#[test]
fn the_script_cannot_end_its_own_element() {
    assert!(SCRIPT.is_ascii() && !SCRIPT.contains("</") && !SCRIPT.contains("<!--") && SCRIPT.len() < 12_000);
    let [(reconnect, _), (resume, _)] = &*SCRIPTS;
    assert!(reconnect.ends_with("(window, \"reconnect\");") && resume.ends_with("(window, \"resume\");"));
}

#[test]
fn a_page_that_has_the_script_of_a_node_gets_none_of_a_proxys() {
    let plan_of = |fields: &[(&'static str, &str)]| plan(200, &headers(fields), Mode::Resume);
    let first = plan_of(&page()).expect("a page");
    let said = first.set.iter().find(|(name, _)| *name == DONE).expect("it says so");
    let mut fields = page();
    fields.push((DONE.as_str().to_owned().leak(), said.1.to_str().unwrap()));
    assert!(plan(200, &headers(&fields), Mode::Reconnect).is_none());
}

proptest! {
    #[test]
    fn a_page_is_whole_but_for_the_script(
        parts in proptest::collection::vec(prop_oneof![
            Just("<head>".to_owned()), Just("<head a='>'>".to_owned()), Just("<!--".to_owned()), Just("-->".to_owned()),
            Just("<header>".to_owned()), "[a-z<>\"'!-]{0,8}",
        ], 0..12),
        cuts in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        let html = parts.concat();
        let out = injected(&html, &cuts);
        prop_assert_eq!(out.len(), html.len() + 6);
        prop_assert_eq!(out.replacen("[SHIM]", "", 1), html);
        prop_assert_eq!(injected(parts.concat().as_str(), &[10_000]), out);
    }
}
