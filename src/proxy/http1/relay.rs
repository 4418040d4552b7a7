//! One attempt at one backend: the request on its way there and the answer on its way back, both at once.
//!
//! A future polled by hand, because either side may end, stall or speak early at any moment. What it reads goes through
//! one buffer per thread, borrowed within a single poll: an exchange that waits holds none.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context as Cx, Poll};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Sending;
use super::answer::{self, Answer, Ending};
use super::outlet::Outlet;
use super::pipe::{Failed, Pause, Splice};
use crate::proxy::connection::framing::{Follower, Framing, Parts};
use crate::proxy::connection::{Deadline, Downstream, EARLY_BYTES, Refusal};
use crate::proxy::error::Cause;
use crate::proxy::headers::AnswerEdits;
use crate::proxy::request::{Broke, Context, Reply};
use crate::proxy::stream::Stream;

/// Bytes of the buffer: each read is a system call, and what it brings is one record or segment after another.
const SCRATCH: usize = 256 * 1024;
/// Bytes of the first reads of a body. More once the other side takes as much, less when it does not: what it leaves is
/// kept for it.
const READ_FIRST: usize = 32 * 1024;
const READ_LEAST: usize = 8 * 1024;
/// Body bytes that are put behind the head, so that both are one write.
const TOGETHER: usize = 16 * 1024;
/// Reads of one direction in a row before others on the thread get their turn.
const TURNS: usize = 8;
/// Answers before the final one.
const INTERIM_MAX: u32 = 64;
/// How long a backend that takes no more of a request may need to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH_OF_THREAD: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
    /// Where heads and chunks are put together.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Stop {
    /// The answer has gone to the client, whole.
    Done,
    /// Another backend is to be asked.
    Again,
    /// The backend broke, and nothing of an answer was passed on.
    Broke(Broke),
    /// It broke within its answer.
    BrokeWithin(Broke),
    /// Something else went wrong.
    Failed(Cause),
}

/// Both sides and what is between them.
pub(super) struct Relay<'a> {
    pub(super) down: &'a mut Downstream,
    pub(super) line: &'a mut Stream,
    pub(super) context: &'a mut Context,
    pub(super) sending: &'a mut Sending,
    pub(super) deadline: &'a mut Deadline,
    pub(super) is_stopping: bool,
    pub(super) state: State,
}

/// What changes during an attempt.
pub(super) struct State {
    /// Bytes of the request's first part that went.
    sent: usize,
    to_backend: Outlet,
    request_splice: Splice,
    /// It takes no more of the request.
    is_deaf: bool,
    answer: Phase,
    interim: u32,
    to_client: Outlet,
    answer_splice: Splice,
    /// The status that went to the client.
    pub(super) status: Option<u16>,
    /// Body bytes that went to the client.
    pub(super) bytes_out: u64,
    /// The client's connection ends behind the answer.
    pub(super) closes: bool,
    /// The backend's connection can carry another request.
    pub(super) is_clean: bool,
    chunk: usize,
    /// When anything last moved.
    since: Instant,
    has_moved: bool,
    /// The client's end is no news, or it has said more than we keep.
    is_watched: bool,
}

enum Phase {
    /// What there is of the head.
    Head(Vec<u8>),
    /// `None`: it ends with the connection.
    Body {
        follower: Option<Follower>,
        parts: Parts,
        wraps: bool,
    },
    Done,
}

impl State {
    pub(super) fn new(is_watched: bool) -> Self {
        Self {
            sent: 0,
            to_backend: Outlet::default(),
            request_splice: Splice::default(),
            is_deaf: false,
            answer: Phase::Head(Vec::new()),
            interim: 0,
            to_client: Outlet::default(),
            answer_splice: Splice::default(),
            status: None,
            bytes_out: 0,
            closes: false,
            is_clean: false,
            chunk: READ_FIRST,
            since: Instant::now(),
            has_moved: false,
            is_watched,
        }
    }
}

