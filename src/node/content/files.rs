//! Content that is files: what was published as pages, and what was rendered.

use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE,
};
use http::{Method, StatusCode, Uri};
use tower_http::services::ServeDir;
use tower_service::Service;

use crate::node::download;
use crate::node::error::Failure;

/// Files to be shown.
pub struct Pages<'a> {
    /// Where they are.
    pub folder: PathBuf,
    /// Of what they were unpacked from.
    pub sha256: &'a str,
    /// What is shown at the top.
    pub first: &'a str,
    /// What is not shown.
    pub hidden: Option<&'a str>,
}

/// Answers with one of them. Their times are those of unpacking, on each node its own, so validators are of the digest of what
/// they come from.
///
/// # Errors
/// 404, 405.
pub async fn files(pages: &Pages<'_>, prefix: &str, target: &str, request: Request) -> Result<Response, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "These are files: GET or HEAD"));
    }
    let missing = || Failure::not_found("page at this address");
    let path = target.split('?').next().unwrap_or("/");
    let plain = percent_decode(path).ok_or_else(missing)?;
    if pages.hidden == Some(plain.trim_start_matches(['/', '.'])) {
        return Err(missing());
    }
    let uri = if path == "/" { Uri::try_from(format!("/{}", escaped(pages.first))) } else { Uri::try_from(target) };
    let (mut head, _) = request.into_parts();
    head.uri = uri.map_err(|_| missing())?;
    let etag = download::quoted(pages.sha256);
    let knows = download::knows(&head.headers, &etag);
    if head.headers.get(IF_RANGE).is_some_and(|told| *told != etag) {
        head.headers.remove(RANGE);
    }
    for name in [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, IF_NONE_MATCH] {
        head.headers.remove(name);
    }
    let mut service = ServeDir::new(&pages.folder).append_index_html_on_directories(true).redirect_path_prefix(prefix);
    let Ok(served) = service.call(http::Request::from_parts(head, Body::empty())).await;
    if served.status() == StatusCode::NOT_FOUND {
        return Err(missing());
    }
    let mut response = served.map(Body::new);
    if knows && response.status().is_success() {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    let head = response.headers_mut();
    head.remove(LAST_MODIFIED);
    head.insert(ETAG, etag);
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// A path without its escapes; `None`: it is none.
fn percent_decode(path: &str) -> Option<String> {
    let mut bytes = path.bytes();
    let mut plain = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16).map(|n| n as u8);
                digit(bytes.next())? << 4 | digit(bytes.next())?
            }
            byte => byte,
        });
    }
    String::from_utf8(plain).ok()
}

/// A path in a URL.
pub fn escaped(path: &str) -> String {
    use std::fmt::Write as _;
    path.bytes().fold(String::with_capacity(path.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
