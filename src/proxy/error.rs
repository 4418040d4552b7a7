//! Whose fault, which status, and what the client reads: every way a request can fail after its head was accepted.
//!
//! One closed list. 502: the backend broke; 503: nobody is ready; 504: the backend is slow; 499, which nobody reads:
//! the client went away, and that is never counted as ours.

use std::fmt::Write as _;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client's.
    Downstream,
    /// The backend's.
    Upstream,
    /// Ours, or nobody's.
    Internal,
}

impl Fault {
    /// Label in metric and log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No route for this host and path.
    NoRoute,
    /// Host is not a host (HTTP/2; HTTP/1.x refuses it in the head).
    BadHost,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The request body stopped coming.
    BodyTimeout,
    /// The request body broke its own framing.
    BadBody,
    /// The client went away.
    ClientGone,
    /// No backend of the pool may take this request.
    NobodyReady,
    /// The pool has no verdict on any backend yet, and the wait for it is over.
    StartingUp,
    /// The backend refused the connection.
    ConnectRefused,
    /// The backend did not answer the connection in time.
    ConnectTimeout,
    /// The connection to the backend failed otherwise.
    ConnectFailed,
    /// TLS towards the backend failed, for example its certificate does not verify.
    UpstreamTls,
    /// The backend closed before its answer was complete.
    UpstreamClosed,
    /// The backend was silent for too long.
    UpstreamTimeout,
    /// The backend's answer is not HTTP.
    UpstreamInvalid,
    /// A fault of the proxy.
    Internal,
}

impl Cause {
    /// Every cause, for metrics.
    pub const ALL: [Self; 16] = [
        Self::NoRoute,
        Self::BadHost,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BadBody,
        Self::ClientGone,
        Self::NobodyReady,
        Self::StartingUp,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::UpstreamTls,
        Self::UpstreamClosed,
        Self::UpstreamTimeout,
        Self::UpstreamInvalid,
        Self::Internal,
    ];

    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::NoRoute
            | Self::BadHost
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BadBody
            | Self::ClientGone => Fault::Downstream,
            Self::NobodyReady
            | Self::StartingUp
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamTimeout
            | Self::UpstreamInvalid => Fault::Upstream,
            Self::Internal => Fault::Internal,
        }
    }

    /// Status code of the answer; 499 is only logged.
    pub fn status(self) -> u16 {
        match self {
            Self::NoRoute => 404,
            Self::BadHost | Self::BadBody => 400,
            Self::BodyTooLarge => 413,
            Self::BodyTimeout => 408,
            Self::ClientGone => 499,
            Self::NobodyReady | Self::StartingUp => 503,
            Self::ConnectRefused
            | Self::ConnectFailed
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamInvalid => 502,
            Self::ConnectTimeout | Self::UpstreamTimeout => 504,
            Self::Internal => 500,
        }
    }

    /// Name in metric, log and answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::BadHost => "bad_host",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BadBody => "bad_body",
            Self::ClientGone => "client_gone",
            Self::NobodyReady => "nobody_ready",
            Self::StartingUp => "starting_up",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::Internal => "internal",
        }
    }

    /// A title for people.
    pub fn title(self) -> &'static str {
        match self.status() {
            400 => "Bad request",
            404 => "Not found",
            408 => "Request timed out",
            413 => "Request too large",
            502 => "The application broke off",
            503 => "The application is not available",
            504 => "The application does not answer",
            _ => "Internal error",
        }
    }

    /// One sentence for people: what happened, whose fault it is, what to do.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoRoute => "Nothing is served under this host and path. Check the address.",
            Self::BadHost => "The host in the request is not a host name. Check the address.",
            Self::BodyTooLarge => {
                "What was sent is larger than this address accepts. Send less, or ask the administrator to raise the limit."
            }
            Self::BodyTimeout => {
                "The request stopped arriving before it was complete. Check the connection and send it again."
            }
            Self::BadBody => {
                "The request did not keep to the format it announced. This is a fault of the client program."
            }
            Self::ClientGone => "The client went away.",
            Self::NobodyReady => {
                "No server of this application is ready to take requests. This is not a fault of your browser; try again in a moment."
            }
            Self::StartingUp => "The application is starting. Try again in a moment.",
            Self::ConnectRefused | Self::ConnectFailed => {
                "The server of this application could not be reached. This is not a fault of your browser; try again in a moment."
            }
            Self::ConnectTimeout => {
                "The server of this application did not accept the connection in time. This is not a fault of your browser; try again in a moment."
            }
            Self::UpstreamTls => {
                "The server of this application could not prove who it is. The administrator must look at its certificate."
            }
            Self::UpstreamClosed => {
                "The server of this application ended the connection before its answer was complete. This is not a fault of your browser; try again."
            }
            Self::UpstreamTimeout => {
                "The server of this application took too long to answer. This is not a fault of your browser; try again later."
            }
            Self::UpstreamInvalid => {
                "The server of this application sent something that is not HTTP. The administrator must look at it."
            }
            Self::Internal => "The proxy failed at this request. The administrator finds the reason in its log.",
        }
    }
}

/// A body the proxy answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Value of Content-Type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// The error page: HTML for who reads that, else JSON. Both name whose fault it is and the request.
///
/// `request_id` is ours or was checked: visible ASCII only.
pub fn page(cause: Cause, request_id: &str, reads_html: bool) -> Page {
    let (status, title, sentence) = (cause.status(), cause.title(), cause.sentence());
    let (code, fault) = (cause.as_str(), cause.fault().as_str());
    if reads_html {
        let id = escaped(request_id);
        let body = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{status} {title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;color:#223}}\
             h1{{font-size:1.4em}}small{{color:#667}}</style></head>\n<body><h1>{title}</h1><p>{sentence}</p>\
             <p><small>{status} · {code} · fault: {fault} · request {id}</small></p></body></html>\n"
        );
        return Page { content_type: "text/html; charset=utf-8", body };
    }
    let body = serde_json::json!({
        "status": status, "error": code, "fault": fault, "message": sentence, "request_id": request_id,
    });
    Page { content_type: "application/json", body: format!("{body}\n") }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || "-_.:/=+ ".contains(c) {
            out.push(c);
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "&#{};", u32::from(c));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_page_of_each_kind() {
        for cause in Cause::ALL {
            let html = page(cause, "abc", true);
            assert!(
                html.content_type.starts_with("text/html")
                    && html.body.contains("abc")
                    && html.body.contains(cause.as_str())
            );
            let json = page(cause, "abc", false);
            let value: serde_json::Value = serde_json::from_str(&json.body).expect("JSON");
            assert_eq!(value["status"], cause.status());
            assert_eq!(value["request_id"], "abc");
        }
    }

    #[test]
    fn a_request_id_cannot_break_out_of_the_page() {
        assert!(!page(Cause::Internal, "<script>", true).body.contains("<script>"));
    }
}
