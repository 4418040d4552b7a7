//! PACKAGES in its three forms, and the index of the Archive, from what is known of each package. Pure.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use serde_json::{Map, Value};
use sha2::Digest;

use super::rds::{self, Info};
use crate::node::download;
use crate::types::Sha256;

/// The fields of PACKAGES in their order (R's `tools:::.get_standard_repository_db_fields`). The last is of sources only.
pub const FIELDS: &[&str] = &[
    "Package",
    "Version",
    "Priority",
    "Depends",
    "Imports",
    "LinkingTo",
    "Suggests",
    "Enhances",
    "License",
    "License_is_FOSS",
    "License_restricts_use",
    "OS_type",
    "Archs",
    "MD5sum",
    "NeedsCompilation",
];

/// What the index says of one package.
#[derive(Clone, Debug)]
pub struct Entry {
    /// By field.
    pub record: Map<String, Value>,
    /// Hexadecimal.
    pub md5: String,
}

impl Entry {
    /// Of the package.
    pub fn name(&self) -> &str {
        self.record.get("Package").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A file with its digest, as it is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// The bytes.
    pub bytes: Bytes,
    /// Of these very bytes.
    pub etag: HeaderValue,
}

impl Served {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = Sha256::new(sha2::Sha256::digest(&bytes).into()).to_string();
        Self { bytes: bytes.into(), etag: download::quoted(&digest[..32]) }
    }
}

/// An index in its three forms, of one moment.
#[derive(Clone, Debug)]
pub struct Index {
    /// `PACKAGES`.
    pub text: Served,
    /// `PACKAGES.gz`.
    pub gzip: Served,
    /// `PACKAGES.rds`.
    pub rds: Served,
}

impl Index {
    /// Of these packages. `is_source`: see [`FIELDS`].
    pub fn new(entries: &[Entry], is_source: bool) -> Self {
        let fields = if is_source { FIELDS } else { &FIELDS[..FIELDS.len() - 1] };
        let mut text = String::with_capacity(entries.len() * 300);
        let mut rows = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            let mut cells = Vec::with_capacity(fields.len());
            for field in fields {
                let value = match *field {
                    "MD5sum" => Some(entry.md5.as_str()).filter(|md5| !md5.is_empty()),
                    field => entry.record.get(field).and_then(Value::as_str),
                };
                if let Some(value) = value {
                    let _ = writeln!(text, "{field}: {value}");
                }
                cells.push(value);
            }
            rows.push((cells[0].unwrap_or_default(), cells));
        }
        let rds = gzipped(&rds::matrix(fields, &rows));
        Self {
            gzip: Served::new(gzipped(text.as_bytes())),
            text: Served::new(text.into_bytes()),
            rds: Served::new(rds),
        }
    }

    /// Bytes in all.
    pub fn weight(&self) -> usize {
        self.text.bytes.len() + self.gzip.bytes.len() + self.rds.bytes.len()
    }
}

/// A file of the Archive.
#[derive(Clone, Debug)]
pub struct Archived {
    /// Whose.
    pub package: String,
    /// `pk_1.0.tar.gz`.
    pub filename: String,
    /// Bytes.
    pub size: i64,
    /// Microseconds since 1970.
    pub uploaded_at: i64,
}

/// `Meta/archive.rds`. `files`: by package.
pub fn archive(files: &[Archived]) -> Served {
    let paths: Vec<String> = files.iter().map(|file| format!("{}/{}", file.package, file.filename)).collect();
    let mut packages: Vec<(&str, Vec<Info<'_>>)> = Vec::new();
    for (file, path) in files.iter().zip(&paths) {
        let modified = file.uploaded_at as f64 / 1e6;
        let info = Info { path, size: file.size as f64, modified };
        match packages.last_mut() {
            Some((package, infos)) if *package == file.package => infos.push(info),
            _ => packages.push((&file.package, vec![info])),
        }
    }
    Served::new(gzipped(&rds::archive(&packages)))
}

/// The same bytes on every node: without a name and a time.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::default());
    // Writing into memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(record: Value) -> Entry {
        let Value::Object(record) = record else { unreachable!() };
        Entry { record, md5: "0123".into() }
    }

    #[test]
    fn the_text_is_as_r_writes_it() {
        let entries = [
            entry(
                json!({"Package": "a", "Version": "1.0", "Imports": "b (>= 1), utils", "License": "MIT + file LICENSE",
                         "NeedsCompilation": "no", "Built": "not shown"}),
            ),
            entry(json!({"Version": "2.0", "Package": "zë"})),
        ];
        let index = Index::new(&entries, true);
        insta::assert_snapshot!(std::str::from_utf8(&index.text.bytes).unwrap(), @r"
        Package: a
        Version: 1.0
        Imports: b (>= 1), utils
        License: MIT + file LICENSE
        MD5sum: 0123
        NeedsCompilation: no

        Package: zë
        Version: 2.0
        MD5sum: 0123
        ");
        assert_eq!(Index::new(&entries, true).rds.etag, index.rds.etag, "the same on every node");
        assert!(!String::from_utf8_lossy(&Index::new(&entries, false).text.bytes).contains("NeedsCompilation"));
        assert!(Index::new(&[], true).text.bytes.is_empty());
    }
}
