//! Makes the case of a finding smaller as long as it shows the same.

use std::time::{Duration, Instant};

use crate::case::{Act, Case, Reply, Step, When};
use crate::compare::Difference;
use crate::lane::{Lane, Pair};

/// Longest that one case is worked at.
const PATIENCE: Duration = Duration::from_secs(30);

/// The smallest case found that shows a difference of the same kind.
pub(crate) async fn minimise(lane: &Lane, pair: &Pair, case: Case, found: Difference) -> (Case, Difference) {
    let (begun, mut best, mut shown) = (Instant::now(), case, found);
    loop {
        let before = best.size();
        for smaller in candidates(&best) {
            if begun.elapsed() > PATIENCE {
                return (best, shown);
            }
            if smaller.size() >= best.size() {
                continue;
            }
            if let Some(difference) = shows(lane, pair, &smaller, &shown.kind).await {
                (best, shown) = (smaller, difference);
                break;
            }
        }
        if best.size() == before {
            return (best, shown);
        }
    }
}

/// Twice, as chance has no place in a file.
async fn shows(lane: &Lane, pair: &Pair, case: &Case, kind: &str) -> Option<Difference> {
    let mut last = None;
    for _ in 0..2 {
        last = Some(lane.compare(pair, case).await.ok()?.filter(|difference| difference.kind == kind)?);
    }
    last
}

/// Cases with a little less, the least ones first.
fn candidates(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut put = |change: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    put(&|c| c.is_trusted = false);
    for at in 0..case.steps.len() {
        put(&|c| drop(c.steps.remove(at)));
        put(&|c| join_steps(&mut c.steps, at));
    }
    for at in 0..case.replies.len() {
        put(&|c| c.replies.truncate(at));
        put(&|c| drop(c.replies.remove(at)));
        put(&|c| c.replies[at] = Reply { when: When::Whole, acts: vec![Act::Send(PLAIN.to_vec())] });
        put(&|c| c.replies[at].when = When::Whole);
        for act in 0..case.replies[at].acts.len() {
            put(&|c| drop(c.replies[at].acts.remove(act)));
            put(&|c| join_acts(&mut c.replies[at].acts, act));
        }
    }
    for at in 0..case.steps.len() {
        if let Step::Send(bytes) = &case.steps[at] {
            for shorter in shorter(bytes) {
                put(&|c| c.steps[at] = Step::Send(shorter.clone()));
            }
        }
    }
    for at in 0..case.replies.len() {
        for act in 0..case.replies[at].acts.len() {
            if let Act::Send(bytes) = &case.replies[at].acts[act] {
                for shorter in shorter(bytes) {
                    put(&|c| c.replies[at].acts[act] = Act::Send(shorter.clone()));
                }
            }
        }
    }
    all
}

const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn join_steps(steps: &mut Vec<Step>, at: usize) {
    if let Some([Step::Send(first), Step::Pause(_), Step::Send(second)]) = steps.get(at..at + 3) {
        let joined = [&first[..], second].concat();
        steps.splice(at..at + 3, [Step::Send(joined)]);
    }
}

fn join_acts(acts: &mut Vec<Act>, at: usize) {
    if let Some([Act::Send(first), Act::Pause(_), Act::Send(second)]) = acts.get(at..at + 3) {
        let joined = [&first[..], second].concat();
        acts.splice(at..at + 3, [Act::Send(joined)]);
    }
}

/// The bytes without a line each, without halves, quarters and so on of them, and without each of few.
fn shorter(bytes: &[u8]) -> Vec<Vec<u8>> {
    let without = |from: usize, to: usize| [&bytes[..from], &bytes[to..]].concat();
    let mut all = Vec::new();
    let mut part = bytes.len() / 2;
    while part >= 16 {
        for from in (0..bytes.len()).step_by(part).take(32) {
            all.push(without(from, (from + part).min(bytes.len())));
        }
        part /= 2;
    }
    let ends: Vec<_> = (1..=bytes.len()).filter(|at| bytes[..*at].ends_with(b"\n")).collect();
    if ends.len() < 400 {
        for (n, end) in ends.iter().enumerate() {
            let start = n.checked_sub(1).map_or(0, |before| ends[before]);
            all.push(without(start, *end));
        }
    }
    if bytes.len() < 400 {
        for size in [4, 1] {
            for from in 0..bytes.len().saturating_sub(size - 1) {
                all.push(without(from, from + size));
            }
        }
    }
    all
}
