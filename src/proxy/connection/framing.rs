//! Where one HTTP/1.x body ends (RFC 9112 §6). Pure: it counts bytes, it keeps none.
//!
//! The connection follows every request body by itself, so that what belongs to the next request never reaches the
//! mover of this one, and a chunk two parsers could read differently reaches nobody.

/// How a body is delimited, as the head says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// Exactly so many bytes; never 0.
    Length(u64),
    /// RFC 9112 §7.1.
    Chunked,
}

/// The chunk syntax was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenChunk;

/// Which parts of a body go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Chunks with their sizes.
    All,
    /// What is in them.
    Data,
}

/// What became of bytes that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// So many belong to the body; fewer than all only when it is over.
    pub used: usize,
    /// So many are its data.
    pub data: u64,
}

/// Follows one body to its end.
#[derive(Clone, Copy, Debug)]
pub struct Follower {
    at: At,
    /// Bytes of the current size line or of all trailers.
    line: u32,
}

/// Bytes a chunk-size line (with its extensions) may have.
const SIZE_LINE_MAX: u32 = 256;
/// Bytes all trailers may have.
const TRAILERS_MAX: u32 = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Body bytes left, to be followed by nothing.
    Length(u64),
    /// In the digits of a size; so far this value and whether there was a digit.
    Size(u64, bool),
    /// In blanks behind a size.
    Blank(u64),
    /// In a chunk extension; the size is known.
    Extension(u64),
    /// After the CR of a size line.
    SizeLf(u64),
    /// Chunk bytes left.
    Chunk(u64),
    /// Before the CR that ends a chunk.
    ChunkCr,
    /// Before the LF that ends a chunk.
    ChunkLf,
    /// At the start of a trailer line.
    TrailerStart,
    /// In the name of a trailer field.
    TrailerName,
    /// Behind the colon of a trailer line.
    Trailer,
    /// After the CR of a trailer line.
    TrailerLf,
    /// After the CR of the last, blank line.
    LastLf,
    /// Over.
    Done,
}

impl Follower {
    /// At the first byte of a body.
    pub fn new(framing: Framing) -> Self {
        let at = match framing {
            Framing::Empty | Framing::Length(0) => At::Done,
            Framing::Length(n) => At::Length(n),
            Framing::Chunked => At::Size(0, false),
        };
        Self { at, line: 0 }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// How many bytes may be read now without looking at them: they all belong to the body. 0: look at each.
    pub fn known(&self) -> u64 {
        match self.at {
            At::Length(n) | At::Chunk(n) => n,
            _ => 0,
        }
    }

    /// Takes the bytes that came and tells how many of them belong to the body; fewer than all only when it is over.
    ///
    /// # Errors
    /// [`BrokenChunk`]: the rest of the connection means nothing.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, BrokenChunk> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::Done {
            match self.at {
                At::Length(left) | At::Chunk(left) => {
                    let n = left.min((bytes.len() - used) as u64);
                    used += n as usize;
                    self.take(n);
                }
                _ => {
                    self.at = self.step(bytes[used])?;
                    used += 1;
                }
            }
        }
        Ok(used)
    }

    /// As [`Self::advance`], and calls `out` with what goes on to somebody else: of chunks no extensions and no trailers
    /// (RFC 9110 §6.5.1 and RFC 9112 §7.1.1 let a recipient drop both), and with [`Parts::Data`] nothing but their data.
    ///
    /// # Errors
    /// [`BrokenChunk`].
    pub fn pass(&mut self, bytes: &[u8], parts: Parts, mut out: impl FnMut(&[u8])) -> Result<Passed, BrokenChunk> {
        let (mut used, mut data) = (0, 0);
        // Where what goes on in one piece began; what does not go on interrupts it.
        let mut start = 0;
        while used < bytes.len() && self.at != At::Done {
            let before = used;
            let goes_on = match self.at {
                At::Length(_) | At::Chunk(_) => {
                    let n = self.known().min((bytes.len() - used) as u64) as usize;
                    (used, data) = (used + n, data + n as u64);
                    self.take(n as u64);
                    true
                }
                at => {
                    self.at = self.step(bytes[used])?;
                    used += 1;
                    parts == Parts::All
                        && match (at, self.at) {
                            (_, At::Blank(_) | At::Extension(_)) => false,
                            (At::TrailerStart, At::LastLf) => true,
                            (At::TrailerStart | At::TrailerName | At::Trailer | At::TrailerLf, _) => false,
                            _ => true,
                        }
                }
            };
            if !goes_on {
                if start < before {
                    out(&bytes[start..before]);
                }
                start = used;
            }
        }
        if start < used {
            out(&bytes[start..used]);
        }
        Ok(Passed { used, data })
    }

    /// So many body bytes have come that need not be looked at: at most [`Self::known`].
    pub fn take(&mut self, bytes: u64) {
        self.at = match self.at {
            At::Length(left) if left <= bytes => At::Done,
            At::Length(left) => At::Length(left - bytes),
            At::Chunk(left) if left <= bytes => At::ChunkCr,
            At::Chunk(left) => At::Chunk(left - bytes),
            at => at,
        };
    }

    /// One byte of chunk syntax. LF alone ends no line here: RFC 9112 §7.1 asks for CRLF, and leniency is what
    /// request smuggling lives on.
    fn step(&mut self, byte: u8) -> Result<At, BrokenChunk> {
        self.line += 1;
        let limit = match self.at {
            At::TrailerStart | At::TrailerName | At::Trailer | At::TrailerLf | At::LastLf => TRAILERS_MAX,
            _ => SIZE_LINE_MAX,
        };
        if self.line > limit {
            return Err(BrokenChunk);
        }
        Ok(match (self.at, byte) {
            (At::Size(size, _), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from((byte as char).to_digit(16).ok_or(BrokenChunk)?);
                // 2^60 is far beyond any body, and the shift cannot overflow below it.
                if size >> 56 != 0 {
                    return Err(BrokenChunk);
                }
                At::Size(size << 4 | digit, true)
            }
            (At::Size(size, true), b'\r') => At::SizeLf(size),
            (At::Size(size, true) | At::Blank(size), b' ' | b'\t') => At::Blank(size),
            (At::Size(size, true) | At::Blank(size), b';') => At::Extension(size),
            (At::Blank(size) | At::Extension(size), b'\r') => At::SizeLf(size),
            (At::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => At::Extension(size),
            (At::SizeLf(size), b'\n') => {
                self.line = 0;
                if size == 0 { At::TrailerStart } else { At::Chunk(size) }
            }
            (At::ChunkCr, b'\r') => At::ChunkLf,
            (At::ChunkLf, b'\n') => {
                self.line = 0;
                At::Size(0, false)
            }
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerStart | At::TrailerName, b) if is_token(b) => At::TrailerName,
            (At::TrailerName, b':') => At::Trailer,
            (At::Trailer, b'\t' | b' '..=b'~' | 0x80..) => At::Trailer,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::LastLf, b'\n') => At::Done,
            _ => return Err(BrokenChunk),
        })
    }
}

