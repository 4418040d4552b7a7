//! What keeps pages to the person before them.
//!
//! Scripts of content may be at the same origin: a browser would send them pages in full, with the tokens of their forms. So a
//! page is for whoever opens it as one (W3C Fetch Metadata): no script's request and no frame gets it, a window that content
//! opened is cut off from it (`Cross-Origin-Opener-Policy`), and what changes something has to come from a form of ours.
//! Browsers say these things over TLS and on this machine only; the rest of the cure is an origin of its own for content.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, ORIGIN, REFERER, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, Method};

use super::{Failed, page};
use crate::node::content::serve::is_at;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::session::{Jar, Realm};

/// Scripts of the pages say this token of the session's forms with what they ask for.
pub const TOKEN: &str = "x-bowline-token";

/// Around every page.
pub async fn guard(State(parts): State<Parts>, request: Request, next: Next) -> Response {
    let origin = request.extensions().get::<Origin>().copied().unwrap_or_default();
    let fields = request.headers();
    let prefix = parts.prefix(fields, origin, request.uri().path());
    let base = parts.base(fields, origin);
    let admitted = match request.headers().get(TOKEN) {
        // Scripts of ours, which know it; those of content may be of this origin, and do not.
        Some(token) => {
            let (method, path) = (request.method(), request.uri().path());
            shown(&parts, method, path, request.headers(), token, &Jar::new(&base, &prefix)).await
        }
        None => admit(request.method(), fields, &prefix, &base),
    };
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(failure) => Failed(failure).into_response(),
    };
    if let Some(Failed(failure)) = response.extensions_mut().remove::<Failed>() {
        let shown = page::failed(&prefix, &failure);
        *response.body_mut() = shown.into_string().into();
        response.headers_mut().insert(http::header::CONTENT_TYPE, page::HTML);
    }
    let frames = parts.settings.content.external_url.as_deref().unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
         frame-src 'self' {frames}; form-action 'self' {frames}; frame-ancestors 'none'; base-uri 'none'"
    );
    let head = response.headers_mut();
    // What a page wants to be closed to besides.
    let policy = match head.get(CONTENT_SECURITY_POLICY).and_then(|value| value.to_str().ok()) {
        Some(more) => format!("{policy}; {more}"),
        None => policy,
    };
    for (name, value) in FIELDS {
        head.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::try_from(policy) {
        head.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The same of every page.
const FIELDS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "same-origin"),
    (X_FRAME_OPTIONS, "DENY"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Whether a script of ours asks for what is there for one, and shows the token of the session's forms.
async fn shown(
    parts: &Parts,
    method: &Method,
    path: &str,
    fields: &HeaderMap,
    token: &HeaderValue,
    jar: &Jar,
) -> Result<(), Failure> {
    let refused = || Err(Failure::forbidden("This is for a script of the server's own pages"));
    let site = fields.get("sec-fetch-site");
    if *method != Method::GET || !is_for_scripts(path) || site.is_some_and(|site| site != "same-origin") {
        return refused();
    }
    let session = parts.sessions.find(fields, Realm::Pages, jar).await?;
    let token = token.to_str().unwrap_or_default();
    if session.is_some_and(|session| parts.sessions.is_token(&session, token)) { Ok(()) } else { refused() }
}

/// `/connect/content/GUID/logs/TASK`.
fn is_for_scripts(path: &str) -> bool {
    let mut parts = path.strip_prefix("/connect/content/").unwrap_or_default().split('/');
    matches!((parts.next(), parts.next(), parts.next(), parts.next()), (Some(_), Some("logs"), Some(_), None))
}

/// Whether a request is a person's who opens a page, or sends a form of one. Clients that are no browsers do not say. What it
/// says of the page it came from is no barrier within an origin, where scripts can say another; tokens are.
fn admit(method: &Method, fields: &HeaderMap, prefix: &str, base: &str) -> Result<(), Failure> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let refused =
        || Err(Failure::forbidden("Open this page by itself: what asked for it is a script, a frame or another page"));
    if text("sec-fetch-mode").is_some_and(|mode| mode != "navigate")
        || text("sec-fetch-dest").is_some_and(|to| to != "document")
    {
        return refused();
    }
    let from = text(REFERER.as_str()).and_then(|url| url.split_once("://")).map(|(_, rest)| {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        (authority, format!("/{path}"))
    });
    let host = base.split_once("://").map_or("", |(_, authority)| authority);
    let is_ours = |authority: &str| authority == host || text("host") == Some(authority);
    let below = |part: &str| from.as_ref().is_some_and(|(_, path)| path.starts_with(&format!("{prefix}{part}")));
    if matches!(*method, Method::GET | Method::HEAD) {
        // A script of content may open a window; a person may follow a link.
        let is_persons = text("sec-fetch-user") == Some("?1");
        return if below("/content/") && !is_persons && fields.contains_key("sec-fetch-site") {
            refused()
        } else {
            Ok(())
        };
    }
    let is_other_site = text("sec-fetch-site").is_some_and(|site| site != "same-origin");
    let is_other_origin = text(ORIGIN.as_str())
        .is_some_and(|origin| !origin.split_once("://").is_some_and(|(_, authority)| is_ours(authority)));
    let is_other_page =
        from.as_ref().is_some_and(|(authority, _)| !is_ours(authority)) || from.is_some() && !below("/connect/");
    if is_other_site || is_other_origin || is_other_page { refused() } else { Ok(()) }
}

/// At content's own origin there is content, and nothing else.
pub async fn apart(State(parts): State<Parts>, request: Request, next: Next) -> Response {
    let is_there = parts.settings.content.external_url.as_deref().is_some_and(|url| is_at(request.headers(), url));
    let path = request.uri().path();
    let first = path[1.min(path.len())..].split('/').next().unwrap_or_default();
    let is_ours = ["connect", "packages", "metrics"].contains(&first) || first.starts_with("__");
    if is_there && (is_ours && path != "/__login__" || path == "/") {
        return Failure::not_found("page at this address: content is here, and nothing else").into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_admitted(method: &Method, told: &[(&'static str, &'static str)]) -> bool {
        let mut fields = HeaderMap::new();
        for (name, value) in told {
            fields.insert(*name, HeaderValue::from_static(value));
        }
        admit(method, &fields, "", "https://x.example").is_ok()
    }

    const PAGE: &[(&str, &str)] =
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        [PAGE, more].concat()
    }

    #[test]
    fn pages_are_for_people_who_open_them() {
        assert!(is_admitted(&Method::GET, &[]));
        assert!(is_admitted(&Method::GET, PAGE));
        assert!(is_admitted(&Method::GET, &with(&[("sec-fetch-site", "cross-site")])));
        assert!(!is_admitted(&Method::GET, &with(&[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")])));
        assert!(!is_admitted(&Method::GET, &with(&[("sec-fetch-dest", "iframe")])));
        assert!(!is_admitted(&Method::GET, &with(&[("referer", "https://x.example/content/g/")])));
        assert!(is_admitted(
            &Method::GET,
            &with(&[("referer", "https://x.example/content/g/"), ("sec-fetch-user", "?1")])
        ));
        let script = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")];
        assert!(!is_admitted(&Method::GET, &script));
        assert!(is_for_scripts("/connect/content/g/logs/1"));
        for other in ["/connect/account", "/connect/content/g/logs", "/connect/content/g/logs/1/2", "/connect/claim/T"]
        {
            assert!(!is_for_scripts(other), "{other}");
        }
    }

    #[test]
    fn forms_are_those_of_our_pages() {
        assert!(is_admitted(
            &Method::POST,
            &with(&[("referer", "https://x.example/connect/keys"), ("origin", "https://x.example")])
        ));
        for wrong in [
            ("referer", "https://x.example/content/g/"),
            ("referer", "https://y.example/connect/"),
            ("origin", "https://y.example"),
            ("origin", "null"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-mode", "cors"),
        ] {
            assert!(!is_admitted(&Method::POST, &with(&[wrong])), "{wrong:?}");
        }
    }
}
