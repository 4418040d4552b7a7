//! What a job says, line by line, into the database.

use std::sync::{Arc, Mutex, PoisonError};

use crate::node::store::{Claimed, Store, StoreError};

/// Lines of one job.
const LINES_MAX: i64 = 10_000;
/// Characters of one line.
const LINE_MAX: usize = 2_000;
/// Lines written at once.
const BATCH: usize = 500;

/// Of one job; cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    store: Store,
    job: Arc<Claimed>,
    pending: Arc<Mutex<Pending>>,
    /// Who writes.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Pending {
    lines: Vec<String>,
    /// Number of the first of them.
    first: i64,
}

/// A line without control characters, and without the colours of a terminal (ECMA-48 §5.4).
pub fn plain(line: &str) -> String {
    let mut rest = line.chars();
    let mut kept = String::with_capacity(line.len());
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            if rest.next() == Some('[') {
                rest.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
        } else if !c.is_control() || c == '\t' {
            kept.push(c);
        }
    }
    kept
}

impl Log {
    /// Goes on where an earlier attempt ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(store: Store, job: Claimed) -> Result<Self, StoreError> {
        let first = store.last_line(job.id).await? + 1;
        let pending = Arc::new(Mutex::new(Pending { lines: Vec::new(), first }));
        Ok(Self { store, job: Arc::new(job), pending, turn: Arc::default() })
    }

    /// Adds a line, or the lines of a text; control characters are left out.
    pub fn say(&self, text: &str) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let next = pending.first + i64::try_from(pending.lines.len()).unwrap_or(i64::MAX);
            match next.cmp(&LINES_MAX) {
                std::cmp::Ordering::Less => {
                    let line = plain(line).chars().take(LINE_MAX).collect();
                    pending.lines.push(line);
                }
                std::cmp::Ordering::Equal => pending.lines.push("… there is more, which is not kept".to_owned()),
                std::cmp::Ordering::Greater => return,
            }
        }
    }

    /// Writes what is pending. What cannot be written stays.
    pub async fn flush(&self) {
        let _turn = self.turn.lock().await;
        loop {
            let (first, lines) = {
                let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                (pending.first, pending.lines.iter().take(BATCH).cloned().collect::<Vec<_>>())
            };
            if lines.is_empty() || self.store.write_lines(&self.job, first, &lines).await.is_err() {
                return;
            }
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.lines.drain(..lines.len());
            pending.first += i64::try_from(lines.len()).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_controls_are_left_out() {
        assert_eq!(plain("\u{1b}[0;31mName\u{1b}[0m\tError\u{7}: \u{1b}[1;2"), "Name\tError: ");
        assert_eq!(plain("\u{1b}"), "");
    }
}
