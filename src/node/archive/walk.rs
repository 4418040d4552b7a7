//! A tarball, entry by entry. Names of any length are read within bounds here, not by a library that believes what an entry
//! says of its length.

use std::io::{self, Read};

use tar::EntryType;

/// Bytes of a name, and of what stands before an entry to say more of it.
const NAME_MAX: u64 = 64 << 10;

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
    /// It is no tarball, or cannot be read.
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
    reader: R,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), String>,
) -> Result<R, Broken> {
    let mut archive = tar::Archive::new(reader);
    let mut more = More::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let header = entry.header();
        let (kind, size) = (header.entry_type(), header.size()?);
        match kind {
            EntryType::GNULongName => {
                more.name = Some(text(bounded(&mut entry, size)?));
                continue;
            }
            EntryType::GNULongLink => {
                more.link = Some(text(bounded(&mut entry, size)?));
                continue;
            }
            EntryType::XHeader => {
                more.read(&bounded(&mut entry, size)?)?;
                continue;
            }
            // Of all entries: a commit's id, and nothing that says where files go.
            EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let More { name, link, size: told } = std::mem::take(&mut more);
        if told.is_some_and(|told| told != size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has two lengths").into());
        }
        let name = name.unwrap_or_else(|| text(header.path_bytes().into_owned()));
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        let link = || link.or_else(|| header.link_name_bytes().map(|link| text(link.into_owned()))).unwrap_or_default();
        let kind = match kind {
            // Old programs write folders as files whose name says so.
            EntryType::Regular | EntryType::Continuous if name.ends_with('/') => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symbolic(link()),
            EntryType::Link => Kind::Hard(link()),
            _ => Kind::Strange,
        };
        visit(&Entry { name, kind, size }, &mut entry).map_err(Broken::Refused)?;
    }
    Ok(archive.into_inner())
}

/// What stands before an entry and is said of it.
#[derive(Debug, Default)]
struct More {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl More {
    /// Records of a pax header (POSIX.1-2017, pax, "Extended Header"): `LENGTH KEY=VALUE\n`, the length its own included.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a pax header is broken");
        while !records.is_empty() {
            let blank = records.iter().take(20).position(|b| *b == b' ').ok_or_else(wrong)?;
            let length: usize =
                std::str::from_utf8(&records[..blank]).ok().and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
            if length <= blank + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &records[blank + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            let value = || text(record[equals + 1..].to_vec());
            match &record[..equals] {
                b"path" => self.name = Some(value()),
                b"linkpath" => self.link = Some(value()),
                b"size" => self.size = Some(value().parse().map_err(|_| wrong())?),
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it has files with holes"));
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

fn bounded(entry: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    if size > NAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a name is longer than 64 KiB"));
    }
    let mut bytes = Vec::new();
    entry.take(NAME_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Up to the first NUL, which ends names.
fn text(mut bytes: Vec<u8>) -> String {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
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

    #[test]
    fn long_names_are_read_and_those_that_never_end_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header(EntryType::GNULongName, "@", 5), &b"a/b\0x"[..]).unwrap();
        builder.append(&header(EntryType::Regular, "cut", 2), &b"hi"[..]).unwrap();
        let pax = b"18 path=caf\xc3\xa9.txt\n10 size=0\n";
        builder.append(&header(EntryType::XHeader, "@", pax.len() as u64), &pax[..]).unwrap();
        builder.append(&header(EntryType::Regular, "cut", 0), &b""[..]).unwrap();
        builder.append(&header(EntryType::Regular, "./old/", 0), &b""[..]).unwrap();
        builder.append(&header(EntryType::Char, "dev", 0), &b""[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        assert_eq!(names(&tar).unwrap(), ["a/b File", "café.txt File", "old/ Folder", "dev Strange"]);

        for (kind, size, text) in [
            (EntryType::GNULongName, 1 << 40, &b""[..]),
            (EntryType::XHeader, 1 << 40, b""),
            (EntryType::XHeader, 5, b"9 a=b"),
            (EntryType::XHeader, 6, b"x a=b\n"),
            (EntryType::XHeader, 6, b"6 a b\n"),
            (EntryType::XHeader, 9, b"9 size=7\n"),
        ] {
            let mut tar = header(kind, "@", size).as_bytes().to_vec();
            tar.extend_from_slice(text);
            tar.resize(tar.len().next_multiple_of(512), 0);
            tar.extend_from_slice(header(EntryType::Regular, "x", 0).as_bytes());
            tar.resize(tar.len() + 1024, 0);
            assert!(matches!(names(&tar), Err(Broken::Read(_))), "{text:?}");
        }
    }
}
