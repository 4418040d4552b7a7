//! Messages that are longer than a part, on their way and when they come: see [`crate::shiny::resume`].

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
        if !std::mem::replace(&mut self.is_told, true) {
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

/// What came of a message.
pub(super) enum Gathered {
    Text(String),
    Bytes(Vec<u8>),
}

/// Adds what came. `is_part`: more of it follows; else the whole message.
///
/// # Errors
/// Why that is none.
pub(super) fn gather(
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
    let before = into.as_ref().map_or(0, |before| match before {
        Gathered::Text(text) => text.len(),
        Gathered::Bytes(bytes) => bytes.len(),
    });
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
            if let Some(whole) = gather(&mut parts, message, std::mem::take(&mut is_part)).unwrap() {
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
