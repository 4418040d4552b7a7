//! Files and their core metadata: named by digest, so they never change and may be kept for ever.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::types::Sha256;

/// `/packages/{repository}/files/{sha256}/{filename}`, with `.metadata` behind it for a wheel's core metadata (PEP 658).
///
/// # Errors
/// See [`Failure`].
pub async fn file(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path((repository, digest, filename)): Path<(String, String, String)>,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Failure> {
    let repository = parts.readable(&repository, &fields, origin).await?;
    let missing = || Failure::not_found(format_args!("file `{filename}` in repository `{}`", repository.name));
    let digest: Sha256 = digest.parse().map_err(|_| missing())?;
    let (name, wants_metadata) = match filename.strip_suffix(".metadata") {
        Some(name) => (name, true),
        None => (filename.as_str(), false),
    };
    let key = (repository.id, digest, name.to_owned());
    let read = async || parts.store.file(repository.id, &digest.to_string(), name).await;
    let known = parts.files.get::<Failure>(key, repository.generation, read).await?.ok_or_else(missing)?;
    let (wanted, content_type) = match (wants_metadata, &known.metadata_sha256) {
        (false, _) => (digest, "application/octet-stream"),
        (true, Some(metadata)) => (metadata.parse().map_err(|_| missing())?, "text/plain; charset=utf-8"),
        (true, None) => return Err(missing()),
    };
    let visibility = if repository.anonymous_read { "public" } else { "private" };
    let mut response = blob(&parts, wanted, &method, &fields).await?;
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(control) = HeaderValue::from_str(&format!("{visibility}, max-age=31536000, immutable")) {
        head.insert(CACHE_CONTROL, control);
    }
    Ok(response)
}

/// A blob by the rules of HTTP: conditions, HEAD, one range.
async fn blob(parts: &Parts, digest: Sha256, method: &Method, fields: &HeaderMap) -> Result<Response, Failure> {
    let etag = format!("\"{digest}\"");
    let named = |name| fields.get(name).and_then(|value| value.to_str().ok());
    let is_known = named(IF_NONE_MATCH).is_some_and(|known| known.trim() == "*" || known.contains(&etag));
    if is_known {
        return Ok(answer(StatusCode::NOT_MODIFIED, &etag, None, Body::empty()));
    }
    let size = parts.packages.size(&digest).await?;
    // A client resumes what it had of this very file (RFC 9110 §13.1.5).
    let may_resume = named(IF_RANGE).is_none_or(|known| known == etag);
    let range = named(RANGE).filter(|_| may_resume && *method == Method::GET);
    let body = async |range| match *method {
        Method::HEAD => Ok(Body::empty()),
        _ => parts.packages.read(&digest, range).await.map(Body::from_stream),
    };
    match range.map_or(Asked::All, |range| parse(range, size)) {
        Asked::All => Ok(answer(StatusCode::OK, &etag, Some(size), body(0..size).await?)),
        Asked::Part(first, last) => {
            let body = body(first..last + 1).await?;
            let mut response = answer(StatusCode::PARTIAL_CONTENT, &etag, Some(last - first + 1), body);
            if let Ok(range) = HeaderValue::from_str(&format!("bytes {first}-{last}/{size}")) {
                response.headers_mut().insert(CONTENT_RANGE, range);
            }
            Ok(response)
        }
        Asked::Outside => {
            let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE, &etag, Some(0), Body::empty());
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}")) {
                response.headers_mut().insert(CONTENT_RANGE, range);
            }
            Ok(response)
        }
    }
}

fn answer(status: StatusCode, etag: &str, length: Option<u64>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let head = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(etag) {
        head.insert(ETAG, etag);
    }
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        head.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// What a Range asks for (RFC 9110 §14.2).
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Everything; also what we do not understand, and more than one range.
    All,
    /// First and last byte, inclusive.
    Part(u64, u64),
    /// Nothing of the file.
    Outside,
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
