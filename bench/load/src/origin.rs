//! The origin of what nginx cannot be asked for: `/ws` echoes messages, all else takes the body, whatever its length, and
//! then says `ok`.
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::{Head, broken, skip};
use crate::websocket::{ACCEPT, CLOSE, FrameHead, KEY, PING, PONG};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Bytes read at once.
const BUFFER: usize = 128 << 10;

/// Serves until the process is ended.
pub(crate) async fn serve(port: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // How a connection ends is the client's to judge.
        tokio::spawn(async move { drop(converse(stream).await) });
    }
}

async fn converse(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    while let Some(head) = Head::read(&mut stream).await? {
        if head.first_line().starts_with("GET /ws ") {
            return echo(stream, &head).await;
        }
        skip(&mut stream, head.length()?).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok").await?;
    }
    Ok(())
}

async fn echo(mut stream: BufReader<TcpStream>, head: &Head) -> io::Result<()> {
    if head.field("sec-websocket-key") != Some(KEY) {
        return Err(broken("a key that no client here sends"));
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut frame = Vec::new();
    loop {
        let head = FrameHead::read(&mut stream).await?;
        frame.clear();
        let opcode = if head.opcode == PING { PONG } else { head.opcode };
        FrameHead { opcode, ..head }.write(false, &mut frame);
        let start = frame.len();
        frame.resize(start + head.length, 0);
        stream.read_exact(&mut frame[start..]).await?;
        if head.mask != [0; 4] {
            frame[start..].iter_mut().zip(head.mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        if head.opcode != PONG {
            stream.write_all(&frame).await?;
        }
        if head.opcode == CLOSE {
            return Ok(());
        }
        // An idle connection holds no long message.
        frame.shrink_to(BUFFER);
    }
}
