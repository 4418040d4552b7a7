//! What is said between a request's decisions and who moves its bytes.

use http::HeaderValue;

use crate::proxy::error::Cause;
use crate::proxy::headers::AnswerEdits;
use crate::shiny::shim;

/// What the proxy answers by itself.
#[derive(Debug)]
pub enum Answer {
    /// 308 to this absolute URL.
    Redirect(String),
    /// An error page.
    Error(Cause),
}

/// Why no connection to the backend came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// Refused, or the unix socket is gone: nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The TLS handshake failed.
    Tls,
    /// We are out of descriptors, memory or ports: not the backend's fault.
    Shortage,
    /// Anything else.
    Failed,
}

/// How an exchange broke after the connection stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broke {
    /// The backend closed.
    Closed,
    /// The backend was silent for too long.
    TimedOut,
    /// The backend's answer is not HTTP.
    Invalid,
}

/// What to do next with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Choose again; nothing of an answer was passed on.
    Again,
    /// Answer with this.
    GiveUp(Cause),
}

/// What is known of the connection an exchange broke on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nobody used it before.
    Fresh,
    /// It had been kept: the backend may have closed it before it saw the request.
    Kept,
    /// It had been kept, and the backend's machine has acknowledged nothing of the request: it was not seen.
    Unheard,
}

/// What to do with a backend's answer.
pub enum Reply<'a> {
    /// Do not pass it on; choose again.
    Again,
    /// Pass it on with these changes.
    Pass {
        /// Which fields go on as they came.
        edits: AnswerEdits<'a>,
        /// A cookie to add. So is `X-Request-Id`, see [`super::Context::request_id()`].
        cookie: Option<HeaderValue>,
        /// What else changes, since the body goes through the shim.
        page: Option<shim::Plan>,
    },
}
