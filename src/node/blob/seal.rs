//! Blobs sealed with the cluster's key, so that a storage holds nothing that can be read without it.
//!
//! Each blob has a key of its own, derived from the cluster's and the blob's digest (HMAC-SHA-256), and is sealed in segments
//! of 64 KiB with AES-256-GCM, numbered, the last one marked: a range needs only its segments, and none can be left out,
//! changed or moved unseen. One content always gives one sealed form, so sealing twice is harmless.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::try_unfold;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

use super::Bytestream;
use crate::types::{Secret, Sha256};

/// Plain bytes of a segment.
const SEGMENT: u64 = 64 * 1024;
/// What a segment grows by: its tag.
const TAG: u64 = 16;
const SEALED: u64 = SEGMENT + TAG;

/// Seals and opens.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    key: Secret<[u8; 32]>,
}

impl Seal {
    pub(super) fn new(key: Secret<[u8; 32]>) -> Self {
        Self { key }
    }

    fn key(&self, digest: &Sha256) -> io::Result<LessSafeKey> {
        let master = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        let mut context = hmac::Context::with_key(&master);
        context.update(b"bowline blob 1");
        context.update(digest.bytes());
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).map_err(|_| broken())?;
        Ok(LessSafeKey::new(key))
    }

    /// Seals a file into another. Blocks.
    pub(super) fn seal(&self, digest: &Sha256, plain: &mut File, size: u64, sealed: &mut impl Write) -> io::Result<()> {
        let key = self.key(digest)?;
        let count = size.div_ceil(SEGMENT).max(1);
        let mut left = size;
        for number in 0..count {
            let mut segment = vec![0; usize::try_from(left.min(SEGMENT)).map_err(io::Error::other)?];
            plain.read_exact(&mut segment)?;
            left -= segment.len() as u64;
            let nonce = nonce(number, number + 1 == count);
            key.seal_in_place_append_tag(nonce, Aad::empty(), &mut segment).map_err(|_| broken())?;
            sealed.write_all(&segment)?;
        }
        Ok(())
    }

    /// Plain bytes of a blob that has so many sealed.
    pub(super) fn plain_size(sealed: u64) -> u64 {
        sealed.saturating_sub(sealed.div_ceil(SEALED).max(1) * TAG)
    }

    /// Which sealed bytes a range of plain ones needs.
    pub(super) fn sealed_range(range: &Range<u64>, sealed_size: u64) -> Range<u64> {
        let first = range.start / SEGMENT;
        let last = range.end.max(range.start + 1).div_ceil(SEGMENT);
        first * SEALED..(last * SEALED).min(sealed_size)
    }

    /// Opens what [`Self::sealed_range`] asked for.
    pub(super) fn open(
        &self,
        digest: &Sha256,
        range: Range<u64>,
        sealed_size: u64,
        sealed: Bytestream,
    ) -> io::Result<Bytestream> {
        let key = self.key(digest)?;
        let count = sealed_size.div_ceil(SEALED).max(1);
        let first = range.start / SEGMENT;
        let state = Opening {
            key,
            sealed,
            buffer: BytesMut::new(),
            number: first,
            count,
            skip: range.start - first * SEGMENT,
            left: range.end - range.start,
        };
        Ok(Box::pin(try_unfold(state, Opening::next)))
    }
}

struct Opening {
    key: LessSafeKey,
    sealed: Bytestream,
    /// Sealed bytes that have come.
    buffer: BytesMut,
    /// Of the next segment.
    number: u64,
    count: u64,
    /// Plain bytes before the range.
    skip: u64,
    /// Plain bytes of the range.
    left: u64,
}

impl Opening {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let is_last = self.number + 1 == self.count;
        while (self.buffer.len() as u64) < SEALED {
            match self.sealed.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece?),
                None => break,
            }
        }
        let length = self.buffer.len().min(usize::try_from(SEALED).map_err(io::Error::other)?);
        let mut segment = self.buffer.split_to(length);
        let nonce = nonce(self.number, is_last);
        let opened = self.key.open_in_place(nonce, Aad::empty(), &mut segment).map_err(|_| broken())?.len();
        segment.truncate(opened);
        let mut plain = segment.freeze();
        let skip = usize::try_from(self.skip).map_err(io::Error::other)?.min(plain.len());
        let plain_left = plain.split_off(skip);
        self.skip = 0;
        self.number += 1;
        let taken = usize::try_from(self.left).map_or(plain_left.len(), |left| left.min(plain_left.len()));
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= taken as u64;
        Ok(Some((plain_left.slice(..taken), self)))
    }
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a sealed blob was changed, or sealed with another key")
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use sha2::Digest;

    use super::*;

    fn sealed(seal: &Seal, plain: &[u8]) -> (Sha256, Vec<u8>) {
        let digest = Sha256::new(sha2::Sha256::digest(plain).into());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(plain).unwrap();
        file.rewind().unwrap();
        let mut out = Vec::new();
        seal.seal(&digest, &mut file, plain.len() as u64, &mut out).unwrap();
        (digest, out)
    }

    async fn opened(seal: &Seal, digest: &Sha256, all: &[u8], range: Range<u64>) -> io::Result<Vec<u8>> {
        let size = all.len() as u64;
        let part = Seal::sealed_range(&range, size);
        let part = Bytes::copy_from_slice(&all[part.start as usize..part.end as usize]);
        // In pieces that fit no segment.
        let pieces: Vec<io::Result<Bytes>> = part.chunks(10_007).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let stream = Box::pin(futures_util::stream::iter(pieces));
        let mut out = Vec::new();
        let mut plain = seal.open(digest, range, size, stream)?;
        while let Some(piece) = plain.next().await {
            out.extend_from_slice(&piece?);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn every_range_opens_to_what_was_sealed_and_nothing_else_opens() {
        let seal = Seal::new(Secret::new([7; 32]));
        for size in [0_usize, 1, 65_535, 65_536, 65_537, 200_000] {
            let plain: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let (digest, all) = sealed(&seal, &plain);
            assert_eq!(Seal::plain_size(all.len() as u64), size as u64);
            let ranges =
                [(0, size), (0, size.min(1)), (size / 2, size), (size.saturating_sub(1), size), (size / 3, size / 2)];
            for (start, end) in ranges {
                let got = opened(&seal, &digest, &all, start as u64..end as u64).await.unwrap();
                assert!(got == plain[start..end], "{size}: {start}..{end}");
            }
        }
        let plain = vec![1; 200_000];
        let (digest, all) = sealed(&seal, &plain);
        let whole = 0..200_000;
        let mut changed = all.clone();
        changed[70_000] ^= 1;
        assert!(opened(&seal, &digest, &changed, whole.clone()).await.is_err());
        let mut swapped = all.clone();
        swapped[..65_552].copy_from_slice(&all[65_552..131_104]);
        assert!(opened(&seal, &digest, &swapped, whole.clone()).await.is_err());
        assert!(opened(&seal, &digest, &all[..131_104], 0..131_072).await.is_err(), "cut off at a segment");
        let other = Seal::new(Secret::new([8; 32]));
        assert!(opened(&other, &digest, &all, whole).await.is_err());
    }
}
