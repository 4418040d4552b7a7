use http::HeaderMap;
use http::header::COOKIE;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn ring(byte: u8) -> Arc<KeyRing> {
    let mut random = [byte; 32];
    random[0] = !byte;
    Arc::new(KeyRing::parse(&KeyRing::generate(random)).expect("a ring"))
}

fn settings(lifetime: Option<u64>) -> CookieAffinity {
    CookieAffinity {
        name: "bowline_p".to_owned(),
        key_file: "unused".into(),
        lifetime: lifetime.map(Duration::from_secs),
        cross_site: false,
    }
}

fn affinity(lifetime: Option<u64>) -> Affinity {
    Affinity::new(&settings(lifetime), "p", ring(1))
}

fn key(text: &str) -> BackendKey {
    text.parse().expect("a key")
}

fn value(set_cookie: &HeaderValue) -> String {
    let pair = set_cookie.to_str().expect("ASCII").split("; ").next().expect("a pair");
    pair.strip_prefix("bowline_p=").expect("our name").to_owned()
}

fn cookies(fields: &[String]) -> HeaderMap {
    fields.iter().map(|f| (COOKIE, f.parse().expect("a field"))).collect()
}

fn values(cookies: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    cookies.get_all(COOKIE).iter().map(HeaderValue::as_bytes)
}

fn sealed(affinity: &Affinity, backend: &str, at: u64) -> String {
    value(&affinity.set_cookie(&key(backend), at, [3; 12], true))
}

fn read(affinity: &Affinity, value: &str, now: u64) -> Hint {
    affinity.read(values(&cookies(&[format!("bowline_p={value}")])), now)
}

fn bound(backend: &str, renew: bool) -> Hint {
    Hint::Bound { backend: key(backend), renew }
}

#[test]
fn no_cookie_of_ours_is_no_hint() {
    let a = affinity(None);
    assert_eq!(a.read(std::iter::empty(), NOW), Hint::None);
    assert_eq!(a.read(values(&cookies(&["session=1; bowline_q=x; Bowline_p=x".to_owned()])), NOW), Hint::None);
}

#[test]
fn a_session_cookie_never_expires_and_is_never_renewed() {
    let a = affinity(None);
    let v = sealed(&a, "node-a", NOW);
    for age in [0, 86_400, 1_000_000_000] {
        assert_eq!(read(&a, &v, NOW + age), bound("node-a", false));
    }
}

#[test]
fn a_lifetime_is_renewed_after_half_and_ends() {
    let a = affinity(Some(100));
    let v = sealed(&a, "a", NOW);
    assert_eq!(read(&a, &v, NOW + 50), bound("a", false));
    assert_eq!(read(&a, &v, NOW + 51), bound("a", true));
    assert_eq!(read(&a, &v, NOW + 99), bound("a", true));
    assert_eq!(read(&a, &v, NOW + 100), Hint::Rejected(Cause::Expired));
    assert_eq!(read(&a, &v, NOW - 300), bound("a", false), "clocks differ a little");
    assert_eq!(read(&a, &v, NOW - 301), bound("a", true), "a wrong clock's date is replaced");
}

#[test]
fn the_browser_is_told_of_a_lifetime_only() {
    let text = |lifetime, cross_site, is_tls| {
        let a = Affinity::new(&CookieAffinity { cross_site, ..settings(lifetime) }, "p", ring(1));
        let field = a.set_cookie(&key("a"), NOW, [0; 12], is_tls);
        let text = field.to_str().expect("ASCII").to_owned();
        text.split_once("; ").expect("attributes").1.to_owned()
    };
    assert_eq!(text(None, false, false), "Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(text(None, false, true), "Path=/; HttpOnly; SameSite=Lax; Secure");
    assert_eq!(text(Some(86_400), false, true), "Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=86400");
    assert_eq!(text(None, true, true), "Path=/; HttpOnly; SameSite=None; Secure");
    assert_eq!(text(None, true, false), "Path=/; HttpOnly; SameSite=Lax", "None without Secure is refused by browsers");
}

#[test]
fn the_value_is_opaque_and_read_alike_by_every_client() {
    let a = affinity(None);
    let field = a.set_cookie(&key("node-a"), NOW, [5; 12], true);
    let v = value(&field);
    // R's rsconnect: no comma or semicolon in the value; Python and browsers: no `=`, no white space.
    assert!(v.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{v}");
    assert!(!v.contains("node"));
    assert!(!field.to_str().expect("ASCII").contains("Partitioned"));
    assert!(field.len() < 256);
}

#[test]
fn the_cookie_that_opens_is_found_behind_others() {
    let a = affinity(Some(100));
    let (good, old) = (sealed(&a, "a", NOW), sealed(&a, "b", NOW - 100));
    let stranger = sealed(&Affinity::new(&settings(None), "p", ring(9)), "c", NOW);
    let hint = |fields: &[String]| a.read(values(&cookies(fields)), NOW);
    assert_eq!(
        hint(&[format!("x=1; bowline_p={old}; path=/; HttpOnly"), format!("bowline_p=\"{good}\"")]),
        bound("a", false)
    );
    assert_eq!(
        hint(&[format!("bowline_p={stranger}; bowline_p=; bowline_p=short; bowline_p={good}")]),
        bound("a", false)
    );
    assert_eq!(hint(&[format!("bowline_p={stranger}; bowline_p={old}")]), Hint::Rejected(Cause::Expired));
    assert_eq!(hint(&[format!("bowline_p={old}; bowline_p={stranger}")]), Hint::Rejected(Cause::Expired));
    assert_eq!(hint(&["bowline_p=short".to_owned()]), Hint::Rejected(Cause::Unsealed));
}

#[test]
fn only_four_candidates_are_tried_but_short_junk_costs_none() {
    let a = affinity(None);
    let (good, stranger) = (sealed(&a, "a", NOW), sealed(&Affinity::new(&settings(None), "p", ring(9)), "c", NOW));
    let after = |n, junk: &str| {
        a.read(values(&cookies(&[format!("bowline_p={junk}; ").repeat(n) + &format!("bowline_p={good}")])), NOW)
    };
    assert_eq!(after(3, &stranger), bound("a", false));
    assert_eq!(after(4, &stranger), Hint::Rejected(Cause::Unsealed));
    assert_eq!(after(50, "junk"), bound("a", false));
}

#[test]
fn a_rotated_key_still_opens_and_asks_for_renewal() {
    let (old, new) = ([1; 31], [2; 31]);
    let file = |tail: [u8; 31]| KeyRing::generate([[9].as_slice(), &tail].concat().try_into().expect("32 bytes"));
    let open = |text: &str| Affinity::new(&settings(None), "p", Arc::new(KeyRing::parse(text).expect("a ring")));
    let v = sealed(&open(&file(old)), "a", NOW);
    assert_eq!(read(&open(&(file(new) + &file(old))), &v, NOW), bound("a", true));
    assert_eq!(read(&open(&(file(old) + &file(new))), &v, NOW), bound("a", false));
    assert_eq!(read(&open(&file(new)), &v, NOW), Hint::Rejected(Cause::Unsealed));
}

#[test]
fn a_name_that_is_no_token_still_makes_a_cookie() {
    let a = Affinity::new(&CookieAffinity { name: "a\n;b".to_owned(), ..settings(None) }, "p\u{e9}", ring(1));
    let field = a.set_cookie(&key("a"), NOW, [0; 12], false);
    assert!(field.to_str().expect("ASCII").starts_with("a__b="));
    let pair = field.to_str().expect("ASCII").split(';').next().expect("a pair").to_owned();
    assert_eq!(a.read(values(&cookies(&[pair])), NOW), bound("a", false));
}

fn some_key() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}"
}

