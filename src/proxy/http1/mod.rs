//! The client's half of HTTP/1.1.
//!
//! [`begin`] runs while the head still lies in the connection's buffer: it asks [`request`](super::request) and writes the
//! head as the backend gets it. From then on nobody needs the head any more. [`serve`] hands the request to
//! [`forward`](super::forward) and ends in order, or in a tunnel.

mod answer;
mod client;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use self::client::Client;
use super::Proxy;
use super::connection::framing::{Follower, Parts};
use super::connection::head::{Head, Parsed};
use super::connection::{Deadline, Downstream, Facts, Refusal, linger, reply};
use super::error::Cause;
use super::forward::{self, Outcome, Sending, fields};
use super::headers::{Known, put};
use super::request::{Answer, Context, End, Request};

/// A request whose head was read.
pub struct Begun {
    context: Box<Context>,
    /// What is answered without asking anybody; `None`: a backend is asked.
    answer: Option<Answer>,
    /// A backend is chosen already.
    is_chosen: bool,
    sending: Sending,
    head: Head,
    /// Where its body is, behind what came of it.
    body: Follower,
    /// Bytes of the connection's buffer that belong to it and are still there.
    taken: usize,
}

impl Begun {
    /// It leaves the bytes it was read from: how many of them belong to it.
    pub fn detach(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }
}

/// Takes a request up. `buf` begins with the head that was parsed; of its body there is what came with it.
pub fn begin(proxy: &Arc<Proxy>, facts: &Arc<Facts>, parsed: &Parsed<'_>, buf: &[u8]) -> Box<Begun> {
    let head = parsed.head;
    let request = Request { method: &parsed.method, host: parsed.host, target: &parsed.target, fields: parsed.fields };
    let mut body = Follower::new(head.framing);
    let (mut context, mut answer) = Context::arrive(proxy, Arc::clone(facts), &request, body.is_done());
    if head.upgrade.is_some() {
        context.leaves_http();
    }
    let (mut bytes, mut taken, mut bytes_in, mut is_chosen) = (Vec::new(), head.len, 0, false);
    if answer.is_none() {
        bytes.reserve(buf.len() + ADDED);
        write_head(&mut bytes, &request, &buf[..head.len], &context, head.upgrade.is_some());
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
    let upgrade = head.upgrade.and_then(|_| parsed.fields.first(Known::Upgrade)).map(<[u8]>::to_vec);
    let sending = Sending { method: parsed.method.clone(), bytes, is_whole: body.is_done(), bytes_in, upgrade };
    Box::new(Begun { context, answer, is_chosen, sending, head, body, taken })
}

/// Room for the fields that are added to a head.
const ADDED: usize = 512;

fn write_head(out: &mut Vec<u8>, request: &Request<'_>, head: &[u8], context: &Context, asks_to_leave: bool) {
    for piece in [request.method.as_str(), " ", request.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
    let edits = context.edits(request);
    fields::copy(out, head, request.fields, |name, known| edits.passes(name, known));
    edits.add(out);
    if let Some(protocol) = request.fields.first(Known::Upgrade).filter(|_| asks_to_leave) {
        put(out, Known::Upgrade, &[protocol]);
        put(out, Known::Connection, &[b"Upgrade"]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Serves a request that has begun. The connection comes back if it can carry another.
#[expect(clippy::manual_async_fn, reason = "the future of a function would have room for the connection twice")]
pub fn serve(
    proxy: &Proxy,
    mut down: Downstream,
    mut begun: Box<Begun>,
    deadline: &mut Deadline,
) -> impl Future<Output = Option<Downstream>> {
    async move {
        bytes::Buf::advance(&mut down.buf, begun.taken);
        let Head { upgrade, .. } = begun.head;
        let is_head = begun.sending.method == Method::HEAD;
        match begun.answer.take() {
            None => {}
            Some(Answer::Redirect(url)) => {
                Box::pin(reply::redirect(begun.context, down, &url)).await;
                return None;
            }
            Some(Answer::Error(cause)) => {
                Box::pin(reply::fail(begun.context, down, cause, is_head, begun.sending.bytes_in)).await;
                return None;
            }
        }
        let Begun { context, sending, is_chosen, head, body, .. } = &mut *begun;
        let mut client = Client::new(&mut down, head, body);
        let outcome = forward::exchange(proxy, &mut client, context, sending, deadline, *is_chosen).await;
        let ended = client.end();
        let Outcome { status, bytes_out, cause, switched } = outcome;
        if let Some((switched, kind)) = switched.zip(upgrade) {
            upgrade::open(proxy, begun.context, down, switched, kind);
            return None;
        }
        let bytes_in = sending.bytes_in;
        if let (Some(cause), None) = (cause, status)
            && cause != Cause::ClientGone
        {
            Box::pin(reply::fail(begun.context, down, cause, is_head, bytes_in)).await;
            return None;
        }
        context.finish(End { status, bytes_in, bytes_out, cause, upgraded: false });
        match cause {
            // Cut: an answer that is not whole must not look as if it were.
            Some(_) => {
                if status.is_some() && ended.ends_with_connection {
                    let _ = socket2::SockRef::from(down.stream.socket()).set_linger(Some(Duration::ZERO));
                }
                None
            }
            None if ended.closes || !ended.has_said_all => {
                Box::pin(linger(down)).await;
                None
            }
            None => Some(down),
        }
    }
}
