//! Plain HTTP on a port for https: everybody's first mistake with a port of their own. It gets a sentence in the language it
//! was asked in, where TLS would send an alert that clients show as garbage.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::stream::Socket;

/// Waits for the first byte. A TLS record begins with 22 (RFC 8446 §5.1), a request with the letter of a method.
///
/// # Errors
/// The socket's.
pub(super) async fn is_spoken(socket: &Socket) -> io::Result<bool> {
    Ok(socket.first_byte().await?.is_some_and(|b| b.is_ascii_uppercase()))
}

/// Says what would be right, and listens a little so that it can be read.
pub(super) async fn answer(mut socket: Socket) {
    const TOLD: &str = "400 Bad Request: this port speaks HTTPS; use https:// in the address.\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         x-refused: plain_http\r\nconnection: close\r\n\r\n{TOLD}",
        TOLD.len()
    );
    let tell = async {
        let (mut scratch, mut reads) = ([0; 4096], 0);
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await?;
        while reads < READS_MAX && socket.read(&mut scratch).await? > 0 {
            reads += 1;
        }
        io::Result::Ok(())
    };
    // Whoever is gone needs no answer.
    let _ = tokio::time::timeout(PATIENCE, tell).await;
}

const READS_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(2);
