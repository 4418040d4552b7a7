//! Headers added, rewritten and stripped on the way (RFC 9110 §7.6.1, RFC 7239). Pure: fields in, edits out; the mover
//! applies them.
//!
//! Edits are two answers: whether a field goes on as it came, and what lines are added.

mod fields;
mod way;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::types::IpText;

pub use self::fields::{FIELDS_MAX, Fields, Known};
pub use self::way::Way;

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

/// Bytes of the longest name a backend might take for one of ours.
const NAME_MAX: usize = 64;

/// What the proxy knows of a request's way to it.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The connection's.
    pub way: &'a Way,
    /// Authority as the client gave it.
    pub host: &'a str,
    /// What the peer says about the way before it is believed.
    pub trusted: bool,
    /// See [`push_request_id`].
    pub request_id: &'a str,
    /// Set `X-RSC-Request`.
    pub rsc_request: bool,
    /// Path and query as the client gave them.
    pub target: &'a str,
    /// The answer's body will be looked into, so it must not be compressed.
    pub wants_identity: bool,
}

/// How a request head changes on its way to a backend.
///
/// A trusted peer's account of the way before it is kept and added to; anybody else's is replaced, because a backend
/// would believe it.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdits<'a> {
    fields: &'a Fields<'a>,
    hop: Hop<'a>,
    nominates: bool,
    joins_cookies: bool,
}

impl<'a> RequestEdits<'a> {
    /// For a head with these fields that came this way.
    pub fn new(fields: &'a Fields<'a>, hop: Hop<'a>) -> Self {
        Self { fields, hop, nominates: nominates(fields), joins_cookies: fields.is_repeated(Known::Cookie) }
    }

    /// Whether fields of this name go on as they came; `known` is which of [`Known`] it is. `Upgrade` never does: who leaves
    /// HTTP writes it anew.
    pub fn passes(&self, name: &[u8], known: Option<Known>) -> bool {
        if self.nominates && may_be_nominated(name) && is_nominated(self.fields, name) {
            return false;
        }
        let Hop { trusted, host, way: Way { client, port, .. }, .. } = self.hop;
        match known {
            // Those of one connection (RFC 9110 §7.6.1), older custom among them; `HTTP2-Settings` belongs to an upgrade
            // nobody gets here. Trailers end here, as §6.5.1 permits: so nobody is told that they would be read (§10.1.4).
            Some(
                Known::Connection
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::ProxyAuthenticate
                | Known::ProxyAuthorization
                | Known::Te
                | Known::Trailer
                | Known::Upgrade,
            ) => false,
            // Always written anew.
            Some(Known::Forwarded | Known::XRequestId) => false,
            Some(Known::XForwardedFor) => trusted && client.is_none() && !self.is_listed(Known::XForwardedFor),
            Some(Known::XForwardedProto) => trusted && self.is_listed(Known::XForwardedProto),
            Some(Known::XForwardedHost) => trusted && (self.is_listed(Known::XForwardedHost) || host.is_empty()),
            Some(Known::XForwardedPort) => trusted && (self.is_listed(Known::XForwardedPort) || *port == 0),
            Some(Known::XRealIp) => trusted && (self.is_listed(Known::XRealIp) || client.is_none()),
            Some(Known::XRscRequest) => trusted && !self.hop.rsc_request,
            Some(Known::Cookie) => !self.joins_cookies,
            Some(Known::AcceptEncoding) => !self.hop.wants_identity,
            Some(_) => true,
            None => (trusted || !is_account(name)) && !is_alias(name),
        }
    }

    /// Whether there is a value of a field that is text.
    fn is_listed(&self, name: Known) -> bool {
        self.fields.all(name).any(is_text)
    }

    /// Appends the lines of every field to add.
    pub fn add(&self, out: &mut Vec<u8>) {
        let Hop { host, way, .. } = self.hop;
        if self.hop.trusted {
            self.add_to_account(out);
        } else {
            out.extend_from_slice(way.lines());
            self.end_forwarded(out);
            if !host.is_empty() {
                put(out, Known::XForwardedHost, &[host.as_bytes()]);
            }
        }
        if self.joins_cookies {
            // HTTP/2 may carry cookies one to a field; HTTP/1 knows a single one (RFC 9113 §8.2.3), and most servers read
            // only that.
            put(out, Known::Cookie, &[&self.fields.all(Known::Cookie).collect::<Vec<_>>().join(&b"; "[..])]);
        }
        if !self.fields.has(Known::Host) {
            // HTTP/1.0 need not say it, and an absolute target says it elsewhere (RFC 9112 §3.2).
            put(out, Known::Host, &[host.as_bytes()]);
        }
        put(out, Known::XRequestId, &[self.hop.request_id.as_bytes()]);
        if self.hop.rsc_request {
            self.add_original_url(out);
        }
        if self.hop.wants_identity {
            put(out, Known::AcceptEncoding, &[b"identity"]);
        }
    }

