//! Bytes out, by the rules of HTTP: validators, conditions, HEAD, one range (RFC 9110 §8.8, §13, §14).

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, LOCATION,
    RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::blob::{Blobs, Content};
use super::error::Failure;
use super::store::Repository;
use crate::types::Sha256;

/// A request for bytes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// GET or HEAD.
    pub method: &'a Method,
    /// With its conditions.
    pub fields: &'a HeaderMap,
}

/// A field of requests: who asks reaches nothing but this server, so is sent to no other one.
pub const HERE: HeaderName = HeaderName::from_static("x-bowline-here");

/// A blob: named by its digest, so it never changes and may be kept for ever.
///
/// # Errors
/// See [`Failure`].
pub async fn blob(
    blobs: &Blobs,
    digest: Sha256,
    content_type: &'static str,
    repository: &Repository,
    wanted: Wanted<'_>,
) -> Result<Response, Failure> {
    let etag = &quoted(&digest.to_string());
    let mut response = if knows(wanted.fields, etag) {
        answer(StatusCode::NOT_MODIFIED, etag, None, Body::empty())
    } else {
        // HEAD is answered here: a signed link is for GET alone.
        if *wanted.method == Method::GET
            && !wanted.fields.contains_key(HERE)
            && let Some(link) = blobs.link(&digest).await?
        {
            return Ok(redirect(&link, repository));
        }
        let size = blobs.size(&digest).await?;
        let body = async |range| match *wanted.method {
            Method::HEAD => Ok(Body::empty()),
            _ => blobs.get(&digest, range).await.map(|content| match content {
                Content::Whole(bytes) => Body::from(bytes),
                Content::Stream(stream) => Body::from_stream(stream),
            }),
        };
        match asked(wanted, etag, size) {
            Asked::All => answer(StatusCode::OK, etag, Some(size), body(0..size).await?),
            Asked::Part(first, last) => part(etag, first, last, size, body(first..last + 1).await?),
            Asked::Outside => outside(etag, size),
        }
    };
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    control(head, repository, ["public, max-age=31536000, immutable", "private, max-age=31536000, immutable"]);
    Ok(response)
}

/// To the storage itself, for a while.
fn redirect(link: &str, repository: &Repository) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(link) = HeaderValue::from_str(link) {
        response.headers_mut().insert(LOCATION, link);
    }
    control(response.headers_mut(), repository, ["public, no-store", "private, no-store"]);
    response
}

/// An index, which changes: kept, but never used without asking. pip and uv trust max-age, and it would hide a fresh upload.
///
/// `etag`: see [`quoted`].
pub fn index(
    bytes: &Bytes,
    etag: &HeaderValue,
    content_type: &'static str,
    repository: &Repository,
    wanted: Wanted<'_>,
) -> Response {
    let size = bytes.len() as u64;
    let slice = |first: u64, last: u64| {
        let range = usize::try_from(first).unwrap_or(0)..usize::try_from(last).map_or(bytes.len(), |last| last + 1);
        if *wanted.method == Method::HEAD { Body::empty() } else { Body::from(bytes.slice(range)) }
    };
    let mut response = if knows(wanted.fields, etag) {
        answer(StatusCode::NOT_MODIFIED, etag, None, Body::empty())
    } else {
        match asked(wanted, etag, size) {
            Asked::All if size == 0 => answer(StatusCode::OK, etag, Some(0), Body::empty()),
            Asked::All => answer(StatusCode::OK, etag, Some(size), slice(0, size - 1)),
            Asked::Part(first, last) => part(etag, first, last, size, slice(first, last)),
            Asked::Outside => outside(etag, size),
        }
    };
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    control(head, repository, ["public, max-age=0, must-revalidate", "private, max-age=0, must-revalidate"]);
    response
}

/// Names a blob, as [`blob`] does.
pub fn name(head: &mut HeaderMap, digest: &str) {
    head.insert(ETAG, quoted(digest));
}

/// A strong validator, as it is sent. What makes it is hexadecimal digits and the like.
pub fn quoted(etag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// `values`: for what anybody may see, and for what not.
fn control(head: &mut HeaderMap, repository: &Repository, values: [&'static str; 2]) {
    let [public, private] = values;
    head.insert(CACHE_CONTROL, HeaderValue::from_static(if repository.anonymous_read { public } else { private }));
}

/// Whether the client has this very thing already.
pub fn knows(fields: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = fields.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A weak comparison, as the RFC wants it here.
    known
        .flat_map(|value| value.split(','))
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| *etag == known || known == "*")
}

fn answer(status: StatusCode, etag: &HeaderValue, length: Option<u64>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let head = response.headers_mut();
    head.reserve(FIELDS);
    head.insert(ETAG, etag.clone());
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        head.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn part(etag: &HeaderValue, first: u64, last: u64, size: u64, body: Body) -> Response {
    ranged(
        answer(StatusCode::PARTIAL_CONTENT, etag, Some(last - first + 1), body),
        &format!("bytes {first}-{last}/{size}"),
    )
}

fn outside(etag: &HeaderValue, size: u64) -> Response {
    ranged(answer(StatusCode::RANGE_NOT_SATISFIABLE, etag, Some(0), Body::empty()), &format!("bytes */{size}"))
}

/// Fields of most answers, the request's id and the date with them.
const FIELDS: usize = 9;

fn ranged(mut response: Response, range: &str) -> Response {
    if let Ok(range) = HeaderValue::from_str(range) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Everything; also what we do not understand, and more than one range.
    All,
    /// First and last byte, inclusive.
    Part(u64, u64),
    /// Nothing there is.
    Outside,
}

fn asked(wanted: Wanted<'_>, etag: &HeaderValue, size: u64) -> Asked {
    let named = |name| wanted.fields.get(name).and_then(|value| value.to_str().ok());
    // A client resumes what it had of this very thing (RFC 9110 §13.1.5).
    let may_resume = named(IF_RANGE).is_none_or(|known| *etag == known);
    let range = named(RANGE).filter(|_| may_resume && *wanted.method == Method::GET);
    range.map_or(Asked::All, |range| parse(range, size))
}

fn parse(range: &str, size: u64) -> Asked {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else { return Asked::All };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), _) if first >= size => Asked::Outside,
        (Ok(first), Ok(last)) if last >= first => Asked::Part(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.trim().is_empty() => Asked::Part(first, size - 1),
        (Err(_), Ok(0)) if first.trim().is_empty() => Asked::Outside,
        (Err(_), Ok(_)) if first.trim().is_empty() && size == 0 => Asked::Outside,
        (Err(_), Ok(tail)) if first.trim().is_empty() => Asked::Part(size.saturating_sub(tail), size - 1),
        _ => Asked::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0, 0)),
            ("bytes=5-", Asked::Part(5, 99)),
            ("bytes=90-200", Asked::Part(90, 99)),
            ("bytes=-10", Asked::Part(90, 99)),
            ("bytes=-1000", Asked::Part(0, 99)),
            ("bytes=100-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-4", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("lines=1-2", Asked::All),
            ("bytes=x-y", Asked::All),
        ] {
            assert_eq!(parse(range, 100), expected, "{range}");
        }
        assert_eq!(parse("bytes=-1", 0), Asked::Outside);
    }
}
