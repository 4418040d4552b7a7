//! One HTTP/1.x request head: found, bounded, judged. Pure: bytes in, a verdict out.
//!
//! Stricter than RFC 9112 requires wherever two parsers could read one message differently: what is refused here
//! never reaches a backend. Nothing is copied.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use http::{Method, Uri, request};

use super::framing::{Framing, is_token};
use super::refusal::Refusal;
pub use crate::proxy::headers::FIELDS_MAX;
use crate::proxy::headers::{Fields, Known};

/// What a head says, as far as the connection must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes up to and including the blank line.
    pub len: usize,
    /// How the body is delimited.
    pub framing: Framing,
    /// The client will not send another request, or speaks HTTP/1.0 without asking to stay.
    pub closes: bool,
    /// The client asks to leave HTTP with a protocol we would tunnel, and sends no body.
    pub upgrade: Option<Upgrade>,
    /// HTTP/1.0.
    pub is_http10: bool,
}

/// A head that was accepted, as it came.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// What the connection must know.
    pub head: Head,
    /// Any token of at most 32 bytes but `CONNECT`.
    pub method: Method,
    /// Path and query, or `*`; of an absolute-form target what follows the authority.
    pub target: Cow<'a, str>,
    /// The authority of an absolute-form target, else the Host field; empty when there is neither.
    pub host: &'a str,
    /// Its fields.
    pub fields: &'a Fields<'a>,
}

/// The protocol an upgrade asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// `websocket` (RFC 6455).
    Websocket,
    /// Any other but HTTP and TLS themselves, whose upgrades would smuggle requests past every rule.
    Other,
}

/// The listener's bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a head.
    pub bytes: usize,
    /// Fields of a head; never more than [`FIELDS_MAX`].
    pub fields: usize,
}

/// Reads the head at the start of `buf` and hands it to `then`.
///
/// `Ok(None)`: not complete yet. `searched` is where the last call gave up, so that a head arriving byte by byte
/// costs linear time; start with 0.
///
/// # Errors
/// The first broken rule, as a [`Refusal`].
pub fn read<T>(
    buf: &[u8],
    bounds: Bounds,
    searched: &mut usize,
    then: impl Fn(&Parsed<'_>) -> T,
) -> Result<Option<T>, Refusal> {
    let window = &buf[..buf.len().min(bounds.bytes)];
    // Most heads come whole: what is found at once need not be looked for.
    if *searched == 0
        && let Ok(Some(done)) = judge(window, bounds, &then)
    {
        return Ok(Some(done));
    }
    let from = searched.saturating_sub(3);
    let Some(end) = memchr::memmem::find(window.get(from..).unwrap_or_default(), b"\r\n\r\n") else {
        *searched = window.len();
        // TLS, or anything else that never becomes a request: no need to wait for more of it.
        if buf.first().is_some_and(|b| !is_token(*b) && !matches!(b, b'\r' | b'\n')) {
            return Err(Refusal::BadRequestLine);
        }
        if buf.len() >= bounds.bytes {
            return Err(Refusal::HeadTooLarge);
        }
        // A line that ended in LF alone will never be followed by what we wait for.
        return if ends_with_bare_blank_line(buf) { Err(Refusal::BareLineFeed) } else { Ok(None) };
    };
    let len = from + end + 4;
    // It is whole; if the parser thinks otherwise it has lost the request line.
    judge(&buf[..len], bounds, &then)?.map(Some).ok_or(Refusal::BadRequestLine)
}

/// As [`read`], for who wants no more than to know that it is one.
///
/// # Errors
/// See [`read`].
pub fn parse(buf: &[u8], bounds: Bounds, searched: &mut usize) -> Result<Option<Head>, Refusal> {
    read(buf, bounds, searched, |parsed| parsed.head)
}

fn ends_with_bare_blank_line(buf: &[u8]) -> bool {
    buf.ends_with(b"\n\n") || buf.ends_with(b"\n\r\n") && !buf.ends_with(b"\r\n\r\n")
}

/// Judges the head that `bytes` begin with; `None`: it is not whole.
fn judge<T>(bytes: &[u8], bounds: Bounds, then: &impl Fn(&Parsed<'_>) -> T) -> Result<Option<T>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let head = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(len)) => &bytes[..len],
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) if has_bare_line_feed(bytes) && e != httparse::Error::TooManyHeaders => {
            return Err(Refusal::BareLineFeed);
        }
        Err(e) => return Err(named(e, bytes)),
    };
    if !lines_end_in_pairs(head, request.headers) {
        return Err(Refusal::BareLineFeed);
    }
    if request.headers.len() > bounds.fields {
        return Err(Refusal::TooManyFields);
    }
    let method = request.method.unwrap_or_default();
    if method.len() > 32 {
        return Err(Refusal::BadMethod);
    }
    if method == "CONNECT" {
        return Err(Refusal::ConnectMethod);
    }
    let is_http10 = request.version == Some(0);
    let known = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::BadMethod)?;
    let target = request.path.unwrap_or_default();
    let authority = target_authority(method, target)?;
    let fields = &Fields::new(request.headers);
    let verdict = judge_fields(fields, is_http10, authority)?;
    let host = authority.or_else(|| fields.text(Known::Host)).unwrap_or_default();
    Ok(Some(then(&Parsed {
        head: Head { len: head.len(), ..verdict },
        method: known,
        target: if authority.is_some() { origin_form(target) } else { Cow::Borrowed(target) },
        host,
        fields,
    })))
}

