//! What must be true of a file before it is taken: its archive is sound, and says what its name says. Blocks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::metadata;
use super::name::{self, Filename, Kind};

/// Bytes of core metadata; PyPI's longest READMEs are below.
const METADATA_MAX: u64 = 4 * 1024 * 1024;
/// Entries of an archive.
const ENTRIES_MAX: usize = 100_000;
/// Bytes an archive may unpack to.
const UNPACKED_MAX: u64 = 64 << 30;

/// Looks into an archive.
///
/// The core metadata of a wheel, byte for byte; `None` for a source distribution, whose metadata may change when it is
/// built (PEP 643).
///
/// # Errors
/// One sentence for whoever uploads it.
pub fn inspect(path: &Path, named: &Filename, filename: &str) -> Result<Option<Vec<u8>>, String> {
    let file = File::open(path).map_err(|e| format!("The file cannot be read back: {e}"))?;
    match named.kind {
        Kind::Wheel => wheel(file, named).map(Some),
        Kind::Sdist if filename.ends_with(".zip") => zip_sdist(file).map(|()| None),
        Kind::Sdist => tar_sdist(file, named).map(|()| None),
    }
}

fn wheel(file: File, named: &Filename) -> Result<Vec<u8>, String> {
    let (mut archive, names) = open_zip(file)?;
    let mut info = None;
    for entry in &names {
        let Some((folder, "METADATA")) = entry.split_once('/') else { continue };
        let Some(stem) = folder.strip_suffix(".dist-info") else { continue };
        if info.replace(stem.to_owned()).is_some() {
            return Err("Invalid wheel: it has more than one .dist-info/METADATA".into());
        }
    }
    let Some(stem) = info else { return Err("Invalid wheel: it has no .dist-info/METADATA".into()) };
    let fits = stem.split_once('-').is_some_and(|(project, version)| {
        name::normal(project) == name::normal(&named.project) && same_version(version, &named.version)
    });
    if !fits {
        return Err(format!("Invalid wheel: {stem}.dist-info is of another project or version than the filename"));
    }
    for needed in ["WHEEL", "RECORD"] {
        if !names.iter().any(|n| *n == format!("{stem}.dist-info/{needed}")) {
            return Err(format!("Invalid wheel: it has no .dist-info/{needed}"));
        }
    }
    let entry = archive
        .by_name(&format!("{stem}.dist-info/METADATA"))
        .map_err(|e| format!("Invalid wheel: METADATA cannot be read: {e}"))?;
    let mut text = Vec::new();
    // The header may lie about the size; what is read is bounded.
    entry.take(METADATA_MAX + 1).read_to_end(&mut text).map_err(|e| format!("Invalid wheel: METADATA: {e}"))?;
    if text.len() as u64 > METADATA_MAX {
        return Err("Invalid wheel: METADATA is larger than 4 MiB".into());
    }
    let read = String::from_utf8_lossy(&text);
    let says = |field| metadata::field(&read, field).unwrap_or_default();
    if name::normal(says("Name")) != name::normal(&named.project) || !same_version(says("Version"), &named.version) {
        return Err("Invalid wheel: METADATA names another project or version than the filename".into());
    }
    Ok(text)
}

fn zip_sdist(file: File) -> Result<(), String> {
    let (_, names) = open_zip(file)?;
    let has_info = names.iter().any(|n| n.ends_with("/PKG-INFO") && n.matches('/').count() == 1);
    if has_info { Ok(()) } else { Err("Invalid source distribution: it has no PKG-INFO".into()) }
}

/// Opens a zip all of whose entries are plain: no two of one name, nothing outside, no links. With it their names.
fn open_zip(file: File) -> Result<(zip::ZipArchive<File>, Vec<String>), String> {
    let mut archive = zip::ZipArchive::new(file).map_err(|e| format!("Invalid archive: not a zip file: {e}"))?;
    if archive.len() > ENTRIES_MAX {
        return Err(format!("Invalid archive: more than {ENTRIES_MAX} entries"));
    }
    let (mut seen, mut names, mut unpacked) = (std::collections::HashSet::new(), Vec::new(), 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|e| format!("Invalid archive: {e}"))?;
        let name = entry.name().map_err(|e| format!("Invalid archive: {e}"))?.into_owned();
        if !is_inside(&name) || entry.is_symlink() {
            return Err(format!("Invalid archive: the entry {name:?} does not stay inside"));
        }
        unpacked = unpacked.saturating_add(entry.size());
        if !seen.insert(name.to_lowercase()) {
            return Err(format!("Invalid archive: two entries are named {name:?}"));
        }
        names.push(name);
    }
    if unpacked > UNPACKED_MAX {
        return Err("Invalid archive: it unpacks to more than 64 GiB".into());
    }
    Ok((archive, names))
}

fn tar_sdist(file: File, named: &Filename) -> Result<(), String> {
    let mut archive = tar::Archive::new(GzDecoder::new(file).take(UNPACKED_MAX));
    let wrong = |e: std::io::Error| format!("Invalid source distribution: not a .tar.gz: {e}");
    let (mut has_info, mut count) = (false, 0);
    for entry in archive.entries().map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(format!("Invalid source distribution: more than {ENTRIES_MAX} entries"));
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if !is_inside(&path) || kind.is_block_special() || kind.is_character_special() || kind.is_fifo() {
            return Err(format!("Invalid source distribution: the entry {path:?} does not stay inside"));
        }
        if let Some(target) = entry.link_name_bytes() {
            let target = String::from_utf8_lossy(&target).into_owned();
            let base = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            // A hard link counts from the archive's top, a symbolic one from its own folder.
            let is_fine = if kind.is_hard_link() { is_inside(&target) } else { stays(base, &target) };
            if !is_fine {
                return Err(format!("Invalid source distribution: the link {path:?} leads outside"));
            }
        }
        let project = path.split_once('/').and_then(|(top, rest)| (rest == "PKG-INFO").then_some(top));
        has_info |= project.is_some_and(|top| {
            top.rsplit_once('-').is_some_and(|(project, version)| {
                name::normal(project) == name::normal(&named.project) && same_version(version, &named.version)
            })
        });
    }
    if has_info { Ok(()) } else { Err("Invalid source distribution: it has no NAME-VERSION/PKG-INFO".into()) }
}

/// A relative path without `..`.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains(['\\', '\0'])
        && !path.split('/').any(|segment| segment == "..")
}

/// Whether a relative link from a folder ends below the archive's top.
fn stays(base: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = base.split('/').filter(|s| !s.is_empty() && *s != ".").count() as i64;
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

/// Whether two texts are one version (PEP 440): `1.0` and `1.0.0` are, and `-` stands for `_` in file names.
pub fn same_version(a: &str, b: &str) -> bool {
    let read = |text: &str| text.replace('_', "-").parse::<pep440_rs::Version>();
    match (read(a), read(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
