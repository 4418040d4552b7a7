//! The lean mover: HTTP/1.1 from the client, HTTP/1.1 to the backend, nothing in the body touched.
//!
//! [`begin`] runs while the head still lies in the connection's buffer: it asks [`request`](super::request) and writes the
//! head as the backend gets it. From then on nobody needs the head any more. [`serve`] finds a connection to the backend,
//! kept or new, and lets [`relay`] move both ways, attempt by attempt.

mod answer;
mod date;
mod fields;
mod lines;
mod outlet;
mod pipe;
mod relay;

use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pingora_core::protocols::l4::ext::get_tcp_info;

pub(super) use self::answer::framing;
use self::relay::{Relay, State, Stop};
use super::Proxy;
use super::connection::framing::{Follower, Parts};
use super::connection::head::{Head, Parsed};
use super::connection::{Deadline, Downstream, Facts, Refusal, linger, reply};
use super::dial;
use super::error::Cause;
use super::request::{Answer, Broke, Context, End, Line, Next, Request};
use super::stream::{Socket, Stream};

/// A request whose head was read.
pub struct Begun {
    context: Box<Context>,
    /// What is answered without asking anybody; `None`: a backend is asked.
    answer: Option<Answer>,
    /// A backend is chosen already.
    is_chosen: bool,
    sending: Sending,
    /// Bytes of the connection's buffer that belong to it.
    taken: usize,
}

/// A request on its way to backends, one after another if need be.
struct Sending {
    head: Head,
    method: Method,
    /// Its head as a backend gets it, and what has come of its body.
    bytes: Vec<u8>,
    /// Where its body is, behind `bytes`.
    body: Follower,
    /// All of it is in `bytes`: it can be sent again.
    is_whole: bool,
    /// Body bytes that came from the client.
    bytes_in: u64,
}

/// Takes a request up. `buf` begins with the head that was parsed; of its body there is what came with it.
pub fn begin(proxy: &Arc<Proxy>, facts: &Arc<Facts>, parsed: &Parsed<'_>, buf: &[u8]) -> Box<Begun> {
    let head = parsed.head;
    let request = Request { method: &parsed.method, host: parsed.host, target: &parsed.target, fields: parsed.fields };
    let mut body = Follower::new(head.framing);
    let (mut context, mut answer) = Context::arrive(proxy, Arc::clone(facts), &request, body.is_done());
    let (mut bytes, mut taken, mut bytes_in, mut is_chosen) = (Vec::new(), head.len, 0, false);
    if answer.is_none() && !context.wants_page() {
        bytes.reserve(buf.len() + ADDED);
        write_head(&mut bytes, &request, &buf[..head.len], &context);
        match body.pass(&buf[head.len..], Parts::All, |piece| bytes.extend_from_slice(piece)) {
            Ok(passed) => (taken, bytes_in) = (taken + passed.used, passed.data),
            Err(_) => {
                facts.refused(Refusal::BadChunk);
                answer = Some(Answer::Error(Cause::BadBody));
            }
        }
        if context.body_overflows(bytes_in) {
            answer = Some(Answer::Error(Cause::BodyTooLarge));
        }
        if answer.is_none() {
            match context.choose_now() {
                Ok(chosen) => is_chosen = chosen,
                Err(cause) => answer = Some(Answer::Error(cause)),
            }
        }
    }
    let sending = Sending { head, method: parsed.method.clone(), bytes, is_whole: body.is_done(), body, bytes_in };
    Box::new(Begun { context, answer, is_chosen, sending, taken })
}

/// A request that cannot be repeated once it was seen takes a connection that idled no longer than this: no backend in its
/// right mind closes what was used a moment ago.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Room for the fields that are added to a head.
const ADDED: usize = 512;

