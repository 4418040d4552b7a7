//! One attempt at one backend: the request on its way there and the answer on its way back, both at once.
//!
//! A future polled by hand, because either side may end, stall or speak early at any moment. What it reads goes through
//! one buffer per thread, borrowed within a single poll: an exchange that waits holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context as Cx, Poll};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::outlet::Outlet;
use super::pipe::{Failed, Pause, Splice};
use super::{Client, Final, Sending};
use crate::proxy::connection::Deadline;
use crate::proxy::connection::framing::{Follower, Framing, Parts};
use crate::proxy::error::Cause;
use crate::proxy::headers::{AnswerEdits, Known};
use crate::proxy::request::{Broke, Context, Reply};
use crate::proxy::stream::Stream;
use crate::runtime::clock;
use crate::runtime::scratch::Scratch;
use crate::shiny::shim::Injector;

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
    static SCRATCH_OF_THREAD: RefCell<Scratch> = RefCell::new(Scratch::new(SCRATCH));
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
    /// The backend left HTTP. With the head of its 101 as the client gets it, so many bytes of it, and what came behind.
    Switched { to_client: Vec<u8>, head_len: usize },
}

/// Both sides and what is between them.
pub(super) struct Relay<'a, C> {
    pub(super) client: &'a mut C,
    pub(super) line: &'a mut Stream,
    pub(super) context: &'a mut Context,
    pub(super) sending: &'a mut Sending,
    pub(super) deadline: &'a mut Deadline,
    pub(super) is_stopping: bool,
    pub(super) state: &'a mut State,
}

/// What changes during an attempt.
pub(super) struct State {
    /// Bytes of the request's first part that went.
    sent: usize,
    to_backend: Outlet,
    request_splice: Splice,
    /// It takes no more of the request.
    is_deaf: bool,
    /// It has reset the connection. If a write learned that, a read will not be told again.
    pub(super) was_reset: bool,
    answer: Phase,
    interim: u32,
    answer_splice: Splice,
    /// The backend's connection, once it has left HTTP.
    pub(super) line: Option<Stream>,
    /// The status that went to the client.
    pub(super) status: Option<u16>,
    /// Body bytes that went to the client.
    pub(super) bytes_out: u64,
    /// The backend's connection can carry another request.
    pub(super) is_clean: bool,
    chunk: usize,
    /// When anything last moved; `None`: not yet.
    since: Option<Instant>,
    has_moved: bool,
}

enum Phase {
    /// What there is of the head.
    Head(Vec<u8>),
    Body(Body),
    Done,
    /// It has left HTTP.
    Switched,
}

struct Body {
    /// `None`: it ends with the connection.
    follower: Option<Follower>,
    /// What of it the client wants.
    parts: Parts,
    /// Adds something to a page.
    injector: Option<Box<Injector>>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            to_backend: Outlet::default(),
            request_splice: Splice::default(),
            is_deaf: false,
            was_reset: false,
            answer: Phase::Head(Vec::new()),
            interim: 0,
            answer_splice: Splice::default(),
            line: None,
            status: None,
            bytes_out: 0,
            is_clean: false,
            chunk: READ_FIRST,
            since: None,
            has_moved: false,
        }
    }
}

