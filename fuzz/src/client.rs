//! The client of HTTP/1: does what the case says and keeps every byte it gets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::case::{Case, Step};
use crate::message::{Answers, Requests};
use crate::origin::{pause, write};
use crate::tls;

/// Longest that a connection may take: more than all waits of the proxy together.
const PATIENCE: Duration = Duration::from_secs(14);
/// Longest wait of a step for answers.
const ANSWERS: Duration = Duration::from_millis(2_500);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By the proxy, in order; under TLS with an alert that says so.
    Fin,
    /// By the proxy, without the alert that TLS ends with (RFC 8446 §6.1).
    Torn,
    /// By the proxy, with a reset.
    Reset,
    /// By the client itself.
    Own,
    /// Not at all within its time.
    Never,
}

/// What a client saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) port: u16,
    pub(crate) answers: Answers,
    pub(crate) raw: Vec<u8>,
    pub(crate) end: End,
}

impl Seen {
    /// Of a client that has seen nothing yet.
    pub(crate) fn nothing(port: u16, to_head: Vec<bool>) -> Self {
        Self { port, answers: Answers::new(to_head), raw: Vec::new(), end: End::Never }
    }
}

/// Plays the client of a case. `begins` is told its port before it says anything.
///
/// # Errors
/// There is no connection to the proxy.
pub(crate) async fn play(
    proxy: SocketAddr,
    tls: Option<&TlsConnector>,
    case: &Case,
    begins: impl FnOnce(u16),
) -> io::Result<Seen> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let port = stream.local_addr()?.port();
    begins(port);
    let to_head = Requests::of(&case.sent()).all.iter().map(|request| request.method == "HEAD").collect();
    let mut seen = Seen::nothing(port, to_head);
    match tls {
        None => {
            converse(&mut stream, &case.steps, &mut seen).await;
            if seen.end == End::Own {
                let _ = stream.set_zero_linger();
            }
        }
        Some(tls) => {
            let mut stream = tls.connect(tls::name(), stream).await?;
            converse(&mut stream, &case.steps, &mut seen).await;
            if seen.end == End::Own {
                let _ = stream.get_ref().0.set_zero_linger();
            }
        }
    }
    Ok(seen)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, steps: &[Step], seen: &mut Seen) {
    let (reading, writing) = tokio::io::split(stream);
    let (count, finals) = watch::channel(0);
    let both = async {
        tokio::select! {
            end = listen(reading, &mut seen.answers, &mut seen.raw, count) => end,
            () = act(writing, steps, finals) => End::Own,
        }
    };
    seen.end = tokio::time::timeout(PATIENCE, both).await.unwrap_or(End::Never);
}

async fn listen<R: AsyncRead + Unpin>(
    mut stream: R,
    answers: &mut Answers,
    raw: &mut Vec<u8>,
    count: watch::Sender<usize>,
) -> End {
    let mut buf = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buf).await {
            Ok(0) => return End::Fin,
            Ok(n) => {
                raw.extend_from_slice(&buf[..n]);
                answers.feed(&buf[..n]);
                count.send_replace(answers.whole_finals());
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Torn,
            Err(_) => return End::Reset,
        }
    }
}

/// Returns only when the client resets.
async fn act<W: AsyncWrite + Unpin>(mut stream: W, steps: &[Step], mut finals: watch::Receiver<usize>) {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if write(&mut stream, bytes).await.is_err() {
                    break;
                }
            }
            Step::Pause(ms) => pause(*ms).await,
            Step::Answers(wanted) => {
                let _ = tokio::time::timeout(ANSWERS, finals.wait_for(|count| count >= wanted)).await;
            }
            Step::HalfClose => {
                let _ = stream.shutdown().await;
                break;
            }
            Step::Reset => return,
        }
    }
    std::future::pending().await
}
