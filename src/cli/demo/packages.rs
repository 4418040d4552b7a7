//! The demo's own packages: two for Python and two for R, of each the second needs the first.
//!
//! They are made in memory, the same bytes at every start: a repository never gives a name to other bytes, and a folder
//! from an earlier demo has them already.

use std::io::{self, Cursor, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{DateTime, ZipWriter};

/// A file to upload.
pub(super) struct File {
    /// Of its package.
    pub(super) project: &'static str,
    /// As uploads call it: `bdist_wheel`, `sdist`; nobody asks of R's.
    pub(super) kind: &'static str,
    /// What package and version are read from.
    pub(super) name: String,
    /// All of it.
    pub(super) bytes: Vec<u8>,
}

/// Of all of them. Whoever changes what is in them gives them another one.
pub(super) const VERSION: &str = "1.0";
/// What to install: each brings another one along.
pub(super) const PYTHON: &str = "bowline-hello";
/// As [`PYTHON`].
pub(super) const R: &str = "bowlinehello";
/// Some day in 2026, for archives that want to know.
const MADE: u64 = 1_767_225_600;

/// A package in the making.
struct Package {
    name: &'static str,
    summary: &'static str,
    needs: Option<&'static str>,
    code: &'static str,
}

const FOR_PYTHON: [Package; 2] = [
    Package {
        name: "bowline-words",
        summary: "Words for bowline-hello",
        needs: None,
        code: "\"\"\"Words for bowline-hello.\"\"\"\n\nGREETING = \"Ahoy\"\n",
    },
    Package {
        name: PYTHON,
        summary: "Says hello from a repository of your own",
        needs: Some("bowline-words"),
        code: r#""""Says hello from a repository of your own."""

from bowline_words import GREETING


def hello(name="you"):
    """A greeting."""
    return f"{GREETING}, {name}: this came from your own PyPI."


if __name__ == "__main__":
    print(hello())
"#,
    },
];

const FOR_R: [Package; 2] = [
    Package {
        name: "bowlinewords",
        summary: "Words for 'bowlinehello'",
        needs: None,
        code: "greeting <- function() \"Ahoy\"\n",
    },
    Package {
        name: R,
        summary: "Says Hello from a Repository of Your Own",
        needs: Some("bowlinewords"),
        code: "hello <- function(name = \"you\")\n    \
               paste0(bowlinewords::greeting(), \", \", name, \": this came from your own CRAN.\")\n",
    },
];

/// Wheels and source distributions.
///
/// # Errors
/// Never in practice: nothing but memory is written to.
pub(super) fn python() -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for package in &FOR_PYTHON {
        let module = package.name.replace('-', "_");
        let (project, name) = (package.name, format!("{module}-{VERSION}-py3-none-any.whl"));
        files.push(File { project, kind: "bdist_wheel", name, bytes: wheel(package, &module)? });
        let (name, top) = (format!("{module}-{VERSION}.tar.gz"), format!("{module}-{VERSION}"));
        let build = format!(
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\n[project]\n\
             name = \"{project}\"\nversion = \"{VERSION}\"\ndescription = \"{}\"\nrequires-python = \">=3.8\"\n\
             dependencies = [{}]\n\n[tool.setuptools]\npy-modules = [\"{module}\"]\n",
            package.summary,
            package.needs.map(|needs| format!("\"{needs}\"")).unwrap_or_default(),
        );
        let entries = [
            (format!("{top}/PKG-INFO"), metadata(package)),
            (format!("{top}/pyproject.toml"), build),
            (format!("{top}/{module}.py"), package.code.to_owned()),
        ];
        files.push(File { project, kind: "sdist", name, bytes: tarball(&entries)? });
    }
    Ok(files)
}

