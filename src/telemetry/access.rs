//! The access log: one JSON object a line per request, written by a thread of its own so that no request waits for it.
//!
//! Whoever finishes a request fills in a [`Line`]; here it becomes bytes, straight into a reused buffer. Query strings,
//! cookies and credentials have no field and so cannot be logged.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::proxy::AccessLog as Settings;
use crate::telemetry::Timestamp;
use crate::telemetry::sink::{LogFile, Sink, Target};
use crate::types::IpText;

/// The access log; clones write to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sink: Sink,
    is_enabled: Arc<AtomicBool>,
}

/// What one line says; fields that do not apply are `None` and left out.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// When the request head was complete.
    pub time: Timestamp,
    /// Name of the listener: as those of pool and backend of letters, digits, `.`, `_` and `-`.
    pub listener: &'a str,
    /// The client, as trusted headers tell it, then with port 0; `None` on a unix socket.
    pub client: Option<SocketAddr>,
    /// As the client wrote it.
    pub method: &'a str,
    /// Any bytes; everything from the first `?` on is left out.
    pub path: &'a [u8],
    /// Any bytes: the host the client asked for.
    pub host: Option<&'a [u8]>,
    /// What the client got; `None` when it went away before there was an answer.
    pub status: Option<u16>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the pool.
    pub pool: Option<&'a str>,
    /// Key of the backend that answered, or the last one tried.
    pub backend: Option<&'a str>,
    /// Why this backend: `sticky`, `balanced`, `rebound`.
    pub pick: Option<&'a str>,
    /// Backends tried, the last one included.
    pub attempts: u32,
    /// The exchange became a tunnel.
    pub upgraded: bool,
    /// Body, or tunnel, from the client.
    pub bytes_received: u64,
    /// Body, or tunnel, to the client.
    pub bytes_sent: u64,
    /// From the complete head to the last byte.
    pub duration: Duration,
    /// Dialling the backend; `None` when a connection was reused or none was made.
    pub upstream_connect: Option<Duration>,
    /// `X-Request-Id`.
    pub request_id: &'a str,
    /// What went wrong.
    pub error: Option<LineError<'a>>,
}

/// What went wrong, and on whose side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError<'a> {
    /// A name from a closed set, such as `connect_refused`.
    pub kind: &'a str,
    /// `downstream`, `upstream` or `internal`.
    pub side: &'a str,
}

// === impl AccessLog ===

impl AccessLog {
    /// Opens the log as the settings say and starts its thread.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn start(settings: &Settings) -> io::Result<Self> {
        let sink = Sink::start("access-log", target(settings)?)?;
        Ok(Self { sink, is_enabled: Arc::new(AtomicBool::new(settings.enabled)) })
    }

    /// Goes on as new settings say.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened; the log then goes on as before.
    pub fn reconfigure(&self, settings: &Settings) -> io::Result<()> {
        self.sink.redirect(target(settings)?);
        self.is_enabled.store(settings.enabled, Ordering::Relaxed);
        Ok(())
    }

    /// Whether lines are wanted; callers may save themselves the work of filling one in.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Relaxed)
    }

    /// Hands a line to the writing thread, or drops and counts it when that is behind. Never waits.
    pub fn write(&self, line: &Line<'_>) {
        if self.is_enabled() {
            let mut buffer = self.sink.buffer();
            line.encode(&mut buffer);
            self.sink.submit(buffer);
        }
    }

    /// Lines lost so far.
    pub fn dropped(&self) -> u64 {
        self.sink.dropped()
    }

    /// Opens the file again before the next line: SIGHUP after a rotation. Without it a rotation is seen in a second.
    pub fn reopen(&self) {
        self.sink.reopen();
    }

    /// Waits until every line is written, at most `limit`; whether that came true. Blocks the thread.
    pub fn flush(&self, limit: Duration) -> bool {
        self.sink.flush(limit)
    }
}

fn target(settings: &Settings) -> io::Result<Target> {
    match &settings.file {
        Some(path) if settings.enabled => Ok(Target::File(LogFile::open(path)?)),
        _ => Ok(Target::Stdout),
    }
}

// === impl Line ===

/// A key behind another one, up to its value; with `text` the value's opening quote too. One piece each, because a copy costs
/// more than its bytes.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
    ($name:literal text) => {
        concat!(",\"", $name, "\":\"").as_bytes()
    };
}