    /// Adds to what a trusted peer says of the way before it.
    fn add_to_account(&self, out: &mut Vec<u8>) {
        let Hop { host, way, .. } = self.hop;
        let client = way.client_ip().map(IpText::new);
        let client = client.as_ref().map(IpText::as_bytes);
        if self.is_listed(Known::XForwardedFor) {
            let before = self.list(Known::XForwardedFor);
            put(out, Known::XForwardedFor, &[&before, b", ", client.unwrap_or(b"unknown")]);
        } else if let Some(client) = client {
            put(out, Known::XForwardedFor, &[client]);
        }
        if !self.is_listed(Known::XForwardedProto) {
            put(out, Known::XForwardedProto, &[way.scheme()]);
        }
        if !self.is_listed(Known::XForwardedHost) && !host.is_empty() {
            put(out, Known::XForwardedHost, &[host.as_bytes()]);
        }
        if !self.is_listed(Known::XForwardedPort) && way.port != 0 {
            put(out, Known::XForwardedPort, &[itoa::Buffer::new().format(way.port).as_bytes()]);
        }
        if let Some(client) = client.filter(|_| !self.is_listed(Known::XRealIp)) {
            put(out, Known::XRealIp, &[client]);
        }
        out.extend_from_slice(Known::Forwarded.as_line().as_bytes());
        let before = self.list(Known::Forwarded);
        out.extend_from_slice(&before);
        if !before.is_empty() {
            out.extend_from_slice(b", ");
        }
        way.forwarded(client, |piece| out.extend_from_slice(piece));
        self.end_forwarded(out);
    }

    /// The host, and the end of the line.
    fn end_forwarded(&self, out: &mut Vec<u8>) {
        let host = self.hop.host.as_bytes();
        let is_plain = !host.is_empty() && host.iter().all(|b| b.is_ascii_graphic() && *b != b'"' && *b != b'\\');
        if is_plain {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host);
            out.push(b'"');
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The URL the client asked for: its own account when the peer is trusted.
    fn add_original_url(&self, out: &mut Vec<u8>) {
        let told = |name| self.fields.text(name).filter(|_| self.hop.trusted).map(str::as_bytes);
        if let Some(url) = told(Known::XRscRequest) {
            return put(out, Known::XRscRequest, &[url]);
        }
        let first = |list: &'a [u8]| list.split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
        let scheme = told(Known::XForwardedProto).map_or(self.hop.way.scheme(), first);
        let host = told(Known::XForwardedHost).map_or(self.hop.host.as_bytes(), first);
        let target = if self.hop.target.starts_with('/') { self.hop.target } else { "/" };
        put(out, Known::XRscRequest, &[scheme, b"://", host, target.as_bytes()]);
    }

    /// All values of a field that are text, as one list; empty when there is none.
    fn list(&self, name: Known) -> Vec<u8> {
        self.fields.all(name).filter(|v| is_text(v)).collect::<Vec<_>>().join(&b", "[..])
    }
}

/// How the head of an answer changes on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct AnswerEdits<'a> {
    fields: &'a Fields<'a>,
    status: u16,
    nominates: bool,
}

impl<'a> AnswerEdits<'a> {
    /// For an answer of this status with these fields.
    pub fn new(status: u16, fields: &'a Fields<'a>) -> Self {
        Self { fields, status, nominates: nominates(fields) }
    }

    /// Whether fields of this name, `known` or not, go on as they came: not those of the backend's connection with us, which a 101 has for
    /// the client; and of `X-Request-Id` there is ours.
    pub fn passes(&self, name: &[u8], known: Option<Known>) -> bool {
        if self.status == 101 {
            return !matches!(known, Some(Known::XRequestId | Known::ContentLength | Known::TransferEncoding));
        }
        match known {
            Some(
                Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Trailer | Known::XRequestId,
            ) => false,
            // Only requests have it (RFC 9110 §10.1.4), and HTTP/2 takes no answer with one (RFC 9113 §8.2.2).
            Some(Known::Te) => false,
            // Who answers 426 says to what (RFC 9110 §15.5.22); any other offer is the backend's to us.
            Some(Known::Upgrade) => self.status == 426,
            // Where no body can be, neither may be (RFC 9110 §8.6, RFC 9112 §6.1): somebody might wait for one.
            Some(Known::TransferEncoding | Known::ContentLength) => self.status >= 200 && self.status != 204,
            Some(Known::SetCookie) => true,
            _ => !(self.nominates && is_nominated(self.fields, name)),
        }
    }
}

