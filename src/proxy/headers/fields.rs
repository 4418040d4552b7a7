//! The fields of a head as they came, whatever the version of HTTP.
//!
//! Decisions ask for [`Known`] names only. Those are found in one pass over a head as it came, so that each question after
//! it costs an array access, and nothing is copied or hashed.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Declares the names: how each is written, in HTTP/1.1 and as a key of a header map.
macro_rules! known {
    ($($variant:ident = $text:literal, $key:expr;)+) => {
        /// A field name something is decided by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Known { $(#[doc = $text] $variant),+ }

        impl Known {
            /// Every name, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As people write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The same and what stands before a value.
            pub const fn as_line(self) -> &'static str {
                match self { $(Self::$variant => concat!($text, ": ")),+ }
            }

            /// As a header map has it.
            pub const fn key(self) -> HeaderName {
                match self { $(Self::$variant => $key),+ }
            }
        }
    };
}

known! {
    Accept = "Accept", header::ACCEPT;
    AcceptEncoding = "Accept-Encoding", header::ACCEPT_ENCODING;
    Authorization = "Authorization", header::AUTHORIZATION;
    BowlineLeaving = "Bowline-Leaving", HeaderName::from_static(crate::types::LEAVING);
    Connection = "Connection", header::CONNECTION;
    ContentLength = "Content-Length", header::CONTENT_LENGTH;
    ContentType = "Content-Type", header::CONTENT_TYPE;
    Cookie = "Cookie", header::COOKIE;
    Date = "Date", header::DATE;
    Forwarded = "Forwarded", header::FORWARDED;
    Host = "Host", header::HOST;
    Http2Settings = "HTTP2-Settings", HeaderName::from_static("http2-settings");
    KeepAlive = "Keep-Alive", HeaderName::from_static("keep-alive");
    ProxyAuthenticate = "Proxy-Authenticate", header::PROXY_AUTHENTICATE;
    ProxyAuthorization = "Proxy-Authorization", header::PROXY_AUTHORIZATION;
    ProxyConnection = "Proxy-Connection", HeaderName::from_static("proxy-connection");
    Range = "Range", header::RANGE;
    SecFetchDest = "Sec-Fetch-Dest", HeaderName::from_static("sec-fetch-dest");
    SecFetchMode = "Sec-Fetch-Mode", HeaderName::from_static("sec-fetch-mode");
    SetCookie = "Set-Cookie", header::SET_COOKIE;
    Te = "TE", header::TE;
    Trailer = "Trailer", header::TRAILER;
    TransferEncoding = "Transfer-Encoding", header::TRANSFER_ENCODING;
    Upgrade = "Upgrade", header::UPGRADE;
    UserAgent = "User-Agent", header::USER_AGENT;
    XForwardedFor = "X-Forwarded-For", HeaderName::from_static("x-forwarded-for");
    XForwardedHost = "X-Forwarded-Host", HeaderName::from_static("x-forwarded-host");
    XForwardedPort = "X-Forwarded-Port", HeaderName::from_static("x-forwarded-port");
    XForwardedProto = "X-Forwarded-Proto", HeaderName::from_static("x-forwarded-proto");
    XRealIp = "X-Real-IP", HeaderName::from_static("x-real-ip");
    XRequestId = "X-Request-Id", HeaderName::from_static("x-request-id");
    XRscRequest = "X-RSC-Request", HeaderName::from_static("x-rsc-request");
}

impl Known {
    /// Which of them a name is, in whatever case it came. The name must be a token.
    pub fn of(name: &[u8]) -> Option<Self> {
        let start = name.first()? | LOWER;
        let known = match (name.len(), start) {
            (2, _) => Self::Te,
            (4, b'd') => Self::Date,
            (4, _) => Self::Host,
            (5, _) => Self::Range,
            (6, b'c') => Self::Cookie,
            (6, _) => Self::Accept,
            (7, b'u') => Self::Upgrade,
            (7, _) => Self::Trailer,
            (9, b'x') => Self::XRealIp,
            (9, _) => Self::Forwarded,
            (10, b'c') => Self::Connection,
            (10, b'u') => Self::UserAgent,
            (10, b'k') => Self::KeepAlive,
            (10, _) => Self::SetCookie,
            (12, b'c') => Self::ContentType,
            (12, _) => Self::XRequestId,
            (13, b'a') => Self::Authorization,
            (13, _) => Self::XRscRequest,
            (14, b'c') => Self::ContentLength,
            (14, b'h') => Self::Http2Settings,
            (14, _) if name[10] | LOWER == b'm' => Self::SecFetchMode,
            (14, _) => Self::SecFetchDest,
            (15, b'a') => Self::AcceptEncoding,
            (15, b'x') => Self::XForwardedFor,
            (15, _) => Self::BowlineLeaving,
            (16, b'p') => Self::ProxyConnection,
            (16, _) if name[12] | LOWER == b'h' => Self::XForwardedHost,
            (16, _) => Self::XForwardedPort,
            (17, b't') => Self::TransferEncoding,
            (17, _) => Self::XForwardedProto,
            (18, _) => Self::ProxyAuthenticate,
            (19, _) => Self::ProxyAuthorization,
            _ => return None,
        };
        // Of the characters of a token, only letters differ from others in this bit alone.
        let pairs = name.iter().zip(known.as_str().as_bytes());
        let differ = pairs.fold(0, |differ, (a, b)| differ | ((a | LOWER) ^ (b | LOWER)));
        (differ == 0).then_some(known)
    }
}

