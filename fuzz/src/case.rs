//! A case: what the client does, and what the origin answers. It is also a small text file.
//!
//! ```text
//! listener trusted
//! cuts 77
//! send "GET /{site}/0 HTTP/1.1\r\nHost: {site}.test\r\n\r\n" "x"*9000
//! pause 20
//! answers 1
//! half-close
//! reset
//! reply whole
//!   send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
//!   fin
//! ```
//! `{site}` becomes the name of the site the case runs at, which is as long as itself. `cuts` says where lane `cut` cuts what
//! is sent; without it each byte goes alone. `answers` waits until so many final answers have come; a reply begins after the
//! `head`, after `body N` bytes of the body, or after the `whole` request.

use std::fmt::Write as _;

/// What stands in a case for the name of its site.
pub(crate) const SITE: &[u8] = b"{site}";

/// What the origin answers where the case says nothing.
pub(crate) const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nX-Mark: plain\r\nContent-Length: 2\r\n\r\nok";

/// What is taken through every lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Case {
    /// The listener believes what its clients say about the way before it.
    pub(crate) is_trusted: bool,
    /// Where lane `cut` cuts; 0: everywhere.
    pub(crate) cuts: u64,
    /// What the client does.
    pub(crate) steps: Vec<Step>,
    /// What the origin answers, in the order requests reach it.
    pub(crate) replies: Vec<Reply>,
}

/// One thing a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Writes.
    Send(Vec<u8>),
    /// Waits, milliseconds.
    Pause(u64),
    /// Waits until so many final answers have come, or a while.
    Answers(usize),
    /// Ends its side.
    HalfClose,
    /// Resets the connection.
    Reset,
}

/// What the origin does for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) when: When,
    pub(crate) acts: Vec<Act>,
}

/// What must have come of a request before its reply begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Head,
    Body(usize),
    Whole,
}

/// One thing the origin does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// Milliseconds.
    Pause(u64),
    /// Ends its side.
    Fin,
    Reset,
}

impl Case {
    /// All bytes the client sends, as long as it sends them.
    pub(crate) fn sent(&self) -> Vec<u8> {
        let pieces =
            self.steps.iter().filter_map(|step| if let Step::Send(bytes) = step { Some(&bytes[..]) } else { None });
        pieces.collect::<Vec<_>>().concat()
    }

    /// For one site, with its name in it.
    pub(crate) fn at_site(&self, name: &str) -> Self {
        let mut case = self.clone();
        for step in &mut case.steps {
            if let Step::Send(bytes) = step {
                rename(bytes, SITE, name.as_bytes());
            }
        }
        for act in case.replies.iter_mut().flat_map(|reply| &mut reply.acts) {
            if let Act::Send(bytes) = act {
                rename(bytes, SITE, name.as_bytes());
            }
        }
        case
    }

    /// Bytes of a reply.
    pub(crate) fn replied(&self, number: usize) -> Vec<u8> {
        let Some(reply) = self.replies.get(number) else { return PLAIN.to_vec() };
        let acts = reply.acts.iter();
        let pieces = acts.filter_map(|act| if let Act::Send(bytes) = act { Some(&bytes[..]) } else { None });
        pieces.collect::<Vec<_>>().concat()
    }

    /// The origin ends connections by itself.
    pub(crate) fn ends_connections(&self) -> bool {
        self.replies.iter().flat_map(|reply| &reply.acts).any(|act| matches!(act, Act::Fin | Act::Reset))
    }

    /// Bytes and things done: what a smaller case has less of.
    pub(crate) fn size(&self) -> usize {
        let of = |bytes: &Vec<u8>| bytes.len() + 1;
        let steps = self.steps.iter().map(|step| if let Step::Send(bytes) = step { of(bytes) } else { 2 });
        let acts = self.replies.iter().flat_map(|reply| &reply.acts);
        let acts = acts.map(|act| if let Act::Send(bytes) = act { of(bytes) } else { 2 });
        let early = self.replies.iter().filter(|reply| reply.when != When::Whole).count();
        steps.sum::<usize>()
            + acts.sum::<usize>()
            + 4 * self.replies.len()
            + early
            + usize::from(self.is_trusted)
            + usize::from(self.cuts > 0)
    }

