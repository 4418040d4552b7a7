//! Blobs as files: `sha256/ab/cd/abcd…`. The folder may be on NFS, shared by nodes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::reading::{self, Buffers};
use super::{BlobError, Bytestream, Name, blocking};
use crate::runtime::dice;
use crate::types::Sha256;

#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: Arc<Path>,
    buffers: Buffers,
}

impl Directory {
    pub(super) fn open(root: &Path, buffers: Buffers) -> io::Result<Self> {
        fs::create_dir_all(root.join(INCOMING))?;
        fs::create_dir_all(root.join(KEPT))?;
        fs::create_dir_all(root.join(MARKS))?;
        Ok(Self { root: root.into(), buffers })
    }

    fn path(&self, name: &Name) -> PathBuf {
        let name = name.to_string();
        self.root.join(KEPT).join(&name[..2]).join(&name[2..4]).join(name)
    }

    /// Copies the file, because a spool is rarely on the same disk; then one rename shows the whole of it.
    pub(super) fn keep(&self, name: &Name, spooled: &Path, anew: bool) -> Result<(), BlobError> {
        let target = self.path(name);
        let folder = target.parent().unwrap_or(&self.root);
        let kept = if !anew && target.exists() { Ok(()) } else { self.bring(spooled, folder, &target) };
        let kept = kept.and_then(|()| {
            // The name is on stable storage when its folder is, and that when its own is. Who brought it there before us may
            // have died before it was.
            let mut folder = Some(folder);
            for _ in 0..3 {
                let Some(at) = folder else { break };
                File::open(at)?.sync_all()?;
                folder = at.parent();
            }
            Ok(())
        });
        kept.map_err(BlobError::Unavailable)
    }

    fn bring(&self, spooled: &Path, folder: &Path, target: &Path) -> io::Result<()> {
        let beside = self.root.join(INCOMING).join(format!("{:032x}", dice::unique()));
        let brought = copy(spooled, &beside).and_then(|()| {
            fs::create_dir_all(folder)?;
            fs::rename(&beside, target)
        });
        if brought.is_err() {
            let _ = fs::remove_file(&beside);
        }
        brought
    }

    /// Digests of all blobs. Copies that were never finished go after a day.
    pub(super) fn digests(&self) -> io::Result<Vec<Sha256>> {
        for entry in fs::read_dir(self.root.join(INCOMING))? {
            let entry = entry?;
            let age = entry.metadata().and_then(|of| of.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > LEFT) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let mut all = Vec::new();
        for first in entries(&self.root.join(KEPT))? {
            for second in entries(&first)? {
                let blobs =
                    entries(&second)?.into_iter().filter_map(|path| Name::digest_of(path.file_name()?.to_str()?));
                all.extend(blobs);
            }
        }
        Ok(all)
    }

    /// Bytes it took; 0 where there is none.
    pub(super) fn delete(&self, name: &Name) -> io::Result<u64> {
        let path = self.path(name);
        let gone = fs::metadata(&path).and_then(|found| fs::remove_file(&path).map(|()| found.len()));
        match gone {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    pub(super) fn mark(&self, mark: &str) -> io::Result<Vec<String>> {
        let folder = self.root.join(MARKS);
        fs::write(folder.join(mark), "")?;
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    pub(super) fn unmark(&self, mark: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(MARKS).join(mark)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// `None`: there is none.
    pub(super) async fn size(&self, name: &Name) -> Result<Option<u64>, BlobError> {
        let path = self.path(name);
        blocking(move || match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::Unavailable(error)),
        })
        .await
    }

    pub(super) async fn read(&self, name: &Name, range: Range<u64>) -> Result<Bytestream, BlobError> {
        let (path, digest) = (self.path(name), name.digest);
        match reading::stream(move || File::open(&path).map(|file| (file, ())), range, self.buffers.clone()).await {
            Err(BlobError::Unavailable(error)) => Err(missing_or(error, digest)),
            other => other,
        }
    }
}

/// What is in a folder; nothing where it is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn missing_or(error: io::Error, digest: Sha256) -> BlobError {
    match error.kind() {
        io::ErrorKind::NotFound => BlobError::Missing(digest),
        _ => BlobError::Unavailable(error),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut out)?;
    out.sync_all()
}

/// No copy takes so long.
const LEFT: Duration = Duration::from_secs(24 * 3600);
const INCOMING: &str = "incoming";
const KEPT: &str = "sha256";
const MARKS: &str = "nodes";
