//! Cases by grammar: requests and the answers to them, mostly valid, some bent by [`hostile`].

mod answer;
mod hostile;
mod request;

use crate::case::{Act, Case, Reply, SITE, Step, find};
use crate::dice::Dice;

/// The case of a seed. The same seed is the same case for ever, as long as this package is not changed.
pub(crate) fn case(seed: u64) -> Case {
    let dice = &mut Dice::new(seed);
    let mark = format!("case-{:08x}", seed as u32 ^ (seed >> 32) as u32);
    let count = [1, 1, 1, 2, 2, 3, 5][dice.below(7)];
    let mut requests: Vec<_> = (0..count).map(|n| request::plan(dice, n, &mark)).collect();
    let mut replies: Vec<_> = requests.iter().map(|request| answer::reply(dice, request, &mark)).collect();
    // Three kinds: valid throughout, bent requests, bent answers.
    let bend = dice.below(10);
    if (3..7).contains(&bend) {
        for _ in 0..=dice.below(2) {
            let place = dice.below(requests.len());
            hostile::bend_request(dice, &mut requests[place]);
        }
    }
    if (6..10).contains(&bend) {
        let place = dice.below(replies.len());
        hostile::bend_reply(dice, &mut replies[place]);
    }
    let cuts = if dice.percent(15) { 0 } else { dice.below(1 << 32) as u64 };
    let mut case = Case { is_trusted: dice.percent(20), cuts, steps: Vec::new(), replies };
    let ends_with_probe = dice.percent(85);
    if ends_with_probe {
        // Asks whether the connection goes on, and ends it.
        let bytes = format!(
            "GET /{{site}}/last HTTP/1.1\r\nHost: {{site}}.test\r\nConnection: close\r\nX-Mark: {mark}\r\n\r\n"
        );
        requests.push(request::Planned { head: bytes.into_bytes(), ..request::Planned::default() });
    }
    steps(dice, &requests, &mut case.steps);
    case
}

/// How the client sends them: one after another or all at once, whole or cut, to the end or not.
fn steps(dice: &mut Dice, requests: &[request::Planned], steps: &mut Vec<Step>) {
    let is_pipelined = dice.percent(25);
    let cuts = if dice.percent(40) { dice.within(1, 4) } else { 0 };
    let mut pending = Vec::new();
    for (n, request) in requests.iter().enumerate() {
        pending.extend_from_slice(&request.head);
        if request.waits_before_body {
            send(dice, std::mem::take(&mut pending), cuts, steps);
            steps.push(Step::Pause([2, 10, 30][dice.below(3)]));
        }
        pending.extend_from_slice(&request.body);
        if !is_pipelined && n + 1 < requests.len() {
            send(dice, std::mem::take(&mut pending), cuts, steps);
            steps.push(Step::Answers(n + 1));
            if dice.percent(30) {
                steps.push(Step::Pause(5));
            }
        }
    }
    send(dice, pending, cuts, steps);
    match dice.below(40) {
        0 | 1 => steps.push(Step::HalfClose),
        2 => cut_short(dice, steps),
        _ => {}
    }
}

fn send(dice: &mut Dice, bytes: Vec<u8>, cuts: usize, steps: &mut Vec<Step>) {
    let mut places: Vec<_> = (0..cuts).map(|_| dice.below(bytes.len())).collect();
    // The name of a site is put in later, in one piece.
    let is_within =
        |at: usize| find(&bytes[at.saturating_sub(SITE.len() - 1)..bytes.len().min(at + SITE.len() - 1)], SITE);
    places.retain(|at| is_within(*at).is_none());
    places.sort_unstable();
    places.dedup();
    let mut from = 0;
    for place in places {
        if place > from {
            steps.push(Step::Send(bytes[from..place].to_vec()));
            steps.push(Step::Pause([0, 1, 3, 10][dice.below(4)]));
            from = place;
        }
    }
    steps.push(Step::Send(bytes[from..].to_vec()));
}