proptest! {
    #[test]
    fn what_is_sealed_opens_again(backend in some_key(), nonce: [u8; 12], issued: u64, now: u64, is_tls: bool) {
        let a = affinity(None);
        let v = value(&a.set_cookie(&key(&backend), issued, nonce, is_tls));
        let renew = issued.saturating_sub(now) > 300;
        prop_assert_eq!(read(&a, &v, now), bound(&backend, renew));
    }

    #[test]
    fn altered_text_never_opens(backend in some_key(), nonce: [u8; 12], at: prop::sample::Index, other: prop::sample::Index) {
        let a = affinity(None);
        let v = value(&a.set_cookie(&key(&backend), NOW, nonce, true));
        let at = at.index(v.len());
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=.";
        let other = alphabet.chars().filter(|c| !v[at..].starts_with(*c)).nth(other.index(alphabet.len() - 1)).expect("another");
        let altered = format!("{}{other}{}", &v[..at], &v[at + 1..]);
        prop_assert_eq!(read(&a, &altered, NOW), Hint::Rejected(Cause::Unsealed));
        let shorter = format!("{}{}", &v[..at], &v[at + 1..]);
        prop_assert_eq!(read(&a, &shorter, NOW), Hint::Rejected(Cause::Unsealed));
        let longer = format!("{}{other}{}", &v[..at], &v[at..]);
        prop_assert_eq!(read(&a, &longer, NOW), Hint::Rejected(Cause::Unsealed));
    }

    #[test]
    fn a_cookie_of_another_pool_name_or_key_never_opens(backend in some_key(), nonce: [u8; 12], pool in "[a-q]{1,8}", name in "[a-z_]{1,12}") {
        prop_assume!(pool != "p" && name != "bowline_p");
        let here = affinity(None);
        let v = value(&here.set_cookie(&key(&backend), NOW, nonce, true));
        let elsewhere = Affinity::new(&settings(None), &pool, ring(1));
        prop_assert_eq!(read(&elsewhere, &v, NOW), Hint::Rejected(Cause::Unsealed));
        let otherwise = Affinity::new(&settings(None), "p", ring(2));
        prop_assert_eq!(read(&otherwise, &v, NOW), Hint::Rejected(Cause::Unsealed));
        let renamed = Affinity::new(&CookieAffinity { name: name.clone(), ..settings(None) }, "p", ring(1));
        prop_assert_eq!(renamed.read(values(&cookies(&[format!("{name}={v}")])), NOW), Hint::Rejected(Cause::Unsealed));
    }

    #[test]
    fn an_expired_cookie_never_binds(backend in some_key(), lifetime in 1u64..10_000_000, age in 0u64..20_000_000) {
        let a = affinity(Some(lifetime));
        let v = sealed(&a, &backend, NOW);
        match read(&a, &v, NOW + age) {
            Hint::Bound { renew, .. } => {
                prop_assert!(age < lifetime);
                prop_assert_eq!(renew, age > lifetime / 2);
            }
            hint => {
                prop_assert!(age >= lifetime);
                prop_assert_eq!(hint, Hint::Rejected(Cause::Expired));
            }
        }
    }

    #[test]
    fn no_cookie_field_makes_reading_panic(bytes in prop::collection::vec(0x20u8..0xff, 0..400)) {
        prop_assume!(!bytes.contains(&0x7f));
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_bytes(&bytes).expect("a field"));
        headers.append(COOKIE, HeaderValue::from_bytes(&[b"bowline_p=", bytes.as_slice()].concat()).expect("a field"));
        let _ = affinity(Some(5)).read(values(&headers), NOW);
    }
}
