//! What one proxy made of a case, as lines that can be laid beside another's.
//!
//! What may differ is left out or named alike here, each with its reason.

use crate::case::{Case, Step, find};
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

/// The account of a run: what matters most comes first.
pub(crate) fn account(case: &Case, run: &Run, proxy_port: u16) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut put = |about: String, seen: String| lines.push((about, seen));
    let is_fatal = |fault: &String| put("fault".into(), fault.clone());
    faults(case, run).iter().for_each(is_fatal);
    // A reason that is not ASCII is dropped by some, and clients do not look at it (RFC 9112 §4).
    let has_plain_reasons = (0..case.replies.len()).all(|n| case.replied(n).is_ascii());
    for (n, answer) in run.finals().enumerate() {
        put(format!("answer {n} status"), answer.status.to_string());
        if has_plain_reasons {
            put(format!("answer {n} reason"), text(&answer.reason));
        }
        put(format!("answer {n} fields"), fields_of_answer(answer));
        put(format!("answer {n} body"), body_of_answer(answer));
    }
    if let Some(broken) = run.client.answers.broken {
        put("answers broken".into(), broken.into());
    }
    // What is refused may not even be known to be HEAD; the connection ends behind the refusal.
    if run.finals().last().is_none_or(|last| message::all(&last.fields, "x-refused").next().is_none()) {
        put("answers rest".into(), body(run.client.answers.rest()));
    }
    put("end".into(), run.end());
    for (n, (asked, waited)) in run.asked(case).into_iter().enumerate() {
        put(format!("asked {n} line"), format!("{} {}", asked.method, text(&asked.target)));
        put(format!("asked {n} fields"), fields_of_request(asked, proxy_port));
        // Who is answered early need not send the rest (RFC 9112 §9.6 and RFC 9110 §10.1.1 speak of it as the sender's choice).
        if waited {
            put(format!("asked {n} body"), body(&asked.body));
        }
    }
    for (n, line) in run.log.iter().enumerate() {
        let failed = line.get("error.type").is_some();
        for (key, value) in &line.told {
            // How much of what failed had been moved by then is chance.
            let is_chance = match *key {
                "bytes_received" => failed || !run.waits_always(),
                "bytes_sent" => failed,
                // Whether a kept connection is seen to end before it is used, too.
                "attempts" => failed || case.ends_connections(),
                _ => false,
            };
            if !is_chance {
                put(format!("log {n} {key}"), value.clone());
            }
        }
    }
    // Whether and when interim answers come stands apart from all else, and is chance where the final one is ours.
    let is_ours = |answer: &Answer| message::all(&answer.fields, "x-mark").next().is_none();
    let interim = run.client.answers.all.iter().filter(|answer| answer.status < 200);
    for (n, answer) in interim.enumerate().filter(|_| !run.finals().any(is_ours)) {
        put(format!("interim {n}"), format!("{}\n    {}", answer.status, fields_of_answer(answer)));
    }
    lines
}

impl Run {
    /// Answers that are final.
    pub(crate) fn finals(&self) -> impl Iterator<Item = &Answer> {
        self.client.answers.all.iter().filter(|answer| answer.status >= 200)
    }

    /// Requests that came whole, or were answered before though the client sent all of them, in the order of their heads;
    /// and whether their replies waited for the whole of them. What came in part moved nobody to do anything.
    fn asked(&self, case: &Case) -> Vec<(&Request, bool)> {
        let sent = Requests::of(&case.sent()).all;
        let mut asked: Vec<_> = Vec::new();
        for heard in &self.origin {
            for (n, (request, turn)) in heard.requests.all.iter().zip(&heard.turns).enumerate() {
                let waited = heard.waited.get(n).copied().unwrap_or(true);
                if request.is_whole || !waited && sent.iter().any(|s| s.is_whole && is_same(s, request)) {
                    asked.push((*turn, request, waited));
                }
            }
        }
        asked.sort_by_key(|(turn, ..)| *turn);
        // Where connections end by themselves, who meets one that does asks again.
        if case.ends_connections() {
            asked.dedup_by(|(_, again, _), (_, first, _)| {
                (&again.method, &again.target, &again.body) == (&first.method, &first.target, &first.body)
            });
        }
        asked.into_iter().map(|(_, request, waited)| (request, waited)).collect()
    }

    pub(crate) fn waits_always(&self) -> bool {
        self.origin.iter().flat_map(|heard| &heard.waited).all(|waited| *waited)
    }

    /// How the client's connection ended. Behind an answer that was cut it does not matter how.
    fn end(&self) -> String {
        match self.finals().last() {
            Some(answer) if answer.end == BodyEnd::Cut && self.client.end != End::Never => "cut".into(),
            _ => format!("{:?}", self.client.end),
        }
    }
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
    for answer in &run.client.answers.all {
        let frames = ["content-length", "transfer-encoding"]
            .iter()
            .any(|name| message::all(&answer.fields, name).next().is_some());
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
    let told = run.log.iter().filter(|line| line.get("http.response.status_code").is_some()).count();
    let stays = !case.steps.iter().any(|step| matches!(step, Step::HalfClose | Step::Reset));
    if stays && told > run.finals().count() && run.client.answers.broken.is_none() {
        faults.push("the log tells of an answer that the client did not get".into());
    }
    for line in &run.log {
        if line.get("error.type") == Some("internal") {
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

fn is_same(sent: &Request, asked: &Request) -> bool {
    let bodies_agree =
        if asked.is_whole { sent.is_whole && sent.body == asked.body } else { sent.body.starts_with(&asked.body) };
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
    let mut faults = Vec::new();
    for raw in std::iter::once(&run.client.raw).chain(run.origin.iter().map(|heard| &heard.raw)) {
        let mut rest = &raw[..];
        while let Some(at) = find(rest, MARK) {
            let mark = &rest[at..rest.len().min(at + MARK.len() + 8)];
            rest = &rest[at + MARK.len()..];
            let is_whole = mark.len() == MARK.len() + 8 && mark[MARK.len()..].iter().all(u8::is_ascii_hexdigit);
            if is_whole && find(&own, mark).is_none() {
                faults.push(format!("bytes of another case: {}", text(mark)));
            }
        }
    }
    faults
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
    // A body that ends with the connection is as good as one in chunks, as long as it is told from a cut one; how much of
    // that had come by then is chance.
    if answer.end == BodyEnd::Cut {
        told = "cut".into();
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
