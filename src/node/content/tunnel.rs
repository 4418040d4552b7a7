//! Connections that left HTTP and are none of [`super::session`]: bytes pass unchanged and in order, both ways.
//!
//! Where websocket frames pass, a silent browser is pinged between two of them, and its answers are taken out again, so that
//! nobody on the way takes an idle app for a dead one, and a dead browser is noticed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::session::{PING_AFTER, UNANSWERED};
use crate::shiny::frames::{ClientFrames, Frames, NODE, ping};

/// Bytes of one read.
const READ: usize = 8 << 10;
/// After one side of a websocket has ended the other gets this long.
const FAREWELL: Duration = Duration::from_secs(5);
/// A Close frame of ours, with 1000 (RFC 6455 §7.4.1).
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe8];
/// And with 1008.
const CLOSE_POLICY: [u8; 4] = [0x88, 2, 0x03, 0xf0];

/// What both ways and the clock know. Times are milliseconds since the beginning.
struct Shared {
    began: Instant,
    /// The browser said something, or took something.
    heard: AtomicU64,
    /// Somebody said something of the app's.
    active: AtomicU64,
    /// The worker takes nothing.
    is_blocked: AtomicBool,
    /// The browser takes nothing.
    is_writing: AtomicBool,
    /// The browser is to be pinged.
    wants_ping: AtomicBool,
    /// Says so.
    ping: Notify,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn mark(&self, what: &AtomicU64) {
        what.store(self.now(), Ordering::Relaxed);
    }
}

/// Passes bytes until one side is done, nobody says anything of the app's for `timeout`, or the browser is turned away.
pub async fn run<C, W, T>(browser: C, worker: W, is_websocket: bool, timeout: Duration, turned_away: T)
where
    C: AsyncRead + AsyncWrite,
    W: AsyncRead + AsyncWrite,
    T: Future<Output = ()>,
{
    let shared = Shared {
        began: Instant::now(),
        heard: AtomicU64::new(0),
        active: AtomicU64::new(0),
        is_blocked: AtomicBool::new(false),
        is_writing: AtomicBool::new(false),
        wants_ping: AtomicBool::new(false),
        ping: Notify::new(),
    };
    let (browser_reads, browser_writes) = tokio::io::split(browser);
    let (worker_reads, worker_writes) = tokio::io::split(worker);
    let mut down = Down { to: browser_writes, frames: is_websocket.then(Frames::new), is_whole: true, pings: 0 };
    let ended = {
        let up = up(browser_reads, worker_writes, is_websocket, &shared);
        let passed = both(up, down.run(worker_reads, &shared), is_websocket);
        tokio::select! {
            () = passed => None,
            end = watch(&shared, is_websocket, timeout) => Some(end),
            () = turned_away => Some(End::TurnedAway),
        }
    };
    let last = match ended {
        Some(End::Idle) => Some(CLOSE),
        Some(End::TurnedAway) => Some(CLOSE_POLICY),
        Some(End::Silent) | None => None,
    };
    if let Some(last) = last.filter(|_| is_websocket && down.is_between()) {
        let last = async { down.to.write_all(&last).await.and(down.to.shutdown().await) };
        let _ = tokio::time::timeout(FAREWELL, last).await;
    }
}

/// Both ways to their ends; of a websocket a moment longer than one of them. What breaks ends both.
async fn both(up: impl Future<Output = bool>, down: impl Future<Output = bool>, is_websocket: bool) {
    tokio::pin!(up, down);
    let mut until = None;
    let (mut is_up_over, mut is_down_over) = (false, false);
    while !(is_up_over && is_down_over) {
        let in_order = tokio::select! {
            in_order = &mut up, if !is_up_over => { is_up_over = true; in_order }
            in_order = &mut down, if !is_down_over => { is_down_over = true; in_order }
            () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
        };
        if !in_order {
            return;
        }
        until = is_websocket.then(|| Instant::now() + FAREWELL);
    }
}

