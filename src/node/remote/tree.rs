//! A folder of another CRAN-like repository: its PACKAGES, in our words. Pure.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::node::cran::description::Description;
use crate::node::cran::index::FIELDS;
use crate::node::cran::name;

/// Bytes of an unpacked PACKAGES; CRAN's is below 10 MB.
const UNPACKED_MAX: u64 = 256 << 20;

/// A package somebody else has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePackage {
    /// Its name.
    pub name: String,
    /// The newest version there.
    pub version: String,
    /// Hexadecimal, where it is told.
    pub md5: Option<String>,
    /// What its index says of it, by field.
    pub record: Map<String, Value>,
}

/// Reads a `PACKAGES.gz`. Of several versions of a package the newest is taken.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &[u8], _content_type: &str, _base: &Url) -> Result<Vec<RemotePackage>, String> {
    let mut text = Vec::new();
    let unpacked = MultiGzDecoder::new(body).take(UNPACKED_MAX + 1).read_to_end(&mut text);
    unpacked.map_err(|e| format!("it is no PACKAGES.gz: {e}"))?;
    if text.len() as u64 > UNPACKED_MAX {
        return Err("it unpacks to more than 256 MiB".into());
    }
    let mut packages: Vec<RemotePackage> = Description::parse_all(&text).iter().filter_map(package).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| name::compare(&b.version, &a.version)));
    packages.dedup_by(|later, first| later.name == first.name);
    Ok(packages)
}

fn package(read: &Description) -> Option<RemotePackage> {
    let (name, version) = (read.get("Package")?, read.get("Version")?);
    // In a folder of its own, or under another name: not where this program would look for it.
    if !name::is_package(name) || !name::is_version(version) || read.get("Path").is_some() || read.get("File").is_some()
    {
        return None;
    }
    let is_md5 = |text: &&str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let fields = FIELDS.iter().filter(|field| **field != "MD5sum");
    let record = fields.filter_map(|field| Some(((*field).to_owned(), json!(read.get(field)?)))).collect();
    Some(RemotePackage {
        name: name.to_owned(),
        version: version.to_owned(),
        md5: read.get("MD5sum").filter(is_md5).map(str::to_owned),
        record,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_newest_of_each_package_is_read_and_what_is_none_left_out() {
        let text = "Package: b\nVersion: 1.0\n\nPackage: bb\nVersion: 1.9\nMD5sum: 0123456789abcdef0123456789abcdef\n\
                    Imports: a,\n  utils\n\nPackage: bb\nVersion: 1.10\n\nno record\n\nPackage: cc\nVersion: 1.0\nPath: sub\n";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let url: Url = "https://x.example/".parse().unwrap();
        let all = read(&gz.finish().unwrap(), "", &url).unwrap();
        let seen: Vec<_> = all.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
        assert_eq!(seen, [("bb", "1.10")], "a name has two letters at least");
        assert!(read(b"no gzip", "", &url).is_err());
    }
}