/// The bit that makes letters small.
const LOWER: u8 = 0x20;

/// The fields of one head, with the places of those that are known.
#[derive(Debug)]
pub struct Fields<'a> {
    /// In order, names in whatever case they came.
    pub lines: &'a [httparse::Header<'a>],
    /// For each [`Known`] one more than the place of its first field; 0: there is none.
    first: [u16; Known::ALL.len()],
    /// Those known names that come more than once, a bit each.
    repeated: u32,
    /// For each field one more than the [`Known`] name it has; 0: none of them.
    kinds: [u8; FIELDS_MAX],
}

/// Fields one head may have at most, whatever the configuration says.
pub const FIELDS_MAX: usize = 256;

impl<'a> Fields<'a> {
    /// Finds the known ones; of more than [`FIELDS_MAX`] fields the rest is left out.
    pub fn new(lines: &'a [httparse::Header<'a>]) -> Self {
        let lines = &lines[..lines.len().min(FIELDS_MAX)];
        let mut fields = Self { lines, first: [0; Known::ALL.len()], repeated: 0, kinds: [0; FIELDS_MAX] };
        for (place, field) in lines.iter().enumerate() {
            if let Some(known) = Known::of(field.name.as_bytes()) {
                fields.kinds[place] = known as u8 + 1;
                match &mut fields.first[known as usize] {
                    free @ 0 => *free = place as u16 + 1,
                    _ => fields.repeated |= 1 << known as u32,
                }
            }
        }
        fields
    }

    /// Every field with the known name it has.
    pub fn iter(&self) -> impl Iterator<Item = (&'a httparse::Header<'a>, Option<Known>)> {
        let known = |kind: &u8| Known::ALL.get(usize::from(*kind).wrapping_sub(1)).copied();
        self.lines.iter().zip(self.kinds.iter().map(known))
    }

    /// The value of the first field of this name.
    pub fn first(&self, name: Known) -> Option<&'a [u8]> {
        let place = usize::from(self.first[name as usize]).checked_sub(1)?;
        self.lines.get(place).map(|field| field.value)
    }

    /// The same if it is visible ASCII, blanks and tabs.
    pub fn text(&self, name: Known) -> Option<&'a str> {
        let value = self.first(name).filter(|v| v.iter().all(|b| matches!(b, b'\t' | b' '..=b'~')))?;
        std::str::from_utf8(value).ok()
    }

    /// Whether there is a field of this name.
    pub fn has(&self, name: Known) -> bool {
        self.first[name as usize] != 0
    }

    /// Whether there is more than one.
    pub fn is_repeated(&self, name: Known) -> bool {
        self.repeated & 1 << name as u32 != 0
    }

    /// The values of all fields of this name, in order.
    pub fn all(&self, name: Known) -> impl Iterator<Item = &'a [u8]> {
        let more = match self.is_repeated(name) {
            true => self.lines.get(usize::from(self.first[name as usize])..).unwrap_or_default(),
            false => &[],
        };
        let more = more.iter().filter(move |field| Known::of(field.name.as_bytes()) == Some(name));
        self.first(name).into_iter().chain(more.map(|field| field.value))
    }

    /// A header map of its own, for who needs one; names and values that none can hold are left out.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        for field in self.lines {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
                map.append(name, value);
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<'a>(text: &'a [u8], fields: &'a mut [httparse::Header<'a>]) -> &'a [httparse::Header<'a>] {
        let mut request = httparse::Request::new(fields);
        assert!(request.parse(text).unwrap().is_complete());
        request.headers
    }

    #[test]
    fn every_known_name_is_found_in_any_case() {
        assert!(Known::ALL.len() <= 32, "a bit each");
        for known in Known::ALL {
            for text in [known.as_str().to_owned(), known.as_str().to_lowercase(), known.as_str().to_uppercase()] {
                assert_eq!(Known::of(text.as_bytes()), Some(*known), "{text}");
            }
            assert_eq!(known.key().as_str(), known.as_str().to_lowercase());
        }
        for other in ["", "x", "hosts", "x-forwarded-fox", "content_length"] {
            assert_eq!(Known::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_map_and_what_came_answer_alike() {
        let text = b"GET / HTTP/1.1\r\nhost: a\r\nCOOKIE: a=1\r\nX-Other: 1\r\ncookie: b=2\r\nAccept: \xe9\r\nCookie: c=3\r\n\r\n";
        let mut room = [httparse::EMPTY_HEADER; 16];
        let fields = Fields::new(parsed(text, &mut room));
        let map = fields.to_map();
        for known in Known::ALL {
            let key = known.key();
            assert_eq!(fields.first(*known), map.get(&key).map(HeaderValue::as_bytes), "{known:?}");
            assert_eq!(fields.has(*known), map.contains_key(&key), "{known:?}");
            let all: Vec<_> = map.get_all(&key).iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(fields.is_repeated(*known), all.len() > 1, "{known:?}");
            assert_eq!(fields.all(*known).collect::<Vec<_>>(), all, "{known:?}");
        }
        assert_eq!(fields.all(Known::Cookie).collect::<Vec<_>>(), [b"a=1", b"b=2", b"c=3"]);
        assert_eq!((fields.text(Known::Accept), fields.first(Known::Accept)), (None, Some(&b"\xe9"[..])));
    }
}
