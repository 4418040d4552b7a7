//! Differences between lanes that may be, each with its reason. What differs in form only is named alike in
//! [`account`](crate::account).

use crate::account::Run;
use crate::case::{Act, Case, Step, When, find};
use crate::client::End;
use crate::fidelity::is_own;
use crate::lane::Lane;
use crate::message::{Answer, Answers, BodyEnd, Request, Requests, all};

/// Why a lane may differ here from the first one; `None`: it may not.
pub(crate) fn why(case: &Case, whole: &Run, other: &Run) -> Option<&'static str> {
    let both = [whole, other];
    if case.steps.iter().any(|step| matches!(step, Step::Reset)) {
        return Some("the client resets: how much was done by then is chance");
    }
    if both.iter().all(|run| run.has_switched) && statuses(whole) == statuses(other) {
        return Some("both sides have left HTTP: what a tunnel brought by its end is chance");
    }
    if both.iter().any(|run| meets_ending(case, run)) {
        return Some("a kept connection to the origin ended while a request was on its way");
    }
    if case.replies.iter().any(|reply| reply.acts.contains(&Act::Reset)) {
        return Some("the origin resets: how much of what it said before is read is chance");
    }
    if case.steps.contains(&Step::HalfClose) && is_beginning(whole, other) {
        return Some("the client ends its side: whether that is seen before the answer is chance");
    }
    if other.lane == Lane::H2 && takes_back(whole, other) {
        return Some("a stream that is cut may take back what of its answer is still on its way");
    }
    let replies = replies(case);
    if replies.iter().any(|reply| reply.has_more) && both.iter().any(|run| run.finals().count() > 1) {
        return Some("the origin says more than its answer: whether that is seen before the next request is chance");
    }
    if both.iter().all(|run| is_refused(run)) && statuses_before_last(whole) == statuses_before_last(other) {
        return Some("a head that breaks several rules is refused by the first that what has come of it breaks");
    }
    let sent = Requests::of(&case.sent());
    let is_half = sent.all.last().is_some_and(|last| !last.is_whole) || sent.broken.is_some();
    if is_half && both.iter().all(|run| ends_with_blame_of_client(run, &sent.all)) {
        return Some("a body that breaks several rules is refused by the first that what has come of it breaks");
    }
    if !both.iter().all(|run| run.waits_always()) || case.replies.iter().any(|reply| reply.when != When::Whole) {
        if is_half || both.iter().any(|run| run.finals().any(blames_client)) {
            return Some("the origin answers before it has the request, which is refused: which comes first is chance");
        }
        if ends_early(case) {
            return Some("the origin answers before it has the request, and ends: how much it takes is chance");
        }
        if goes_on_alike(whole, other) {
            return Some("an answer came before its request was whole: whether the connection goes on is chance");
        }
    }
    if Requests::of(&case.sent()).all.iter().any(|sent| whole.given_to(sent) != other.given_to(sent))
        && replies.iter().any(|reply| reply.is_unwell)
    {
        return Some("an origin says that it is unwell: whether another is asked depends on whether it failed of late");
    }
    if replies.iter().any(|reply| !reply.is_whole) && both.iter().all(|run| is_torn(run)) && is_beginning(whole, other)
    {
        return Some("an answer breaks and its connection is reset: how much of it has come by then is chance");
    }
    if replies.iter().any(|reply| !reply.is_whole) && breaks_within_or_before(whole, other) {
        return Some("an answer breaks within its body: whether its head has gone by then is chance");
    }
    None
}

/// What of a reply there is to say by the letter.
struct Said {
    /// Its final answer is there with its body.
    is_whole: bool,
    /// Something is behind it.
    has_more: bool,
    /// The origin says that it cannot serve.
    is_unwell: bool,
}

