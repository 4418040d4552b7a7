//! What is wrong with one run by itself, whatever came of the case in other lanes.

use crate::account::{Run, text};
use crate::case::{Act, Case, find};
use crate::client::End;
use crate::fidelity;
use crate::lane::Lane;
use crate::message::{Answers, Request, Requests, all};
use crate::proxy::LogLine;

/// All that is wrong with a run.
pub(crate) fn faults(case: &Case, run: &Run) -> Vec<String> {
    let mut faults = Vec::new();
    if run.client.end == End::Never {
        faults.push("the connection did not end within its time".into());
    }
    for line in &run.log {
        if line.get("error.type") == Some("internal") {
            faults.push("the proxy says that the fault is its own".into());
        }
    }
    faults.extend(foreign(case, run));
    let sent = Requests::of(&case.sent()).all;
    if !run.has_switched && run.client.answers.all.iter().any(|answer| answer.status == 101) {
        faults.push("a client was let out of HTTP that had not asked for it, or to whom no origin said so".into());
    }
    if let Some(broken) = run.client.answers.broken {
        faults.push(format!("the client got no HTTP: {broken}"));
    }
    for answer in &run.client.answers.all {
        let frames =
            ["content-length", "transfer-encoding"].iter().any(|name| all(&answer.fields, name).next().is_some());
        // RFC 9110 §8.6 and RFC 9112 §6.1.
        if frames && (answer.status < 200 || answer.status == 204) {
            faults.push("an answer that has no body frames one".into());
        }
    }
    for heard in &run.origin {
        if let Some(broken) = heard.requests.broken {
            faults.push(format!("the origin got no HTTP: {broken}"));
        }
        if !heard.requests.rest().is_empty() && heard.requests.broken.is_none() {
            faults.push("the origin got part of a head".into());
        }
    }
    // A stream of HTTP/2 that is cut may take back what is still on its way.
    let counts = |line: &&LogLine| run.lane != Lane::H2 || line.get("error.type").is_none();
    let is_final = |line: &&LogLine| line.get("http.response.status_code").is_some_and(|status| status != "101");
    let told = run.log.iter().filter(is_final).filter(counts).count();
    if !run.client_leaves && told > run.finals().count() && run.client.answers.broken.is_none() {
        faults.push("the log tells of an answer that the client did not get".into());
    }
    faults.extend(smuggled(&sent, run));
    faults.extend(repeated(&sent, run));
    faults.extend(refused(&sent, run));
    faults.extend(fidelity::requests(case, run));
    faults.extend(fidelity::answers(case, run));
    faults
}

/// Every request at the origin must be one the client sent, read strictly, and in its order.
fn smuggled(sent: &[Request], run: &Run) -> Vec<String> {
    let mut faults = Vec::new();
    for heard in &run.origin {
        // A connection carries requests in the order they were sent; one that was sent again may come again.
        let mut from = 0;
        for asked in &heard.requests.all {
            let place = sent[from..].iter().position(|request| is_same(request, asked));
            match place {
                Some(at) => from += at + 1,
                None => faults.push(format!(
                    "the origin was asked what nobody sent: {} {}",
                    asked.method,
                    text(&asked.target)
                )),
            }
        }
    }
    faults
}

/// How often what may be repeated may come: attempts of the pool, and once more where a kept connection had ended.
const TIMES_MAX: usize = 3;

/// What changes something comes as often as it was sent; what changes nothing may be asked again, within bounds.
fn repeated(sent: &[Request], run: &Run) -> Option<String> {
    // An origin that has ended its side takes nothing up.
    let taken = run.origin.iter().flat_map(|heard| heard.requests.all.iter().zip(&heard.given));
    let asked: Vec<_> = taken.map(|(request, _)| request).collect();
    for request in sent {
        let times = sent.iter().filter(|other| is_like(other, request)).count();
        let came = asked.iter().filter(|asked| is_same(request, asked)).count();
        let is_safe = ["GET", "HEAD"].contains(&&*request.method) && request.is_whole && request.body.is_empty();
        if came > times * if is_safe { TIMES_MAX } else { 1 } {
            return Some(format!("the origin was asked {came} times: {} {}", request.method, text(&request.target)));
        }
    }
    None
}

