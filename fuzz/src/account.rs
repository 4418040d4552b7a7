//! What one proxy made of a case, as lines that can be laid beside another's.
//!
//! What may differ is left out or named alike here, each with its reason.

use crate::case::{Case, find};
use crate::client::{End, Seen};
use crate::message::{self, Answer, BodyEnd, Request, Requests};
use crate::origin::Heard;
use crate::proxy::LogLine;

/// Everything that was seen of one case behind one proxy.
pub(crate) struct Run {
    pub(crate) client: Seen,
    pub(crate) origin: Vec<Heard>,
    pub(crate) log: Vec<LogLine>,
}

/// A line: what it is about, and what was seen.
pub(crate) type Line = (String, String);

/// The account of a run.
pub(crate) fn account(case: &Case, run: &Run, proxy_port: u16) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut put = |about: String, seen: String| lines.push((about, seen));
    for (n, answer) in run.client.answers.all.iter().enumerate() {
        put(format!("answer {n} status"), answer.status.to_string());
        put(format!("answer {n} reason"), text(&answer.reason));
        put(format!("answer {n} fields"), fields_of_answer(answer));
        put(format!("answer {n} body"), body_of_answer(answer));
    }
    if let Some(broken) = run.client.answers.broken {
        put("answers broken".into(), broken.into());
    }
    put("answers rest".into(), text(run.client.answers.rest()));
    put("end".into(), format!("{:?}", run.client.end));
    for (n, asked) in run.origin.iter().flat_map(|heard| &heard.requests.all).enumerate() {
        put(format!("asked {n} line"), format!("{} {}", asked.method, text(&asked.target)));
        put(format!("asked {n} fields"), fields_of_request(asked, proxy_port));
        put(format!("asked {n} body"), body(&asked.body));
        put(format!("asked {n} whole"), asked.is_whole.to_string());
    }
    for (n, line) in run.log.iter().enumerate() {
        for (key, value) in &line.told {
            put(format!("log {n} {key}"), value.clone());
        }
    }
    for fault in faults(case, run) {
        put("fault".into(), fault);
    }
    lines
}

/// What is wrong with a run by itself, whatever the other mover did.
pub(crate) fn faults(case: &Case, run: &Run) -> Vec<String> {
    let mut faults = Vec::new();
    if run.client.end == End::Never {
        faults.push("the connection did not end within its time".into());
    }
    if let Some(broken) = run.client.answers.broken {
        faults.push(format!("the client got no HTTP: {broken}"));
    }
    for heard in &run.origin {
        if let Some(broken) = heard.requests.broken {
            faults.push(format!("the origin got no HTTP: {broken}"));
        }
        if !heard.requests.rest().is_empty() && heard.requests.broken.is_none() {
            faults.push("the origin got part of a head".into());
        }
    }
    for line in &run.log {
        if line.told.iter().any(|(key, value)| *key == "error.type" && value == "internal") {
            faults.push("the proxy says that the fault is its own".into());
        }
    }
    faults.extend(smuggled(case, run));
    faults.extend(foreign(case, run));
    faults
}

/// Every request at the origin must be one the client sent, read strictly, and in its order.
fn smuggled(case: &Case, run: &Run) -> Vec<String> {
    let sent = Requests::of(&case.sent()).all;
    let mut faults = Vec::new();
    for heard in &run.origin {
        // A connection carries requests in the order they were sent; one that was sent again may come again.
        let mut from = 0;
        for asked in &heard.requests.all {
            let place = sent[from..].iter().position(|request| is_same(request, asked));
            match place {
                Some(at) => from += at + 1,
                None => faults.push(format!("the origin was asked what nobody sent: {} {}", asked.method, text(&asked.target))),
            }
        }
    }
    faults
}

fn is_same(sent: &Request, asked: &Request) -> bool {
    let bodies_agree = if asked.is_whole { sent.is_whole && sent.body == asked.body } else { sent.body.starts_with(&asked.body) };
    sent.method == asked.method && origin_form(sent) == asked.target && bodies_agree
}

