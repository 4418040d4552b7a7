//! What processes of content say, until it is written down: the last lines for who starts one, all for who reads its log.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Process;

/// Lines that are remembered.
const LINES_MAX: usize = 200;
/// Lines that wait to be written down; what is said beside them is not kept.
const PENDING_MAX: usize = 1_000;

/// Of one process.
#[derive(Debug, Default)]
pub struct Journal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: VecDeque<String>,
    pending: Vec<String>,
    left_out: u64,
    end: Option<End>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Nobody has to look into it.
    pub is_well: bool,
    /// In a sentence.
    pub how: String,
}

impl Journal {
    /// A line was said.
    pub(super) fn say(&self, line: String) {
        let mut state = self.lock();
        if state.last.len() >= LINES_MAX {
            state.last.pop_front();
        }
        if state.pending.len() < PENDING_MAX {
            state.pending.push(line.clone());
        } else {
            state.left_out += 1;
        }
        state.last.push_back(line);
    }

    /// The last lines.
    pub(super) fn last(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }

    /// It has ended.
    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
    }

    /// What is to be written down, and whether it is the last of it. What cannot be is to be given [back](Self::back).
    pub fn take(&self) -> (Vec<String>, Option<End>) {
        let mut state = self.lock();
        let mut lines = mem::take(&mut state.pending);
        match mem::take(&mut state.left_out) {
            0 => {}
            n => lines.push(format!("… {n} more lines, which came too fast to be kept")),
        }
        (lines, state.end.clone())
    }

    /// See [`Self::take`].
    pub fn back(&self, mut lines: Vec<String>) {
        let mut state = self.lock();
        lines.append(&mut state.pending);
        let more = lines.len().saturating_sub(PENDING_MAX);
        lines.truncate(PENDING_MAX);
        state.left_out += more as u64;
        state.pending = lines;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal, and whose it is.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Guid of the content.
    pub guid: String,
    /// Number of its bundle.
    pub bundle: i64,
    /// The process.
    pub process: Weak<Process>,
    /// When it was about to begin, microseconds since 1970.
    pub began: i64,
    /// What it says.
    pub journal: Arc<Journal>,
}

/// Those that are not written down yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Journals(Arc<Mutex<Vec<Kept>>>);

impl Journals {
    pub(super) fn add(&self, kept: Kept) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }

    /// Those that came since this was last asked for.
    pub(super) fn take(&self) -> Vec<Kept> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_too_much_is_not_kept_whole_and_nothing_is_written_twice() {
        let journal = Journal::default();
        (0..PENDING_MAX + 7).for_each(|n| journal.say(format!("line {n}")));
        assert_eq!((journal.last().len(), &*journal.last()[0]), (LINES_MAX, "line 807"));
        let (lines, end) = journal.take();
        assert_eq!((lines.len(), end), (PENDING_MAX + 1, None));
        assert_eq!(lines[PENDING_MAX], "… 7 more lines, which came too fast to be kept");
        assert_eq!(journal.take().0, Vec::<String>::new());
        journal.say("later".to_owned());
        journal.back(vec!["earlier".to_owned()]);
        journal.end(End { is_well: false, how: "first".to_owned() });
        journal.end(End { is_well: true, how: "second".to_owned() });
        let (lines, end) = journal.take();
        assert_eq!((lines, end.unwrap().how), (vec!["earlier".to_owned(), "later".to_owned()], "first".to_owned()));
    }
}
