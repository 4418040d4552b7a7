//! Headers added, rewritten and stripped on the way (RFC 9110 §7.6.1, RFC 7239). Pure: headers in, edits out; the mover
//! applies them.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// Names a request through all logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// The absolute URL of the client's own request, as Posit Connect reads it.
const X_RSC_REQUEST: HeaderName = HeaderName::from_static("x-rsc-request");

/// Fields that belong to one connection, not to the message (RFC 9110 §7.6.1; the last three are older custom,
/// `http2-settings` belongs to an upgrade nobody gets here).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
];

/// Identity that content servers trust because a gateway set it. Nobody outside may say who they are with these: they
/// are stripped unless the peer is trusted. `X-Auth-Token` is none of them: R's rsconnect names its key with it, and signs.
const IDENTITY: [&str; 7] = [
    "rstudio-connect-credentials",
    "rstudio-connect-app-base-url",
    "posit-connect-user-session-token",
    "shiny-server-credentials",
    "x-auth-username",
    "x-forwarded-user",
    "x-remote-user",
];

/// Changes to a head: remove first, then set (replacing).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields to remove, all values.
    pub remove: Vec<HeaderName>,
    /// Fields to set, replacing what was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

/// What the proxy knows of a request's way to it.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The peer of the connection; `None` for a unix socket.
    pub client: Option<IpAddr>,
    /// It came over TLS.
    pub is_tls: bool,
    /// Authority as the client gave it.
    pub host: &'a str,
    /// The local port; 0 for a unix socket.
    pub port: u16,
    /// What the peer says about the way before it is believed.
    pub trusted: bool,
    /// See [`request_id`].
    pub request_id: &'a str,
    /// Set `X-RSC-Request`.
    pub rsc_request: bool,
    /// Path and query as the client gave them.
    pub target: &'a str,
    /// The request leaves HTTP: `Upgrade` is the mover's to keep.
    pub upgrade: bool,
}

/// How a request head must change on its way to a backend.
///
/// A trusted peer's account of the way before it is kept and added to; anybody else's is replaced, because a backend
/// would believe it.
pub fn for_upstream(headers: &HeaderMap, hop: &Hop<'_>) -> Edits {
    let mut edits = Edits { remove: Vec::with_capacity(4), set: Vec::with_capacity(8) };
    strip_hop_by_hop(headers, hop.upgrade, &mut edits);
    strip_identity(headers, hop, &mut edits);
    set_forwarded(headers, hop, &mut edits);
    join_cookies(headers, &mut edits);
    put(&mut edits, X_REQUEST_ID, hop.request_id);
    if hop.rsc_request {
        put(&mut edits, X_RSC_REQUEST, &original_url(headers, hop));
    }
    edits
}

/// HTTP/2 may carry cookies one to a field; HTTP/1 knows a single one (RFC 9113 §8.2.3), and most servers read only that.
fn join_cookies(headers: &HeaderMap, edits: &mut Edits) {
    let mut all = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (all.next(), all.next()) {
        let mut line = first.as_bytes().to_vec();
        for crumb in std::iter::once(second).chain(all) {
            line.extend_from_slice(b"; ");
            line.extend_from_slice(crumb.as_bytes());
        }
        if let Ok(line) = HeaderValue::from_bytes(&line) {
            edits.set.push((COOKIE, line));
        }
    }
}

fn strip_hop_by_hop(headers: &HeaderMap, upgrade: bool, edits: &mut Edits) {
    edits.remove.extend(HOP_BY_HOP.iter().filter(|name| headers.contains_key(*name)).cloned());
    if !upgrade && headers.contains_key(UPGRADE) {
        edits.remove.push(UPGRADE);
    }
    for value in headers.get_all(CONNECTION) {
        let tokens = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        for name in tokens.filter_map(|t| HeaderName::from_bytes(t).ok()) {
            if headers.contains_key(&name) && may_be_nominated(&name) && !edits.remove.contains(&name) {
                edits.remove.push(name);
            }
        }
    }
    // Trailers end here, as RFC 9110 §6.5.1 permits: so nobody is told that they would be read (§10.1.4).
    for name in [TE, TRAILER] {
        if headers.contains_key(&name) && !edits.remove.contains(&name) {
            edits.remove.push(name);
        }
    }
}

