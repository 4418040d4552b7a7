//! Pull-through: what no local source has is asked of other indexes, kept, and served while they are away.

pub mod archive;
pub mod fetch;
pub mod lists;
pub mod page;
pub mod sync;
pub mod tree;
pub mod uses;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use moka::sync::Cache;
use sha2::Digest;

use self::archive::RemoteArchive;
use self::fetch::{CHANGED, Failed, Fetcher, Fetches, Progress};
use self::lists::{Listed, Lists, Question};
use self::page::RemoteFile;
use self::tree::RemotePackage;
use self::uses::Uses;
use super::blob::BlobError;
use super::download::{self, Wanted};
use super::error::Failure;
use super::parts::{Parts, keep_and_name};
use super::pypi::name;
use super::store::{Remote, RemoteDay, Repository, StoreError};
use crate::telemetry::Causes;
use crate::types::Sha256;

/// What other indexes have.
#[derive(Clone)]
pub struct Remotes {
    client: reqwest::Client,
    projects: Lists<RemoteFile>,
    trees: Lists<RemotePackage>,
    archives: Lists<RemoteArchive>,
    fetches: Fetches,
    /// Digests of files that are kept here, by source and path, for as long as their index promises the same.
    kept: Cache<(i64, String), (Promise, Sha256)>,
    /// Files that are no longer what their index promised on a day, by source and path: not fetched for everybody who asks.
    changed: Cache<(i64, String), ()>,
    uses: Arc<Uses>,
}

/// How many files' digests are remembered.
const KEPT_MAX: u64 = 50_000;
/// How many that have changed.
const CHANGED_MAX: u64 = 10_000;
/// How long that is believed.
const CHANGED_HOLDS: Duration = Duration::from_secs(3600);

/// A file of another index.
#[derive(Clone, Debug)]
pub struct RemoteBlob {
    /// Whose.
    pub remote: Arc<Remote>,
    /// Where to get it.
    pub url: String,
    /// Where else below its source's URL, if it is no longer there; whoever looks there later finds it kept under this too.
    pub otherwise: Option<String>,
    /// What rows call it first of all.
    pub path: String,
    /// What it must be.
    pub promise: Promise,
    /// The promise is of a day that is over: who has other bytes of that name by now has not that file any more, which is told
    /// before anything of it is passed on.
    pub is_past: bool,
}

impl RemoteBlob {
    /// What rows call it. In one order everywhere, so that nobody waits for a row while holding what another one waits for.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = std::iter::once(&self.path).chain(&self.otherwise).map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// What an index says of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Their SHA-256.
    Sha256(Sha256),
    /// Their MD5, hexadecimal: all that CRAN's indexes tell.
    Md5(String),
    /// Nothing: CRAN's Archive has no index of digests.
    Nothing,
}

