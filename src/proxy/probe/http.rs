//! One `GET` over HTTP/1.1, just enough of a client for a health check: a status, and proof that the whole answer, or its
//! first 64 KiB, can be had. Redirects are answers. No keep-alive.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ProbeError;
use crate::proxy::stream::Stream;
use crate::types::LEAVING;

/// Bytes read of an answer, head and body together.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Fields of an answer's head.
const FIELDS_MAX: usize = 100;
/// `100 Continue` and `103 Early Hints` before the answer.
const INTERIM_MAX: usize = 8;

/// Asks and judges; the caller's timeout bounds it. `good` is the first and last good status.
pub(super) async fn get(stream: &mut Stream, host: &str, path: &str, good: (u16, u16)) -> Result<(), ProbeError> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bowline/{} probe\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;

    let mut answer = Answer { stream, bytes: Vec::with_capacity(2 << 10), room: ANSWER_BYTES_MAX };
    let head = answer.head().await?;
    // A bad status needs no body to be bad.
    if head.is_leaving && head.status == 503 {
        return Err(ProbeError::Leaving);
    }
    if !(good.0..=good.1).contains(&head.status) {
        return Err(ProbeError::Status(head.status));
    }
    answer.body(head.body).await
}

struct Answer<'a> {
    stream: &'a mut Stream,
    /// Read and not yet understood.
    bytes: Vec<u8>,
    /// Bytes that may still be read.
    room: usize,
}

struct Head {
    status: u16,
    is_leaving: bool,
    body: Body,
}

/// How the end of a body is told (RFC 9112 §6.3).
enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Answer<'_> {
    /// Leaves what follows the head in `bytes`.
    async fn head(&mut self) -> Result<Head, ProbeError> {
        let mut interim = 0;
        loop {
            if let Some((head, length)) = parse(&self.bytes)? {
                self.bytes.drain(..length);
                // 101 would be the last head before another protocol; we did not ask for one.
                if !(100..200).contains(&head.status) || head.status == 101 {
                    return Ok(head);
                }
                interim += 1;
                if interim > INTERIM_MAX {
                    return Err(ProbeError::Malformed("more interim answers than anybody needs"));
                }
                continue;
            }
            if self.room == 0 {
                return Err(ProbeError::Malformed("the head is larger than 64 KiB"));
            }
            if self.read().await? == 0 {
                return Err(ProbeError::Closed);
            }
        }
    }

    async fn body(&mut self, body: Body) -> Result<(), ProbeError> {
        loop {
            let is_whole = match body {
                Body::None => true,
                Body::Length(length) => self.bytes.len() as u64 >= length,
                // The last chunk without trailers; with trailers the end of the connection tells.
                Body::Chunked => self.bytes.ends_with(b"0\r\n\r\n"),
                Body::UntilClose => false,
            };
            if is_whole || self.room == 0 {
                return Ok(());
            }
            if self.read().await? == 0 {
                return match body {
                    Body::Length(_) => Err(ProbeError::Closed),
                    Body::Chunked if !self.bytes.windows(5).any(|w| w == b"\r\n0\r\n") => Err(ProbeError::Closed),
                    _ => Ok(()),
                };
            }
        }
    }

    /// Appends to `bytes` and never exceeds the bound; 0 at the end.
    async fn read(&mut self) -> Result<usize, ProbeError> {
        match (&mut self.stream).take(self.room as u64).read_buf(&mut self.bytes).await {
            Ok(count) => {
                self.room -= count;
                Ok(count)
            }
            // Many servers end a TLS connection without close_notify; lengths tell whether something is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(broken(error)),
        }
    }
}

fn broken(error: io::Error) -> ProbeError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => ProbeError::Closed,
        _ => ProbeError::Io(error),
    }
}

/// A head and its length; `None`: not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, ProbeError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(ProbeError::Malformed("more than 100 fields")),
        Err(httparse::Error::Version) => return Err(ProbeError::Malformed("another version than HTTP/1")),
        Err(_) => return Err(ProbeError::Malformed("the head does not parse")),
    };
    let status = response.code.unwrap_or_default();
    let field = |name: &str| response.headers.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value);
    let body = if (100..200).contains(&status) || matches!(status, 204 | 304) {
        Body::None
    } else if let Some(coding) = field("transfer-encoding") {
        match coding.to_ascii_lowercase().ends_with(b"chunked") {
            true => Body::Chunked,
            false => Body::UntilClose,
        }
    } else if let Some(length) = field("content-length") {
        let length = std::str::from_utf8(length).ok().and_then(|l| l.trim().parse().ok());
        Body::Length(length.ok_or(ProbeError::Malformed("the content length is no number"))?)
    } else {
        Body::UntilClose
    };
    Ok(Some((Head { status, is_leaving: field(LEAVING).is_some(), body }, length)))
}
