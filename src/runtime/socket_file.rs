//! The file of a bound unix socket, which nobody removes but its owner.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Removes the file when dropped, unless a successor has put its own in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// For the socket that was bound there just now.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_successors_file_stays() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let _first = UnixListener::bind(&path).expect("bound");
        let file = SocketFile::of(&path).expect("there");
        // Beside the first, so that it cannot get the same number.
        let beside = folder.path().join("t");
        let _second = UnixListener::bind(&beside).expect("bound");
        fs::rename(&beside, &path).expect("renamed");
        drop(file);
        assert!(path.exists());
        drop(SocketFile::of(&path).expect("there"));
        assert!(!path.exists());
    }
}
