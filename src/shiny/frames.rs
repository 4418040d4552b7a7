//! Where websocket frames begin and end (RFC 6455 §5.2), read from bytes that pass. Payloads are not touched.
//!
//! A tunnel must not be more fragile than a blind pipe: what breaks the framing makes the reader blind for good, and the
//! bytes go on passing.

/// Begins the payload of a ping of ours and tells whose it is; four bytes of count follow.
pub type Mark = [u8; 4];
/// The proxy's.
pub const PROXY: Mark = *b"bwln";
/// The node's.
pub const NODE: Mark = *b"bwlc";
/// Bytes of our ping: two of head, eight of payload.
pub const PING_BYTES: usize = 10;
/// Bytes of the pong that answers it: two of head, four of mask, eight of payload.
const PONG_BYTES: usize = 14;

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Our ping of this mark and count, as it stands on the wire from server to client.
pub fn ping(mark: Mark, count: u32) -> [u8; PING_BYTES] {
    let [a, b, c, d] = count.to_be_bytes();
    let [m, n, o, p] = mark;
    [FIN | PING, 8, m, n, o, p, a, b, c, d]
}

/// Follows the frames of one direction.
#[derive(Clone, Debug)]
pub struct Frames {
    at: At,
    /// Head bytes of the current frame.
    head: [u8; 14],
    /// First two payload bytes of a Close frame, as far as they came.
    code: [u8; 2],
    code_len: u8,
    /// Something of a message has passed, not only control frames. Whoever looks sets it back.
    pub has_data: bool,
    /// A Close frame has passed.
    pub has_closed: bool,
    /// Its code, if it carried one.
    pub close_code: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a frame's head, so many bytes of it known; 0: between frames.
    Head(u8),
    /// In a frame's payload, so many bytes to come. Of those that came it counts two: see [`Frames::code`].
    Payload { left: u64, done: u8 },
    /// The framing was broken; nothing is known any more.
    Blind,
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// At the start of a frame.
    pub fn new() -> Self {
        Self {
            at: At::Head(0),
            head: [0; 14],
            code: [0; 2],
            code_len: 0,
            has_data: false,
            has_closed: false,
            close_code: None,
        }
    }

    /// Between two frames: here, and only here, a frame of ours may go.
    pub fn is_between(&self) -> bool {
        self.at == At::Head(0)
    }

    /// Reads on and stops after the end of a frame or of the bytes: how many were read. More than 0 unless `bytes` is
    /// empty.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            match self.at {
                At::Blind => return bytes.len(),
                At::Head(have) => {
                    self.head[usize::from(have)] = bytes[used];
                    used += 1;
                    self.at = self.head_is(have + 1);
                    if self.is_between() {
                        return used;
                    }
                }
                At::Payload { left, done } => {
                    let n = left.min((bytes.len() - used) as u64);
                    self.has_data |= self.opcode() < CLOSE;
                    self.keep_code(&bytes[used..used + n as usize], done);
                    used += n as usize;
                    if n == left {
                        self.frame_ended();
                        return used;
                    }
                    self.at = At::Payload { left: left - n, done: n.saturating_add(done.into()).min(2) as u8 };
                }
            }
        }
        used
    }

    /// Where a head of so many known bytes leads.
    fn head_is(&mut self, have: u8) -> At {
        if have < 2 {
            return At::Head(have);
        }
        let (first, second) = (self.head[0], self.head[1]);
        let is_control = first & 0x08 != 0;
        let short = second & 0x7f;
        // RFC 6455 §5.5: control frames are short and never in fragments.
        if is_control && (short > 125 || first & FIN == 0) {
            return At::Blind;
        }
        let len_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & MASKED == 0 { 0 } else { 4 };
        if have < 2 + len_bytes + mask_bytes {
            return At::Head(have);
        }
        let mut left = u64::from(short);
        if len_bytes > 0 {
            left = self.head[2..usize::from(2 + len_bytes)].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        if left >> 63 != 0 {
            return At::Blind;
        }
        if left == 0 {
            self.frame_ended();
            return At::Head(0);
        }
        At::Payload { left, done: 0 }
    }

    fn opcode(&self) -> u8 {
        self.head[0] & 0x0f
    }

    fn mask(&self) -> [u8; 4] {
        // A control frame's mask follows its two bytes of head; only control frames are looked into.
        if self.head[1] & MASKED == 0 { [0; 4] } else { [self.head[2], self.head[3], self.head[4], self.head[5]] }
    }

    fn keep_code(&mut self, payload: &[u8], done: u8) {
        if self.opcode() != CLOSE || self.has_closed {
            return;
        }
        let mask = self.mask();
        for (i, byte) in payload.iter().enumerate() {
            let index = usize::from(done) + i;
            if index >= 2 {
                return;
            }
            self.code[index] = byte ^ mask[index];
            self.code_len = index as u8 + 1;
        }
    }

    fn frame_ended(&mut self) {
        if self.opcode() == CLOSE && !self.has_closed {
            self.has_closed = true;
            self.close_code = (self.code_len == 2).then(|| u16::from_be_bytes(self.code));
        }
        self.at = At::Head(0);
    }
}

/// The client's direction: passes everything on but the pongs that answer our pings.
#[derive(Clone, Debug)]
pub struct ClientFrames {
    /// Where its frames begin and end.
    pub frames: Frames,
    mark: Mark,
    /// A pong that may be ours, held until it is whole.
    held: [u8; PONG_BYTES],
    held_len: u8,
}

impl ClientFrames {
    /// Takes out what answers pings of this mark.
    pub fn new(mark: Mark) -> Self {
        Self { frames: Frames::new(), mark, held: [0; PONG_BYTES], held_len: 0 }
    }

