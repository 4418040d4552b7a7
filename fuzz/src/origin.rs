//! The origin of a site: records what every connection brings, and answers by the script of the case that runs. It listens
//! on TCP, on a unix socket and under TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::case::{Act, PLAIN, Reply, When};
use crate::lane::Shore;
use crate::message::Requests;

/// What one connection brought.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) requests: Requests,
    pub(crate) raw: Vec<u8>,
    /// Of each request, as which of all requests its head came, over all connections.
    pub(crate) turns: Vec<usize>,
    /// Of each request that was answered.
    pub(crate) given: Vec<Given>,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    /// Which reply of the script it had; beyond those the plain one.
    pub(crate) number: usize,
    /// The reply waited for the whole of it.
    pub(crate) waited: bool,
}

/// What happens at the origin while one case runs.
#[derive(Debug)]
pub(crate) struct Stage {
    play: Mutex<Play>,
    over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Play {
    replies: Vec<Reply>,
    /// Requests that have had theirs.
    given: usize,
    /// Requests whose head came.
    came: usize,
    heard: Vec<Heard>,
}

/// Listeners whose stage changes from run to run.
#[derive(Debug)]
pub(crate) struct Origin {
    tcp: SocketAddr,
    tls: SocketAddr,
    unix: PathBuf,
    stage: Arc<Mutex<Arc<Stage>>>,
}

/// Longest wait for connections to end that were told to.
const ENDING: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Origin {
    /// Starts one; its socket is a file of this name.
    ///
    /// # Errors
    /// It cannot listen.
    pub(crate) async fn start(socket: &Path, acceptor: TlsAcceptor) -> io::Result<Self> {
        let (tcp, tls) =
            (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let unix = UnixListener::bind(socket)?;
        let stage = Arc::new(Mutex::new(Arc::new(Stage::new(Vec::new()))));
        let origin =
            Self { tcp: tcp.local_addr()?, tls: tls.local_addr()?, unix: socket.to_owned(), stage: Arc::clone(&stage) };
        let current = Arc::clone(&stage);
        tokio::spawn(async move {
            loop {
                match tcp.accept().await {
                    Ok((stream, _)) => {
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(converse(stream, Arc::clone(&lock(&current)), reset));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let current = Arc::clone(&stage);
        tokio::spawn(async move {
            loop {
                match unix.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(converse(stream, Arc::clone(&lock(&current)), |_| {}));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        tokio::spawn(async move {
            loop {
                match tls.accept().await {
                    Ok((stream, _)) => {
                        let _ = stream.set_nodelay(true);
                        let (stage, acceptor) = (Arc::clone(&lock(&stage)), acceptor.clone());
                        tokio::spawn(async move {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                converse(stream, stage, |stream| reset(stream.get_ref().0)).await;
                            }
                        });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(origin)
    }

    /// As the proxy's configuration has it.
    pub(crate) fn address(&self, shore: Shore) -> String {
        match shore {
            Shore::Tcp => self.tcp.to_string(),
            Shore::Tls => self.tls.to_string(),
            Shore::Unix => format!("unix:{}", self.unix.display()),
        }
    }

    /// From now on connections belong to this script.
    pub(crate) fn begin(&self, replies: Vec<Reply>) -> Arc<Stage> {
        let stage = Arc::new(Stage::new(replies));
        *lock(&self.stage) = Arc::clone(&stage);
        stage
    }
}

/// What is dropped from now on is reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

impl Stage {
    fn new(replies: Vec<Reply>) -> Self {
        Self { play: Mutex::new(Play { replies, ..Play::default() }), over: watch::Sender::new(false) }
    }

    /// Ends all connections, and tells what they brought. The next run meets none of them.
    pub(crate) async fn finish(&self) -> Vec<Heard> {
        self.over.send_replace(true);
        let _ = tokio::time::timeout(ENDING, self.over.closed()).await;
        std::mem::take(&mut lock(&self.play).heard)
    }

    /// The next one of the script, for a connection's next request.
    fn next_reply(&self, place: usize) -> Reply {
        let mut play = lock(&self.play);
        let number = play.given;
        play.given += 1;
        let plain = || Reply { when: When::Whole, acts: vec![Act::Send(PLAIN.to_vec())] };
        let reply = play.replies.get(number).cloned().unwrap_or_else(plain);
        if let Some(heard) = play.heard.get_mut(place) {
            heard.given.push(Given { number, waited: reply.when == When::Whole });
        }
        reply
    }

    /// Notes what a connection brought, nothing being its end; `None` once the case is over.
    fn hear(&self, place: usize, bytes: &[u8]) -> Option<Progress> {
        let mut play = lock(&self.play);
        let Play { heard, came, .. } = &mut *play;
        let heard = heard.get_mut(place)?;
        heard.raw.extend_from_slice(bytes);
        heard.requests.feed(bytes);
        let all = &heard.requests.all;
        while heard.turns.len() < all.len() {
            heard.turns.push(*came);
            *came += 1;
        }
        Some(Progress {
            heads: all.len(),
            wholes: all.iter().filter(|request| request.is_whole).count(),
            body: all.last().map_or(0, |request| request.body.len()),
            has_ended: bytes.is_empty(),
        })
    }
}

/// How far the requests of a connection have come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    heads: usize,
    wholes: usize,
    /// Of the last one.
    body: usize,
    has_ended: bool,
}

async fn converse<S>(mut stream: S, stage: Arc<Stage>, reset: impl FnOnce(&S))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut over = stage.over.subscribe();
    let place = {
        let mut play = lock(&stage.play);
        play.heard.push(Heard::default());
        play.heard.len() - 1
    };
    let (progress, seen) = watch::channel(Progress::default());
    let (reading, writing) = tokio::io::split(&mut stream);
    let resets = tokio::select! {
        _ = over.wait_for(|is| *is) => false,
        // A reset waits for nobody.
        resets = async { tokio::join!(hear(reading, &stage, place, progress), speak(writing, &stage, place, seen)).1 } => resets,
    };
    if resets {
        reset(&stream);
    }
    // The stage waits until nobody listens to it, and then the stream is gone.
    drop(stream);
    drop(over);
}

async fn hear<R>(mut stream: R, stage: &Stage, place: usize, progress: watch::Sender<Progress>)
where
    R: AsyncRead + Unpin,
{
    let mut buf = vec![0; 32 << 10];
    loop {
        let came = tokio::select! {
            came = stream.read(&mut buf) => came.unwrap_or_default(),
            () = progress.closed() => return,
        };
        let Some(now) = stage.hear(place, &buf[..came]) else { return };
        progress.send_replace(now);
        if came == 0 {
            return;
        }
    }
}

/// Whether it ends by a reset. Returns only then, or when the other side has ended.
async fn speak<W>(mut stream: W, stage: &Stage, place: usize, mut seen: watch::Receiver<Progress>) -> bool
where
    W: AsyncWrite + Unpin,
{
    for number in 0.. {
        let due = |when: When, p: &Progress| match when {
            _ if p.has_ended || p.wholes > number => true,
            When::Head => p.heads > number,
            When::Body(bytes) => p.heads > number && p.body >= bytes,
            When::Whole => false,
        };
        let Ok(now) = seen.wait_for(|p| due(When::Head, p)).await.map(|p| *p) else { return false };
        if now.heads <= number {
            return false;
        }
        let reply = stage.next_reply(place);
        if seen.wait_for(|p| due(reply.when, p)).await.is_err() {
            return false;
        }
        for act in reply.acts {
            match act {
                Act::Send(bytes) => {
                    if write(&mut stream, &bytes).await.is_err() {
                        break;
                    }
                }
                Act::Pause(ms) => pause(ms).await,
                Act::Reset => return true,
                Act::Fin => {
                    let _ = stream.shutdown().await;
                    let _ = seen.wait_for(|p| p.has_ended).await;
                    return false;
                }
            }
        }
    }
    false
}

/// Writes, and leaves nothing in buffers of TLS.
///
/// # Errors
/// The other side takes no more.
pub(crate) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Waits; no time at all is one turn of all others.
pub(crate) async fn pause(ms: u64) {
    match ms {
        0 => tokio::task::yield_now().await,
        _ => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
}
