//! What goes through the proxy comes out as it went in, but for what is one connection's and what the proxy says itself.

use crate::account::{Run, text};
use crate::case::{Act, Case, find};
use crate::client::End;
use crate::faults::{authority, is_same};
use crate::lane::Lane;
use crate::message::{Answer, Answers, BodyEnd, Field, Request, Requests, all};
use crate::switch;

/// Fields of requests that are one connection's (RFC 9110 §7.6.1), and those whose promise ends with it.
const HOP_OF_REQUESTS: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// The same of answers. `Upgrade` is more than that in a 426.
const HOP_OF_ANSWERS: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"];

/// What the proxy says of a request's way.
const SAID_OF_REQUESTS: [&str; 5] = ["forwarded", "x-real-ip", "x-request-id", "x-rsc-request", "host"];

/// Named by `Connection`, these go on all the same: whoever could take them away could change what is asked.
const NEVER_NOMINATED: [&str; 9] = [
    "authorization",
    "cookie",
    "forwarded",
    "host",
    "set-cookie",
    "transfer-encoding",
    "x-real-ip",
    "x-request-id",
    "x-rsc-request",
];

/// What `Connection` names.
pub(crate) fn nominations(fields: &[Field]) -> impl Iterator<Item = &[u8]> {
    all(fields, "connection").flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// Whether `Connection` takes this field away, the name being in lower case.
pub(crate) fn is_nominated(fields: &[Field], name: &str) -> bool {
    let is_kept = NEVER_NOMINATED.contains(&name) || name.starts_with("content-") || is_account(name);
    !is_kept && nominations(fields).any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
}

/// Identities that servers of content take from whoever is in front of them.
const IDENTITY: [&str; 7] = [
    "posit-connect-user-session-token",
    "rstudio-connect-app-base-url",
    "rstudio-connect-credentials",
    "shiny-server-credentials",
    "x-auth-username",
    "x-forwarded-user",
    "x-remote-user",
];

/// Says who somebody is or which way a request came; only a trusted peer may.
fn is_account(name: &str) -> bool {
    name.starts_with("x-forwarded-") || IDENTITY.contains(&name)
}

/// Servers that turn `-` into `_` would take it for one of those the proxy says.
fn is_alias(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    dashed != name && (is_account(&dashed) || SAID_OF_REQUESTS.contains(&dashed.as_str()))
}

/// Whether the origin may have been asked this for that.
pub(crate) fn fits(is_trusted: bool, sent: &Request, asked: &Request) -> bool {
    is_same(sent, asked) && request(is_trusted, sent, asked).is_none()
}

/// What went wrong with the fields of requests on their way to the origin.
pub(crate) fn requests(case: &Case, run: &Run) -> Vec<String> {
    let sent = Requests::of(&case.sent()).all;
    let mut faults = Vec::new();
    for asked in run.origin.iter().flat_map(|heard| &heard.requests.all) {
        if asked.has_extras {
            faults.push("chunk extensions or trailers went to the origin".into());
        }
        // Whatever nobody sent is told of elsewhere.
        let sources: Option<Vec<_>> =
            sent.iter().filter(|sent| is_same(sent, asked)).map(|sent| request(case.is_trusted, sent, asked)).collect();
        faults.extend(sources.and_then(|mut all| all.pop()));
    }
    faults
}

fn request(is_trusted: bool, sent: &Request, asked: &Request) -> Option<String> {
    let says_so = all(&asked.fields, "connection").all(|value| value.eq_ignore_ascii_case(b"upgrade"));
    // It asks for another protocol, which it then is told by: those fields are not for the proxy alone.
    let leaves_http = says_so && switch::asks(sent);
    let is_hop =
        |name: &str| HOP_OF_REQUESTS.contains(&name) && !(leaves_http && matches!(name, "connection" | "upgrade"));
    let hop = asked.fields.iter().find(|(name, _)| is_hop(name));
    if let Some((name, _)) = hop {
        return Some(format!("a field of one connection went to the origin: {name}"));
    }
    let leaves = |name: &str| {
        HOP_OF_REQUESTS.contains(&name)
            || SAID_OF_REQUESTS.contains(&name)
            || ["cookie", "transfer-encoding"].contains(&name)
            || is_account(name)
    };
    let passes = |name: &str| !leaves(name) && !is_nominated(&sent.fields, name) && !is_alias(name);
    let wanted = sorted(sent.fields.iter().filter(|(name, _)| passes(name)));
    let came = sorted(asked.fields.iter().filter(|(name, _)| !leaves(name)));
    if wanted != came {
        return Some(format!("fields changed on the way to the origin: {}", first_difference(&wanted, &came)));
    }
    let cookies = |request: &Request| {
        all(&request.fields, "cookie").collect::<Vec<_>>().join(&b"; "[..]).trim_ascii_end().to_vec()
    };
    if cookies(sent) != cookies(asked) || all(&asked.fields, "cookie").count() > 1 {
        return Some("cookies changed on the way to the origin".into());
    }
    // RFC 9112 §3.2.2: the host is the target's, where that has one; HTTP/1.0 need not have any.
    let host = authority(&sent.target).or_else(|| all(&sent.fields, "host").next()).unwrap_or_default();
    if !all(&asked.fields, "host").any(|asked| asked.eq_ignore_ascii_case(host)) {
        return Some("the origin was asked for another host".into());
    }
    // What only a trusted peer may say is the proxy's word otherwise, and there once.
    let accounts = asked.fields.iter().filter(|(name, _)| is_account(name));
    for (name, value) in accounts.filter(|_| !is_trusted) {
        let is_ours = match name.as_str() {
            "x-forwarded-for" => value == b"127.0.0.1",
            "x-forwarded-proto" => matches!(&value[..], b"http" | b"https"),
            "x-forwarded-port" => !value.is_empty() && value.iter().all(u8::is_ascii_digit),
            "x-forwarded-host" => all(&asked.fields, "host").any(|host| host.eq_ignore_ascii_case(value)),
            _ => false,
        };
        if !is_ours || all(&asked.fields, name).count() > 1 {
            return Some(format!("nobody trusted said this to the origin: {name}"));
        }
    }
    None
}

/// What went wrong with answers on their way to the client.
pub(crate) fn answers(case: &Case, run: &Run) -> Vec<String> {
    let sent = Requests::of(&case.sent()).all;
    let mut faults = Vec::new();
    for came in &run.client.answers.all {
        let hop = came.fields.iter().find(|(name, _)| HOP_OF_ANSWERS[1..].contains(&name.as_str()));
        if let Some((name, _)) = hop.filter(|(name, _)| name != "upgrade" || ![101, 426].contains(&came.status)) {
            faults.push(format!("a field of one connection went to the client: {name}"));
        }
    }
    for (n, came) in run.finals().enumerate() {
        if came.has_extras {
            faults.push("chunk extensions or trailers went to the client".into());
        }
        if all(&came.fields, "x-request-id").count() != 1 {
            faults.push("an answer without exactly one X-Request-Id".into());
        }
        // What is refused before it is a request is answered all the same, and nothing behind it.
        let Some(asked) = sent.get(n) else {
            if n > sent.len() || !is_own(came) {
                faults.push("an answer to what nobody asked".into());
            }
            continue;
        };
        let numbers = run.given_to(asked);
        let replies: Vec<_> = numbers.iter().filter_map(|number| Reply::of(case, *number, asked)).collect();
        if is_own(came) {
            // Whoever says that it cannot serve is not passed on while another may be asked.
            let counts = |reply: &&Reply| numbers.len() < 2 || !(502..=504).contains(&reply.answer.status);
            faults
                .extend(replies.iter().filter(counts).filter_map(|reply| reply.unjustly_refused(case, run, n, asked)));
        } else if numbers.is_empty() {
            faults.push("an answer that no origin gave to this".into());
        } else if replies.len() == numbers.len() {
            // It is one of those that were given: if none fits, the last.
            let mismatches: Option<Vec<_>> = replies.iter().map(|reply| reply.mismatch(run, asked, came)).collect();
            faults.extend(mismatches.and_then(|mut all| all.pop()));
        }
    }
    faults
}

/// Whether the proxy says it itself: origins mark theirs.
pub(crate) fn is_own(answer: &Answer) -> bool {
    all(&answer.fields, "x-mark").next().is_none()
}

/// An answer as the origin gave it, to the letter.
struct Reply {
    answer: Answer,
    interims: usize,
    /// All of it was sent.
    is_whole: bool,
    is_reset: bool,
    /// Some head before it or its own is larger than the proxy takes.
    is_large: bool,
}

/// Bounds of the proxy below which an answer is taken: bytes of a head, fields, answers before the final one.
const HEAD_MAX: usize = 60 << 10;
const FIELDS_MAX: usize = 256;
const INTERIMS_MAX: usize = 64;

impl Reply {
    /// `None`: it cannot be read, or what an earlier one had behind it may have come in its place.
    fn of(case: &Case, number: usize, asked: &Request) -> Option<Self> {
        let read = |number, to_head| {
            let mut answers = Answers::new(vec![to_head]);
            answers.feed(&case.replied(number));
            answers
        };
        let some_head = Requests::of(&case.sent()).all.iter().any(|request| request.method == "HEAD");
        if (0..number).any(|earlier| has_more(&read(earlier, false)) || some_head && has_more(&read(earlier, true))) {
            return None;
        }
        let answers = read(number, asked.method == "HEAD");
        let at = answers.all.iter().position(|answer| answer.status >= 200)?;
        let is_large = answers.all[..=at].iter().any(|answer| {
            answer.fields.len() > FIELDS_MAX
                || answer.fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() > HEAD_MAX
        });
        let answer = answers.all.into_iter().nth(at)?;
        let acts = case.replies.get(number).map(|reply| &reply.acts[..]).unwrap_or_default();
        let is_whole = match answer.end {
            BodyEnd::Whole => true,
            BodyEnd::Open => acts.contains(&Act::Fin),
            BodyEnd::Cut => false,
        };
        Some(Self { answer, interims: at, is_whole, is_reset: acts.contains(&Act::Reset), is_large })
    }

    /// How what came differs from it; `None`: not at all.
    fn mismatch(&self, run: &Run, asked: &Request, came: &Answer) -> Option<String> {
        let own = &self.answer;
        // HTTP/2 has no reasons and no upgrades (RFC 9113 §8.2.2).
        let is_h2 = run.lane == Lane::H2;
        if own.status != came.status || own.reason != came.reason && !is_h2 {
            return Some("an answer has another status than at the origin".into());
        }
        let is_offer = |name: &str| name == "upgrade" && own.status == 426 && !is_h2;
        let leaves = |name: &str| {
            HOP_OF_ANSWERS.contains(&name) && !is_offer(name) || ["transfer-encoding", "x-request-id"].contains(&name)
        };
        let is_idle = |name: &str| own.status == 204 && name == "content-length";
        let passes = |name: &str| is_offer(name) || !leaves(name) && !is_idle(name) && !is_nominated(&own.fields, name);
        let wanted = sorted(own.fields.iter().filter(|(name, _)| passes(name)));
        let has_date = all(&own.fields, "date").next().is_some();
        let is_added = |(name, value): &&Field| {
            name == "set-cookie" && value.starts_with(b"bowline_") || name == "date" && !has_date
        };
        let fields = sorted(came.fields.iter().filter(|field| !leaves(&field.0) && !is_added(field)));
        if wanted != fields {
            return Some(format!("fields changed on the way to the client: {}", first_difference(&wanted, &fields)));
        }
        let is_over = match came.end {
            BodyEnd::Whole => true,
            // The end of the connection is all that tells HTTP/1.0 (RFC 9112 §8).
            BodyEnd::Open => run.client.end == End::Fin,
            BodyEnd::Cut => false,
        };
        if !own.body.starts_with(&came.body) {
            return Some("the body of an answer is not the origin's".into());
        }
        let is_short = !self.is_whole || came.body.len() < own.body.len();
        if is_over && is_short && !run.client_leaves {
            return Some("half an answer looks like a whole one".into());
        }
        let stays = !run.client_leaves && !self.is_reset && asked.is_whole && run.waits_always();
        if !is_over && self.is_whole && stays && !own.has_extras && came.end == BodyEnd::Cut {
            return Some("a whole answer was cut".into());
        }
        None
    }

    /// A good answer to a good request that nobody passed on.
    fn unjustly_refused(&self, case: &Case, run: &Run, n: usize, asked: &Request) -> Option<String> {
        let why = run.log.get(n)?.get("error.type")?;
        let is_bounded = self.interims <= INTERIMS_MAX && !self.is_large;
        let is_good = self.is_whole && !self.is_reset && !self.answer.has_extras && is_bounded;
        let is_switch = (0..case.replies.len()).any(|number| find(&case.replied(number), b" 101 ").is_some());
        let blames = ["upstream_invalid", "upstream_closed", "upstream_timeout"].contains(&why);
        (is_good && !is_switch && asked.is_whole && run.waits_always() && blames && !case.ends_connections())
            .then(|| format!("a good answer was refused: {why}"))
    }
}

/// Bytes behind the answer, or something that is none.
fn has_more(answers: &Answers) -> bool {
    answers.broken.is_some() || !answers.rest().is_empty() || answers.finals() != 1
}

/// By name; what has the same name stays in order.
fn sorted<'a>(fields: impl Iterator<Item = &'a Field>) -> Vec<&'a Field> {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn first_difference(wanted: &[&Field], came: &[&Field]) -> String {
    let show = |field: &Field| format!("{} \"{}\"", field.0, text(&field.1));
    let missing = wanted.iter().find(|field| !came.contains(field)).map(|field| format!("{} is missing", show(field)));
    let foreign = || came.iter().find(|field| !wanted.contains(field)).map(|field| format!("{} is new", show(field)));
    missing.or_else(foreign).unwrap_or_else(|| "their number or order".into())
}
