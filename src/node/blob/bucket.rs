//! Blobs in an S3 bucket, or in what speaks its protocol: `PREFIX/sha256/ab/cd/abcd…`.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path as FilePath;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt,
    PutPayload, RetryConfig,
};
use std::sync::Arc;

use super::{BlobError, Bytestream, Name, blocking};
use crate::config::node::S3;
use crate::types::Sha256;

/// Bytes of one part of a large upload.
const PART: usize = 16 << 20;
/// Parts on their way at once.
const PARTS: usize = 4;
/// How long somebody may follow a signed link.
const SIGNED: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    prefix: String,
}

impl Bucket {
    /// Asks the bucket once, so that a wrong name or key is found at the start.
    pub(super) async fn open(settings: &S3) -> io::Result<Self> {
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_read_timeout(Duration::from_secs(20))
            // Of the whole transfer, which takes as long as it moves.
            .with_timeout_disabled()
            .with_allow_http(true);
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: Duration::from_secs(15) };
        // What is not configured comes from AWS_* variables, or from the machine's role.
        let mut builder = AmazonS3Builder::from_env()
            .with_client_options(client)
            .with_retry(retry)
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(!settings.path_style);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some((id, file)) = &settings.credentials {
            let secret = std::fs::read_to_string(file)?;
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.trim());
        }
        let store = Arc::new(builder.build().map_err(io::Error::other)?);
        let prefix = settings.prefix.as_deref().map(|prefix| format!("{}/", prefix.trim_matches('/')));
        let bucket = Self { store, prefix: prefix.unwrap_or_default() };
        bucket.marks().await.map_err(|e| match e {
            BlobError::Unavailable(error) => error,
            BlobError::Missing(_) => io::ErrorKind::NotFound.into(),
        })?;
        Ok(bucket)
    }

    fn path(&self, name: &Name) -> Path {
        let name = name.to_string();
        Path::from(format!("{}sha256/{}/{}/{name}", self.prefix, &name[..2], &name[2..4]))
    }

    /// One request shows the whole of it, or, of a large one, the last of several.
    pub(super) async fn keep(&self, name: &Name, spooled: &FilePath, anew: bool) -> Result<(), BlobError> {
        if !anew && self.size(name).await?.is_some() {
            return Ok(());
        }
        let (path, spooled) = (self.path(name), spooled.to_owned());
        let mut file = blocking(move || File::open(spooled).map_err(BlobError::Unavailable)).await?;
        let first;
        (file, first) = part(file).await?;
        if first.len() < PART {
            self.store.put(&path, PutPayload::from_bytes(first)).await.map_err(unavailable)?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(&path).await.map_err(unavailable)?;
        let sent = send(&mut *upload, file, first).await;
        if sent.is_err() {
            // What was sent of it would be kept, and paid for, without a name.
            let _ = upload.abort().await;
        }
        sent
    }

    /// `None`: there is none.
    pub(super) async fn size(&self, name: &Name) -> Result<Option<u64>, BlobError> {
        match self.store.head(&self.path(name)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    pub(super) async fn read(&self, name: &Name, range: Range<u64>) -> Result<Bytestream, BlobError> {
        let mut left = range.end.saturating_sub(range.start);
        if left == 0 {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = match self.store.get_opts(&self.path(name), options).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Err(BlobError::Missing(name.digest)),
            Err(error) => return Err(unavailable(error)),
        };
        let stream = got.into_stream().map_err(io::Error::other);
        // A short blob with a full length would be taken for a whole one.
        let end = futures_util::stream::once(async { Ok(Bytes::new()) });
        let checked = stream.chain(end).map(move |piece| {
            let piece: Bytes = piece?;
            if piece.is_empty() && left > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(piece.len() as u64);
            Ok(piece)
        });
        Ok(Box::pin(checked))
    }

    /// A link by which anybody may read a blob for a while.
    pub(super) async fn signed(&self, name: &Name) -> Result<String, BlobError> {
        let url = self.store.signed_url(http::Method::GET, &self.path(name), SIGNED).await;
        Ok(url.map_err(unavailable)?.to_string())
    }

    pub(super) async fn digests(&self) -> Result<Vec<Sha256>, BlobError> {
        let folder = Path::from(format!("{}sha256", self.prefix));
        let named = self.store.list(Some(&folder)).map_ok(|found| found.location.filename().and_then(Name::digest_of));
        named.try_filter_map(|digest| std::future::ready(Ok(digest))).try_collect().await.map_err(unavailable)
    }

    /// Bytes it took; 0 where there is none.
    pub(super) async fn delete(&self, name: &Name) -> Result<u64, BlobError> {
        let Some(size) = self.size(name).await? else { return Ok(0) };
        match self.store.delete(&self.path(name)).await {
            Ok(()) => Ok(size),
            Err(Error::NotFound { .. }) => Ok(0),
            Err(error) => Err(unavailable(error)),
        }
    }

    pub(super) async fn mark(&self, mark: &str) -> Result<Vec<String>, BlobError> {
        let path = Path::from(format!("{}nodes/{mark}", self.prefix));
        self.store.put(&path, PutPayload::default()).await.map_err(unavailable)?;
        self.marks().await
    }

    async fn marks(&self) -> Result<Vec<String>, BlobError> {
        let folder = Path::from(format!("{}nodes", self.prefix));
        let listed = self.store.list_with_delimiter(Some(&folder)).await.map_err(unavailable)?;
        Ok(listed.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    pub(super) async fn unmark(&self, mark: &str) -> Result<(), BlobError> {
        match self.store.delete(&Path::from(format!("{}nodes/{mark}", self.prefix))).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// The next part of a file; shorter than [`PART`] at its end.
async fn part(mut file: File) -> Result<(File, Bytes), BlobError> {
    blocking(move || {
        let mut bytes = Vec::with_capacity(PART);
        (&mut file).take(PART as u64).read_to_end(&mut bytes).map_err(BlobError::Unavailable)?;
        Ok((file, bytes.into()))
    })
    .await
}

async fn send(upload: &mut dyn MultipartUpload, mut file: File, first: Bytes) -> Result<(), BlobError> {
    let mut sending = futures_util::stream::FuturesUnordered::new();
    let mut next = first;
    while !next.is_empty() {
        let is_last = next.len() < PART;
        sending.push(upload.put_part(PutPayload::from_bytes(next)));
        if sending.len() >= PARTS {
            sending.try_next().await.map_err(unavailable)?;
        }
        if is_last {
            break;
        }
        (file, next) = part(file).await?;
    }
    while sending.try_next().await.map_err(unavailable)?.is_some() {}
    upload.complete().await.map(drop).map_err(unavailable)
}

fn unavailable(error: Error) -> BlobError {
    BlobError::Unavailable(io::Error::other(error))
}
