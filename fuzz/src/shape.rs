//! The same bytes in few writes or in many.

use crate::case::{Act, Case, Step};
use crate::dice::Dice;

/// In as few writes as may be: pauses between two of them are left out. What is waited for stays.
pub(crate) fn whole(case: &Case) -> Case {
    let mut joined = case.clone();
    joined.steps = join(&case.steps);
    for reply in &mut joined.replies {
        reply.acts = join(&reply.acts);
    }
    joined
}

/// Cut in more places than the case says itself.
pub(crate) fn cut(case: &Case) -> Case {
    let (dice, is_each) = (&mut Dice::new(case.cuts), case.cuts == 0);
    let mut cut = case.clone();
    cut.steps = pieces(&case.steps, dice, is_each);
    for reply in &mut cut.replies {
        reply.acts = pieces(&reply.acts, dice, is_each);
    }
    cut
}

/// What client and origin both do.
trait Move: Clone {
    fn send(bytes: Vec<u8>) -> Self;
    fn pause(ms: u64) -> Self;
    fn sent(&self) -> Option<&[u8]>;
    fn is_pause(&self) -> bool;
}

/// For a kind of moves that has `Send` and `Pause`.
macro_rules! moves {
    ($($kind:ident),+) => {
        $(impl Move for $kind {
            fn send(bytes: Vec<u8>) -> Self {
                Self::Send(bytes)
            }

            fn pause(ms: u64) -> Self {
                Self::Pause(ms)
            }

            fn sent(&self) -> Option<&[u8]> {
                if let Self::Send(bytes) = self { Some(bytes) } else { None }
            }

            fn is_pause(&self) -> bool {
                matches!(self, Self::Pause(_))
            }
        })+
    };
}

moves!(Step, Act);

fn join<M: Move>(moves: &[M]) -> Vec<M> {
    let (mut joined, mut held, mut bytes): (Vec<M>, Vec<M>, Option<Vec<u8>>) = (Vec::new(), Vec::new(), None);
    for next in moves {
        match (next.sent(), &mut bytes) {
            (Some(more), Some(bytes)) => {
                // It follows another write: nobody waits in between.
                held.clear();
                bytes.extend_from_slice(more);
            }
            (Some(first), None) => {
                joined.append(&mut held);
                bytes = Some(first.to_vec());
            }
            (None, _) if next.is_pause() => held.push(next.clone()),
            (None, _) => {
                joined.extend(bytes.take().map(M::send));
                joined.append(&mut held);
                joined.push(next.clone());
            }
        }
    }
    joined.extend(bytes.map(M::send));
    joined.append(&mut held);
    joined
}

/// Bytes of one write that go one by one, where all may.
const EACH_MAX: usize = 600;
/// A moment between so many of them, so that some are surely seen alone; between the others only who else is ready runs.
const MOMENT: usize = 8;

fn pieces<M: Move>(moves: &[M], dice: &mut Dice, is_each: bool) -> Vec<M> {
    let mut all = Vec::new();
    for next in moves {
        let Some(bytes) = next.sent() else {
            all.push(next.clone());
            continue;
        };
        let places = if is_each { (1..bytes.len().min(EACH_MAX)).collect() } else { places(dice, bytes) };
        let is_dense = places.len() > MOMENT;
        let mut from = 0;
        for (n, place) in places.into_iter().enumerate() {
            all.push(M::send(bytes[from..place].to_vec()));
            let waits = if is_dense { n % MOMENT == 0 } else { dice.percent(70) };
            all.push(M::pause(u64::from(waits)));
            from = place;
        }
        all.push(M::send(bytes[from..].to_vec()));
    }
    all
}

/// Where to cut, in order: anywhere, about the ends of lines, or many bytes in a row.
fn places(dice: &mut Dice, bytes: &[u8]) -> Vec<usize> {
    let mut places: Vec<usize> = match dice.below(10) {
        0..=4 => (0..dice.within(1, 5)).map(|_| dice.below(bytes.len())).collect(),
        5..=7 => {
            let at_ends = |at: &usize| matches!(bytes[at - 1], b'\r' | b'\n') || matches!(bytes[*at], b'\r' | b'\n');
            let ends: Vec<_> = (1..bytes.len()).filter(at_ends).take(400).collect();
            let share = dice.within(5, 60);
            ends.into_iter().filter(|_| dice.percent(share)).collect()
        }
        _ => {
            let from = dice.below(bytes.len());
            (from..bytes.len().min(from + 80)).collect()
        }
    };
    places.retain(|place| (1..bytes.len()).contains(place));
    places.sort_unstable();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_writes_go_and_all_others_stay() {
        let send = |text: &str| Step::Send(text.into());
        let case = Case {
            steps: vec![
                Step::Pause(1),
                send("a"),
                Step::Pause(2),
                send("b"),
                Step::Pause(3),
                Step::Answers(1),
                send("c"),
                Step::Pause(4),
                Step::HalfClose,
            ],
            ..Case::default()
        };
        let joined =
            [Step::Pause(1), send("ab"), Step::Pause(3), Step::Answers(1), send("c"), Step::Pause(4), Step::HalfClose];
        assert_eq!(whole(&case).steps, joined);
    }

    #[test]
    fn cutting_changes_no_byte() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40);
        for cuts in 0..200 {
            let case = Case { cuts, steps: vec![Step::Send(bytes.clone())], ..Case::default() };
            let cut = cut(&case);
            assert_eq!(cut.sent(), bytes);
            assert!(cut.steps.iter().all(|step| step.sent().is_none_or(|piece| !piece.is_empty())), "{cuts}");
            assert_eq!(cut, super::cut(&case), "the same cuts each time");
        }
    }
}