impl Remotes {
    /// With one pool of connections.
    ///
    /// # Errors
    /// There is no TLS.
    pub fn new() -> io::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(20))
            .user_agent(concat!("bowline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(5))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            client,
            projects: Lists::default(),
            trees: Lists::with_days(),
            archives: Lists::with_days(),
            fetches: Fetches::default(),
            kept: Cache::new(KEPT_MAX),
            changed: Cache::builder().max_capacity(CHANGED_MAX).time_to_live(CHANGED_HOLDS).build(),
            uses: Arc::default(),
        })
    }

    /// What was used of what is kept here.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// What the first of a repository's other indexes that has a Python project says of it. A name of ours is asked of nobody,
    /// whatever we show of it, and whenever.
    ///
    /// # Errors
    /// 503: none of them has it, and one that might does not answer.
    pub async fn project(
        &self,
        parts: &Parts,
        repository: &Repository,
        normal_name: &str,
    ) -> Result<Option<(Arc<Remote>, Arc<Listed<RemoteFile>>)>, Failure> {
        if repository.remotes.is_empty() || !name::is_valid(normal_name) {
            return Ok(None);
        }
        let key = (repository.id, normal_name.to_owned());
        let read = async || parts.store.owns(repository.id, normal_name).await;
        if parts.owned.get::<Failure>(key, repository.generation, read).await? {
            return Ok(None);
        }
        for remote in repository.remotes.iter().filter(|remote| remote.allows(normal_name)) {
            let url = format!("{}{normal_name}/", remote.url);
            let question = Question { url, accept: page::FORMS, client: &self.client };
            // A later index must not step in for one that is away: it could have other files of that name.
            let listed = self.projects.get(parts, remote, normal_name, &question, page::read).await?;
            if listed.files.is_some() {
                return Ok(Some((remote.clone(), listed)));
            }
        }
        Ok(None)
    }

    /// What another index has in a folder of a CRAN tree, such as `src/contrib`.
    ///
    /// # Errors
    /// 503: it does not answer, and what it said is not kept.
    pub async fn tree(
        &self,
        parts: &Parts,
        remote: &Remote,
        folder: &str,
    ) -> Result<Arc<Listed<RemotePackage>>, Failure> {
        let question =
            Question { url: format!("{}{folder}/PACKAGES.gz", remote.url), accept: "*/*", client: &self.client };
        self.trees.get(parts, remote, folder, &question, tree::read).await
    }

    /// What another index had in a folder by the end of a day that is over, as far as anybody asked it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tree_on(
        &self,
        parts: &Parts,
        remote: &Remote,
        folder: &str,
        as_of: i64,
    ) -> Result<Option<RemoteDay>, StoreError> {
        self.trees.day(parts, remote, folder, as_of).await
    }

    /// What that was.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn tree_of(&self, parts: &Parts, day: &RemoteDay) -> Result<Arc<Listed<RemotePackage>>, StoreError> {
        self.trees.of_day(parts, day).await
    }

    /// As [`Self::tree_of`], of its Archive.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn archive_of(&self, parts: &Parts, day: &RemoteDay) -> Result<Arc<Listed<RemoteArchive>>, StoreError> {
        self.archives.of_day(parts, day).await
    }

    /// As [`Self::tree_on`], of its Archive.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn archive_on(
        &self,
        parts: &Parts,
        remote: &Remote,
        as_of: i64,
    ) -> Result<Option<RemoteDay>, StoreError> {
        self.archives.day(parts, remote, archive::PATH, as_of).await
    }

    /// What another CRAN-like repository has in its Archive.
    ///
    /// # Errors
    /// As [`Self::tree`].
    pub async fn archive(&self, parts: &Parts, remote: &Remote) -> Result<Arc<Listed<RemoteArchive>>, Failure> {
        let question =
            Question { url: format!("{}{}", remote.url, archive::PATH), accept: "*/*", client: &self.client };
        self.archives.get(parts, remote, archive::PATH, &question, archive::read).await
    }

    /// Serves a file: from here, or while it comes.
    ///
    /// # Errors
    /// See [`Failure`]; 404 where its index has it not.
    pub async fn file(
        &self,
        parts: &Parts,
        repository: &Repository,
        file: RemoteBlob,
        content_type: &'static str,
        wanted: Wanted<'_>,
    ) -> Result<Response, Failure> {
        if let Some(digest) = self.here(parts, &file).await? {
            for path in file.names() {
                self.uses.mark(file.remote.id, path, &digest);
            }
            return download::blob(&parts.packages, digest, content_type, repository, wanted).await;
        }
        let failed = |failed: Failed| match failed {
            Failed::Absent => Failure::not_found(format_args!("file `{}` in source `{}`", file.path, file.remote.name)),
            Failed::Changed if file.is_past => {
                Failure::not_found(format_args!("file `{}` in source `{}` any more", file.path, file.remote.name))
            }
            Failed::Changed => away(&file.remote, CHANGED),
            Failed::Broken(why) => away(&file.remote, &why),
        };
        if file.is_past && self.changed.contains_key(&(file.remote.id, file.path.clone())) {
            return Err(failed(Failed::Changed));
        }
        let key = Sha256::new(sha2::Sha256::digest(format!("{}:{}", file.remote.id, file.path)).into());
        let (fetch, fetcher) = self.fetches.join(key);
        if let Some(fetcher) = fetcher {
            let (remotes, parts, file) = (self.clone(), parts.clone(), file.clone());
            // It goes on when the client that wanted it first leaves: others may be waiting.
            tokio::spawn(async move { remotes.fetch(&parts, &file, key, fetcher).await });
        }
        if file.is_past || wanted.fields.contains_key(RANGE) {
            fetch.end().await.map_err(failed)?;
            let digest =
                self.here(parts, &file).await?.ok_or_else(|| away(&file.remote, "what was fetched is gone"))?;
            return download::blob(&parts.packages, digest, content_type, repository, wanted).await;
        }
        let size = fetch.size().await.map_err(failed)?;
        let is_head = *wanted.method == Method::HEAD;
        let body = if is_head { Body::empty() } else { Body::from_stream(fetch.stream()) };
        let mut response = Response::new(body);
        let head = response.headers_mut();
        if let Some(size) = size {
            head.insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        head.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Promise::Sha256(digest) = &file.promise {
            download::name(head, &digest.to_string());
        }
        Ok(response)
    }

    async fn fetch(&self, parts: &Parts, file: &RemoteBlob, key: Sha256, fetcher: Fetcher) {
        let done = self.fetched(parts, file, &fetcher).await;
        let why = match &done {
            Err(Failed::Broken(why)) => Some(&**why),
            Err(Failed::Changed) => Some(CHANGED),
            Ok(()) | Err(Failed::Absent) => None,
        };
        if let Some(why) = why {
            tracing::warn!(source = file.remote.name, url = file.url, error = why, "a file cannot be fetched");
        }
        self.fetches.leave(&key);
        fetcher.progress.send_modify(|progress| progress.ended = Some(done));
    }

    async fn fetched(&self, parts: &Parts, file: &RemoteBlob, fetcher: &Fetcher) -> Result<(), Failed> {
        let told = |e: &(dyn std::error::Error + 'static)| Failed::Broken(Causes(e).to_string().into());
        let bytes_max = parts.settings.packages.file_bytes_max;
        let mut response = self.client.get(&file.url).send().await.map_err(|e| told(&e))?;
        if let Some(path) = file.otherwise.as_ref().filter(|_| is_absent(response.status())) {
            let url = format!("{}{path}", file.remote.url);
            response = self.client.get(url).send().await.map_err(|e| told(&e))?;
        }
        match response.status() {
            StatusCode::OK => {}
            absent if is_absent(absent) => return Err(Failed::Absent),
            other => return Err(Failed::Broken(format!("the index answers {other}").into())),
        }
        let size = response.content_length();
        if size.is_some_and(|size| size > bytes_max) {
            let why = format!("the file is larger than the {bytes_max} bytes this server takes");
            return Err(Failed::Broken(why.into()));
        }
        let mut spooling = parts.spool.begin().map_err(|e| told(&e))?;
        let reader = spooling.reader().map_err(|e| told(&e))?;
        fetcher.file.send_replace(Some(Arc::new(reader)));
        fetcher.progress.send_replace(Progress { bytes: 0, size, ended: None });
        while let Some(piece) = response.chunk().await.map_err(|e| told(&e))? {
            let appended = super::publish::append(spooling, piece, bytes_max).await;
            spooling = appended.map_err(|e| Failed::Broken(e.message().into()))?;
            fetcher.progress.send_modify(|progress| progress.bytes = spooling.size());
        }
        let spooled = spooling.finish().map_err(|e| told(&e))?;
        let is_kept = match &file.promise {
            Promise::Sha256(digest) => spooled.digest() == *digest,
            Promise::Md5(md5) => spooled.md5.eq_ignore_ascii_case(md5),
            Promise::Nothing => true,
        };
        if !is_kept {
            self.changed.insert((file.remote.id, file.path.clone()), ());
            return Err(Failed::Changed);
        }
        let digest = spooled.digest().to_string();
        let named = keep_and_name!(parts, packages, &[&spooled], anew => {
            parts.store.put_remote_file(file.remote.id, &file.names(), &digest, anew).await
        });
        named.await.map_err(|failure: Failure| Failed::Broken(failure.message().into()))
    }
}

impl Remotes {
    /// The blob of a file that is kept here.
    async fn here(&self, parts: &Parts, file: &RemoteBlob) -> Result<Option<Sha256>, Failure> {
        let digest = match &file.promise {
            Promise::Sha256(digest) => Some(*digest),
            Promise::Md5(_) | Promise::Nothing => {
                let key = (file.remote.id, file.path.clone());
                let known = self.kept.get(&key).filter(|(promise, _)| *promise == file.promise);
                match known {
                    Some((_, digest)) => Some(digest),
                    None => {
                        let row = parts.store.remote_file(file.remote.id, &file.path).await?;
                        let digest: Option<Sha256> = row.and_then(|sha256| sha256.parse().ok());
                        digest.inspect(|digest| self.kept.insert(key, (file.promise.clone(), *digest)))
                    }
                }
            }
        };
        let Some(digest) = digest else { return Ok(None) };
        match parts.packages.size(&digest).await {
            Ok(_) => Ok(Some(digest)),
            Err(BlobError::Missing(_)) => {
                self.kept.invalidate(&(file.remote.id, file.path.clone()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

fn away(remote: &Remote, why: &str) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("Source `{}`: {why}", remote.name))
}