/// Whether each line of an accepted head ends in CR LF. The parser takes LF alone too, but only there.
fn lines_end_in_pairs(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let start = |name: &str| name.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    head.first() != Some(&b'\n')
        && head.ends_with(b"\r\n\r\n")
        && fields.iter().all(|field| head.get(..start(field.name)).is_some_and(|before| before.ends_with(b"\r\n")))
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

/// What of an absolute-form target goes on (RFC 9112 §3.2.1).
fn origin_form(target: &str) -> Cow<'_, str> {
    let uri = target.parse::<Uri>().ok();
    let target = uri.as_ref().and_then(Uri::path_and_query).map_or("/", |t| t.as_str());
    // Of a target without a path only the query is there.
    Cow::Owned(if target.starts_with('/') { target.to_owned() } else { format!("/{target}") })
}

/// The authority of an absolute-form target; `None` for origin-form and `*`.
fn target_authority<'a>(method: &str, target: &'a str) -> Result<Option<&'a str>, Refusal> {
    if target.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#') {
        return Err(Refusal::BadTarget);
    }
    if target.starts_with('/') {
        return if is_path_and_query(target.as_bytes()) { Ok(None) } else { Err(Refusal::BadTarget) };
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(None);
    }
    let rest = strip_scheme(target).ok_or(Refusal::BadTarget)?;
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    if authority.is_empty() || authority.contains('@') || target.parse::<Uri>().is_err() {
        return Err(Refusal::BadTarget);
    }
    Ok(Some(authority))
}

/// What the `http` types take as path and query, without building one: RFC 3986's characters and the few more that
/// browsers send unescaped.
fn is_path_and_query(target: &[u8]) -> bool {
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at..]),
        None => (target, &target[..0]),
    };
    target.len() < usize::from(u16::MAX)
        && !path.iter().any(|b| matches!(b, b'<' | b'>' | b'`'))
        && !query.iter().any(|b| matches!(b, b'"' | b'<' | b'>'))
        && (target.is_ascii() || std::str::from_utf8(target).is_ok())
}

fn strip_scheme(target: &str) -> Option<&str> {
    for scheme in ["http://", "https://"] {
        if target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme)) {
            return Some(&target[scheme.len()..]);
        }
    }
    None
}

fn judge_fields(fields: &Fields<'_>, is_http10: bool, authority: Option<&str>) -> Result<Head, Refusal> {
    let only = |name, refusal| if fields.is_repeated(name) { Err(refusal) } else { Ok(fields.first(name)) };
    let host = only(Known::Host, Refusal::MultipleHosts)?;
    let length = only(Known::ContentLength, Refusal::MultipleLengths)?.map(content_length).transpose()?;
    let encoding = only(Known::TransferEncoding, Refusal::BadTransferEncoding)?;
    if encoding.is_some_and(|e| is_http10 || !e.eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::BadTransferEncoding);
    }
    let chunked = encoding.is_some();
    let (mut closes, mut keeps, mut nominates_upgrade) = (false, false, false);
    for token in fields.all(Known::Connection).flat_map(tokens) {
        closes |= token.eq_ignore_ascii_case(b"close");
        keeps |= token.eq_ignore_ascii_case(b"keep-alive");
        nominates_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
    }
    if chunked && length.is_some() {
        return Err(Refusal::LengthAndEncoding);
    }
    match (host, authority) {
        (None, None) if is_http10 => {}
        (None, _) if !is_http10 => return Err(Refusal::MissingHost),
        (Some(h), _) if !is_host(h) => return Err(Refusal::BadHost),
        // RFC 9112 §3.2.2 lets the target win; two names for one request help only an attacker.
        (Some(h), Some(a)) if !h.eq_ignore_ascii_case(a.as_bytes()) => return Err(Refusal::BadHost),
        _ => {}
    }
    let framing = match length {
        _ if chunked => Framing::Chunked,
        None | Some(0) => Framing::Empty,
        Some(n) => Framing::Length(n),
    };
    // One protocol, named once: of two fields somebody else might believe the other.
    let upgrade = only(Known::Upgrade, Refusal::BadFieldValue).ok().flatten();
    let asks = !is_http10 && nominates_upgrade && framing == Framing::Empty;
    Ok(Head {
        len: 0,
        framing,
        closes: closes || is_http10 && !keeps,
        upgrade: if asks { upgrade.and_then(tunnelled) } else { None },
        is_http10,
    })
}

