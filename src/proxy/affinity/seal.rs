//! Keys that can be rotated, and values that open only with one of them.
//!
//! A sealed value is `key id (4) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM (NIST SP 800-38D), in base64url
//! without padding (RFC 4648 §5). The key id is derived from the key, so every proxy with the same file agrees on it
//! without numbering anything. Random bytes come in as arguments.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};

/// The keys of a pool's cookies: the first seals, all open. Held by every proxy of a group.
///
/// To rotate: put a new key first on every proxy and keep the old one below until its cookies are renewed or expired.
pub struct KeyRing {
    /// 1 to [`KEYS_MAX`], in file order.
    keys: Vec<Key>,
}

struct Key {
    id: [u8; KEY_ID_BYTES],
    aead: LessSafeKey,
}

/// Why a key file cannot be used; never quotes a key. Lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Comments and blank lines only.
    #[error("no key in it: one base64 line of 32 random bytes is needed")]
    Empty,
    /// Longer than any key file need be.
    #[error("larger than {TEXT_BYTES_MAX} bytes, so it is no key file")]
    TooLarge,
    /// More than 16 keys.
    #[error("line {line}: more than {KEYS_MAX} keys; remove the oldest, which stand last")]
    TooMany {
        /// Of the first key too many.
        line: usize,
    },
    /// Not base64.
    #[error("line {line}: not base64")]
    NotBase64 {
        /// Of the bad key.
        line: usize,
    },
    /// Base64 of something else.
    #[error("line {line}: a key has 32 bytes, this one has {bytes}")]
    WrongLength {
        /// Of the bad key.
        line: usize,
        /// What it decodes to.
        bytes: usize,
    },
    /// One byte 32 times over, as in an example: anybody could forge cookies.
    #[error("line {line}: the key is not random")]
    NotRandom {
        /// Of the bad key.
        line: usize,
    },
    /// The same key twice: a rotation that was none.
    #[error("line {line}: the same key as in line {first}")]
    Repeated {
        /// Of the second copy.
        line: usize,
        /// Of the first copy.
        first: usize,
    },
}

impl KeyRing {
    /// Reads a key file: one base64 key of 32 bytes a line (standard or URL-safe alphabet), newest first, at most 16;
    /// blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(KeyRingError::TooLarge);
        }
        let mut seen: Vec<(usize, [u8; KEY_BYTES])> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let key = key_bytes(line, text)?;
            if let Some(&(first, _)) = seen.iter().find(|(_, other)| *other == key) {
                return Err(KeyRingError::Repeated { line, first });
            }
            if seen.len() == KEYS_MAX {
                return Err(KeyRingError::TooMany { line });
            }
            seen.push((line, key));
        }
        if seen.is_empty() {
            return Err(KeyRingError::Empty);
        }
        Ok(Self { keys: seen.iter().map(|(_, bytes)| Key::new(bytes)).collect() })
    }

    /// The text of a new key file around one key; `random` must come from the system's generator.
    pub fn generate(random: [u8; KEY_BYTES]) -> String {
        format!(
            "# Keys of Bowline's affinity cookies: one base64 key of 32 random bytes a line.\n\
             # The first seals, all open; at most {KEYS_MAX}. Give every proxy of a group the same file, mode 0600.\n\
             # To rotate, put a new key first (openssl rand -base64 32) and remove the old one when it is no longer used.\n\
             {}\n",
            STANDARD.encode(random)
        )
    }

    /// Seals `plain` for `purpose` with the first key. `None` if `plain` is longer than [`PLAIN_BYTES_MAX`].
    ///
    /// `nonce` must be random: with one key, 2³² values may be sealed before two nonces are likely enough to meet to
    /// matter (NIST SP 800-38D §8.3).
    pub(super) fn seal(&self, plain: &[u8], purpose: &[u8], nonce: [u8; NONCE_BYTES]) -> Option<String> {
        let key = self.keys.first()?;
        let mut buffer = [0; SEALED_BYTES_MAX];
        let end = HEAD_BYTES + plain.len();
        buffer[..KEY_ID_BYTES].copy_from_slice(&key.id);
        buffer[KEY_ID_BYTES..HEAD_BYTES].copy_from_slice(&nonce);
        buffer.get_mut(HEAD_BYTES..end).filter(|b| b.len() <= PLAIN_BYTES_MAX)?.copy_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.aead.seal_in_place_separate_tag(nonce, Aad::from(purpose), &mut buffer[HEAD_BYTES..end]).ok()?;
        buffer[end..end + TAG_BYTES].copy_from_slice(tag.as_ref());
        Some(URL_SAFE_NO_PAD.encode(&buffer[..end + TAG_BYTES]))
    }

    /// Opens what some key of the ring sealed for the same `purpose`.
    pub(super) fn open<'a>(&self, text: &[u8], purpose: &[u8], buffer: &'a mut Buffer) -> Option<Opened<'a>> {
        if !could_be_sealed(text) {
            return None;
        }
        let mut sealed = [0; DECODE_BYTES];
        // Strict: no padding and no stray bits at the end, so that one value has one spelling.
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut sealed).ok()?;
        let (head, body) = sealed[..length].split_at_checked(HEAD_BYTES)?;
        let (id, nonce) = head.split_at(KEY_ID_BYTES);
        for (position, key) in self.keys.iter().enumerate().filter(|(_, key)| key.id == *id) {
            let work = buffer.0.get_mut(..body.len())?;
            work.copy_from_slice(body);
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            if let Ok(plain) = key.aead.open_in_place(nonce, Aad::from(purpose), work) {
                let length = plain.len();
                return Some(Opened { plain: &buffer.0[..length], is_newest_key: position == 0 });
            }
        }
        None
    }
}

