//! What we hold: bytes named by their SHA-256, by class. They are whole and on stable storage before any row names them, and
//! are never changed.

mod bucket;
mod directory;
mod disk;
mod reading;
mod seal;
mod spool;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use moka::sync::Cache;
use tokio::sync::Semaphore;

use self::bucket::Bucket;
use self::directory::Directory;
use self::disk::Disk;
use self::reading::Buffers;
use self::seal::Seal;
pub use self::spool::{Scratch, Spool, Spooled, Spooling};
use crate::config::node::{Place, Where};
use crate::types::{Secret, Sha256};

/// A stream of a blob's bytes. An error within it means that what came so far is not the whole.
pub type Bytestream = std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A blob, or a range of it.
pub enum Content {
    /// All of that, in memory.
    Whole(Bytes),
    /// As it is read.
    Stream(Bytestream),
}

/// Where blobs of one class are kept.
#[derive(Clone, Debug)]
pub struct Blobs {
    /// As it is configured.
    place: Place,
    at: At,
    seal: Seal,
    spool: Spool,
    /// For what is far away.
    disk: Disk,
    /// How blobs that were asked for are kept.
    known: Cache<Sha256, Stored>,
    /// Small blobs that are asked for often, plain.
    hot: Cache<Sha256, Bytes>,
    warming: Arc<Semaphore>,
    buffers: Buffers,
}

#[derive(Clone, Debug)]
enum At {
    Directory(Directory),
    Bucket(Arc<Bucket>),
}

impl At {
    async fn open(at: &Where, buffers: &Buffers) -> io::Result<Self> {
        match at {
            Where::Directory(path) => {
                let (path, buffers) = (path.clone(), buffers.clone());
                let opened = tokio::task::spawn_blocking(move || Directory::open(&path, buffers)).await;
                Ok(Self::Directory(opened.map_err(io::Error::other)??))
            }
            Where::S3(settings) => Ok(Self::Bucket(Arc::new(Bucket::open(settings).await?))),
        }
    }
}

/// What a blob is called where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    digest: Sha256,
    is_sealed: bool,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.digest, if self.is_sealed { ".sealed" } else { "" })
    }
}

impl Name {
    /// The digest in a name; `None`: it is no blob's.
    fn digest_of(name: &str) -> Option<Sha256> {
        name.strip_suffix(".sealed").unwrap_or(name).parse().ok()
    }
}

/// How a blob is kept.
#[derive(Clone, Copy, Debug)]
struct Stored {
    name: Name,
    /// Bytes there.
    size: u64,
}

impl Stored {
    fn plain_size(&self) -> u64 {
        if self.name.is_sealed { Seal::plain_size(self.size) } else { self.size }
    }
}

/// Why a blob could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none of this name.
    #[error("there is no blob {0}")]
    Missing(Sha256),
    /// The storage is away, full or read-only.
    #[error("the storage does not take or give bytes")]
    Unavailable(#[source] io::Error),
}

/// How many blobs' sizes are remembered.
const KNOWN_MAX: u64 = 200_000;
/// Blobs up to this size are held in memory: core metadata, and most packages. A slow client keeps as much from being freed.
const HOT_BLOB_MAX: u64 = 512 << 10;
/// Bytes of all of them.
const HOT_MAX: u64 = 128 << 20;
/// How many are brought into memory at a time; who comes then gets a stream.
const WARMING_MAX: usize = 32;

impl Blobs {
    /// Opens a place, making what is missing of it.
    ///
    /// `key`: of the cluster. `disk_bytes`: what copies of far blobs may take beside the spool.
    ///
    /// # Errors
    /// It cannot be made or written, or does not answer.
    pub async fn open(place: &Place, key: Secret<[u8; 32]>, spool: Spool, disk_bytes: u64) -> io::Result<Self> {
        let buffers = Buffers::default();
        let at = At::open(&place.at, &buffers).await?;
        let disk = Disk::new(spool.folder(), disk_bytes);
        let known = Cache::new(KNOWN_MAX);
        let weigh = |_: &Sha256, bytes: &Bytes| u32::try_from(bytes.len() + 256).unwrap_or(u32::MAX);
        let warming = Arc::new(Semaphore::new(WARMING_MAX));
        let hot = Cache::builder().weigher(weigh).max_capacity(HOT_MAX).build();
        let place = place.clone();
        Ok(Self { place, at, seal: Seal::new(key), spool, disk, known, hot, warming, buffers })
    }

