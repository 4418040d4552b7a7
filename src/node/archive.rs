//! Archives somebody sends: looked through before they are kept, never unpacked here. Blocks.

mod layout;
pub mod walk;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use self::layout::Placed;
use self::walk::{Broken, Entry, Kind, walk};

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
    /// Opens a zip that every program reads alike: nothing before, between or behind, no two entries of one name, each entry
    /// called and as long as the directory has it, nothing encrypted, no links or devices, nothing outside.
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
        let (mut seen, mut names, mut placed, mut unpacked) = (HashSet::new(), Vec::new(), Vec::new(), 0_u64);
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(|e| broken(&e))?;
            let name = entry.name().map_err(|e| broken(&e))?.into_owned();
            let is_plain = entry.unix_mode().is_none_or(|mode| matches!(mode & 0o170_000, 0 | 0o100_000 | 0o040_000));
            if !is_inside(&name) || !is_plain {
                return Err(format!("Invalid archive: the entry {name:?} does not stay inside"));
            }
            if entry.encrypted() {
                return Err(format!("Invalid archive: the entry {name:?} is encrypted"));
            }
            placed.push(Placed {
                start: entry.header_start(),
                listed_at: entry.central_header_start(),
                packed: entry.compressed_size(),
                name: entry.name_raw().to_vec(),
            });
            unpacked = unpacked.saturating_add(entry.size());
            drop(entry);
            if !seen.insert(name.to_lowercase()) {
                return Err(format!("Invalid archive: two entries are named {name:?}"));
            }
            names.push(name);
        }
        if unpacked > ZIP_UNPACKED_MAX {
            return Err("Invalid archive: it unpacks to more than 64 GiB".into());
        }
        layout::check(&mut raw, archive.central_directory_start(), placed)?;
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
    /// Looks through a gzipped tarball, whole, and nothing is behind it: every entry and every link stays inside, there are no devices.
    ///
    /// `wanted`: of which entries the bytes are read, at most `bytes_max` each.
    ///
    /// # Errors
    /// One sentence for whoever sends it.
    pub fn look(file: File, wanted: impl Fn(&str) -> bool, bytes_max: u64) -> Result<Self, String> {
        let wrong = |e: io::Error| format!("Invalid archive: not a .tar.gz: {e}");
        let mut found = Self { names: Vec::new(), read: Vec::new() };
        let mut links = Links::default();
        let reader = Limited { inner: MultiGzDecoder::new(file), left: TAR_UNPACKED_MAX };
        let walked = walk(reader, |Entry { name, kind, .. }, bytes| {
            if found.names.len() >= ENTRIES_MAX {
                return Err(format!("Invalid archive: more than {ENTRIES_MAX} entries"));
            }
            let plain = plain(name);
            if plain.is_empty() && *kind == Kind::Folder && !name.starts_with('/') {
                return Ok(());
            }
            if plain.is_empty() || !is_inside(name) || *kind == Kind::Strange {
                return Err(format!("Invalid archive: the entry {name:?} does not stay inside"));
            }
            let folder = plain.rsplit_once('/').map_or("", |(folder, _)| folder);
            // A hard link counts from the archive's top, a symbolic one from its own folder.
            let stays = match kind {
                Kind::Symbolic(target) => stays(folder, target),
                Kind::Hard(target) => is_inside(target),
                _ => true,
            };
            if !stays {
                return Err(format!("Invalid archive: the link {name:?} leads outside"));
            }
            if wanted(&plain) {
                if found.read.iter().any(|(read, _)| *read == plain) {
                    return Err(format!("Invalid archive: two entries are named {name:?}"));
                }
                if *kind != Kind::File {
                    return Err(format!("Invalid archive: the entry {name:?} is no file"));
                }
                found.read.push((plain.clone(), bounded(bytes, name, bytes_max)?));
            }
            links.add(plain, kind);
            found.names.push(name.clone());
            Ok(())
        });
        let mut rest = walked.map_err(|broken| match broken {
            Broken::Read(error) => wrong(error),
            Broken::Refused(why) => why,
        })?;
        // Some programs go on behind the mark of the end, and all but the first gzip may begin there.
        let mut block = [0; 8192];
        loop {
            match rest.read(&mut block).map_err(wrong)? {
                0 => break,
                n if block[..n].iter().any(|byte| *byte != 0) => {
                    return Err("Invalid archive: there are bytes behind the end of the tarball".into());
                }
                _ => {}
            }
        }
        links.check()?;
        Ok(found)
    }
}

/// What of a tarball is a symbolic link, and what is not: an entry below a link is elsewhere than its name says, and a link
/// there leads elsewhere than it seems to.
#[derive(Default)]
struct Links {
    symbolic: Vec<String>,
    /// Everything, and where hard links lead.
    paths: Vec<String>,
}

impl Links {
    fn add(&mut self, path: String, kind: &Kind) {
        match kind {
            Kind::Symbolic(_) => self.symbolic.push(path.clone()),
            // It would be this link, in another folder.
            Kind::Hard(target) => self.paths.push(format!("{}/", plain(target))),
            _ => {}
        }
        self.paths.push(path);
    }

    fn check(mut self) -> Result<(), String> {
        self.paths.sort_unstable();
        for link in self.symbolic {
            let below = format!("{link}/");
            let next = self.paths.partition_point(|path| *path < below);
            if self.paths.get(next).is_some_and(|path| path.starts_with(&below)) {
                return Err(format!(
                    "Invalid archive: an entry is below the link {link:?}, or a hard link leads there"
                ));
            }
        }
        Ok(())
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

/// A path without what leads nowhere.
fn plain(path: &str) -> String {
    path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect::<Vec<_>>().join("/")
}

/// Whether a relative link from a folder stays below the archive's top on all of its way. Up and then down: what is down there
/// may be a link, above which is somewhere else.
fn stays(folder: &str, target: &str) -> bool {
    if target.starts_with('/') || target.contains(['\\', '\0']) {
        return false;
    }
    let folders = folder.split('/').filter(|segment| !segment.is_empty()).count();
    let way = plain(target);
    let up = way.split('/').take_while(|segment| *segment == "..").count();
    up <= folders && !way.split('/').skip(up).any(|segment| segment == "..")
}

#[cfg(test)]
mod tests;
