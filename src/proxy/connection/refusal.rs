//! Why a request head was refused before anything routed on it: a closed list of named reasons.
//!
//! The name goes into log and metric, the status and a sentence to the client; the connection is closed, because
//! after a head we do not understand nothing on it can be trusted (RFC 9112 §9.3).

/// A named reason. The order is the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request line is not `METHOD SP target SP HTTP/1.x` (RFC 9112 §3).
    BadRequestLine,
    /// The method is not a token, or longer than 32 bytes.
    BadMethod,
    /// The target is not origin-form, absolute-form or `*` (RFC 9112 §3.2), or has bytes a URI may not have.
    BadTarget,
    /// `CONNECT` asks for a tunnel anywhere, which a reverse proxy has no business to give.
    ConnectMethod,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    BadVersion,
    /// A field name is not a token, or there is space before the colon (RFC 9112 §5.1).
    BadFieldName,
    /// A field value holds NUL, CR or another control character (RFC 9110 §5.5).
    BadFieldValue,
    /// A field goes on in the next line (obs-fold, RFC 9112 §5.2).
    FoldedField,
    /// A line ends in LF alone: parsers differ on it (RFC 9112 §2.2).
    BareLineFeed,
    /// More bytes than the listener's `head_bytes`.
    HeadTooLarge,
    /// More fields than the listener's `head_count`.
    TooManyFields,
    /// The head was not complete within `head_timeout`.
    HeadTimeout,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    MissingHost,
    /// More than one Host.
    MultipleHosts,
    /// Host is not `uri-host [":" port]`, or says another authority than the target does.
    BadHost,
    /// Transfer-Encoding and Content-Length together (RFC 9112 §6.1).
    LengthAndEncoding,
    /// More than one Content-Length, or a list.
    MultipleLengths,
    /// Content-Length is not digits only, or does not fit.
    BadLength,
    /// Transfer-Encoding other than exactly `chunked`, or with HTTP/1.0.
    BadTransferEncoding,
    /// A chunk of the request body breaks RFC 9112 §7.1.
    BadChunk,
}

impl Refusal {
    /// Status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::HeadTimeout => 408,
            Self::ConnectMethod => 405,
            Self::BadVersion => 505,
            _ => 400,
        }
    }

    /// Name in log and metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequestLine => "bad_request_line",
            Self::BadMethod => "bad_method",
            Self::BadTarget => "bad_target",
            Self::ConnectMethod => "connect_method",
            Self::BadVersion => "bad_version",
            Self::BadFieldName => "bad_field_name",
            Self::BadFieldValue => "bad_field_value",
            Self::FoldedField => "folded_field",
            Self::BareLineFeed => "bare_line_feed",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::HeadTimeout => "head_timeout",
            Self::MissingHost => "missing_host",
            Self::MultipleHosts => "multiple_hosts",
            Self::BadHost => "bad_host",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::MultipleLengths => "multiple_lengths",
            Self::BadLength => "bad_length",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::BadChunk => "bad_chunk",
        }
    }

    /// Every reason, for metrics that exist before they count.
    pub const ALL: [Self; 20] = [
        Self::BadRequestLine,
        Self::BadMethod,
        Self::BadTarget,
        Self::ConnectMethod,
        Self::BadVersion,
        Self::BadFieldName,
        Self::BadFieldValue,
        Self::FoldedField,
        Self::BareLineFeed,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::HeadTimeout,
        Self::MissingHost,
        Self::MultipleHosts,
        Self::BadHost,
        Self::LengthAndEncoding,
        Self::MultipleLengths,
        Self::BadLength,
        Self::BadTransferEncoding,
        Self::BadChunk,
    ];

    /// The whole answer as bytes: short, plain text, closing; to HEAD without the text (RFC 9110 §9.3.2).
    ///
    /// `request_id` is in it and in the access log: 32 hexadecimal digits.
    pub fn response(self, request_id: &str, to_head: bool) -> Vec<u8> {
        let reason = match self.status() {
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            505 => "HTTP Version Not Supported",
            _ => "Bad Request",
        };
        let body = format!("{} {reason}: {}\nRequest {request_id}\n", self.status(), self.as_str());
        format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nx-refused: {}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n{}",
            self.status(),
            body.len(),
            self.as_str(),
            if to_head { "" } else { &body },
        )
        .into_bytes()
    }
}

/// Method and target of a head that need not be one, for a line in the log; `_OTHER` and nothing where they are not to be
/// seen.
pub(super) fn glimpse(head: &[u8]) -> (&str, &[u8]) {
    let line = head.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.splitn(3, |b| *b == b' ');
    let method = words.next().filter(|m| (1..=32).contains(&m.len()) && m.iter().all(u8::is_ascii_uppercase));
    match method.and_then(|m| std::str::from_utf8(m).ok()) {
        Some(method) => (method, words.next().unwrap_or_default()),
        None => ("_OTHER", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_head_shows_nothing() {
        assert_eq!(glimpse(b"GET /a HTTP/1.1\r\nHost: a\r\n"), ("GET", &b"/a"[..]));
        assert_eq!(glimpse(b"GET"), ("GET", &b""[..]));
        assert_eq!(glimpse(b"\x16\x03\x01"), ("_OTHER", &b""[..]));
        assert_eq!(glimpse(b""), ("_OTHER", &b""[..]));
    }
}
