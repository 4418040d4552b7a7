//! What no honest client or origin sends.

use super::request::Planned;
use super::{cut_reply, joined};
use crate::case::{Act, Reply, find};
use crate::dice::Dice;

/// Fields that, put into a head, make it doubtful.
const REQUEST_FIELDS: [&[u8]; 56] = [
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 0x5\r\n",
    b"Content-Length: 5 5\r\n",
    b"Content-Length: \r\n",
    b"Content-Length: 99999999999999999999999\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Content-Length: 9223372036854775807\r\n",
    b"Content-Length : 5\r\n",
    b"Content_Length: 5\r\n",
    b" Content-Length: 5\r\n",
    b"Content-Length\t: 5\r\n",
    b"Content-Length\r\n",
    b"Content-Length: 1\r\n 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chunked;q=1\r\n",
    b"Transfer-Encoding: \"chunked\"\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding: chunked\x00\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Transfer-Encoding\r\n: chunked\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n",
    b"X: y\rTransfer-Encoding: chunked\r\n",
    b"X: y\r\n\tz\r\n",
    b"X: y\0z\r\n",
    b"X\0: y\r\n",
    b"X: \x7f\r\n",
    b"X: \x08\r\n",
    b": empty\r\n",
    b"no colon\r\n",
    b"X Y: z\r\n",
    b"X(: z\r\n",
    b"Host: other.test\r\n",
    b"Host: {site}.test\r\n",
    b"Host : {site}.test\r\n",
    b"Host:\r\n",
    b"Connection: close, close\r\n",
    b"Connection: keep-alive\r\nConnection: close\r\n",
    b"Connection: Host\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: 100-continue\r\nExpect: 100-continue\r\n",
    b"Trailer: Content-Length\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\nConnection: X-Forwarded-For\r\n",
];

const ANSWER_FIELDS: [&[u8]; 30] = [
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: -5\r\n",
    b"Content-Length: 5 \r\n",
    b"Content-Length: \r\n",
    b"Content-Length: 99999999999999999999999\r\n",
    b"Content-Length : 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: \r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"X: y\r\n z\r\n",
    b"X: y\0z\r\n",
    b"X: y\nZ: z\r\n",
    b"X: y\rZ: z\r\n",
    b"X: \x7f\r\n",
    b": empty\r\n",
    b"no colon\r\n",
    b"X Y: z\r\n",
    b"Connection: close\r\n",
    b"Connection: Content-Length, Transfer-Encoding\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"X-Request-Id: a\r\nX-Request-Id: b\r\n",
];

/// Makes a request doubtful.
pub(super) fn bend_request(dice: &mut Dice, request: &mut Planned) {
    let head = &mut request.head;
    match dice.below(16) {
        0..=5 => insert_field(dice, head, &REQUEST_FIELDS),
        6 => {
            let line: &[u8] = dice.of(&[
                &b"GET  /{site}/0 HTTP/1.1"[..],
                b"GET /{site}/0  HTTP/1.1",
                b"GET /{site}/0 HTTP/1.1 ",
                b" GET /{site}/0 HTTP/1.1",
                b"GET /{site}/0",
                b"GET /{site}/0 HTTP/1.2",
                b"GET /{site}/0 HTTP/2.0",
                b"GET /{site}/0 HTTP/0.9",
                b"GET /{site}/0 http/1.1",
                b"GET /{site}/0 HTTP/1.10",
                b"GET /{site}/0\tHTTP/1.1",
                b"GET\t/{site}/0 HTTP/1.1",
                b"GET /{site}/0 x HTTP/1.1",
                b"GET {site}/0 HTTP/1.1",
                b"GET http://{site}.test:80:80/{site}/0 HTTP/1.1",
                b"GET http://user@{site}.test/{site}/0 HTTP/1.1",
                b"GET http:///{site}/0 HTTP/1.1",
                b"GET ftp://{site}.test/{site}/0 HTTP/1.1",
                b"GET http://other.test/{site}/0 HTTP/1.1",
                b"OPTIONS http://{site}.test HTTP/1.1",
                b"CONNECT {site}.test:443 HTTP/1.1",
                b"CONNECT /{site}/0 HTTP/1.1",
                b"* /{site}/0 HTTP/1.1",
                b"GET * HTTP/1.1",
                b"PRI * HTTP/2.0",
                b"G\0T /{site}/0 HTTP/1.1",
                b"GET /{site}/\x7f HTTP/1.1",
                b"GET /{site}/\xff HTTP/1.1",
                b"GET /{site}/0\0 HTTP/1.1",
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMN /{site}/0 HTTP/1.1",
            ]);
            let end = find(head, b"\r\n").unwrap_or_default();
            head.splice(..end, line.iter().copied());
        }
        7 => {
            let times = dice.within(1, 60);
            insert(dice, head, &b"X-Many: 1\r\n".repeat(times));
        }
        8 => {
            let length = [7_000, 8_100, 8_192, 9_000, 70_000][dice.below(5)];
            let long = [b"X-Long: ".to_vec(), vec![b'x'; length], b"\r\n".to_vec()].concat();
            insert(dice, head, &long);
        }
        9 => line_ends(dice, head),
        10 => bytes(dice, head),
        11 | 12 if !request.body.is_empty() => chunk_syntax(dice, &mut request.body),
        13 if !request.body.is_empty() => bytes(dice, &mut request.body),
        14 if !request.body.is_empty() => {
            let end = dice.below(request.body.len());
            request.body.truncate(end);
        }
        _ => request.body.extend_from_slice(dice.of(&[
            &b"garbage"[..],
            b"\r\n",
            b"\n",
            b"0\r\n\r\n",
            b"GET /{site}/smuggled HTTP/1.1\r\nHost: {site}.test\r\n\r\n",
            b"GET /{site}/half HTTP/1.1\r\nX: ",
        ])),
    }
}