    /// As [`Self::open`], for blobs of another class, whose place may be the same: what this machine has of blobs, in memory and
    /// on its disk, is bounded for both together.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn beside(&self, place: &Place) -> io::Result<Self> {
        let (at, known) = match place.at == self.place.at {
            true => (self.at.clone(), self.known.clone()),
            false => (At::open(&place.at, &self.buffers).await?, Cache::new(KNOWN_MAX)),
        };
        Ok(Self { place: place.clone(), at, known, ..self.clone() })
    }

    /// Where they are, as it is configured.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// New blobs are sealed. Old ones are read either way.
    fn seals(&self) -> bool {
        self.place.encrypt
    }

    /// Clients are sent to the storage itself.
    fn redirects(&self) -> bool {
        matches!(&self.place.at, Where::S3(settings) if settings.redirect) && !self.seals()
    }

    /// Keeps what was spooled; afterwards it is on stable storage under its digest. Idempotent.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]; nothing is left behind under the name.
    pub async fn keep(&self, spooled: &Spooled) -> Result<(), BlobError> {
        self.keep_if(spooled, false).await
    }

    /// As [`Self::keep`], but writes it even if it seems to be there.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub async fn keep_anew(&self, spooled: &Spooled) -> Result<(), BlobError> {
        self.known.invalidate(&spooled.digest());
        self.keep_if(spooled, true).await
    }

    async fn keep_if(&self, spooled: &Spooled, anew: bool) -> Result<(), BlobError> {
        let name = Name { digest: spooled.digest(), is_sealed: self.seals() };
        if !self.seals() {
            return self.put(name, spooled, anew).await;
        }
        let (seal, spool, digest) = (self.seal.clone(), self.spool.clone(), spooled.digest());
        let (plain, size) = (spooled.path().to_owned(), spooled.size());
        let sealed = blocking(move || {
            let sealed = File::open(plain).and_then(|mut plain| {
                let mut sealed = spool.begin()?;
                seal.seal(&digest, &mut plain, size, &mut sealed)?;
                sealed.finish()
            });
            sealed.map_err(BlobError::Unavailable)
        })
        .await?;
        self.put(name, &sealed, anew).await
    }

    async fn put(&self, name: Name, spooled: &Spooled, anew: bool) -> Result<(), BlobError> {
        let path = spooled.path().to_owned();
        match &self.at {
            At::Directory(directory) => {
                let directory = directory.clone();
                blocking(move || directory.keep(&name, &path, anew)).await
            }
            At::Bucket(bucket) => bucket.keep(&name, &path, anew).await,
        }
    }

    /// Every blob there is, and takes away what writers that died left long ago.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn digests(&self) -> Result<Vec<Sha256>, BlobError> {
        let mut all: Vec<Sha256> = match &self.at {
            At::Directory(directory) => {
                let directory = directory.clone();
                blocking(move || directory.digests().map_err(BlobError::Unavailable)).await?
            }
            At::Bucket(bucket) => bucket.digests().await?,
        };
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Deletes a blob, if there is one; what it took, bytes.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn delete(&self, digest: &Sha256) -> Result<u64, BlobError> {
        let mut freed = 0;
        for is_sealed in [false, true] {
            let name = Name { digest: *digest, is_sealed };
            freed += match &self.at {
                At::Directory(directory) => {
                    let directory = directory.clone();
                    blocking(move || directory.delete(&name).map_err(BlobError::Unavailable)).await?
                }
                At::Bucket(bucket) => bucket.delete(&name).await?,
            };
        }
        self.known.invalidate(digest);
        Ok(freed)
    }

    /// Leaves a mark that every node on the same storage sees, and returns all marks there are: those of nodes that share it.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn mark(&self, mark: &str) -> Result<Vec<String>, BlobError> {
        match &self.at {
            At::Directory(directory) => {
                let (directory, mark) = (directory.clone(), mark.to_owned());
                blocking(move || directory.mark(&mark).map_err(BlobError::Unavailable)).await
            }
            At::Bucket(bucket) => bucket.mark(mark).await,
        }
    }

    /// Takes a mark away.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`].
    pub async fn unmark(&self, mark: &str) -> Result<(), BlobError> {
        match &self.at {
            At::Directory(directory) => {
                let (directory, mark) = (directory.clone(), mark.to_owned());
                blocking(move || directory.unmark(&mark).map_err(BlobError::Unavailable)).await
            }
            At::Bucket(bucket) => bucket.unmark(mark).await,
        }
    }

    /// Bytes of a blob.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn size(&self, digest: &Sha256) -> Result<u64, BlobError> {
        Ok(self.find(digest).await?.plain_size())
    }

    /// A link by which a client gets a blob from the storage itself; `None`: it should not.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn link(&self, digest: &Sha256) -> Result<Option<String>, BlobError> {
        let At::Bucket(bucket) = &self.at else { return Ok(None) };
        if !self.redirects() {
            return Ok(None);
        }
        let stored = self.find(digest).await?;
        if stored.name.is_sealed { Ok(None) } else { bucket.signed(&stored.name).await.map(Some) }
    }

    /// A range of a blob, which must lie within it; from memory where that has it.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn get(&self, digest: &Sha256, range: Range<u64>) -> Result<Content, BlobError> {
        let slice = |whole: &Bytes| {
            let at = |n: u64| usize::try_from(n).map_or(whole.len(), |n| n.min(whole.len()));
            Content::Whole(whole.slice(at(range.start)..at(range.end)))
        };
        if let Some(whole) = self.hot.get(digest) {
            return Ok(slice(&whole));
        }
        let size = self.size(digest).await?;
        let Some(_place) = (size <= HOT_BLOB_MAX).then(|| self.warming.try_acquire().ok()).flatten() else {
            return self.read(digest, range).await.map(Content::Stream);
        };
        let mut stream = self.read(digest, 0..size).await?;
        let mut whole = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        while let Some(piece) = stream.next().await {
            whole.extend_from_slice(&piece.map_err(BlobError::Unavailable)?);
        }
        if whole.len() as u64 != size {
            return Err(BlobError::Unavailable(io::ErrorKind::UnexpectedEof.into()));
        }
        let whole = Bytes::from(whole);
        self.hot.insert(*digest, whole.clone());
        Ok(slice(&whole))
    }

    /// A range of a blob, which must lie within it.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn read(&self, digest: &Sha256, range: Range<u64>) -> Result<Bytestream, BlobError> {
        let stored = self.find(digest).await?;
        let read = match &self.at {
            At::Bucket(_) if stored.size <= disk::BLOB_MAX => {
                let copy = self.disk.copy(*digest, self.plain(stored, 0..stored.plain_size())).await?;
                reading::stream(move || copy.open().map(|file| (file, copy)), range, self.buffers.clone()).await
            }
            _ => self.plain(stored, range).await,
        };
        if matches!(read, Err(BlobError::Missing(_))) {
            self.known.invalidate(digest);
        }
        read
    }

    async fn plain(&self, stored: Stored, range: Range<u64>) -> Result<Bytestream, BlobError> {
        let Stored { name, size } = stored;
        if !name.is_sealed {
            return self.fetch(&name, range).await;
        }
        let sealed = self.fetch(&name, Seal::sealed_range(&range, size)).await?;
        self.seal.open(&name.digest, range, size, sealed).map_err(BlobError::Unavailable)
    }

    async fn fetch(&self, name: &Name, range: Range<u64>) -> Result<Bytestream, BlobError> {
        match &self.at {
            At::Directory(directory) => directory.read(name, range).await,
            At::Bucket(bucket) => bucket.read(name, range).await,
        }
    }

    /// How a blob is kept: sealed or not, whatever new ones are.
    async fn find(&self, digest: &Sha256) -> Result<Stored, BlobError> {
        if let Some(stored) = self.known.get(digest) {
            return Ok(stored);
        }
        for is_sealed in [self.seals(), !self.seals()] {
            let name = Name { digest: *digest, is_sealed };
            let size = match &self.at {
                At::Directory(directory) => directory.size(&name).await?,
                At::Bucket(bucket) => bucket.size(&name).await?,
            };
            if let Some(size) = size {
                let stored = Stored { name, size };
                self.known.insert(*digest, stored);
                return Ok(stored);
            }
        }
        Err(BlobError::Missing(*digest))
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
