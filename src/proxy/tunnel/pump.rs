//! The pump: a future that moves bytes both ways until one side is done.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::end::{End, EndCause};
use super::frames::{self, ClientFrames, Frames};
use crate::proxy::ledger::Session;
use crate::runtime::scratch::Scratch;

/// Bytes of one read: large, because each costs a system call; shared, because a tunnel that waits needs none.
const SCRATCH: usize = 64 * 1024;
/// Reads of one direction in a row before others on the thread get their turn.
const TURNS: usize = 8;
/// After one side has ended or sent its Close frame the other gets this long to do the same.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pings without an answer that end a tunnel.
const UNANSWERED: u8 = 2;

thread_local! {
    /// Borrowed within one poll only.
    static BUFFER: RefCell<Scratch> = RefCell::new(Scratch::new(SCRATCH));
}

/// tokio's clock, which the timer goes by and tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Who ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// What of one direction the receiver has not taken yet.
#[derive(Debug, Default)]
struct Way {
    pending: Vec<u8>,
    sent: usize,
    needs_flush: bool,
    /// The sender has ended.
    is_over: bool,
    /// The receiver was told so.
    is_shut: bool,
}

/// Frames of both directions.
#[derive(Debug)]
struct Watch {
    client: ClientFrames,
    upstream: Frames,
    /// A ping waits for the end of the backend's current frame.
    wants_ping: bool,
    pings: u32,
    unanswered: u8,
}

/// Both sides and what is between them; a future of how the tunnel ended.
#[derive(Debug)]
pub struct Pump<C, U> {
    client: C,
    upstream: U,
    up: Way,
    down: Way,
    /// `Some`: a websocket. Boxed: most of a tunnel's size, and of no use to other protocols.
    watch: Option<Box<Watch>>,
    /// Silence before a ping; of other protocols before the end.
    patience: Duration,
    /// Silence before the end of a websocket whose client cannot be pinged.
    idle_timeout: Duration,
    session: Session,
    /// When the client last showed life; for other upgrades, either side.
    alive: Instant,
    /// Fires when patience may be over; set anew only when it fires.
    timer: Pin<Box<Sleep>>,
    first: Option<(Side, bool)>,
    /// When the farewell is over.
    until: Option<Instant>,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// With `ping_after` it is a websocket.
    pub(super) fn new(
        (client, upstream): (C, U),
        ping_after: Option<Duration>,
        idle_timeout: Duration,
        session: Session,
    ) -> Self {
        let patience = ping_after.unwrap_or(idle_timeout);
        let watch = || {
            Box::new(Watch {
                client: ClientFrames::new(frames::PROXY),
                upstream: Frames::new(),
                wants_ping: false,
                pings: 0,
                unanswered: 0,
            })
        };
        Self {
            client,
            upstream,
            up: Way::default(),
            down: Way::default(),
            watch: ping_after.map(|_| watch()),
            patience,
            idle_timeout,
            session,
            alive: now(),
            timer: Box::pin(tokio::time::sleep(patience)),
            first: None,
            until: None,
        }
    }

    /// Takes what was read before the tunnel began; the first `head_len` bytes to the client are still HTTP.
    pub(super) fn begin(&mut self, to_upstream: &[u8], to_client: &[u8], head_len: usize) {
        let (head, frames) = to_client.split_at(head_len.min(to_client.len()));
        self.down.pending.extend_from_slice(head);
        // Without a context nothing is written, so nothing can fail.
        let _ = self.came_for_client(frames, None);
        let _ = self.came_for_upstream(to_upstream, None);
        (self.up.needs_flush, self.down.needs_flush) = (true, true);
    }

    /// Bytes from the client on their way: written at once as far as they go, the rest kept.
    fn came_for_upstream(&mut self, bytes: &[u8], mut cx: Option<&mut Context<'_>>) -> io::Result<()> {
        self.session.add_in(bytes.len());
        let (way, upstream) = (&mut self.up, &mut self.upstream);
        match &mut self.watch {
            None => way.give(bytes, upstream, cx),
            Some(watch) => {
                let mut result = Ok(());
                watch.client.pass(bytes, |piece| {
                    if result.is_ok() {
                        result = way.give(piece, upstream, cx.as_deref_mut());
                    }
                });
                result
            }
        }
    }

    /// Bytes from the backend on their way; a waiting ping goes at the first boundary.
    fn came_for_client(&mut self, bytes: &[u8], mut cx: Option<&mut Context<'_>>) -> io::Result<()> {
        self.session.add_out(bytes.len());
        let (way, client) = (&mut self.down, &mut self.client);
        let Some(watch) = &mut self.watch else { return way.give(bytes, client, cx) };
        let (mut at, mut start) = (0, 0);
        while at < bytes.len() {
            at += watch.upstream.read(&bytes[at..]);
            if watch.wants_ping && watch.upstream.is_between() {
                way.give(&bytes[start..at], client, cx.as_deref_mut())?;
                way.give(&watch.next_ping(), client, cx.as_deref_mut())?;
                start = at;
            }
        }
        way.give(&bytes[start..], client, cx)
    }

