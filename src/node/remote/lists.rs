//! Lists of other indexes, kept by their own rules: asked again when they are no longer fresh, asked once for everybody, and
//! served while their index is away.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use moka::sync::Cache;
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::away;
use crate::node::blob::BlobError;
use crate::node::error::Failure;
use crate::node::parts::{Parts, keep_and_name};
use crate::node::store::{Remote, RemoteDay, RemotePage, StoreError};
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
/// Bytes of what is kept of a page, unpacked: more than a page can become.
const KEPT_MAX: u64 = 1 << 30;
/// As quick as gzip's default, and smaller.
const ZSTD_LEVEL: i32 = 3;
/// How long it holds what was said by the end of a day.
const DAY_HOLDS: Duration = Duration::from_secs(60);
/// Days of folders that are remembered to have been looked up.
const DAYS_MAX: u64 = 10_000;
/// Pages in memory, by the number of their files.
const FILES_MAX: u64 = 500_000;
/// Lists of days in memory, by the number of their packages: two of CRAN, which take some 50 MB each.
const READ_MAX: u64 = 50_000;
/// How long one is kept that nobody wants.
const READ_IDLE: Duration = Duration::from_secs(600);

/// Lists of `T`, by source and name.
#[derive(Clone)]
pub struct Lists<T: Send + Sync + 'static> {
    pages: Cache<(i64, String), Arc<Listed<T>>>,
    /// Who asks for the same list waits for one answer.
    turns: Arc<[Mutex<()>; 64]>,
    /// Whether it is remembered what they were on each day.
    keeps_days: bool,
    /// By source, name and end of a day: what the source had said by then, and when that was looked up.
    days: Cache<(i64, String, i64), (i64, Option<RemoteDay>)>,
    /// Lists of days, by the digest of their blob: several repositories show the same, and what changes in one of ours is no
    /// reason to read them again.
    read: Cache<String, Arc<Listed<T>>>,
}

/// What an index said.
#[derive(Debug)]
pub struct Listed<T> {
    /// The list; `None`: there is no such thing.
    pub files: Option<Vec<T>>,
    /// Differs where the list may differ: microseconds since 1970.
    pub stamp: i64,
    /// It is what the index said earlier, because it does not answer now.
    pub is_old: bool,
    asked_at: i64,
    fresh_until: i64,
}

/// How a list is asked for.
pub struct Question<'a> {
    /// Where.
    pub url: String,
    /// Which forms will do.
    pub accept: &'static str,
    /// With what.
    pub client: &'a reqwest::Client,
}

