//! Bundles: a `.tar.gz` with a `manifest.json` at its top. Looked through before one is kept, unpacked where it runs. Blocks.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::manifest::{self, Manifest};
use crate::node::archive::walk::{Broken, Entry, Kind, walk};

/// Entries of a bundle.
const ENTRIES_MAX: usize = 100_000;
/// Bytes of a path, and folders of it.
const PATH_MAX: usize = 1024;
const DEPTH_MAX: usize = 64;

/// Looks through a bundle that unpacks to no more bytes than this.
///
/// # Errors
/// One sentence for whoever sends it.
pub fn examine(file: File, unpacked_max: u64) -> Result<Manifest, String> {
    let mut names = HashSet::new();
    let mut found = None;
    read(file, unpacked_max, |entry, bytes| {
        if let Visited::File(name) = entry {
            if name == manifest::NAME {
                let mut text = Vec::new();
                bytes.take(manifest::BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| e.to_string())?;
                if text.len() as u64 > manifest::BYTES_MAX {
                    return Err("The bundle's manifest.json is larger than 32 MiB".into());
                }
                found = Some(text);
            }
            if !names.insert(name.to_owned()) {
                return Err(format!("The bundle has two files named `{name}`"));
            }
        }
        Ok(())
    })?;
    let text = found.ok_or("There is no manifest.json at the top of the bundle")?;
    Manifest::read(&text, &names)
}

/// Unpacks a bundle into a folder that is there and empty; everybody may read what comes of it.
///
/// # Errors
/// What is wrong with it, or with the disk.
pub fn unpack(file: File, unpacked_max: u64, into: &Path) -> Result<(), String> {
    let told = |e: io::Error| format!("the bundle cannot be unpacked: {e}");
    fs::set_permissions(into, Permissions::from_mode(0o755)).map_err(told)?;
    read(file, unpacked_max, |entry, bytes| match entry {
        Visited::Folder(name) => folder(into, name).map_err(told),
        Visited::File(name) => {
            if let Some((above, _)) = name.rsplit_once('/') {
                folder(into, above).map_err(told)?;
            }
            let path = into.join(name);
            let mut out = File::options().write(true).create_new(true).open(&path).map_err(told)?;
            io::copy(bytes, &mut out).map_err(told)?;
            out.set_permissions(Permissions::from_mode(0o644)).map_err(told)
        }
    })
}

/// Looks through what a renderer gave, in the same form: `main` says which of `files/…` is shown first.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn rendered(file: File, unpacked_max: u64) -> Result<String, String> {
    let (mut main, mut names) = (None, HashSet::new());
    read(file, unpacked_max, |entry, bytes| {
        match entry {
            Visited::File("main") if main.is_some() => {
                return Err("the renderer says twice which file is the first".into());
            }
            Visited::File("main") => {
                let mut text = String::new();
                bytes.take(PATH_MAX as u64).read_to_string(&mut text).map_err(|e| e.to_string())?;
                main = Some(text.trim_start_matches("./").trim_end_matches('\n').to_owned());
            }
            Visited::File(name) => {
                if !names.insert(name.to_owned()) {
                    return Err(format!("two files named `{name}` were rendered"));
                }
            }
            Visited::Folder(_) => {}
        }
        Ok(())
    })?;
    let main = main.ok_or("the renderer does not say which file is the first")?;
    if !names.contains(&format!("files/{main}")) {
        return Err(format!("`{main}` is not among what was rendered"));
    }
    Ok(main)
}

