//! A request's way to a worker and back.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, COOKIE, HOST, LOCATION, ORIGIN, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::session::{self, Owner, Sessions, Wanted};
use super::visitor::Visitor;
use super::worker::Lease;
use crate::shiny::resume::PROTOCOL;
use crate::shiny::shim::{self, Injector};
use crate::types::LEAVING;

/// The cookie by which a browser comes back to the process it had.
pub const COOKIE_NAME: &str = "bowline_worker";
/// What names of cookies of ours begin with: no content sees them.
const OUR_COOKIES: [&str; 3] = ["bowline_", "__Host-bowline_", "__Secure-bowline_"];

/// What only we say to content, so that nobody else does (lower-case).
const OURS: &[&str] = &[
    "rstudio-connect-app-base-url",
    "rstudio-connect-credentials",
    "shiny-server-credentials",
    "posit-connect-user-session-token",
    "script_name",
    "script-name",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "forwarded",
    "x-rsc-request",
    "x-rsc-authorization",
    "proxy-connection",
    "keep-alive",
];

/// What is said to content about a request.
#[derive(Debug)]
pub struct About<'a> {
    /// Path and query as the program wants them.
    pub target: &'a str,
    /// The path browsers see, without a slash at the end.
    pub prefix: &'a str,
    /// How browsers call the whole server.
    pub base: &'a str,
    /// Whoever asks.
    pub client: Option<std::net::IpAddr>,
    /// Their name; `None`: nobody said so.
    pub user: Option<&'a str>,
    /// Guids and names of the groups they are in.
    pub groups: &'a [(String, String)],
    /// `SCRIPT_NAME` is wanted.
    pub names_script: bool,
    /// The browser is to come back to the same process.
    pub is_bound: bool,
    /// Its pages get the script that lets Shiny come back.
    pub is_shiny: bool,
    /// For the next bytes of the answer.
    pub read_timeout: Duration,
    /// A websocket that says nothing ends after this.
    pub connection_timeout: Duration,
    /// What the page's script wants of a websocket.
    pub wanted: Option<&'a Wanted>,
    /// Whose a session would be.
    pub owner: Option<&'a Owner>,
    /// The browser has the owner's cookie.
    pub has_cookie: bool,
}

/// Whether a request wants another protocol on its connection.
pub fn is_upgrade(fields: &HeaderMap) -> bool {
    let says = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
    };
    fields.contains_key(UPGRADE) && fields.get_all(CONNECTION).iter().any(says)
}

/// Whether a page of another site wants more than to see: a connection of its own, or something done. Hosts are compared, not
/// schemes, because who ends TLS before us need not say so.
pub fn is_of_another_site(method: &http::Method, fields: &HeaderMap, base: &str) -> bool {
    let Some(origin) = fields.get(ORIGIN).filter(|_| !method.is_safe() || is_upgrade(fields)) else { return false };
    let host =
        |url: &str| url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).map(str::to_ascii_lowercase);
    let asked = fields.get(HOST).and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
    let origin = origin.to_str().ok().and_then(host);
    origin.is_none() || origin != host(base) && origin != asked
}

