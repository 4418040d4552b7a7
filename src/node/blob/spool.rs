//! Where uploads are until they are whole and found good: a file of this node's own that disappears with whoever holds it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blake2::Blake2b;
use blake2::digest::consts::U32;
use sha2::Digest as _;

use crate::runtime::dice;
use crate::types::Sha256;

/// A folder on this machine that is this process's own.
#[derive(Clone, Debug)]
pub struct Spool {
    own: Arc<Own>,
}

#[derive(Debug)]
struct Own {
    folder: PathBuf,
    /// Held for as long as the process lives, however it ends.
    _lock: File,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder that goes when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _own: Arc<Own>,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Spooling {
    file: File,
    path: Removed,
    size: u64,
    sha256: sha2::Sha256,
    md5: md5::Md5,
    blake2: Blake2b<U32>,
}

/// A whole file with its digests.
#[derive(Debug)]
pub struct Spooled {
    path: Removed,
    size: u64,
    sha256: Sha256,
    /// Hexadecimal.
    pub md5: String,
    /// BLAKE2b-256, hexadecimal.
    pub blake2: String,
}

/// Removes its file when dropped.
#[derive(Debug)]
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Spool {
    /// Makes a folder of our own below this one. Those of processes that were killed go.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open(below: &Path) -> io::Result<Self> {
        fs::create_dir_all(below)?;
        let folder = below.join(format!("{:032x}", dice::unique()));
        // Locked before it has the name others look for.
        let hidden = folder.with_extension("new");
        fs::create_dir(&hidden)?;
        let lock = File::create(hidden.join(LOCK))?;
        lock.lock()?;
        fs::rename(&hidden, &folder)?;
        for entry in fs::read_dir(below)? {
            let other = entry?.path();
            // Of one that was killed before it had locked it.
            let age = fs::metadata(&other).and_then(|of| of.modified()).ok().and_then(|at| at.elapsed().ok());
            if other.extension().is_some_and(|ending| ending == "new") && age.is_some_and(|age| age > BEGINNING) {
                let _ = fs::remove_dir_all(&other);
                continue;
            }
            let is_left = other != folder
                && other.extension().is_none()
                && File::open(other.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
            if is_left {
                let _ = fs::remove_dir_all(other);
            }
        }
        Ok(Self { own: Arc::new(Own { folder, _lock: lock }) })
    }

    /// The folder that is our own.
    pub(super) fn folder(&self) -> &Path {
        &self.own.folder
    }

    /// A folder for whatever it takes, which goes with everything in it when dropped.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> io::Result<Scratch> {
        let path = self.own.folder.join(format!("{:032x}.scratch", dice::unique()));
        fs::create_dir(&path)?;
        Ok(Scratch { path, _own: Arc::clone(&self.own) })
    }

    /// Begins a file.
    ///
    /// # Errors
    /// The disk is full or read-only.
    pub fn begin(&self) -> io::Result<Spooling> {
        let path = self.own.folder.join(format!("{:032x}.spool", dice::unique()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let (sha256, md5, blake2) = (sha2::Sha256::new(), md5::Md5::new(), Blake2b::new());
        Ok(Spooling { file, path: Removed(path), size: 0, sha256, md5, blake2 })
    }

    /// A whole small file.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn whole(&self, bytes: &[u8]) -> io::Result<Spooled> {
        let mut spooling = self.begin()?;
        spooling.write(bytes)?;
        spooling.finish()
    }
}

impl Spooling {
    /// Appends. Blocks for as long as the local disk does.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.blake2.update(bytes);
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// For who reads it while it grows.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reader(&self) -> io::Result<File> {
        File::open(&self.path.0)
    }

    /// No more bytes.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self) -> io::Result<Spooled> {
        self.file.flush()?;
        Ok(Spooled {
            path: self.path,
            size: self.size,
            sha256: Sha256::new(self.sha256.finalize().into()),
            md5: hexadecimal(&self.md5.finalize()),
            blake2: hexadecimal(&self.blake2.finalize()),
        })
    }
}

impl Write for Spooling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::write(self, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Spooled {
    /// SHA-256 of it.
    pub fn digest(&self) -> Sha256 {
        self.sha256
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        &self.path.0
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// No process takes so long to begin.
const BEGINNING: Duration = Duration::from_secs(3600);
const LOCK: &str = "lock";
