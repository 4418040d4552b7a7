//! Messages that are longer than a part, on their way and when they come: see [`crate::shiny::resume`].

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::BROWSER_MESSAGE_MAX;
use crate::shiny::resume::{self, PART, Said};

/// A message on its way, part by part.
pub(super) struct Sending {
    message: Message,
    /// What was sent of it; of a text, with the letter before it.
    at: usize,
    /// It was said that the next is a part.
    is_told: bool,
}

impl Sending {
    /// All of it.
    pub(super) fn new(message: Message) -> Self {
        let at = usize::from(message.is_text());
        Self { message, at, is_told: false }
    }

    /// The next frame; `None`: all of it was sent.
    pub(super) fn next(&mut self) -> Option<Message> {
        let (begins, whole) = (usize::from(self.message.is_text()), self.message.len());
        if self.at > whole {
            return None;
        }
        if whole - self.at <= PART {
            let is_begun = self.at > begins;
            let rest = match &self.message {
                Message::Text(text) if is_begun => Message::text(format!("m{}", &text[self.at..])),
                Message::Binary(bytes) if is_begun => Message::Binary(bytes.slice(self.at..)),
                message => message.clone(),
            };
            // What is empty is sent too, once.
            self.at = whole + 1;
            return Some(rest);
        }
        if !mem::replace(&mut self.is_told, true) {
            return Some(Message::text(Said::Part.to_string()));
        }
        self.is_told = false;
        let (part, end) = match &self.message {
            Message::Text(text) => {
                let end = resume::end_of_part(text, self.at);
                (Message::text(format!("m{}", &text[self.at..end])), end)
            }
            Message::Binary(bytes) => {
                let end = self.at + PART;
                (Message::Binary(bytes.slice(self.at..end)), end)
            }
            message => (message.clone(), whole),
        };
        self.at = end;
        Some(part)
    }
}

/// So long may the parts of a message wait for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are counted among what is kept for all browsers, until this is dropped.
pub(super) struct Counted<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
}

impl<'a> Counted<'a> {
    /// None.
    fn none(all: &'a AtomicUsize) -> Self {
        Self { all, bytes: 0 }
    }

    fn set(&mut self, bytes: usize) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole message, with what is counted of it: what came in one piece is not.
pub(super) type Whole<'a> = (Message, Counted<'a>);

/// Messages of a browser's, put together of their parts.
pub(super) struct Gathering<'a> {
    gathered: Option<Gathered>,
    counted: Counted<'a>,
    bytes_max: usize,
    /// The next message is only a part.
    is_part: bool,
    /// Since when there is no room for the next part.
    waits_since: Option<Instant>,
}

impl<'a> Gathering<'a> {
    /// Nothing came yet. `all`: bytes that are kept for all browsers, of which there may be `bytes_max`.
    pub(super) fn new(all: &'a AtomicUsize, bytes_max: usize) -> Self {
        Self { gathered: None, counted: Counted::none(all), bytes_max, is_part: false, waits_since: None }
    }

    /// The next message is only a part.
    pub(super) fn expect_part(&mut self) {
        self.is_part = true;
    }

    /// Whether there is room for what comes next. Who waits for some is not read, so that they left is seen when they come back.
    ///
    /// # Errors
    /// There is never, or there was none for so long that the message is given up.
    pub(super) fn has_room(&mut self, now: Instant) -> Result<bool, (CloseCode, &'static str)> {
        let is_whole = self.gathered.is_none() && !self.is_part;
        if is_whole || self.counted.all.load(Ordering::Relaxed) < self.bytes_max {
            self.waits_since = None;
            return Ok(true);
        }
        if self.counted.bytes >= self.bytes_max {
            return Err((CloseCode::Size, "its message is too long"));
        }
        if now.duration_since(*self.waits_since.get_or_insert(now)) > PATIENCE {
            // At once, so that others who wait as long go on.
            self.gathered = None;
            self.counted.set(0);
            return Err((CloseCode::Size, "there is no room for the parts of its message"));
        }
        Ok(false)
    }

    /// Whether there was no room when it was last looked for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits_since.is_some()
    }

    /// Adds what came; the message, once it is whole.
    ///
    /// # Errors
    /// Why that is none.
    pub(super) fn add(&mut self, message: Message) -> Result<Option<Whole<'a>>, (CloseCode, &'static str)> {
        let is_part = mem::take(&mut self.is_part);
        let is_gathered = self.gathered.is_some();
        let whole = gather(&mut self.gathered, message, is_part)?;
        let Some(message) = whole else {
            self.counted.set(self.gathered.as_ref().map_or(0, Gathered::len));
            return Ok(None);
        };
        if is_gathered {
            self.counted.set(message.len());
        }
        let none = Counted::none(self.counted.all);
        let counted = mem::replace(&mut self.counted, none);
        Ok(Some((message, counted)))
    }
}

/// What came of a message.
enum Gathered {
    Text(String),
    Bytes(Vec<u8>),
}