/// Whether a text has the length of a sealed value; the rest is not worth decoding.
pub(super) fn could_be_sealed(text: &[u8]) -> bool {
    (TEXT_MIN..=TEXT_MAX).contains(&text.len())
}

/// Where a value is opened: room for ciphertext and tag.
pub(super) struct Buffer([u8; PLAIN_BYTES_MAX + TAG_BYTES]);

impl Buffer {
    pub(super) fn new() -> Self {
        Self([0; PLAIN_BYTES_MAX + TAG_BYTES])
    }
}

/// What was inside.
pub(super) struct Opened<'a> {
    pub(super) plain: &'a [u8],
    /// Sealed by the key that seals now.
    pub(super) is_newest_key: bool,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut digest = Context::new(&SHA256);
        digest.update(b"bowline affinity key id\0");
        digest.update(bytes);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest.finish().as_ref()[..KEY_ID_BYTES]);
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("a key opens because AES-256 takes any 32 bytes");
        Self { id, aead: LessSafeKey::new(key) }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.keys.len()).finish()
    }
}

fn key_bytes(line: usize, text: &str) -> Result<[u8; KEY_BYTES], KeyRingError> {
    let is_url_safe = text.bytes().any(|b| b == b'-' || b == b'_');
    let alphabet: &GeneralPurpose = if is_url_safe { &URL_SAFE } else { &STANDARD };
    // Padding is optional in a key file: tools differ.
    let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    let bytes = alphabet.decode(padded).map_err(|_| KeyRingError::NotBase64 { line })?;
    let key: [u8; KEY_BYTES] =
        bytes.try_into().map_err(|b: Vec<u8>| KeyRingError::WrongLength { line, bytes: b.len() })?;
    if key.iter().all(|b| *b == key[0]) {
        return Err(KeyRingError::NotRandom { line });
    }
    Ok(key)
}

/// Longest text that can be sealed, in bytes.
pub(super) const PLAIN_BYTES_MAX: usize = 72;
/// Random bytes for one sealing.
pub(super) const NONCE_BYTES: usize = NONCE_LEN;