/// From the browser; whether it ended in order.
async fn up<C, W>(mut from: ReadHalf<C>, mut to: WriteHalf<W>, is_websocket: bool, shared: &Shared) -> bool
where
    C: AsyncRead + AsyncWrite,
    W: AsyncRead + AsyncWrite,
{
    let mut frames = is_websocket.then(|| ClientFrames::new(NODE));
    let mut buffer = vec![0; READ];
    let mut passed = Vec::new();
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return false };
        if count == 0 {
            return to.shutdown().await.is_ok();
        }
        shared.mark(&shared.heard);
        let bytes = match &mut frames {
            None => {
                shared.mark(&shared.active);
                &buffer[..count]
            }
            Some(frames) => {
                passed.clear();
                frames.pass(&buffer[..count], |piece| passed.extend_from_slice(piece));
                if std::mem::take(&mut frames.frames.has_data) {
                    shared.mark(&shared.active);
                }
                &passed
            }
        };
        shared.is_blocked.store(true, Ordering::Relaxed);
        let written = to.write_all(bytes).await;
        shared.is_blocked.store(false, Ordering::Relaxed);
        if written.is_err() {
            return false;
        }
    }
}

/// To the browser.
struct Down<C> {
    to: WriteHalf<C>,
    /// `None`: no frames.
    frames: Option<Frames>,
    /// What was read was written.
    is_whole: bool,
    pings: u32,
}

impl<C: AsyncRead + AsyncWrite> Down<C> {
    fn is_between(&self) -> bool {
        self.is_whole && self.frames.as_ref().is_some_and(Frames::is_between)
    }

    /// Whether the worker ended in order.
    async fn run<W: AsyncRead + AsyncWrite>(&mut self, mut from: ReadHalf<W>, shared: &Shared) -> bool {
        let mut buffer = vec![0; READ];
        loop {
            if !self.pinged(shared).await {
                return false;
            }
            let count = tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(count) => count,
                    Err(_) => return false,
                },
                () = shared.ping.notified() => continue,
            };
            if count == 0 {
                return self.to.shutdown().await.is_ok();
            }
            let mut at = 0;
            while at < count {
                let end = self.follow(&buffer[at..count], shared) + at;
                if !self.write(&buffer[at..end], shared).await || !self.pinged(shared).await {
                    return false;
                }
                at = end;
            }
        }
    }

    /// How many of these bytes go at once: all, or those before the place for a ping.
    fn follow(&mut self, bytes: &[u8], shared: &Shared) -> usize {
        let Some(frames) = &mut self.frames else {
            shared.mark(&shared.active);
            return bytes.len();
        };
        let mut end = 0;
        while end < bytes.len() {
            end += frames.read(&bytes[end..]);
            if frames.is_between() && shared.wants_ping.load(Ordering::Relaxed) {
                break;
            }
        }
        if std::mem::take(&mut frames.has_data) {
            shared.mark(&shared.active);
        }
        end
    }

    /// A ping that is wanted is sent, if it may go here. Whether the browser takes it.
    async fn pinged(&mut self, shared: &Shared) -> bool {
        if !self.is_between() || !shared.wants_ping.swap(false, Ordering::Relaxed) {
            return true;
        }
        self.pings = self.pings.wrapping_add(1);
        let heard = shared.heard.load(Ordering::Relaxed);
        let is_taken = self.write(&ping(NODE, self.pings), shared).await;
        // Only an answer to it says something.
        let _ = shared.heard.fetch_min(heard, Ordering::Relaxed);
        is_taken
    }

    async fn write(&mut self, mut bytes: &[u8], shared: &Shared) -> bool {
        self.is_whole = false;
        shared.is_writing.store(true, Ordering::Relaxed);
        while !bytes.is_empty() {
            match self.to.write(bytes).await {
                Ok(0) | Err(_) => return false,
                Ok(count) => bytes = &bytes[count..],
            }
            // Who takes what they are sent is there.
            shared.mark(&shared.heard);
        }
        shared.is_writing.store(false, Ordering::Relaxed);
        self.is_whole = true;
        self.to.flush().await.is_ok()
    }
}

/// Why the clock ends a tunnel.
enum End {
    Idle,
    Silent,
    TurnedAway,
}