impl State {
    /// The backend has taken the whole request.
    pub(super) fn has_sent(&self, sending: &Sending) -> bool {
        let is_backed_up = self.to_backend.is_busy() || self.request_splice.is_busy();
        !self.is_deaf && self.sent == sending.bytes.len() && sending.body.is_done() && !is_backed_up
    }
}

impl Relay<'_> {
    /// Moves what can be moved; ready when the attempt is over.
    pub(super) fn poll(&mut self, cx: &mut Cx<'_>) -> Poll<Stop> {
        self.state.has_moved = false;
        if let Err(stop) = self.pump_request(cx) {
            return Poll::Ready(stop);
        }
        match self.pump_answer(cx) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Poll::Ready(Stop::Done),
            Err(stop) => return Poll::Ready(stop),
        }
        if self.state.is_watched && self.has_whole_request() && self.has_left(cx) {
            return Poll::Ready(Stop::Failed(Cause::ClientGone));
        }
        self.poll_deadline(cx)
    }

    /// The client has sent all of its request.
    fn has_whole_request(&self) -> bool {
        self.sending.body.is_done()
    }

    fn pump_request(&mut self, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let state = &mut self.state;
        if state.is_deaf {
            return Ok(());
        }
        while state.sent < self.sending.bytes.len() {
            match Pin::new(&mut *self.line).poll_write(cx, &self.sending.bytes[state.sent..]) {
                Poll::Ready(Ok(n @ 1..)) => (state.sent, state.has_moved) = (state.sent + n, true),
                Poll::Ready(_) => {
                    self.becomes_deaf();
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
        for _ in 0..TURNS {
            let backlog = self.state.to_backend.backlog();
            match self.state.to_backend.pass_on(self.line, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.becomes_deaf();
                    return Ok(());
                }
                Poll::Pending => {
                    self.state.has_moved |= self.state.to_backend.backlog() < backlog;
                    return Ok(());
                }
            }
            match self.splice_request(cx)? {
                Pause::Over if self.has_whole_request() || !self.read_request(cx)? => return Ok(()),
                Pause::Over => {}
                Pause::Ended => return Err(Stop::Failed(Cause::ClientGone)),
                Pause::Source | Pause::Taker | Pause::Turn => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn splice_request(&mut self, cx: &mut Cx<'_>) -> Result<Pause, Stop> {
        let Self { down, line, sending, state, context, .. } = self;
        // How much comes in chunks is not known beforehand: it is looked at, lest the backend get more than the route takes.
        if !matches!(sending.head.framing, Framing::Length(_)) {
            return Ok(Pause::Over);
        }
        let (Some(from), Some(to)) = (down.stream.plain_tcp(), line.plain_tcp()) else { return Ok(Pause::Over) };
        match state.request_splice.run(&mut sending.body, from, to, cx) {
            Ok((moved, pause)) => {
                state.has_moved |= moved > 0;
                sending.bytes_in += moved;
                if context.body_overflows(moved) { Err(Stop::Failed(Cause::BodyTooLarge)) } else { Ok(pause) }
            }
            Err(Failed::Source) => Err(Stop::Failed(Cause::ClientGone)),
            Err(Failed::Taker) => {
                self.becomes_deaf();
                Ok(Pause::Taker)
            }
        }
    }

    fn becomes_deaf(&mut self) {
        self.state.is_deaf = true;
        self.state.has_moved = true;
    }

    /// Reads once from the client and passes on what came; `false`: nothing did.
    fn read_request(&mut self, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        let Self { down, line, sending, state, context, .. } = self;
        SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            let room = state.chunk.min(scratch.len());
            let mut came = ReadBuf::new(&mut scratch[..room]);
            match Pin::new(&mut down.stream).poll_read(cx, &mut came) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(_)) => return Err(Stop::Failed(Cause::ClientGone)),
                Poll::Ready(Ok(())) if came.filled().is_empty() => return Err(Stop::Failed(Cause::ClientGone)),
                Poll::Ready(Ok(())) => state.has_moved = true,
            }
            let bytes = came.filled();
            // Looked at before any of it goes: the backend gets no byte more than the route takes.
            let Ok(passed) = { sending.body }.pass(bytes, Parts::Data, |_| {}) else {
                down.facts.refused(Refusal::BadChunk);
                return Err(Stop::Failed(Cause::BadBody));
            };
            sending.bytes_in += passed.data;
            if context.body_overflows(passed.data) {
                return Err(Stop::Failed(Cause::BodyTooLarge));
            }
            let mut result = Ok(true);
            let _ = sending.body.pass(bytes, Parts::All, |piece| {
                if result.is_ok() {
                    result = state.to_backend.give(piece, line, cx);
                }
            });
            down.buf.extend_from_slice(&bytes[passed.used..]);
            match result {
                Ok(all_went) => state.chunk = next_chunk(state.chunk, bytes.len(), all_went),
                Err(_) => (state.is_deaf, state.has_moved) = (true, true),
            }
            Ok(true)
        })
    }

    fn pump_answer(&mut self, cx: &mut Cx<'_>) -> Result<Poll<()>, Stop> {
        for _ in 0..TURNS {
            let backlog = self.state.to_client.backlog();
            match self.state.to_client.pass_on(&mut self.down.stream, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Stop::Failed(Cause::ClientGone)),
                Poll::Pending => {
                    self.state.has_moved |= self.state.to_client.backlog() < backlog;
                    return Ok(Poll::Pending);
                }
            }
            match self.splice_answer(cx)? {
                Pause::Over => {}
                Pause::Ended => return Err(self.broke(Broke::Closed)),
                Pause::Source | Pause::Taker | Pause::Turn => return Ok(Poll::Pending),
            }
            if matches!(self.state.answer, Phase::Done) {
                return Ok(Poll::Ready(()));
            }
            if !self.read_answer(cx)? {
                return Ok(Poll::Pending);
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn splice_answer(&mut self, cx: &mut Cx<'_>) -> Result<Pause, Stop> {
        let Self { down, line, state, .. } = self;
        let Phase::Body { follower: Some(follower), .. } = &mut state.answer else { return Ok(Pause::Over) };
        let (Some(from), Some(to)) = (line.plain_tcp(), down.stream.plain_tcp()) else { return Ok(Pause::Over) };
        match state.answer_splice.run(follower, from, to, cx) {
            Ok((moved, pause)) => {
                state.has_moved |= moved > 0;
                state.bytes_out += moved;
                if follower.is_done() && pause == Pause::Over {
                    state.answer = Phase::Done;
                }
                Ok(pause)
            }
            Err(Failed::Source) => Err(self.broke(Broke::Closed)),
            Err(Failed::Taker) => Err(Stop::Failed(Cause::ClientGone)),
        }
    }

    /// Reads once from the backend and passes on what came; `false`: nothing did.
    fn read_answer(&mut self, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            let before = match &self.state.answer {
                Phase::Head(carry) => {
                    scratch[..carry.len()].copy_from_slice(carry);
                    carry.len()
                }
                _ => 0,
            };
            let end = (before + self.state.chunk).min(scratch.len());
            let mut came = ReadBuf::new(&mut scratch[before..end]);
            match Pin::new(&mut *self.line).poll_read(cx, &mut came) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(_)) => return Err(self.broke(Broke::Closed)),
                Poll::Ready(Ok(())) => self.state.has_moved = true,
            }
            let n = came.filled().len();
            if n == 0 {
                return self.backend_ended(cx).map(|()| true);
            }
            OUT.with_borrow_mut(|out| {
                out.clear();
                let bytes = &scratch[..before + n];
                let all_went = match self.state.answer {
                    Phase::Head(_) => self.came_of_head(bytes, out, cx)?,
                    _ => self.came_of_body(bytes, out, cx)?,
                };
                self.state.chunk = next_chunk(self.state.chunk, n, all_went);
                Ok(true)
            })
        })
    }

    fn broke(&self, how: Broke) -> Stop {
        match self.state.status {
            None => Stop::Broke(how),
            Some(_) => Stop::BrokeWithin(how),
        }
    }

    fn backend_ended(&mut self, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let Phase::Body { follower: None, wraps, .. } = self.state.answer else {
            return Err(self.broke(Broke::Closed));
        };
        self.state.answer = Phase::Done;
        let end: &[u8] = if wraps { b"0\r\n\r\n" } else { b"" };
        self.state.to_client.give(end, &mut self.down.stream, cx).map_err(|_| Stop::Failed(Cause::ClientGone))?;
        Ok(())
    }

    /// Bytes while the head is not whole: all there is of it.
    fn came_of_head(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        loop {
            match answer::read(bytes, |answer| self.head(answer, out)) {
                Err(how) => return Err(self.broke(how)),
                Ok(None) => {
                    self.state.answer = Phase::Head(bytes.to_vec());
                    return self.give(out, cx);
                }
                Ok(Some(Err(stop))) => return Err(stop),
                Ok(Some(Ok(len))) => bytes = &bytes[len..],
            }
            if !matches!(self.state.answer, Phase::Head(_)) {
                return self.came_of_body(bytes, out, cx);
            }
        }
    }

    /// A whole head, of the answer or of one before it; how many bytes it had.
    fn head(&mut self, answer: &Answer<'_>, out: &mut Vec<u8>) -> Result<usize, Stop> {
        let is_http10 = self.sending.head.is_http10;
        if answer.status < 200 {
            self.state.interim += 1;
            // 101 was not asked for.
            if answer.status == 101 || self.state.interim > INTERIM_MAX {
                return Err(self.broke(Broke::Invalid));
            }
            // HTTP/1.0 knows none of them (RFC 9110 §15.2).
            if !is_http10 {
                let edits = AnswerEdits::new(answer.status, answer.fields);
                answer.write(out, &edits, None, None, Ending::default());
            }
            return Ok(answer.len);
        }
        let to_head = self.sending.method == Method::HEAD;
        let framing = answer.framing(to_head).map_err(Stop::Broke)?;
        let Reply::Pass { edits, cookie, .. } = self.context.answered(answer.status, answer.fields) else {
            return Err(Stop::Again);
        };
        let unwraps = is_http10 && (framing == Some(Framing::Chunked) || to_head);
        // To HTTP/1.0 an end that no length tells is the end of the connection (RFC 9112 §6.3).
        let ends_with_connection = is_http10 && matches!(framing, None | Some(Framing::Chunked));
        let wraps = framing.is_none() && !is_http10;
        self.state.closes =
            self.sending.head.closes || self.is_stopping || ends_with_connection || !self.has_whole_request();
        let ending = Ending { closes: self.state.closes, stays: is_http10, wraps, unwraps };
        answer.write(out, &edits, Some(&self.context.request_id), cookie.as_ref(), ending);
        self.state.status = Some(answer.status);
        self.state.is_clean = framing.is_some() && answer.keeps();
        self.state.answer = match framing {
            Some(Framing::Empty) => Phase::Done,
            _ => Phase::Body {
                follower: framing.map(Follower::new),
                parts: if unwraps { Parts::Data } else { Parts::All },
                wraps,
            },
        };
        Ok(answer.len)
    }

    /// Bytes behind the head, which may be waiting in `out` to go with them.
    fn came_of_body(&mut self, bytes: &[u8], out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        let Self { down, state, .. } = self;
        let State { to_client, answer, bytes_out, is_clean, .. } = state;
        let Phase::Body { follower, parts, wraps } = answer else {
            // The backend says more than its answer.
            *is_clean &= bytes.is_empty();
            return self.give(out, cx);
        };
        let Some(follower) = follower else {
            *bytes_out += bytes.len() as u64;
            if *wraps && !bytes.is_empty() {
                use std::io::Write as _;
                // Writing into a vector cannot fail.
                let _ = write!(out, "{:x}\r\n", bytes.len());
            }
            out.extend_from_slice(bytes);
            if *wraps && !bytes.is_empty() {
                out.extend_from_slice(b"\r\n");
            }
            return self.give(out, cx);
        };
        let gone = |_| Stop::Failed(Cause::ClientGone);
        let (has_head, mut written) = (!out.is_empty(), Ok(true));
        let is_small = bytes.len() <= TOGETHER;
        if !is_small {
            written = to_client.give(out, &mut down.stream, cx);
            out.clear();
        }
        let passed = follower.pass(bytes, *parts, |piece| {
            if is_small {
                out.extend_from_slice(piece);
            } else if written.is_ok() {
                written = to_client.give(piece, &mut down.stream, cx);
            }
        });
        let all_went = written.map_err(gone)?;
        let Ok(passed) = passed else {
            if is_small && has_head {
                // Nothing of it has gone yet.
                return Err(Stop::Broke(Broke::Invalid));
            }
            // What was well-formed before it goes to the client, and no more.
            self.give(out, cx)?;
            return Err(Stop::BrokeWithin(Broke::Invalid));
        };
        *bytes_out += passed.data;
        *is_clean &= passed.used == bytes.len();
        if follower.is_done() {
            *answer = Phase::Done;
        }
        Ok(all_went && self.give(out, cx)?)
    }

    fn give(&mut self, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        let went = self.state.to_client.give(out, &mut self.down.stream, cx);
        // A large one, as an answer without length makes it, is not kept for ever.
        out.clear();
        out.shrink_to(TOGETHER * 4);
        went.map_err(|_| Stop::Failed(Cause::ClientGone))
    }

    /// Whether the client has gone. What it says early is kept, as far as it may; the kernel holds the rest back.
    fn has_left(&mut self, cx: &mut Cx<'_>) -> bool {
        while self.down.buf.len() < EARLY_BYTES {
            let mut scratch = [0; 2048];
            let mut early = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.down.stream).poll_read(cx, &mut early) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) if early.filled().is_empty() => return true,
                Poll::Ready(Ok(())) => self.down.buf.extend_from_slice(early.filled()),
            }
        }
        false
    }

    /// Whose turn it is to move, and how long it may take.
    fn poll_deadline(&mut self, cx: &mut Cx<'_>) -> Poll<Stop> {
        if self.state.has_moved {
            self.state.since = Instant::now();
        }
        let Some(timeouts) = self.context.timeouts() else { return Poll::Ready(Stop::Failed(Cause::Internal)) };
        let waits_for_client = self.state.to_client.is_busy() || self.state.answer_splice.is_busy();
        let is_backed_up = self.state.to_backend.is_busy() || self.state.request_splice.is_busy();
        let waits_for_taking = !self.state.is_deaf && (self.state.sent < self.sending.bytes.len() || is_backed_up);
        let waits_for_body = !self.state.is_deaf && !self.has_whole_request() && !is_backed_up;
        let limit = match () {
            () if waits_for_client || waits_for_body || waits_for_taking => timeouts.body,
            () if self.state.is_deaf && self.state.status.is_none() => LAST_WORDS,
            () => timeouts.response,
        };
        std::task::ready!(self.deadline.poll_at(self.state.since + limit, cx));
        Poll::Ready(match () {
            () if waits_for_client => Stop::Failed(Cause::BodyTimeout),
            () if waits_for_taking => self.broke(Broke::TimedOut),
            () if waits_for_body => Stop::Failed(Cause::BodyTimeout),
            () if self.state.is_deaf && self.state.status.is_none() => Stop::Broke(Broke::Closed),
            () => self.broke(Broke::TimedOut),
        })
    }
}

/// Bytes of the next read: more if this one was full and all of it went, less if some of it did not.
fn next_chunk(chunk: usize, came: usize, all_went: bool) -> usize {
    match all_went {
        true if came == chunk => (chunk * 2).min(SCRATCH),
        true => chunk,
        false => (chunk / 2).max(READ_LEAST),
    }
}
