//! The head of a backend's answer: found and judged. Pure.

use std::mem::MaybeUninit;

use crate::proxy::connection::framing::Framing;
use crate::proxy::headers::{Fields, Known};
use crate::proxy::request::Broke;

/// Bytes the head of an answer may have.
pub(super) const HEAD_MAX: usize = 64 * 1024;
/// Fields it may have.
const FIELDS_MAX: usize = 256;

/// The head of an answer, as it came.
pub(in crate::proxy) struct Answer<'a> {
    /// The whole of it.
    pub(in crate::proxy) head: &'a [u8],
    /// Bytes of it, empty lines before it included.
    pub(super) len: usize,
    /// 100 to 999.
    pub(in crate::proxy) status: u16,
    pub(in crate::proxy) fields: &'a Fields<'a>,
    is_http10: bool,
}

/// Reads the head at the start of `bytes` and hands it to `then`; `None`: it is not whole.
///
/// # Errors
/// [`Broke::Invalid`]: it is not HTTP/1.x, or too long.
pub(in crate::proxy) fn read<T>(bytes: &[u8], then: impl FnOnce(&Answer<'_>) -> T) -> Result<Option<T>, Broke> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // Blanks before a colon are taken out on the way (RFC 9112 §5.1).
    parser.allow_spaces_after_header_name_in_responses(true);
    let len = match parser.parse_response_with_uninit_headers(&mut answer, bytes, &mut room) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_MAX => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        _ => return Err(Broke::Invalid),
    };
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or_default();
    let fields = Fields::new(answer.headers);
    let status = answer.code.filter(|code| *code >= 100).ok_or(Broke::Invalid)?;
    Ok(Some(then(&Answer {
        head: &bytes[start..len],
        len,
        status,
        fields: &fields,
        is_http10: answer.version == Some(0),
    })))
}

impl Answer<'_> {
    /// Whether the backend keeps the connection (RFC 9112 §9.3).
    pub(super) fn keeps(&self) -> bool {
        let has = |wanted: &[u8]| {
            let mut tokens = self.fields.all(Known::Connection).flat_map(|v| v.split(|b| *b == b','));
            tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted))
        };
        // HTTP/1.0 knows no chunks: who sends them knows little of either (§6.1).
        if self.is_http10 { has(b"keep-alive") && !self.fields.has(Known::TransferEncoding) } else { !has(b"close") }
    }

    /// How the body of the answer ends; `None`: with the connection (RFC 9112 §6.3).
    ///
    /// # Errors
    /// [`Broke::Invalid`]: two readings of one answer are one too many.
    pub(super) fn framing(&self, to_head: bool) -> Result<Option<Framing>, Broke> {
        framing(to_head, self.status, self.fields)
    }
}

/// How the body of an answer ends; `None`: with the connection (RFC 9112 §6.3). `to_head`: it answers HEAD.
///
/// # Errors
/// [`Broke::Invalid`]: two readings of one answer are one too many.
fn framing(to_head: bool, status: u16, fields: &Fields<'_>) -> Result<Option<Framing>, Broke> {
    let is_repeated = |name| fields.is_repeated(name);
    let framing = match (fields.first(Known::TransferEncoding), fields.first(Known::ContentLength)) {
        (Some(encoding), None) => {
            let is_chunked = encoding.eq_ignore_ascii_case(b"chunked") && !is_repeated(Known::TransferEncoding);
            Some(if is_chunked { Framing::Chunked } else { return Err(Broke::Invalid) })
        }
        (Some(_), Some(_)) => return Err(Broke::Invalid),
        (None, None) => None,
        (None, Some(length)) => {
            let is_only = !is_repeated(Known::ContentLength);
            let is_digits = is_only && !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let digits = std::str::from_utf8(length).ok().filter(|_| is_digits);
            let length = digits.and_then(|l| l.parse().ok()).ok_or(Broke::Invalid)?;
            Some(if length == 0 { Framing::Empty } else { Framing::Length(length) })
        }
    };
    let has_no_body = to_head || matches!(status, 204 | 304);
    Ok(if has_no_body { Some(Framing::Empty) } else { framing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_answer_ends_is_told_once() {
        let of = |to_head: bool, text: &str| {
            let text = format!("HTTP/1.1 {text}\r\n\r\n");
            read(text.as_bytes(), |answer| answer.framing(to_head)).unwrap().unwrap()
        };
        assert_eq!(of(false, "200 OK\r\nContent-Length: 5"), Ok(Some(Framing::Length(5))));
        assert_eq!(of(false, "200 OK\r\nContent-Length: 0"), Ok(Some(Framing::Empty)));
        assert_eq!(of(false, "200 OK\r\nTransfer-Encoding: Chunked"), Ok(Some(Framing::Chunked)));
        assert_eq!(of(false, "200 OK"), Ok(None));
        assert_eq!(of(true, "200 OK\r\nContent-Length: 5"), Ok(Some(Framing::Empty)));
        assert_eq!(of(false, "304 Not Modified\r\nContent-Length: 5"), Ok(Some(Framing::Empty)));
        for twice in [
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
            "200 OK\r\nContent-Length: 5, 5",
            "200 OK\r\nContent-Length: -1",
            "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "200 OK\r\nTransfer-Encoding: gzip, chunked",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(of(false, twice), Err(Broke::Invalid), "{twice}");
            assert_eq!(of(true, twice), Err(Broke::Invalid), "{twice}");
        }
    }

    #[test]
    fn what_is_no_answer_is_invalid_and_half_of_one_is_waited_for() {
        let none = |_: &Answer<'_>| ();
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: 1\r\n", none), Ok(None));
        for bad in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 No\r\n\r\n",
        ] {
            assert_eq!(read(bad, none), Err(Broke::Invalid), "{}", bad.escape_ascii());
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(HEAD_MAX));
        assert_eq!(read(long.as_bytes(), none), Err(Broke::Invalid));
    }
}
