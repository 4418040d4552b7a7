//! As much of HTTP/1.1 as origin and clients here need: heads, and bodies of a stated length.
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Longest head that is read.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// The head of a request or of an answer, in lower case where names are compared.
pub(crate) struct Head(String);

impl Head {
    /// `None` when the other side closed between two messages.
    pub(crate) async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut text = String::new();
        let mut limited = reader.take(HEAD_BYTES_MAX);
        loop {
            let before = text.len();
            if limited.read_line(&mut text).await? == 0 {
                if text.is_empty() && limited.limit() > 0 {
                    return Ok(None);
                }
                return Err(broken("a head that does not end"));
            }
            if text[before..].trim_end().is_empty() {
                return Ok(Some(Self(text)));
            }
        }
    }

    /// `GET /ws HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub(crate) fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// Second word of an answer's first line.
    pub(crate) fn status(&self) -> &str {
        self.first_line().split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Bytes of the body; an error where that is not stated, as nothing here sends chunks.
    pub(crate) fn length(&self) -> io::Result<u64> {
        if self.field("transfer-encoding").is_some() {
            return Err(broken("a body in chunks"));
        }
        self.field("content-length").map_or(Ok(0), |n| n.parse().map_err(|_| broken("an odd content-length")))
    }
}

/// Reads past a body.
pub(crate) async fn skip(reader: &mut (impl AsyncBufRead + Unpin), mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let got = reader.fill_buf().await?.len() as u64;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = got.min(bytes);
        reader.consume(usize::try_from(taken).unwrap_or(usize::MAX));
        bytes -= taken;
    }
    Ok(())
}

/// Reads an answer that must be a 200, and its body.
pub(crate) async fn ok(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    let head = Head::read(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.status() != "200" {
        return Err(broken(head.first_line()));
    }
    skip(reader, head.length()?).await
}

pub(crate) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
