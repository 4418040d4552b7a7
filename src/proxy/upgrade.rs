//! The way into a tunnel: an HTTP/1.1 upgrade, from its head to the backend's 101.
//!
//! The backend is dialled and asked here; on 101 both streams go to the tunnel's own task, and
//! this connection's is over. Any other answer is passed on, and the connection goes on if the answer's end is known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use http::header::{SET_COOKIE, UPGRADE};
use http::{HeaderName, HeaderValue, Method, StatusCode, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Proxy;
use super::connection::framing::{Follower, Framing};
use super::connection::head::{self, Head, Upgrade};
use super::connection::{Downstream, Stream, fill, linger, refuse, reply};
use super::dial;
use super::error::Cause;
use super::forward::framing;
use super::headers::{Fields, Known};
use super::ledger::{Kind, Opening};
use super::request::{Answer, Broke, Context, End, Line, Next, Reply, Request};
use super::tunnel::{self, Tunnel};
use crate::runtime::clock;

/// Bytes a client may send before it has its answer.
const EARLY_MAX: usize = 64 * 1024;
/// Bytes the head of a backend's answer may have.
const ANSWER_HEAD_MAX: usize = 64 * 1024;
/// Fields the head of a backend's answer may have.
const ANSWER_FIELDS_MAX: usize = 256;

/// Serves one upgrade request. The connection comes back when it can carry another request.
pub async fn serve(proxy: Arc<Proxy>, mut down: Downstream, head: Head, kind: Upgrade) -> Option<Downstream> {
    let raw = down.buf.split_to(head.len).freeze();
    let parts = match head::parts(&raw) {
        Ok(parts) => parts,
        Err(refusal) => {
            down.buf = BytesMut::from(&raw[..]);
            refuse(&proxy, down, refusal).await;
            return None;
        }
    };
    let (mut context, answer) = Context::arrive(&proxy, Arc::clone(&down.facts), &Request::of(&parts), true);
    context.leaves_http();
    let to_head = parts.method == Method::HEAD;
    match answer {
        Some(Answer::Redirect(url)) => reply::redirect(context, down, &url).await,
        Some(Answer::Error(cause)) => reply::fail(context, down, cause, to_head, 0).await,
        None => {
            let asked = tokio::select! {
                biased;
                asked = ask(&mut context, &parts) => asked,
                () = left(&mut down) => Err(Cause::ClientGone),
            };
            match asked {
                Ok(asked) if asked.status == StatusCode::SWITCHING_PROTOCOLS => {
                    open(&proxy, context, down, asked, kind);
                }
                Ok(asked) => return relay(context, down, asked).await,
                Err(Cause::ClientGone) => {
                    let cause = Some(Cause::ClientGone);
                    context.finish(End { status: None, bytes_in: 0, bytes_out: 0, cause, upgraded: false });
                }
                Err(cause) => reply::fail(context, down, cause, to_head, 0).await,
            }
        }
    }
    None
}

/// Returns when the client has gone while it was to wait for its answer: a session opened now would be nobody's. What
/// it sends early is kept, as far as it may.
async fn left(down: &mut Downstream) {
    while down.buf.len() < EARLY_MAX {
        if fill(down).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// What a backend answered.
struct Asked {
    stream: Stream,
    status: StatusCode,
    /// The head as it goes to the client.
    head: BytesMut,
    /// What followed the head.
    rest: BytesMut,
    framing: Option<Framing>,
}

/// Chooses, dials and asks until a backend answers or none is left.
async fn ask(context: &mut Context, parts: &request::Parts) -> Result<Asked, Cause> {
    loop {
        context.choose().await?;
        let Some((backing, backend)) = context.chosen() else { return Err(Cause::Internal) };
        let timeouts = backing.pool.settings().timeouts.clone();
        let mut stream = match dial::connect(backend.address(), backing.tls.as_deref(), timeouts.connect).await {
            Ok(stream) => stream,
            Err(error) => match context.not_connected((&error).into()) {
                Next::Again => continue,
                Next::GiveUp(cause) => return Err(cause),
            },
        };
        context.connected(false);
        let request = upstream_head(parts, context);
        let answer = match timeout(timeouts.response, exchange(&mut stream, &request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(Broke::Invalid),
            Ok(Err(_)) => Err(Broke::Closed),
            Err(_) => Err(Broke::TimedOut),
        };
        let (buf, len) = match answer {
            Ok(answer) => answer,
            Err(how) => match context.broke(how, Line::Fresh) {
                Next::Again => continue,
                Next::GiveUp(cause) => return Err(cause),
            },
        };
        match answered(context, parts, stream, buf, len) {
            Ok(Some(asked)) => return Ok(asked),
            Ok(None) => {}
            Err(how) => match context.broke(how, Line::Fresh) {
                Next::Again => {}
                Next::GiveUp(cause) => return Err(cause),
            },
        }
    }
}

/// The request head as the backend gets it.
fn upstream_head(parts: &request::Parts, context: &Context) -> BytesMut {
    let mut out = BytesMut::with_capacity(1024);
    let request = Request::of(parts);
    for piece in [parts.method.as_str(), " ", request.target, " HTTP/1.1\r\n"] {
        out.put_slice(piece.as_bytes());
    }
    let edits = context.edits(&request);
    for (name, value) in parts
        .headers
        .iter()
        .filter(|(name, _)| edits.passes(name.as_str().as_bytes(), Known::of(name.as_str().as_bytes())))
    {
        put_field(&mut out, name, value);
    }
    edits.added(|name, pieces| {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        pieces.iter().for_each(|piece| out.put_slice(piece));
        out.put_slice(b"\r\n");
    });
    if let Some(protocol) = parts.headers.get(UPGRADE) {
        put_field(&mut out, &UPGRADE, protocol);
    }
    out.put_slice(b"Connection: Upgrade\r\n\r\n");
    out
}

/// Writes one field, its name as people write it: `Sec-WebSocket-Key`. Some small servers compare letter by letter.
fn put_field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    let mut is_start = true;
    for byte in name.as_str().bytes() {
        out.put_u8(if is_start { byte.to_ascii_uppercase() } else { byte });
        is_start = byte == b'-';
    }
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// Sends the request and reads until the head of a final answer is whole: the bytes and the head's length.
async fn exchange(stream: &mut Stream, request: &[u8]) -> io::Result<(BytesMut, usize)> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut buf = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(end) = memchr::memmem::find(&buf, b"\r\n\r\n") {
            // 1xx other than 101 announces, and a client that asked to leave HTTP waits for 101 only.
            let is_interim = buf.len() > 12 && buf[9] == b'1' && &buf[9..12] != b"101";
            if !is_interim {
                return Ok((buf, end + 4));
            }
            buf.advance(end + 4);
        }
        if buf.len() > ANSWER_HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Judges the answer: `None` when another backend is to be asked.
fn answered(
    context: &mut Context,
    parts: &request::Parts,
    stream: Stream,
    mut buf: BytesMut,
    len: usize,
) -> Result<Option<Asked>, Broke> {
    let raw = buf.split_to(len);
    let mut fields = [httparse::EMPTY_HEADER; ANSWER_FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    if !matches!(answer.parse(&raw), Ok(httparse::Status::Complete(n)) if n == len) {
        return Err(Broke::Invalid);
    }
    let status = answer.code.and_then(|c| StatusCode::from_u16(c).ok()).ok_or(Broke::Invalid)?;
    let mut headers = http::HeaderMap::with_capacity(answer.headers.len());
    for field in answer.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Broke::Invalid)?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Broke::Invalid)?);
    }
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    let agrees = headers.get(UPGRADE).zip(parts.headers.get(UPGRADE)).is_some_and(|(theirs, asked)| {
        asked.as_bytes().split(|b| *b == b',').any(|p| p.trim_ascii().eq_ignore_ascii_case(theirs.as_bytes()))
    });
    if is_switch && !agrees {
        return Err(Broke::Invalid);
    }
    let framing =
        if is_switch { None } else { framing(parts.method == Method::HEAD, status.as_u16(), &Fields::Map(&headers))? };
    let Reply::Pass { edits, cookie, .. } = context.answered(status.as_u16(), Fields::Map(&headers)) else {
        return Ok(None);
    };
    let mut head = BytesMut::with_capacity(len + 256);
    let reason = answer.reason.unwrap_or_default();
    for piece in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        head.put_slice(piece.as_bytes());
    }
    for field in
        answer.headers.iter().filter(|field| edits.passes(field.name.as_bytes(), Known::of(field.name.as_bytes())))
    {
        for piece in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
            head.put_slice(piece);
        }
    }
    for piece in [Known::XRequestId.as_str(), ": ", &context.request_id, "\r\n"] {
        head.put_slice(piece.as_bytes());
    }
    if let Some(cookie) = &cookie {
        put_field(&mut head, &SET_COOKIE, cookie);
    }
    if !is_switch && framing.is_none() {
        head.put_slice(b"Connection: close\r\n");
    }
    head.put_slice(b"\r\n");
    Ok(Some(Asked { stream, status, head, rest: buf, framing }))
}

