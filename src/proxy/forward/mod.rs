//! The upstream half: one request goes to a backend over HTTP/1.1, its answer comes back, nothing in the bodies is touched
//! but where a page gets its script.
//!
//! Whoever has the client ([`http1`](super::http1), [`http2`](super::http2)) writes the head as the backend gets it and is
//! a [`Client`] from then on. [`exchange`] finds a connection to the backend, kept or new, and lets [`relay`] move both
//! ways, attempt by attempt.

mod answer;
pub(super) mod date;
pub(super) mod fields;
mod lines;
mod outlet;
mod pipe;
mod relay;

use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context as Cx, Poll};
use std::time::Duration;

use http::{HeaderValue, Method};
use pingora_core::protocols::l4::ext::get_tcp_info;
use tokio::net::TcpStream;

pub(super) use self::answer::Answer;
#[cfg(test)]
pub(super) use self::answer::read;
pub(super) use self::outlet::Outlet;
use self::relay::{Relay, State, Stop};
use super::Proxy;
use super::connection::Deadline;
use super::connection::framing::{Follower, Framing, Parts};
use super::dial;
use super::error::Cause;
use super::headers::AnswerEdits;
use super::request::{Broke, Context, Line, Next};
use super::stream::{Socket, Stream};
use crate::shiny::shim;

/// A request on its way to backends, one after another if need be.
pub(super) struct Sending {
    /// What it asks for.
    pub(super) method: Method,
    /// Its head as a backend gets it, and what has come of its body by then.
    pub(super) bytes: Vec<u8>,
    /// All of it is in `bytes`: it can be sent again.
    pub(super) is_whole: bool,
    /// Body bytes that came from the client.
    pub(super) bytes_in: u64,
    /// The protocols it asks to leave HTTP/1.1 for, if it does.
    pub(super) upgrade: Option<Vec<u8>>,
}

/// The client's side of an exchange. Polled by one task.
pub(super) trait Client {
    /// All of the request has come.
    fn has_said_all(&self) -> bool;

