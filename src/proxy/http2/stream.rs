//! One stream: one request and its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode, request};
use httparse::Header;
use tokio::time::timeout;

use super::client::Client;
use crate::config;
use crate::proxy::Proxy;
use crate::proxy::connection::framing::Framing;
use crate::proxy::connection::head::{self, Bounds};
use crate::proxy::connection::{Deadline, Facts, LINGER, LINGER_BYTES, Refusal};
use crate::proxy::error::Cause;
use crate::proxy::forward::{self, Client as _, Outcome, Sending, fields};
use crate::proxy::headers::{self, Fields, Known, put};
use crate::proxy::request::{Answer, Context, End, Request};
use crate::runtime::dice;

/// Bytes of a body that may be put behind the head, so that both are one write.
const TOGETHER: usize = 16 * 1024;
/// Room for the head of a request.
const HEAD: usize = 1024;

/// Takes a request up; what serves it to its end, as a task of its own. Of its head nothing is kept.
pub(super) fn serve(
    proxy: &Arc<Proxy>,
    facts: &Arc<Facts>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (parts, body) = request.into_parts();
    let limits = &facts.listener.settings.limits;
    let bounds = Bounds { bytes: limits.head_bytes, fields: limits.head_count.min(head::FIELDS_MAX) };
    let lines: Vec<_> = parts.headers.iter().map(|(n, v)| Header { name: n.as_str(), value: v.as_bytes() }).collect();
    let fields = Fields::new(&lines);
    let framing = match head::judge_parts(&parts, &fields, body.is_end_stream(), bounds) {
        Ok(framing) => framing,
        Err(refusal) => {
            let head = refused(proxy, facts, &parts, refusal);
            return Box::pin(refuse(Client::new(body, Framing::Empty, respond), head));
        }
    };
    let request = Request::of(&parts, &fields);
    let (context, answer) = Context::arrive(proxy, Arc::clone(facts), &request, framing == Framing::Empty);
    // Silence of the client within its body, and of its reading within ours.
    let limit = context.timeouts().map_or(config::default::BODY_TIMEOUT, |t| t.body);
    facts.set_write_timeout(limit, true);
    let mut bytes = Vec::new();
    if answer.is_none() {
        write_head(&mut bytes, &request, &context, framing);
    }
    let sending = Sending { method: parts.method.clone(), bytes, is_whole: false, bytes_in: 0, upgrade: None };
    let client = Client::new(body, framing, respond);
    Box::pin(run(Arc::clone(proxy), client, context, sending, answer, limit))
}

/// From the head on.
async fn run(
    proxy: Arc<Proxy>,
    mut client: Client,
    mut context: Box<Context>,
    mut sending: Sending,
    answer: Option<Answer>,
    limit: Duration,
) {
    let outcome = match answer {
        None => match take(&mut client, &mut context, &mut sending).await {
            Ok(()) => {
                let mut deadline = Deadline::after(limit);
                forward::exchange(&proxy, &mut client, &mut context, &mut sending, &mut deadline, false).await
            }
            Err(cause) => Outcome::failed(cause),
        },
        Some(Answer::Error(cause)) => Outcome::failed(cause),
        Some(Answer::Redirect(url)) => {
            let (head, body) = redirect(&context, &url);
            say(&mut client, head, body, limit).await;
            Outcome { status: Some(308), bytes_out: 0, cause: None, switched: None }
        }
    };
    end(&mut client, context, outcome, sending, limit).await;
}

/// Tells the client what it has not been told, counts and logs, and hears it out.
async fn end(client: &mut Client, mut context: Box<Context>, outcome: Outcome, sending: Sending, limit: Duration) {
    let Outcome { mut status, mut bytes_out, cause, .. } = outcome;
    match (cause, status) {
        (None, _) => {}
        (Some(Cause::ClientGone), _) | (Some(_), Some(_)) => client.cut(),
        (Some(cause), None) => {
            let (head, body) = failure(&context, cause, sending.method == Method::HEAD);
            (status, bytes_out) = (Some(cause.status()), body.len() as u64);
            say(client, head, body, limit).await;
        }
    }
    context.finish(End { status, bytes_in: sending.bytes_in, bytes_out, cause, upgraded: false });
    drop(context);
    if !client.has_said_all() {
        let _ = timeout(LINGER, hear_out(client)).await;
    }
}

