//! How the bytes of a zip lie (APPNOTE 4.3): entry after entry, then the directory, then the end. Who reads from the front
//! must find what who reads from the back finds, so nothing may lie between and nothing be told twice differently.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// An entry as the directory has it.
pub(super) struct Placed {
    /// Where its own header is.
    pub(super) start: u64,
    /// Where its header in the directory is.
    pub(super) listed_at: u64,
    /// Bytes it takes.
    pub(super) packed: u64,
    /// Byte for byte.
    pub(super) name: Vec<u8>,
}

/// Whether every byte belongs to an entry, to the directory or to its end, and each entry's own header agrees.
///
/// # Errors
/// One sentence for whoever sends it.
pub(super) fn check(file: &mut File, directory: u64, mut placed: Vec<Placed>) -> Result<(), String> {
    let broken = |e: io::Error| format!("Invalid archive: not a zip file: {e}");
    let hidden = || "Invalid archive: there are bytes in the zip that belong to no entry".to_owned();
    placed.sort_by_key(|entry| entry.start);
    let mut at = 0;
    for (index, entry) in placed.iter().enumerate() {
        let next = placed.get(index + 1).map_or(directory, |next| next.start);
        if entry.start != at {
            return Err(hidden());
        }
        let own = Own::read(file, entry).map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.name);
        if own.name != entry.name {
            return Err(format!("Invalid archive: the entry {name:?} has another name in its own header"));
        }
        if !own.agrees(entry) {
            return Err(format!("Invalid archive: the entry {name:?} has another size or method in its own header"));
        }
        let end = own.data.checked_add(entry.packed).ok_or_else(hidden)?;
        let behind = next.checked_sub(end).ok_or_else(hidden)?;
        if behind > 0 && !(own.is_streamed && is_descriptor(file, end, behind, entry.packed).map_err(broken)?) {
            return Err(hidden());
        }
        at = next;
    }
    placed.sort_by_key(|entry| entry.listed_at);
    let mut at = directory;
    for entry in &placed {
        let header: [u8; 46] = read(file, at).map_err(broken)?;
        if entry.listed_at != at || header[..4] != *b"PK\x01\x02" {
            return Err(hidden());
        }
        at += 46 + [28, 30, 32].map(|field| u64::from(word(&header, field))).iter().sum::<u64>();
    }
    if ends(file, directory, at, placed.len() as u64).map_err(broken)? { Ok(()) } else { Err(hidden()) }
}

/// What an entry's own header says (4.3.7).
struct Own {
    name: Vec<u8>,
    /// How it is packed: here, and in the directory.
    methods: [u16; 2],
    /// Its size was not known when the header was written: a descriptor follows the bytes.
    is_streamed: bool,
    packed: u64,
    /// Where its bytes begin.
    data: u64,
}

impl Own {
    fn read(file: &mut File, entry: &Placed) -> io::Result<Self> {
        let listed: [u8; 46] = read(file, entry.listed_at)?;
        let header: [u8; 30] = read(file, entry.start)?;
        if header[..4] != *b"PK\x03\x04" {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has no header of its own"));
        }
        let mut name = vec![0; usize::from(word(&header, 26))];
        file.read_exact(&mut name)?;
        let mut extra = vec![0; usize::from(word(&header, 28))];
        file.read_exact(&mut extra)?;
        let packed = match long(&header, 18) {
            u32::MAX => large(&extra).unwrap_or(u64::from(u32::MAX)),
            packed => u64::from(packed),
        };
        Ok(Self {
            methods: [word(&header, 8), word(&listed, 10)],
            is_streamed: word(&header, 6) & 8 != 0,
            packed,
            data: entry.start + 30 + (name.len() + extra.len()) as u64,
            name,
        })
    }

    fn agrees(&self, entry: &Placed) -> bool {
        self.methods[0] == self.methods[1] && (self.packed == entry.packed || (self.is_streamed && self.packed == 0))
    }
}

/// The packed size in the extra field of large entries (4.5.3).
fn large(extra: &[u8]) -> Option<u64> {
    let mut rest = extra;
    while rest.len() >= 4 {
        let (field, length) = (word(rest, 0), usize::from(word(rest, 2)));
        let value = rest.get(4..4 + length)?;
        if field == 1 {
            return value.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        }
        rest = &rest[4 + length..];
    }
    None
}

/// Whether these bytes behind an entry are its data descriptor (4.3.9): with or without signature, with short or long sizes.
fn is_descriptor(file: &mut File, at: u64, length: u64, packed: u64) -> io::Result<bool> {
    let (signature, is_long) = match length {
        12 => (0, false),
        16 => (4, false),
        20 => (0, true),
        24 => (4, true),
        _ => return Ok(false),
    };
    let start: [u8; 16] = read(file, at)?;
    if signature == 4 && start[..4] != *b"PK\x07\x08" {
        return Ok(false);
    }
    let size = at + signature + 4;
    Ok(packed
        == if is_long {
            u64::from_le_bytes(read(file, size)?)
        } else {
            u64::from(long(&start, signature as usize + 4))
        })
}

/// Whether the file ends as it must behind its directory (4.3.14 to 4.3.16), and says so of it.
fn ends(file: &mut File, directory: u64, end: u64, count: u64) -> io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(last) = length.checked_sub(22) else { return Ok(false) };
    let record: [u8; 22] = read(file, last)?;
    if record[..4] != *b"PK\x05\x06" || word(&record, 20) != 0 {
        return Ok(false);
    }
    let told = [u64::from(word(&record, 10)), u64::from(long(&record, 12)), u64::from(long(&record, 16))];
    let is = [count, end - directory, directory];
    if end == last {
        return Ok(told == is);
    }
    if end + 76 != last {
        return Ok(false);
    }
    // A large one has a record of its own, and where that is.
    let (record, locator): ([u8; 56], [u8; 20]) = (read(file, end)?, read(file, end + 56)?);
    let unknown = [u64::from(u16::MAX), u64::from(u32::MAX), u64::from(u32::MAX)];
    let large = [longer(&record, 32), longer(&record, 40), longer(&record, 48)];
    Ok(record[..4] == *b"PK\x06\x06"
        && locator[..4] == *b"PK\x06\x07"
        && longer(&locator, 8) == end
        && large == is
        && (0..3).all(|i| told[i] == is[i] || told[i] == unknown[i]))
}

fn read<const N: usize>(file: &mut File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

fn longer(bytes: &[u8], at: usize) -> u64 {
    u64::from(long(bytes, at)) | u64::from(long(bytes, at + 4)) << 32
}
