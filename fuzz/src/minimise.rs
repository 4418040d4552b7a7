//! Makes the case of a finding smaller as long as it shows the same.

use std::time::{Duration, Instant};

use crate::case::{Act, Case, PLAIN, Reply, Step, When};
use crate::compare::Difference;
use crate::lane::Lane;
use crate::proxy::Proxy;
use crate::site::Site;

/// Longest that one case is worked at.
const PATIENCE: Duration = Duration::from_secs(40);

/// The smallest case found that shows a difference of the same kind.
pub(crate) async fn minimise(site: &Site, proxy: &Proxy, case: Case, found: Difference) -> (Case, Difference) {
    let (begun, mut best, mut shown) = (Instant::now(), case, found);
    // Where the last success was: what was tried before it is not tried again at once.
    let mut from = 0;
    loop {
        let changes = changes(&best);
        let mut has_shrunk = false;
        for at in (from..changes.len()).chain(0..from.min(changes.len())) {
            if begun.elapsed() > PATIENCE {
                return (best, shown);
            }
            let mut smaller = best.clone();
            changes[at].apply(&mut smaller);
            if smaller.size() < best.size()
                && let Some(difference) = shows(site, proxy, &smaller, &shown).await
            {
                (best, shown, from, has_shrunk) = (smaller, difference, at, true);
                break;
            }
        }
        if !has_shrunk {
            return (best, shown);
        }
    }
}

/// Twice, as chance has no place in a file.
async fn shows(site: &Site, proxy: &Proxy, case: &Case, shown: &Difference) -> Option<Difference> {
    let (mut last, mut lanes) = (None, vec![Lane::Whole, shown.lane]);
    lanes.dedup();
    for _ in 0..2 {
        let found = site.judge(proxy, &lanes, case).await.ok()?.found;
        last = Some(found.filter(|found| found.kind == shown.kind)?);
    }
    last
}

/// One way to have a little less. Numbers are places.
enum Change {
    Plain,
    CutEverywhere,
    DropStep(usize),
    JoinSteps(usize),
    DropReplies(usize),
    DropReply(usize),
    PlainReply(usize),
    ReplyLate(usize),
    DropAct(usize, usize),
    JoinActs(usize, usize),
    /// Without the bytes of a step from the first place to the second.
    CutStep(usize, usize, usize),
    CutAct(usize, usize, usize, usize),
}

/// All that could be less, the largest parts first.
fn changes(case: &Case) -> Vec<Change> {
    let mut all = vec![Change::Plain, Change::CutEverywhere];
    all.extend((0..case.replies.len()).map(Change::DropReplies));
    for at in 0..case.steps.len() {
        all.extend([Change::DropStep(at), Change::JoinSteps(at)]);
    }
    for (at, reply) in case.replies.iter().enumerate() {
        all.extend([Change::DropReply(at), Change::PlainReply(at), Change::ReplyLate(at)]);
        for act in 0..reply.acts.len() {
            all.extend([Change::DropAct(at, act), Change::JoinActs(at, act)]);
        }
    }
    for (at, step) in case.steps.iter().enumerate() {
        if let Step::Send(bytes) = step {
            all.extend(cuts(bytes).into_iter().map(|(from, to)| Change::CutStep(at, from, to)));
        }
    }
    for (at, reply) in case.replies.iter().enumerate() {
        for (place, act) in reply.acts.iter().enumerate() {
            if let Act::Send(bytes) = act {
                all.extend(cuts(bytes).into_iter().map(|(from, to)| Change::CutAct(at, place, from, to)));
            }
        }
    }
    all
}

/// Parts to leave out: halves, quarters and so on, lines, and of few bytes each.
fn cuts(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    let mut part = bytes.len() / 2;
    while part >= 16 {
        all.extend((0..bytes.len()).step_by(part).take(16).map(|from| (from, (from + part).min(bytes.len()))));
        part /= 2;
    }
    let ends: Vec<_> = (1..=bytes.len()).filter(|at| bytes[..*at].ends_with(b"\n")).collect();
    if ends.len() < 200 {
        all.extend(ends.iter().enumerate().map(|(n, end)| (n.checked_sub(1).map_or(0, |before| ends[before]), *end)));
    }
    if bytes.len() < 400 {
        for size in [4, 1] {
            all.extend((0..bytes.len().saturating_sub(size - 1)).map(|from| (from, from + size)));
        }
    }
    all
}

impl Change {
    fn apply(&self, case: &mut Case) {
        match *self {
            Self::Plain => case.is_trusted = false,
            Self::CutEverywhere => case.cuts = 0,
            Self::DropStep(at) => drop(case.steps.remove(at)),
            Self::JoinSteps(at) => {
                if let Some([Step::Send(first), Step::Pause(_), Step::Send(second)]) = case.steps.get(at..at + 3) {
                    let joined = [&first[..], second].concat();
                    case.steps.splice(at..at + 3, [Step::Send(joined)]);
                }
            }
            Self::DropReplies(at) => case.replies.truncate(at),
            Self::DropReply(at) => drop(case.replies.remove(at)),
            Self::PlainReply(at) => {
                case.replies[at] = Reply { when: When::Whole, acts: vec![Act::Send(PLAIN.to_vec())] };
            }
            Self::ReplyLate(at) => case.replies[at].when = When::Whole,
            Self::DropAct(at, act) => drop(case.replies[at].acts.remove(act)),
            Self::JoinActs(at, act) => {
                let acts = &mut case.replies[at].acts;
                if let Some([Act::Send(first), Act::Pause(_), Act::Send(second)]) = acts.get(act..act + 3) {
                    let joined = [&first[..], second].concat();
                    acts.splice(act..act + 3, [Act::Send(joined)]);
                }
            }
            Self::CutStep(at, from, to) => {
                if let Step::Send(bytes) = &mut case.steps[at] {
                    bytes.drain(from..to);
                }
            }
            Self::CutAct(at, act, from, to) => {
                if let Act::Send(bytes) = &mut case.replies[at].acts[act] {
                    bytes.drain(from..to);
                }
            }
        }
    }
}
