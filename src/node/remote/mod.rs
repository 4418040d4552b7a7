//! Pull-through: what no local source has is asked of other indexes, kept, and served while they are away.

pub mod fetch;
pub mod page;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use moka::sync::Cache;
use tokio::sync::Mutex;

use self::fetch::{Fetcher, Fetches, Progress};
use self::page::RemoteFile;
use super::blob::BlobError;
use super::download::{self, Wanted};
use super::error::Failure;
use super::parts::Parts;
use super::store::{Remote, RemotePage, Repository};
use crate::runtime::clock;
use crate::telemetry::Causes;
use crate::types::Sha256;

/// Bytes of a page.
const PAGE_MAX: usize = 128 << 20;
/// How long a page holds whose index does not say.
const FRESH: Duration = Duration::from_secs(600);
/// At least so long, because many clients ask for the same within a moment.
const FRESH_MIN: Duration = Duration::from_secs(2);
/// At most so long.
const FRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long an index that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(30);
/// For a page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages in memory, by the number of their files.
const FILES_MAX: u64 = 500_000;

/// What other indexes have.
#[derive(Clone)]
pub struct Remotes {
    client: reqwest::Client,
    pages: Cache<(i64, String), Arc<Listed>>,
    /// Who asks for the same page waits for one answer.
    turns: Arc<[Mutex<()>; 64]>,
    fetches: Fetches,
}

