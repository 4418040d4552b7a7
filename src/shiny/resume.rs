//! What the page's script and a node say to each other, so that a session outlives its connections.
//!
//! The script offers the websocket subprotocol [`PROTOCOL`]. A text frame begins with a letter, a binary frame is a binary
//! message of the app as it is:
//!
//! | frame | from | means |
//! |---|---|---|
//! | `mTEXT` | both | a text message of the app |
//! | `aN` | both | N messages of yours have come so far |
//! | `k` | both | the next message of the app is only a part; the rest of it follows |
//! | `sID SECONDS` | node | first frame: a new session of this id, which outlives a lost connection for so long |
//! | `rN` | node | first frame: the session goes on; N messages of yours have come, send the others again |
//! | `g` | node | the session is gone |
//! | `p`, `q` | script, node | are you there; yes |
//!
//! Messages are not numbered on the wire: a websocket loses and swaps none, so both sides count. A script that comes back
//! names the session and the count of messages it got in the query, `?bowline_resume=ID.N`; the node says `rN`, and each side
//! sends again what the other does not have. What has been acknowledged is forgotten. Of a message that is longer than [`PART`]
//! each part but the last is answered with `aN` at once: on a slow line both see that the other is there. A Close frame ends the session for
//! good, from either side; the end of a connection without one does not.
//!
//! Pure: messages in, messages out.

use std::collections::VecDeque;

/// The websocket subprotocol (RFC 6455 §1.9).
pub const PROTOCOL: &str = "bowline.resume.1";
/// The code of a Close frame on a connection that the script gives up, to go on by another one (RFC 6455 §7.4.2: private).
pub const GIVEN_UP: u16 = 4999;
/// The query's name for a session to go on with.
pub const QUERY: &str = "bowline_resume";
/// Bytes of a part of a message; the script's are as many UTF-16 units.
pub const PART: usize = 32 << 10;
/// So many messages are acknowledged at once; the script's number too.
const COUNT_DUE: u64 = 32;
/// Or so many bytes.
const BYTES_DUE: usize = 64 << 10;

/// A text frame of the script's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// A message of the app.
    Message(&'a str),
    /// So many have come.
    Acknowledged(u64),
    /// The next message is only a part.
    Part,
    /// Is somebody there?
    Ping,
}

impl<'a> Word<'a> {
    /// Reads a text frame; `None`: it is none of the script's.
    pub fn read(frame: &'a str) -> Option<Self> {
        let mut letters = frame.chars();
        match (letters.next()?, letters.as_str()) {
            ('m', rest) => Some(Self::Message(rest)),
            ('a', rest) => rest.parse().ok().map(Self::Acknowledged),
            ('k', "") => Some(Self::Part),
            ('p', "") => Some(Self::Ping),
            _ => None,
        }
    }
}

/// The node's text frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A new session, with its id and how long it is held, in seconds.
    Begun(&'a str, u64),
    /// It goes on; so many messages have come.
    Resumed(u64),
    /// So many have come.
    Acknowledged(u64),
    /// The next message is only a part.
    Part,
    /// There is no such session, or not any more.
    Gone,
    /// Somebody is there.
    Pong,
}

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Begun(id, seconds) => write!(f, "s{id} {seconds}"),
            Self::Resumed(count) => write!(f, "r{count}"),
            Self::Acknowledged(count) => write!(f, "a{count}"),
            Self::Part => f.write_str("k"),
            Self::Gone => f.write_str("g"),
            Self::Pong => f.write_str("q"),
        }
    }
}

