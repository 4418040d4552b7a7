//! What the proxy made of a case in one lane, as lines that can be laid beside another's.
//!
//! What may differ is left out or named alike here, each with its reason.

use crate::case::{Case, find, rename};
use crate::client::{End, Seen};
use crate::faults::is_same;
use crate::fidelity::{fits, is_own};
use crate::lane::Lane;
use crate::message::{self, Answer, BodyEnd, Field, Request, Requests};
use crate::origin::{Given, Heard};
use crate::proxy::LogLine;

/// Everything that was seen of one case in one lane.
pub(crate) struct Run {
    pub(crate) lane: Lane,
    /// Of the proxy.
    pub(crate) port: u16,
    /// The client ends its side, or resets.
    pub(crate) client_leaves: bool,
    /// Both sides have left HTTP: what they said there is not here.
    pub(crate) has_switched: bool,
    pub(crate) client: Seen,
    pub(crate) origin: Vec<Heard>,
    pub(crate) log: Vec<LogLine>,
}

/// A line: what it is about, and what was seen.
pub(crate) type Line = (String, String);

/// The account of so many exchanges of a run: what matters most comes first.
pub(crate) fn account(case: &Case, run: &Run, exchanges: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut put = |about: String, seen: String| lines.push((about, seen));
    let sent = Requests::of(&case.sent()).all;
    for (n, answer) in run.finals().enumerate().take(exchanges) {
        // Where a second backend was asked, what the proxy remembers of the client decides whether it goes on there.
        let times = sent.get(n).map_or(0, |sent| run.given_to(sent).len());
        let binds = times < 2;
        put(format!("answer {n} status"), answer.status.to_string());
        // HTTP/2 has none.
        if run.lane != Lane::H2 {
            put(format!("answer {n} reason"), text(&answer.reason));
        }
        put(format!("answer {n} fields"), fields_of_answer(case, answer, binds));
        put(format!("answer {n} body"), body_of_answer(answer));
        // Attempts that met a connection which had just ended are chance: so it is counted what origins took up.
        if !is_own(answer) && answer.end != BodyEnd::Cut && !case.ends_connections() {
            put(format!("answer {n} attempts"), times.to_string());
        }
    }
    // How a connection goes on and ends is HTTP/1's; the client of HTTP/2 asks what was answered there and leaves.
    if run.lane != Lane::H2 {
        if let Some(broken) = run.client.answers.broken {
            put("answers broken".into(), broken.into());
        }
        // What is refused may not even be known to be HEAD; the connection ends behind the refusal.
        if run.finals().last().is_none_or(|last| message::all(&last.fields, "x-refused").next().is_none()) {
            put("answers rest".into(), body(run.client.answers.rest()));
        }
        put("end".into(), run.end());
    }
    for (n, (asked, waited)) in run.asked(case, exchanges).into_iter().enumerate() {
        put(format!("asked {n} line"), format!("{} {}", asked.method, text(&asked.target)));
        put(format!("asked {n} fields"), fields_of_request(case, asked, run));
        // Who is answered early need not send the rest (RFC 9112 §9.6 and RFC 9110 §10.1.1 speak of it as the sender's choice).
        if waited {
            put(format!("asked {n} body"), body(&asked.body));
        }
    }
    for (n, line) in run.log.iter().enumerate().take(exchanges) {
        let is_early = sent.get(n).is_none_or(|sent| run.is_answered_early(sent));
        let failed = line.get("error.type").is_some();
        for (key, value) in &line.told {
            // How much of what failed had been moved by then is chance.
            let is_chance = match *key {
                "bytes_received" => failed || is_early,
                "bytes_sent" => failed,
                _ => false,
            };
            if !is_chance {
                put(format!("log {n} {key}"), value.clone());
            }
        }
    }
    // Whether and when interim answers come stands apart from all else, and is chance where the final one is ours.
    let finals = run.finals().take(exchanges).count();
    let mut left = finals;
    let within = run.client.answers.all.iter().take_while(|answer| {
        let is_within = left > 0 || exchanges == usize::MAX;
        left -= usize::from(answer.status >= 200 && left > 0);
        is_within
    });
    let interim = within.filter(|answer| answer.status < 200);
    for (n, answer) in interim.enumerate().filter(|_| !run.finals().take(finals).any(is_own)) {
        put(format!("interim {n}"), format!("{}\n    {}", answer.status, fields_of_answer(case, answer, true)));
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
    fn asked(&self, case: &Case, exchanges: usize) -> Vec<(&Request, bool)> {
        let sent = Requests::of(&case.sent()).all;
        let is_beyond = |asked| exchanges < sent.len() && !sent[..exchanges].iter().any(|s| is_same(s, asked));
        let mut asked: Vec<_> = Vec::new();
        for heard in &self.origin {
            for (n, (request, turn)) in heard.requests.all.iter().zip(&heard.turns).enumerate() {
                if is_beyond(request) {
                    continue;
                }
                let waited = heard.given.get(n).is_none_or(|given| given.waited);
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

    /// Which replies of the script were given to a request of the client.
    pub(crate) fn given_to(&self, sent: &Request) -> Vec<usize> {
        self.given(sent).map(|given| given.number).collect()
    }

    /// Some reply to it did not wait for the whole of it.
    fn is_answered_early(&self, sent: &Request) -> bool {
        self.given(sent).any(|given| !given.waited)
    }

    fn given(&self, sent: &Request) -> impl Iterator<Item = &Given> {
        let pairs = self.origin.iter().flat_map(|heard| heard.requests.all.iter().zip(&heard.given));
        pairs.filter(|(asked, _)| is_same(sent, asked)).map(|(_, given)| given)
    }

    pub(crate) fn waits_always(&self) -> bool {
        self.origin.iter().flat_map(|heard| &heard.given).all(|given| given.waited)
    }

    /// How the client's connection ended. Behind an answer that was cut it does not matter how.
    fn end(&self) -> String {
        match self.finals().last() {
            Some(answer) if answer.end == BodyEnd::Cut && self.client.end != End::Never => "cut".into(),
            _ => format!("{:?}", self.client.end),
        }
    }

    /// Lanes with another origin have another name for the site; the same name is put everywhere. `sent` is what the client sent,
    /// with the lane's.
    pub(crate) fn renamed(mut self, from: &str, to: &str, sent: &[u8]) -> Self {
        // A length that ends within a name leaves the rest of it to the method behind.
        let renamed_method = |method: &str| {
            (1..from.len()).find_map(|kept| {
                let rest = method.strip_prefix(&from[kept..])?;
                find(sent, format!("{from}{rest} ").as_bytes()).map(|_| format!("{}{rest}", &to[kept..]))
            })
        };
        let (from_bytes, to_bytes) = (from.as_bytes(), to.as_bytes());
        let rename_fields = |fields: &mut Vec<Field>| {
            for (_, value) in fields {
                rename(value, from_bytes, to_bytes);
            }
        };
        rename(&mut self.client.raw, from_bytes, to_bytes);
        rename(self.client.answers.rest_mut(), from_bytes, to_bytes);
        for answer in &mut self.client.answers.all {
            rename(&mut answer.body, from_bytes, to_bytes);
            rename_fields(&mut answer.fields);
        }
        for heard in &mut self.origin {
            rename(&mut heard.raw, from_bytes, to_bytes);
            for request in &mut heard.requests.all {
                if let Some(method) = renamed_method(&request.method) {
                    request.method = method;
                }
                rename(&mut request.target, from_bytes, to_bytes);
                rename(&mut request.body, from_bytes, to_bytes);
                rename_fields(&mut request.fields);
            }
        }
        for (_, value) in self.log.iter_mut().flat_map(|line| &mut line.told) {
            *value = renamed_method(value).unwrap_or_else(|| value.replace(from, to));
        }
        self
    }
}

/// Fields that are one connection's, or say how a body is framed: what they mean shows in what happens.
const FRAMING: [&str; 5] = ["connection", "keep-alive", "transfer-encoding", "proxy-connection", "upgrade"];

fn fields_of_answer(case: &Case, answer: &Answer, binds: bool) -> String {
    let mut told = Vec::new();
    for (name, value) in &answer.fields {
        if FRAMING.contains(&name.as_str()) {
            continue;
        }
        let value = match name.as_str() {
            "x-request-id" => "(id)".into(),
            // The proxy puts one where there is none.
            "date" if !(0..case.replies.len()).any(|n| find(&case.replied(n), value).is_some()) => "(now)".into(),
            "set-cookie" if value.starts_with(b"bowline_") && !binds => continue,
            // The seal has a nonce.
            "set-cookie" if value.starts_with(b"bowline_") => sealed(value),
            _ => text(value),
        };
        told.push(format!("{name}: {value}"));
    }
    told.sort();
    told.join("\n    ")
}

/// Only cookies that came over TLS are `Secure`.
fn sealed(cookie: &[u8]) -> String {
    let cookie = text(cookie);
    let (name, rest) = cookie.split_once('=').unwrap_or((&cookie, ""));
    let attributes = rest.split_once(';').map_or("", |(_, attributes)| attributes);
    format!("{name}=(sealed);{}", attributes.replace("; Secure", ""))
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

fn fields_of_request(case: &Case, asked: &Request, run: &Run) -> String {
    let (scheme, port) = (if run.lane.is_tls() { "https" } else { "http" }, run.port.to_string());
    // Of a trusted client the proxy keeps what it says.
    let sent = Requests::of(&case.sent()).all;
    let says = |name: &str| {
        case.is_trusted && sent.iter().any(|s| fits(true, s, asked) && message::all(&s.fields, name).next().is_some())
    };
    let mut told = Vec::new();
    for (name, value) in &asked.fields {
        if FRAMING.contains(&name.as_str()) {
            continue;
        }
        let value = match name.as_str() {
            "x-request-id" if is_new_id(value) => "(id)".into(),
            // Listeners have different ports and schemes.
            "x-forwarded-port" if *value == port.as_bytes() => "(port)".into(),
            "x-forwarded-proto" if *value == scheme.as_bytes() && !says("x-forwarded-proto") => "(scheme)".into(),
            "forwarded" => with_any_scheme(&text(value), scheme),
            // A host has no case (RFC 9110 §4.2.3); HTTP/2 says it once, an absolute target beside the field.
            "host" => text(value).to_ascii_lowercase(),
            _ => text(value),
        };
        told.push(format!("{name}: {value}"));
    }
    told.sort();
    told.join("\n    ")
}

/// Without the scheme in the last element, which is the proxy's.
fn with_any_scheme(forwarded: &str, scheme: &str) -> String {
    let said = format!(";proto={scheme}");
    match forwarded.rfind(&said) {
        Some(at) => format!("{};proto=(scheme){}", &forwarded[..at], &forwarded[at + said.len()..]),
        None => forwarded.to_owned(),
    }
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

/// Bytes as people can read them.
pub(crate) fn text(bytes: &[u8]) -> String {
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