/// Asks a worker; the lease is held until the answer's last byte, or the connection's. `visitor`: who asks for a connection of their
/// own.
///
/// # Errors
/// Why it did not answer.
pub async fn forward(
    lease: Lease,
    mut request: Request,
    about: &About<'_>,
    sessions: &Sessions,
    visitor: Option<Visitor>,
) -> Result<Response, String> {
    let upgrade = visitor.map(|visitor| (hyper::upgrade::on(&mut request), visitor));
    let had = worker_of(request.headers()).is_some_and(|had| had == lease.id());
    let (mut head, body) = request.into_parts();
    head.uri = Uri::builder()
        .scheme("http")
        .authority("content")
        .path_and_query(about.target)
        .build()
        .map_err(|e| e.to_string())?;
    head.version = http::Version::HTTP_11;
    fields(&mut head.headers, about, upgrade.is_some());
    if about.wanted.is_some() {
        head.headers.remove(SEC_WEBSOCKET_PROTOCOL);
        head.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    let wants_shim = about.is_shiny && shim::applies_to_request(&head.method, &head.headers);
    if wants_shim {
        // What is compressed cannot be added to.
        head.headers.remove(ACCEPT_ENCODING);
    }
    let is_head = head.method == http::Method::HEAD;
    head.extensions.clear();
    let asked = lease.client().request(http::Request::from_parts(head, body));
    let answered = tokio::time::timeout(about.read_timeout, asked).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(crate::telemetry::Causes(&error).to_string()),
        Err(_) => return Err("it did not answer in time".to_owned()),
    };
    if let (StatusCode::SWITCHING_PROTOCOLS, Some((upgrade, visitor))) = (response.status(), upgrade) {
        let there = hyper::upgrade::on(&mut response);
        confine(response.headers_mut(), about);
        if let (Some(_), Some(owner)) = (about.wanted, about.owner) {
            let fields = response.headers_mut();
            if fields.contains_key(SEC_WEBSOCKET_EXTENSIONS) || fields.contains_key(SEC_WEBSOCKET_PROTOCOL) {
                return Err("it agrees to what its websocket was not asked for".to_owned());
            }
            fields.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
            bind(fields, about);
            pin(fields, &lease, had, about);
            sessions.begin((upgrade, there), owner.clone(), about.connection_timeout, lease, visitor);
            let (head, _) = response.into_parts();
            return Ok(Response::from_parts(head, Body::empty()));
        }
        let is_websocket =
            response.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        pin(response.headers_mut(), &lease, had, about);
        sessions.pass((upgrade, there), is_websocket, about.connection_timeout, lease, visitor);
        let (head, _) = response.into_parts();
        return Ok(Response::from_parts(head, Body::empty()));
    }
    let (mut head, body) = response.into_parts();
    for name in [&CONNECTION, &TRANSFER_ENCODING, &TRAILER, &UPGRADE, &PROXY_AUTHENTICATE] {
        head.headers.remove(name);
    }
    head.headers.remove("keep-alive");
    relocate(&mut head.headers, about);
    confine(&mut head.headers, about);
    let mut injector = None;
    let script = if sessions.are_held() { shim::Mode::Resume } else { shim::Mode::Reconnect };
    if let Some(plan) = wants_shim.then(|| shim::plan(head.status.as_u16(), &head.headers, script)).flatten() {
        plan.remove.iter().for_each(|name| drop(head.headers.remove(name)));
        plan.set.into_iter().for_each(|(name, value)| drop(head.headers.insert(name, value)));
        injector = Some(plan.injector).filter(|_| !is_head);
        bind(&mut head.headers, about);
    }
    pin(&mut head.headers, &lease, had, about);
    let patience = Box::pin(tokio::time::sleep(about.read_timeout));
    let held = Held { body, injector, patience, read_timeout: about.read_timeout, _lease: lease };
    Ok(Response::from_parts(head, Body::new(held)))
}

/// The browser gets the cookie by which it comes back to this process.
fn pin(fields: &mut HeaderMap, lease: &Lease, had: bool, about: &About<'_>) {
    if about.is_bound && !had {
        set_cookie(fields, COOKIE_NAME, lease.id(), about);
    }
}

/// The browser gets the cookie that its sessions are bound to.
fn bind(fields: &mut HeaderMap, about: &About<'_>) {
    if let Some(owner) = about.owner.filter(|_| !about.has_cookie) {
        set_cookie(fields, session::COOKIE_NAME, &owner.cookie, about);
    }
}

/// A cookie of ours for the pages of a content.
fn set_cookie(fields: &mut HeaderMap, name: &str, value: &str, about: &About<'_>) {
    let secure = if about.base.starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path={}/; HttpOnly; SameSite=Lax{secure}", about.prefix);
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        fields.append(SET_COOKIE, cookie);
    }
}

/// The process a browser had.
pub fn worker_of(fields: &HeaderMap) -> Option<String> {
    let all = fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    all.filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, id)| id.to_owned())
}

/// What content is to see of a request's fields.
fn fields(all: &mut HeaderMap, about: &About<'_>, is_upgrade: bool) {
    let named: Vec<String> = all
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect();
    for name in named.iter().filter(|name| *name != "upgrade").map(String::as_str).chain(OURS.iter().copied()) {
        all.remove(name);
    }
    for name in [&TE, &TRAILER, &TRANSFER_ENCODING, &PROXY_AUTHORIZATION] {
        all.remove(name);
    }
    if is_upgrade {
        all.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        all.remove(CONNECTION);
        all.remove(UPGRADE);
    }
    // Some servers read `_` as `-`: who asks would be whom they say.
    let strange: Vec<HeaderName> = all.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    strange.iter().for_each(|name| drop(all.remove(name)));
    // Nobody's key is content's to see. What is no credential of ours may be one of its own.
    let is_ours = |value: &HeaderValue| value.to_str().map_or(true, is_credential);
    if all.get(AUTHORIZATION).is_some_and(is_ours) {
        all.remove(AUTHORIZATION);
    }
    cookies(all);
    let (scheme, host) = about.base.split_once("://").unwrap_or(("http", about.base));
    let host = host.to_owned();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            all.insert(HeaderName::from_static(name), value);
        }
    };
    put(HOST.as_str(), &host);
    put("x-forwarded-proto", scheme);
    put("x-forwarded-host", &host);
    put("x-forwarded-prefix", about.prefix);
    put("rstudio-connect-app-base-url", &format!("{}{}/", about.base, about.prefix));
    if let Some(client) = about.client {
        put("x-forwarded-for", &client.to_string());
    }
    if let Some(user) = about.user {
        let groups: Vec<&str> = about.groups.iter().map(|(_, name)| name.as_str()).collect();
        let credentials = serde_json::json!({ "user": user, "groups": groups }).to_string();
        put("rstudio-connect-credentials", &credentials);
        put("shiny-server-credentials", &credentials);
    }
    if about.names_script {
        put("script_name", about.prefix);
    }
}

