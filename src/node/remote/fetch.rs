//! One fetch of a file for everybody who wants it: it is passed on while it comes, and its last bytes only when its digest is
//! what was promised.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::try_unfold;
use tokio::sync::watch;

use crate::node::blob::Bytestream;
use crate::types::Sha256;

/// What is held back until the whole is verified.
const HELD: u64 = 64 * 1024;
/// Why nobody is given them.
pub const CHANGED: &str = "the index gave other bytes than it promised";
/// Bytes read at once.
const PIECE: u64 = 256 * 1024;

/// How far a fetch has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes in the file.
    pub bytes: u64,
    /// Bytes in all, when they are known.
    pub size: Option<u64>,
    /// `Some`: it is over; `Err` says why there is nothing.
    pub ended: Option<Result<(), Failed>>,
}

/// Why nothing came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The index has no such file.
    Absent,
    /// It has other bytes there than it promised.
    Changed,
    /// Anything else.
    Broken(Arc<str>),
}

impl Failed {
    fn off() -> Self {
        Self::Broken("the fetch broke off".into())
    }
}

/// A fetch that is under way, or has just ended.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Where the bytes are, once there are any. Its name may be gone while it is read.
    file: watch::Receiver<Option<Arc<File>>>,
    progress: watch::Receiver<Progress>,
}

/// The side of a fetch that fetches.
#[derive(Debug)]
pub struct Fetcher {
    /// Where the bytes are.
    pub file: watch::Sender<Option<Arc<File>>>,
    /// How far it is.
    pub progress: watch::Sender<Progress>,
}

/// Fetches, by what names their file.
#[derive(Clone, Debug, Default)]
pub struct Fetches(Arc<Mutex<HashMap<Sha256, Fetch>>>);

impl Fetches {
    /// The fetch of a file: one that is under way, or a new one, which the second part of the answer has to do.
    pub fn join(&self, digest: Sha256) -> (Fetch, Option<Fetcher>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetch) = all.get(&digest) {
            return (fetch.clone(), None);
        }
        let (file, progress) = (watch::channel(None), watch::channel(Progress::default()));
        let fetch = Fetch { file: file.1, progress: progress.1 };
        all.insert(digest, fetch.clone());
        (fetch, Some(Fetcher { file: file.0, progress: progress.0 }))
    }

    /// The fetch is over: who asks from now on finds the file kept, or tries again.
    pub fn leave(&self, digest: &Sha256) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

impl Fetch {
    /// Waits until it is known how much comes, or that nothing does.
    pub async fn size(&self) -> Result<Option<u64>, Failed> {
        let mut progress = self.progress.clone();
        let begun = progress.wait_for(|p| p.size.is_some() || p.bytes > 0 || p.ended.is_some()).await;
        let begun = begun.map(|p| p.clone()).map_err(|_| Failed::off())?;
        match begun.ended {
            Some(Err(why)) => Err(why),
            Some(Ok(())) => Ok(Some(begun.bytes)),
            None => Ok(begun.size),
        }
    }

    /// Waits for the end.
    pub async fn end(&self) -> Result<(), Failed> {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|p| p.ended.is_some()).await;
        let ended = ended.map(|p| p.ended.clone()).map_err(|_| Failed::off())?;
        ended.unwrap_or(Ok(()))
    }

    /// The bytes as they come.
    pub fn stream(self) -> Bytestream {
        Box::pin(try_unfold((self, 0), async |(fetch, at)| {
            let mut progress = fetch.progress.clone();
            let ready = |p: &Progress| p.ended.is_some() || p.bytes > at + HELD;
            let now = progress.wait_for(ready).await.map(|p| p.clone());
            let now = now.map_err(|_| io::Error::other("the fetch broke off"))?;
            let until = match now.ended {
                Some(Err(Failed::Broken(why))) => return Err(io::Error::other(why.to_string())),
                Some(Err(Failed::Absent)) => return Err(io::ErrorKind::NotFound.into()),
                Some(Err(Failed::Changed)) => return Err(io::Error::other(CHANGED)),
                Some(Ok(())) => now.bytes,
                None => now.bytes - HELD,
            };
            if at == until {
                return Ok(None);
            }
            let file = fetch.file.borrow().clone().ok_or_else(|| io::Error::other("the fetch has no file"))?;
            let length = (until - at).min(PIECE);
            let piece =
                tokio::task::spawn_blocking(move || read(&file, at, length)).await.map_err(io::Error::other)??;
            Ok(Some((piece, (fetch, at + length))))
        }))
    }
}

/// Others read the same file at the same time, so it has no position.
fn read(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}
