//! Requests with long bodies, one after the other on kept connections.
use std::io;
use std::time::Instant;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::task::JoinSet;

use crate::client::{Connector, Duplex, Target, in_time};
use crate::report::Outcome;
use crate::{Amount, http};

/// Bytes given to the socket at once.
static PIECE: [u8; 128 << 10] = [b'u'; 128 << 10];

/// What was begun within the time is brought to its end, and counted.
pub(crate) async fn run(target: Target, amount: Amount) -> Outcome {
    let connector = Connector::new(target);
    let start = Instant::now();
    let clients: JoinSet<Outcome> = (0..amount.connections).map(|_| client(connector.clone(), start, amount)).collect();
    Outcome::default().gather(start, clients).await
}

async fn client(connector: Connector, start: Instant, amount: Amount) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(problem) = upload_until(&connector, start, amount, &mut outcome).await {
        outcome.failed(&problem);
    }
    outcome
}

async fn upload_until(connector: &Connector, start: Instant, amount: Amount, outcome: &mut Outcome) -> io::Result<()> {
    let mut stream = BufReader::new(connector.connect().await?);
    while start.elapsed() < amount.lasting {
        send(&mut stream, amount.size).await?;
        in_time(http::ok(&mut stream)).await?;
        outcome.n += 1;
        outcome.bytes += amount.size as u64;
    }
    Ok(())
}

async fn send(stream: &mut BufReader<Box<dyn Duplex>>, size: usize) -> io::Result<()> {
    let head = format!("POST /sink/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut left = size;
    while left > 0 {
        let piece = &PIECE[..left.min(PIECE.len())];
        in_time(stream.write_all(piece)).await?;
        left -= piece.len();
    }
    in_time(stream.flush()).await
}
