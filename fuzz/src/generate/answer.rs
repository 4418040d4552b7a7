//! Answers.

use super::request::Planned;
use super::{content, cut_reply, in_chunks, put};
use crate::case::{Act, Reply, When};
use crate::dice::Dice;

/// Any answer an origin may give to this request.
pub(super) fn reply(dice: &mut Dice, request: &Planned, mark: &str) -> Reply {
    let mut acts = Vec::new();
    if dice.percent(15) {
        for _ in 0..dice.within(1, 2) {
            let interim: &[u8] = dice.of(&[
                &b"HTTP/1.1 100 Continue\r\n\r\n"[..],
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"HTTP/1.1 102 Processing\r\n\r\n",
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Request-Id: theirs\r\n\r\n",
                b"HTTP/1.1 199 \r\nConnection: X-Own\r\nX-Own: 1\r\n\r\n",
            ]);
            acts.push(Act::Send(interim.to_vec()));
            if dice.percent(60) {
                acts.push(Act::Pause([0, 2, 10][dice.below(3)]));
            }
        }
    }
    let (bytes, ends) = answer(dice, request, mark);
    acts.append(&mut cut_reply(dice, bytes));
    if ends || dice.percent(8) {
        acts.push(Act::Pause([0, 0, 5][dice.below(3)]));
        acts.push(Act::Fin);
    }
    let when = match dice.below(10) {
        0 if !request.body.is_empty() => When::Head,
        1 if !request.body.is_empty() => When::Body(dice.within(1, request.body.len())),
        _ => When::Whole,
    };
    Reply { when, acts }
}

/// Its bytes, and whether the connection ends behind it.
fn answer(dice: &mut Dice, request: &Planned, mark: &str) -> (Vec<u8>, bool) {
    let line: &[u8] = dice.of(&[
        &b"200 OK"[..],
        b"200 OK",
        b"200 OK",
        b"200 OK",
        b"200 OK",
        b"200 ",
        b"200 Tr\xe8s bien",
        b"201 Created",
        b"204 No Content",
        b"204 No Content",
        b"206 Partial Content",
        b"301 Moved",
        b"304 Not Modified",
        b"304 Not Modified",
        b"404 Not Found",
        b"426 Upgrade Required",
        b"500 Oh no",
        b"502 Bad Gateway",
        b"503 Service Unavailable",
        b"504 Late",
        b"599 ?",
        b"999 x",
    ]);
    let has_no_body = matches!(&line[..3], b"204" | b"304");
    let is_http10 = dice.percent(10);
    let mut bytes = if is_http10 { b"HTTP/1.0 ".to_vec() } else { b"HTTP/1.1 ".to_vec() };
    bytes.extend_from_slice(line);
    bytes.extend_from_slice(b"\r\n");
    put(dice, &mut bytes, "X-Mark", mark.as_bytes());
    for _ in 0..[0, 1, 2, 5][dice.below(4)] {
        let (name, value) = FIELDS[dice.below(FIELDS.len())];
        put(dice, &mut bytes, name, value);
    }
    let mut ends = false;
    let connection = match dice.below(14) {
        0 => Some("close"),
        1 | 2 => Some("keep-alive"),
        3 => Some("X-Own, keep-alive"),
        4 => Some("Set-Cookie, Content-Length, x-own"),
        _ => None,
    };
    if let Some(value) = connection {
        put(dice, &mut bytes, "Connection", value.as_bytes());
        ends |= value == "close" && dice.percent(70);
    }
    ends |= is_http10 && connection.is_none_or(|value| !value.contains("keep-alive"));
    let data = content(dice, mark, 300_000);
    let body = match dice.below(10) {
        _ if &line[..3] == b"204" => Vec::new(),
        0 if has_no_body || request.is_to_head => Vec::new(),
        0..=1 => {
            ends = true;
            data
        }
        2..=5 if !is_http10 => {
            put(dice, &mut bytes, "Transfer-Encoding", b"chunked");
            in_chunks(dice, &data)
        }
        _ => {
            put(dice, &mut bytes, "Content-Length", data.len().to_string().as_bytes());
            data
        }
    };
    bytes.extend_from_slice(b"\r\n");
    if !has_no_body && !request.is_to_head {
        bytes.extend_from_slice(&body);
    }
    (bytes, ends)
}

const FIELDS: [(&str, &[u8]); 26] = [
    ("Content-Type", b"text/plain"),
    ("Content-Type", b"text/html; charset=utf-8"),
    ("Date", b"Sat, 01 Jan 2000 00:00:00 GMT"),
    ("Server", b"origin/1"),
    ("Set-Cookie", b"s=1; Path=/"),
    ("Set-Cookie", b"t=2; HttpOnly"),
    ("ETag", b"\"abc\""),
    ("Cache-Control", b"no-store"),
    ("Vary", b"Accept"),
    ("Location", b"/elsewhere"),
    ("X-Plain", b"value"),
    ("X-Plain", b"another"),
    ("X-Empty", b""),
    ("X-Obs", b"caf\xe9 \xff"),
    ("X-Own", b"of this hop"),
    ("Keep-Alive", b"timeout=5, max=100"),
    ("Proxy-Connection", b"keep-alive"),
    ("Proxy-Authenticate", b"Basic realm=x"),
    ("WWW-Authenticate", b"Basic realm=x"),
    ("Trailer", b"X-Trailer"),
    ("Upgrade", b"h2c, foo/2"),
    ("X-Request-Id", b"theirs"),
    ("Via", b"1.1 elsewhere"),
    ("Content-Encoding", b"gzip"),
    ("TE", b"trailers"),
    ("Bowline-Leaving", b"1"),
];
