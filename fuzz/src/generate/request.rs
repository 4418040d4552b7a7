//! Requests.

use super::{content, in_chunks, put};
use crate::dice::Dice;

/// A request before it is cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) is_to_head: bool,
    /// The client pauses between head and body.
    pub(super) waits_before_body: bool,
}

const METHODS: [&str; 24] = [
    "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "HEAD", "HEAD", "POST", "POST", "POST", "POST",
    "POST", "PUT", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "M-SEARCH",
];

/// Any request a client may send.
pub(super) fn plan(dice: &mut Dice, number: usize, mark: &str) -> Planned {
    let method = dice.of(&METHODS);
    let is_http10 = dice.percent(10);
    let mut head = Vec::new();
    if dice.percent(3) {
        head.extend_from_slice(&b"\r\n".repeat(dice.within(1, 2)));
    }
    let host =
        dice.of(&["{site}.test", "{site}.test", "{site}.test", "{site}.test:80", "{site}.TEST", "127.0.0.1:8000"]);
    let target = target(dice, number, method, host);
    let version = if is_http10 { "1.0" } else { "1.1" };
    head.extend_from_slice(format!("{method} {target} HTTP/{version}\r\n").as_bytes());
    let mut fields: Vec<(&str, Vec<u8>)> = Vec::new();
    if !is_http10 || dice.percent(80) {
        fields.push(("Host", host.as_bytes().to_vec()));
    }
    fields.push(("X-Mark", mark.as_bytes().to_vec()));
    for _ in 0..[0, 1, 2, 4, 8][dice.below(5)] {
        let (name, value) = FIELDS[dice.below(FIELDS.len())];
        fields.push((name, value.to_vec()));
    }
    connection(dice, is_http10, &mut fields);
    let takes_body = matches!(method, "POST" | "PUT" | "PATCH") || dice.percent(6);
    let mut body = Vec::new();
    let mut waits_before_body = false;
    if takes_body {
        let data = content(dice, mark, 300_000);
        if !is_http10 && dice.percent(45) {
            fields.push(("Transfer-Encoding", dice.of(&["chunked", "chunked", "Chunked"]).as_bytes().to_vec()));
            body = in_chunks(dice, &data);
        } else {
            let length = if dice.percent(5) { format!("000{}", data.len()) } else { data.len().to_string() };
            fields.push(("Content-Length", length.into_bytes()));
            body = data;
        }
        waits_before_body = dice.percent(20);
        if dice.percent(15) {
            fields.push(("Expect", b"100-continue".to_vec()));
            waits_before_body = dice.percent(80);
        }
    } else if dice.percent(5) {
        fields.push(("Content-Length", b"0".to_vec()));
    }
    shuffle(dice, &mut fields);
    for (name, value) in fields {
        put(dice, &mut head, name, &value);
    }
    head.extend_from_slice(b"\r\n");
    Planned { head, body, is_to_head: method == "HEAD", waits_before_body }
}

fn target(dice: &mut Dice, number: usize, method: &str, host: &str) -> String {
    if method == "OPTIONS" && dice.percent(30) {
        return "*".into();
    }
    let folder = dice.of(&["", "", "", "/two", "/two", "/small"]);
    let tail = dice.of(&[
        "",
        "",
        "",
        "/",
        "?q=1",
        "?",
        "/a%20b",
        "/%2e%2e/x",
        "//x",
        "/../x",
        "/a;b=c",
        "/~x!$&'()*+,=:@",
        "?a=b?c/d",
        "/%zz",
        "/[x]",
        "/{x}|^",
        "?[x]{y}|\\^`",
        "/caf\u{e9}",
        "/a\"b",
        "/x/?y#z",
        "/a\\b",
    ]);
    let path = format!("/{{site}}{folder}/{number}{tail}");
    match dice.below(14) {
        0 => format!("http://{host}{path}"),
        1 => format!("HTTP://{host}{path}"),
        2 => dice.of(&["https://{site}.test", "http://{site}.test", "http://{site}.test?q=/{site}/x"]).to_owned(),
        _ => path,
    }
}

fn connection(dice: &mut Dice, is_http10: bool, fields: &mut Vec<(&'static str, Vec<u8>)>) {
    let value = match dice.below(if is_http10 { 10 } else { 24 }) {
        0..=2 => "keep-alive",
        3 => "close",
        4 => "Keep-Alive, X-Own",
        5 => "x-own",
        6 => "X-Own,, te , Cookie",
        7 => "upgrade",
        8 => "Host, Content-Length, Transfer-Encoding, X-Forwarded-For",
        _ => return,
    };
    fields.push(("Connection", value.as_bytes().to_vec()));
    if value.to_ascii_lowercase().contains("x-own") {
        fields.push(("X-Own", b"of this hop".to_vec()));
    }
}

const FIELDS: [(&str, &[u8]); 49] = [
    ("Accept", b"text/html,*/*;q=0.8"),
    ("Accept", b"application/json"),
    ("Accept-Encoding", b"gzip, br"),
    ("User-Agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
    ("Cookie", b"a=1"),
    ("Cookie", b"b=2; c=3"),
    ("Cookie", b""),
    ("Cookie", b"bowline_x=nonsense"),
    ("Authorization", b"Basic YTpi"),
    ("Referer", b"http://x.test/"),
    ("X-Plain", b"value"),
    ("X-Plain", b"another"),
    ("X-Empty", b""),
    ("X-Tab", b"a\tb"),
    ("X-Obs", b"caf\xe9 \xff"),
    ("X-Utf8", "gr\u{fc}n".as_bytes()),
    ("X-Quote", b"\"a\\\"b\", c"),
    ("X_Under", b"1"),
    ("X-Odd!#$%&'*+.^`|~9", b"1"),
    ("TE", b"trailers"),
    ("TE", b"trailers, deflate"),
    ("Trailer", b"X-Trailer"),
    ("Keep-Alive", b"timeout=5"),
    ("Proxy-Connection", b"keep-alive"),
    ("Proxy-Authorization", b"Basic eDp5"),
    ("Proxy-Authenticate", b"Basic"),
    ("Upgrade", b"h2c"),
    ("Upgrade", b"foo/2"),
    ("HTTP2-Settings", b"AAMAAABkAAQAAP__"),
    ("Range", b"bytes=0-4"),
    ("If-None-Match", b"\"abc\""),
    ("X-Forwarded-For", b"192.0.2.7"),
    ("X-Forwarded-For", b"10.0.0.1, caf\xe9"),
    ("X-Forwarded-Proto", b"https"),
    ("X-Forwarded-Host", b"elsewhere.test"),
    ("X-Forwarded-Port", b"443"),
    ("X-Forwarded-User", b"root"),
    ("X_Forwarded_For", b"192.0.2.8"),
    ("X-Auth-Username", b"root"),
    ("Shiny_Server-Credentials", b"{}"),
    ("RStudio-Connect-Credentials", b"{}"),
    ("X-Real-IP", b"192.0.2.9"),
    ("Forwarded", b"for=192.0.2.10;proto=https"),
    ("X-Request-Id", b"mine-1"),
    ("X-RSC-Request", b"http://x.test/y"),
    ("Expect", b"nothing"),
    ("Via", b"1.1 elsewhere"),
    ("Max-Forwards", b"0"),
    ("Content-Type", b"application/octet-stream"),
];

fn shuffle<T>(dice: &mut Dice, list: &mut [T]) {
    for at in (1..list.len()).rev() {
        list.swap(at, dice.below(at + 1));
    }
}