/// What of the body is here already goes with the head.
async fn take(client: &mut Client, context: &mut Context, sending: &mut Sending) -> Result<(), Cause> {
    let Sending { bytes, bytes_in, .. } = sending;
    let room = bytes.len() + TOGETHER;
    let taken = poll_fn(|cx| {
        while !client.has_said_all() && bytes.len() < room {
            match client.read_body(&mut [], context, bytes_in, cx, &mut |piece, _| bytes.extend_from_slice(piece)) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(cause) => return Poll::Ready(Err(cause)),
            }
        }
        // Who opens streams only to reset them gets nobody else to work.
        let is_gone = client.has_said_all() && client.has_left(cx);
        Poll::Ready(if is_gone { Err(Cause::ClientGone) } else { Ok(()) })
    });
    taken.await?;
    sending.is_whole = client.has_said_all();
    Ok(())
}

/// The head as a backend gets it. Names are small, as HTTP/2 has them.
fn write_head(out: &mut Vec<u8>, request: &Request<'_>, context: &Context, framing: Framing) {
    out.reserve(HEAD);
    for piece in [request.method.as_str(), " ", request.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
    let edits = context.edits(request);
    fields::rewrite(out, request.fields, |name, known| edits.passes(name, known));
    edits.add(out);
    if framing == Framing::Chunked {
        put(out, Known::TransferEncoding, &[b"chunked"]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Answers, within the time a client may take to read it.
async fn say(client: &mut Client, head: Response<()>, body: Bytes, limit: Duration) {
    if !matches!(timeout(limit, poll_fn(|cx| client.say(&head, &body, cx))).await, Ok(Ok(()))) {
        client.cut();
    }
}

/// Reads on a little what a client still sends after its whole answer: dropped at once, the stream would be reset, and
/// some clients throw the answer away then (RFC 9113 §8.1 asks them not to).
async fn hear_out(client: &mut Client) {
    let mut left = LINGER_BYTES;
    while let Some(came) = poll_fn(|cx| client.poll_drop(cx)).await {
        left = left.saturating_sub(came);
        if left == 0 {
            return;
        }
    }
}

fn redirect(context: &Context, url: &str) -> (Response<()>, Bytes) {
    let mut head = response(308, context.request_id(), 0);
    if let Ok(url) = HeaderValue::from_str(url) {
        head.headers_mut().insert(LOCATION, url);
    }
    (head, Bytes::new())
}

fn failure(context: &Context, cause: Cause, to_head: bool) -> (Response<()>, Bytes) {
    let page = context.page(cause);
    let mut head = response(cause.status(), context.request_id(), page.body.len());
    let fields = head.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if cause.status() == 503 {
        fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    (head, if to_head { Bytes::new() } else { page.body.into() })
}

fn response(status: u16, request_id: &str, length: usize) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        head.headers_mut().insert(Known::XRequestId.key(), id);
    }
    head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    head
}

/// Counts and logs a head that is refused; what is answered.
fn refused(proxy: &Proxy, facts: &Facts, parts: &request::Parts, refusal: Refusal) -> Response<()> {
    let id = headers::new_request_id(dice::unique());
    let seen = (parts.method.as_str(), parts.uri.path().as_bytes());
    facts.refused_request(proxy.access_log(), refusal, &id, seen);
    let mut head = response(refusal.status(), &id, 0);
    head.headers_mut().insert("x-refused", HeaderValue::from_static(refusal.as_str()));
    head
}

async fn refuse(mut client: Client, head: Response<()>) {
    say(&mut client, head, Bytes::new(), LINGER).await;
    let _ = timeout(LINGER, hear_out(&mut client)).await;
}
