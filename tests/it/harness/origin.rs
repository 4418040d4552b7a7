//! A scripted upstream: it says who it is, remembers everything it was asked, and answers as a test tells it.
//!
//! Each has a thread of its own, so that scripts need not be `Send` and ending it closes its sockets at once, as the
//! kernel does for a killed process.

use std::io;
use std::ops::AsyncFn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::client::Io;
use super::message::Framing;
use super::pki::Pair;
use super::{Fields, Frame, Request, patiently, websocket};

/// An upstream. Dies when dropped.
pub struct Origin {
    /// Said in every answer's `X-Origin`.
    pub name: String,
    /// As a pool's `address` wants it: `127.0.0.1:PORT` or `unix:/path`.
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    name: String,
    seen: Mutex<Vec<Request>>,
    changed: Notify,
    connections: AtomicUsize,
    open: AtomicUsize,
    pings: AtomicUsize,
    is_sick: AtomicBool,
    stop: Notify,
}

/// Where to listen.
enum Place {
    Tcp(String),
    Unix(std::path::PathBuf),
}

impl Origin {
    /// Answers as [`Exchange::serve`] does.
    pub fn start(name: &str) -> Self {
        Self::scripted(name, async |exchange| exchange.serve().await)
    }

    /// Answers as told. An error, or [`Exchange::close`], ends the connection.
    pub fn scripted<S>(name: &str, script: S) -> Self
    where
        S: AsyncFn(&mut Exchange) -> io::Result<()> + Send + 'static,
    {
        Self::launch(name, Place::Tcp("127.0.0.1:0".to_owned()), None, script)
    }

    /// Listens where another one did before.
    pub fn at(name: &str, address: &str) -> Self {
        Self::launch(name, Place::Tcp(address.to_owned()), None, async |exchange| exchange.serve().await)
    }

    /// On a unix socket.
    pub fn unix(name: &str, path: std::path::PathBuf) -> Self {
        Self::launch(name, Place::Unix(path), None, async |exchange| exchange.serve().await)
    }

    /// Under TLS.
    pub fn tls(name: &str, pair: &Pair) -> Self {
        let tls = TlsAcceptor::from(Arc::new(pair.server_config()));
        Self::launch(name, Place::Tcp("127.0.0.1:0".to_owned()), Some(tls), async |exchange| exchange.serve().await)
    }