    /// Reads `bytes` and gives what is to pass on, in order, in as few pieces as possible.
    pub fn pass(&mut self, bytes: &[u8], mut out: impl FnMut(&[u8])) {
        let (mut at, mut start) = (0, 0);
        while at < bytes.len() {
            if self.held_len == 0 && !(self.frames.is_between() && bytes[at] == FIN | PONG) {
                at += self.frames.read(&bytes[at..]);
                continue;
            }
            // In a frame that may be ours: byte by byte, at most fourteen of them.
            if start < at {
                out(&bytes[start..at]);
            }
            self.held[usize::from(self.held_len)] = bytes[at];
            self.held_len += 1;
            self.frames.read(&bytes[at..=at]);
            at += 1;
            start = at;
            let is_whole = self.frames.is_between();
            if self.may_be_ours() && !is_whole {
                continue;
            }
            if !(is_whole && self.is_ours()) {
                out(&self.held[..usize::from(self.held_len)]);
            }
            self.held_len = 0;
        }
        if start < bytes.len() {
            out(&bytes[start..]);
        }
    }

    /// As far as it came it looks like the answer to a ping of ours.
    fn may_be_ours(&self) -> bool {
        self.held_len < 2 || self.held[1] == MASKED | 8 && usize::from(self.held_len) < PONG_BYTES
    }

    fn is_ours(&self) -> bool {
        let mask = &self.held[2..6];
        usize::from(self.held_len) == PONG_BYTES && self.held[6..10].iter().zip(mask).map(|(b, m)| b ^ m).eq(self.mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { MASKED } else { 0 };
        let mut out = vec![first];
        match payload.len() {
            n @ 0..=125 => out.push(bit | n as u8),
            n @ 126..=0xffff => {
                out.push(bit | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(bit | 127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|m| out.extend_from_slice(m)).unwrap_or_default();
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        out
    }

    fn pong(count: u32, mask: [u8; 4]) -> Vec<u8> {
        frame(FIN | PONG, &ping(PROXY, count)[2..], Some(mask))
    }

    fn passed(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut client, mut out, mut rest) = (ClientFrames::new(PROXY), Vec::new(), bytes);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            client.pass(now, |b| out.extend_from_slice(b));
            rest = later;
        }
        out
    }

    #[test]
    fn close_codes_are_read_masked_and_plain() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let mut frames = Frames::new();
            let mut bytes = frame(FIN | 1, b"hello", mask);
            bytes.extend(frame(FIN | CLOSE, &[0x0f, 0xa1, b'x'], mask));
            let mut at = 0;
            while at < bytes.len() {
                at += frames.read(&bytes[at..]);
            }
            assert!(frames.has_closed && frames.is_between());
            assert_eq!(frames.close_code, Some(4001));
        }
    }

    #[test]
    fn only_messages_are_data() {
        let mut frames = Frames::new();
        for bytes in [frame(FIN | PING, b"x", None), frame(FIN | PONG, b"y", Some([1; 4]))] {
            assert_eq!((frames.read(&bytes), frames.has_data), (bytes.len(), false));
        }
        frames.read(&frame(FIN | 2, b"z", None));
        assert!(frames.has_data);
    }

    #[test]
    fn a_close_without_code_has_none() {
        let mut frames = Frames::new();
        let bytes = frame(FIN | CLOSE, b"", None);
        assert_eq!(frames.read(&bytes), 2);
        assert_eq!((frames.has_closed, frames.close_code), (true, None));
    }

    #[test]
    fn broken_framing_makes_blind_and_everything_passes() {
        let mut frames = Frames::new();
        let bytes = [FIN | PING, 126, 1, 2, 3];
        let read = frames.read(&bytes);
        assert_eq!(read + frames.read(&bytes[read..]), 5);
        assert!(!frames.is_between());
        assert_eq!(passed(&[FIN | PONG, 126, 1, 2, 3], &[1]), [FIN | PONG, 126, 1, 2, 3]);
    }

    #[test]
    fn pongs_of_others_pass() {
        for other in [
            frame(FIN | PONG, b"", Some([9; 4])),
            frame(FIN | PONG, b"12345678", Some([9; 4])),
            frame(FIN | PONG, b"bwln", None),
            frame(FIN | PONG, &ping(NODE, 7)[2..], Some([9; 4])),
        ] {
            assert_eq!(passed(&other, &[1]), other);
            assert_eq!(passed(&other, &[100]), other);
        }
    }

    proptest! {
        #[test]
        fn our_pongs_vanish_and_nothing_else_does(
            messages in proptest::collection::vec((any::<bool>(), 0_u8..4, proptest::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 0..12),
            cuts in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let (mut sent, mut expected) = (Vec::new(), Vec::new());
            for (is_ours, kind, payload, mask) in messages {
                if is_ours {
                    sent.extend(pong(7, mask));
                    continue;
                }
                let first = [FIN | 1, FIN | 2, FIN | PONG, FIN | PING][usize::from(kind)];
                let payload = if kind > 1 { &payload[..payload.len().min(125)] } else { &payload[..] };
                let bytes = frame(first, payload, Some(mask));
                sent.extend(&bytes);
                expected.extend(bytes);
            }
            prop_assert_eq!(passed(&sent, &cuts), expected);
        }

        #[test]
        fn no_bytes_are_lost_or_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
            let mut frames = Frames::new();
            for chunk in bytes.chunks(cut) {
                let mut at = 0;
                while at < chunk.len() {
                    let n = frames.read(&chunk[at..]);
                    prop_assert!(n > 0);
                    at += n;
                }
            }
        }
    }
}
