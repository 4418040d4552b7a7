//! A bounded queue of lines and the one thread that writes them.
//!
//! Whoever has a line hands it over and goes on; when the queue is full the line is dropped and counted. Nobody but
//! the writing thread ever waits for a disk, a pipe or a terminal.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use crate::runtime::clock;

/// The near end of the queue; clones share it. When the last one goes the thread writes what is left and ends.
#[derive(Clone, Debug)]
pub struct Sink {
    owner: Arc<Owner>,
}

/// Where lines go.
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; opened again when its path names another file, as after a rotation.
    File(LogFile),
    /// Anything else that can be written to.
    Other(Box<dyn Write + Send>),
}

/// A log file that is open.
pub struct LogFile {
    path: PathBuf,
    file: File,
}

// === impl Sink ===

impl Sink {
    /// Starts the thread `name` writing to `target`.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub fn start(name: &str, target: Target) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            lines: ArrayQueue::new(LINES_MAX),
            spare: ArrayQueue::new(SPARE_MAX),
            queued_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            is_asleep: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            wants_reopen: AtomicBool::new(false),
            next_target: Mutex::new(None),
            drained: Mutex::new(0),
            on_drained: Condvar::new(),
        });
        let writer = Writer { shared: shared.clone(), target, checked: clock::now(), is_failing: false };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || writer.run())?.thread().clone();
        Ok(Self { owner: Arc::new(Owner { shared, thread }) })
    }

    /// An empty buffer, a used one where possible, to build the next line in.
    pub fn buffer(&self) -> Vec<u8> {
        self.shared().spare.pop().unwrap_or_else(|| Vec::with_capacity(LINE_BYTES_USUAL))
    }

    /// Hands over a line, with its line feed. Never waits; a line that finds the queue full is dropped and counted.
    pub fn submit(&self, line: Vec<u8>) {
        let shared = self.shared();
        let bytes = line.len();
        // Counted before it is queued, so that the writer never takes away what has not been added yet.
        if shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUED_BYTES_MAX {
            return shared.drop_line(line);
        }
        if let Err(line) = shared.lines.push(line) {
            return shared.drop_line(line);
        }
        // Pairs with the fence in `Writer::sleep`: either we see that it sleeps, or it sees our line.
        fence(Ordering::SeqCst);
        if shared.is_asleep.load(Ordering::Relaxed) && shared.is_asleep.swap(false, Ordering::Relaxed) {
            self.owner.thread.unpark();
        }
    }

    /// Lines lost so far because the queue was full or the target could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared().dropped.load(Ordering::Relaxed)
    }

    /// Lines from now on go to `target`; lines in the queue may still go to the old one.
    pub fn redirect(&self, target: Target) {
        *lock(&self.shared().next_target) = Some(target);
        self.wake();
    }

    /// Opens the file again at its path before the next line; nothing happens to other targets.
    pub fn reopen(&self) {
        self.shared().wants_reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Waits until every line handed over before is written, at most `limit`; whether that came true.
    pub fn flush(&self, limit: Duration) -> bool {
        let shared = self.shared();
        let drained = lock(&shared.drained);
        // Two passes: the one under way may already have looked at the queue.
        let wanted = *drained + 2;
        self.owner.thread.unpark();
        let wait = shared.on_drained.wait_timeout_while(drained, limit, |drained| {
            self.owner.thread.unpark();
            *drained < wanted
        });
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn wake(&self) {
        self.shared().is_asleep.store(false, Ordering::Relaxed);
        self.owner.thread.unpark();
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }
}

impl LogFile {
    /// Opens `path` to append, creating it with mode 0640.
    ///
    /// # Errors
    ///
    /// What the system says; the message names the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot open log file `{}`: {e}", path.display())))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Whether the path no longer names the open file: it was renamed or removed.
    fn has_moved(&self) -> bool {
        let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
        match (std::fs::metadata(&self.path).map(identity), self.file.metadata().map(identity)) {
            (Ok(at_path), Ok(open)) => at_path != open,
            (Err(e), _) => e.kind() == io::ErrorKind::NotFound,
            (Ok(_), Err(_)) => false,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(log) => log.path.fmt(f),
            Self::Other(_) => f.write_str("other"),
        }
    }
}

/// What both ends see.
#[derive(Debug)]
struct Shared {
    lines: ArrayQueue<Vec<u8>>,
    /// Written lines' buffers, to be used again.
    spare: ArrayQueue<Vec<u8>>,
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
    /// The writer is parked until a line comes; while it rests between batches nobody has to wake it.
    is_asleep: AtomicBool,
    is_closing: AtomicBool,
    wants_reopen: AtomicBool,
    /// Guards the hand-over of a new target; nobody on the request path takes it.
    next_target: Mutex<Option<Target>>,
    /// Passes the writer has finished with an empty queue; taken by the writer and by `flush` only.
    drained: Mutex<u64>,
    on_drained: Condvar,
}

impl Shared {
    fn drop_line(&self, line: Vec<u8>) {
        self.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.recycle(line);
    }

    fn recycle(&self, mut line: Vec<u8>) {
        // A buffer that once held a huge line is let go, or a burst would hold its memory for ever.
        if line.capacity() <= LINE_BYTES_KEPT {
            line.clear();
            let _ = self.spare.push(line);
        }
    }
}

/// Tells the thread to end when nobody holds the sink any more.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The far end, on its own thread.
struct Writer {
    shared: Arc<Shared>,
    target: Target,
    /// When the file's path was last looked at.
    checked: Instant,
    /// The last write failed and was reported; the next failure is not reported again.
    is_failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_BYTES_MAX);
        loop {
            self.renew_target();
            let lines = self.collect(&mut batch);
            if lines > 0 {
                self.write(&mut batch, lines);
            }
            if !self.shared.lines.is_empty() {
                continue;
            }
            *lock(&self.shared.drained) += 1;
            self.shared.on_drained.notify_all();
            if lines > 0 {
                // Lines rarely come alone. Resting a moment lets them gather without each of them waking us.
                thread::park_timeout(BATCH_REST);
            } else if self.shared.is_closing.load(Ordering::Acquire) {
                return;
            } else {
                self.sleep();
            }
        }
    }

    fn collect(&self, batch: &mut Vec<u8>) -> u64 {
        let mut lines = 0;
        while batch.len() < BATCH_BYTES_MAX
            && let Some(line) = self.shared.lines.pop()
        {
            self.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            batch.extend_from_slice(&line);
            self.shared.recycle(line);
            lines += 1;
        }
        lines
    }

    fn write(&mut self, batch: &mut Vec<u8>, lines: u64) {
        let written = match &mut self.target {
            Target::Stdout => io::stdout().lock().write_all(batch).and_then(|()| io::stdout().flush()),
            Target::Stderr => io::stderr().lock().write_all(batch),
            Target::File(log) => log.file.write_all(batch),
            Target::Other(other) => other.write_all(batch).and_then(|()| other.flush()),
        };
        batch.clear();
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
                self.report("cannot write the log, its lines are lost", &error);
            }
        }
    }

    fn renew_target(&mut self) {
        if let Some(target) = lock(&self.shared.next_target).take() {
            self.target = target;
            self.is_failing = false;
        }
        let Target::File(log) = &self.target else { return };
        let now = clock::now();
        let is_asked = self.shared.wants_reopen.swap(false, Ordering::Acquire);
        if !is_asked && now.duration_since(self.checked) < CHECK_EVERY {
            return;
        }
        self.checked = now;
        if !is_asked && !log.has_moved() {
            return;
        }
        match LogFile::open(&log.path) {
            Ok(opened) => self.target = Target::File(opened),
            // The old file is still there to be written to.
            Err(error) => self.report("keeping the old log file", &error),
        }
    }

    /// Once per run of failures, and never about standard error itself: that line could not be seen either.
    fn report(&mut self, what: &'static str, error: &io::Error) {
        if !self.is_failing && !matches!(self.target, Target::Stderr) {
            tracing::error!(error = %error, "{what}");
        }
        self.is_failing = true;
    }

    fn sleep(&self) {
        self.shared.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.shared.lines.is_empty() && !self.shared.is_closing.load(Ordering::Acquire) {
            thread::park_timeout(SLEEP_MAX);
        }
        self.shared.is_asleep.store(false, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these mutexes guard is whole at every moment, also after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines waiting at most; about a third of a second of the busiest proxy.
const LINES_MAX: usize = 16_384;
/// Bytes waiting at most, lest long paths make a full queue a large one.
const QUEUED_BYTES_MAX: usize = 8 << 20;
/// Buffers kept for later lines.
const SPARE_MAX: usize = 1_024;
const LINE_BYTES_USUAL: usize = 640;
const LINE_BYTES_KEPT: usize = 4_096;
/// One write takes this much and the line that crosses it.
const BATCH_BYTES_MAX: usize = 64 << 10;
const BATCH_REST: Duration = Duration::from_millis(5);
const SLEEP_MAX: Duration = Duration::from_secs(1);
const CHECK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