/// Has a silent browser pinged, until it or the app has been silent for too long.
async fn watch(shared: &Shared, is_websocket: bool, timeout: Duration) -> End {
    let at = |mark: &AtomicU64| shared.began + Duration::from_millis(mark.load(Ordering::Relaxed));
    let (mut unanswered, mut before) = (0, shared.began);
    loop {
        let heard = at(&shared.heard);
        if heard != before {
            (unanswered, before) = (0, heard);
        }
        let (due, idle) = (heard + PING_AFTER * (unanswered + 1), at(&shared.active) + timeout);
        let now = Instant::now();
        if idle <= now {
            return End::Idle;
        }
        if !is_websocket || due > now {
            tokio::time::sleep_until(if is_websocket { due.min(idle) } else { idle }).await;
            continue;
        }
        let was_asked = !shared.wants_ping.load(Ordering::Relaxed) || shared.is_writing.load(Ordering::Relaxed);
        if shared.is_blocked.load(Ordering::Relaxed) || unanswered > 0 && !was_asked {
            // A busy worker takes nothing, so an answer may wait that we cannot see; and whoever was not asked, because the
            // worker is within a frame, did not fail to answer.
            shared.mark(&shared.heard);
            continue;
        }
        if unanswered >= UNANSWERED {
            return End::Silent;
        }
        unanswered += 1;
        shared.wants_ping.store(true, Ordering::Relaxed);
        shared.ping.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const HELLO: [u8; 7] = [0x81, 5, b'h', b'e', b'l', b'l', b'o'];

    /// A tunnel and its two ends.
    fn tunnel(timeout: Duration) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let ((browser, here), (there, worker)) = (tokio::io::duplex(1024), tokio::io::duplex(1024));
        (browser, worker, tokio::spawn(run(here, there, true, timeout, std::future::pending())))
    }

    async fn read<const N: usize>(from: &mut DuplexStream) -> [u8; N] {
        let mut bytes = [0; N];
        from.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// What a browser answers to a ping.
    fn pong(count: u32) -> Vec<u8> {
        let mut bytes = vec![0x8a, 0x88, 0, 0, 0, 0];
        bytes.extend_from_slice(&ping(NODE, count)[2..]);
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_browser_is_pinged_between_frames_and_its_answers_are_no_business_of_the_workers() {
        let (mut browser, mut worker, _) = tunnel(Duration::from_secs(3600));
        assert_eq!(read::<10>(&mut browser).await, ping(NODE, 1));
        browser.write_all(&pong(1)).await.unwrap();
        browser.write_all(b"\x81\x81\0\0\0\0x").await.unwrap();
        assert_eq!(read::<7>(&mut worker).await, *b"\x81\x81\0\0\0\0x");
        // Half a frame: the ping waits for the other half.
        worker.write_all(&HELLO[..3]).await.unwrap();
        assert_eq!(read::<3>(&mut browser).await, HELLO[..3]);
        tokio::time::sleep(PING_AFTER + Duration::from_secs(1)).await;
        worker.write_all(&[&HELLO[3..], &HELLO].concat()).await.unwrap();
        assert_eq!(read::<4>(&mut browser).await, HELLO[3..]);
        assert_eq!(read::<10>(&mut browser).await, ping(NODE, 2));
        assert_eq!(read::<7>(&mut browser).await, HELLO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_that_does_not_answer_is_gone_without_a_farewell() {
        let (mut browser, mut worker, task) = tunnel(Duration::from_secs(3600));
        let began = Instant::now();
        let mut seen = Vec::new();
        browser.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, [ping(NODE, 1), ping(NODE, 2)].concat());
        assert_eq!(began.elapsed().as_secs(), 3 * PING_AFTER.as_secs());
        task.await.unwrap();
        assert_eq!(worker.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_says_nothing_ends_whatever_is_pinged() {
        let (mut browser, mut worker, task) = tunnel(Duration::from_secs(60));
        let began = Instant::now();
        assert_eq!(read::<10>(&mut browser).await, ping(NODE, 1));
        browser.write_all(&pong(1)).await.unwrap();
        assert_eq!(read::<10>(&mut browser).await, ping(NODE, 2));
        browser.write_all(&pong(2)).await.unwrap();
        worker.write_all(&[0x89, 0]).await.unwrap();
        assert_eq!(read::<2>(&mut browser).await, [0x89, 0], "the worker's own pings pass");
        assert_eq!(read::<4>(&mut browser).await, CLOSE);
        assert_eq!(began.elapsed().as_secs(), 60);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_websocket_passes_as_it_is() {
        let ((mut browser, here), (there, mut worker)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let task = tokio::spawn(run(here, there, false, Duration::from_secs(60), std::future::pending()));
        browser.write_all(&pong(1)).await.unwrap();
        assert_eq!(read::<14>(&mut worker).await.to_vec(), pong(1));
        worker.write_all(b"bye").await.unwrap();
        worker.shutdown().await.unwrap();
        let mut seen = Vec::new();
        browser.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"bye");
        drop(browser);
        task.await.unwrap();
    }
}
