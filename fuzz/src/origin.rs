//! The origin of a lane: records what every connection brings, and answers by the script of the case that runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::case::{Act, Reply, When};
use crate::message::Requests;

/// What one connection brought.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) requests: Requests,
    pub(crate) raw: Vec<u8>,
    /// Of each request, as which of all requests its head came, over all connections.
    pub(crate) turns: Vec<usize>,
    /// Of each request that was answered, whether its reply waited for the whole of it.
    pub(crate) waited: Vec<bool>,
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

/// A listener whose stage changes from case to case.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    stage: Arc<Mutex<Arc<Stage>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Origin {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stage = Arc::new(Mutex::new(Arc::new(Stage::new(Vec::new()))));
        let current = Arc::clone(&stage);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let stage = Arc::clone(&lock(&current));
                        tokio::spawn(async move { converse(stream, stage).await });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(Self { address, stage })
    }

    /// From now on connections belong to this case.
    pub(crate) fn begin(&self, replies: Vec<Reply>) -> Arc<Stage> {
        let stage = Arc::new(Stage::new(replies));
        *lock(&self.stage) = Arc::clone(&stage);
        stage
    }
}

impl Stage {
    fn new(replies: Vec<Reply>) -> Self {
        Self { play: Mutex::new(Play { replies, ..Play::default() }), over: watch::Sender::new(false) }
    }

    /// Ends all connections, and tells what they brought.
    pub(crate) fn finish(&self) -> Vec<Heard> {
        self.over.send_replace(true);
        std::mem::take(&mut lock(&self.play).heard)
    }

    /// The next one of the script, for a connection's next request.
    fn next_reply(&self, place: usize) -> Reply {
        let mut play = lock(&self.play);
        let number = play.given;
        play.given += 1;
        let reply = play.replies.get(number).cloned().unwrap_or_else(|| Reply {
            when: When::Whole,
            acts: vec![Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())],
        });
        if let Some(heard) = play.heard.get_mut(place) {
            heard.waited.push(reply.when == When::Whole);
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

async fn converse(mut stream: TcpStream, stage: Arc<Stage>) {
    let place = {
        let mut play = lock(&stage.play);
        play.heard.push(Heard::default());
        play.heard.len() - 1
    };
    let _ = stream.set_nodelay(true);
    let mut over = stage.over.subscribe();
    let (progress, seen) = watch::channel(Progress::default());
    let (reading, writing) = stream.split();
    let resets = tokio::select! {
        _ = over.wait_for(|is| *is) => false,
        resets = async { tokio::join!(hear(reading, &stage, place, progress), speak(writing, &stage, place, seen)).1 } => resets,
        // A reset waits for nobody.
    };
    if resets {
        let _ = stream.set_zero_linger();
    }
}

async fn hear(mut stream: ReadHalf<'_>, stage: &Stage, place: usize, progress: watch::Sender<Progress>) {
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
async fn speak(mut stream: WriteHalf<'_>, stage: &Stage, place: usize, mut seen: watch::Receiver<Progress>) -> bool {
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
                    if stream.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Act::Pause(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
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
