//! What R has on this machine: read from its folders, as R does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::node::cran::description::Description;

/// Bytes of a DESCRIPTION.
pub(super) const DESCRIPTION_MAX: u64 = 1 << 20;

/// A package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installed {
    /// Its folder.
    pub path: PathBuf,
    /// Its version.
    pub version: String,
    /// By which R, for what, and when it was built.
    pub built: String,
    /// Packages it does not work without.
    pub needs: Vec<String>,
}

/// The package of this name, in the first of these libraries that has it. Blocks.
pub(super) fn find(libraries: &[PathBuf], name: &str) -> Option<Installed> {
    libraries.iter().find_map(|library| read(library.join(name)))
}

fn read(path: PathBuf) -> Option<Installed> {
    let read = description(&path.join("DESCRIPTION"))?;
    let version = read.get("Version")?.to_owned();
    let built = read.get("Built")?.to_owned();
    Some(Installed { version, built, needs: needs(&read, false), path })
}

fn description(path: &Path) -> Option<Description> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(DESCRIPTION_MAX).read_to_end(&mut bytes).ok()?;
    Description::parse(&bytes).ok()
}

/// Packages another one does not work without, each once; to compile it, more. Pure.
pub(super) fn needs(of: &Description, is_compiled: bool) -> Vec<String> {
    let fields = if is_compiled { &["Depends", "Imports", "LinkingTo"][..] } else { &["Depends", "Imports"] };
    let all = fields.iter().filter_map(|field| of.get(field)).flat_map(|value| value.split(','));
    let mut names: Vec<String> = all
        .map(|one| one.split(|c: char| c == '(' || c.is_whitespace()).find(|word| !word.is_empty()).unwrap_or_default())
        .filter(|name| !name.is_empty() && *name != "R" && !super::BASE.contains(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_needs_is_read_of_its_description() {
        let text = "Package: p\nDepends: R (>= 3.5), methods,\n  b(>= 1.0)\nImports: a ,c, a\nLinkingTo: d (>= 2)\nSuggests: e\n";
        let read = Description::parse(text.as_bytes()).unwrap();
        assert_eq!(needs(&read, false), ["a", "b", "c"]);
        assert_eq!(needs(&read, true), ["a", "b", "c", "d"]);
    }

    #[test]
    fn the_first_library_that_has_a_package_counts() {
        let folder = tempfile::tempdir().unwrap();
        let libraries = ["one", "two"].map(|name| folder.path().join(name));
        for (library, version) in libraries.iter().zip(["1.0", "2.0"]) {
            std::fs::create_dir_all(library.join("p")).unwrap();
            let text = format!("Package: p\nVersion: {version}\nImports: q\nBuilt: R 4.2.2; ; now; unix\n");
            std::fs::write(library.join("p/DESCRIPTION"), text).unwrap();
        }
        let found = find(&libraries, "p").unwrap();
        assert_eq!((found.version.as_str(), found.needs.as_slice()), ("1.0", &["q".to_owned()][..]));
        std::fs::write(libraries[0].join("p/DESCRIPTION"), "Package: p\nVersion: 1.0\n").unwrap();
        assert_eq!(find(&libraries, "p").unwrap().version, "2.0", "what was not built is a source");
        assert_eq!(find(&libraries, "absent"), None);
    }
}
