//! One request and its answer over HTTP/1.1, just enough for an operator: one exchange a connection, every wait and
//! every size bounded. Clients of the load balancer never come here.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A request, whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Still percent-encoded, without query.
    pub(super) path: String,
    /// Still percent-encoded; empty without one.
    pub(super) query: String,
    pub(super) host: Option<String>,
    pub(super) body: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// For 405: what would be allowed.
    pub(super) allow: Option<&'static str>,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// A sentence for people; the line feed is added.
    pub(super) fn sentence(status: u16, sentence: impl Into<String>) -> Self {
        let mut body = sentence.into().into_bytes();
        body.push(b'\n');
        Self { status, content_type: "text/plain; charset=utf-8", allow: None, body }
    }

    /// JSON; the line feed is added, for those who read it on a terminal.
    pub(super) fn json(status: u16, value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self { status, content_type: "application/json", allow: None, body }
            }
            Err(error) => Self::sentence(500, format!("the answer is not JSON: {error}")),
        }
    }
}

/// Reads a request; `Err` is what to answer instead, if anything.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Option<Response>> {
    let mut bytes = Vec::with_capacity(1024);
    let (mut request, head_bytes, body_bytes) = match timeout(HEAD_TIMEOUT, head(stream, &mut bytes)).await {
        Ok(head) => head?,
        Err(_) if bytes.is_empty() => return Err(None),
        Err(_) => return Err(Some(Response::sentence(408, "the request head did not come in time"))),
    };
    let mut body = bytes.split_off(head_bytes);
    // What follows the body would be another request; there is one to a connection.
    body.truncate(body_bytes);
    let have = body.len();
    body.resize(body_bytes, 0);
    match timeout(HEAD_TIMEOUT, stream.read_exact(&mut body[have..])).await {
        Ok(Ok(_)) => request.body = body,
        Ok(Err(_)) => return Err(None),
        Err(_) => return Err(Some(Response::sentence(408, "the request body did not come in time"))),
    }
    Ok(request)
}

/// Reads up to the end of the head: the request, the length of its head, the length of its body.
async fn head(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
) -> Result<(Request, usize, usize), Option<Response>> {
    loop {
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(Some(Response::sentence(
                431,
                format!("the request head is longer than {HEAD_BYTES_MAX} bytes"),
            )));
        }
        let room = u64::try_from(HEAD_BYTES_MAX - bytes.len()).unwrap_or(u64::MAX);
        if !matches!(stream.take(room).read_buf(bytes).await, Ok(1..)) {
            return Err(None);
        }
        if let Some(head) = parse(bytes)? {
            return Ok(head);
        }
    }
}

/// `None`: the head is not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize, usize)>, Response> {
    let bad = |why: &str| Response::sentence(400, format!("not a request this endpoint understands: {why}"));
    let mut fields = [httparse::EMPTY_HEADER; HEAD_COUNT_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::sentence(431, format!("more than {HEAD_COUNT_MAX} fields")));
        }
        Err(error) => return Err(bad(&error.to_string())),
    };
    let mut host = None;
    let mut body_bytes = None;
    for field in head.headers.iter() {
        let value = || std::str::from_utf8(field.value).map_err(|_| bad("a field is not text"));
        if field.name.eq_ignore_ascii_case("host") {
            if host.replace(value()?.trim().to_owned()).is_some() {
                return Err(bad("two Host fields"));
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Response::sentence(411, "send the body with a Content-Length"));
        } else if field.name.eq_ignore_ascii_case("content-length") {
            let text = value()?.trim();
            let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if !is_number || body_bytes.replace(text.parse().unwrap_or(usize::MAX)).is_some() {
                return Err(bad("the Content-Length is not one number"));
            }
        }
    }
    let body_bytes = body_bytes.unwrap_or(0);
    if body_bytes > BODY_BYTES_MAX {
        return Err(Response::sentence(413, format!("the body is longer than {BODY_BYTES_MAX} bytes")));
    }
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host,
        body: Vec::new(),
    };
    Ok(Some((request, length, body_bytes)))
}

/// Writes an answer, without its body to HEAD, and closes the connection.
pub(super) async fn write(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    response: &Response,
    is_head: bool,
) -> io::Result<()> {
    let Response { status, content_type, allow, body } = response;
    let reason = http::StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let allow = allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
    let mut bytes = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if !is_head {
        bytes.extend_from_slice(body);
    }
    timeout(WRITE_TIMEOUT, async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    })
    .await??;
    // A socket closed over unread bytes resets the connection, and the client may lose the answer to that.
    let mut rest = [0; 1024];
    let _ = timeout(LINGER, async {
        let mut left = BODY_BYTES_MAX;
        while let Ok(n @ 1..) = stream.read(&mut rest).await
            && left > n
        {
            left -= n;
        }
    })
    .await;
    Ok(())
}

/// Decodes `%41` (RFC 3986 §2.1); `None` when that is malformed or the bytes are no text.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(digit(high)? << 4 | digit(low)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// For the head, and once more for the body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A list of many thousand sessions over a slow line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const LINGER: Duration = Duration::from_secs(1);
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_COUNT_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 64 << 10;
