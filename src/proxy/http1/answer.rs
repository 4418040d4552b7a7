//! The head of an answer as an HTTP/1.1 client gets it. Pure.

use http::HeaderValue;

use crate::proxy::forward::{Answer, date, fields};
use crate::proxy::headers::{AnswerEdits, Fields, Known, put};
use crate::shiny::shim;

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

/// What a final answer says besides.
pub(super) struct Added<'a> {
    pub(super) request_id: &'a str,
    pub(super) cookie: Option<&'a HeaderValue>,
    /// What is said otherwise, as the body is added to.
    pub(super) page: Option<&'a shim::Plan>,
}

/// Writes the head as the client gets it; without anything `added` it is one before the final one.
pub(super) fn write(
    out: &mut Vec<u8>,
    answer: &Answer<'_>,
    edits: &AnswerEdits<'_>,
    added: Option<&Added<'_>>,
    ending: Ending,
) {
    let line_end = memchr::memchr(b'\n', answer.head).unwrap_or(answer.head.len());
    let line = answer.head[..line_end].strip_suffix(b"\r").unwrap_or(&answer.head[..line_end]);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(line.get(9..12).unwrap_or_default());
    out.push(b' ');
    // Reason phrases pass unchanged.
    out.extend_from_slice(line.get(13..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    let page = added.and_then(|added| added.page);
    let passes = |name: &[u8], known| {
        edits.passes(name, known)
            && !(ending.unwraps && known == Some(Known::TransferEncoding))
            && !page.is_some_and(|page| page.replaces(name))
    };
    if has_odd_lines(answer.head, answer.fields) {
        fields::rewrite(out, answer.fields, passes);
    } else {
        fields::copy(out, answer.head, answer.fields, passes);
    }
    if let Some(added) = added {
        put(out, Known::XRequestId, &[added.request_id.as_bytes()]);
        if answer.status != 101 && !answer.fields.has(Known::Date) {
            // Whoever passes on an answer that does not say when it was made says so (RFC 9110 §6.6.1).
            date::with(|date| put(out, Known::Date, &[date]));
        }
        if let Some(cookie) = added.cookie {
            put(out, Known::SetCookie, &[cookie.as_bytes()]);
        }
    }
    for (name, value) in page.map_or(&[][..], |page| &page.set) {
        fields::put_named(out, name.as_str(), &[value.as_bytes()]);
    }
    if ending.wraps {
        put(out, Known::TransferEncoding, &[b"chunked"]);
    }
    if ending.closes {
        put(out, Known::Connection, &[b"close"]);
    } else if ending.stays {
        put(out, Known::Connection, &[b"keep-alive"]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Lines that end in LF alone, or blanks before a colon.
fn has_odd_lines(head: &[u8], fields: &Fields<'_>) -> bool {
    let place = |name: &str| name.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    !head.ends_with(b"\r\n\r\n")
        || fields.lines.iter().any(|field| {
            let start = place(field.name);
            let line_ends_before = head.get(..start).is_some_and(|before| before.ends_with(b"\r\n"));
            !line_ends_before || head.get(start + field.name.len()) != Some(&b':')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::forward::read;

    fn told(text: &str, ending: Ending) -> String {
        let mut out = Vec::new();
        let done = read(text.as_bytes(), |answer| {
            let edits = AnswerEdits::new(answer.status, answer.fields);
            let added = Added { request_id: "id", cookie: None, page: None };
            write(&mut out, answer, &edits, Some(&added), ending);
            answer.head.len()
        });
        assert_eq!(done, Ok(Some(text.trim_start().len())));
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
}
