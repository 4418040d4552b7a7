//! A TLS connection for every request: full handshakes, or such as are resumed by a ticket of TLS 1.3.
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use crate::client::{in_time, tcp};
use crate::report::Outcome;
use crate::{Amount, http, tls};

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Says in `full` and `resumed` what kind the handshakes were. The first of each client, which brings tickets, comes
/// before the time begins.
pub(crate) async fn run(port: u16, is_resumed: bool, amount: Amount) -> Outcome {
    let mut outcome = Outcome::default();
    let mut configs = Vec::new();
    for _ in 0..amount.connections {
        let config = Arc::new(tls::config(is_resumed));
        match in_time(exchange(port, &config)).await {
            Ok(_) => configs.push(config),
            Err(problem) => outcome.failed(&problem),
        }
    }
    let start = Instant::now();
    let clients: JoinSet<Outcome> = configs.into_iter().map(|config| client(port, config, start, amount)).collect();
    outcome.gather(start, clients).await
}

async fn client(port: u16, config: Arc<ClientConfig>, start: Instant, amount: Amount) -> Outcome {
    let mut outcome = Outcome::default();
    while start.elapsed() < amount.lasting {
        match in_time(exchange(port, &config)).await {
            Ok(kind) => {
                outcome.n += 1;
                let name = if kind == HandshakeKind::Resumed { "resumed" } else { "full" };
                *outcome.figures.entry(name).or_default() += 1.0;
            }
            Err(problem) => outcome.failed(&problem),
        }
    }
    outcome
}

async fn exchange(port: u16, config: &Arc<ClientConfig>) -> io::Result<HandshakeKind> {
    let stream = TlsConnector::from(Arc::clone(config)).connect(tls::name(), tcp(port).await?).await?;
    let kind = stream.get_ref().1.handshake_kind().unwrap_or(HandshakeKind::Full);
    let mut stream = BufReader::new(stream);
    stream.write_all(REQUEST).await?;
    stream.flush().await?;
    http::ok(&mut stream).await?;
    // The server closes first; one that forgets its close_notify has answered all the same.
    drop(stream.read_u8().await);
    Ok(kind)
}