/// The tokens of all `Connection` fields.
fn nominated<'a>(fields: &Fields<'a>) -> impl Iterator<Item = &'a [u8]> {
    fields.all(Known::Connection).flat_map(|value| value.split(|b| *b == b',').map(<[u8]>::trim_ascii))
}

/// Whether `Connection` names more than the usual, which is looked for in its own right.
fn nominates(fields: &Fields<'_>) -> bool {
    match fields.first(Known::Connection) {
        None => return false,
        Some(b"close" | b"keep-alive") if !fields.is_repeated(Known::Connection) => return false,
        Some(_) => {}
    }
    let usual = |token: &[u8]| [&b"close"[..], b"keep-alive", b"upgrade"].iter().any(|u| token.eq_ignore_ascii_case(u));
    nominated(fields).any(|token| !usual(token))
}

fn is_nominated(fields: &Fields<'_>, name: &[u8]) -> bool {
    nominated(fields).any(|token| token.eq_ignore_ascii_case(name))
}

/// A client may name its own extensions in `Connection`, not what we or the backend rely on.
fn may_be_nominated(name: &[u8]) -> bool {
    match Known::of(name) {
        Some(
            Known::Host
            | Known::Cookie
            | Known::Authorization
            | Known::TransferEncoding
            | Known::ContentLength
            | Known::Forwarded
            | Known::XRequestId
            | Known::XRealIp
            | Known::XRscRequest
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedProto,
        ) => false,
        Some(_) => true,
        None => !is_account(name) && !starts_with(name, b"content-"),
    }
}

/// Says who somebody is, or which way a request came.
fn is_account(name: &[u8]) -> bool {
    starts_with(name, b"x-forwarded-") || IDENTITY.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// CGI and WSGI turn `-` into `_`, so that the variant would be taken for the real one.
fn is_alias(name: &[u8]) -> bool {
    if memchr::memchr(b'_', name).is_none() {
        return false;
    }
    let mut dashed = [0; NAME_MAX];
    let length = name.len().min(NAME_MAX);
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    let dashed = &dashed[..length];
    let is_ours = matches!(
        Known::of(dashed),
        Some(
            Known::XRscRequest
                | Known::XRealIp
                | Known::XRequestId
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedPort
                | Known::XForwardedProto
        )
    );
    is_ours || is_account(dashed)
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Writes one field, its value given in pieces.
pub fn put(out: &mut Vec<u8>, name: Known, pieces: &[&[u8]]) {
    out.extend_from_slice(name.as_line().as_bytes());
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

fn is_text(value: &[u8]) -> bool {
    value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}

/// Appends the request's name: a trusted peer's own if it is sane (1 to 128 visible characters), else a new one.
pub fn push_request_id(out: &mut String, fields: &Fields<'_>, trusted: bool, random: u128) {
    let told = if trusted { fields.text(Known::XRequestId) } else { None };
    match told.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())) {
        Some(id) => out.push_str(id),
        None => push_new_request_id(out, random),
    }
}

/// Bytes of a new name.
pub const NEW_REQUEST_ID: usize = 32;

/// 32 hexadecimal digits.
pub fn new_request_id(random: u128) -> String {
    let mut text = String::with_capacity(NEW_REQUEST_ID);
    push_new_request_id(&mut text, random);
    text
}

fn push_new_request_id(out: &mut String, random: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; NEW_REQUEST_ID];
    for (pair, byte) in text.chunks_exact_mut(2).zip(random.to_be_bytes()) {
        (pair[0], pair[1]) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
    }
    // It is ASCII.
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

/// The client behind trusted peers: the last address in `X-Forwarded-For` that is not one of theirs.
pub fn forwarded_client(fields: &Fields<'_>, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut last = None;
    let values: Vec<_> = fields.all(Known::XForwardedFor).filter_map(|v| std::str::from_utf8(v).ok()).collect();
    for value in values.into_iter().rev().filter(|v| is_text(v.as_bytes())) {
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