/// Where the part of a text that begins at `at` ends.
pub fn end_of_part(text: &str, at: usize) -> usize {
    let mut end = (at + PART).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

/// Id and count of the query of a script that comes back.
pub fn wanted(query: &str) -> Option<(&str, u64)> {
    let told = query.split('&').find_map(|pair| pair.strip_prefix(QUERY)?.strip_prefix('='))?;
    let (id, count) = told.split_once('.')?;
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then_some(())?;
    Some((id, count.parse().ok()?))
}

/// A count that cannot be: of more than was sent, or of what was forgotten because it had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side counts messages it cannot have")]
pub struct Miscounted;

/// Messages on their way to the other side, kept until it has them.
#[derive(Debug)]
pub struct Outbox<M> {
    /// Messages it is known to have.
    acknowledged: u64,
    /// Those behind, in order, with their sizes.
    kept: VecDeque<(M, usize)>,
    /// How many of those were sent on this connection, from the first.
    sent: usize,
    bytes: usize,
}

impl<M: Clone> Outbox<M> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { acknowledged: 0, kept: VecDeque::new(), sent: 0, bytes: 0 }
    }

    /// One more.
    pub fn push(&mut self, message: M, bytes: usize) {
        self.bytes += bytes;
        self.kept.push_back((message, bytes));
    }

    /// The next to send.
    pub fn send(&mut self) -> Option<M> {
        let (message, _) = self.kept.get(self.sent)?;
        self.sent += 1;
        Some(message.clone())
    }

    /// The other side has so many: they are forgotten. How many bytes that gave.
    ///
    /// # Errors
    /// [`Miscounted`]: so many were not sent on this connection. Fewer than before is an old word, and nothing.
    pub fn acknowledge(&mut self, count: u64) -> Result<usize, Miscounted> {
        let Some(more) = count.checked_sub(self.acknowledged) else { return Ok(0) };
        let more = usize::try_from(more).map_err(|_| Miscounted)?;
        if more > self.sent {
            return Err(Miscounted);
        }
        self.sent -= more;
        Ok(self.forget(more))
    }

    /// A new connection, whose other side has so many: what is behind goes again. How many bytes that gave.
    ///
    /// # Errors
    /// [`Miscounted`]: it cannot have so many, or so few.
    pub fn rewind(&mut self, count: u64) -> Result<usize, Miscounted> {
        let more = count.checked_sub(self.acknowledged).ok_or(Miscounted)?;
        let more = usize::try_from(more).map_err(|_| Miscounted)?;
        if more > self.kept.len() {
            return Err(Miscounted);
        }
        self.sent = 0;
        Ok(self.forget(more))
    }

    fn forget(&mut self, count: usize) -> usize {
        let bytes = self.kept.drain(..count).map(|(_, bytes)| bytes).sum();
        self.acknowledged += count as u64;
        self.bytes -= bytes;
        bytes
    }

    /// Bytes of what is kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<M: Clone> Default for Outbox<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// What came from the other side.
#[derive(Debug, Default)]
pub struct Inbox {
    came: u64,
    told: u64,
    bytes: usize,
}

impl Inbox {
    /// A message of this size came.
    pub fn came(&mut self, bytes: usize) {
        self.came += 1;
        self.bytes += bytes;
    }

    /// Whether it is time to say so.
    pub fn is_due(&self) -> bool {
        self.came - self.told >= COUNT_DUE || self.bytes >= BYTES_DUE
    }

    /// Whether there is something to say.
    pub fn is_owed(&self) -> bool {
        self.came > self.told
    }

    /// How many came, which is said now.
    pub fn tell(&mut self) -> u64 {
        (self.told, self.bytes) = (self.came, 0);
        self.came
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_of_the_script_are_read_and_nothing_else() {
        assert_eq!(Word::read("m"), Some(Word::Message("")));
        assert_eq!(Word::read("m{\"a\":1}"), Some(Word::Message("{\"a\":1}")));
        assert_eq!(Word::read("a17"), Some(Word::Acknowledged(17)));
        assert_eq!(Word::read("p"), Some(Word::Ping));
        assert_eq!(Word::read("k"), Some(Word::Part));
        for other in ["", "a", "a-1", "ax", "px", "kx", "r1", "s", "\u{e4}"] {
            assert_eq!(Word::read(other), None, "{other}");
        }
        let said = [Said::Begun("x", 60), Said::Resumed(3), Said::Acknowledged(4), Said::Part, Said::Gone, Said::Pong];
        assert_eq!(said.map(|word| word.to_string()), ["sx 60", "r3", "a4", "k", "g", "q"]);
    }

    #[test]
    fn no_letter_is_cut_in_two() {
        let text = format!("{}\u{e4}\u{e4}", "x".repeat(PART - 1));
        let end = end_of_part(&text, 0);
        assert_eq!((end, end_of_part(&text, end)), (PART - 1, text.len()));
        assert_eq!(end_of_part("", 0), 0);
    }

    #[test]
    fn a_session_is_named_by_its_whole_id() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(wanted(&format!("a=1&bowline_resume={id}.5")), Some((id, 5)));
        for other in [
            "",
            "bowline_resume=",
            "bowline_resume=abc.1",
            &format!("bowline_resume={id}"),
            &format!("bowline_resume={id}.x"),
        ] {
            assert_eq!(wanted(other), None, "{other}");
        }
    }