/// Hands both sides to the tunnel's own task, which outlives this connection's.
fn open(proxy: &Arc<Proxy>, mut context: Box<Context>, down: Downstream, asked: Asked, kind: Upgrade) {
    let Some((backing, backend)) = context.chosen() else { return };
    let timeouts = &backing.pool.settings().timeouts;
    let session = proxy.ledger().open(Opening {
        kind: match kind {
            Upgrade::Websocket => Kind::Websocket,
            Upgrade::Other => Kind::Upgrade,
        },
        pool: Arc::clone(backing.pool.name()),
        backend: backend.key().clone(),
        client: context.client_address(),
        now: clock::now(),
        unix_s: clock::unix_seconds(),
    });
    let guard = backend.begin_session();
    let backing = Arc::clone(backing);
    let head_len = asked.head.len();
    let mut to_client = asked.head;
    to_client.extend_from_slice(&asked.rest);
    let tunnel = Tunnel {
        client: down.stream,
        upstream: asked.stream,
        to_upstream: down.buf.freeze(),
        to_client: to_client.freeze(),
        head_len,
        is_websocket: kind == Upgrade::Websocket,
        ping_after: timeouts.tunnel_ping,
        idle_timeout: timeouts.tunnel_idle,
        session,
    };
    // The request is over, the session begins: it is counted by the guard, not among the requests in flight.
    let permit = down.permit;
    context.release_in_flight();
    tokio::spawn(async move {
        let end = tunnel::run(tunnel).await;
        backing.metrics.session_closed(end.close_code);
        if end.cause.is_loss() {
            backing.metrics.session_lost(end.cause.as_str());
        }
        drop((guard, permit));
        context.finish(End {
            status: Some(101),
            bytes_in: end.bytes_in,
            bytes_out: end.bytes_out,
            cause: None,
            upgraded: true,
        });
    });
}

