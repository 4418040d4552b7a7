//! Puts one element into a page that passes in pieces. Nothing is held back.

use bytes::{Bytes, BytesMut};

/// Looks for the end of the `<head>` tag and puts the element there; at the end of the page if there is none.
#[derive(Debug)]
pub struct Injector {
    /// `None` once it is in.
    element: Option<String>,
    at: At,
}

/// Where in the page we are, as far as `<head>` matters (HTML Living Standard §13.2.5, much reduced).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Text,
    /// So many letters of `<head` are there.
    Name(usize),
    /// In the attributes of `<head`, within this quote.
    Attributes(Option<u8>),
    /// So many letters of `<!--` are there.
    Opening(usize),
    /// In a comment, so many letters of `-->` are there.
    Comment(usize),
}

const HEAD: &[u8] = b"<head";
const COMMENT: &[u8] = b"<!--";

impl Injector {
    pub(super) fn new(element: String) -> Self {
        Self { element: Some(element), at: At::Text }
    }

    /// Takes the next piece of the body; `end` with the last one. Gives the piece to send instead.
    pub fn feed(&mut self, chunk: Option<Bytes>, end: bool) -> Option<Bytes> {
        if self.element.is_none() {
            return chunk;
        }
        let chunk = chunk.unwrap_or_default();
        let place = self.find(&chunk).or_else(|| end.then_some(chunk.len()));
        let Some((place, element)) = place.and_then(|place| Some((place, self.element.take()?))) else {
            return (!chunk.is_empty()).then_some(chunk);
        };
        let mut out = BytesMut::with_capacity(chunk.len() + element.len());
        out.extend_from_slice(&chunk[..place]);
        out.extend_from_slice(element.as_bytes());
        out.extend_from_slice(&chunk[place..]);
        Some(out.freeze())
    }

    /// Reads on; the place right behind the `<head>` tag if it ends in these bytes.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        while i < bytes.len() {
            if self.at == At::Text {
                i += memchr::memchr(b'<', &bytes[i..])?;
            }
            let byte = bytes[i].to_ascii_lowercase();
            i += 1;
            self.at = match (self.at, byte) {
                (At::Attributes(None), b'>') => return Some(i),
                (At::Name(n), b'>') if n == HEAD.len() => return Some(i),
                (At::Name(n), b' ' | b'\t' | b'\n' | b'\r' | 0x0c | b'/') if n == HEAD.len() => At::Attributes(None),
                (At::Name(1), b'!') => At::Opening(2),
                (At::Name(n), b) if n < HEAD.len() && b == HEAD[n] => At::Name(n + 1),
                (At::Opening(n), b) if b == COMMENT[n] => {
                    if n + 1 == COMMENT.len() {
                        At::Comment(0)
                    } else {
                        At::Opening(n + 1)
                    }
                }
                (At::Attributes(None), b'"' | b'\'') => At::Attributes(Some(byte)),
                (At::Attributes(Some(quote)), b) if b == quote => At::Attributes(None),
                (At::Attributes(quote), _) => At::Attributes(quote),
                (At::Comment(n), b'-') => At::Comment((n + 1).min(2)),
                (At::Comment(2), b'>') => At::Text,
                (At::Comment(_), _) => At::Comment(0),
                (_, b'<') => At::Name(1),
                _ => At::Text,
            };
        }
        None
    }
}
