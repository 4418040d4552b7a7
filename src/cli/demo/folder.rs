//! DIR, where a demo keeps all it has: certificate, keys, configuration, apps, logs.
//!
//! ```text
//! DIR/ca.pem                the authority to trust          DIR/proxy.toml    the proxy's configuration
//! DIR/certs/demo.{crt,key}  the proxy's certificate         DIR/node-a.toml   a node's configuration, and so on
//! DIR/keys/affinity.key     seals the affinity cookie       DIR/demo.json     what `--json` prints, kept current
//! DIR/keys/node.key         the cluster's key               DIR/*ports.json   what proxy and nodes listen on
//! DIR/keys/api.key          the API key                     DIR/admin.sock    the proxy's admin socket
//! DIR/apps/                 the Shiny apps                  DIR/data/         packages: rows and files
//! DIR/logs/                 one file per process            DIR/pg/           PostgreSQL, where it is wanted
//!                                                           DIR/tmp/          temporary files of all of them
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{apps, certificate};

/// A demo's folder, ready to use. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    is_temporary: bool,
    /// Locked as long as a demo runs here.
    _mark: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// Somebody else's files are there.
    #[error("`{0}` is not empty and not from an earlier demo: give a new or empty folder")]
    Foreign(PathBuf),
    /// Locked.
    #[error("a demo already runs in `{0}`: give another folder, or none for a temporary one")]
    Busy(PathBuf),
    /// Not UTF-8, or too long for a socket in it.
    #[error("`{0}` cannot hold a demo: its path must be UTF-8 and 90 bytes long at most, for the socket in it")]
    Path(PathBuf),
    /// The file system said no.
    #[error("cannot write `{path}`: {error}")]
    Io {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Its presence says that a demo may write here.
const MARK: &str = ".bowline-demo";
const FOLDERS: [&str; 6] = ["certs", "keys", "apps", "data", "logs", "tmp"];
/// `sun_path` has 108 bytes with the final zero (unix(7)); `/admin.sock` or `/pg/.s.PGSQL.5433` go off.
const PATH_BYTES_MAX: usize = 90;

impl Folder {
    /// Prepares `path`, which may be new, empty or from an earlier demo: then certificate and keys are kept. Without
    /// a path: a new temporary folder named after `label`. `now` is since 1970.
    ///
    /// # Errors
    /// See [`FolderError`]; nothing is written into a foreign folder.
    pub(super) fn prepare(path: Option<&Path>, label: &str, now: Duration) -> Result<Self, FolderError> {
        let is_temporary = path.is_none();
        let path = path.map_or_else(|| std::env::temp_dir().join(format!("bowline-demo-{label}")), Path::to_owned);
        // Private: there are keys in it.
        let made = DirBuilder::new().recursive(!is_temporary).mode(0o700).create(&path);
        made.map_err(|error| FolderError::Io { path: path.clone(), error })?;
        let path = path.canonicalize().map_err(|error| FolderError::Io { path, error })?;

        if path.to_str().is_none_or(|text| text.len() > PATH_BYTES_MAX) {
            if is_temporary {
                let _ = fs::remove_dir(&path);
            }
            return Err(FolderError::Path(path));
        }
        let mark = path.join(MARK);
        let is_empty = || fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
        if !mark.exists() && !is_empty() {
            return Err(FolderError::Foreign(path));
        }
        let file = OpenOptions::new().create(true).append(true).open(&mark);
        let file = file.map_err(|error| FolderError::Io { path: mark, error })?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(FolderError::Busy(path));
        }
        let folder = Self { path, is_temporary, _mark: file };
        folder.fill(label, now)?;
        Ok(folder)
    }

    fn fill(&self, label: &str, now: Duration) -> Result<(), FolderError> {
        for name in FOLDERS {
            self.make_folder(name)?;
        }
        for app in apps::ALL {
            self.make_folder(&format!("apps/{}", app.name()))?;
            self.write(&format!("apps/{}/{}", app.name(), app.file_name()), app.source())?;
        }
        let read = |name: &str| fs::read(self.path.join(name)).unwrap_or_default();
        let is_whole = self.path.join("ca.pem").exists() && self.path.join("certs/demo.key").exists();
        if !is_whole || !certificate::is_fresh(&read("certs/demo.crt"), now) {
            let made = certificate::make(label, now)?;
            self.write("ca.pem", &made.ca)?;
            self.write("certs/demo.key", &made.key)?;
            self.write("certs/demo.crt", &made.chain)?;
        }
        Ok(())
    }

    /// Where it is: absolute, without symbolic links, UTF-8.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path within.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the named process logs.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Writes a file for our eyes only, whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        let put = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            // An old file of this name may have had other permissions.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, &path)
        };
        put().map_err(|error| FolderError::Io { path: path.clone(), error })
    }

    fn make_folder(&self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| FolderError::Io { path, error })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_temporary {
            return;
        }
        // A process that is just dying may still write a last line, which makes a removal fail; hence more than one.
        for _ in 0..10 {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_temporary_folder_is_private_whole_and_removed_in_the_end() {
        let label = format!("test-{}", std::process::id());
        let folder = Folder::prepare(None, &label, NOW).unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_absolute() && path.to_str().unwrap().contains(&label));
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("certs/demo.key")), 0o600);
        for name in ["ca.pem", "certs/demo.crt", "apps/shiny-python/app.py", "apps/shiny-r/app.R", "logs", "tmp"] {
            assert!(path.join(name).exists(), "{name}");
        }
        // What files a killed app leaves behind goes too.
        fs::write(path.join("tmp/upload"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_given_folder_stays_and_keeps_its_certificate_until_that_ages() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/below");
        let read = || (fs::read(path.join("ca.pem")).unwrap(), fs::read(path.join("certs/demo.crt")).unwrap());
        drop(Folder::prepare(Some(&path), "x", NOW).unwrap());
        let first = read();
        drop(Folder::prepare(Some(&path), "x", NOW).unwrap());
        assert_eq!(read(), first);
        drop(Folder::prepare(Some(&path), "x", NOW + Duration::from_secs(364 * 24 * 3600)).unwrap());
        assert_ne!(read().0, first.0);
        assert_ne!(read().1, first.1);
    }

    #[test]
    fn foreign_files_are_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.txt"), "years of work").unwrap();
        assert!(matches!(Folder::prepare(Some(parent.path()), "x", NOW), Err(FolderError::Foreign(_))));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_folder_takes_one_demo_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let first = Folder::prepare(Some(parent.path()), "x", NOW).unwrap();
        assert!(matches!(Folder::prepare(Some(parent.path()), "y", NOW), Err(FolderError::Busy(_))));
        drop(first);
        Folder::prepare(Some(parent.path()), "y", NOW).unwrap();
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("x".repeat(100));
        assert!(matches!(Folder::prepare(Some(&path), "x", NOW), Err(FolderError::Path(_))));
    }
}
