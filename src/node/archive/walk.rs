//! A tarball, entry by entry, and only where every program reads the same.
//!
//! Python's `tarfile`, GNU tar and others differ in what they take for an entry's name, and where the next entry begins: what
//! is read here as a name that stays inside must be one for whoever unpacks it. Names are bounded, each and all of them.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// Bytes of a name or of a link's target; Linux has no longer paths.
const NAME_MAX: u64 = 4 << 10;
/// Bytes of all names and targets: whoever visits may keep them.
const NAMES_MAX: usize = 16 << 20;
/// Bytes of a pax header, which has names and more.
const PAX_MAX: u64 = 64 << 10;
/// What everything is a multiple of.
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes follow.
    File,
    /// A folder.
    Folder,
    /// A symbolic link to this.
    Symbolic(String),
    /// A hard link to this entry.
    Hard(String),
    /// A device, or what this program does not know.
    Strange,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without `./` at the beginning.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes that follow.
    pub size: u64,
}

/// Why it ended early.
#[derive(Debug)]
pub enum Broken {
    /// It is no tarball, or cannot be read, or not by every program alike.
    Read(io::Error),
    /// The visitor had enough.
    Refused(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Visits every entry with its bytes, in order; what is behind the end mark is in the reader that comes back.
///
/// # Errors
/// See [`Broken`].
pub fn walk<R: Read>(
    mut reader: R,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), String>,
) -> Result<R, Broken> {
    let (mut more, mut names) = (More::default(), 0);
    while let Some(header) = header(&mut reader)? {
        let size = size(&header)?;
        match header.entry_type() {
            EntryType::GNULongName => more.call(text(bounded(&mut reader, size, NAME_MAX)?))?,
            EntryType::GNULongLink => more.lead(text(bounded(&mut reader, size, NAME_MAX)?))?,
            EntryType::XHeader => more.read(&bounded(&mut reader, size, PAX_MAX)?)?,
            // Of all entries from here on: a commit's id, and nothing that says where files go.
            EntryType::XGlobalHeader => {
                let mut all = More::default();
                all.read(&bounded(&mut reader, size, PAX_MAX)?)?;
                if all.name.is_some() || all.link.is_some() || all.size.is_some() {
                    return Err(wrong("all entries have one name or length").into());
                }
            }
            _ => {
                let entry = entry(&header, size, std::mem::take(&mut more))?;
                names += entry.name.len();
                if let Kind::Symbolic(link) | Kind::Hard(link) = &entry.kind {
                    names += link.len();
                }
                if names > NAMES_MAX {
                    return Err(wrong("its names are longer than 16 MiB together").into());
                }
                let mut bytes = (&mut reader).take(size);
                visit(&entry, &mut bytes).map_err(Broken::Refused)?;
                io::copy(&mut bytes, &mut io::sink())?;
                if bytes.limit() > 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                padding(&mut reader, size)?;
            }
        }
    }
    Ok(reader)
}

/// The next header; `None` at the end mark, or where there is nothing more.
fn header(reader: impl Read) -> io::Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    reader.take(BLOCK as u64).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut header = Header::new_old();
    let block = header.as_mut_bytes();
    if bytes.len() < BLOCK {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    block.copy_from_slice(&bytes);
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    // Its own eight bytes count as blanks.
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    if sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]) != header.cksum()? {
        return Err(wrong("the checksum of a header is wrong"));
    }
    Ok(Some(header))
}

/// Bytes that follow a header.
fn size(header: &Header) -> io::Result<u64> {
    let field = &header.as_old().size;
    // A number in binary, of which the library reads the last eight bytes whatever the first four say.
    if field[0] & 0x80 != 0 && field[..4] != [0x80, 0, 0, 0] {
        return Err(wrong("a length is none"));
    }
    header.entry_size()
}