fn replies(case: &Case) -> Vec<Said> {
    let methods: Vec<_> = Requests::of(&case.sent()).all.iter().map(|request| request.method == "HEAD").collect();
    let said = |number: usize| {
        let mut answers = Answers::new(vec![methods.get(number).copied().unwrap_or_default()]);
        answers.feed(&case.replied(number));
        let last = answers.all.last().filter(|last| last.status >= 200);
        let ends = case.replies[number].acts.contains(&Act::Fin);
        let is_whole = answers.broken.is_none()
            && last.is_some_and(|last| last.end == BodyEnd::Whole || last.end == BodyEnd::Open && ends);
        let is_read = answers.finals() > 0 && !last.is_some_and(|last| last.end == BodyEnd::Cut);
        let has_more = is_read && (answers.broken.is_some() || answers.finals() > 1 || !answers.rest().is_empty());
        // Whatever else is wrong with it.
        let is_unwell =
            [&b" 502 "[..], b" 503 ", b" 504 "].iter().any(|status| find(&case.replied(number), status).is_some());
        Said { is_whole, has_more, is_unwell }
    };
    (0..case.replies.len()).map(said).collect()
}

/// The connection ended with a head that was refused for its form.
fn is_refused(run: &Run) -> bool {
    run.finals().last().is_some_and(|last| all(&last.fields, "x-refused").next().is_some())
}

fn statuses_before_last(run: &Run) -> Vec<u16> {
    let mut statuses = statuses(run);
    statuses.pop();
    statuses
}

/// The last request was answered by the proxy: its body is none, or too large, or does not come.
fn ends_with_blame_of_client(run: &Run, sent: &[Request]) -> bool {
    run.finals().count() == sent.len() && run.finals().last().is_some_and(blames_client)
}

fn blames_client(answer: &Answer) -> bool {
    is_own(answer) && [400, 408, 413].contains(&answer.status)
}

/// The last answer was ended by a reset.
fn is_torn(run: &Run) -> bool {
    let is_cut = run.finals().last().is_some_and(|last| last.end != BodyEnd::Whole);
    is_cut && matches!(run.client.end, End::Reset | End::Torn)
}

/// A reply before the last one ends its connection, and a request was lost.
fn meets_ending(case: &Case, run: &Run) -> bool {
    case.ends_connections() && run.finals().skip(1).any(|answer| is_own(answer) && answer.status == 502)
}

/// Some reply begins early and ends its connection.
fn ends_early(case: &Case) -> bool {
    case.replies.iter().any(|reply| reply.when != When::Whole && reply.acts.contains(&Act::Fin))
}

fn statuses(run: &Run) -> Vec<u16> {
    run.finals().map(|answer| answer.status).collect()
}

/// As many answers as both gave are alike in status.
fn is_beginning(one: &Run, other: &Run) -> bool {
    statuses(one).iter().zip(&statuses(other)).all(|(a, b)| a == b)
}

/// As many answers as both gave are alike in status, and whoever gave fewer ended in order behind them.
fn goes_on_alike(one: &Run, other: &Run) -> bool {
    let shorter = if one.finals().count() <= other.finals().count() { one } else { other };
    let is_whole = shorter.finals().all(|answer| answer.end != BodyEnd::Cut);
    is_beginning(one, other)
        && one.finals().count() != other.finals().count()
        && is_whole
        && shorter.client.end == End::Fin
}

/// The first answer that the client of HTTP/2 did not get was cut in the other lane.
fn takes_back(whole: &Run, h2: &Run) -> bool {
    is_beginning(whole, h2) && whole.finals().nth(h2.finals().count()).is_some_and(|next| next.end == BodyEnd::Cut)
}

/// One passed the head of an answer on and cut its body, where the other could still say that there is none.
fn breaks_within_or_before(one: &Run, other: &Run) -> bool {
    let (first, second) = (one.finals().count(), other.finals().count());
    let is_cut = |run: &Run| {
        run.finals().last().is_some_and(|last| {
            last.end == BodyEnd::Cut || last.end == BodyEnd::Open && matches!(run.client.end, End::Reset | End::Torn)
        })
    };
    let is_told = |run: &Run| run.finals().last().is_some_and(|last| is_own(last) && [502, 504].contains(&last.status));
    first == second && (is_cut(one) && is_told(other) || is_told(one) && is_cut(other))
}
