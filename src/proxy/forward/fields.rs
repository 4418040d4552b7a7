//! Fields as they came, copied to where they go.

use httparse::Header;

use crate::proxy::headers::{Fields, Known};

/// Copies the lines of the fields that pass, in as few pieces as may be. `head` is the whole head, its lines end in CR LF,
/// and the fields were parsed out of it.
pub(in crate::proxy) fn copy(
    out: &mut Vec<u8>,
    head: &[u8],
    from: &Fields<'_>,
    passes: impl Fn(&[u8], Option<Known>) -> bool,
) {
    let place = |field: &Header<'_>| field.name.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    // Where the lines that are to be copied next begin.
    let mut start = None;
    for (field, known) in from.iter() {
        match (passes(field.name.as_bytes(), known), start) {
            (true, None) => start = Some(place(field)),
            (false, Some(from)) => {
                out.extend_from_slice(head.get(from..place(field)).unwrap_or_default());
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        out.extend_from_slice(head.get(from..head.len() - 2).unwrap_or_default());
    }
}

/// The same line by line, for a head whose lines end otherwise.
pub(in crate::proxy) fn rewrite(out: &mut Vec<u8>, from: &Fields<'_>, passes: impl Fn(&[u8], Option<Known>) -> bool) {
    for (field, _) in from.iter().filter(|(field, known)| passes(field.name.as_bytes(), *known)) {
        for piece in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
            out.extend_from_slice(piece);
        }
    }
}

/// Writes one field of any name, its value given in pieces.
pub(in crate::proxy) fn put_named(out: &mut Vec<u8>, name: &str, pieces: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_pass_are_copied_as_they_are() {
        let head = b"GET / HTTP/1.1\r\nA: 1\r\nB:2 \r\nc:  3\r\nD: 4\r\n\r\n";
        for (keeps, copied) in [
            ("abcd", "A: 1\r\nB:2 \r\nc:  3\r\nD: 4\r\n"),
            ("ad", "A: 1\r\nD: 4\r\n"),
            ("bc", "B:2 \r\nc:  3\r\n"),
            ("", ""),
        ] {
            let mut room = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut room);
            assert!(request.parse(head).unwrap().is_complete());
            let from = Fields::new(request.headers);
            let passes = |name: &[u8], _| keeps.contains(char::from(name[0].to_ascii_lowercase()));
            let (mut whole, mut anew) = (Vec::new(), Vec::new());
            copy(&mut whole, head, &from, passes);
            rewrite(&mut anew, &from, passes);
            assert_eq!(String::from_utf8(whole).unwrap(), copied);
            assert_eq!(anew.len(), keeps.len() * "A: 1\r\n".len());
        }
    }
}