/// Reads what an index answers: its body, its content type, and its URL after redirects.
pub type Reader<T> = fn(&[u8], &str, &Url) -> Result<Vec<T>, String>;

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Default for Lists<T> {
    fn default() -> Self {
        let weigh = |_: &(i64, String), listed: &Arc<Listed<T>>| listed.weight();
        let pages = Cache::builder().weigher(weigh).max_capacity(FILES_MAX).build();
        let read = Cache::builder()
            .weigher(|_: &String, listed: &Arc<Listed<T>>| listed.weight())
            .max_capacity(READ_MAX)
            .time_to_idle(READ_IDLE)
            .build();
        let turns = Arc::new([const { Mutex::const_new(()) }; 64]);
        Self { pages, turns, keeps_days: false, days: Cache::new(DAYS_MAX), read }
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Lists<T> {
    /// Of which it is remembered what they were on each day.
    pub fn with_days() -> Self {
        Self { keeps_days: true, ..Self::default() }
    }

    /// What an index had said by the end of a day that is over; `None`: nobody had asked it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn day(
        &self,
        parts: &Parts,
        remote: &Remote,
        name: &str,
        as_of: i64,
    ) -> Result<Option<RemoteDay>, StoreError> {
        let key = (remote.id, name.to_owned(), as_of);
        let known = self.days.get(&key);
        // What another node saw in the last moment of the day may come late.
        if let Some((_, day)) = known.as_ref().filter(|(at, _)| now() - at < micros(DAY_HOLDS)) {
            return Ok(day.clone());
        }
        match (parts.store.remote_day(remote.id, name, as_of).await, known) {
            (Ok(day), _) => {
                self.days.insert(key, (now(), day.clone()));
                Ok(day)
            }
            (Err(StoreError::Unavailable(_) | StoreError::NoPrimary), Some((_, day))) => Ok(day),
            (Err(error), _) => Err(error),
        }
    }

    /// The list of a day.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn of_day(&self, parts: &Parts, day: &RemoteDay) -> Result<Arc<Listed<T>>, StoreError> {
        if let Some(listed) = day.sha256.as_ref().and_then(|sha256| self.read.get(sha256)) {
            return Ok(listed);
        }
        let row = RemotePage {
            fetched_at: day.seen_at,
            asked_at: day.seen_at,
            fresh_until: day.seen_at,
            etag: None,
            sha256: day.sha256.clone(),
        };
        let unread = |failure: Failure| StoreError::Unavailable(io::Error::other(failure.message().to_owned()).into());
        let listed = Arc::new(kept(parts, &row, None).await.map_err(unread)?);
        if let Some(sha256) = &day.sha256 {
            self.read.insert(sha256.clone(), Arc::clone(&listed));
        }
        Ok(listed)
    }

    /// A list.
    ///
    /// # Errors
    /// 503: its index does not answer, and it is not kept.
    pub async fn get(
        &self,
        parts: &Parts,
        remote: &Remote,
        name: &str,
        question: &Question<'_>,
        read: Reader<T>,
    ) -> Result<Arc<Listed<T>>, Failure> {
        let key = (remote.id, name.to_owned());
        if let Some(listed) = self.pages.get(&key).filter(|listed| listed.is_fresh(remote)) {
            return Ok(listed);
        }
        let turn = name.bytes().fold(remote.id as usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let _turn = self.turns[turn % self.turns.len()].lock().await;
        let old = self.pages.get(&key);
        if let Some(listed) = old.as_ref().filter(|listed| listed.is_fresh(remote)) {
            return Ok(Arc::clone(listed));
        }
        let listed = Arc::new(self.look(parts, remote, name, old.as_deref(), question, read).await?);
        self.pages.insert(key, Arc::clone(&listed));
        Ok(listed)
    }

    /// What another node asked a moment ago, or what the index says now, or what it said when it last answered.
    async fn look(
        &self,
        parts: &Parts,
        remote: &Remote,
        name: &str,
        old: Option<&Listed<T>>,
        question: &Question<'_>,
        read: Reader<T>,
    ) -> Result<Listed<T>, Failure> {
        let row = match (parts.store.remote_page(remote.id, name).await, old) {
            (Ok(row), _) => is_here(parts, row).await?,
            // Without a database what is known here goes on.
            (Err(_), Some(old)) => return Ok(old.for_a_while()),
            (Err(error), None) => return Err(error.into()),
        };
        if let Some(row) = row.as_ref().filter(|row| row.fresh_until > now() && row.asked_at >= remote.synced_at) {
            return kept(parts, row, old).await;
        }
        let etag = row.as_ref().and_then(|row| row.etag.as_deref());
        match (ask(question, etag, read).await, row) {
            (Ok(Answer::Same { fresh_until }), Some(row)) => {
                let row = RemotePage { fresh_until, asked_at: now(), ..row };
                parts.store.put_remote_page(remote.id, name, &row, self.keeps_days, None).await?;
                kept(parts, &row, old).await
            }
            (Ok(Answer::Page { files, etag, fresh_until }), _) => {
                let (files, packed) = tokio::task::spawn_blocking(move || {
                    let packed = pack(&files);
                    (files, packed)
                })
                .await
                .map_err(io::Error::other)?;
                let spooled = parts.spool.whole(&packed?)?;
                let sha256 = Some(spooled.digest().to_string());
                let at = now();
                let row = RemotePage { fetched_at: at, asked_at: at, fresh_until, etag, sha256 };
                keep_and_name!(parts, packages, &[&spooled], anew => {
                    parts.store.put_remote_page(remote.id, name, &row, self.keeps_days, anew).await
                })
                .await?;
                let (stamp, asked_at) = (row.fetched_at, row.asked_at);
                Ok(Listed { files: Some(files), stamp, is_old: false, asked_at, fresh_until })
            }
            (Ok(Answer::None { fresh_until }), _) => {
                let at = now();
                let row = RemotePage { fetched_at: at, asked_at: at, fresh_until, etag: None, sha256: None };
                parts.store.put_remote_page(remote.id, name, &row, self.keeps_days, None).await?;
                Ok(Listed { files: None, stamp: row.fetched_at, is_old: false, asked_at: row.asked_at, fresh_until })
            }
            (Ok(Answer::Same { .. }), None) => Err(away(remote, "it answered 304 to who had nothing")),
            (Err(why), Some(row)) => {
                tracing::warn!(
                    source = remote.name,
                    name,
                    error = why,
                    "an index does not answer; serving what it said last"
                );
                Ok(kept(parts, &row, old).await?.for_a_while())
            }
            (Err(why), None) => {
                tracing::warn!(source = remote.name, name, error = why, "an index does not answer");
                Err(away(remote, "it does not answer, and what was asked for is not kept here"))
            }
        }
    }
}

async fn ask<T: Send + 'static>(
    question: &Question<'_>,
    etag: Option<&str>,
    read: Reader<T>,
) -> Result<Answer<T>, String> {
    let Question { url, accept, client } = question;
    let asked = async {
        let mut request = client.get(url).header(ACCEPT, *accept);
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
        let done = tokio::task::spawn_blocking(move || read(&body, &content_type, &base)).await;
        let files = done.map_err(|e| e.to_string())?.map_err(|why| format!("{url}: {why}"))?;
        Ok(Answer::Page { files, etag, fresh_until })
    };
    tokio::time::timeout(PAGE_TIMEOUT, asked).await.unwrap_or_else(|_| Err(format!("{url}: no answer in 30 s")))
}

