//! Websocket frames (RFC 6455 §5.2), and a client that speaks them.

use super::{Client, Response};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub is_final: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { is_final: true, opcode, payload: payload.into() }
    }

    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text)
    }

    pub fn close(code: u16) -> Self {
        Self::new(CLOSE, code.to_be_bytes())
    }

    /// The code of a Close frame.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk::<2>().filter(|_| self.opcode == CLOSE)?;
        Some(u16::from_be_bytes(*code))
    }

    /// As a client sends it.
    pub fn masked(&self) -> Vec<u8> {
        self.encode(Some([0x12, 0x34, 0x56, 0x78]))
    }

    /// As a server sends it.
    pub fn bare(&self) -> Vec<u8> {
        self.encode(None)
    }

    fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = vec![u8::from(self.is_final) << 7 | self.opcode];
        let bit = u8::from(mask.is_some()) << 7;
        match self.payload.len() {
            n @ ..126 => out.push(bit | n as u8),
            n @ ..65536 => {
                out.push(bit | 126);
                out.extend((n as u16).to_be_bytes());
            }
            n => {
                out.push(bit | 127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        let key = mask.unwrap_or_default();
        out.extend(mask.iter().flatten());
        out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// The frame at the start of `bytes` and its length there; `None` when it is not complete.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let [first, second] = *bytes.first_chunk::<2>()?;
        let (len, mut at) = match second & 0x7f {
            126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into(), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
            n => (usize::from(n), 2),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            key = bytes.get(at..at + 4)?.try_into().ok()?;
            at += 4;
        }
        let payload = bytes.get(at..at + len)?.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        Some((Self { is_final: first & 0x80 != 0, opcode: first & 0x0f, payload }, at + len))
    }
}

/// An open websocket, client side.
pub struct Socket {
    pub client: Client,
    /// The 101.
    pub head: Response,
}

/// The upgrade request of a browser, with further fields.
pub fn upgrade_bytes(target: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.extend_from_slice(fields);
    super::client::request_bytes("GET", target, &all, b"")
}

impl Socket {
    /// Upgrades this connection.
    pub async fn open(client: Client, target: &str, fields: &[(&str, &str)]) -> Self {
        Self::try_open(client, target, fields).await.unwrap_or_else(|e| panic!("no websocket: {e}"))
    }

    /// # Errors
    /// What came instead of a 101.
    pub async fn try_open(mut client: Client, target: &str, fields: &[(&str, &str)]) -> Result<Self, String> {
        client.try_send(&upgrade_bytes(target, fields)).await.map_err(|e| e.to_string())?;
        let head = client.head().await.ok_or("the connection ended before an answer")?;
        if head.status == 101 { Ok(Self { client, head }) } else { Err(format!("{head:?}")) }
    }

    /// Plain, to `host:port`, at `/ws`.
    pub async fn tcp(address: &str, fields: &[(&str, &str)]) -> Self {
        Self::open(Client::tcp(address).await, "/ws", fields).await
    }

    pub async fn send(&mut self, frame: &Frame) {
        self.client.send(frame.masked()).await;
    }

    /// The next frame that is no ping; pings are answered.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.client.frame().await?;
            if frame.opcode != PING {
                return Some(frame);
            }
            self.client.try_send(&Frame::new(PONG, frame.payload).masked()).await.ok()?;
        }
    }

    /// Sends a text and expects it back.
    pub async fn echo(&mut self, text: &str) {
        self.try_echo(text).await.unwrap_or_else(|e| panic!("no echo of {text:?}: {e}"));
    }

    /// # Errors
    /// What came instead of the text.
    pub async fn try_echo(&mut self, text: &str) -> Result<(), String> {
        self.client.try_send(&Frame::text(text).masked()).await.map_err(|e| e.to_string())?;
        match self.next().await {
            Some(frame) if frame == Frame::text(text) => Ok(()),
            Some(frame) => Err(format!("{frame:?}")),
            None => Err("the connection ended".to_owned()),
        }
    }

    /// The name of the [`Origin`](super::Origin) at the other end.
    pub fn origin(&self) -> &str {
        self.head.origin()
    }
}

#[test]
fn frames_read_back_as_written() {
    for size in [0, 1, 125, 126, 65_535, 65_536] {
        let frame = Frame::new(BINARY, vec![7; size]);
        for bytes in [frame.masked(), frame.bare()] {
            assert_eq!(Frame::parse(&bytes), Some((frame.clone(), bytes.len())));
            assert_eq!(Frame::parse(&bytes[..bytes.len() - 1]), None);
        }
    }
    assert_eq!(Frame::close(1001).close_code(), Some(1001));
}