fn entry(header: &Header, size: u64, More { name, link, size: told, .. }: More) -> io::Result<Entry> {
    if told.is_some_and(|told| told != size) {
        return Err(wrong("an entry has two lengths"));
    }
    let block = header.as_bytes();
    // There old programs have the beginning of a name, GNU tar something else, and some read it as the former in any case.
    if header.as_ustar().is_none() && block[345] != 0 {
        return Err(wrong("an entry has two names"));
    }
    let name = name.unwrap_or_else(|| text(header.path_bytes().into_owned()));
    let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
    let link = || link.or_else(|| header.link_name_bytes().map(|link| text(link.into_owned()))).unwrap_or_default();
    // Old programs write folders as files whose name says so: to some the name in the header, whatever else is told.
    let is_old_folder = block[156] == 0 && text(header.as_old().name.to_vec()).ends_with('/');
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if name.ends_with('/') || is_old_folder => Kind::Folder,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Symbolic(link()),
        EntryType::Link => Kind::Hard(link()),
        _ => Kind::Strange,
    };
    // Some look for the next entry behind such bytes, and some in them.
    if size != 0 && !matches!(kind, Kind::File | Kind::Strange) {
        return Err(wrong("a folder or link has bytes"));
    }
    Ok(Entry { name, kind, size })
}

/// What stands before an entry and is said of it.
#[derive(Debug, Default)]
struct More {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    /// There was a pax header.
    is_pax: bool,
}

impl More {
    /// Of two the first holds for some programs and the last for others.
    fn call(&mut self, name: String) -> io::Result<()> {
        if name.is_empty() || self.name.replace(name).is_some() {
            return Err(wrong("an entry has two names, or none"));
        }
        Ok(())
    }

    /// As [`Self::call`].
    fn lead(&mut self, link: String) -> io::Result<()> {
        if link.is_empty() || self.link.replace(link).is_some() {
            return Err(wrong("a link has two targets, or none"));
        }
        Ok(())
    }

