//! Says when files or folders changed: editors' renames and symlink swaps too, debounced.
//!
//! The kernel's events are only a hint to look. What counts is a fingerprint of the files, taken through all links; so an
//! access, or a neighbour's change, tells nobody, and a filesystem without events (NFS) is served by looking now and then.
//! It does not read contents and knows nothing of what the files mean.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, oneshot};

mod fingerprint;
mod trace;

use self::fingerprint::{Fingerprint, Inode};

/// Watches a set of paths until dropped.
#[derive(Debug)]
pub struct Watcher {
    replace: mpsc::Sender<Replacement>,
}

/// One `()` for any number of changes since the last one was taken; ends when the [`Watcher`] is dropped.
pub type Changes = mpsc::Receiver<()>;

/// How patient a watcher is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Quiet time after the last event before files are looked at.
    pub settle: Duration,
    /// Files are looked at after this even if events go on and on.
    pub settle_max: Duration,
    /// Files are looked at this often without any event.
    pub poll: Duration,
    /// Whether the kernel is asked for events at all.
    pub events: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // Editors and certbot do several things to a file in a row.
            settle: Duration::from_millis(200),
            settle_max: Duration::from_secs(2),
            poll: Duration::from_secs(5),
            events: true,
        }
    }
}

impl Watcher {
    /// Begins to watch; call it within a tokio runtime and before reading the files, so that no change falls between.
    /// A path may be a file, a folder (its entries and those of its folders count, except names that begin with a dot),
    /// or not exist yet.
    pub async fn new(paths: Vec<PathBuf>) -> (Self, Changes) {
        Self::with_pace(paths, Pace::default()).await
    }

    /// As [`Watcher::new`], less or more patient.
    pub async fn with_pace(paths: Vec<PathBuf>, pace: Pace) -> (Self, Changes) {
        let (changed, changes) = mpsc::channel(1);
        let (replace, replacements) = mpsc::channel(1);
        let (hint, hints) = mpsc::channel(1);
        let task = Task { changed, replacements, hints, pace, sight: Sight::new(hint, pace.events) };
        let watcher = Self { replace };
        tokio::spawn(task.run());
        watcher.replace(paths).await;
        (watcher, changes)
    }

    /// Watches these from now on. Paths that were watched before keep what is known of them, so a change that has not
    /// been told yet will be; the others count from now: call it before reading them. Cancel-safe.
    pub async fn replace(&self, paths: Vec<PathBuf>) {
        let (done, is_done) = oneshot::channel();
        // Neither can fail while the task lives, and it lives as long as `self`.
        let _ = self.replace.send(Replacement { paths, done }).await;
        let _ = is_done.await;
    }
}

#[derive(Debug)]
struct Replacement {
    paths: Vec<PathBuf>,
    done: oneshot::Sender<()>,
}

struct Task {
    changed: mpsc::Sender<()>,
    replacements: mpsc::Receiver<Replacement>,
    hints: mpsc::Receiver<()>,
    pace: Pace,
    sight: Sight,
}