fn write_head(out: &mut Vec<u8>, request: &Request<'_>, head: &[u8], context: &Context) {
    for piece in [request.method.as_str(), " ", request.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
    let edits = context.edits(request);
    if let super::headers::Fields::Wire(wire) = request.fields {
        fields::copy(out, head, wire, |name, known| edits.passes(name, known));
    }
    edits.added(|name, pieces| fields::put(out, name, pieces));
    out.extend_from_slice(b"\r\n");
}

impl Begun {
    /// Its answer may have to be rewritten: more than this mover does. The request as it arrived, for who does more.
    ///
    /// # Errors
    /// It has not, and this mover does it all.
    pub fn into_rewritten(self: Box<Self>) -> Result<Box<Context>, Box<Self>> {
        if self.answer.is_none() && self.context.wants_page() { Ok(self.context) } else { Err(self) }
    }
}

/// Serves a request that has begun. The connection comes back if it can carry another.
pub async fn serve(
    proxy: &Proxy,
    mut down: Downstream,
    begun: Box<Begun>,
    deadline: &mut Deadline,
) -> Option<Downstream> {
    let Begun { mut context, answer, is_chosen, mut sending, taken } = *begun;
    bytes::Buf::advance(&mut down.buf, taken);
    match answer {
        None => {}
        Some(Answer::Redirect(url)) => {
            reply::redirect(context, down, &url).await;
            return None;
        }
        Some(Answer::Error(cause)) => {
            let is_head = sending.method == Method::HEAD;
            reply::fail(context, down, cause, is_head, sending.bytes_in).await;
            return None;
        }
    }
    let mut must_choose = !is_chosen;
    loop {
        let attempt = Attempt { proxy, down: &mut down, context: &mut context, sending: &mut sending, deadline };
        let (stop, state) = match attempt.run(must_choose).await {
            Ok(ended) => ended,
            Err(Next::Again) => {
                must_choose = true;
                continue;
            }
            Err(Next::GiveUp(cause)) => {
                let is_head = sending.method == Method::HEAD;
                reply::fail(context, down, cause, is_head, sending.bytes_in).await;
                return None;
            }
        };
        let cause = match stop {
            Stop::Done => None,
            Stop::Again => {
                must_choose = true;
                continue;
            }
            Stop::Broke(how) | Stop::BrokeWithin(how) => Some(how.cause()),
            Stop::Failed(cause) => Some(cause),
        };
        let bytes_in = sending.bytes_in;
        if let (Some(cause), None) = (cause, state.status) {
            if cause == Cause::ClientGone {
                context.finish(End { status: None, bytes_in, bytes_out: 0, cause: Some(cause), upgraded: false });
            } else {
                reply::fail(context, down, cause, sending.method == Method::HEAD, bytes_in).await;
            }
            return None;
        }
        context.finish(End { status: state.status, bytes_in, bytes_out: state.bytes_out, cause, upgraded: false });
        return match cause {
            // Cut: an answer that is not whole must not look as if it were.
            Some(_) => None,
            None if state.closes || !sending.body.is_done() => {
                linger(down).await;
                None
            }
            None => Some(down),
        };
    }
}

/// One attempt.
struct Attempt<'a> {
    proxy: &'a Proxy,
    down: &'a mut Downstream,
    context: &'a mut Context,
    sending: &'a mut Sending,
    deadline: &'a mut Deadline,
}

impl Attempt<'_> {
    /// Chooses, connects, and moves until the attempt is over.
    ///
    /// # Errors
    /// What to do next, where nothing of an answer was passed on.
    async fn run(self, must_choose: bool) -> Result<(Stop, State), Next> {
        let Self { proxy, down, context, sending, deadline } = self;
        if must_choose {
            context.choose().await.map_err(Next::GiveUp)?;
        }
        let Some((backing, backend)) = context.chosen() else { return Err(Next::GiveUp(Cause::Internal)) };
        let timeouts = &backing.pool.settings().timeouts;
        let (backend_id, keep_for, connect) = (backing.id(backend.place()), timeouts.keepalive, timeouts.connect);
        let kept = match () {
            () if context.may_repeat() => lines::take(backend_id, Duration::MAX),
            () if context.may_repeat_unheard() && sending.is_whole => lines::take(backend_id, IDLE_MAX),
            () => None,
        };
        let is_kept = kept.is_some();
        let mut line = match kept {
            Some(line) => line,
            None => match dial::connect(backend.address(), backing.tls.as_deref(), connect).await {
                Ok(line) => line,
                Err(error) => return Err(context.not_connected((&error).into())),
            },
        };
        context.connected(is_kept);
        // Only needed where a request that changes things meets a line that may be dying.
        let acked = if is_kept && !context.is_repeatable() { acknowledged(&line) } else { None };
        let is_stopping = proxy.is_stopping();
        // Who said that this is the last request may close its side early: that is no news.
        let state = State::new(!sending.head.closes);
        let mut relay = Relay { down, line: &mut line, context, sending, deadline, is_stopping, state };
        let stop = poll_fn(|cx| relay.poll(cx)).await;
        let Relay { state, .. } = relay;
        match stop {
            Stop::Done => {
                // One that was made because none that is kept would do is not kept beside those.
                let is_spare = !is_kept && !context.may_repeat() && !sending.is_whole && lines::has(backend_id);
                if state.is_clean && state.has_sent(sending) && !is_spare {
                    lines::keep(backend_id, line, keep_for, proxy.kept_lines_max());
                }
            }
            Stop::Broke(how) => {
                let line = match is_kept {
                    true if sending.is_whole && acked.is_some() && acknowledged(&line) == acked => Line::Unheard,
                    true => Line::Kept,
                    false => Line::Fresh,
                };
                return Err(context.broke(how, line));
            }
            Stop::BrokeWithin(how) => context.broke_within_answer(how),
            Stop::Again | Stop::Failed(_) => {}
        }
        Ok((stop, state))
    }
}

/// Bytes the other end's machine has acknowledged so far; `None` where that cannot be known.
fn acknowledged(line: &Stream) -> Option<u64> {
    match line.socket() {
        Socket::Tcp(socket) => get_tcp_info(socket.as_raw_fd()).ok().map(|info| info.tcpi_bytes_acked),
        Socket::Unix(_) => None,
    }
}

impl Broke {
    /// What the client is told when nothing else can be done.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::Closed => Cause::UpstreamClosed,
            Self::TimedOut => Cause::UpstreamTimeout,
            Self::Invalid => Cause::UpstreamInvalid,
        }
    }
}