/// Judges the head of an HTTP/2 request, whose syntax the frames have seen to; how its body goes to a backend.
/// `fields` are its fields; `is_bodiless`: nothing follows it.
///
/// # Errors
/// The first broken rule, as a [`Refusal`].
pub fn judge_parts(
    parts: &request::Parts,
    fields: &Fields<'_>,
    is_bodiless: bool,
    bounds: Bounds,
) -> Result<Framing, Refusal> {
    if parts.headers.len() > bounds.fields {
        return Err(Refusal::TooManyFields);
    }
    if parts.method.as_str().len() > 32 {
        return Err(Refusal::BadMethod);
    }
    if parts.method == Method::CONNECT {
        return Err(Refusal::ConnectMethod);
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target_authority(parts.method.as_str(), target)?.is_some() {
        return Err(Refusal::BadTarget);
    }
    if fields.is_repeated(Known::Host) {
        return Err(Refusal::MultipleHosts);
    }
    match (fields.first(Known::Host), parts.uri.authority().map(|a| a.as_str().as_bytes())) {
        (None, None) => return Err(Refusal::MissingHost),
        // Two names for one request help only an attacker (RFC 9113 §8.3.1).
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => return Err(Refusal::BadHost),
        (Some(host), _) | (None, Some(host)) if !is_host(host) => return Err(Refusal::BadHost),
        _ => {}
    }
    if fields.is_repeated(Known::ContentLength) {
        return Err(Refusal::MultipleLengths);
    }
    Ok(match fields.first(Known::ContentLength).map(content_length).transpose()? {
        _ if is_bodiless => Framing::Empty,
        None => Framing::Chunked,
        Some(0) => Framing::Empty,
        Some(n) => Framing::Length(n),
    })
}

fn tunnelled(value: &[u8]) -> Option<Upgrade> {
    if value.eq_ignore_ascii_case(b"websocket") {
        return Some(Upgrade::Websocket);
    }
    let is_ours = |token: &[u8]| {
        let name = token.split(|b| *b == b'/').next().unwrap_or_default();
        [&b"h2"[..], b"h2c", b"h3", b"http", b"tls"].iter().any(|p| name.eq_ignore_ascii_case(p))
    };
    if value.is_empty() || tokens(value).any(is_ours) { None } else { Some(Upgrade::Other) }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.contains(&b',') {
        return Err(Refusal::MultipleLengths);
    }
    let is_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_digits);
    text.and_then(|t| t.parse().ok()).ok_or(Refusal::BadLength)
}

/// `uri-host [ ":" port ]` of RFC 9110 §7.2, as far as it matters: no user, no path, no list, not empty.
fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value.iter().rposition(|b| *b == b':') {
        Some(at) if !value.ends_with(b"]") => (&value[..at], &value[at + 1..]),
        _ => (value, &value[..0]),
    };
    let in_brackets = name.len() > 4 && name.starts_with(b"[") && name.ends_with(b"]");
    let name_fits = if in_brackets {
        name[1..name.len() - 1].iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b))
    } else {
        !name.is_empty() && name.len() <= 253 && name.iter().all(|b| IN_NAME[usize::from(*b)])
    };
    name_fits && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// The characters of a name (RFC 3986 §3.2.2), but for the comma.