impl Gathered {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// Adds what came. `is_part`: more of it follows; else the whole message.
///
/// # Errors
/// Why that is none.
fn gather(
    into: &mut Option<Gathered>,
    message: Message,
    is_part: bool,
) -> Result<Option<Message>, (CloseCode, &'static str)> {
    if into.is_none() && !is_part {
        return Ok(Some(message));
    }
    if is_part && message.is_empty() {
        return Err((CloseCode::Protocol, "a part of its message is empty"));
    }
    let before = into.as_ref().map_or(0, Gathered::len);
    if before + message.len() > BROWSER_MESSAGE_MAX {
        return Err((CloseCode::Size, "its message is too long"));
    }
    match (into.as_mut(), message) {
        (None, Message::Text(text)) => *into = Some(Gathered::Text(text.as_str().to_owned())),
        (None, Message::Binary(bytes)) => *into = Some(Gathered::Bytes(bytes.to_vec())),
        (Some(Gathered::Text(before)), Message::Text(rest)) => before.push_str(&rest),
        (Some(Gathered::Bytes(before)), Message::Binary(rest)) => before.extend_from_slice(&rest),
        _ => return Err((CloseCode::Protocol, "parts of its message are of two kinds")),
    }
    if is_part {
        return Ok(None);
    }
    Ok(into.take().map(|whole| match whole {
        Gathered::Text(text) => Message::text(text),
        Gathered::Bytes(bytes) => Message::binary(bytes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(message: Message) -> Vec<Message> {
        let mut sending = Sending::new(message);
        std::iter::from_fn(|| sending.next()).collect()
    }

    /// What a browser makes of them.
    fn came(frames: &[Message]) -> Message {
        let (mut parts, mut is_part) = (None, false);
        for frame in frames {
            let message = match frame {
                Message::Text(text) if text.as_str() == "k" => {
                    is_part = true;
                    continue;
                }
                Message::Text(text) => Message::text(text.strip_prefix('m').unwrap()),
                other => other.clone(),
            };
            assert!(message.len() <= PART);
            if let Some(whole) = gather(&mut parts, message, mem::take(&mut is_part)).unwrap() {
                return whole;
            }
        }
        panic!("it has no end");
    }

    #[test]
    fn long_messages_go_in_parts_and_short_ones_as_they_are() {
        for text in [String::new(), "x".repeat(PART), "\u{e4}".repeat(PART / 2)] {
            assert_eq!(frames(Message::text(format!("m{text}"))), [Message::text(format!("m{text}"))]);
        }
        for text in ["x".repeat(PART + 1), "\u{1f600}x\u{e4}".repeat(20_000)] {
            let frames = frames(Message::text(format!("m{text}")));
            assert_eq!((&frames[0], came(&frames)), (&Message::text("k"), Message::text(text)));
        }
        for count in [0, 1, PART] {
            assert_eq!(frames(Message::binary(vec![7; count])), [Message::binary(vec![7; count])]);
        }
        for count in [PART + 1, 3 * PART, 3 * PART + 1] {
            let bytes: Vec<u8> = (0..count).map(|n| n as u8).collect();
            assert_eq!(came(&frames(Message::binary(bytes.clone()))), Message::binary(bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parts_are_counted_until_their_message_is_gone_and_wait_for_room() {
        let (all, part) = (AtomicUsize::new(90), || Message::binary(vec![0; 40]));
        let mut one = Gathering::new(&all, 100);
        one.expect_part();
        assert_eq!(one.has_room(Instant::now()), Ok(true));
        assert!(one.add(part()).unwrap().is_none());
        assert_eq!(all.load(Ordering::Relaxed), 130);
        assert_eq!(one.has_room(Instant::now()), Ok(false));
        let mut other = Gathering::new(&all, 100);
        assert_eq!(other.has_room(Instant::now()), Ok(true), "what comes in one piece");
        let (_, counted) = other.add(part()).unwrap().unwrap();
        assert_eq!((all.load(Ordering::Relaxed), counted.bytes), (130, 0));
        other.expect_part();
        assert_eq!(other.has_room(Instant::now()), Ok(false));
        all.fetch_sub(90, Ordering::Relaxed);
        tokio::time::advance(PATIENCE).await;
        assert_eq!(one.has_room(Instant::now()), Ok(true));
        let (whole, counted) = one.add(part()).unwrap().unwrap();
        assert_eq!((whole.len(), all.load(Ordering::Relaxed)), (80, 80));
        all.fetch_add(90, Ordering::Relaxed);
        assert_eq!(other.has_room(Instant::now()), Ok(false));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(other.has_room(Instant::now()).unwrap_err().0, CloseCode::Size);
        drop(counted);
        assert_eq!(all.load(Ordering::Relaxed), 90);
        for _ in 0..3 {
            one.expect_part();
            one.add(part()).unwrap();
        }
        assert_eq!(one.has_room(Instant::now()).unwrap_err().0, CloseCode::Size, "all of it is its own");
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), 90, "what was not gathered whole");
    }

    #[test]
    fn parts_make_no_message_that_is_too_long_or_of_two_kinds() {
        let half = Message::binary(vec![0; BROWSER_MESSAGE_MAX / 2]);
        let mut parts = None;
        for _ in 0..2 {
            assert_eq!(gather(&mut parts, half.clone(), true), Ok(None));
        }
        assert_eq!(gather(&mut parts, Message::binary(vec![0]), false).unwrap_err().0, CloseCode::Size);
        let mut parts = None;
        assert_eq!(gather(&mut parts, Message::text("a"), true), Ok(None));
        assert_eq!(gather(&mut parts, Message::text(""), true).unwrap_err().0, CloseCode::Protocol);
        assert_eq!(gather(&mut parts, Message::binary(vec![0]), false).unwrap_err().0, CloseCode::Protocol);
    }
}