    /// As a file has it.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        if self.is_trusted {
            text.push_str("listener trusted\n");
        }
        if self.cuts > 0 {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "cuts {}", self.cuts);
        }
        for step in &self.steps {
            let _ = match step {
                Step::Send(bytes) => writeln!(text, "send {}", quoted(bytes)),
                Step::Pause(ms) => writeln!(text, "pause {ms}"),
                Step::Answers(n) => writeln!(text, "answers {n}"),
                Step::HalfClose => writeln!(text, "half-close"),
                Step::Reset => writeln!(text, "reset"),
            };
        }
        for reply in &self.replies {
            let _ = match reply.when {
                When::Head => writeln!(text, "reply head"),
                When::Body(bytes) => writeln!(text, "reply body {bytes}"),
                When::Whole => writeln!(text, "reply whole"),
            };
            for act in &reply.acts {
                let _ = match act {
                    Act::Send(bytes) => writeln!(text, "  send {}", quoted(bytes)),
                    Act::Pause(ms) => writeln!(text, "  pause {ms}"),
                    Act::Fin => writeln!(text, "  fin"),
                    Act::Reset => writeln!(text, "  reset"),
                };
            }
        }
        text
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Which line is none of those above.
    pub(crate) fn from_text(text: &str) -> Result<Self, String> {
        let mut case = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                case.take_line(line).ok_or_else(|| format!("line {number} says nothing known: {line}"))?;
            }
        }
        Ok(case)
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let ("reply", when) = (word, rest) {
            let when = match when.split_once(' ') {
                None if when == "head" => When::Head,
                None if when == "whole" => When::Whole,
                Some(("body", bytes)) => When::Body(bytes.parse().ok()?),
                _ => return None,
            };
            self.replies.push(Reply { when, acts: Vec::new() });
        } else if let Some(reply) = self.replies.last_mut() {
            reply.acts.push(match word {
                "send" => Act::Send(unquoted(rest)?),
                "pause" => Act::Pause(rest.parse().ok()?),
                "fin" => Act::Fin,
                "reset" => Act::Reset,
                _ => return None,
            });
        } else {
            match word {
                "listener" => self.is_trusted = rest == "trusted",
                "cuts" => self.cuts = rest.parse().ok()?,
                "send" => self.steps.push(Step::Send(unquoted(rest)?)),
                "pause" => self.steps.push(Step::Pause(rest.parse().ok()?)),
                "answers" => self.steps.push(Step::Answers(rest.parse().ok()?)),
                "half-close" => self.steps.push(Step::HalfClose),
                "reset" => self.steps.push(Step::Reset),
                _ => return None,
            }
        }
        Some(())
    }
}

/// Puts one name in the place of another that is as long.
pub(crate) fn rename(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let mut at = 0;
    while let Some(found) = find(&bytes[at..], from) {
        let start = at + found;
        bytes[start..start + from.len()].copy_from_slice(to);
        at = start + from.len();
    }
}

/// Where `needle` first is.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, mut at) = (needle.first()?, 0);
    loop {
        at += bytes.get(at..)?.iter().position(|b| b == first)?;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

/// As many times the same byte is written once, with its number.
const RUN: usize = 40;

fn quoted(bytes: &[u8]) -> String {
    let (mut text, mut start, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        let same = bytes[at..].iter().take_while(|b| **b == bytes[at]).count();
        if same >= RUN {
            if start < at {
                let _ = write!(text, "\"{}\" ", bytes[start..at].escape_ascii());
            }
            let _ = write!(text, "\"{}\"*{same} ", [bytes[at]].escape_ascii());
            start = at + same;
        }
        at += same;
    }
    if start < at || bytes.is_empty() {
        let _ = write!(text, "\"{}\"", bytes[start..].escape_ascii());
    }
    text.trim_end().to_owned()
}

fn unquoted(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (piece, behind) = unescaped(rest.strip_prefix('"')?)?;
        rest = behind;
        let mut times = 1;
        if let Some(number) = rest.strip_prefix('*') {
            let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            times = number[..digits].parse::<usize>().ok().filter(|n| n.saturating_mul(piece.len()) <= 64 << 20)?;
            rest = &number[digits..];
        }
        for _ in 0..times {
            bytes.extend_from_slice(&piece);
        }
        rest = rest.trim_start();
    }
    Some(bytes)
}

/// Up to the closing quote, and what is behind it.
fn unescaped(text: &str) -> Option<(Vec<u8>, &str)> {
    let (mut bytes, mut at, raw) = (Vec::new(), 0, text.as_bytes());
    loop {
        match *raw.get(at)? {
            b'"' => return Some((bytes, &text[at + 1..])),
            b'\\' => {
                at += 1;
                match *raw.get(at)? {
                    b'r' => bytes.push(b'\r'),
                    b'n' => bytes.push(b'\n'),
                    b't' => bytes.push(b'\t'),
                    b'x' => {
                        bytes.push(u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()?);
                        at += 2;
                    }
                    itself => bytes.push(itself),
                }
            }
            byte => bytes.push(byte),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_was_written() {
        let case = Case {
            is_trusted: true,
            cuts: 9,
            steps: vec![
                Step::Send((0..=255).chain([b'x'; 90]).chain(*b"tail").collect()),
                Step::Send(Vec::new()),
                Step::Pause(3),
                Step::Answers(2),
                Step::HalfClose,
                Step::Reset,
            ],
            replies: vec![
                Reply { when: When::Head, acts: vec![Act::Send(b"a\"\\b".to_vec()), Act::Pause(1), Act::Fin] },
                Reply { when: When::Body(7), acts: vec![Act::Reset] },
                Reply { when: When::Whole, acts: Vec::new() },
            ],
        };
        assert_eq!(Case::from_text(&case.to_text()), Ok(case));
        assert!(Case::from_text("send \"a").is_err() && Case::from_text("dance").is_err());
    }
}