/// What an index answers.
enum Answer<T> {
    Same { fresh_until: i64 },
    Page { files: Vec<T>, etag: Option<String>, fresh_until: i64 },
    None { fresh_until: i64 },
}

impl<T: Clone> Listed<T> {
    /// The same, for as long as an index is left alone.
    fn for_a_while(&self) -> Self {
        let (asked_at, fresh_until) = (now(), now() + micros(PAUSE));
        Self { files: self.files.clone(), stamp: self.stamp, is_old: true, asked_at, fresh_until }
    }

    fn weight(&self) -> u32 {
        u32::try_from(self.files.as_ref().map_or(0, Vec::len) + 1).unwrap_or(u32::MAX)
    }

    fn is_fresh(&self, remote: &Remote) -> bool {
        self.fresh_until > now() && self.asked_at >= remote.synced_at
    }
}

/// What a row says, from memory if that is the same, else from its blob.
async fn kept<T: DeserializeOwned + Clone + Send + 'static>(
    parts: &Parts,
    row: &RemotePage,
    old: Option<&Listed<T>>,
) -> Result<Listed<T>, Failure> {
    let same = old.filter(|old| old.stamp == row.fetched_at);
    let files = match (&row.sha256, same) {
        (None, _) => None,
        (Some(_), Some(same)) => same.files.clone(),
        (Some(sha256), None) => {
            let digest: Sha256 = sha256.parse().map_err(|_| away_from_row())?;
            let size = parts.packages.size(&digest).await?;
            let mut stream = parts.packages.read(&digest, 0..size).await?;
            let mut packed = Vec::new();
            while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
                packed.extend_from_slice(&piece?);
            }
            let read = tokio::task::spawn_blocking(move || unpack(&packed)).await.map_err(io::Error::other)?;
            Some(read.map_err(|_| away_from_row())?)
        }
    };
    let (asked_at, fresh_until) = (row.asked_at, row.fresh_until);
    Ok(Listed { files, stamp: row.fetched_at, is_old: false, asked_at, fresh_until })
}

/// As it is kept: a tenth or less, because CRAN has another list every day.
fn pack<T: Serialize>(files: &[T]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(&serde_json::to_vec(files).map_err(io::Error::other)?, ZSTD_LEVEL)
}

fn unpack<T: DeserializeOwned>(packed: &[u8]) -> io::Result<Vec<T>> {
    let mut text = Vec::new();
    zstd::stream::read::Decoder::new(packed)?.take(KEPT_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// A row whose list is here; one whose list is lost is none.
async fn is_here(parts: &Parts, row: Option<RemotePage>) -> Result<Option<RemotePage>, Failure> {
    let Some(digest) = row.as_ref().and_then(|row| row.sha256.as_ref()?.parse().ok()) else { return Ok(row) };
    match parts.packages.size(&digest).await {
        Ok(_) => Ok(row),
        Err(BlobError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn away_from_row() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "What was kept of another index cannot be read")
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
