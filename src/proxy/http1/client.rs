//! A client that speaks HTTP/1.1, within one exchange.

use std::io;
use std::pin::Pin;
use std::task::{Context as Cx, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::answer::{self, Added, Ending};
use crate::proxy::connection::framing::{Follower, Framing, Parts};
use crate::proxy::connection::head::Head;
use crate::proxy::connection::{Downstream, Refusal, poll_early};
use crate::proxy::error::Cause;
use crate::proxy::forward::{self, Answer, Final, Outlet};
use crate::proxy::headers::AnswerEdits;
use crate::proxy::request::Context;

/// The client's connection while one request of it is served.
pub(super) struct Client<'a> {
    down: &'a mut Downstream,
    head: &'a Head,
    /// Where the request's body is.
    body: &'a mut Follower,
    outlet: Outlet,
    /// Why nothing more can be written.
    failure: Option<io::Error>,
    /// Each piece of the answer's body becomes a chunk.
    wraps: bool,
    /// The connection ends behind the answer.
    closes: bool,
    /// Nothing but the end of the connection tells the client where the answer ends.
    ends_with_connection: bool,
}

impl<'a> Client<'a> {
    /// `body`: behind what came of it with the head.
    pub(super) fn new(down: &'a mut Downstream, head: &'a Head, body: &'a mut Follower) -> Self {
        let (outlet, failure) = (Outlet::default(), None);
        Self { down, head, body, outlet, failure, wraps: false, closes: false, ends_with_connection: false }
    }

    /// What is left of the exchange.
    pub(super) fn end(self) -> Ended {
        let Self { closes, ends_with_connection, .. } = self;
        Ended { closes, ends_with_connection, has_said_all: self.body.is_done() }
    }
}

/// How things stand behind an exchange.
pub(super) struct Ended {
    /// The connection is to end.
    pub(super) closes: bool,
    /// Its end is what tells that the answer is whole.
    pub(super) ends_with_connection: bool,
    /// The client has said all of its request.
    pub(super) has_said_all: bool,
}

impl forward::Client for Client<'_> {
    fn has_said_all(&self) -> bool {
        self.body.is_done()
    }

    fn read_body(
        &mut self,
        room: &mut [u8],
        context: &mut Context,
        bytes_in: &mut u64,
        cx: &mut Cx<'_>,
        give: &mut dyn FnMut(&[u8], &mut Cx<'_>),
    ) -> Result<Option<usize>, Cause> {
        let mut came = ReadBuf::new(room);
        match Pin::new(&mut self.down.stream).poll_read(cx, &mut came) {
            Poll::Pending => return Ok(None),
            Poll::Ready(Err(_)) => return Err(Cause::ClientGone),
            Poll::Ready(Ok(())) if came.filled().is_empty() => return Err(Cause::ClientGone),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = came.filled();
        // Looked at before any of it goes: the backend gets no byte more than the route takes.
        let Ok(passed) = { *self.body }.pass(bytes, Parts::Data, |_| {}) else {
            self.down.facts.refused(Refusal::BadChunk);
            return Err(Cause::BadBody);
        };
        *bytes_in += passed.data;
        if context.body_overflows(passed.data) {
            return Err(Cause::BodyTooLarge);
        }
        let _ = self.body.pass(bytes, Parts::All, |piece| give(piece, cx));
        self.down.buf.extend_from_slice(&bytes[passed.used..]);
        Ok(Some(bytes.len()))
    }

    /// How much comes in chunks is not known beforehand: those are looked at, lest the backend get more than the route takes.
    fn unseen_body(&mut self) -> Option<(&TcpStream, &mut Follower)> {
        let is_counted = matches!(self.head.framing, Framing::Length(_));
        let socket = self.down.stream.plain_tcp().filter(|_| is_counted)?;
        Some((socket, self.body))
    }

    fn plain_tcp(&self) -> Option<&TcpStream> {
        self.down.stream.plain_tcp()
    }

    fn interim(&mut self, answer: &Answer<'_>, edits: &AnswerEdits<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        // HTTP/1.0 knows none of them (RFC 9110 §15.2).
        if !self.head.is_http10 {
            answer::write(out, answer, edits, None, Ending::default());
        }
        Ok(())
    }

    fn head(&mut self, head: &Final<'_>, out: &mut Vec<u8>) -> io::Result<Parts> {
        let Final { answer, framing, edits, page, request_id, cookie, to_head, is_stopping } = *head;
        if answer.status == 101 {
            answer::write(out, answer, &edits, Some(&Added { request_id, cookie, page }), Ending::default());
            return Ok(Parts::All);
        }
        let is_http10 = self.head.is_http10;
        let is_chunked = framing == Some(Framing::Chunked);
        let unwraps = is_http10 && (is_chunked || to_head);
        // To HTTP/1.0 an end that no length tells is the end of the connection (RFC 9112 §6.3).
        self.ends_with_connection = is_http10 && (framing.is_none() || is_chunked);
        self.wraps = !is_http10 && (framing.is_none() || page.is_some() && is_chunked);
        self.closes = self.head.closes || is_stopping || self.ends_with_connection || !self.body.is_done();
        let wraps = framing.is_none() && !is_http10;
        let ending = Ending { closes: self.closes, stays: is_http10, wraps, unwraps };
        answer::write(out, answer, &edits, Some(&Added { request_id, cookie, page }), ending);
        Ok(if unwraps || self.wraps { Parts::Data } else { Parts::All })
    }

    fn put(&mut self, piece: &[u8], is_small: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        if self.wraps {
            use std::io::Write as _;
            // Writing into a vector cannot fail.
            let _ = write!(out, "{:x}\r\n", piece.len());
        }
        if is_small {
            out.extend_from_slice(piece);
        } else {
            let Self { outlet, down, failure, .. } = self;
            let given = outlet.give(out, &mut down.stream, cx).and_then(|_| outlet.give(piece, &mut down.stream, cx));
            out.clear();
            *failure = failure.take().or(given.err());
        }
        if self.wraps {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn push(&mut self, ends: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> io::Result<bool> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if ends && self.wraps {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.outlet.give(out, &mut self.down.stream, cx)
    }

    fn pass_on(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        self.outlet.pass_on(&mut self.down.stream, cx)
    }

    fn backlog(&self) -> usize {
        self.outlet.backlog()
    }

    fn is_busy(&self) -> bool {
        self.outlet.is_busy()
    }

    /// What it says early is kept, as far as it may; the kernel holds the rest back. Who said that this is the last request
    /// may close its side early: that is no news.
    fn has_left(&mut self, cx: &mut Cx<'_>) -> bool {
        while !self.head.closes {
            match poll_early(self.down, cx) {
                Poll::Pending | Poll::Ready(Ok(false)) => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(true)) => {}
            }
        }
        false
    }
}