/// Makes a folder and those above it.
fn folder(below: &Path, name: &str) -> io::Result<()> {
    let mut path = below.to_owned();
    for part in name.split('/') {
        path.push(part);
        match fs::create_dir(&path) {
            Ok(()) => fs::set_permissions(&path, Permissions::from_mode(0o755))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a bundle may have.
enum Visited<'a> {
    Folder(&'a str),
    File(&'a str),
}

fn read(
    file: File,
    unpacked_max: u64,
    mut visit: impl FnMut(Visited<'_>, &mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let mut count = 0;
    let limited = Limited { inner: MultiGzDecoder::new(file), left: unpacked_max };
    let walked = walk(limited, |Entry { name, kind, .. }, bytes| {
        count += 1;
        if count > ENTRIES_MAX {
            return Err(format!("The bundle has more than {ENTRIES_MAX} entries"));
        }
        let name = name.trim_end_matches('/');
        if name.is_empty() || name == "." {
            return Ok(());
        }
        if !is_plain(name) {
            return Err(format!("The bundle's entry {name:?} does not stay inside; leave it out"));
        }
        match kind {
            Kind::File => visit(Visited::File(name), bytes),
            Kind::Folder => visit(Visited::Folder(name), bytes),
            Kind::Symbolic(_) | Kind::Hard(_) => {
                Err(format!("The bundle's entry {name:?} is a link; put the file itself in its place"))
            }
            Kind::Strange => Err(format!("The bundle's entry {name:?} is neither file nor folder; leave it out")),
        }
    });
    walked.map(drop).map_err(|broken| match broken {
        Broken::Read(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            format!("The bundle unpacks to more than {unpacked_max} bytes")
        }
        Broken::Read(error) => format!("The bundle is no .tar.gz, or broken: {error}"),
        Broken::Refused(why) => why,
    })
}

/// A relative path whose parts are names.
fn is_plain(name: &str) -> bool {
    let parts = || name.split('/');
    name.len() <= PATH_MAX
        && parts().count() <= DEPTH_MAX
        && !name.chars().any(char::is_control)
        && parts().all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
}

/// Ends with an error, so that no bundle is taken for a shorter one.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn bundle(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> File {
        let mut builder = tar::Builder::new(Vec::new());
        add(&mut builder);
        let mut gz = flate2::write::GzEncoder::new(tempfile::tempfile().unwrap(), flate2::Compression::fast());
        gz.write_all(&builder.into_inner().unwrap()).unwrap();
        let mut file = gz.finish().unwrap();
        file.rewind().unwrap();
        file
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, text: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }

    const MANIFEST: &str = r#"{"version": 1, "metadata": {"appmode": "static", "primary_html": "index.html"}}"#;

    #[test]
    fn a_bundle_unpacks_to_its_files_whatever_modes_it_says() {
        let make = || {
            bundle(|b| {
                add(b, tar::EntryType::Directory, "./", "");
                add(b, tar::EntryType::Directory, "./css/", "");
                add(b, tar::EntryType::Regular, "./css/a.css", "a {}");
                add(b, tar::EntryType::Regular, "./js/deep/b.js", "b()");
                add(b, tar::EntryType::Regular, "./index.html", "<p>");
                add(b, tar::EntryType::Regular, "./manifest.json", MANIFEST);
            })
        };
        assert_eq!(examine(make(), 1 << 20).unwrap().entrypoint.as_deref(), Some("index.html"));
        let into = tempfile::tempdir().unwrap();
        unpack(make(), 1 << 20, into.path()).unwrap();
        assert_eq!(fs::read_to_string(into.path().join("js/deep/b.js")).unwrap(), "b()");
        let mode = |name: &str| fs::metadata(into.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("css"), mode("css/a.css"), mode("js/deep")), (0o755, 0o644, 0o755));
        let more = examine(make(), 1000).unwrap_err();
        assert!(more.contains("unpacks to more than 1000 bytes"), "{more}");
    }

    #[test]
    fn what_does_not_stay_inside_is_refused() {
        use tar::EntryType as T;
        for (kind, name, words) in [
            (T::Regular, "../x", "does not stay inside"),
            (T::Regular, "/etc/x", "does not stay inside"),
            (T::Regular, "a/../../x", "does not stay inside"),
            (T::Regular, "a//b", "does not stay inside"),
            (T::Symlink, "link", "is a link"),
            (T::Link, "link", "is a link"),
            (T::Char, "device", "neither file nor folder"),
            (T::Fifo, "fifo", "neither file nor folder"),
            (T::Regular, "index.html", "two files named"),
        ] {
            let file = bundle(|b| {
                add(b, T::Regular, "index.html", "<p>");
                add(b, T::Regular, "manifest.json", MANIFEST);
                add(b, kind, name, "");
            });
            let refused = examine(file, 1 << 20).unwrap_err();
            assert!(refused.contains(words), "{name}: {refused}");
        }
        let none = examine(bundle(|b| add(b, T::Regular, "index.html", "<p>")), 1 << 20).unwrap_err();
        assert!(none.contains("no manifest.json"), "{none}");
        let mut text = tempfile::tempfile().unwrap();
        text.write_all(b"no tarball").unwrap();
        text.rewind().unwrap();
        assert!(examine(text, 1 << 20).unwrap_err().contains("no .tar.gz"));
    }
}
