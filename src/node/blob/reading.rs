//! A range of a file as a stream. What the system has in memory is read at once; the rest by a thread, because a disk, and
//! NFS most of all, may take its time.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use futures_util::stream::try_unfold;
use rustix::io::{ReadWriteFlags, preadv2};

use super::{BlobError, Bytestream, blocking};

/// Bytes read at once, and handed on as one piece.
const PIECE: usize = 256 * 1024;
/// Buffers kept for the next pieces.
const BUFFERS: usize = 32;

/// Buffers that were used and will be again, so that the system need not clear new ones for every piece.
#[derive(Clone, Debug)]
pub(super) struct Buffers(Arc<ArrayQueue<Box<[u8]>>>);

impl Default for Buffers {
    fn default() -> Self {
        Self(Arc::new(ArrayQueue::new(BUFFERS)))
    }
}

impl Buffers {
    fn take(&self) -> Buffer {
        let bytes = self.0.pop().unwrap_or_else(|| vec![0; PIECE].into());
        Buffer { bytes, length: 0, home: self.clone() }
    }
}

/// A piece; its buffer goes home when the last byte is sent.
struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    home: Buffers,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // With enough of them there already it goes to the system.
        let _ = self.home.0.push(std::mem::take(&mut self.bytes));
    }
}

/// A file that is being read; what was opened beside it is held until the last byte is.
struct Reading<T> {
    file: Arc<File>,
    _held: T,
    at: u64,
    end: u64,
    buffers: Buffers,
}

/// A range of a file.
pub(super) async fn stream<T: Send + 'static>(
    open: impl FnOnce() -> io::Result<(File, T)> + Send + 'static,
    range: Range<u64>,
    buffers: Buffers,
) -> Result<Bytestream, BlobError> {
    let (file, held) = blocking(move || open().map_err(BlobError::Unavailable)).await?;
    let reading = Reading { file: Arc::new(file), _held: held, at: range.start, end: range.end, buffers };
    Ok(Box::pin(try_unfold(reading, Reading::next)))
}

impl<T> Reading<T> {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let mut buffer = self.buffers.take();
        let length = usize::try_from(self.end - self.at).map_or(PIECE, |left| left.min(PIECE));
        let slice = &mut [IoSliceMut::new(&mut buffer.bytes[..length])];
        buffer.length = match preadv2(&self.file, slice, self.at, ReadWriteFlags::NOWAIT) {
            Ok(n) if n > 0 => n,
            // Not in memory, or the filesystem cannot tell, or the end: the thread finds out.
            _ => {
                let (file, at) = (Arc::clone(&self.file), self.at);
                let read = tokio::task::spawn_blocking(move || {
                    let n = file.read_at(&mut buffer.bytes[..length], at)?;
                    Ok::<_, io::Error>((buffer, n))
                });
                let n;
                (buffer, n) = read.await.map_err(io::Error::other)??;
                n
            }
        };
        if buffer.length == 0 {
            // A short blob with a full length would be taken for a whole one.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += buffer.length as u64;
        Ok(Some((Bytes::from_owner(buffer), self)))
    }
}