/// `Authorization` as only we read it.
pub fn is_credential(value: &str) -> bool {
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("key") || scheme.eq_ignore_ascii_case("basic") || rest.contains("bwl_")
}

/// Content gets its own cookies only.
fn cookies(all: &mut HeaderMap) {
    let kept: Vec<String> = all
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .map(str::trim)
        .filter(|pair| !pair.is_empty() && !is_our_cookie(pair))
        .map(str::to_owned)
        .collect();
    all.remove(COOKIE);
    if let Ok(value) = HeaderValue::try_from(kept.join("; "))
        && !kept.is_empty()
    {
        all.insert(COOKIE, value);
    }
}

fn is_our_cookie(pair: &str) -> bool {
    OUR_COOKIES.iter().any(|name| pair.starts_with(name))
}

/// A path that a program believes to be at the top is below its prefix for browsers.
fn relocate(all: &mut HeaderMap, about: &About<'_>) {
    let Some(location) = all.get(LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let own = format!("{}://content", "http");
    let path = location.strip_prefix(&own).unwrap_or(location);
    let is_path = path.starts_with('/') && !path.starts_with("//");
    let is_below =
        path.strip_prefix(about.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    if is_path
        && !is_below
        && let Ok(value) = HeaderValue::try_from(format!("{}{path}", about.prefix))
    {
        all.insert(LOCATION, value);
    }
}

/// Fields that are about more than the answer they come with.
const ORIGIN_WIDE: [&str; 9] = [
    LEAVING,
    "service-worker-allowed",
    "clear-site-data",
    "strict-transport-security",
    "alt-svc",
    "nel",
    "report-to",
    "reporting-endpoints",
    "origin-agent-cluster",
];

/// What content says of the whole origin is not its to say: its cookies are for its own pages.
fn confine(all: &mut HeaderMap, about: &About<'_>) {
    for name in ORIGIN_WIDE {
        all.remove(name);
    }
    let told: Vec<HeaderValue> = all.get_all(SET_COOKIE).iter().cloned().collect();
    all.remove(SET_COOKIE);
    for cookie in told {
        let Ok(text) = cookie.to_str() else { continue };
        let mut parts = text.split(';').map(str::trim);
        let pair = parts.next().unwrap_or_default();
        if is_our_cookie(pair) {
            continue;
        }
        let mut kept = pair.to_owned();
        let mut path = None;
        for part in parts {
            let (name, value) = part.split_once('=').map_or((part, ""), |(name, value)| (name.trim(), value.trim()));
            match name {
                name if name.eq_ignore_ascii_case("domain") => {}
                name if name.eq_ignore_ascii_case("path") => path = Some(value),
                _ => {
                    kept.push_str("; ");
                    kept.push_str(part);
                }
            }
        }
        let below = |path: &&str| {
            path.strip_prefix(about.prefix).is_some_and(|rest| rest.starts_with('/')) && !path.contains("..")
        };
        match path.filter(below) {
            Some(path) => kept.push_str(&format!("; Path={path}")),
            None => kept.push_str(&format!("; Path={}/", about.prefix)),
        }
        if let Ok(value) = HeaderValue::try_from(kept) {
            all.append(SET_COOKIE, value);
        }
    }
}

/// An answer on its way, and its worker.
struct Held {
    body: hyper::body::Incoming,
    /// Until the end of the body.
    injector: Option<Injector>,
    patience: Pin<Box<Sleep>>,
    read_timeout: Duration,
    _lease: Lease,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            let next = Instant::now() + self.read_timeout;
            self.patience.as_mut().reset(next);
        } else if self.patience.as_mut().poll(cx).is_ready() {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "content said nothing for too long");
            return Poll::Ready(Some(Err(axum::Error::new(late))));
        }
        let Some(injector) = self.injector.as_mut() else {
            return polled.map(|frame| frame.map(|frame| frame.map_err(axum::Error::new)));
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                // What is held back of a piece is never all of it but at the end.
                Ok(data) => Poll::Ready(Some(Ok(Frame::data(injector.feed(Some(data), false).unwrap_or_default())))),
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            Poll::Ready(None) => {
                let last = injector.feed(None, true);
                self.injector = None;
                Poll::Ready(last.map(|data| Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(axum::Error::new(error)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.injector.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.injector {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static ABOUT: LazyLock<About<'static>> = LazyLock::new(|| About {
        target: "/",
        prefix: "/content/g",
        base: "https://x.example",
        client: None,
        user: Some("ann"),
        groups: &[],
        names_script: false,
        is_bound: false,
        is_shiny: false,
        read_timeout: Duration::from_secs(1),
        connection_timeout: Duration::from_secs(1),
        wanted: None,
        owner: None,
        has_cookie: false,
    });

    fn seen(told: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in told {
            all.append(*name, HeaderValue::from_static(value));
        }
        fields(&mut all, &ABOUT, false);
        all
    }

    #[test]
    fn content_sees_who_asks_by_our_word_only_and_nobodys_key() {
        let all = seen(&[
            ("shiny-server-credentials", "{\"user\":\"root\"}"),
            ("authorization", "Key bwl_x"),
            ("cookie", "a=1; bowline_app=2"),
            ("cookie", "bowline_worker=3; b=4"),
            ("connection", "keep-alive, x-secret"),
            ("x-secret", "1"),
            ("x-forwarded-for", "1.2.3.4"),
            ("shiny_server_credentials", "{\"user\":\"root\"}"),
        ]);
        assert_eq!(all["shiny-server-credentials"], "{\"groups\":[],\"user\":\"ann\"}");
        assert_eq!(all["cookie"], "a=1; b=4");
        for name in ["shiny_server_credentials", "authorization", "x-secret", "connection", "x-forwarded-for"] {
            assert!(!all.contains_key(name), "{name}");
        }
        assert_eq!(all["rstudio-connect-app-base-url"], "https://x.example/content/g/");
    }

    #[test]
    fn cookies_of_content_are_for_its_own_pages() {
        let mut all = HeaderMap::new();
        for told in [
            "s=1; Path=/; Domain=x.example; HttpOnly",
            "t=2",
            "u=3; Path=/content/g/sub; Max-Age=5",
            "v=4; path=/content/gone/",
            "bowline_worker=5; Path=/",
        ] {
            all.append(SET_COOKIE, HeaderValue::from_static(told));
        }
        all.insert("service-worker-allowed", HeaderValue::from_static("/"));
        confine(&mut all, &ABOUT);
        let told: Vec<&str> = all.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(
            told,
            [
                "s=1; HttpOnly; Path=/content/g/",
                "t=2; Path=/content/g/",
                "u=3; Max-Age=5; Path=/content/g/sub",
                "v=4; Path=/content/g/",
            ]
        );
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn pages_of_other_sites_may_look_and_not_act() {
        let of = |method: &http::Method, origin: &'static str, upgrade: bool| {
            let mut all = HeaderMap::new();
            all.insert(ORIGIN, HeaderValue::from_static(origin));
            all.insert(HOST, HeaderValue::from_static("y.example:8443"));
            if upgrade {
                all.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
                all.insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
            is_of_another_site(method, &all, "https://x.example")
        };
        let (get, put) = (http::Method::GET, http::Method::PUT);
        for origin in ["https://x.example", "https://X.example", "http://y.example:8443"] {
            assert!(!of(&get, origin, true) && !of(&put, origin, false), "{origin}");
        }
        for origin in ["https://evil.example", "https://x.example.evil", "https://y.example", "null", "x.example"] {
            assert!(of(&get, origin, true) && of(&put, origin, false) && !of(&get, origin, false), "{origin}");
        }
        assert!(!is_of_another_site(&put, &HeaderMap::new(), "https://x.example"), "no browser says so");
    }

    #[test]
    fn redirects_lead_below_the_prefix() {
        for (told, seen) in [
            ("/main", "/content/g/main"),
            ("http://content/main", "/content/g/main"),
            ("/content/g/main", "/content/g/main"),
            ("/content/gone", "/content/g/content/gone"),
            ("main", "main"),
            ("//evil.example/", "//evil.example/"),
            ("https://y.example/", "https://y.example/"),
        ] {
            let mut all = HeaderMap::new();
            all.insert(LOCATION, HeaderValue::from_static(told));
            relocate(&mut all, &ABOUT);
            assert_eq!(all[LOCATION], seen);
        }
    }
}