/// What an index said of a project.
#[derive(Debug)]
pub struct Listed {
    /// Its files; `None`: there is no such project.
    pub files: Option<Vec<RemoteFile>>,
    /// Differs where the files may differ: microseconds since 1970.
    pub stamp: i64,
    fresh_until: i64,
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
        let weigh = |_: &(i64, String), listed: &Arc<Listed>| {
            u32::try_from(listed.files.as_ref().map_or(0, Vec::len) + 1).unwrap_or(u32::MAX)
        };
        let pages = Cache::builder().weigher(weigh).max_capacity(FILES_MAX).build();
        Ok(Self { client, pages, turns: Arc::new([const { Mutex::const_new(()) }; 64]), fetches: Fetches::default() })
    }

    /// What the first of a repository's other indexes that has a project says of it.
    ///
    /// # Errors
    /// 503: none of them has it, and one that might does not answer.
    pub async fn project(
        &self,
        parts: &Parts,
        repository: &Repository,
        normal_name: &str,
    ) -> Result<Option<(Remote, Arc<Listed>)>, Failure> {
        for remote in &repository.remotes {
            // A later index must not step in for one that is away: it could have other files of that name.
            let listed = self.page(parts, remote, normal_name).await?;
            if listed.files.is_some() {
                return Ok(Some((remote.clone(), listed)));
            }
        }
        Ok(None)
    }

    async fn page(&self, parts: &Parts, remote: &Remote, name: &str) -> Result<Arc<Listed>, Failure> {
        let key = (remote.id, name.to_owned());
        if let Some(listed) = self.pages.get(&key).filter(|listed| listed.fresh_until > now()) {
            return Ok(listed);
        }
        let turn = name.bytes().fold(remote.id as usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let _turn = self.turns[turn % self.turns.len()].lock().await;
        let old = self.pages.get(&key);
        if let Some(listed) = old.as_ref().filter(|listed| listed.fresh_until > now()) {
            return Ok(Arc::clone(listed));
        }
        let listed = Arc::new(self.look(parts, remote, name, old.as_deref()).await?);
        self.pages.insert(key, Arc::clone(&listed));
        Ok(listed)
    }

    /// What another node asked a moment ago, or what the index says now, or what it said when it last answered.
    async fn look(&self, parts: &Parts, remote: &Remote, name: &str, old: Option<&Listed>) -> Result<Listed, Failure> {
        let row = match (parts.store.remote_page(remote.id, name).await, old) {
            (Ok(row), _) => row,
            // Without a database what is known here goes on.
            (Err(_), Some(old)) => return Ok(old.for_a_while()),
            (Err(error), None) => return Err(error.into()),
        };
        if let Some(row) = row.as_ref().filter(|row| row.fresh_until > now()) {
            return kept(parts, row, old).await;
        }
        let etag = row.as_ref().and_then(|row| row.etag.as_deref());
        match (self.ask(remote, name, etag).await, row) {
            (Ok(Answer::Same { fresh_until }), Some(row)) => {
                let row = RemotePage { fresh_until, ..row };
                parts.store.put_remote_page(remote.id, name, &row).await?;
                kept(parts, &row, old).await
            }
            (Ok(Answer::Page { files, etag, fresh_until }), _) => {
                let text = serde_json::to_vec(&files).map_err(io::Error::other)?;
                let spooled = parts.spool.whole(&text)?;
                parts.packages.keep(&spooled).await?;
                let sha256 = Some(spooled.digest().to_string());
                let row = RemotePage { fetched_at: now(), fresh_until, etag, sha256 };
                parts.store.put_remote_page(remote.id, name, &row).await?;
                Ok(Listed { files: Some(files), stamp: row.fetched_at, fresh_until })
            }
            (Ok(Answer::None { fresh_until }), _) => {
                let row = RemotePage { fetched_at: now(), fresh_until, etag: None, sha256: None };
                parts.store.put_remote_page(remote.id, name, &row).await?;
                Ok(Listed { files: None, stamp: row.fetched_at, fresh_until })
            }
            (Ok(Answer::Same { .. }), None) => Err(away(remote, "it answered 304 to who had nothing")),
            (Err(why), Some(row)) => {
                tracing::warn!(
                    source = remote.name,
                    project = name,
                    error = why,
                    "an index does not answer; serving what it said last"
                );
                Ok(kept(parts, &row, old).await?.for_a_while())
            }
            (Err(why), None) => {
                tracing::warn!(source = remote.name, project = name, error = why, "an index does not answer");
                Err(away(remote, "it does not answer, and what was asked for is not kept here"))
            }
        }
    }

    async fn ask(&self, remote: &Remote, name: &str, etag: Option<&str>) -> Result<Answer, String> {
        let url = format!("{}{name}/", remote.url);
        let asked = async {
            let mut request = self.client.get(&url).header(ACCEPT, FORMS);
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            let mut response = request.send().await.map_err(|e| Causes(&e).to_string())?;
            let fresh_until = now() + micros(freshness(response.headers()));
            match response.status() {
                StatusCode::NOT_MODIFIED => return Ok(Answer::Same { fresh_until }),
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Answer::None { fresh_until }),
                StatusCode::OK => {}
                other => return Err(format!("{url}: it answers {other}")),
            }
            let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let (content_type, etag) = (text(CONTENT_TYPE).unwrap_or_default(), text(ETAG));
            let base = response.url().clone();
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(|e| Causes(&e).to_string())? {
                body.extend_from_slice(&piece);
                if body.len() > PAGE_MAX {
                    return Err(format!("{url}: its page is larger than 128 MiB"));
                }
            }
            let read = tokio::task::spawn_blocking(move || page::read(&body, &content_type, &base)).await;
            let files = read.map_err(|e| e.to_string())?.map_err(|why| format!("{url}: {why}"))?;
            Ok(Answer::Page { files, etag, fresh_until })
        };
        tokio::time::timeout(PAGE_TIMEOUT, asked).await.unwrap_or_else(|_| Err(format!("{url}: no answer in 30 s")))
    }

    /// Serves a file: from here, or while it comes.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn file(
        &self,
        parts: &Parts,
        repository: &Repository,
        wanted_file: RemoteBlob,
        content_type: &'static str,
        wanted: Wanted<'_>,
    ) -> Result<Response, Failure> {
        let digest = wanted_file.digest;
        match parts.packages.size(&digest).await {
            Ok(_) => return download::blob(&parts.packages, digest, content_type, repository, wanted).await,
            Err(BlobError::Missing(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (fetch, fetcher) = self.fetches.join(digest);
        let remote = wanted_file.remote.clone();
        if let Some(fetcher) = fetcher {
            let (remotes, parts) = (self.clone(), parts.clone());
            // It goes on when the client that wanted it first leaves: others may be waiting.
            tokio::spawn(async move { remotes.fetch(&parts, &wanted_file, fetcher).await });
        }
        let failed = |why: Arc<str>| away(&remote, &why);
        if wanted.fields.contains_key(RANGE) {
            fetch.end().await.map_err(failed)?;
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
        if let Ok(etag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
            head.insert(ETAG, etag);
        }
        Ok(response)
    }

    async fn fetch(&self, parts: &Parts, wanted: &RemoteBlob, fetcher: Fetcher) {
        let done = self.fetched(parts, wanted, &fetcher).await;
        if let Err(why) = &done {
            tracing::warn!(source = wanted.remote.name, url = wanted.url, error = why, "a file cannot be fetched");
        }
        self.fetches.leave(&wanted.digest);
        fetcher.progress.send_modify(|progress| progress.ended = Some(done.map_err(Into::into)));
    }

    async fn fetched(&self, parts: &Parts, wanted: &RemoteBlob, fetcher: &Fetcher) -> Result<(), String> {
        let told = |e: &(dyn std::error::Error + 'static)| Causes(e).to_string();
        let bytes_max = parts.settings.packages.file_bytes_max;
        let mut response = self.client.get(&wanted.url).send().await.map_err(|e| told(&e))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the index answers {}", response.status()));
        }
        let size = response.content_length();
        if size.is_some_and(|size| size > bytes_max) {
            return Err(format!("the file is larger than the {bytes_max} bytes this server takes"));
        }
        let mut spooling = parts.spool.begin().map_err(|e| told(&e))?;
        let reader = spooling.reader().map_err(|e| told(&e))?;
        fetcher.file.send_replace(Some(Arc::new(reader)));
        fetcher.progress.send_replace(Progress { bytes: 0, size, ended: None });
        while let Some(piece) = response.chunk().await.map_err(|e| told(&e))? {
            spooling = super::publish::append(spooling, piece, bytes_max).await.map_err(|e| e.message().to_owned())?;
            fetcher.progress.send_modify(|progress| progress.bytes = spooling.size());
        }
        let spooled = spooling.finish().map_err(|e| told(&e))?;
        if spooled.digest() != wanted.digest {
            return Err("the index gave other bytes than it promised".to_owned());
        }
        parts.packages.keep(&spooled).await.map_err(|e| told(&e))?;
        let digest = wanted.digest.to_string();
        parts.store.put_remote_file(wanted.remote.id, &wanted.path, &digest).await.map_err(|e| told(&e))
    }
}

/// A file of another index.
#[derive(Clone, Debug)]
pub struct RemoteBlob {
    /// Whose.
    pub remote: Remote,
    /// Where to get it.
    pub url: String,
    /// What rows call it.
    pub path: String,
    /// Of its bytes.
    pub digest: Sha256,
}

/// What an index answers.
enum Answer {
    Same { fresh_until: i64 },
    Page { files: Vec<RemoteFile>, etag: Option<String>, fresh_until: i64 },
    None { fresh_until: i64 },
}

impl Listed {
    /// The same, for as long as an index is left alone.
    fn for_a_while(&self) -> Self {
        Self { files: self.files.clone(), stamp: self.stamp, fresh_until: now() + micros(PAUSE) }
    }
}

/// What a row says, from memory if that is the same, else from its blob.
async fn kept(parts: &Parts, row: &RemotePage, old: Option<&Listed>) -> Result<Listed, Failure> {
    let same = old.filter(|old| old.stamp == row.fetched_at);
    let files = match (&row.sha256, same) {
        (None, _) => None,
        (Some(_), Some(same)) => same.files.clone(),
        (Some(sha256), None) => {
            let digest: Sha256 = sha256.parse().map_err(|_| away_from_row())?;
            let size = parts.packages.size(&digest).await?;
            let mut stream = parts.packages.read(&digest, 0..size).await?;
            let mut text = Vec::new();
            while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
                text.extend_from_slice(&piece?);
            }
            Some(serde_json::from_slice(&text).map_err(|_| away_from_row())?)
        }
    };
    Ok(Listed { files, stamp: row.fetched_at, fresh_until: row.fresh_until })
}

fn away_from_row() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "What was kept of another index cannot be read")
}

fn away(remote: &Remote, why: &str) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("Source `{}`: {why}", remote.name))
}

/// `max-age`, within bounds; nothing for what must not be kept.
fn freshness(fields: &HeaderMap) -> Duration {
    let told = fields.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let words: Vec<String> =
        told.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase()).collect();
    if words.iter().any(|word| word == "no-cache" || word == "no-store") {
        return FRESH_MIN;
    }
    let age = words.iter().find_map(|word| word.strip_prefix("max-age=")?.parse().ok().map(Duration::from_secs));
    age.unwrap_or(FRESH).clamp(FRESH_MIN, FRESH_MAX)
}

fn now() -> i64 {
    micros(clock::unix())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// What we understand, as pip asks for it.
const FORMS: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_as_long_as_their_index_says_within_bounds() {
        for (control, seconds) in [
            ("max-age=60, public", 60),
            ("public", 600),
            ("max-age=0, must-revalidate", 2),
            ("no-cache", 2),
            ("max-age=99999999", 86_400),
            ("max-age=x", 600),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            assert_eq!(freshness(&fields), Duration::from_secs(seconds), "{control}");
        }
    }
}