/// The client ends somewhere within what it meant to say.
fn cut_short(dice: &mut Dice, steps: &mut Vec<Step>) {
    let sends: Vec<_> = (0..steps.len()).filter(|at| matches!(steps[*at], Step::Send(_))).collect();
    let place = sends[dice.below(sends.len())];
    steps.truncate(place + 1);
    if let Some(Step::Send(bytes)) = steps.last_mut() {
        bytes.truncate(dice.below(bytes.len() + 1));
    }
    steps.push(Step::Pause([0, 5, 20][dice.below(3)]));
    steps.push(if dice.percent(60) { Step::HalfClose } else { Step::Reset });
}

/// Cuts what an origin sends.
fn cut_reply(dice: &mut Dice, bytes: Vec<u8>) -> Vec<Act> {
    let mut steps = Vec::new();
    let cuts = if dice.percent(40) { dice.within(1, 3) } else { 0 };
    send(dice, bytes, cuts, &mut steps);
    let acts = steps.into_iter().map(|step| match step {
        Step::Send(bytes) => Act::Send(bytes),
        Step::Pause(ms) => Act::Pause(ms),
        _ => Act::Pause(0),
    });
    acts.collect()
}

/// All bytes of a reply.
fn joined(reply: &Reply) -> Vec<u8> {
    let pieces = reply.acts.iter().filter_map(|act| if let Act::Send(bytes) = act { Some(&bytes[..]) } else { None });
    pieces.collect::<Vec<_>>().concat()
}

/// A body: its length and how it looks.
fn content(dice: &mut Dice, mark: &str, longest: usize) -> Vec<u8> {
    let length = match dice.below(48) {
        0..=3 => 0,
        4..=19 => dice.within(1, 40),
        20..=39 => dice.within(1, 1_200),
        40..=44 => dice.within(1_000, 9_000),
        45 | 46 => dice.within(9_000, 70_000),
        _ => dice.within(70_000, 300_000),
    };
    let mut bytes = format!("{mark} ").into_bytes();
    if dice.percent(20) {
        bytes.extend_from_slice(b"\r\n\r\nGET /{site}/inner HTTP/1.1\r\nHost: {site}.test\r\n\r\n0\r\n\r\n");
    }
    bytes.resize(length.min(longest), b'a' + dice.below(26) as u8);
    bytes
}

/// The same in chunks.
fn in_chunks(dice: &mut Dice, content: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), content);
    while !rest.is_empty() {
        let longest = if rest.len() > 20_000 { rest.len() } else { rest.len().min(4_000) };
        let (chunk, behind) = rest.split_at(dice.within(1, longest));
        let size = match dice.below(8) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("{:05x}", chunk.len()),
            2 => format!("{:x};a=b", chunk.len()),
            3 => format!("{:x} ; a=\"b c\"", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        bytes.extend_from_slice(size.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = behind;
    }
    bytes.extend_from_slice(dice.of(&[&b"0\r\n"[..], b"0\r\n", b"0\r\n", b"000\r\n", b"0;last\r\n"]));
    if dice.percent(20) {
        bytes.extend_from_slice(dice.of(&[&b"X-Trailer: 1\r\n"[..], b"X-T: 1\r\nX-U:\r\n", b"Content-Length: 5\r\n"]));
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Writes a field in some case and with some blanks.
fn put(dice: &mut Dice, out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let name = match dice.below(6) {
        0 => name.to_ascii_lowercase(),
        1 => name.to_ascii_uppercase(),
        _ => name.to_owned(),
    };
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(dice.of(&[&b": "[..], b": ", b": ", b":", b":  ", b":\t"]));
    out.extend_from_slice(value);
    out.extend_from_slice(dice.of(&[&b"\r\n"[..], b"\r\n", b"\r\n", b"\r\n", b" \r\n", b"\t\r\n"]));
}