/// RFC 9112 §3.2.1 and §3.2.4: an absolute target goes on as path and query.
fn origin_form(sent: &Request) -> Vec<u8> {
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

/// Cases mark their bytes with a number of their own: nobody may see another case's.
fn foreign(case: &Case, run: &Run) -> Vec<String> {
    let mut own = case.sent();
    for act in case.replies.iter().flat_map(|reply| &reply.acts) {
        if let crate::case::Act::Send(bytes) = act {
            own.extend_from_slice(bytes);
        }
    }
    let seen = std::iter::once(&run.client.raw).chain(run.origin.iter().map(|heard| &heard.raw));
    let marks = seen.flat_map(|raw| raw.windows(MARK.len() + 8).filter(|w| w.starts_with(MARK)));
    let foreign = marks.filter(|mark| find(&own, mark).is_none());
    foreign.map(|mark| format!("bytes of another case: {}", text(mark))).collect()
}

/// Eight digits follow.
pub(crate) const MARK: &[u8] = b"case-";

/// Fields that are one connection's, or say how a body is framed: what they mean shows in what happens.
const FRAMING: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "proxy-connection"];

fn fields_of_answer(answer: &Answer) -> String {
    let mut told = Vec::new();
    for (name, value) in &answer.fields {
        // Pingora puts its own `Date` over the origin's; the lean mover leaves alone what there is (RFC 9110 §6.6.1).
        if FRAMING.contains(&name.as_str()) || name == "date" {
            continue;
        }
        let value = match name.as_str() {
            "x-request-id" => "(id)".into(),
            // The seal has a nonce.
            "set-cookie" if value.starts_with(b"bowline_") => sealed(value),
            _ => text(value),
        };
        told.push(format!("{name}: {value}"));
    }
    told.sort();
    told.join("\n    ")
}

fn sealed(cookie: &[u8]) -> String {
    let cookie = text(cookie);
    let (name, rest) = cookie.split_once('=').unwrap_or((&cookie, ""));
    let attributes = rest.split_once(';').map_or("", |(_, attributes)| attributes);
    format!("{name}=(sealed);{attributes}")
}

fn body_of_answer(answer: &Answer) -> String {
    // The proxy's own pages name the request.
    let mut told = match message::all(&answer.fields, "x-request-id").next() {
        Some(id) if !id.is_empty() && find(&answer.body, id).is_some() => {
            body(text(&answer.body).replace(&text(id), "(id)").as_bytes())
        }
        _ => body(&answer.body),
    };
    // A body that ends with the connection is as good as one in chunks, as long as it is told from a cut one.
    if answer.end == BodyEnd::Cut {
        told.push_str(" and cut");
    }
    told
}

fn fields_of_request(asked: &Request, proxy_port: u16) -> String {
    let mut told = Vec::new();
    for (name, value) in &asked.fields {
        if FRAMING.contains(&name.as_str()) {
            continue;
        }
        let value = match name.as_str() {
            "x-request-id" if is_new_id(value) => "(id)".into(),
            // The two listen on different ports.
            "x-forwarded-port" if *value == proxy_port.to_string().as_bytes() => "(port)".into(),
            _ => text(value),
        };
        told.push(format!("{name}: {value}"));
    }
    told.sort();
    told.join("\n    ")
}

fn is_new_id(value: &[u8]) -> bool {
    value.len() == 32 && value.iter().all(u8::is_ascii_hexdigit)
}

/// Bytes that a body is shown of.
const SHOWN: usize = 160;

fn body(bytes: &[u8]) -> String {
    // FNV-1a, so that long bodies that differ do not look alike.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    format!("{} bytes {hash:016x} {}", bytes.len(), text(&bytes[..bytes.len().min(SHOWN)]))
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What kind of line this is, without numbers: findings of one kind are one.
pub(crate) fn kind(about: &str) -> String {
    about.split(' ').filter(|word| word.parse::<usize>().is_err()).collect::<Vec<_>>().join(" ")
}

/// The names of the fields in a list of [`account`], for telling kinds of differences apart.
pub(crate) fn names(list: &str) -> Vec<&str> {
    list.lines().filter_map(|line| line.trim().split_once(':').map(|(name, _)| name)).collect()
}
