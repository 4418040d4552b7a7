//! The reconnect shim and its way into HTML pages.
//!
//! Shiny's browser part comes back after a lost connection only when the app allows it *and* the socket object does
//! (`allowReconnect === true`), which a plain WebSocket never says. The script hands it one that does, through
//! `Shiny.createSocket`, unless somebody else already did; a socket that was closed in order stays closed. It waits
//! for nothing: it catches the moment at which `window.Shiny` is set.
//!
//! Everything is decided by headers: a page gets the script right behind `<head>`, or at its end if it has none, so that
//! its new length is known before its first byte.

mod csp;
mod inject;

use std::sync::LazyLock;

use base64::Engine as _;
use http::header::{
    ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub use self::inject::Injector;

/// What the script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It lets Shiny come back with a new session.
    Reconnect,
    /// It comes back to the session itself, see [`super::resume`]; to a new one if that is gone.
    Resume,
}

/// The script, without its tags, as [`Mode::Reconnect`] has it.
const SCRIPT: &str = include_str!("../shim.js");

/// A script, and `'sha256-…'` of it as a source of a Content-Security-Policy (CSP3 §2.3.1).
static SCRIPTS: LazyLock<[(String, String); 2]> = LazyLock::new(|| {
    ["reconnect", "resume"].map(|mode| {
        let script = SCRIPT.trim_end().replace(")(window, \"reconnect\");", &format!(")(window, \"{mode}\");"));
        let digest = ring::digest::digest(&ring::digest::SHA256, script.as_bytes());
        let source = format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest));
        (script, source)
    })
});

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What an answer says whose page has the script already: a proxy before the node adds none.
const DONE: HeaderName = HeaderName::from_static("bowline-shim");

/// Digests of bytes that change.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// How an answer changes: remove, then set (replacing), and feed the body through the injector.
#[derive(Debug)]
pub struct Plan {
    /// Fields to remove.
    pub remove: Vec<HeaderName>,
    /// Fields to set.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Takes the body.
    pub injector: Injector,
}

impl Plan {
    /// Whether fields of this name, in any case, do not stay as they came.
    pub fn replaces(&self, name: &[u8]) -> bool {
        let is = |other: &HeaderName| other.as_str().as_bytes().eq_ignore_ascii_case(name);
        self.remove.iter().any(is) || self.set.iter().any(|(other, _)| is(other))
    }
}

/// Whether the answer to this request may be a page of its own: a navigation, also of a frame, and the whole of it.
///
/// For such requests the backend is asked for `identity`, because what is compressed cannot be added to.
pub fn applies_to_request(method: &Method, headers: &HeaderMap) -> bool {
    let field = |name| headers.get(name).map(HeaderValue::as_bytes);
    applies_to(method, headers.contains_key(RANGE), field(SEC_FETCH_DEST), field(ACCEPT))
}

/// The same by the fields that tell: whether there is a `Range`, and the values of `Sec-Fetch-Dest` and `Accept`.
pub fn applies_to(method: &Method, has_range: bool, destination: Option<&[u8]>, accept: Option<&[u8]>) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD) || has_range {
        return false;
    }
    match destination {
        Some(destination) => matches!(destination, b"document" | b"iframe" | b"frame" | b"embed" | b"object"),
        None => accept.is_some_and(reads_html),
    }
}

/// Whether who accepts this reads HTML.
pub fn reads_html(accept: &[u8]) -> bool {
    static FINDER: LazyLock<memchr::memmem::Finder<'static>> =
        LazyLock::new(|| memchr::memmem::Finder::new("text/html"));
    accept.len() >= "text/html".len() && FINDER.find(accept).is_some()
}

/// Whether an answer of this `Content-Type` can be a page at all: a quick look before [`plan`].
pub fn may_be_page(content_type: &[u8]) -> bool {
    let start = content_type.trim_ascii_start();
    start.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

/// What to do with an answer of this status and these headers; `None`: leave it alone.
///
/// A strong ETag becomes weak (RFC 9110 §8.8.1): the bytes are no longer the backend's. `If-None-Match` compares weakly
/// and goes on working; `If-Range` does not, and no ranges are offered any more.
pub fn plan(status: u16, headers: &HeaderMap, mode: Mode) -> Option<Plan> {
    let text = |name| headers.get(name).map_or("", |v: &HeaderValue| v.to_str().unwrap_or(""));
    let content_type = text(CONTENT_TYPE).to_ascii_lowercase();
    let is_page = status == 200
        && content_type.split(';').next().is_some_and(|t| t.trim() == "text/html")
        // The script is ASCII, and so must be what surrounds it.
        && !content_type.contains("utf-16")
        && !content_type.contains("utf-32")
        && matches!(text(CONTENT_ENCODING), "" | "identity")
        && !text(CONTENT_DISPOSITION).trim_start().to_ascii_lowercase().starts_with("attachment")
        && !text(CACHE_CONTROL).to_ascii_lowercase().contains("no-transform");
    if !is_page || headers.contains_key(DONE) {
        return None;
    }
    let (script, source) = &SCRIPTS[mode as usize];
    let policies: Vec<_> =
        headers.get_all(CONTENT_SECURITY_POLICY).iter().map(HeaderValue::to_str).collect::<Result<_, _>>().ok()?;
    let permit = csp::permit(&policies, source)?;
    let element = match &permit.nonce {
        Some(nonce) => format!("<script nonce=\"{nonce}\">{script}</script>"),
        None => format!("<script>{script}</script>"),
    };
    let (mut remove, mut set) = (Vec::new(), Vec::new());
    if mode == Mode::Resume {
        set.push((DONE, HeaderValue::from_static("resume")));
    }
    if let Some(length) = headers.get(CONTENT_LENGTH) {
        let length: u64 = length.to_str().ok()?.parse().ok()?;
        if length == 0 {
            return None;
        }
        set.push((CONTENT_LENGTH, HeaderValue::from(length + element.len() as u64)));
    }
    if let Some(tag) = headers.get(ETAG).filter(|t| t.as_bytes().starts_with(b"\"")) {
        set.push((ETAG, HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()?));
    }
    if let Some(policy) = permit.policies {
        // One field with all policies: a list means the same as several fields (CSP3 §3.1).
        set.push((CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).ok()?));
    }
    remove.extend(DIGESTS.iter().chain([&ACCEPT_RANGES]).filter(|name| headers.contains_key(*name)).cloned());
    Some(Plan { remove, set, injector: Injector::new(element) })
}

#[cfg(test)]
mod tests;
