//! Copies on this machine's disk of blobs that are far away; bounded, the least used go first.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use moka::future::Cache;
use sha2::Digest as _;

use super::{BlobError, Bytestream, blocking};
use crate::runtime::dice;
use crate::types::Sha256;

/// Larger blobs are not worth waiting for as a whole: they are streamed from where they are.
pub(super) const BLOB_MAX: u64 = 128 << 20;

/// Copies, by digest.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    folder: Arc<Path>,
    copies: Cache<Sha256, Arc<Copy>>,
}

/// A whole copy, verified. Its file goes when nobody reads it any more.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
    size: u64,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Copy {
    /// The file, open.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}

impl Disk {
    /// In a folder that is this process's own.
    pub(super) fn new(folder: &Path, bytes_max: u64) -> Self {
        let weigh = |_: &Sha256, copy: &Arc<Copy>| u32::try_from(copy.size / 1024 + 1).unwrap_or(u32::MAX);
        let copies = Cache::builder().weigher(weigh).max_capacity(bytes_max / 1024).build();
        Self { folder: folder.into(), copies }
    }

    /// The copy of a blob; who asks while it is fetched waits for the one fetch.
    pub(super) async fn copy(
        &self,
        digest: Sha256,
        fetch: impl Future<Output = Result<Bytestream, BlobError>>,
    ) -> Result<Arc<Copy>, BlobError> {
        let path = self.folder.join(format!("{:032x}.copy", dice::unique()));
        let made = self.copies.try_get_with(digest, async {
            let mut stream = fetch.await?;
            let to = path.clone();
            let mut file = blocking(move || File::create_new(to).map_err(BlobError::Unavailable)).await?;
            let mut copy = Copy { path, size: 0 };
            let mut hash = sha2::Sha256::new();
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(BlobError::Unavailable)?;
                copy.size += piece.len() as u64;
                (file, hash) = blocking(move || {
                    hash.update(&piece);
                    file.write_all(&piece).map_err(BlobError::Unavailable)?;
                    Ok((file, hash))
                })
                .await?;
            }
            if Sha256::new(hash.finalize().into()) != digest {
                return Err(BlobError::Unavailable(io::Error::other("the storage gave other bytes than were kept")));
            }
            Ok(Arc::new(copy))
        });
        made.await.map_err(|shared: Arc<BlobError>| match &*shared {
            BlobError::Missing(digest) => BlobError::Missing(*digest),
            BlobError::Unavailable(error) => BlobError::Unavailable(io::Error::new(error.kind(), error.to_string())),
        })
    }
}
