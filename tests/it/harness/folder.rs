//! A temporary folder with the files of one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Removed with everything in it when dropped.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        // Short, because paths of unix sockets must be.
        Self(tempfile::Builder::new().prefix("bl").tempdir().unwrap())
    }

    /// One that other users may pass through.
    pub fn open_to_all() -> Self {
        let folder = Self::new();
        fs::set_permissions(folder.root(), fs::Permissions::from_mode(0o711)).unwrap();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, readable by its owner only, in one step: whoever watches never sees half of it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let next = path.with_file_name(format!(".{}.next", path.file_name().unwrap().display()));
        fs::write(&next, content).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&next, &path).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
}