    #[test]
    fn nobody_has_what_was_not_sent() {
        let mut outbox = Outbox::new();
        (0..3).for_each(|n| outbox.push(n, 10));
        assert_eq!((outbox.send(), outbox.bytes()), (Some(0), 30));
        assert_eq!(outbox.acknowledge(2), Err(Miscounted));
        assert_eq!((outbox.acknowledge(1), outbox.acknowledge(0), outbox.bytes()), (Ok(10), Ok(0), 20));
        assert_eq!(outbox.rewind(0), Err(Miscounted), "what was forgotten cannot be sent again");
        assert_eq!(outbox.rewind(4), Err(Miscounted));
        assert_eq!((outbox.rewind(1), outbox.send()), (Ok(0), Some(1)));
    }

    #[test]
    fn acknowledgements_are_due_by_count_and_by_size() {
        let mut inbox = Inbox::default();
        (0..31).for_each(|_| inbox.came(1));
        assert!(inbox.is_owed() && !inbox.is_due());
        inbox.came(1);
        assert!(inbox.is_due());
        assert_eq!((inbox.tell(), inbox.is_owed()), (32, false));
        inbox.came(BYTES_DUE);
        assert!(inbox.is_due());
    }

    /// One of two sides, and a way of each that loses what is on it when it is cut.
    #[derive(Default)]
    struct Side {
        outbox: Outbox<u32>,
        inbox: Inbox,
        got: Vec<u32>,
        pushed: u32,
        /// To the other side: messages, and acknowledgements.
        way: VecDeque<Result<u32, u64>>,
    }

    impl Side {
        fn put(&mut self) {
            self.pushed += 1;
            self.outbox.push(self.pushed, 1);
        }

        /// What is to be sent goes on its way.
        fn flush(&mut self, acknowledges: bool) {
            while let Some(message) = self.outbox.send() {
                self.way.push_back(Ok(message));
            }
            if acknowledges {
                self.way.push_back(Err(self.inbox.tell()));
            }
        }

        fn take(&mut self, came: Result<u32, u64>) {
            match came {
                Ok(message) => {
                    self.inbox.came(1);
                    self.got.push(message);
                }
                Err(count) => drop(self.outbox.acknowledge(count).unwrap()),
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_cut_each_message_comes_once_and_in_order(deeds in proptest::collection::vec((0_u8..8, 1_usize..6), 0..200)) {
            let mut sides = [Side::default(), Side::default()];
            for (deed, count) in deeds {
                let at = usize::from(deed % 2);
                match deed / 2 {
                    0 => (0..count).for_each(|_| sides[at].put()),
                    1 => sides[at].flush(count > 3),
                    2 => for _ in 0..count {
                        let Some(came) = sides[at].way.pop_front() else { break };
                        sides[1 - at].take(came);
                    },
                    _ => {
                        sides.iter_mut().for_each(|side| side.way.clear());
                        let has = [sides[1].inbox.tell(), sides[0].inbox.tell()];
                        for (side, has) in sides.iter_mut().zip(has) {
                            side.outbox.rewind(has).unwrap();
                        }
                    }
                }
            }
            for at in [0, 1] {
                sides[at].flush(false);
                while let Some(came) = sides[at].way.pop_front() {
                    sides[1 - at].take(came);
                }
                let expected: Vec<u32> = (1..=sides[at].pushed).collect();
                prop_assert_eq!(&sides[1 - at].got, &expected);
            }
            for side in &mut sides {
                let bytes = side.outbox.bytes();
                prop_assert!(bytes <= side.pushed as usize);
            }
        }
    }
}
