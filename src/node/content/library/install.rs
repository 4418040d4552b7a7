//! One package is installed, in a sandbox without a network that sees the package, what it needs, and the programs of this
//! machine; what came out is linked into libraries.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::{AT, ENVIRON, environ};
use crate::node::content::interpreter::Interpreter;
use crate::node::content::python::{TMP_BYTES, listen, outgrows};
use crate::node::parts::Parts;
use crate::node::sandbox::{Account, Enclosure, Folder, MORE_MEMORY, Memory};
use crate::runtime::dice;

/// Where the package is, and links to what this machine has of what it needs.
const BUILD: &str = "/build";
/// Below it, each in a library of its own, is what else it needs.
const NEEDS: &str = "/needs";
/// It is installed where it will be used.
const SCRIPT: &str =
    "set -e; umask 022; exec 2>&1; \"$r\" CMD INSTALL --library=/library \"$file\"; chmod -R a+rX /library";

/// Bytes of memory of each of its processes, and of all of them where there are control groups; they are a few, one after
/// another, and a compiler takes one or two GiB.
const MEMORY: u64 = 4 << 30;

/// What a package needs.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Libraries with one package each.
    pub libraries: Vec<PathBuf>,
    /// Packages of this machine.
    pub links: Vec<PathBuf>,
}

/// What is installed.
#[derive(Debug)]
pub(super) struct Install<'a> {
    /// By which R.
    pub interpreter: &'a Interpreter,
    /// The administrator's `Renviron.site`.
    pub site: &'a str,
    /// Its file.
    pub tarball: &'a Path,
    /// What it needs, and nothing else, so that it is the same whatever is beside it.
    pub needs: &'a Needs,
    /// A folder that goes, on the disk the file is on.
    pub scratch: &'a Path,
    /// Bytes it may have.
    pub bytes_max: u64,
}

impl Install<'_> {
    /// Installs it into this folder, which is empty. `say`: what R says.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub(super) async fn run(&self, parts: &Parts, folder: &Path, say: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
        let content = &parts.settings.content;
        let told = |e: io::Error| e.to_string();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(told)?;
        if rustix::process::geteuid().is_root() {
            chown(folder, Some(content.uid), Some(content.uid)).map_err(told)?;
        }
        let mut folders = vec![Folder { from: folder.to_owned(), to: AT.into(), is_writable: true }];
        folders.extend(self.interpreter.folder());
        let mut libraries = format!("{BUILD}/system");
        for (n, need) in self.needs.libraries.iter().enumerate() {
            let to = format!("{NEEDS}/{n}");
            libraries += &format!(":{to}");
            folders.push(Folder { from: need.clone(), to: to.into(), is_writable: false });
        }
        let build = self.scratch.join(format!("{:032x}", dice::unique()));
        self.lay(&build, &libraries).map_err(told)?;
        folders.push(Folder { from: build, to: BUILD.into(), is_writable: false });
        let file = self.tarball.file_name().unwrap_or_default().display();
        let own = [("r", self.interpreter.program.clone()), ("file", format!("{BUILD}/{file}"))];
        let environment = own.into_iter().chain(super::told(&libraries, BUILD));
        let enclosure = Enclosure {
            environment: environment.map(|(name, value)| (name.to_owned(), value)).collect(),
            readable: &content.readable,
            folders,
            work: None,
            tmp: TMP_BYTES,
            at: "/tmp",
            account: Account::numbered(content.uid),
            door: None,
            port_at: None,
            run: None,
            outbound: None,
            memory: Memory::Writable(MEMORY),
            cpu: content.cpus_max,
        };
        let mut begun = enclosure.begin(&["sh", "-c", SCRIPT].map(OsString::from)).map_err(told)?;
        drop(begun.child.stdin.take());
        let (out, err) = (begun.child.stdout.take(), begun.child.stderr.take());
        let work = async {
            tokio::join!(listen(out, say), listen(err, say));
            begun.child.wait().await
        };
        let status = tokio::select! {
            status = work => status.map_err(told)?,
            () = outgrows(folder, self.bytes_max) => {
                return Err("the library has more bytes than it may have (`content.environment_bytes_max`)".to_owned());
            }
        };
        match status.success() {
            true => Ok(()),
            false if begun.wanted_more_memory() => Err(MORE_MEMORY.to_owned()),
            false => Err("the lines above say why".to_owned()),
        }
    }

    /// What is seen at [`BUILD`].
    fn lay(&self, build: &Path, libraries: &str) -> io::Result<()> {
        let system = build.join("system");
        fs::create_dir_all(&system)?;
        for link in &self.needs.links {
            symlink(link, system.join(link.file_name().unwrap_or_default()))?;
        }
        let file = build.join(self.tarball.file_name().unwrap_or_default());
        fs::hard_link(self.tarball, &file).or_else(|_| fs::copy(self.tarball, &file).map(drop))?;
        write(&build.join(ENVIRON), &environ(self.site, libraries))?;
        for (path, mode) in [(build, 0o755), (&system, 0o755), (&file, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// Writes a file that others may read.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Makes a folder that has the same files as another one, which nobody changes any more. Where no link can be made, they are
/// copied. Blocks.
///
/// # Errors
/// What the system says, or that there is something that is neither file nor folder nor link.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(from)?.is_dir() {
        return Err(io::Error::other(format!("{} is no folder", from.display())));
    }
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        fs::create_dir(&to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() {
                folders.push((entry.path(), to));
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path())?, &to)?;
            } else if kind.is_file() {
                fs::hard_link(entry.path(), &to).or_else(|_| fs::copy(entry.path(), &to).map(drop))?;
            } else {
                return Err(io::Error::other(format!("{} is no file", entry.path().display())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::node::content::copies;

    #[test]
    fn what_is_linked_is_there_twice_and_on_the_disk_once() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("R")).unwrap();
        fs::write(from.join("R/code"), vec![1; 100_000]).unwrap();
        symlink("R/code", from.join("link")).unwrap();
        let alone = copies::size(&from);
        link(&from, &to).unwrap();
        assert_eq!(fs::metadata(to.join("R/code")).unwrap().nlink(), 2);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("R/code"));
        let both = copies::size(&from) + copies::size(&to);
        assert!(both < alone + 20_000, "{both} {alone}");
        fs::remove_dir_all(&from).unwrap();
        assert_eq!(fs::read(to.join("R/code")).unwrap().len(), 100_000);
        let strange = folder.path().join("strange");
        fs::create_dir(&strange).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(strange.join("s")).unwrap();
        assert!(link(&strange, &folder.path().join("x")).is_err());
    }
}
