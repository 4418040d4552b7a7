//! Websockets that send a message and wait for its echo, again and again.
use std::io;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::Amount;
use crate::client::{Connector, Target, in_time};
use crate::report::Outcome;
use crate::websocket::{Socket, message};

/// Opens all connections first. `bytes` are those of one way.
pub(crate) async fn run(target: Target, amount: Amount) -> Outcome {
    let connector = Connector::new(target);
    let (mut sockets, mut outcome) = (Vec::new(), Outcome::default());
    for _ in 0..amount.connections {
        match Socket::open(&connector).await {
            Ok(socket) => sockets.push(socket),
            Err(problem) => outcome.failed(&problem),
        }
    }
    let start = Instant::now();
    let clients: JoinSet<Outcome> = sockets.into_iter().map(|socket| client(socket, start, amount)).collect();
    outcome.gather(start, clients).await
}

async fn client(mut socket: Socket, start: Instant, amount: Amount) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(problem) = echo_until(&mut socket, start, amount, &mut outcome).await {
        outcome.failed(&problem);
    }
    outcome
}

async fn echo_until(socket: &mut Socket, start: Instant, amount: Amount, outcome: &mut Outcome) -> io::Result<()> {
    let message = message(amount.size);
    while start.elapsed() < amount.lasting {
        in_time(socket.echo(&message, amount.size)).await?;
        outcome.n += 1;
        outcome.bytes += amount.size as u64;
    }
    Ok(())
}
