use std::sync::mpsc;

use super::*;

/// A writer that lets nothing through until it is opened, like a pipe nobody reads.
struct Gate {
    opened: mpsc::Receiver<()>,
    is_open: bool,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Gate {
    fn new() -> (Self, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (open, opened) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        (Self { opened, is_open: false, seen: seen.clone() }, open, seen)
    }
}

impl Write for Gate {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !self.is_open {
            self.opened.recv_timeout(LIMIT).map_err(io::Error::other)?;
            self.is_open = true;
        }
        self.seen.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_come_out_in_order_and_flush_waits_for_them() {
    let (gate, open, seen) = Gate::new();
    open.send(()).unwrap();
    let sink = Sink::start("sink", Target::Other(Box::new(gate))).unwrap();
    let mut expected = String::new();
    for number in 0..2_000 {
        let line = format!("line {number}\n");
        expected.push_str(&line);
        sink.submit(line.into_bytes());
    }
    assert!(sink.flush(LIMIT));
    assert_eq!(String::from_utf8(seen.lock().unwrap().clone()).unwrap(), expected);
    assert_eq!(sink.dropped(), 0);
}

#[test]
fn a_stalled_target_makes_lines_drop_and_nobody_wait() {
    let (gate, open, seen) = Gate::new();
    let sink = Sink::start("sink", Target::Other(Box::new(gate))).unwrap();
    let sent = 3 * LINES_MAX as u64;
    // Several threads at once, none of which may hang although nothing at all can be written.
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..LINES_MAX).for_each(|_| sink.submit(b"a line\n".to_vec())));
        }
    });
    assert!(!sink.flush(Duration::from_millis(20)), "nothing was written, so a flush must not say so");
    assert!(sink.dropped() > 0);
    open.send(()).unwrap();
    assert!(sink.flush(LIMIT));
    let written = seen.lock().unwrap().iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(written + sink.dropped(), sent, "every line is either written or counted");
    // The queue works on as before.
    sink.submit(b"afterwards\n".to_vec());
    assert!(sink.flush(LIMIT));
    assert!(seen.lock().unwrap().ends_with(b"afterwards\n"));
}

#[test]
fn long_lines_cannot_make_a_full_queue_a_large_one() {
    let (gate, open, seen) = Gate::new();
    let sink = Sink::start("sink", Target::Other(Box::new(gate))).unwrap();
    let line = [b'x'; 1 << 16];
    for _ in 0..1_000 {
        sink.submit(line.to_vec());
    }
    assert!(sink.dropped() > 800, "{} of 1000 dropped", sink.dropped());
    open.send(()).unwrap();
    assert!(sink.flush(LIMIT));
    assert!(seen.lock().unwrap().len() <= QUEUED_BYTES_MAX + BATCH_BYTES_MAX + line.len());
    assert_eq!(sink.shared().queued_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_target_that_fails_costs_lines_but_not_the_thread() {
    struct Broken(mpsc::Receiver<()>);
    impl Write for Broken {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0.try_recv().is_ok() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(buf.len()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (break_once, broken) = mpsc::channel();
    break_once.send(()).unwrap();
    let sink = Sink::start("sink", Target::Other(Box::new(Broken(broken)))).unwrap();
    sink.submit(b"lost\n".to_vec());
    assert!(sink.flush(LIMIT));
    assert_eq!(sink.dropped(), 1);
    sink.submit(b"kept\n".to_vec());
    assert!(sink.flush(LIMIT));
    assert_eq!(sink.dropped(), 1);
}

#[test]
fn a_rotated_file_is_left_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let old = dir.path().join("access.log.1");
    let sink = Sink::start("sink", Target::File(LogFile::open(&path).unwrap())).unwrap();
    sink.submit(b"before\n".to_vec());
    assert!(sink.flush(LIMIT));
    std::fs::rename(&path, &old).unwrap();
    sink.reopen();
    assert!(sink.flush(LIMIT));
    sink.submit(b"after\n".to_vec());
    assert!(sink.flush(LIMIT));
    assert_eq!(std::fs::read(&old).unwrap(), b"before\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"after\n");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o137, 0, "not for others to read");
}

#[test]
fn a_rotation_nobody_announced_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let sink = Sink::start("sink", Target::File(LogFile::open(&path).unwrap())).unwrap();
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    let begun = clock::now();
    while !path.exists() {
        assert!(begun.elapsed() < LIMIT, "no new file");
        sink.submit(b"a line\n".to_vec());
        assert!(sink.flush(LIMIT));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn lines_go_to_the_new_target_after_a_redirect() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let sink = Sink::start("sink", Target::File(LogFile::open(&first).unwrap())).unwrap();
    sink.submit(b"one\n".to_vec());
    assert!(sink.flush(LIMIT));
    sink.redirect(Target::File(LogFile::open(&second).unwrap()));
    assert!(sink.flush(LIMIT));
    sink.submit(b"two\n".to_vec());
    assert!(sink.flush(LIMIT));
    assert_eq!(std::fs::read(&first).unwrap(), b"one\n");
    assert_eq!(std::fs::read(&second).unwrap(), b"two\n");
}

#[test]
fn the_last_holder_leaving_ends_the_thread_after_its_lines() {
    let (gate, open, seen) = Gate::new();
    let sink = Sink::start("sink", Target::Other(Box::new(gate))).unwrap();
    sink.submit(b"last words\n".to_vec());
    drop(sink);
    open.send(()).unwrap();
    // The thread drops its target, and with it the other end of this channel, when it ends.
    let begun = clock::now();
    while open.send(()).is_ok() {
        assert!(begun.elapsed() < LIMIT, "the thread still runs");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*seen.lock().unwrap(), b"last words\n");
}

const LIMIT: Duration = Duration::from_secs(20);