/// The fields of a final answer (no 101) that belong to the backend's connection with us.
///
/// `requires_upgrade`: its status is 426.
pub fn hop_by_hop_of_answer(headers: &HeaderMap, requires_upgrade: bool) -> Vec<HeaderName> {
    let own = [CONNECTION, HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection"), TRAILER];
    // Who answers 426 says to what (RFC 9110 §15.5.22); any other offer is the backend's to us.
    let offer = Some(UPGRADE).filter(|_| !requires_upgrade);
    let mut gone: Vec<_> = own.into_iter().chain(offer).filter(|name| headers.contains_key(name)).collect();
    for value in headers.get_all(CONNECTION) {
        let tokens = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        for name in tokens.filter_map(|t| HeaderName::from_bytes(t).ok()) {
            let is_framing =
                name == TRANSFER_ENCODING || name == CONTENT_LENGTH || name == SET_COOKIE || name == UPGRADE;
            if headers.contains_key(&name) && !is_framing && !gone.contains(&name) {
                gone.push(name);
            }
        }
    }
    gone
}

/// A client may name its own extensions in `Connection`, not what we or the backend rely on.
fn may_be_nominated(name: &HeaderName) -> bool {
    let ours = [X_REQUEST_ID, X_REAL_IP, X_RSC_REQUEST];
    let text = name.as_str();
    let is_kept = [HOST, COOKIE, AUTHORIZATION, TRANSFER_ENCODING, FORWARDED, UPGRADE].contains(name)
        || ours.contains(name)
        || IDENTITY.contains(&text);
    !is_kept && !text.starts_with("x-forwarded-") && !text.starts_with("content-")
}

fn strip_identity(headers: &HeaderMap, hop: &Hop<'_>, edits: &mut Edits) {
    for name in headers.keys() {
        let text = name.as_str();
        // CGI and WSGI turn `-` into `_`, so that the variant would be taken for the real one.
        let has_alias = text.contains('_');
        let is_identity = |text: &str| IDENTITY.contains(&text);
        let is_ours =
            |text: &str| text == X_RSC_REQUEST.as_str() || text.starts_with("x-forwarded-") || text == "x-real-ip";
        let strip = if has_alias {
            let dashed = text.replace('_', "-");
            is_identity(&dashed) || is_ours(&dashed) || dashed == X_REQUEST_ID.as_str()
        } else {
            // One of ours that is set below is replaced there.
            !hop.trusted && (is_identity(text) || is_ours(text)) || name == X_RSC_REQUEST && hop.rsc_request
        };
        if strip {
            edits.remove.push(name.clone());
        }
    }
}

fn set_forwarded(headers: &HeaderMap, hop: &Hop<'_>, edits: &mut Edits) {
    let client = hop.client.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    let before = |name: &HeaderName| if hop.trusted { listed(headers, name) } else { None };
    let scheme = if hop.is_tls { "https" } else { "http" };
    match before(&X_FORWARDED_FOR) {
        Some(list) => put(edits, X_FORWARDED_FOR, &format!("{list}, {client}")),
        None if hop.client.is_some() => put(edits, X_FORWARDED_FOR, &client),
        None => {}
    }
    if before(&X_FORWARDED_PROTO).is_none() {
        put(edits, X_FORWARDED_PROTO, scheme);
    }
    if before(&X_FORWARDED_HOST).is_none() && !hop.host.is_empty() {
        put(edits, X_FORWARDED_HOST, hop.host);
    }
    if before(&X_FORWARDED_PORT).is_none() && hop.port != 0 {
        put(edits, X_FORWARDED_PORT, &hop.port.to_string());
    }
    if before(&X_REAL_IP).is_none() && hop.client.is_some() {
        put(edits, X_REAL_IP, &client);
    }
    let mut element = before(&FORWARDED).map_or_else(String::new, |list| format!("{list}, "));
    // RFC 7239 §6: an IPv6 address stands in brackets and quotes. Writing into a String cannot fail.
    let _ = match hop.client {
        Some(IpAddr::V6(ip)) => write!(element, "for=\"[{ip}]\""),
        Some(IpAddr::V4(ip)) => write!(element, "for={ip}"),
        None => write!(element, "for=unknown"),
    };
    let _ = write!(element, ";proto={scheme}");
    if !hop.host.is_empty() && hop.host.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        let _ = write!(element, ";host=\"{}\"", hop.host);
    }
    put(edits, FORWARDED, &element);
}

/// All values of a field as one list; `None` when there is none or it is not text.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn put(edits: &mut Edits, name: HeaderName, value: &str) {
    // What is no header value came from the wire in a field that does not exist then; leaving it out is right.
    if let Ok(value) = HeaderValue::from_str(value) {
        edits.set.push((name, value));
    }
}

/// The URL the client asked for: its own account when the peer is trusted.
fn original_url(headers: &HeaderMap, hop: &Hop<'_>) -> String {
    let told = |name: &HeaderName| headers.get(name).filter(|_| hop.trusted).and_then(|v| v.to_str().ok());
    if let Some(url) = told(&X_RSC_REQUEST) {
        return url.to_owned();
    }
    let first = |list: &str| list.split(',').next().unwrap_or_default().trim().to_owned();
    let scheme =
        told(&X_FORWARDED_PROTO).map(first).unwrap_or_else(|| if hop.is_tls { "https" } else { "http" }.to_owned());
    let host = told(&X_FORWARDED_HOST).map(first).unwrap_or_else(|| hop.host.to_owned());
    let target = if hop.target.starts_with('/') { hop.target } else { "/" };
    format!("{scheme}://{host}{target}")
}

/// The request's name: a trusted peer's own if it is sane (1 to 128 visible characters), else a new one.
pub fn request_id(headers: &HeaderMap, trusted: bool, random: u128) -> String {
    let told = headers.get(X_REQUEST_ID).filter(|_| trusted).and_then(|v| v.to_str().ok());
    match told.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())) {
        Some(id) => id.to_owned(),
        None => new_request_id(random),
    }
}

/// 32 hexadecimal digits.
pub fn new_request_id(random: u128) -> String {
    format!("{random:032x}")
}

/// The client behind trusted peers: the last address in `X-Forwarded-For` that is not one of theirs.
pub fn forwarded_client(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut last = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev().filter_map(|v| v.to_str().ok()) {
        for element in value.rsplit(',') {
            let element = element.trim();
            let bare = element.strip_prefix('[').and_then(|e| e.split(']').next()).unwrap_or(element);
            let without_port = || bare.split_once(':').filter(|(_, rest)| !rest.contains(':')).map(|(ip, _)| ip);
            let ip: IpAddr = bare.parse().or_else(|e| without_port().map_or(Err(e), str::parse)).ok()?;
            last = Some(ip);
            if !trusted.iter().any(|net| net.contains(&ip)) {
                return last;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests;