static IN_NAME: [bool; 256] = {
    let (mut table, mut b) = ([false; 256], 0);
    while b < 128 {
        table[b] = (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    let (others, mut at) = (b"-._~%!$&'()*+;=", 0);
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

fn named(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::Version => Refusal::BadVersion,
        httparse::Error::HeaderName if is_folded(head) => Refusal::FoldedField,
        httparse::Error::HeaderName => Refusal::BadFieldName,
        httparse::Error::HeaderValue if is_folded(head) => Refusal::FoldedField,
        httparse::Error::HeaderValue => Refusal::BadFieldValue,
        httparse::Error::Token => {
            let method = head.split(|b| *b == b' ').next().unwrap_or_default();
            if !method.is_empty() && method.iter().all(|b| is_token(*b)) {
                Refusal::BadTarget
            } else {
                Refusal::BadMethod
            }
        }
        _ => Refusal::BadRequestLine,
    }
}

fn is_folded(head: &[u8]) -> bool {
    memchr::memmem::find(head, b"\r\n ").is_some() || memchr::memmem::find(head, b"\r\n\t").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1024, fields: 10 };

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        parse(text.as_bytes(), BOUNDS, &mut 0)
    }

    fn accepted(text: &str) -> Head {
        read(text).expect(text).expect(text)
    }

    #[test]
    fn a_plain_request_has_no_body_and_stays() {
        let head = accepted("GET /a?b HTTP/1.1\r\nHost: a.example:80\r\n\r\nrest");
        assert_eq!((head.framing, head.closes, head.upgrade), (Framing::Empty, false, None));
        assert_eq!(head.len, "GET /a?b HTTP/1.1\r\nHost: a.example:80\r\n\r\n".len());
    }

    #[test]
    fn every_head_is_found_however_it_is_cut() {
        let text = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n";
        let mut searched = 0;
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end], BOUNDS, &mut searched), Ok(None), "{end}");
        }
        assert_eq!(parse(text, BOUNDS, &mut searched).expect("whole").expect("whole").framing, Framing::Length(12));
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        use Refusal::*;
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10));
        let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(1100));
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", MultipleLengths),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", MultipleLengths),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", BadLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", BadLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", BadLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadTransferEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", BadTransferEncoding),
            ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", MultipleHosts),
            ("GET / HTTP/1.1\r\nX: a\r\n\r\n", MissingHost),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", BadHost),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadFieldName),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", FoldedField),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", BadFieldValue),
            ("GET / HTTP/1.1\nHost: a\n\n", BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineFeed),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", BadVersion),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
            ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", BadMethod),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", ConnectMethod),
            (many.as_str(), TooManyFields),
            (huge.as_str(), HeadTooLarge),
        ];
        for (text, refusal) in cases {
            assert_eq!(read(text), Err(refusal), "{text}");
        }
    }

    #[test]
    fn only_what_leaves_http_is_tunnelled() {
        let ask = |v: &str| {
            accepted(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {v}\r\n\r\n"))
                .upgrade
        };
        assert_eq!(ask("websocket"), Some(Upgrade::Websocket));
        assert_eq!(ask("WebSocket"), Some(Upgrade::Websocket));
        assert_eq!(ask("ndt7"), Some(Upgrade::Other));
        assert_eq!(ask("h2c"), None);
        assert_eq!(ask("foo, HTTP/2.0"), None);
        assert_eq!(ask("TLS/1.0"), None);
        assert_eq!(accepted("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").upgrade, None, "not nominated");
        let two = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: foo\r\n\r\n";
        assert_eq!(accepted(two).upgrade, None, "somebody else may go by the other one");
        let with_body =
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(accepted(with_body).upgrade, None);
    }

    #[test]
    fn http_10_leaves_unless_it_asks_to_stay() {
        assert!(accepted("GET / HTTP/1.0\r\n\r\n").closes);
        assert!(!accepted("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").closes);
        assert!(accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n").closes);
    }

    #[test]
    fn an_absolute_target_goes_on_in_origin_form() {
        for (target, origin) in [
            ("http://a", "/"),
            ("http://a/", "/"),
            ("HTTPS://a/x/y?z", "/x/y?z"),
            ("http://a?z=1", "/?z=1"),
            ("http://a/?z", "/?z"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let seen = super::read(text.as_bytes(), BOUNDS, &mut 0, |parsed| {
                (parsed.target.to_string(), parsed.host.to_owned())
            });
            assert_eq!(seen, Ok(Some((origin.to_owned(), "a".to_owned()))), "{target}");
        }
    }

    #[test]
    fn targets_may_be_absolute_or_an_asterisk() {
        accepted("GET http://A/x HTTP/1.1\r\nHost: a\r\n\r\n");
        accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        accepted("GET / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n");
    }
}