    /// Reads once of what is missing of the request, into `room` if need be; judges and counts it, and only then hands it to
    /// `give`, framed as the backend gets it. How many bytes came; `None`: nothing is there.
    ///
    /// # Errors
    /// The client left, or said what it may not.
    fn read_body(
        &mut self,
        room: &mut [u8],
        context: &mut Context,
        bytes_in: &mut u64,
        cx: &mut Cx<'_>,
        give: &mut dyn FnMut(&[u8], &mut Cx<'_>),
    ) -> Result<Option<usize>, Cause>;

    /// The socket and what is known of the body, where bytes may go from socket to socket unseen.
    fn unseen_body(&mut self) -> Option<(&TcpStream, &mut Follower)>;

    /// The socket, where bytes of the answer may go to it from socket to socket.
    fn plain_tcp(&self) -> Option<&TcpStream>;

    /// An answer before the final one. What is written at once goes to `out`.
    ///
    /// # Errors
    /// The client takes no more.
    fn interim(&mut self, answer: &Answer<'_>, edits: &AnswerEdits<'_>, out: &mut Vec<u8>) -> io::Result<()>;

    /// The head of the final answer; which parts of the body are wanted.
    ///
    /// # Errors
    /// The client takes no more.
    fn head(&mut self, head: &Final<'_>, out: &mut Vec<u8>) -> io::Result<Parts>;

    /// A piece of the body, never empty: into `out`, or at once if it is large.
    fn put(&mut self, piece: &[u8], is_small: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>);

    /// Sends what is in `out`, and what was put; `ends`: the answer is whole. Whether all of it went.
    ///
    /// # Errors
    /// The client takes no more.
    fn push(&mut self, ends: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> io::Result<bool>;

    /// Sends what did not go at once. Ready when nothing is left to do.
    ///
    /// # Errors
    /// The client takes no more.
    fn pass_on(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<()>>;

    /// Bytes that did not go.
    fn backlog(&self) -> usize;

    /// Something is to be sent or flushed.
    fn is_busy(&self) -> bool;

    /// Whether the client has gone. Asked once it has said all.
    fn has_left(&mut self, cx: &mut Cx<'_>) -> bool;
}

/// The head of a final answer, and what becomes of it.
pub(super) struct Final<'a> {
    /// As it came.
    pub(super) answer: &'a Answer<'a>,
    /// How its body is delimited; `None`: by the end of the connection.
    pub(super) framing: Option<Framing>,
    /// Which fields go on.
    pub(super) edits: AnswerEdits<'a>,
    /// What is said instead, as its body is added to.
    pub(super) page: Option<&'a shim::Plan>,
    /// To be added.
    pub(super) request_id: &'a str,
    /// To be added.
    pub(super) cookie: Option<&'a HeaderValue>,
    /// The answer is to HEAD.
    pub(super) to_head: bool,
    /// The process is to leave.
    pub(super) is_stopping: bool,
}

/// What became of an exchange.
pub(super) struct Outcome {
    /// The status that went to the client; `None`: nothing of a final answer did.
    pub(super) status: Option<u16>,
    /// Body bytes that went to the client.
    pub(super) bytes_out: u64,
    /// Why it failed.
    pub(super) cause: Option<Cause>,
    /// The backend left HTTP, as it was asked to.
    pub(super) switched: Option<Switched>,
}

impl Outcome {
    /// Nothing of an answer went to the client.
    pub(super) fn failed(cause: Cause) -> Self {
        Self { status: None, bytes_out: 0, cause: Some(cause), switched: None }
    }
}

/// A backend's connection behind its 101.
pub(super) struct Switched {
    pub(super) line: Stream,
    /// The head of the 101 as the client gets it, and what came behind it.
    pub(super) to_client: Vec<u8>,
    /// Bytes of the head.
    pub(super) head_len: usize,
}

/// A request that cannot be repeated once it was seen takes a connection that idled no longer than this: no backend in its
/// right mind closes what was used a moment ago.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Asks backends until one answers or none is left, and passes its answer on. `is_chosen`: the first one is chosen already.
pub(super) async fn exchange<C: Client>(
    proxy: &Proxy,
    client: &mut C,
    context: &mut Context,
    sending: &mut Sending,
    deadline: &mut Deadline,
    is_chosen: bool,
) -> Outcome {
    let mut must_choose = !is_chosen;
    loop {
        // Here, and not within the attempt: it is large, and is not moved about.
        let mut state = State::new();
        let attempt = Attempt { proxy, client, context, sending, deadline, state: &mut state };
        let stop = match attempt.run(must_choose).await {
            Ok(stop) => stop,
            Err(Next::Again) => {
                must_choose = true;
                continue;
            }
            Err(Next::GiveUp(cause)) => return Outcome::failed(cause),
        };
        let mut switched = None;
        let cause = match stop {
            Stop::Done => None,
            Stop::Switched { to_client, head_len } => {
                switched = state.line.take().map(|line| Switched { line, to_client, head_len });
                None
            }
            Stop::Again => {
                must_choose = true;
                continue;
            }
            Stop::Broke(how) | Stop::BrokeWithin(how) => Some(how.cause()),
            Stop::Failed(cause) => Some(cause),
        };
        return Outcome { status: state.status, bytes_out: state.bytes_out, cause, switched };
    }
}

/// One attempt.
struct Attempt<'a, C> {
    proxy: &'a Proxy,
    client: &'a mut C,
    context: &'a mut Context,
    sending: &'a mut Sending,
    deadline: &'a mut Deadline,
    state: &'a mut State,
}

impl<C: Client> Attempt<'_, C> {
    /// Chooses, connects, and moves until the attempt is over.
    ///
    /// # Errors
    /// What to do next, where nothing of an answer was passed on.
    async fn run(self, must_choose: bool) -> Result<Stop, Next> {
        // Its fields are used where they are: a future has room for each name by which something goes.
        if must_choose {
            Box::pin(self.context.choose()).await.map_err(Next::GiveUp)?;
        }
        let Some((backing, backend)) = self.context.chosen() else { return Err(Next::GiveUp(Cause::Internal)) };
        let timeouts = &backing.pool.settings().timeouts;
        let (backend_id, keep_for, connect) = (backing.id(backend.place()), timeouts.keepalive, timeouts.connect);
        let kept = match () {
            // It becomes a session's own.
            () if self.sending.upgrade.is_some() => None,
            () if self.context.may_repeat() => lines::take(backend_id, Duration::MAX),
            () if self.context.may_repeat_unheard() && self.sending.is_whole => lines::take(backend_id, IDLE_MAX),
            () => None,
        };
        let is_kept = kept.is_some();
        let mut line = match kept {
            Some(line) => line,
            // Boxed, so that a request does not carry the size of a dial.
            None => match Box::pin(dial::connect(backend.address(), backing.tls.as_deref(), connect)).await {
                Ok(line) => line,
                Err(error) => return Err(self.context.not_connected((&error).into())),
            },
        };
        self.context.connected(is_kept);
        let Self { proxy, client, context, sending, deadline, state } = self;
        let is_stopping = proxy.is_stopping();
        let mut relay = Relay { client, line: &mut line, context, sending, deadline, is_stopping, state };
        let stop = poll_fn(|cx| relay.poll(cx)).await;
        let is_clean = relay.state.is_clean && relay.has_sent();
        match stop {
            Stop::Done => {
                // One that was made because none that is kept would do is not kept beside those.
                let is_spare = !is_kept && !context.may_repeat() && !sending.is_whole && lines::has(backend_id);
                if is_clean && !is_spare {
                    lines::keep(backend_id, line, keep_for, proxy.kept_lines_max());
                }
            }
            Stop::Broke(how) => {
                let line = match is_kept {
                    // Who resets it may have read it a moment before: a reset acknowledges nothing. Who just ends it says in
                    // the same breath what came.
                    true if sending.is_whole && !state.was_reset && is_unheard(&line, sending.bytes.len() as u64) => {
                        Line::Unheard
                    }
                    true => Line::Kept,
                    false => Line::Fresh,
                };
                return Err(context.broke(how, line));
            }
            Stop::BrokeWithin(how) => context.broke_within_answer(how),
            Stop::Switched { .. } => state.line = Some(line),
            Stop::Again | Stop::Failed(_) => {}
        }
        Ok(stop)
    }
}

/// Whether the other end's machine has acknowledged none of the last so many bytes that were written. Under TLS they are more
/// on the wire; but of fewer than these no record can be whole, and half a record is nothing yet.
fn is_unheard(line: &Stream, bytes: u64) -> bool {
    let Socket::Tcp(socket) = line.socket() else { return false };
    let Ok(info) = get_tcp_info(socket.as_raw_fd()) else { return false };
    // The first one that is acknowledged stands for the connection itself.
    let heard = info.tcpi_bytes_acked.saturating_sub(1);
    let sent = info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans);
    sent.checked_sub(heard).is_some_and(|unheard| unheard >= bytes)
}

impl Broke {
    /// What the client is told when nothing else can be done.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::Closed => Cause::UpstreamClosed,
            Self::TimedOut => Cause::UpstreamTimeout,
            Self::Invalid => Cause::UpstreamInvalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_a_closed_backend_never_saw_is_known_from_what_it_saw() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut line = Stream::Plain(Socket::Tcp(near));
        line.write_all(b"first").await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        assert!(!is_unheard(&line, 5), "it was read");
        // What comes to who has closed is answered by a reset.
        drop(far);
        line.write_all(b"second").await.unwrap();
        assert!(is_unheard(&line, 6), "nobody was there");
        assert!(!is_unheard(&line, 11), "some of that was heard");
        let mut rest = Vec::new();
        let _ = line.read_to_end(&mut rest).await;
        assert!(rest.is_empty() && is_unheard(&line, 6), "still known when the end was seen");
    }
}