/// They ask for the same, whatever they bring.
pub(crate) fn is_like(one: &Request, other: &Request) -> bool {
    one.method == other.method && origin_form(one) == origin_form(other)
}

/// Nothing of what was refused for its form, or came behind it, reaches the origin.
fn refused(sent: &[Request], run: &Run) -> Option<String> {
    let at = run.finals().position(|answer| all(&answer.fields, "x-refused").next().is_some())?;
    let before = &sent[..at.min(sent.len())];
    let asked = run.origin.iter().flat_map(|heard| &heard.requests.all);
    let seen = asked.into_iter().find(|asked| !before.iter().any(|request| is_same(request, asked)))?;
    Some(format!("the origin was asked what was refused: {} {}", seen.method, text(&seen.target)))
}

/// Whether what the origin was asked, as far as it came, is what was sent.
pub(crate) fn is_same(sent: &Request, asked: &Request) -> bool {
    let bodies_agree =
        if asked.is_whole { sent.is_whole && sent.body == asked.body } else { sent.body.starts_with(&asked.body) };
    sent.method == asked.method && origin_form(sent) == asked.target && bodies_agree
}

/// RFC 9112 §3.2.1 and §3.2.4: an absolute target goes on as path and query.
pub(crate) fn origin_form(sent: &Request) -> Vec<u8> {
    let target = &sent.target;
    if target.starts_with(b"/") || target == b"*" {
        return target.clone();
    }
    let Some(scheme_end) = find(target, b"://") else { return target.clone() };
    let rest = &target[scheme_end + 3..];
    match rest.iter().position(|b| matches!(b, b'/' | b'?')) {
        None => b"/".to_vec(),
        Some(at) if rest[at] == b'?' => [b"/", &rest[at..]].concat(),
        Some(at) => rest[at..].to_vec(),
    }
}

/// What stands there of an absolute target.
pub(crate) fn authority(target: &[u8]) -> Option<&[u8]> {
    let rest = &target[find(target, b"://").filter(|_| !target.starts_with(b"/"))? + 3..];
    Some(&rest[..rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len())])
}

/// Cases mark their bytes with a number of their own: nobody may see another case's.
fn foreign(case: &Case, run: &Run) -> Vec<String> {
    let mut own = case.sent();
    // A mark may be in several chunks.
    for request in Requests::of(&case.sent()).all {
        own.extend_from_slice(&request.body);
    }
    for number in 0..case.replies.len() {
        let mut answers = Answers::new(Vec::new());
        answers.feed(&case.replied(number));
        for answer in answers.all {
            own.extend_from_slice(&answer.body);
        }
    }
    for act in case.replies.iter().flat_map(|reply| &reply.acts) {
        if let Act::Send(bytes) = act {
            own.extend_from_slice(bytes);
        }
    }
    let mut faults = Vec::new();
    for raw in std::iter::once(&run.client.raw).chain(run.origin.iter().map(|heard| &heard.raw)) {
        let mut rest = &raw[..];
        while let Some(at) = find(rest, MARK) {
            let mark = &rest[at..rest.len().min(at + MARK.len() + 8)];
            rest = &rest[at + MARK.len()..];
            let is_whole = mark.len() == MARK.len() + 8
                && mark[MARK.len()..].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if is_whole && find(&own, mark).is_none() {
                faults.push(format!("bytes of another case: {}", text(mark)));
            }
        }
    }
    faults
}

/// Eight digits follow, letters among them small: of a mark that is cut the next request makes no other.
const MARK: &[u8] = b"case-";
