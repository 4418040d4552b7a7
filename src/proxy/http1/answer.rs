//! The head of a backend's answer: found, judged, and written as the client gets it. Pure.

use std::mem::MaybeUninit;

use http::HeaderValue;

use super::{date, fields};
use crate::proxy::connection::framing::Framing;
use crate::proxy::headers::{AnswerEdits, Fields, Known, Wire};
use crate::proxy::request::Broke;

/// Bytes the head of an answer may have.
pub(super) const HEAD_MAX: usize = 64 * 1024;
/// Fields it may have.
const FIELDS_MAX: usize = 256;

/// The head of an answer, as it came.
pub(super) struct Answer<'a> {
    /// The whole of it.
    head: &'a [u8],
    wire: &'a Wire<'a>,
    /// Bytes of it, empty lines before it included.
    pub(super) len: usize,
    /// 100 to 999.
    pub(super) status: u16,
    pub(super) fields: Fields<'a>,
    is_http10: bool,
}

/// Reads the head at the start of `bytes` and hands it to `then`; `None`: it is not whole.
///
/// # Errors
/// [`Broke::Invalid`]: it is not HTTP/1.x, or too long.
pub(super) fn read<T>(bytes: &[u8], then: impl FnOnce(&Answer<'_>) -> T) -> Result<Option<T>, Broke> {
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
    let wire = Wire::new(answer.headers);
    let status = answer.code.filter(|code| *code >= 100).ok_or(Broke::Invalid)?;
    Ok(Some(then(&Answer {
        head: &bytes[start..len],
        wire: &wire,
        len,
        status,
        fields: Fields::Wire(&wire),
        is_http10: answer.version == Some(0),
    })))
}

/// What the client's connection needs to be told besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    /// It ends behind this answer.
    pub(super) closes: bool,
    /// It stays, which HTTP/1.0 has to be told.
    pub(super) stays: bool,
    /// The body is put into chunks, which the backend did not do.
    pub(super) wraps: bool,
    /// The body was in chunks, which the client does not know.
    pub(super) unwraps: bool,
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
        framing(to_head, self.status, &self.fields)
    }

    /// Writes the head as the client gets it; without a `request_id` it is one before the final one.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        edits: &AnswerEdits<'_>,
        request_id: Option<&str>,
        cookie: Option<&HeaderValue>,
        ending: Ending,
    ) {
        let line_end = memchr::memchr(b'\n', self.head).unwrap_or(self.head.len());
        let line = self.head[..line_end].strip_suffix(b"\r").unwrap_or(&self.head[..line_end]);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(line.get(9..12).unwrap_or_default());
        out.push(b' ');
        // Reason phrases pass unchanged.
        out.extend_from_slice(line.get(13..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        let passes = |name: &[u8], known| {
            edits.passes(name, known) && !(ending.unwraps && known == Some(Known::TransferEncoding))
        };
        if has_odd_lines(self.head, self.wire) {
            fields::rewrite(out, self.wire, passes);
        } else {
            fields::copy(out, self.head, self.wire, passes);
        }
        if let Some(id) = request_id {
            fields::put(out, Known::XRequestId, &[id.as_bytes()]);
            if !self.fields.has(Known::Date) {
                // Whoever passes on an answer that does not say when it was made says so (RFC 9110 §6.6.1).
                date::with(|date| fields::put(out, Known::Date, &[date]));
            }
        }
        if let Some(cookie) = cookie {
            fields::put(out, Known::SetCookie, &[cookie.as_bytes()]);
        }
        if ending.wraps {
            fields::put(out, Known::TransferEncoding, &[b"chunked"]);
        }
        if ending.closes {
            fields::put(out, Known::Connection, &[b"close"]);
        } else if ending.stays {
            fields::put(out, Known::Connection, &[b"keep-alive"]);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Lines that end in LF alone, or blanks before a colon.
fn has_odd_lines(head: &[u8], wire: &Wire<'_>) -> bool {
    // The parser accepts no CR without LF.
    if memchr::memchr_iter(b'\n', head).count() > memchr::memchr_iter(b'\r', head).count() {
        return true;
    }
    let end = |name: &str| name.as_ptr().addr().wrapping_sub(head.as_ptr().addr()).wrapping_add(name.len());
    wire.iter().any(|(field, _)| head.get(end(field.name)) != Some(&b':'))
}

/// How the body of an answer ends; `None`: with the connection (RFC 9112 §6.3). `to_head`: it answers HEAD.
///
/// # Errors
/// [`Broke::Invalid`]: two readings of one answer are one too many.
pub(in crate::proxy) fn framing(to_head: bool, status: u16, fields: &Fields<'_>) -> Result<Option<Framing>, Broke> {
    let mut encodings = fields.all(Known::TransferEncoding);
    let mut lengths = fields.all(Known::ContentLength);
    let framing = match (encodings.next(), lengths.next()) {
        (Some(encoding), None) => {
            let is_chunked = encoding.eq_ignore_ascii_case(b"chunked") && encodings.next().is_none();
            Some(if is_chunked { Framing::Chunked } else { return Err(Broke::Invalid) })
        }
        (Some(_), Some(_)) => return Err(Broke::Invalid),
        (None, None) => None,
        (None, Some(length)) => {
            let is_digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit) && lengths.next().is_none();
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

    fn told(text: &str, ending: Ending) -> String {
        let mut out = Vec::new();
        let done = read(text.as_bytes(), |answer| {
            let edits = AnswerEdits::new(answer.status, answer.fields);
            answer.write(&mut out, &edits, Some("id"), None, ending);
            answer.len
        });
        assert_eq!(done, Ok(Some(text.len())));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_is_passed_on_as_it_came_but_for_what_is_the_hops() {
        let text = "HTTP/1.0 299 Tres Special, (really)\r\nx-A:  1\r\nConnection: close, X-Own\r\nX-Own: 2\r\nKeep-Alive: 3\r\nx-request-id: theirs\r\nDate: now\r\n\r\n";
        assert_eq!(
            told(text, Ending::default()),
            "HTTP/1.1 299 Tres Special, (really)\r\nx-A:  1\r\nDate: now\r\nX-Request-Id: id\r\n\r\n"
        );
        assert_eq!(
            told("HTTP/1.1 200 OK\r\nA : 1\r\nDate\t: x\r\n\r\n", Ending::default()),
            "HTTP/1.1 200 OK\r\nA: 1\r\nDate: x\r\nX-Request-Id: id\r\n\r\n"
        );
        let dated = told("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", Ending::default());
        assert!(dated.starts_with("HTTP/1.1 204 No\r\nX-Request-Id: id\r\nDate: ") && dated.ends_with(" GMT\r\n\r\n"));
        let closes = Ending { closes: true, wraps: true, ..Ending::default() };
        assert_eq!(
            told("HTTP/1.1 200\r\nDate: x\r\n\r\n", closes),
            "HTTP/1.1 200 \r\nDate: x\r\nX-Request-Id: id\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        let unwraps = Ending { unwraps: true, stays: true, ..Ending::default() };
        assert_eq!(
            told("\r\nHTTP/1.1 200 OK\nDate:x\nA: 1\nTransfer-Encoding: chunked\nB:2\r\n\n", unwraps),
            "HTTP/1.1 200 OK\r\nDate: x\r\nA: 1\r\nB: 2\r\nX-Request-Id: id\r\nConnection: keep-alive\r\n\r\n",
            "a line ends in one way only"
        );
    }

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
