//! Metrics sent to Graphite: Carbon's plaintext protocol, lines of path, value and time on a TCP connection that is kept.
//!
//! A task of its own with one text at a time: whatever becomes of Carbon, nobody waits for it and nothing piles up. What
//! could not be sent is not sent later; counters go on counting, so only resolution is lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::config::proxy::Graphite;
use crate::runtime::{clock, machine};
use crate::telemetry::metrics::Exposition;

/// For a connection, and for one text to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// At most so long between two attempts, unless texts are further apart.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Sends what `write` writes, once per interval, until told to stop. `name`: of this process, for its paths.
pub async fn follow<F, W>(settings: Graphite, name: Option<Arc<str>>, mut write: F, mut stop: watch::Receiver<bool>)
where
    F: FnMut(Exposition) -> W,
    W: Future<Output = String>,
{
    let prefix = settings.prefix.clone().unwrap_or_else(|| {
        let name = name.as_deref().map_or_else(machine::name, str::to_owned);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        format!("bowline.{}", name.chars().map(plain).collect::<String>())
    });
    let mut sender = Sender { settings, connection: None, outage: None };
    let mut ticks = interval(sender.settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sending = async {
        loop {
            ticks.tick().await;
            if sender.rests() {
                continue;
            }
            let text = write(Exposition::for_carbon(&prefix, clock::unix().as_secs())).await;
            sender.send(text.as_bytes()).await;
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = sending => {}
    }
}

struct Sender {
    settings: Graphite,
    connection: Option<TcpStream>,
    outage: Option<Outage>,
}

/// Carbon does not take anything.
struct Outage {
    since: Instant,
    /// Attempts in a row.
    failed: u32,
    /// Not before then.
    next: Instant,
}

impl Sender {
    /// Whether it is too early for another attempt.
    fn rests(&self) -> bool {
        self.outage.as_ref().is_some_and(|outage| Instant::now() < outage.next)
    }

    async fn send(&mut self, text: &[u8]) {
        let sent = match timeout(PATIENCE, self.attempt(text)).await {
            Ok(sent) => sent,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long")),
        };
        let Err(error) = sent else {
            if let Some(outage) = self.outage.take() {
                let seconds = outage.since.elapsed().as_secs();
                tracing::info!(
                    host = self.settings.host,
                    port = self.settings.port,
                    seconds,
                    "Graphite takes metrics again"
                );
            }
            return;
        };
        // Half a text may have been taken: the next one begins on a new connection.
        self.connection = None;
        let now = Instant::now();
        let (since, failed) = self.outage.as_ref().map_or((now, 1), |outage| (outage.since, outage.failed + 1));
        let interval = self.settings.interval;
        let pause = interval.saturating_mul(1 << (failed - 1).min(16)).min(PAUSE_MAX.max(interval));
        // A tick may be a little early.
        let next = now + pause - pause.min(interval) / 2;
        let is_new = self.outage.replace(Outage { since, failed, next }).is_none();
        let Graphite { host, port, .. } = &self.settings;
        match is_new {
            true => tracing::warn!(host, port, %error, "Graphite takes no metrics; trying again now and then"),
            false => tracing::debug!(host, port, %error, "Graphite still takes no metrics"),
        }
    }

    async fn attempt(&mut self, text: &[u8]) -> io::Result<()> {
        let kept = self.connection.take().filter(is_open);
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.write_all(text).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect((&*self.settings.host, self.settings.port)).await?;
        let socket = SockRef::from(&connection);
        // A network that swallows everything is noticed too.
        socket.set_tcp_user_timeout(Some(3 * PATIENCE))?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(3 * PATIENCE))?;
        Ok(connection)
    }
}

/// Whether the other side has not hung up: the first text after that would be lost. It has nothing to say otherwise.
fn is_open(connection: &TcpStream) -> bool {
    let mut said = [0; 64];
    match connection.try_read(&mut said) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}