/// Makes an answer doubtful.
pub(super) fn bend_reply(dice: &mut Dice, reply: &mut Reply) {
    let mut answer = joined(reply);
    let mut end = reply.acts.contains(&Act::Fin).then_some(Act::Fin);
    match dice.below(20) {
        0..=5 => insert_field(dice, &mut answer, &ANSWER_FIELDS),
        6 | 7 => {
            let line: &[u8] = dice.of(&[
                &b"HTTP/1.1 200"[..],
                b"HTTP/1.1  200 OK",
                b"HTTP/1.1 20 OK",
                b"HTTP/1.1 2000 OK",
                b"HTTP/1.1 099 OK",
                b"HTTP/1.1 000 OK",
                b"HTTP/1.1 +20 OK",
                b"HTTP/1.1 101 Switching Protocols",
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket",
                b"HTTP/1.2 200 OK",
                b"HTTP/2.0 200 OK",
                b"HTTP/0.9 200 OK",
                b"http/1.1 200 OK",
                b"ICY 200 OK",
                b" HTTP/1.1 200 OK",
                b"HTTP/1.1\t200 OK",
                b"HTTP/1.1 200 O\0K",
                b"HTTP/1.1 200 O\rK",
                b"HTTP/1.1 200 \x7f",
                b"\r\nHTTP/1.1 200 OK",
                b"\nHTTP/1.1 200 OK",
                b"HTTP/1.1 100 Continue",
            ]);
            let end = find(&answer, b"\r\n").unwrap_or_default();
            answer.splice(..end, line.iter().copied());
        }
        8 => {
            let flood = b"HTTP/1.1 102 Processing\r\n\r\n".repeat([20, 63, 64, 65, 200][dice.below(5)]);
            answer.splice(..0, flood);
        }
        9 => {
            let times = dice.within(200, 300);
            insert(dice, &mut answer, &b"X-Many: 1\r\n".repeat(times));
        }
        10 => {
            let length = [8_000, 30_000, 60_000, 1_100_000, 1_100_000][dice.below(5)];
            let long = [b"X-Long: ".to_vec(), vec![b'x'; length], b"\r\n".to_vec()].concat();
            insert(dice, &mut answer, &long);
        }
        11 => line_ends(dice, &mut answer),
        12 => bytes(dice, &mut answer),
        13 => chunk_syntax(dice, &mut answer),
        14 | 15 => {
            // It breaks off.
            let at = dice.below(answer.len() + 1);
            answer.truncate(at);
            end = match dice.below(4) {
                0 => None,
                1 => Some(Act::Reset),
                _ => Some(Act::Fin),
            };
        }
        16 => end = Some(Act::Reset),
        _ => answer.extend_from_slice(dice.of(&[
            &b"garbage"[..],
            b"\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        ])),
    }
    reply.acts = cut_reply(dice, answer);
    reply.acts.extend(end);
}

fn insert_field(dice: &mut Dice, head: &mut Vec<u8>, fields: &[&[u8]]) {
    let field = dice.of(fields);
    insert(dice, head, field);
}

/// Puts lines somewhere between those of a head.
fn insert(dice: &mut Dice, head: &mut Vec<u8>, lines: &[u8]) {
    let end = find(head, b"\r\n\r\n").map_or(head.len(), |at| at + 2);
    let places: Vec<_> = (2..=end).filter(|at| head[..*at].ends_with(b"\r\n")).collect();
    if let Some(place) = places.get(dice.below(places.len())) {
        head.splice(place..place, lines.iter().copied());
    }
}

/// Lines that end otherwise.
fn line_ends(dice: &mut Dice, head: &mut Vec<u8>) {
    let end = find(head, b"\r\n\r\n").map_or(head.len(), |at| at + 4);
    let places: Vec<_> = (0..end).filter(|at| head[*at..].starts_with(b"\r\n")).collect();
    let ending: &[u8] = dice.of(&[&b"\n"[..], b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\n", b" \r\n", b"\0\r\n"]);
    let all = dice.percent(40);
    let chosen = dice.below(places.len());
    for (n, place) in places.into_iter().enumerate().rev() {
        if all || n == chosen {
            head.splice(place..place + 2, ending.iter().copied());
        }
    }
}

/// Any bytes anywhere.
fn bytes(dice: &mut Dice, all: &mut Vec<u8>) {
    for _ in 0..dice.within(1, 3) {
        let at = dice.below(all.len().min(2_000));
        match dice.below(4) {
            _ if all.is_empty() => return,
            0 => {
                all.remove(at);
            }
            1 => {
                let byte = dice.byte();
                all.insert(at, byte);
            }
            2 => {
                let byte = *dice.of(&[&b'\r', &b'\n', &0, &b' ', &b'\t', &b':', &b';', &b',', &b'0', &b'/', &0x80]);
                all.insert(at, byte);
            }
            _ => all[at] = dice.byte(),
        }
    }
}

/// Chunk sizes and what is about them.
fn chunk_syntax(dice: &mut Dice, body: &mut Vec<u8>) {
    // Behind the head of an answer; a request's body has none.
    let start = if body.starts_with(b"HTTP/") { find(body, b"\r\n\r\n").map_or(0, |at| at + 4) } else { 0 };
    let line_end = find(&body[start..], b"\r\n").map_or(body.len(), |at| start + at);
    let size: &[u8] = dice.of(&[
        &b"0x5"[..],
        b"-1",
        b"+5",
        b" 5",
        b"5 ",
        b"",
        b";a",
        b"g",
        b"FFFFFFFFFFFFFFFFF",
        b"FFFFFFFFFFFFFFFF",
        b"7FFFFFFFFFFFFFFF",
        b"100000000000000000000005",
        b"00000000000000000000005",
        b"5;a=\"\r\n\"",
        b"5;a\n",
        b"5\n",
        b"5\0",
        b"5;\x7f",
        b"5 5",
        b"5,",
        b"0",
        b"1",
        b"F",
    ]);
    match dice.below(6) {
        0..=2 => drop(body.splice(start..line_end, size.iter().copied())),
        3 => {
            let long = [b"5;".to_vec(), vec![b'x'; [200, 254, 255, 300, 5_000][dice.below(5)]]].concat();
            body.splice(start..line_end, long);
        }
        4 => {
            let end = body.len().saturating_sub(2);
            let trailers: &[u8] = dice.of(&[
                &b"X: y\n"[..],
                b" folded\r\n",
                b"no colon\r\n",
                b"X\0: y\r\n",
                b"X : y\r\n",
                b": y\r\n",
                b"X: \x7f\r\n",
                b"Transfer-Encoding: chunked\r\n",
            ]);
            let many = dice.percent(15);
            body.splice(end..end, trailers.repeat(if many { 3_000 } else { 1 }));
        }
        _ => {
            let end = body.len() - body.len().min(dice.within(1, 6));
            body.truncate(end);
        }
    }
}