const KEYS_MAX: usize = 16;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const TAG_BYTES: usize = MAX_TAG_LEN;
const HEAD_BYTES: usize = KEY_ID_BYTES + NONCE_BYTES;
const SEALED_BYTES_MAX: usize = HEAD_BYTES + PLAIN_BYTES_MAX + TAG_BYTES;
const TEXT_MIN: usize = (HEAD_BYTES + TAG_BYTES) * 4 / 3;
const TEXT_MAX: usize = (SEALED_BYTES_MAX * 4).div_ceil(3);
/// The decoder wants room for whole groups.
const DECODE_BYTES: usize = SEALED_BYTES_MAX + 3;
const TEXT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(byte: u8) -> String {
        let mut key = [byte; KEY_BYTES];
        key[0] = byte.wrapping_add(1);
        STANDARD.encode(key)
    }

    #[test]
    fn a_generated_file_is_a_ring_of_one_key() {
        let ring = KeyRing::parse(&KeyRing::generate(*b"0123456789abcdef0123456789abcdef")).expect("parses");
        assert_eq!(ring.keys.len(), 1);
        assert_eq!(format!("{ring:?}"), "KeyRing { keys: 1 }");
    }

    #[test]
    fn comments_blank_lines_and_either_alphabet_are_read() {
        let bare = line(7).trim_end_matches('=').to_owned();
        let url = URL_SAFE.encode([[0xfb; 31].as_slice(), &[1]].concat());
        let text = format!("# old\n\n  {}  \r\n{bare}\n\t# more\n{url}\n", line(3));
        assert_eq!(KeyRing::parse(&text).expect("parses").keys.len(), 3);
    }

    #[test]
    fn every_error_says_which_line() {
        let many = |n: u8| (1..=n).map(line).collect::<Vec<_>>().join("\n");
        assert_eq!(KeyRing::parse(&many(16)).expect("parses").keys.len(), 16);
        let cases = [
            (String::new(), KeyRingError::Empty),
            ("# only\n\n".to_owned(), KeyRingError::Empty),
            ("#".repeat(70_000), KeyRingError::TooLarge),
            (format!("#\n{}", many(17)), KeyRingError::TooMany { line: 18 }),
            (format!("{}\n!!", line(1)), KeyRingError::NotBase64 { line: 2 }),
            (format!("\n{}", STANDARD.encode([1, 2, 3])), KeyRingError::WrongLength { line: 2, bytes: 3 }),
            (STANDARD.encode([0; 32]), KeyRingError::NotRandom { line: 1 }),
            (format!("{}\n#\n{}", line(1), line(1)), KeyRingError::Repeated { line: 3, first: 1 }),
        ];
        for (text, want) in cases {
            assert_eq!(KeyRing::parse(&text).expect_err("refused"), want);
            assert!(matches!(want, KeyRingError::Empty | KeyRingError::TooLarge) || want.to_string().contains("line "));
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let old = KeyRing::parse(&line(1)).expect("parses");
        let both = KeyRing::parse(&format!("{}\n{}", line(2), line(1))).expect("parses");
        let new = KeyRing::parse(&line(2)).expect("parses");
        let by_old = old.seal(b"x", b"p", [0; 12]).expect("fits");
        let by_both = both.seal(b"x", b"p", [1; 12]).expect("fits");
        let mut buffer = Buffer::new();
        assert!(both.open(by_old.as_bytes(), b"p", &mut buffer).is_some_and(|o| o.plain == b"x" && !o.is_newest_key));
        assert!(new.open(by_both.as_bytes(), b"p", &mut buffer).is_some_and(|o| o.plain == b"x" && o.is_newest_key));
        assert!(new.open(by_old.as_bytes(), b"p", &mut buffer).is_none());
        assert!(old.open(by_both.as_bytes(), b"p", &mut buffer).is_none());
        assert!(both.open(by_both.as_bytes(), b"q", &mut buffer).is_none(), "sealed for something else");
    }

    #[test]
    fn lengths_are_bounded_on_both_sides() {
        let ring = KeyRing::parse(&line(1)).expect("parses");
        let mut buffer = Buffer::new();
        for length in [0, 1, 71, PLAIN_BYTES_MAX] {
            let plain = vec![b'x'; length];
            let sealed = ring.seal(&plain, b"", [9; 12]).expect("fits");
            assert!(could_be_sealed(sealed.as_bytes()), "{length}");
            assert!(ring.open(sealed.as_bytes(), b"", &mut buffer).is_some_and(|o| o.plain == plain), "{length}");
        }
        for length in [PLAIN_BYTES_MAX + 1, 1000] {
            assert!(ring.seal(&vec![0; length], b"", [9; 12]).is_none(), "{length}");
        }
        for length in 0..300 {
            assert!(ring.open(&vec![b'A'; length], b"", &mut buffer).is_none(), "{length}");
        }
    }
}