    fn launch<S>(name: &str, place: Place, tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: AsyncFn(&mut Exchange) -> io::Result<()> + Send + 'static,
    {
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let (tell, told) = std::sync::mpsc::channel();
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let listener = Listener::bind(&place);
                tell.send(listener.address()).unwrap();
                let script = Rc::new(script);
                let accept = async {
                    loop {
                        let io = listener.accept().await;
                        let (tls, shared, script) = (tls.clone(), Arc::clone(&ours), Rc::clone(&script));
                        tokio::task::spawn_local(async move {
                            let io: Box<dyn Io> = match tls {
                                None => io,
                                Some(tls) => match tls.accept(io).await {
                                    Ok(io) => Box::new(io),
                                    Err(_) => return,
                                },
                            };
                            shared.connections.fetch_add(1, Ordering::SeqCst);
                            shared.open.fetch_add(1, Ordering::SeqCst);
                            let mut exchange = Exchange::new(io, Arc::clone(&shared));
                            while exchange.begin().await && script(&mut exchange).await.is_ok() && exchange.end().await
                            {
                            }
                            drop(exchange);
                            shared.open.fetch_sub(1, Ordering::SeqCst);
                            shared.changed.notify_waiters();
                        });
                    }
                };
                tokio::select! {
                    () = ours.stop.notified() => {}
                    () = accept => {}
                }
            });
        });
        let address = told.recv().expect("the origin's thread tells its address, or says above why it cannot listen");
        Self { name: name.to_owned(), address, shared, thread: Some(thread) }
    }

    /// Closes every socket at once and stays away.
    pub fn kill(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.stop.notify_one();
            thread.join().unwrap();
        }
    }

    /// From now on probes are answered by 503, or by 200 again.
    pub fn set_sick(&self, is_sick: bool) {
        self.shared.is_sick.store(is_sick, Ordering::SeqCst);
    }

    /// What it was asked so far, probes left out, in order of arrival.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last request for this path.
    pub fn last(&self, path: &str) -> Request {
        let seen = self.seen();
        let found = seen.iter().rev().find(|r| r.path() == path);
        found.cloned().unwrap_or_else(|| panic!("{} was never asked for {path}: {seen:?}", self.name))
    }

    /// How many times it was asked for this path.
    pub fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|r| r.path() == path).count()
    }

    /// Probes answered so far.
    pub fn pings(&self) -> usize {
        self.shared.pings.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until something is true of what it has seen.
    pub async fn until(&self, what: &str, is_true: impl Fn(&Self) -> bool) {
        patiently(what, async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if is_true(self) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(place: &Place) -> Self {
        match place {
            Place::Tcp(address) => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                socket.bind(address.parse().unwrap()).unwrap_or_else(|e| panic!("{address}: {e}"));
                Self::Tcp(socket.listen(1024).unwrap())
            }
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                Self::Unix(UnixListener::bind(path).unwrap())
            }
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().unwrap().to_string(),
            Self::Unix(l) => format!("unix:{}", l.local_addr().unwrap().as_pathname().unwrap().display()),
        }
    }

    async fn accept(&self) -> Box<dyn Io> {
        match self {
            Self::Tcp(listener) => {
                let (io, _) = listener.accept().await.unwrap();
                io.set_nodelay(true).unwrap();
                Box::new(io)
            }
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

/// One request and its answer, in the hands of a script.
pub struct Exchange {
    /// Its body fills while it is read.
    pub request: Request,
    io: Box<dyn Io>,
    ahead: Vec<u8>,
    shared: Arc<Shared>,
    /// Place in `seen`; `None` for probes.
    index: Option<usize>,
    /// Nothing of the request is still to come.
    is_body_read: bool,
    closes: bool,
}

impl Exchange {
    fn new(io: Box<dyn Io>, shared: Arc<Shared>) -> Self {
        let request = Request::parse("");
        Self { request, io, ahead: Vec::new(), shared, index: None, is_body_read: true, closes: false }
    }

    /// Waits for the next head.
    async fn begin(&mut self) -> bool {
        let Ok(head) = self.until(b"\r\n\r\n").await else { return false };
        self.request = Request::parse(&String::from_utf8_lossy(&head));
        self.is_body_read = self.request.framing() == Framing::Length(0);
        if self.is_probe() {
            self.index = None;
            self.shared.pings.fetch_add(1, Ordering::SeqCst);
        } else {
            let mut seen = self.shared.seen.lock().unwrap();
            self.index = Some(seen.len());
            seen.push(self.request.clone());
        }
        self.shared.changed.notify_waiters();
        true
    }

    /// Whether the connection can carry another request.
    async fn end(&mut self) -> bool {
        let is_over = self.request.fields.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        !self.closes && !is_over && self.read_body().await.is_ok()
    }

    /// A question of the proxy's own.
    pub fn is_probe(&self) -> bool {
        self.request.path() == "/__ping__"
    }

    pub fn is_upgrade(&self) -> bool {
        self.request.fields.has("upgrade")
    }

    /// The name of this origin.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Ends the connection after this exchange.
    pub fn close(&mut self) {
        self.closes = true;
    }

    /// The usual behaviour: probes are answered, websockets echoed, everything else gets 200 and the name.
    pub async fn serve(&mut self) -> io::Result<()> {
        if self.is_probe() {
            return match self.shared.is_sick.load(Ordering::SeqCst) {
                true => self.reply("503 Service Unavailable", &[], b"sick").await,
                false => self.reply("200 OK", &[], b"well").await,
            };
        }
        if self.is_upgrade() {
            return self.echo().await;
        }
        self.read_body().await?;
        let name = self.name().to_owned();
        self.reply("200 OK", &[("Content-Type", "text/plain")], name.as_bytes()).await
    }

    /// An answer with its length, and with `X-Origin`.
    pub async fn reply(&mut self, status: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status}\r\nX-Origin: {}\r\n", self.name());
        if !fields.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) && !status.starts_with("204") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (head + "\r\n").into_bytes();
        if self.request.method != "HEAD" {
            bytes.extend_from_slice(body);
        }
        self.send(&bytes).await
    }

    /// Exactly these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.io.write_all(bytes.as_ref()).await?;
        self.io.flush().await
    }

    /// One chunk of a chunked answer; empty: the last one and no trailers.
    pub async fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk).await
    }

    /// Reads the rest of the request body and remembers it.
    pub async fn read_body(&mut self) -> io::Result<()> {
        while self.read_part().await?.is_some() {}
        Ok(())
    }

    /// Reads what has arrived of the body: a chunk, or some bytes; `None` at its end. Remembers it.
    pub async fn read_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_body_read {
            return Ok(None);
        }
        let part = match self.request.framing() {
            Framing::Length(n) => {
                let left = n - self.request.body.len();
                if left == 0 {
                    self.is_body_read = true;
                    return Ok(None);
                }
                if self.ahead.is_empty() {
                    self.fill().await?;
                }
                let n = self.ahead.len().min(left);
                self.ahead.drain(..n).collect::<Vec<_>>()
            }
            _ => {
                let line = self.until(b"\r\n").await?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let digits = line.trim_end().split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    self.read_trailers().await?;
                    self.is_body_read = true;
                    self.remember();
                    return Ok(None);
                }
                let mut chunk = self.exactly(size + 2).await?;
                chunk.truncate(size);
                chunk
            }
        };
        self.request.body.extend_from_slice(&part);
        if let Some(index) = self.index {
            self.shared.seen.lock().unwrap()[index].body.extend_from_slice(&part);
            self.shared.changed.notify_waiters();
        }
        Ok(Some(part))
    }

    async fn read_trailers(&mut self) -> io::Result<()> {
        let mut trailers = Fields::default();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let Some((name, value)) = line.split_once(':') else { break };
            trailers.0.push((name.to_owned(), value.trim().to_owned()));
        }
        self.request.trailers = trailers;
        Ok(())
    }

    fn remember(&self) {
        if let Some(index) = self.index {
            self.shared.seen.lock().unwrap()[index] = self.request.clone();
            self.shared.changed.notify_waiters();
        }
    }

    /// Accepts the upgrade at once and echoes frames until the end.
    pub async fn echo(&mut self) -> io::Result<()> {
        self.accept_upgrade(b"").await?;
        while let Some(frame) = self.frame().await? {
            let is_close = frame.opcode == websocket::CLOSE;
            let opcode = if frame.opcode == websocket::PING { websocket::PONG } else { frame.opcode };
            if frame.opcode != websocket::PONG {
                self.send(Frame { opcode, ..frame }.bare()).await?;
            }
            if is_close {
                break;
            }
        }
        Ok(())
    }

    /// 101, with the first bytes of the new protocol in the same write.
    pub async fn accept_upgrade(&mut self, glued: &[u8]) -> io::Result<()> {
        self.closes = true;
        let protocol = self.request.fields.get("upgrade").unwrap_or("websocket");
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nX-Origin: {}\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            self.name()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(glued);
        self.send(&bytes).await
    }

    /// The next frame; `None` at the end.
    pub async fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some((frame, used)) = Frame::parse(&self.ahead) {
                self.ahead.drain(..used);
                return Ok(Some(frame));
            }
            if self.io.read_buf(&mut self.ahead).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Bytes of another protocol, as they come; empty at the end.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.io.read_buf(&mut self.ahead).await?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < n {
            self.fill().await?;
        }
        Ok(self.ahead.drain(..n).collect())
    }

    async fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(mark.len()).position(|w| w == mark) {
                return Ok(self.ahead.drain(..at + mark.len()).collect());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.io.read_buf(&mut self.ahead).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
