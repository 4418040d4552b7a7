//! One process of content: begun in its sandbox, asked through a unix socket, heard out, ended with whoever holds it.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use super::journal::{End, Journal};
use crate::node::content::copies::Held;
use crate::node::metrics::WorkerFailure;
use crate::node::sandbox::{Account, Begun, Enclosure, Folder, MORE_MEMORY, Memory, Outbound, Reach};
use crate::runtime::{clock, dice};

/// Where a process finds the folder for its socket.
const RUN: &str = "/run/worker";
/// Its socket there.
pub const SOCKET: &str = "/run/worker/http";
/// Bytes of a line.
const LINE_MAX: u64 = 4_000;
/// Between two looks whether it listens.
const LOOK: Duration = Duration::from_millis(10);
/// For what is asked to end.
pub(super) const ENDING: Duration = Duration::from_secs(5);
/// Connections that wait for the next request.
const IDLE_MAX: usize = 32;

/// What is to begin.
#[derive(Debug)]
pub struct Start {
    /// Program and arguments.
    pub program: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// When it was known how it is to run, microseconds since 1970: whoever ends all processes after that means it too.
    pub known_at: i64,
    /// What it sees of this machine.
    pub folders: Vec<Folder>,
    /// Those of them that are to stay.
    pub held: Vec<Held>,
    /// See [`Enclosure`].
    pub readable: Vec<PathBuf>,
    /// See [`Enclosure`].
    pub account: Account,
    /// See [`Enclosure`].
    pub memory: Memory,
    /// See [`Enclosure`].
    pub cpu: Option<u32>,
    /// See [`Enclosure`].
    pub tmp: u64,
    /// It listens on a port.
    pub wants_port: bool,
    /// See [`Enclosure`].
    pub outbound: Option<Outbound>,
}

/// Asks a process.
pub type Client = hyper_util::client::legacy::Client<Knock, Body>;

/// One that has begun.
#[derive(Debug)]
pub struct Process {
    id: String,
    client: Client,
    knock: Knock,
    load: AtomicUsize,
    begun_at: Instant,
    last_used: Mutex<Instant>,
    begun: Mutex<Begun>,
    was_killed: AtomicBool,
    journal: Arc<Journal>,
    _held: Vec<Held>,
}

impl Process {
    /// Begins one.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(start: Start) -> Result<Self, String> {
        let told = |e: std::io::Error| format!("it cannot be started: {e}");
        let id = format!("{:032x}", u128::from_le_bytes(dice::secret()));
        let enclosure = Enclosure {
            environment: start.environment,
            readable: &start.readable,
            folders: start.folders,
            work: None,
            tmp: start.tmp,
            at: "/app",
            account: start.account,
            door: None,
            port_at: start.wants_port.then_some(SOCKET),
            run: Some(RUN),
            outbound: start.outbound.as_ref(),
            memory: start.memory,
            cpu: start.cpu,
        };
        let program: Vec<OsString> = start.program.into_iter().map(OsString::from).collect();
        let mut begun = enclosure.begin(&program).map_err(told)?;
        drop(begun.child.stdin.take());
        let journal = Arc::new(Journal::default());
        listen(begun.child.stdout.take(), Arc::clone(&journal));
        listen(begun.child.stderr.take(), Arc::clone(&journal));
        let knock = Knock(begun.reach());
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(Duration::from_secs(30))
            .build(knock.clone());
        Ok(Self {
            id,
            client,
            knock,
            load: AtomicUsize::new(0),
            begun_at: clock::now(),
            last_used: Mutex::new(clock::now()),
            begun: Mutex::new(begun),
            was_killed: AtomicBool::new(false),
            journal,
            _held: start.held,
        })
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// It ended or took too long, with what it said.
    pub async fn is_ready(&self, patience: Duration) -> Result<(), (WorkerFailure, String)> {
        let until = clock::now() + patience;
        loop {
            if self.knock.connect().await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.status() {
                // What it said last comes through its pipes a moment later.
                tokio::time::sleep(5 * LOOK).await;
                let why = self.why().unwrap_or_default();
                return Err((WorkerFailure::Ended, self.told(&format!("it ended before it listened ({status}){why}"))));
            }
            if clock::now() > until {
                let patience = humantime::format_duration(patience);
                return Err((WorkerFailure::Late, self.told(&format!("it did not listen within {patience}"))));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn told(&self, why: &str) -> String {
        let said = self.said();
        if said.is_empty() { why.to_owned() } else { format!("{why}:\n{}", said.join("\n")) }
    }

    /// Tells it from others, also to the client that uses it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Asks it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it said last.
    pub fn said(&self) -> Vec<String> {
        self.journal.last()
    }

    /// All it says.
    pub(super) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Connections and requests it has now.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(super) fn leased(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn released(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
        self.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// For how long nobody has used it; `None`: somebody does.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        let last = *self.last_used.lock().unwrap_or_else(PoisonError::into_inner);
        (self.load() == 0).then(|| now.saturating_duration_since(last))
    }

    fn status(&self) -> Option<std::process::ExitStatus> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).child.try_wait().ok().flatten()
    }

    /// What is known of why it ended.
    fn why(&self) -> Option<String> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.wanted_more_memory().then(|| format!("; {MORE_MEMORY}"))
    }

    /// Since it was begun.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun_at)
    }