impl Line<'_> {
    /// Appends the JSON object and a line feed. The names are OpenTelemetry's where it has one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(LINE);
        let mut object = Object { out };
        object.time(self.time);
        object.name(key!("listener" text), self.listener);
        if let Some(client) = self.client {
            object.plain(key!("client.address" text), IpText::new(client.ip()).as_bytes());
            // Behind a proxy only the address is known.
            if client.port() != 0 {
                object.number(key!("client.port"), client.port().into());
            }
        }
        object.text(key!("http.request.method" text), self.method.as_bytes());
        let path = memchr::memchr(b'?', self.path).map_or(self.path, |at| &self.path[..at]);
        object.text(key!("url.path" text), path);
        object.optional(key!("server.address" text), self.host);
        if let Some(status) = self.status {
            object.number(key!("http.response.status_code"), status.into());
        }
        object.optional(key!("route" text), self.route.map(str::as_bytes));
        for (key, name) in
            [(key!("pool" text), self.pool), (key!("backend" text), self.backend), (key!("pick" text), self.pick)]
        {
            if let Some(name) = name {
                object.name(key, name);
            }
        }
        object.number(key!("attempts"), self.attempts.into());
        object.raw(if self.upgraded { b",\"upgraded\":true" } else { b",\"upgraded\":false" });
        object.number(key!("bytes_received"), self.bytes_received);
        object.number(key!("bytes_sent"), self.bytes_sent);
        object.milliseconds(key!("duration_ms"), self.duration);
        if let Some(connect) = self.upstream_connect {
            object.milliseconds(key!("upstream_connect_ms"), connect);
        }
        object.text(key!("request_id" text), self.request_id.as_bytes());
        if let Some(error) = self.error {
            object.name(key!("error.type" text), error.kind);
            object.name(key!("error.side" text), error.side);
        }
        object.raw(b"}\n");
    }
}

/// Bytes of an ordinary line.
const LINE: usize = 640;

/// A JSON object being written. Keys are ours and need no escaping; the first one opens the brace.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn raw(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    fn text(&mut self, key: &[u8], value: &[u8]) {
        self.raw(key);
        escape(value, self.out);
        self.out.push(b'"');
    }

    fn optional(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// For values that need no escaping.
    fn plain(&mut self, key: &[u8], value: &[u8]) {
        self.raw(key);
        self.raw(value);
        self.out.push(b'"');
    }

    /// For names of the configuration and of ours, which have no character to be escaped.
    fn name(&mut self, key: &[u8], value: &str) {
        debug_assert!(is_plain(value.as_bytes()), "{value:?}");
        self.plain(key, value.as_bytes());
    }

    fn number(&mut self, key: &[u8], value: u64) {
        self.raw(key);
        self.raw(itoa::Buffer::new().format(value).as_bytes());
    }

    /// With three decimals: whole microseconds.
    fn milliseconds(&mut self, key: &[u8], value: Duration) {
        self.raw(key);
        let (mut digits, us) = (itoa::Buffer::new(), value.as_micros() as u64);
        self.out.extend_from_slice(digits.format(us / 1_000).as_bytes());
        let us = (us % 1_000) as u16;
        self.out.extend_from_slice(&[b'.', digit(us / 100), digit(us / 10), digit(us)]);
    }

    /// Most lines of a second begin with the same text.
    fn time(&mut self, time: Timestamp) {
        thread_local! {
            /// A second, and its text up to the decimal point.
            static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
        }
        let unix = time.unix();
        LAST.with_borrow_mut(|(second, text)| {
            if *second != unix.as_secs() {
                (*second, *text) = (unix.as_secs(), time.to_string());
                text.truncate(text.len() - ".000Z".len());
            }
            self.raw(b"{\"time\":\"");
            self.raw(text.as_bytes());
        });
        let ms = unix.subsec_millis() as u16;
        self.out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z', b'"']);
    }
}

/// The last digit.
fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

/// Appends `value` as the inside of a JSON string (RFC 8259 §7), at most [`TEXT_BYTES_MAX`] bytes of it.
///
/// Bytes that are not UTF-8 become U+FFFD as `String::from_utf8_lossy` does it; a value that was cut ends in `…`.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    let kept = &value[..value.len().min(TEXT_BYTES_MAX)];
    if kept.len() == value.len() && is_plain(value) {
        return out.extend_from_slice(value);
    }
    for chunk in kept.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        while let Some(at) = rest.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\' || *b == 0x7f) {
            out.extend_from_slice(&rest[..at]);
            match rest[at] {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                control => out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    HEX[usize::from(control >> 4)],
                    HEX[usize::from(control & 15)],
                ]),
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Whether all of it is ASCII that needs no escaping.
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|b| matches!(b, b' '..=b'~') && *b != b'"' && *b != b'\\');
    };
    // What is over overlaps.
    let mut odd = odd_bytes(u64::from_le_bytes(*last));
    for word in text.as_chunks().0 {
        odd |= odd_bytes(u64::from_le_bytes(*word));
    }
    odd & SIGNS == 0
}

/// In the sign of each byte, whether any is below a blank, a quote, a backslash, DEL or above. The other bits say nothing.
/// Where the lowest such byte is, those above it may be wrong.
fn odd_bytes(word: u64) -> u64 {
    let each = |byte: u8| EACH * u64::from(byte);
    let is_zero = |word: u64| word.wrapping_sub(EACH);
    let is_control = word.wrapping_sub(each(b' '));
    let is_high = word.wrapping_add(EACH) | word;
    is_control | is_high | is_zero(word ^ each(b'"')) | is_zero(word ^ each(b'\\'))
}

const EACH: u64 = u64::from_le_bytes([1; 8]);
const SIGNS: u64 = EACH << 7;

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Nobody reads a longer path, and a line must not be as long as a client likes.
const TEXT_BYTES_MAX: usize = 2_048;

#[cfg(test)]
mod tests;
