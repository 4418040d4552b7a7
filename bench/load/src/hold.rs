//! Idle connections that obey lines on standard input: `open N` in all, `big` for an echo of 64 KiB on each, `alive` for a
//! small one (plain HTTP: for one more request). Each line is answered by `ok ALIVE OPEN`; the end of input closes them.
//!
//! Every connection has a task, which answers the balancer's pings while nobody asks for anything.
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::client::{Connector, Duplex, Target, in_time};
use crate::http;
use crate::websocket::{Socket, message};

/// Connections that are opened or that echo at once.
const AT_ONCE: usize = 50;
/// Bytes of the payloads of `big` and of the others.
const BIG: usize = 65_000;
const SMALL: usize = 100;

/// What the connections send where no websocket is wanted.
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// An order for a connection: an echo of so many bytes; its outcome goes where the order says.
type Order = (usize, oneshot::Sender<io::Result<()>>);

/// An open connection, in the hands of its task.
type Held = mpsc::Sender<Order>;

/// Until the end of input.
pub(crate) async fn run(target: Target, is_websocket: bool) -> io::Result<()> {
    let connector = Connector::new(target);
    let mut held: Vec<Held> = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let alive = match line.split_once(' ') {
            Some(("open", count)) => {
                let count: usize = count.parse().map_err(io::Error::other)?;
                open(&connector, is_websocket, count.min(60_000), &mut held).await?;
                held.len()
            }
            _ if line == "big" => echoed(&held, BIG).await,
            _ if line == "alive" => echoed(&held, SMALL).await,
            _ => return Err(http::broken("a line nobody understands")),
        };
        output.write_all(format!("ok {alive} {}\n", held.len()).as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

async fn open(connector: &Connector, is_websocket: bool, count: usize, held: &mut Vec<Held>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening: JoinSet<io::Result<Held>> = (held.len()..count)
        .map(|_| {
            let (connector, places) = (connector.clone(), Arc::clone(&places));
            async move {
                let _place = places.acquire().await.map_err(io::Error::other)?;
                in_time(one(&connector, is_websocket)).await
            }
        })
        .collect();
    while let Some(opened) = opening.join_next().await {
        held.push(opened.map_err(io::Error::other)??);
    }
    Ok(())
}

async fn one(connector: &Connector, is_websocket: bool) -> io::Result<Held> {
    let (orders, todo) = mpsc::channel(1);
    if is_websocket {
        let mut socket = Socket::open(connector).await?;
        socket.echo(&message(SMALL), SMALL).await?;
        tokio::spawn(keep_websocket(socket, todo));
    } else {
        let mut stream = BufReader::new(connector.connect().await?);
        request(&mut stream).await?;
        tokio::spawn(keep_http(stream, todo));
    }
    Ok(orders)
}

/// Ends with the connection, or when nobody can order anything any more.
async fn keep_websocket(mut socket: Socket, mut todo: mpsc::Receiver<Order>) {
    loop {
        let is_well = tokio::select! {
            order = todo.recv() => {
                let Some((length, done)) = order else { return };
                let echoed = in_time(socket.echo(&message(length), length)).await;
                let is_well = echoed.is_ok();
                drop(done.send(echoed));
                is_well
            }
            // Only pings come unasked.
            () = socket.readable() => matches!(in_time(socket.next()).await, Ok(None)),
        };
        if !is_well {
            return;
        }
    }
}

async fn keep_http(mut stream: BufReader<Box<dyn Duplex>>, mut todo: mpsc::Receiver<Order>) {
    while let Some((_, done)) = todo.recv().await {
        drop(done.send(in_time(request(&mut stream)).await));
    }
}

async fn request(stream: &mut BufReader<Box<dyn Duplex>>) -> io::Result<()> {
    stream.write_all(REQUEST).await?;
    stream.flush().await?;
    http::ok(stream).await
}

/// How many echoed.
async fn echoed(held: &[Held], length: usize) -> usize {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let echoes: JoinSet<bool> = held
        .iter()
        .cloned()
        .map(|orders| {
            let places = Arc::clone(&places);
            async move {
                let _place = places.acquire().await;
                let (done, outcome) = oneshot::channel();
                orders.send((length, done)).await.is_ok() && matches!(outcome.await, Ok(Ok(())))
            }
        })
        .collect();
    echoes.join_all().await.into_iter().filter(|is_alive| *is_alive).count()
}