    /// Moves what there is from the client to the backend.
    fn pump_up(&mut self, cx: &mut Context<'_>) -> Result<(), Side> {
        for _ in 0..TURNS {
            if self.up.pass_on(&mut self.upstream, cx).map_err(|_| Side::Upstream)?.is_pending() || self.up.is_over {
                return Ok(());
            }
            let came = BUFFER.with_borrow_mut(|buffer| -> Result<Option<bool>, Side> {
                let mut read = ReadBuf::new(buffer);
                match Pin::new(&mut self.client).poll_read(cx, &mut read) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(result) => result.map_err(|_| Side::Client)?,
                }
                let bytes = read.filled();
                if !bytes.is_empty() {
                    self.client_lives();
                    self.came_for_upstream(bytes, Some(cx)).map_err(|_| Side::Upstream)?;
                }
                Ok(Some(!bytes.is_empty()))
            })?;
            match came {
                None => return Ok(()),
                Some(true) => {}
                Some(false) => self.ended(Side::Client),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Moves what there is from the backend to the client.
    fn pump_down(&mut self, cx: &mut Context<'_>) -> Result<(), Side> {
        for _ in 0..TURNS {
            let was_blocked = self.down.sent < self.down.pending.len();
            let left = self.down.pending.len() - self.down.sent;
            let passed = self.down.pass_on(&mut self.client, cx).map_err(|_| Side::Client)?;
            if was_blocked && self.down.pending.len() - self.down.sent < left {
                // A client that takes what it was sent is there, however slowly.
                self.client_lives();
            }
            if passed.is_pending() || self.down.is_over {
                return Ok(());
            }
            let came = BUFFER.with_borrow_mut(|buffer| -> Result<Option<bool>, Side> {
                let mut read = ReadBuf::new(buffer);
                match Pin::new(&mut self.upstream).poll_read(cx, &mut read) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(result) => result.map_err(|_| Side::Upstream)?,
                }
                let bytes = read.filled();
                if !bytes.is_empty() {
                    let now = now();
                    self.session.touch(now);
                    if self.watch.is_none() {
                        self.alive = now;
                    }
                    self.came_for_client(bytes, Some(cx)).map_err(|_| Side::Client)?;
                }
                Ok(Some(!bytes.is_empty()))
            })?;
            match came {
                None => return Ok(()),
                Some(true) => {}
                Some(false) => self.ended(Side::Upstream),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn client_lives(&mut self) {
        self.alive = now();
        self.session.touch(self.alive);
        if let Some(watch) = &mut self.watch {
            (watch.unanswered, watch.wants_ping) = (0, false);
        }
    }

    /// One side has said all it will say.
    fn ended(&mut self, side: Side) {
        match side {
            Side::Client => self.up.is_over = true,
            Side::Upstream => self.down.is_over = true,
        }
        self.note_end(side);
    }

    /// Keeps who ended first and whether in order, and starts the farewell.
    fn note_end(&mut self, side: Side) {
        let in_order = match &self.watch {
            None => true,
            Some(watch) => watch.client.frames.has_closed || watch.upstream.has_closed,
        };
        self.first.get_or_insert((side, in_order));
        // Other protocols may go on one way for as long as they are not idle.
        if self.watch.is_some() {
            self.start_farewell();
        }
    }

    fn start_farewell(&mut self) {
        if self.until.is_none() {
            let until = now() + FAREWELL;
            self.until = Some(until);
            self.timer.as_mut().reset(until.into());
        }
    }

    /// A Close frame that has passed is the first word of an end in order.
    fn look_for_close(&mut self) {
        let Some(watch) = &self.watch else { return };
        if self.first.is_some() || !(watch.client.frames.has_closed || watch.upstream.has_closed) {
            return;
        }
        // Within one poll the client is read first, so if both are there the client's came first or at the same time.
        let side = if watch.client.frames.has_closed { Side::Client } else { Side::Upstream };
        self.first = Some((side, true));
        self.start_farewell();
    }

    fn cause(&self, otherwise: EndCause) -> EndCause {
        match self.first {
            Some((Side::Client, true)) => EndCause::ClientClosed,
            Some((Side::Upstream, true)) => EndCause::UpstreamClosed,
            Some((Side::Client, false)) => EndCause::ClientLost,
            Some((Side::Upstream, false)) => EndCause::UpstreamLost,
            None => otherwise,
        }
    }

    fn end(&self, cause: EndCause) -> End {
        let close_code = self.watch.as_ref().and_then(|watch| match self.first {
            Some((Side::Upstream, _)) => watch.upstream.close_code.or(watch.client.frames.close_code),
            _ => watch.client.frames.close_code.or(watch.upstream.close_code),
        });
        let (bytes_in, bytes_out) = self.session.bytes();
        End { cause, close_code, bytes_in, bytes_out }
    }

    /// The timer: farewell over, ping due, patience over, or nothing yet.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<EndCause> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = now();
            if self.until.is_some_and(|until| until <= now) {
                return Poll::Ready(self.cause(EndCause::Idle));
            }
            let due = self.until.unwrap_or_else(|| {
                let waited = self.watch.as_ref().map_or(0, |w| w.unanswered);
                self.alive + self.patience * (u32::from(waited) + 1)
            });
            if due > now {
                self.timer.as_mut().reset(due.into());
                continue;
            }
            let Some(watch) = &mut self.watch else { return Poll::Ready(self.cause(EndCause::Idle)) };
            // What neither side has moved for so long, both have forgotten.
            let is_forgotten = self.session.silence(now) >= self.idle_timeout;
            if self.up.sent < self.up.pending.len() {
                // A busy backend takes nothing, so we read nothing: an answer may be waiting that we cannot see.
                if is_forgotten {
                    return Poll::Ready(self.cause(EndCause::Idle));
                }
                (self.alive, watch.unanswered) = (now, 0);
                continue;
            }
            if watch.unanswered >= UNANSWERED {
                return Poll::Ready(EndCause::PingTimeout);
            }
            if watch.wants_ping {
                // The last one still waits for the end of a frame.
                if self.down.sent < self.down.pending.len() {
                    // Of which the client takes nothing: as good as no answer.
                    watch.unanswered += 1;
                    continue;
                }
                // Which the backend has not sent: who was not asked did not fail to answer. But a frame may never end, or be none.
                if is_forgotten {
                    return Poll::Ready(self.cause(EndCause::Idle));
                }
                self.alive = now;
                continue;
            }
            watch.wants_ping = true;
            if watch.upstream.is_between() {
                let ping = watch.next_ping();
                if self.down.give(&ping, &mut self.client, Some(cx)).is_err() {
                    return Poll::Ready(EndCause::ClientLost);
                }
                self.down.needs_flush = true;
                if self.down.pass_on(&mut self.client, cx).is_err() {
                    return Poll::Ready(EndCause::ClientLost);
                }
            }
        }
        Poll::Pending
    }
}

impl<C, U> Future for Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        if let Poll::Ready(cause) = this.session.poll_ended(cx) {
            return Poll::Ready(this.end(cause));
        }
        let moved = match this.pump_up(cx) {
            // It takes no more; but what it said before, its Close frame perhaps, may still be on its way to us.
            Err(Side::Upstream) => {
                this.up = Way { is_over: true, is_shut: true, ..Way::default() };
                this.start_farewell();
                Ok(())
            }
            moved => moved,
        };
        let moved = moved.and_then(|()| {
            this.look_for_close();
            this.pump_down(cx)
        });
        this.look_for_close();
        if let Err(side) = moved {
            // A reset, or a write that nobody takes: whoever it was is gone. What the other side was still to get and
            // had not taken is lost with it.
            this.note_end(side);
            let cause = this.cause(EndCause::ClientLost);
            return Poll::Ready(this.end(cause));
        }
        // A backend that died says no more: the client is told by the end of its connection, without a Close frame.
        let is_done = match &this.watch {
            Some(_) => this.down.is_shut && (this.up.is_shut || this.first.is_some()),
            None => this.up.is_shut && this.down.is_shut,
        };
        if is_done {
            return Poll::Ready(this.end(this.cause(EndCause::ClientClosed)));
        }
        match this.poll_timer(cx) {
            Poll::Ready(cause) => Poll::Ready(this.end(cause)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Watch {
    fn next_ping(&mut self) -> [u8; frames::PING_BYTES] {
        self.wants_ping = false;
        self.pings = self.pings.wrapping_add(1);
        self.unanswered += 1;
        frames::ping(frames::PROXY, self.pings)
    }
}

impl Way {
    /// Writes what goes at once and keeps the rest; without a context all of it is kept.
    fn give<W: AsyncWrite + Unpin>(
        &mut self,
        mut bytes: &[u8],
        to: &mut W,
        cx: Option<&mut Context<'_>>,
    ) -> io::Result<()> {
        self.needs_flush |= !bytes.is_empty();
        if let Some(cx) = cx.filter(|_| self.pending.is_empty()) {
            while !bytes.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => bytes = &bytes[n..],
                    Poll::Ready(Err(e)) => return Err(e),
                    Poll::Pending => break,
                }
            }
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what is kept, flushes, and passes the end on. Ready when nothing is left to do.
    fn pass_on<W: AsyncWrite + Unpin>(&mut self, to: &mut W, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        while self.sent < self.pending.len() {
            match Pin::new(&mut *to).poll_write(cx, &self.pending[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if self.sent > 0 {
            // Given back: an idle tunnel keeps no buffer.
            (self.pending, self.sent) = (Vec::new(), 0);
        }
        if self.needs_flush {
            match Pin::new(&mut *to).poll_flush(cx)? {
                Poll::Ready(()) => self.needs_flush = false,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if self.is_over && !self.is_shut {
            match Pin::new(&mut *to).poll_shutdown(cx) {
                // An end that cannot be passed on any more has been reached all the same.
                Poll::Ready(_) => self.is_shut = true,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
