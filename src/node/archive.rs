//! Archives somebody sends: looked through before they are kept, never unpacked here. Blocks.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::GzDecoder;

/// Entries of an archive.
const ENTRIES_MAX: usize = 100_000;
/// Bytes the entries of a zip may say they unpack to. They are not unpacked here.
const ZIP_UNPACKED_MAX: u64 = 64 << 30;
/// Bytes a tarball may unpack to: to look through it is to unpack it.
const TAR_UNPACKED_MAX: u64 = 8 << 30;

/// A zip that has been looked through.
pub struct Zip {
    archive: zip::ZipArchive<File>,
    names: Vec<String>,
}

impl Zip {
    /// Opens a zip that every program reads alike: nothing before, between or behind, no two entries of one name, the name
    /// at each entry that of the directory, nothing encrypted, no links, nothing outside.
    ///
    /// # Errors
    /// One sentence for whoever sends it.
    pub fn open(file: File) -> Result<Self, String> {
        let broken = |e: &dyn std::fmt::Display| format!("Invalid archive: not a zip file: {e}");
        let mut raw = file.try_clone().map_err(|e| broken(&e))?;
        let mut archive = zip::ZipArchive::new(file).map_err(|e| broken(&e))?;
        if archive.len() > ENTRIES_MAX {
            return Err(format!("Invalid archive: more than {ENTRIES_MAX} entries"));
        }
        if archive.offset() != 0 || !archive.comment().is_empty() {
            return Err("Invalid archive: there are bytes before or behind the zip".into());
        }
        let (mut seen, mut names, mut unpacked) = (HashSet::new(), Vec::new(), 0_u64);
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(|e| broken(&e))?;
            let name = entry.name().map_err(|e| broken(&e))?.into_owned();
            if !is_inside(&name) || entry.is_symlink() {
                return Err(format!("Invalid archive: the entry {name:?} does not stay inside"));
            }
            if entry.encrypted() {
                return Err(format!("Invalid archive: the entry {name:?} is encrypted"));
            }
            let (start, raw_name) = (entry.header_start(), entry.name_raw().to_vec());
            unpacked = unpacked.saturating_add(entry.size());
            drop(entry);
            // Who reads from the front must find what who reads from the back finds.
            if local_name(&mut raw, start).map_err(|e| broken(&e))? != raw_name {
                return Err(format!("Invalid archive: the entry {name:?} has another name in its own header"));
            }
            if !seen.insert(name.to_lowercase()) {
                return Err(format!("Invalid archive: two entries are named {name:?}"));
            }
            names.push(name);
        }
        if unpacked > ZIP_UNPACKED_MAX {
            return Err("Invalid archive: it unpacks to more than 64 GiB".into());
        }
        Ok(Self { archive, names })
    }

    /// The names of all entries.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Bytes of one entry.
    ///
    /// # Errors
    /// There is none, it is broken, or longer than `bytes_max`.
    pub fn read(&mut self, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
        let entry = self.archive.by_name(name).map_err(|e| format!("Invalid archive: {name}: {e}"))?;
        bounded(entry, name, bytes_max)
    }
}

/// The name in the header at an entry itself (APPNOTE 4.3.7).
fn local_name(file: &mut File, start: u64) -> io::Result<Vec<u8>> {
    let mut header = [0; 30];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut header)?;
    if header[..4] != *b"PK\x03\x04" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has no header of its own"));
    }
    let mut name = vec![0; usize::from(u16::from_le_bytes([header[26], header[27]]))];
    file.read_exact(&mut name)?;
    Ok(name)
}

/// The header may lie about a size; what is read is bounded.
fn bounded(entry: impl Read, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    entry.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|e| format!("Invalid archive: {name}: {e}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("Invalid archive: {name} is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// What a tarball has, found by names.
pub struct Tar {
    /// The names of all entries.
    pub names: Vec<String>,
    /// The bytes of those that were wanted.
    pub read: Vec<(String, Vec<u8>)>,
}

impl Tar {
    /// Looks through a gzipped tarball, whole: every entry and every link stays inside, there are no devices.
    ///
    /// `wanted`: of which entries the bytes are read, at most `bytes_max` each.
    ///
    /// # Errors
    /// One sentence for whoever sends it.
    pub fn look(file: File, wanted: impl Fn(&str) -> bool, bytes_max: u64) -> Result<Self, String> {
        let mut archive = tar::Archive::new(Limited { inner: GzDecoder::new(file), left: TAR_UNPACKED_MAX });
        let wrong = |e: io::Error| format!("Invalid archive: not a .tar.gz: {e}");
        let mut found = Self { names: Vec::new(), read: Vec::new() };
        for entry in archive.entries().map_err(wrong)? {
            let mut entry = entry.map_err(wrong)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            if found.names.len() >= ENTRIES_MAX {
                return Err(format!("Invalid archive: more than {ENTRIES_MAX} entries"));
            }
            let kind = entry.header().entry_type();
            if kind.is_pax_global_extensions() || name.is_empty() {
                continue;
            }
            if !is_inside(&name) || kind.is_block_special() || kind.is_character_special() || kind.is_fifo() {
                return Err(format!("Invalid archive: the entry {name:?} does not stay inside"));
            }
            if let Some(target) = entry.link_name_bytes() {
                let target = String::from_utf8_lossy(&target).into_owned();
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                // A hard link counts from the archive's top, a symbolic one from its own folder.
                let is_fine = if kind.is_hard_link() { is_inside(&target) } else { stays(folder, &target) };
                if !is_fine {
                    return Err(format!("Invalid archive: the link {name:?} leads outside"));
                }
            }
            if kind.is_file() && wanted(&name) {
                if found.read.iter().any(|(read, _)| *read == name) {
                    return Err(format!("Invalid archive: two entries are named {name:?}"));
                }
                let bytes = bounded(&mut entry, &name, bytes_max)?;
                found.read.push((name.clone(), bytes));
            }
            found.names.push(name);
        }
        Ok(found)
    }
}

/// Ends with an error, so that no archive is taken for a shorter one.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other("it unpacks to more than 8 GiB"))?;
        Ok(n)
    }
}

/// A relative path without `..`.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains(['\\', '\0'])
        && !path.split('/').any(|segment| segment == "..")
}

/// Whether a relative link from a folder stays below the archive's top on all of its way.
fn stays(folder: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = folder.split('/').filter(|s| !s.is_empty() && *s != ".").count() as i64;
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_inside_and_what_does_not() {
        assert!(is_inside("a/b") && is_inside("a..b/c"));
        for outside in ["", "/a", "a/../b", "..", "a\\b", "a\0b"] {
            assert!(!is_inside(outside), "{outside:?}");
        }
        assert!(stays("a/b", "../c") && stays("a", "b/../c") && stays("a/b", "../../c"));
        assert!(!stays("a", "../../c") && !stays("a", "/etc/passwd") && !stays("", ".."));
    }
}
