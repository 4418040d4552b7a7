//! Websocket frames, as far as an echo needs them. Every message is one frame of the letter `x`, masked with zeroes by
//! clients, so that nobody here spends time on unmasking.
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::client::{Connector, Duplex, in_time};
use crate::http::{Head, broken};

/// Longest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The key of RFC 6455, section 1.3, and what a server answers it by.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Bytes of a client's buffer for what it reads.
const BUFFER: usize = 32 << 10;

static LETTERS: [u8; BUFFER] = [b'x'; BUFFER];

/// What stands before a payload.
pub(crate) struct FrameHead {
    pub(crate) opcode: u8,
    pub(crate) length: usize,
    /// All zeroes where there is none.
    pub(crate) mask: [u8; 4],
}

impl FrameHead {
    pub(crate) async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Self> {
        let (first, second) = (reader.read_u8().await?, reader.read_u8().await?);
        let length = match second & 0x7f {
            126 => u64::from(reader.read_u16().await?),
            127 => reader.read_u64().await?,
            short => u64::from(short),
        };
        let length = usize::try_from(length).ok().filter(|n| *n <= MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| broken("a message that is too long"))?;
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            reader.read_exact(&mut mask).await?;
        }
        Ok(Self { opcode: first & 0x0f, length, mask })
    }

    /// The bytes on the wire; clients mask.
    pub(crate) fn write(&self, is_client: bool, into: &mut Vec<u8>) {
        let mask = if is_client { 0x80 } else { 0 };
        into.push(0x80 | self.opcode);
        match self.length {
            0..126 => into.push(mask | self.length as u8),
            126..65_536 => {
                into.push(mask | 126);
                into.extend((self.length as u16).to_be_bytes());
            }
            _ => {
                into.push(mask | 127);
                into.extend((self.length as u64).to_be_bytes());
            }
        }
        if is_client {
            into.extend([0; 4]);
        }
    }
}

/// A client's message of so many bytes, ready to be sent.
pub(crate) fn message(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameHead { opcode: BINARY, length, mask: [0; 4] }.write(true, &mut bytes);
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

/// A client's end.
pub(crate) struct Socket(BufReader<Box<dyn Duplex>>);

impl Socket {
    pub(crate) async fn open(connector: &Connector) -> io::Result<Self> {
        let mut stream = BufReader::with_capacity(BUFFER, connector.connect().await?);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let head = in_time(Head::read(&mut stream)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.status() != "101" {
            return Err(broken(head.first_line()));
        }
        Ok(Self(stream))
    }

    /// Sends what [`message`] made and waits for the echo of its `length` bytes.
    pub(crate) async fn echo(&mut self, message: &[u8], length: usize) -> io::Result<()> {
        self.0.write_all(message).await?;
        self.0.flush().await?;
        loop {
            if let Some(echoed) = self.next().await? {
                return if echoed == length { Ok(()) } else { Err(broken("an echo of another length")) };
            }
        }
    }

    /// Something came, or the other side closed. May be given up at any time.
    pub(crate) async fn readable(&mut self) {
        drop(self.0.fill_buf().await.map(|_| ()));
    }

    /// Length of the next message; `None` was a ping, and is answered.
    pub(crate) async fn next(&mut self) -> io::Result<Option<usize>> {
        let head = FrameHead::read(&mut self.0).await?;
        match head.opcode {
            BINARY => {
                self.skip_letters(head.length).await?;
                Ok(Some(head.length))
            }
            PING => {
                let mut pong = Vec::new();
                FrameHead { opcode: PONG, ..head }.write(true, &mut pong);
                let start = pong.len();
                pong.resize(start + head.length, 0);
                self.0.read_exact(&mut pong[start..]).await?;
                self.0.write_all(&pong).await?;
                self.0.flush().await?;
                Ok(None)
            }
            _ => Err(broken("a frame nobody asked for")),
        }
    }

    async fn skip_letters(&mut self, mut left: usize) -> io::Result<()> {
        while left > 0 {
            let there = self.0.fill_buf().await?;
            let taken = there.len().min(left);
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if there[..taken] != LETTERS[..taken] {
                return Err(broken("an echo of something else"));
            }
            self.0.consume(taken);
            left -= taken;
        }
        Ok(())
    }
}
