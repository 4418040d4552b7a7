//! Blobs as files: `sha256/ab/cd/abcd…`. The folder may be on NFS, shared by nodes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{BlobError, Bytestream, Name, blocking};
use crate::runtime::dice;
use crate::types::Sha256;

/// Bytes read at once, and handed on as one piece.
const PIECE: usize = 256 * 1024;
/// Pieces read ahead of a slow client.
const AHEAD: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: Arc<Path>,
}

impl Directory {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join(INCOMING))?;
        fs::create_dir_all(root.join(KEPT))?;
        fs::create_dir_all(root.join(MARKS))?;
        Ok(Self { root: root.into() })
    }

    fn path(&self, name: &Name) -> PathBuf {
        let name = name.to_string();
        self.root.join(KEPT).join(&name[..2]).join(&name[2..4]).join(name)
    }

    /// Copies the file, because a spool is rarely on the same disk; then one rename shows the whole of it.
    pub(super) fn keep(&self, name: &Name, spooled: &Path) -> Result<(), BlobError> {
        let target = self.path(name);
        let folder = target.parent().unwrap_or(&self.root);
        let kept = if target.exists() { Ok(()) } else { self.bring(spooled, folder, &target) };
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
        match stream(move || File::open(&path).map(|file| (file, ())), range).await {
            Err(BlobError::Unavailable(error)) => Err(missing_or(error, digest)),
            other => other,
        }
    }
}

/// A range of a file, read ahead by a thread. What is opened beside the file is held until the last byte is read.
pub(super) async fn stream<T: Send + 'static>(
    open: impl FnOnce() -> io::Result<(File, T)> + Send + 'static,
    range: Range<u64>,
) -> Result<Bytestream, BlobError> {
    let (start, length) = (range.start, range.end.saturating_sub(range.start));
    let (file, held) = blocking(move || {
        let opened = open().and_then(|(mut file, held)| {
            file.seek(SeekFrom::Start(start))?;
            Ok((file, held))
        });
        opened.map_err(BlobError::Unavailable)
    })
    .await?;
    let (pieces, mut taken) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        pump(file, length, &pieces);
        drop(held);
    });
    Ok(Box::pin(futures_util::stream::poll_fn(move |cx| taken.poll_recv(cx))))
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

/// Reads until the length is reached or nobody listens any more.
fn pump(mut file: File, length: u64, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    let mut left = length;
    while left > 0 {
        let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        let read = file.read(&mut piece).and_then(|n| match n {
            // A short blob with a full length would be taken for a whole one.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        });
        let piece = read.map(|n| {
            piece.truncate(n);
            left -= n as u64;
            Bytes::from(piece)
        });
        let is_over = piece.is_err();
        if pieces.blocking_send(piece).is_err() || is_over {
            return;
        }
    }
}

const INCOMING: &str = "incoming";
const KEPT: &str = "sha256";
const MARKS: &str = "nodes";
