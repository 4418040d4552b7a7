//! Differences that may be, each with its reason. What differs in form only is named alike in [`account`](crate::account).

use crate::account::{Run, faults};
use crate::case::{Act, Case, Reply, Step};
use crate::client::End;
use crate::message::{Answers, BodyEnd, Requests, all};

/// Why the two may differ here; `None`: they may not.
pub(crate) fn why(case: &Case, lean: &Run, pingora: &Run) -> Option<&'static str> {
    if !faults(case, lean).is_empty() {
        return None;
    }
    let interims = |run: &Run| run.client.answers.all.iter().filter(|answer| answer.status < 200).count();
    if refuses(lean) && interims(pingora) > INTERIM_MAX {
        return Some("the lean mover bears so many interim answers and no more");
    }
    if refuses(lean) && !refuses(pingora) && sends_none(case) {
        return Some("the lean mover takes for no answer what is none by the letter; Pingora is laxer");
    }
    if !faults(case, pingora).is_empty() {
        return None;
    }
    if refuses_host(pingora) && !refuses_host(lean) {
        return Some("Pingora takes Host and the host of an absolute target for two when only their case differs");
    }
    if meets_ending(case, lean) || meets_ending(case, pingora) {
        return Some("a kept connection to the origin ended while a request was on its way");
    }
    if case.steps.iter().any(|step| matches!(step, Step::Reset)) {
        return Some("the client resets: how much was done by then is chance");
    }
    if case.steps.contains(&Step::HalfClose) && goes_on_alike(lean, pingora) {
        return Some("the client ends its side: whether that is seen before the answer is chance");
    }
    if goes_on_alike(lean, pingora) && may_end_early(case, lean, pingora) {
        return Some("one ends the connection behind an answer to HTTP/1.0 or to half a request, where both may");
    }
    None
}

/// Interim answers the lean mover takes.
const INTERIM_MAX: usize = 64;

/// The origin's answer was refused as none.
fn refuses(run: &Run) -> bool {
    run.log.iter().any(|line| line.get("error.type") == Some("upstream_invalid"))
}

/// Some reply is no HTTP by the letter.
fn sends_none(case: &Case) -> bool {
    let methods: Vec<_> = Requests::of(&case.sent()).all.iter().map(|request| request.method == "HEAD").collect();
    (0..case.replies.len()).any(|number| {
        let mut answers = Answers::new(vec![methods.get(number).copied().unwrap_or_default()]);
        answers.feed(&case.replied(number));
        answers.broken.is_some()
    })
}

/// Pingora itself said 400, which nobody else signs so.
fn refuses_host(run: &Run) -> bool {
    run.finals().any(|answer| answer.status == 400 && all(&answer.fields, "server").any(|value| value == b"Pingora"))
}

/// A reply before the last one ends its connection, and a request was lost.
fn meets_ending(case: &Case, run: &Run) -> bool {
    let ends = |reply: &Reply| reply.acts.iter().any(|act| matches!(act, Act::Fin | Act::Reset));
    case.replies.iter().any(ends)
        && run.log.iter().skip(1).any(|line| line.get("error.type") == Some("upstream_closed"))
}

/// As many answers as both gave are alike in status, and whoever gave fewer ended in order behind them.
fn goes_on_alike(lean: &Run, pingora: &Run) -> bool {
    let of = |run: &Run| run.finals().map(|answer| answer.status).collect::<Vec<_>>();
    let (ours, theirs) = (of(lean), of(pingora));
    let shorter = if ours.len() <= theirs.len() { lean } else { pingora };
    let is_whole = shorter.finals().all(|answer| answer.end != BodyEnd::Cut);
    ours.iter().zip(&theirs).all(|(a, b)| a == b)
        && ours.len() != theirs.len()
        && is_whole
        && shorter.client.end == End::Fin
}

/// The last request that the one who ended earlier answered was HTTP/1.0, or answered before it was whole.
fn may_end_early(case: &Case, lean: &Run, pingora: &Run) -> bool {
    let answered = lean.finals().count().min(pingora.finals().count());
    let sent = Requests::of(&case.sent()).all;
    let Some(last) = answered.checked_sub(1).and_then(|n| sent.get(n)) else { return false };
    last.is_http10 || !lean.waits_always() || !pingora.waits_always()
}