impl<C: Client> Relay<'_, C> {
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
        if self.client.has_said_all() && self.client.has_left(cx) {
            return Poll::Ready(Stop::Failed(Cause::ClientGone));
        }
        self.poll_deadline(cx)
    }

    /// The backend has taken the whole request.
    pub(super) fn has_sent(&self) -> bool {
        let state = &*self.state;
        let is_backed_up = state.to_backend.is_busy() || state.request_splice.is_busy();
        !state.is_deaf && state.sent == self.sending.bytes.len() && self.client.has_said_all() && !is_backed_up
    }

    fn pump_request(&mut self, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let state = &mut *self.state;
        if state.is_deaf {
            return Ok(());
        }
        while state.sent < self.sending.bytes.len() {
            match Pin::new(&mut *self.line).poll_write(cx, &self.sending.bytes[state.sent..]) {
                Poll::Ready(Ok(n @ 1..)) => (state.sent, state.has_moved) = (state.sent + n, true),
                Poll::Ready(refused) => {
                    self.becomes_deaf(refused.err().as_ref());
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
        for _ in 0..TURNS {
            let backlog = self.state.to_backend.backlog();
            match self.state.to_backend.pass_on(self.line, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.becomes_deaf(Some(&error));
                    return Ok(());
                }
                Poll::Pending => {
                    self.state.has_moved |= self.state.to_backend.backlog() < backlog;
                    return Ok(());
                }
            }
            match self.splice_request(cx)? {
                Pause::Over if self.client.has_said_all() || !self.read_request(cx)? => return Ok(()),
                Pause::Over => {}
                Pause::Ended => return Err(Stop::Failed(Cause::ClientGone)),
                Pause::Source | Pause::Taker | Pause::Turn => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn splice_request(&mut self, cx: &mut Cx<'_>) -> Result<Pause, Stop> {
        let Self { client, line, sending, state, context, .. } = self;
        let (Some((from, body)), Some(to)) = (client.unseen_body(), line.plain_tcp()) else { return Ok(Pause::Over) };
        match state.request_splice.run(body, from, to, cx) {
            Ok((moved, pause)) => {
                state.has_moved |= moved > 0;
                sending.bytes_in += moved;
                if context.body_overflows(moved) { Err(Stop::Failed(Cause::BodyTooLarge)) } else { Ok(pause) }
            }
            Err(Failed::Source) => Err(Stop::Failed(Cause::ClientGone)),
            Err(Failed::Taker(error)) => {
                self.becomes_deaf(Some(&error));
                Ok(Pause::Taker)
            }
        }
    }

    fn becomes_deaf(&mut self, error: Option<&io::Error>) {
        self.state.is_deaf = true;
        self.state.was_reset |= error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        self.state.has_moved = true;
    }

    /// Reads once from the client and passes on what came; `false`: nothing did.
    fn read_request(&mut self, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        let Self { client, line, sending, state, context, .. } = self;
        let (mut given, to_backend) = (Ok(true), &mut state.to_backend);
        let came = SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            let room = state.chunk.min(scratch.len());
            client.read_body(&mut scratch[..room], context, &mut sending.bytes_in, cx, &mut |piece, cx| {
                if given.is_ok() {
                    given = to_backend.give(piece, *line, cx);
                }
            })
        });
        let Some(came) = came.map_err(Stop::Failed)? else { return Ok(false) };
        state.has_moved = true;
        match given {
            Ok(all_went) => state.chunk = next_chunk(state.chunk, came, all_went),
            Err(error) => self.becomes_deaf(Some(&error)),
        }
        Ok(true)
    }

    fn pump_answer(&mut self, cx: &mut Cx<'_>) -> Result<Poll<()>, Stop> {
        for _ in 0..TURNS {
            let backlog = self.client.backlog();
            match self.client.pass_on(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Stop::Failed(Cause::ClientGone)),
                Poll::Pending => {
                    self.state.has_moved |= self.client.backlog() < backlog;
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
        let Self { client, line, state, .. } = self;
        let Phase::Body(Body { follower: Some(follower), injector: None, .. }) = &mut state.answer else {
            return Ok(Pause::Over);
        };
        let (Some(from), Some(to)) = (line.plain_tcp(), client.plain_tcp()) else { return Ok(Pause::Over) };
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
            Err(Failed::Taker(_)) => Err(Stop::Failed(Cause::ClientGone)),
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
                Poll::Ready(Err(error)) => {
                    self.state.was_reset |= error.kind() == io::ErrorKind::ConnectionReset;
                    return Err(self.broke(Broke::Closed));
                }
                Poll::Ready(Ok(())) => self.state.has_moved = true,
            }
            let n = came.filled().len();
            OUT.with_borrow_mut(|out| {
                out.clear();
                if n == 0 {
                    return self.backend_ended(out, cx).map(|()| true);
                }
                let bytes = &scratch[..before + n];
                let all_went = match self.state.answer {
                    Phase::Head(_) => self.came_of_head(bytes, out, cx)?,
                    _ => self.came_of_body(bytes, false, out, cx)?,
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

    fn backend_ended(&mut self, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let Phase::Body(body @ Body { follower: None, .. }) = &mut self.state.answer else {
            return Err(self.broke(Broke::Closed));
        };
        if self.state.was_reset {
            return Err(self.broke(Broke::Closed));
        }
        let last = body.injector.as_mut().and_then(|injector| injector.feed(None, true));
        self.state.answer = Phase::Done;
        if let Some(last) = last {
            self.client.put(&last, true, out, cx);
        }
        self.push(true, out, cx).map(|_| ())
    }

    /// Bytes while the head is not whole: all there is of it.
    fn came_of_head(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        loop {
            match answer::read(bytes, |answer| self.head(answer, out)) {
                Err(how) => return Err(self.broke(how)),
                Ok(None) => {
                    self.state.answer = Phase::Head(bytes.to_vec());
                    return self.push(false, out, cx);
                }
                Ok(Some(Err(stop))) => return Err(stop),
                Ok(Some(Ok(len))) => bytes = &bytes[len..],
            }
            if matches!(self.state.answer, Phase::Switched) {
                let head_len = out.len();
                out.extend_from_slice(bytes);
                return Err(Stop::Switched { to_client: std::mem::take(out), head_len });
            }
            if !matches!(self.state.answer, Phase::Head(_)) {
                return self.came_of_body(bytes, true, out, cx);
            }
        }
    }

    /// A whole head, of the answer or of one before it; how many bytes it had.
    fn head(&mut self, answer: &Answer<'_>, out: &mut Vec<u8>) -> Result<usize, Stop> {
        let gone = |_| Stop::Failed(Cause::ClientGone);
        let switches = answer.status == 101;
        if switches && !self.sending.upgrade.as_deref().is_some_and(|asked| agrees(asked, answer)) {
            // Not to this, or not at all.
            return Err(self.broke(Broke::Invalid));
        }
        if answer.status < 200 && !switches {
            self.state.interim += 1;
            if self.state.interim > INTERIM_MAX {
                return Err(self.broke(Broke::Invalid));
            }
            if self.sending.upgrade.is_some() {
                // A client that asked to leave HTTP waits for 101 only.
                return Ok(answer.len);
            }
            let edits = AnswerEdits::new(answer.status, answer.fields);
            self.client.interim(answer, &edits, out).map_err(gone)?;
            return Ok(answer.len);
        }
        let to_head = self.sending.method == Method::HEAD;
        let framing = if switches { None } else { answer.framing(to_head).map_err(Stop::Broke)? };
        let Reply::Pass { edits, cookie, page } = self.context.answered(answer.status, answer.fields) else {
            return Err(Stop::Again);
        };
        let head = Final {
            answer,
            framing,
            edits,
            page: page.as_ref(),
            request_id: self.context.request_id(),
            cookie: cookie.as_ref(),
            to_head,
            is_stopping: self.is_stopping,
        };
        let parts = self.client.head(&head, out).map_err(gone)?;
        self.state.status = Some(answer.status);
        self.state.is_clean = framing.is_some() && answer.keeps();
        self.state.answer = match framing {
            _ if switches => Phase::Switched,
            Some(Framing::Empty) => Phase::Done,
            _ => Phase::Body(Body {
                follower: framing.map(Follower::new),
                parts,
                injector: page.map(|page| Box::new(page.injector)),
            }),
        };
        Ok(answer.len)
    }

    /// Bytes behind the head; `has_head`: it waits to go with them.
    fn came_of_body(&mut self, bytes: &[u8], has_head: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        let Self { client, state, .. } = self;
        let State { answer, bytes_out, is_clean, .. } = state;
        let Phase::Body(Body { follower, parts, injector }) = answer else {
            // The backend says more than its answer.
            *is_clean &= bytes.is_empty();
            return self.push(true, out, cx);
        };
        let is_small = bytes.len() <= TOGETHER;
        let mut added = 0;
        let mut put = |piece: &[u8], ends: bool| match injector {
            None if piece.is_empty() => {}
            None => client.put(piece, is_small, out, cx),
            Some(injector) => {
                let fed = (!piece.is_empty()).then(|| bytes::Bytes::copy_from_slice(piece));
                if let Some(fed) = injector.feed(fed, ends) {
                    added += (fed.len() - piece.len()) as u64;
                    client.put(&fed, is_small, out, cx);
                }
            }
        };
        let Some(follower) = follower else {
            *bytes_out += bytes.len() as u64;
            put(bytes, false);
            *bytes_out += added;
            return self.push(false, out, cx);
        };
        let passed = follower.pass(bytes, *parts, |piece| put(piece, false));
        let Ok(passed) = passed else {
            if is_small && has_head {
                // Nothing of it has gone yet.
                return Err(Stop::Broke(Broke::Invalid));
            }
            // What was well-formed before it goes to the client, and no more.
            self.push(false, out, cx)?;
            return Err(Stop::BrokeWithin(Broke::Invalid));
        };
        *bytes_out += passed.data;
        *is_clean &= passed.used == bytes.len();
        let is_done = follower.is_done();
        if is_done {
            put(&[], true);
            *answer = Phase::Done;
        }
        *bytes_out += added;
        self.push(is_done, out, cx)
    }

    fn push(&mut self, ends: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        let went = self.client.push(ends, out, cx);
        // A large one, as an answer without length makes it, is not kept for ever.
        out.clear();
        out.shrink_to(TOGETHER * 4);
        went.map_err(|_| Stop::Failed(Cause::ClientGone))
    }

    /// Whose turn it is to move, and how long it may take.
    fn poll_deadline(&mut self, cx: &mut Cx<'_>) -> Poll<Stop> {
        let since = match self.state.since {
            Some(since) if !self.state.has_moved => since,
            _ => *self.state.since.insert(clock::coarse().into()),
        };
        let Some(timeouts) = self.context.timeouts() else { return Poll::Ready(Stop::Failed(Cause::Internal)) };
        let waits_for_client = self.client.is_busy() || self.state.answer_splice.is_busy();
        let is_backed_up = self.state.to_backend.is_busy() || self.state.request_splice.is_busy();
        let waits_for_taking = !self.state.is_deaf && (self.state.sent < self.sending.bytes.len() || is_backed_up);
        let waits_for_body = !self.state.is_deaf && !self.client.has_said_all() && !is_backed_up;
        let limit = match () {
            () if waits_for_client || waits_for_body || waits_for_taking => timeouts.body,
            () if self.state.is_deaf && self.state.status.is_none() => LAST_WORDS,
            () => timeouts.response,
        };
        std::task::ready!(self.deadline.poll_at(since + limit, cx));
        Poll::Ready(match () {
            () if waits_for_client => Stop::Failed(Cause::BodyTimeout),
            () if waits_for_taking => self.broke(Broke::TimedOut),
            () if waits_for_body => Stop::Failed(Cause::BodyTimeout),
            () if self.state.is_deaf && self.state.status.is_none() => Stop::Broke(Broke::Closed),
            () => self.broke(Broke::TimedOut),
        })
    }
}

/// Whether a 101 leads where the client asked to go.
fn agrees(asked: &[u8], answer: &Answer<'_>) -> bool {
    let there = answer.fields.first(Known::Upgrade);
    there.is_some_and(|there| asked.split(|b| *b == b',').any(|p| p.trim_ascii().eq_ignore_ascii_case(there)))
}

/// Bytes of the next read: more if this one was full and all of it went, less if some of it did not.
fn next_chunk(chunk: usize, came: usize, all_went: bool) -> usize {
    match all_went {
        true if came == chunk => (chunk * 2).min(SCRATCH),
        true => chunk,
        false => (chunk / 2).max(READ_LEAST),
    }
}