    /// Asks it to end, whoever uses it, and ends it when it has not in a while.
    pub fn end(self: &Arc<Self>) {
        if self.was_killed.swap(true, Ordering::Relaxed) {
            return;
        }
        let process = Arc::clone(self);
        tokio::spawn(async move {
            let until = clock::now() + ENDING;
            let reach = Arc::clone(&process.knock.0);
            if tokio::task::spawn_blocking(move || reach.ask_to_end()).await.is_ok_and(|asked| asked.is_ok()) {
                while !process.has_ended() && clock::now() < until {
                    tokio::time::sleep(5 * LOOK).await;
                }
            }
            process.kill();
        });
    }

    /// Ends it at once, whoever uses it.
    fn kill(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
        let _ = self.begun.lock().unwrap_or_else(PoisonError::into_inner).child.start_kill();
    }

    /// It did not end by itself.
    pub(super) fn was_killed(&self) -> bool {
        self.was_killed.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status().is_some()
    }
}

impl Drop for Process {
    /// What it said last comes through its pipes a moment later, and is told with what is written next.
    fn drop(&mut self) {
        let why = self.why().unwrap_or_default();
        let end = match self.status().filter(|_| !self.was_killed()) {
            Some(status) if status.success() => End { is_well: true, how: "it ended".to_owned() },
            Some(status) => End { is_well: false, how: format!("it ended by itself: {status}{why}") },
            None => End { is_well: true, how: "it was ended".to_owned() },
        };
        self.journal.end(end);
    }
}

/// Remembers what is said, line by line; a line that does not end is cut.
fn listen(from: Option<impl AsyncRead + Unpin + Send + 'static>, journal: Arc<Journal>) {
    let Some(from) = from else { return };
    tokio::spawn(async move {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(read) = (&mut from).take(LINE_MAX).read_until(b'\n', &mut line).await {
            if read == 0 {
                return;
            }
            let text: String = String::from_utf8_lossy(&line).trim_end().chars().filter(|c| !c.is_control()).collect();
            journal.say(text);
            line.clear();
        }
    });
}

/// Connects to the socket in a folder, whatever is asked for.
#[derive(Clone, Debug)]
pub struct Knock(Arc<Reach>);

impl Knock {
    /// The folder is the program's own: what it calls its socket is followed nowhere else, and nothing but a socket is taken.
    async fn connect(&self) -> std::io::Result<UnixStream> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(self.0.folder()?, "http", flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if kind != FileType::Socket {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "what is there is no socket"));
        }
        // The name of a socket is short (unix(7)), that of its folder need not be.
        UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await
    }
}

impl tower_service::Service<Uri> for Knock {
    type Response = Wire;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let knock = self.clone();
        Box::pin(async move { knock.connect().await.map(|stream| Wire(TokioIo::new(stream))) })
    }
}

/// A connection to a process.
#[derive(Debug)]
pub struct Wire(TokioIo<UnixStream>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }
}