/// Passes an answer that is no 101 on to its end. The connection comes back if the client can tell where that was.
async fn relay(mut context: Box<Context>, mut down: Downstream, mut asked: Asked) -> Option<Downstream> {
    let (status, limit) = (asked.status.as_u16(), context.timeouts().map_or(Duration::from_secs(60), |t| t.body));
    let mut sent = 0;
    let gone = |_: io::Error| Cause::ClientGone;
    let broke = |_: io::Error| Cause::UpstreamClosed;
    let passed = async {
        write_within(&mut down.stream, &asked.head, limit).await.map_err(gone)?;
        let mut follower = asked.framing.map(Follower::new);
        loop {
            let body = match &mut follower {
                None => asked.rest.split(),
                Some(follower) => {
                    let used = follower.advance(&asked.rest).map_err(|_| Cause::UpstreamInvalid)?;
                    asked.rest.split_to(used)
                }
            };
            sent += body.len() as u64;
            write_within(&mut down.stream, &body, limit).await.map_err(gone)?;
            if follower.as_ref().is_some_and(Follower::is_done) {
                return Ok(());
            }
            asked.rest.reserve(16 * 1024);
            let read =
                timeout(limit, asked.stream.read_buf(&mut asked.rest)).await.map_err(|_| Cause::UpstreamTimeout)?;
            if read.map_err(broke)? == 0 {
                return if follower.is_none() { Ok(()) } else { Err(Cause::UpstreamClosed) };
            }
        }
    };
    let result: Result<(), Cause> = passed.await;
    let cause = result.err();
    if cause == Some(Cause::UpstreamClosed) {
        context.broke_within_answer(Broke::Closed);
    }
    context.finish(End { status: Some(status), bytes_in: 0, bytes_out: sent, cause, upgraded: false });
    match result {
        Ok(()) if asked.framing.is_some() => return Some(down),
        Ok(()) => linger(down).await,
        Err(_) => {}
    }
    None
}

async fn write_within(stream: &mut Stream, bytes: &[u8], limit: Duration) -> io::Result<()> {
    let all = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(limit, all).await.map_err(|_| io::ErrorKind::TimedOut)?
}