/// Source packages.
///
/// # Errors
/// As [`python`].
pub(super) fn r() -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for package in &FOR_R {
        let name = package.name;
        let imports = package.needs.map(|needs| format!("Imports: {needs}\n")).unwrap_or_default();
        let description = format!(
            "Package: {name}\nVersion: {VERSION}\nTitle: {}\nDescription: Part of the demonstration of Bowline.\n\
             Author: Bowline\nMaintainer: Bowline <demo@localhost>\nLicense: MIT\n{imports}Encoding: UTF-8\n\
             NeedsCompilation: no\nPackaged: 2026-01-01 00:00:00 UTC; bowline\n",
            package.summary
        );
        let entries = [
            (format!("{name}/DESCRIPTION"), description),
            (format!("{name}/NAMESPACE"), "exportPattern(\"^[a-z]\")\n".to_owned()),
            (format!("{name}/R/{name}.R"), package.code.to_owned()),
        ];
        let file = format!("{name}_{VERSION}.tar.gz");
        files.push(File { project: name, kind: "source", name: file, bytes: tarball(&entries)? });
    }
    Ok(files)
}

/// Core metadata (PEP 566).
fn metadata(package: &Package) -> String {
    let needs = package.needs.map(|needs| format!("Requires-Dist: {needs}\n")).unwrap_or_default();
    let (name, summary) = (package.name, package.summary);
    format!(
        "Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\nSummary: {summary}\nRequires-Python: >=3.8\n{needs}"
    )
}

/// A wheel, by the binary distribution format (PEP 427).
fn wheel(package: &Package, module: &str) -> io::Result<Vec<u8>> {
    let info = format!("{module}-{VERSION}.dist-info");
    let about = "Wheel-Version: 1.0\nGenerator: bowline\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned();
    let mut entries = vec![
        (format!("{module}.py"), package.code.to_owned()),
        (format!("{info}/METADATA"), metadata(package)),
        (format!("{info}/WHEEL"), about),
    ];
    let mut record = String::new();
    for (path, text) in &entries {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(text));
        record += &format!("{path},sha256={digest},{}\n", text.len());
    }
    record += &format!("{info}/RECORD,,\n");
    entries.push((format!("{info}/RECORD"), record));
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().last_modified_time(DateTime::default()).unix_permissions(0o644);
    for (path, text) in entries {
        archive.start_file(path, options)?;
        archive.write_all(text.as_bytes())?;
    }
    Ok(archive.finish()?.into_inner())
}

fn tarball(entries: &[(String, String)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, text) in entries {
        let mut header = tar::Header::new_ustar();
        // Said in as many words, because R reads no file of no type.
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(MADE);
        archive.append_data(&mut header, path, text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of them, by digest.
    fn digests() -> Vec<(String, String)> {
        let all = python().unwrap().into_iter().chain(r().unwrap());
        let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().fold(String::new(), |out, b| format!("{out}{b:02x}"));
        all.map(|file| (file.name, hex(&file.bytes))).collect()
    }

    #[test]
    fn they_are_the_same_bytes_at_every_start() {
        let names: Vec<_> = digests().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "bowline_words-1.0-py3-none-any.whl",
                "bowline_words-1.0.tar.gz",
                "bowline_hello-1.0-py3-none-any.whl",
                "bowline_hello-1.0.tar.gz",
                "bowlinewords_1.0.tar.gz",
                "bowlinehello_1.0.tar.gz",
            ]
        );
        assert_eq!(digests(), digests());
        for file in python().unwrap().into_iter().chain(r().unwrap()).filter(|file| file.name.ends_with(".tar.gz")) {
            let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&*file.bytes));
            let times: Vec<u64> =
                tar.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap()).collect();
            assert!(times.iter().all(|time| *time == MADE), "{}: {times:?}", file.name);
            assert_eq!(file.bytes[4..8], [0; 4], "gzip's own time");
        }
    }

    #[test]
    fn the_second_needs_the_first() {
        for [first, second] in [&FOR_PYTHON, &FOR_R] {
            assert_eq!((first.needs, second.needs), (None, Some(first.name)));
        }
        assert!(metadata(&FOR_PYTHON[1]).ends_with("Requires-Dist: bowline-words\n"));
    }
}
