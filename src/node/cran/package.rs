//! What must be true of an R package before it is taken, and what its index says of it. Blocks.

use std::fs::File;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::description::Description;
use super::index::FIELDS;
use super::name;
use crate::node::archive::{Tar, Zip};

/// Bytes of a DESCRIPTION.
const DESCRIPTION_MAX: u64 = 1 << 20;

/// A package that may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// As it calls itself.
    pub name: String,
    /// As it calls itself.
    pub version: String,
    /// Where in the tree: `""` for sources, else as `binary_location` says.
    pub location: String,
    /// The file of its DESCRIPTION, byte for byte.
    pub description: Vec<u8>,
    /// What PACKAGES says of it, by field; digest and the like are added there.
    pub record: Value,
}

/// Looks into a package.
///
/// `distribution`: for which Linux a binary was made, `bookworm`.
///
/// # Errors
/// One sentence for whoever sends it.
pub fn inspect(path: &Path, filename: &str, distribution: Option<&str>) -> Result<Package, String> {
    let Some((package, version, ending)) = name::split(filename) else {
        return Err(format!("Invalid filename: {filename:?} is not PACKAGE_VERSION.tar.gz, .tgz or .zip"));
    };
    let file = File::open(path).map_err(|e| format!("The file cannot be read back: {e}"))?;
    let wanted = format!("{package}/DESCRIPTION");
    let (names, description) = if ending == ".zip" {
        let mut archive = Zip::open(file)?;
        if !archive.names().contains(&wanted) {
            return Err(no_description(&wanted));
        }
        let description = archive.read(&wanted, DESCRIPTION_MAX)?;
        (archive.names().to_vec(), description)
    } else {
        let mut found = Tar::look(file, |name| name == wanted, DESCRIPTION_MAX)?;
        let (_, description) = found.read.pop().ok_or_else(|| no_description(&wanted))?;
        (found.names, description)
    };
    let read = Description::parse(&description)?;
    let says = |field: &str| read.get(field).unwrap_or_default();
    if says("Package") != package || says("Version") != version {
        return Err(format!(
            "DESCRIPTION is of {} {}, the filename says {package} {version}",
            says("Package"),
            says("Version")
        ));
    }
    let location = match (read.get("Built"), ending) {
        (None, ".tar.gz") if distribution.is_none() => String::new(),
        (None, ".tar.gz") => {
            return Err("It is a source package (no `Built` in DESCRIPTION), for every distribution".into());
        }
        (None, _) => return Err(format!("A {ending} is a binary package, and its DESCRIPTION has no `Built`")),
        (Some(built), _) => binary_location(built, ending, distribution)?,
    };
    let mut record = Map::new();
    for field in FIELDS {
        if let Some(value) = read.get(field) {
            record.insert((*field).to_owned(), json!(value));
        }
    }
    if location.is_empty() && !record.contains_key("NeedsCompilation") {
        let has_code = names.iter().any(|name| name.starts_with(&format!("{package}/src/")));
        record.insert("NeedsCompilation".into(), json!(if has_code { "yes" } else { "no" }));
    }
    if let Some(built) = read.get("Built") {
        record.insert("Built".into(), json!(built));
    }
    let (name, version) = (package.to_owned(), version.to_owned());
    Ok(Package { name, version, location, description, record: Value::Object(record) })
}

fn no_description(wanted: &str) -> String {
    format!("Invalid R package: it has no {wanted}")
}

/// Where a binary package belongs, from `Built: R 4.2.2; x86_64-pc-linux-gnu; 2026-01-01 …; unix`: `windows/4.2`,
/// `macosx/big-sur-arm64/4.2`, `linux/bookworm/4.2/x86_64`, or `…/any` where nothing was compiled.
fn binary_location(built: &str, ending: &str, distribution: Option<&str>) -> Result<String, String> {
    let mut parts = built.split(';').map(str::trim);
    let (r, platform) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let numbers: Vec<&str> = r.strip_prefix("R ").unwrap_or_default().split('.').collect();
    let is_number = |text: &&str| !text.is_empty() && text.len() < 4 && text.bytes().all(|b| b.is_ascii_digit());
    let [major, minor, ..] = numbers.as_slice() else { return Err(not_built(built)) };
    if !is_number(major) || !is_number(minor) {
        return Err(not_built(built));
    }
    let arch = platform.split('-').next().filter(|arch| !arch.is_empty()).unwrap_or("any");
    if !arch.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(not_built(built));
    }
    match ending {
        ".zip" => Ok(format!("windows/{major}.{minor}")),
        ".tgz" => {
            // CRAN's folders: what R for macOS asks for by `contrib.url`.
            let folder = match (arch, platform.rsplit_once("darwin").map(|(_, version)| version)) {
                ("aarch64" | "arm64", _) => "macosx/big-sur-arm64/",
                (_, Some(version)) if version.starts_with("17") => "macosx/",
                (_, Some(_)) => "macosx/big-sur-x86_64/",
                (_, None) => match distribution {
                    Some(folder) if is_word(folder) => return Ok(format!("macosx/{folder}/{major}.{minor}")),
                    _ => {
                        return Err(
                            "It says not for which macOS it was built: say it, `big-sur-arm64` or the like, as \
                                    distribution"
                                .into(),
                        );
                    }
                },
            };
            Ok(format!("{folder}{major}.{minor}"))
        }
        _ => match distribution {
            Some(distribution) if is_word(distribution) => Ok(format!("linux/{distribution}/{major}.{minor}/{arch}")),
            Some(other) => Err(format!("{other:?} is no codename of a distribution")),
            None => Err("It is a binary package: say for which Linux distribution, such as `bookworm`".into()),
        },
    }
}

fn not_built(built: &str) -> String {
    format!("DESCRIPTION: `Built: {built}` does not say for which R")
}

/// A codename, as it stands in URLs.
pub fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_go_where_their_r_looks_for_them() {
        let of = |built: &str, ending: &str, distribution| binary_location(built, ending, distribution);
        let linux = "R 4.2.2; x86_64-pc-linux-gnu; 2026-01-01 00:00:00 UTC; unix";
        assert_eq!(of(linux, ".tar.gz", Some("bookworm")).unwrap(), "linux/bookworm/4.2/x86_64");
        assert_eq!(of("R 4.2.2; ; 2026-01-01; unix", ".tar.gz", Some("jammy")).unwrap(), "linux/jammy/4.2/any");
        assert_eq!(of("R 4.2.2; x86_64-w64-mingw32; d; windows", ".zip", None).unwrap(), "windows/4.2");
        assert_eq!(of("R 4.4.0; aarch64-apple-darwin20; d; unix", ".tgz", None).unwrap(), "macosx/big-sur-arm64/4.4");
        assert_eq!(of("R 4.4.0; x86_64-apple-darwin20; d; unix", ".tgz", None).unwrap(), "macosx/big-sur-x86_64/4.4");
        assert_eq!(of("R 4.2.0; x86_64-apple-darwin17.0; d; unix", ".tgz", None).unwrap(), "macosx/4.2");
        for (built, distribution) in
            [(linux, None), (linux, Some("../x")), ("4.2", Some("x")), ("R x.y.z; a", Some("x")), ("R 4", Some("x"))]
        {
            assert!(of(built, ".tar.gz", distribution).is_err(), "{built} {distribution:?}");
        }
    }
}
