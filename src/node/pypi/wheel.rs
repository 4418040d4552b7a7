//! What must be true of a file before it is taken: its archive is sound, and says what its name says. Blocks.

use std::fs::File;
use std::path::Path;

use super::metadata;
use super::name::{self, Filename, Kind};
use crate::node::archive::{Tar, Zip};

/// Bytes of core metadata; PyPI's longest READMEs are below.
const METADATA_MAX: u64 = 4 * 1024 * 1024;

/// What is in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Core metadata, byte for byte: METADATA of a wheel, PKG-INFO of a source distribution.
    pub metadata: Vec<u8>,
}

/// Looks into an archive.
///
/// # Errors
/// One sentence for whoever uploads it.
pub fn inspect(path: &Path, named: &Filename, filename: &str) -> Result<Inspected, String> {
    let file = File::open(path).map_err(|e| format!("The file cannot be read back: {e}"))?;
    match named.kind {
        Kind::Wheel => wheel(file, named),
        Kind::Sdist if filename.ends_with(".zip") => zip_sdist(file, named),
        Kind::Sdist => tar_sdist(file, named),
    }
    .map(|metadata| Inspected { metadata })
}

fn wheel(file: File, named: &Filename) -> Result<Vec<u8>, String> {
    let mut archive = Zip::open(file)?;
    let mut info = None;
    for entry in archive.names() {
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
        if !archive.names().iter().any(|n| *n == format!("{stem}.dist-info/{needed}")) {
            return Err(format!("Invalid wheel: it has no .dist-info/{needed}"));
        }
    }
    let text = archive.read(&format!("{stem}.dist-info/METADATA"), METADATA_MAX)?;
    says_the_same(&text, named, "METADATA")?;
    Ok(text)
}

fn zip_sdist(file: File, named: &Filename) -> Result<Vec<u8>, String> {
    let mut archive = Zip::open(file)?;
    let info = archive.names().iter().find(|name| is_info(name, named)).cloned().ok_or_else(no_info)?;
    let text = archive.read(&info, METADATA_MAX)?;
    says_the_same(&text, named, "PKG-INFO")?;
    Ok(text)
}

fn tar_sdist(file: File, named: &Filename) -> Result<Vec<u8>, String> {
    let found = Tar::look(file, |name| is_info(name, named), METADATA_MAX)?;
    let (_, text) = found.read.into_iter().next().ok_or_else(no_info)?;
    says_the_same(&text, named, "PKG-INFO")?;
    Ok(text)
}

/// `NAME-VERSION/PKG-INFO`.
fn is_info(entry: &str, named: &Filename) -> bool {
    let top = entry.split_once('/').filter(|(_, rest)| *rest == "PKG-INFO").map(|(top, _)| top);
    top.and_then(|top| top.rsplit_once('-')).is_some_and(|(project, version)| {
        name::normal(project) == name::normal(&named.project) && same_version(version, &named.version)
    })
}

fn no_info() -> String {
    "Invalid source distribution: it has no NAME-VERSION/PKG-INFO".into()
}

fn says_the_same(text: &[u8], named: &Filename, what: &str) -> Result<(), String> {
    let read = String::from_utf8_lossy(text);
    let says = |field| metadata::field(&read, field).unwrap_or_default();
    if name::normal(says("Name")) != name::normal(&named.project) || !same_version(says("Version"), &named.version) {
        return Err(format!("Invalid archive: its {what} names another project or version than the filename"));
    }
    // Who reads the last of them would find another project.
    let is_twice = |field: &str| metadata::fields(&read).iter().filter(|(name, _)| name == field).count() > 1;
    if let Some(field) = ["name", "version"].into_iter().find(|field| is_twice(field)) {
        return Err(format!("Invalid archive: its {what} has the field `{field}` twice"));
    }
    Ok(())
}

/// Whether two texts are one version (PEP 440): `1.0` and `1.0.0` are, and `-` stands for `_` in file names.
pub fn same_version(a: &str, b: &str) -> bool {
    let read = |text: &str| text.replace('_', "-").parse::<pep440_rs::Version>();
    match (read(a), read(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