impl Task {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                replacement = self.replacements.recv() => {
                    let Some(replacement) = replacement else { return };
                    if !self.look(Why::Replaced(replacement.paths)).await {
                        return;
                    }
                    let _ = replacement.done.send(());
                }
                Some(()) = self.hints.recv() => {
                    self.settle().await;
                    if !self.look(Why::Hinted).await {
                        return;
                    }
                }
                () = tokio::time::sleep(self.pace.poll) => {
                    if !self.look(Why::Due).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until the events have stopped, or for long enough.
    async fn settle(&mut self) {
        let enough = tokio::time::sleep(self.pace.settle_max);
        tokio::pin!(enough);
        loop {
            tokio::select! {
                () = &mut enough => return,
                () = tokio::time::sleep(self.pace.settle) => return,
                Some(()) = self.hints.recv() => (),
            }
        }
    }

    /// Looks, off the runtime's threads, because filesystems can hang. False: nobody wants to know any more.
    async fn look(&mut self, why: Why) -> bool {
        let mut sight = std::mem::take(&mut self.sight);
        let looked = tokio::task::spawn_blocking(move || {
            let has_changed = sight.look(why);
            (sight, has_changed)
        });
        // Looking does not panic, and the runtime only cancels it when it ends.
        let Ok((sight, has_changed)) = looked.await else { return false };
        self.sight = sight;
        if has_changed {
            // A full channel already says it.
            let _ = self.changed.try_send(());
        }
        !self.changed.is_closed()
    }
}

/// What is watched and what was seen last.
#[derive(Default)]
struct Sight {
    seen: BTreeMap<PathBuf, Fingerprint>,
    /// `None`: the kernel gives us no events; looking now and then must do.
    events: Option<RecommendedWatcher>,
    /// Folders with events, and which folder each was at that time.
    folders: BTreeMap<PathBuf, Inode>,
    /// One warning is enough.
    has_warned: bool,
}

impl Sight {
    fn new(hint: mpsc::Sender<()>, has_events: bool) -> Self {
        let handler = move |event: notify::Result<Event>| {
            let is_change = match event {
                // Our own looking opens folders: that must not make us look again.
                Ok(event) => match event.kind {
                    EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
                    // Whoever has written closes. Until then it may be a log beside the files, growing all the time.
                    EventKind::Modify(ModifyKind::Data(_)) => false,
                    _ => true,
                },
                // Events were lost.
                Err(_) => true,
            };
            if is_change {
                let _ = hint.try_send(());
            }
        };
        let events = match has_events.then(|| notify::recommended_watcher(handler)) {
            Some(Ok(events)) => Some(events),
            Some(Err(error)) => {
                tracing::warn!(%error, "no file events from the kernel; changes are noticed by looking");
                None
            }
            None => None,
        };
        Self { events, ..Self::default() }
    }

    /// True: something differs from when it was seen last.
    fn look(&mut self, why: Why) -> bool {
        // Events first, then the look, so that nothing falls between.
        match why {
            Why::Replaced(paths) => {
                let mut known = std::mem::take(&mut self.seen);
                self.follow(paths.iter());
                for path in paths {
                    let seen = known.remove(&path).unwrap_or_else(|| Fingerprint::of(&path));
                    self.seen.insert(path, seen);
                }
            }
            Why::Hinted => self.follow_all(),
            Why::Due => (),
        }
        let mut has_changed = false;
        for (path, seen) in &mut self.seen {
            let now = Fingerprint::of(path);
            has_changed |= now != *seen;
            *seen = now;
        }
        if has_changed {
            // The links may lead elsewhere now.
            self.follow_all();
        }
        has_changed
    }

    fn follow_all(&mut self) {
        let paths: Vec<PathBuf> = self.seen.keys().cloned().collect();
        self.follow(paths.iter());
    }

    /// Asks for the events of every folder in which a change would matter, and of no other.
    fn follow<'a>(&mut self, paths: impl Iterator<Item = &'a PathBuf>) {
        let Some(events) = &mut self.events else { return };
        let wanted = trace::folders(paths);
        for (path, inode) in &self.folders {
            if wanted.get(path) != Some(inode) {
                // Fails when the folder is gone and the kernel has dropped the watch itself.
                let _ = events.unwatch(path);
            }
        }
        // Those we have too: a folder made anew may have the number of the one removed, and no events any more.
        for path in wanted.keys() {
            if let (Err(error), false) = (events.watch(path, RecursiveMode::NonRecursive), self.has_warned) {
                self.has_warned = true;
                tracing::warn!(folder = %path.display(), %error, "no file events here; changes are noticed by looking");
            }
        }
        self.folders = wanted;
    }
}

/// Why we look.
#[derive(Debug)]
enum Why {
    /// Other paths from now on.
    Replaced(Vec<PathBuf>),
    /// The kernel says that something happened.
    Hinted,
    /// It is time.
    Due,
}

#[cfg(test)]
mod tests;