    /// Records of a pax header (POSIX.1-2017, pax, "Extended Header"): `LENGTH KEY=VALUE\n`, the length its own included.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let broken = || wrong("a pax header is broken");
        if std::mem::replace(&mut self.is_pax, true) {
            return Err(wrong("an entry has two pax headers"));
        }
        while !records.is_empty() {
            let blank = records.iter().take(20).position(|b| *b == b' ').ok_or_else(broken)?;
            let digits = str::from_utf8(&records[..blank]).ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
            let length: usize = digits.and_then(|n| n.parse().ok()).ok_or_else(broken)?;
            if length <= blank + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(broken());
            }
            let record = &records[blank + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or_else(broken)?;
            let value = &record[equals + 1..];
            // A NUL ends a name for some.
            let name = || {
                let is_name = value.len() as u64 <= NAME_MAX && !value.contains(&0);
                is_name.then(|| text(value.to_vec())).ok_or_else(|| wrong("a name is longer than 4 KiB, or ends twice"))
            };
            match &record[..equals] {
                b"path" => self.call(name()?)?,
                b"linkpath" => self.lead(name()?)?,
                b"size" => {
                    let size = str::from_utf8(value).ok().and_then(|n| n.parse().ok()).ok_or_else(broken)?;
                    if self.size.replace(size).is_some() {
                        return Err(wrong("an entry has two lengths"));
                    }
                }
                key if key.starts_with(b"GNU.sparse") => return Err(wrong("it has files with holes")),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// What follows a header, whole.
fn bounded(reader: &mut impl Read, size: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
    if size > bytes_max {
        return Err(wrong("a name is longer than 4 KiB, or what stands before an entry than 64"));
    }
    let mut bytes = vec![0; size as usize];
    reader.read_exact(&mut bytes)?;
    // Some read on there.
    if padding(reader, size)? { Ok(bytes) } else { Err(wrong("a name goes on behind its end")) }
}

/// Reads up to the end of a block. Whether nothing was there.
fn padding(reader: &mut impl Read, size: u64) -> io::Result<bool> {
    let mut rest = [0; BLOCK];
    let rest = &mut rest[..(BLOCK - (size % BLOCK as u64) as usize) % BLOCK];
    reader.read_exact(rest)?;
    Ok(rest.iter().all(|byte| *byte == 0))
}

/// Up to the first NUL, which ends names.
fn text(mut bytes: Vec<u8>) -> String {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        header
    }

    fn names(tar: &[u8]) -> Result<Vec<String>, Broken> {
        let mut names = Vec::new();
        walk(tar, |entry, _| {
            names.push(format!("{} {:?}", entry.name, entry.kind));
            Ok(())
        })?;
        Ok(names)
    }

    /// A tarball of these headers, each with these bytes and what fills them up to a block.
    fn tar(entries: &[(Header, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (header, bytes) in entries {
            tar.extend_from_slice(header.as_bytes());
            tar.extend_from_slice(bytes);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        tar
    }

    #[test]
    fn long_names_are_read_and_those_that_never_end_refused() {
        let pax = b"18 path=caf\xc3\xa9.txt\n10 size=0\n";
        let tar = tar(&[
            (header(EntryType::XGlobalHeader, "@", 15), b"15 comment=abc\n"),
            (header(EntryType::GNULongName, "@", 5), b"a/b\0x"),
            (header(EntryType::Regular, "cut", 2), b"hi"),
            // As R writes them.
            (header(EntryType::GNULongName, "@", 3), b"a/c"),
            (header(EntryType::GNULongLink, "@", 3), b"a/d"),
            (header(EntryType::Symlink, "dummy", 0), b""),
            (header(EntryType::XHeader, "@", pax.len() as u64), pax),
            (header(EntryType::Regular, "cut", 0), b""),
            (header(EntryType::Regular, "./old/", 0), b""),
            (header(EntryType::Char, "dev", 0), b""),
        ]);
        let all = names(&tar).unwrap();
        assert_eq!(all, ["a/b File", "a/c Symbolic(\"a/d\")", "café.txt File", "old/ Folder", "dev Strange"]);

        for (kind, size, text) in [
            (EntryType::GNULongName, 1 << 40, &b""[..]),
            (EntryType::GNULongName, NAME_MAX + 1, &[b'x'; NAME_MAX as usize + 1]),
            (EntryType::XHeader, 1 << 40, b""),
            (EntryType::XHeader, 5, b"9 a=b"),
            (EntryType::XHeader, 6, b"x a=b\n"),
            (EntryType::XHeader, 6, b"6 a b\n"),
            (EntryType::XHeader, 9, b"9 size=7\n"),
        ] {
            let tar = self::tar(&[(header(kind, "@", size), text), (header(EntryType::Regular, "x", 0), b"")]);
            assert!(matches!(names(&tar), Err(Broken::Read(_))), "{text:?}");
        }
    }

    #[test]
    fn names_that_are_too_long_together_are_refused() {
        let long = vec![b'x'; NAME_MAX as usize];
        let of = |count: usize| {
            let named = header(EntryType::GNULongName, "@", NAME_MAX);
            let one = || [(named.clone(), &long[..]), (header(EntryType::Regular, "x", 0), b"")];
            tar(&(0..count).flat_map(|_| one()).collect::<Vec<_>>())
        };
        let fits = NAMES_MAX / NAME_MAX as usize;
        assert_eq!(names(&of(fits)).unwrap().len(), fits);
        let told = names(&of(fits + 1)).unwrap_err();
        assert!(matches!(&told, Broken::Read(error) if error.to_string().contains("16 MiB together")), "{told:?}");
    }

    /// In each of them Python's `tarfile` finds `../../evil`, a file of another length, or entries in the bytes of others.
    #[test]
    fn what_programs_read_differently_is_refused() {
        use EntryType as Kind;
        let plain = || (header(Kind::Regular, "fine", 0), &b""[..]);
        let evil = || (header(Kind::Regular, "../../evil", 0), &b""[..]);
        let long = |text: &'static [u8]| (header(Kind::GNULongName, "@", text.len() as u64), text);
        let pax = |text: &'static [u8]| (header(Kind::XHeader, "@", text.len() as u64), text);
        let global = |text: &'static [u8]| (header(Kind::XGlobalHeader, "@", text.len() as u64), text);
        let inner = tar(&[evil()]);
        let holder = |kind, name| (header(kind, name, inner.len() as u64), &inner[..]);
        let changed = |change: &dyn Fn(&mut [u8])| {
            let mut header = header(Kind::Regular, "fine", 0);
            change(header.as_mut_bytes());
            header.set_cksum();
            (header, &b""[..])
        };
        let mut old = header(Kind::Regular, "fine/", inner.len() as u64);
        old.as_mut_bytes()[156] = 0;
        old.set_cksum();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("a name for all", tar(&[global(b"19 path=../../evil\n"), plain()])),
            ("a target for all", tar(&[global(b"23 linkpath=../../evil\n"), plain()])),
            ("a length for all", tar(&[global(b"9 size=0\n"), plain()])),
            ("a name of each kind", tar(&[pax(b"19 path=../../evil\n"), long(b"fine"), plain()])),
            ("the same the other way", tar(&[long(b"../../evil"), pax(b"13 path=fine\n"), plain()])),
            ("two long names", tar(&[long(b"../../evil"), long(b"fine"), plain()])),
            ("two pax headers", tar(&[pax(b"19 path=../../evil\n"), pax(b"13 path=fine\n"), plain()])),
            ("two names in one", tar(&[pax(b"19 path=../../evil\n13 path=fine\n"), plain()])),
            ("no name", tar(&[pax(b"8 path=\n"), plain()])),
            ("two targets", {
                let long = (header(Kind::GNULongLink, "@", 4), &b"evil"[..]);
                tar(&[long, pax(b"14 linkpath=x\n"), (header(Kind::Symlink, "x", 0), b"")])
            }),
            ("a name that goes on behind its length", {
                tar(&[(header(Kind::GNULongName, "@", 3), b"fine/../../../evil"), plain()])
            }),
            (
                "a pax header that does",
                tar(&[(header(Kind::XHeader, "@", 7), b"7 a=bc\n19 path=../../evil\n"), plain()]),
            ),
            ("a record whose length has a sign", tar(&[pax(b"+14 path=fine\n"), evil()])),
            ("a record of no name, where some end", tar(&[pax(b"4 =\n13 path=fine\n"), evil()])),
            ("a NUL in a name", tar(&[pax(b"25 path=fine\0/../../evil\n"), plain()])),
            ("entries in a folder", tar(&[holder(Kind::Directory, "fine")])),
            ("entries in a folder by its name", tar(&[holder(Kind::Regular, "fine/")])),
            ("entries in a folder by its other name", tar(&[long(b"fine"), (old, &inner[..])])),
            ("entries in a link", tar(&[holder(Kind::Symlink, "fine")])),
            ("entries in a hard link", tar(&[holder(Kind::Link, "fine")])),
            ("the beginning of a name where GNU tar has none", {
                tar(&[changed(&|bytes| {
                    bytes[257..265].copy_from_slice(b"ustar  \0");
                    bytes[345..347].copy_from_slice(b"..");
                })])
            }),
            (
                "a length of more than eight bytes",
                tar(&[changed(&|bytes| bytes[124..136].copy_from_slice(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"))]),
            ),
            ("a wrong checksum", [&b"x"[..], &tar(&[plain()])[1..]].concat()),
            ("less than it says", tar(&[(header(Kind::Regular, "fine", 99_999), b"")])),
            ("half a header", plain().0.as_bytes()[..300].to_vec()),
        ];
        let taken: Vec<_> = cases.iter().filter(|(_, tar)| names(tar).is_ok()).map(|(name, _)| *name).collect();
        assert_eq!(taken, [""; 0]);
    }
}
