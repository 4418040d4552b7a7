//! What we hold: bytes named by their SHA-256, by class. They are whole and on stable storage before any row names them, and
//! are never changed.

mod directory;
mod spool;

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::Stream;

use self::directory::Directory;
pub use self::spool::{Spool, Spooled, Spooling};
use crate::config::node::Place;
use crate::types::Sha256;

/// A stream of a blob's bytes. An error within it means that what came so far is not the whole.
pub type Bytestream = std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where blobs of one class are kept.
#[derive(Clone, Debug)]
pub struct Blobs {
    place: Directory,
}

/// Why a blob could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none of this name.
    #[error("there is no blob {0}")]
    Missing(Sha256),
    /// The storage is away, full or read-only.
    #[error("the storage does not take or give bytes: {0}")]
    Unavailable(#[source] io::Error),
}

impl Blobs {
    /// Opens a place, making what is missing of it. Blocks for a moment.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(place: &Place) -> io::Result<Self> {
        let Place::Directory(path) = place;
        Ok(Self { place: Directory::open(path)? })
    }

    /// Keeps what was spooled; afterwards it is on stable storage under its digest. Idempotent.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]; nothing is left behind under the name.
    pub async fn keep(&self, spooled: &Spooled) -> Result<(), BlobError> {
        let (place, digest, path) = (self.place.clone(), spooled.digest(), spooled.path().to_owned());
        blocking(move || place.keep(&digest, &path)).await
    }

    /// Bytes of a blob.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn size(&self, digest: &Sha256) -> Result<u64, BlobError> {
        self.place.size(digest).await
    }

    /// Leaves a mark that every node on the same storage sees, and returns all marks there are: those of nodes that share it.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn mark(&self, mark: &str) -> Result<Vec<String>, BlobError> {
        let (place, mark) = (self.place.clone(), mark.to_owned());
        blocking(move || place.mark(&mark).map_err(BlobError::Unavailable)).await
    }

    /// Takes a mark away.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn unmark(&self, mark: &str) -> Result<(), BlobError> {
        let (place, mark) = (self.place.clone(), mark.to_owned());
        blocking(move || place.unmark(&mark).map_err(BlobError::Unavailable)).await
    }

    /// A range of a blob, which must lie within it.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn read(&self, digest: &Sha256, range: Range<u64>) -> Result<Bytestream, BlobError> {
        self.place.read(digest, range).await
    }
}

/// File systems block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(BlobError::Unavailable(io::Error::other(e))))
}

#[cfg(test)]
mod tests;