/// A character of a field name (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(framing: Framing, bytes: &[u8]) -> Result<(usize, bool), BrokenChunk> {
        let mut follower = Follower::new(framing);
        follower.advance(bytes).map(|n| (n, follower.is_done()))
    }

    #[test]
    fn a_length_ends_where_it_says() {
        assert_eq!(follow(Framing::Length(3), b"abcGET"), Ok((3, true)));
        assert_eq!(follow(Framing::Length(9), b"abc"), Ok((3, false)));
        assert_eq!(follow(Framing::Empty, b"GET"), Ok((0, true)));
    }

    #[test]
    fn chunks_end_after_their_trailers() {
        let body = b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n";
        let mut all = body.to_vec();
        all.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(follow(Framing::Chunked, &all), Ok((body.len(), true)));
    }

    #[test]
    fn ambiguous_chunks_are_broken() {
        for body in [
            &b"\r\n"[..],
            b"g\r\n",
            b"5\nhello",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"11111111111111111\r\n",
            b"5;\0\r\n",
            b"5 x\r\n",
            b"5 5\r\n",
            b"0\r\nX\n\r\n",
            b"0\r\n\n",
            b"0\r\n/\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n: no name\r\n\r\n",
        ] {
            assert_eq!(follow(Framing::Chunked, body), Err(BrokenChunk), "{:?}", body.escape_ascii().to_string());
        }
        let long = format!("5;{}", "x".repeat(300));
        assert_eq!(follow(Framing::Chunked, long.as_bytes()), Err(BrokenChunk));
    }

    fn passed(body: &[u8], cuts: usize, parts: Parts) -> (Vec<u8>, u64) {
        let (mut follower, mut out, mut data) = (Follower::new(Framing::Chunked), Vec::new(), 0);
        for piece in body.chunks(cuts) {
            data += follower.pass(piece, parts, |bytes| out.extend_from_slice(bytes)).expect("well-formed").data;
        }
        assert!(follower.is_done());
        (out, data)
    }

    #[test]
    fn extensions_and_trailers_do_not_go_on() {
        let body = b"05 ;a=b\r\nhello\r\nA \t\r\n0123456789\r\n0;c\r\nX-T: 1\r\nY: 2\r\n\r\n";
        for cuts in 1..body.len() {
            let (all, data) = passed(body, cuts, Parts::All);
            assert_eq!(
                all.escape_ascii().to_string(),
                "05\\r\\nhello\\r\\nA\\r\\n0123456789\\r\\n0\\r\\n\\r\\n",
                "{cuts}"
            );
            assert_eq!(data, 15);
            assert_eq!(passed(body, cuts, Parts::Data), (b"hello0123456789".to_vec(), 15), "{cuts}");
        }
        let mut pieces = 0;
        let plain = b"5\r\nhello\r\n0\r\n\r\nGET";
        let mut follower = Follower::new(Framing::Chunked);
        let told = follower.pass(plain, Parts::All, |_| pieces += 1);
        assert_eq!((told, pieces), (Ok(Passed { used: plain.len() - 3, data: 5 }), 1), "in one piece where it can be");
    }

    proptest! {
        #[test]
        fn cutting_a_body_changes_nothing(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in proptest::collection::vec(1_usize..17, 1..64),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let len = body.len();
            body.extend_from_slice(b"NEXT");
            let mut follower = Follower::new(Framing::Chunked);
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while !follower.is_done() {
                let end = (at + cut.next().copied().unwrap_or(1)).min(body.len());
                at += follower.advance(&body[at..end]).expect("well-formed");
            }
            prop_assert_eq!(at, len);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut follower = Follower::new(Framing::Chunked);
            if let Ok(used) = follower.advance(&bytes) {
                prop_assert!(used == bytes.len() || follower.is_done());
            }
        }
    }
}
