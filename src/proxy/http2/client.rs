//! A client that speaks HTTP/2, within one stream.

use std::collections::VecDeque;
use std::io;
use std::task::{Context as Cx, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{DATE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::net::TcpStream;

use crate::proxy::connection::framing::{Follower, Framing, Parts};
use crate::proxy::error::Cause;
use crate::proxy::forward::{self, Answer, Final, date};
use crate::proxy::headers::{AnswerEdits, Known};
use crate::proxy::request::Context;

/// Both directions of a stream.
pub(super) struct Client {
    body: RecvStream,
    /// How the backend is told where the body ends.
    framing: Framing,
    has_said_all: bool,
    respond: SendResponse<Bytes>,
    /// A head that waits for what follows it, so that both are one write.
    head: Option<Response<()>>,
    /// `None` before the head went.
    stream: Option<SendStream<Bytes>>,
    /// What the client's window or the connection has no room for yet.
    pending: VecDeque<Bytes>,
    /// Nothing comes behind `pending`.
    ends: bool,
    has_ended: bool,
}

impl Client {
    /// Of a request whose body, if there is any, the backend gets in this framing.
    pub(super) fn new(body: RecvStream, framing: Framing, respond: SendResponse<Bytes>) -> Self {
        Self {
            has_said_all: body.is_end_stream(),
            body,
            framing,
            respond,
            head: None,
            stream: None,
            pending: VecDeque::new(),
            ends: false,
            has_ended: false,
        }
    }

    /// Answers with this and nothing else. Ready when the client has taken it.
    ///
    /// # Errors
    /// It takes nothing more.
    pub(super) fn say(&mut self, head: &Response<()>, body: &Bytes, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        if !self.ends {
            (self.head, self.ends) = (Some(head.clone()), true);
            self.pending.extend((!body.is_empty()).then(|| body.clone()));
        }
        forward::Client::pass_on(self, cx)
    }

    /// Reads and drops what still comes of the request; `None` when that is all.
    pub(super) fn poll_drop(&mut self, cx: &mut Cx<'_>) -> Poll<Option<usize>> {
        Poll::Ready(match ready!(self.body.poll_data(cx)) {
            Some(Ok(bytes)) => {
                let _ = self.body.flow_control().release_capacity(bytes.len());
                Some(bytes.len())
            }
            Some(Err(_)) | None => {
                self.has_said_all = true;
                None
            }
        })
    }

    /// Cuts the stream: what was answered is not whole.
    pub(super) fn cut(&mut self) {
        match &mut self.stream {
            Some(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Sends what there is room for; whether that was all.
    fn send(&mut self) -> io::Result<bool> {
        if let Some(head) = self.head.take() {
            self.has_ended = self.ends && self.pending.is_empty();
            self.stream = Some(self.respond.send_response(head, self.has_ended).map_err(io::Error::other)?);
        }
        let Some(stream) = &mut self.stream else { return Ok(true) };
        while let Some(mut piece) = self.pending.pop_front() {
            stream.reserve_capacity(piece.len());
            let room = stream.capacity().min(piece.len());
            if room == 0 {
                self.pending.push_front(piece);
                return Ok(false);
            }
            let rest = piece.split_off(room);
            if !rest.is_empty() {
                self.pending.push_front(rest);
            }
            self.has_ended = self.ends && self.pending.is_empty();
            stream.send_data(piece, self.has_ended).map_err(io::Error::other)?;
        }
        if self.ends && !self.has_ended {
            self.has_ended = true;
            stream.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Ok(true)
    }

    fn gather(&mut self, out: &mut Vec<u8>) {
        if !out.is_empty() {
            self.pending.push_back(Bytes::copy_from_slice(out));
            out.clear();
        }
    }
}

impl forward::Client for Client {
    fn has_said_all(&self) -> bool {
        self.has_said_all
    }

    fn read_body(
        &mut self,
        _: &mut [u8],
        context: &mut Context,
        bytes_in: &mut u64,
        cx: &mut Cx<'_>,
        give: &mut dyn FnMut(&[u8], &mut Cx<'_>),
    ) -> Result<Option<usize>, Cause> {
        let wraps = self.framing == Framing::Chunked;
        let bytes = match self.body.poll_data(cx) {
            Poll::Pending => return Ok(None),
            Poll::Ready(Some(Ok(bytes))) => bytes,
            Poll::Ready(Some(Err(error))) if error.is_library() => return Err(Cause::BadBody),
            Poll::Ready(Some(Err(_))) => return Err(Cause::ClientGone),
            Poll::Ready(None) => {
                self.has_said_all = true;
                if wraps {
                    give(b"0\r\n\r\n", cx);
                }
                return Ok(Some(0));
            }
        };
        *bytes_in += bytes.len() as u64;
        if context.body_overflows(bytes.len() as u64) {
            return Err(Cause::BodyTooLarge);
        }
        if wraps && !bytes.is_empty() {
            give(format!("{:x}\r\n", bytes.len()).as_bytes(), cx);
        }
        give(&bytes, cx);
        if wraps && !bytes.is_empty() {
            give(b"\r\n", cx);
        }
        // There is more only once the backend has taken this.
        let _ = self.body.flow_control().release_capacity(bytes.len());
        if !wraps && self.body.is_end_stream() {
            self.has_said_all = true;
        }
        Ok(Some(bytes.len()))
    }

    fn unseen_body(&mut self) -> Option<(&TcpStream, &mut Follower)> {
        None
    }

    fn plain_tcp(&self) -> Option<&TcpStream> {
        None
    }

    fn interim(&mut self, answer: &Answer<'_>, edits: &AnswerEdits<'_>, _: &mut Vec<u8>) -> io::Result<()> {
        let Ok(status) = StatusCode::from_u16(answer.status) else { return Ok(()) };
        let mut head = Response::new(());
        *head.status_mut() = status;
        copy(head.headers_mut(), answer, |name, known| edits.passes(name, known));
        self.respond.send_informational(head).map_err(io::Error::other)
    }

    fn head(&mut self, head: &Final<'_>, _: &mut Vec<u8>) -> io::Result<Parts> {
        let Final { answer, edits, page, request_id, cookie, .. } = head;
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(answer.status).map_err(io::Error::other)?;
        let fields = response.headers_mut();
        copy(fields, answer, |name, known| edits.passes(name, known) && !page.is_some_and(|page| page.replaces(name)));
        if let Ok(mut id) = HeaderValue::from_str(request_id) {
            // Nothing to be remembered by the other side's decoder: it never comes again (RFC 7541 §6.2.3).
            id.set_sensitive(true);
            fields.insert(Known::XRequestId.key(), id);
        }
        if !answer.fields.has(Known::Date)
            && let Ok(date) = date::with(HeaderValue::from_bytes)
        {
            fields.insert(DATE, date);
        }
        for (name, value) in page.map_or(&[][..], |page| &page.set) {
            fields.insert(name, value.clone());
        }
        if let Some(cookie) = cookie {
            fields.append(SET_COOKIE, (*cookie).clone());
        }
        self.head = Some(response);
        Ok(Parts::Data)
    }

    fn put(&mut self, piece: &[u8], is_small: bool, out: &mut Vec<u8>, _: &mut Cx<'_>) {
        if is_small {
            out.extend_from_slice(piece);
        } else {
            self.gather(out);
            self.pending.push_back(Bytes::copy_from_slice(piece));
        }
    }

    fn push(&mut self, ends: bool, out: &mut Vec<u8>, _: &mut Cx<'_>) -> io::Result<bool> {
        self.gather(out);
        self.ends |= ends;
        self.send()
    }

    fn pass_on(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        while !self.send()? {
            let Some(stream) = &mut self.stream else { break };
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn backlog(&self) -> usize {
        self.pending.iter().map(Bytes::len).sum()
    }

    fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    fn has_left(&mut self, cx: &mut Cx<'_>) -> bool {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        }
    }
}

/// Copies the fields that pass, but for those that HTTP/2 has no use for (RFC 9113 §8.2.2). All values share one copy.
fn copy(fields: &mut HeaderMap, answer: &Answer<'_>, passes: impl Fn(&[u8], Option<Known>) -> bool) {
    let head = Bytes::copy_from_slice(answer.head);
    fields.reserve(answer.fields.lines.len() + ADDED);
    for (field, known) in answer.fields.iter() {
        let is_the_hops = matches!(known, Some(Known::TransferEncoding | Known::Upgrade | Known::Connection));
        if is_the_hops || !passes(field.name.as_bytes(), known) {
            continue;
        }
        let start = field.value.as_ptr().addr().wrapping_sub(answer.head.as_ptr().addr());
        let value = if head.get(start..start + field.value.len()).is_some() {
            HeaderValue::from_maybe_shared(head.slice(start..start + field.value.len()))
        } else {
            HeaderValue::from_bytes(field.value)
        };
        // What the types refuse is no field.
        let name = known.map_or_else(|| HeaderName::from_bytes(field.name.as_bytes()), |known| Ok(known.key()));
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
}

/// Room for the fields that are added to a head.
const ADDED: usize = 3;
