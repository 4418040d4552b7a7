//! `/content/GUID/…`: who may see it, which bundle, and how that answers.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use tower_http::services::ServeDir;
use tower_service::Service;

use super::access;
use super::forward::{self, About, forward};
use super::manifest;
use super::mode::{Mode, Way};
use super::prepare::{prepare, shown, unpacked};
use super::worker::{Got, Key, Refused};
use super::{Kept, Shown};
use crate::node::auth::Caller;
use crate::node::download;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{ContentRow, RenderingRow};

/// Without the slash, below which everything is.
pub async fn moved(Path(guid): Path<String>, uri: Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    if let Ok(value) = HeaderValue::try_from(format!("/content/{guid}/{query}")) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// Everything below.
pub async fn serve(State(parts): State<Parts>, Extension(origin): Extension<Origin>, request: Request) -> Response {
    let is_page = is_page(request.headers());
    match answer(&parts, origin, request).await {
        Ok(response) => response,
        Err(failure) => page(&failure, is_page),
    }
}

async fn answer(parts: &Parts, origin: Origin, request: Request) -> Result<Response, Failure> {
    let path = request.uri().path();
    let missing = || Failure::not_found("content at this address");
    let below = path.strip_prefix("/content/").ok_or_else(missing)?;
    let (guid, rest) = below.split_once('/').ok_or_else(missing)?;
    let guid = guid.to_ascii_lowercase();
    let content = parts.contents.find(&parts.store, &guid).await?.ok_or_else(missing)?;
    let caller = caller(parts, &content, request.headers(), origin).await?;
    if !access::may_see(&caller, &content) {
        return Err(caller.refused("see this content"));
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    // What was rendered earlier is for all who may see what is now.
    if let Some((first, rest)) = rest.split_once('/')
        && let Some(number) = first.strip_prefix("_rev")
    {
        let number = number.parse::<i64>().map_err(|_| missing())?;
        let rendering = parts.contents.rendering(&parts.store, number).await?;
        let rendering = rendering.filter(|rendering| rendering.content_id == content.id).ok_or_else(missing)?;
        let prefix = format!("/content/{guid}/{first}");
        return report(parts, &rendering, &prefix, &format!("/{rest}{query}"), request).await;
    }
    // A bundle that does not run yet is for those who publish.
    let (number, prefix, rest) = match rest.split_once('/') {
        Some((first, rest)) if first.starts_with("_bundle") => {
            let number = first.trim_start_matches("_bundle").parse::<i64>().map_err(|_| missing())?;
            if !access::may_change(&caller, &content) {
                return Err(caller.refused("see what is not published yet"));
            }
            (number, format!("/content/{guid}/{first}"), rest)
        }
        _ => {
            let none = || Failure::not_found("page here yet: nothing was published");
            (content.bundle.ok_or_else(none)?, format!("/content/{guid}"), rest)
        }
    };
    let target = format!("/{rest}{query}");
    let bundle = parts.contents.bundle(&parts.store, number).await?;
    let bundle = bundle.filter(|bundle| bundle.content_id == content.id).ok_or_else(missing)?;
    let too_old = || Failure::new(StatusCode::BAD_GATEWAY, "This node is too old to run it");
    let mode = bundle.manifest.mode().ok_or_else(too_old)?;
    match mode.way() {
        Way::Files => {
            let folder =
                unpacked(parts, &bundle).await.map_err(|why| Failure::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
            let first = bundle.manifest.entrypoint.as_deref().unwrap_or("index.html");
            let pages = Pages { folder, sha256: &bundle.sha256, first, hidden: Some(manifest::NAME) };
            files(&pages, &prefix, &target, request).await
        }
        Way::Workers => {
            let asked = Asked { caller: &caller, content: &content, bundle: &bundle, mode, prefix: &prefix, target };
            worker(parts, origin, &asked, request).await
        }
        Way::Rendering => {
            let shown = match content.rendering.filter(|_| content.bundle == Some(number)) {
                Some(number) => parts.contents.rendering(&parts.store, number).await?,
                None => parts.store.renderings(content.id, Some(number), 1).await?.pop().map(Arc::new),
            };
            let none = || Failure::new(StatusCode::BAD_GATEWAY, "It was not rendered yet");
            report(parts, &*shown.ok_or_else(none)?, &prefix, &target, request).await
        }
    }
}

/// Who asks. To what everybody may see they may bring a credential of its own.
async fn caller(parts: &Parts, content: &ContentRow, fields: &HeaderMap, origin: Origin) -> Result<Caller, Failure> {
    let is_open = content.access == "all";
    // What is none of our credentials is nobody's business but the content's.
    let is_ours = fields.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).is_some_and(forward::is_credential);
    if is_open && !is_ours {
        return Ok(Caller::Anonymous);
    }
    match parts.auth.caller(fields, origin).await {
        Err(failure) if is_open && failure.status().is_client_error() => Ok(Caller::Anonymous),
        other => other,
    }
}

/// What was rendered.
async fn report(
    parts: &Parts,
    rendering: &RenderingRow,
    prefix: &str,
    target: &str,
    request: Request,
) -> Result<Response, Failure> {
    let main = &rendering.main;
    // What is linked is beside the page it is linked on.
    if main.contains('/') && target.split('?').next() == Some("/") {
        let query = &target[1..];
        let mut response = StatusCode::FOUND.into_response();
        if let Ok(value) = HeaderValue::try_from(format!("{prefix}/{}{query}", escaped(main))) {
            response.headers_mut().insert(LOCATION, value);
        }
        return Ok(response);
    }
    let folder = shown(parts, rendering).await.map_err(|why| Failure::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
    let pages = Pages { folder: folder.join("files"), sha256: &rendering.sha256, first: main, hidden: None };
    files(&pages, prefix, target, request).await
}

/// Files to be shown.
struct Pages<'a> {
    folder: PathBuf,
    /// Of what they were unpacked from.
    sha256: &'a str,
    /// What is shown at the top.
    first: &'a str,
    /// What is not shown.
    hidden: Option<&'a str>,
}

/// Their times are those of unpacking, on each node its own, so validators are of the digest of what they come from.
async fn files(pages: &Pages<'_>, prefix: &str, target: &str, request: Request) -> Result<Response, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "These are files: GET or HEAD"));
    }
    let missing = || Failure::not_found("page at this address");
    let path = target.split('?').next().unwrap_or("/");
    let plain = percent_decode(path).ok_or_else(missing)?;
    if pages.hidden == Some(plain.trim_start_matches(['/', '.'])) {
        return Err(missing());
    }
    let uri = if path == "/" { Uri::try_from(format!("/{}", escaped(pages.first))) } else { Uri::try_from(target) };
    let (mut head, _) = request.into_parts();
    head.uri = uri.map_err(|_| missing())?;
    let etag = download::quoted(pages.sha256);
    let knows = download::knows(&head.headers, &etag);
    if head.headers.get(IF_RANGE).is_some_and(|told| *told != etag) {
        head.headers.remove(RANGE);
    }
    for name in [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, IF_NONE_MATCH] {
        head.headers.remove(name);
    }
    let mut service = ServeDir::new(&pages.folder).append_index_html_on_directories(true).redirect_path_prefix(prefix);
    let Ok(served) = service.call(http::Request::from_parts(head, Body::empty())).await;
    if served.status() == StatusCode::NOT_FOUND {
        return Err(missing());
    }
    let mut response = served.map(Body::new);
    if knows && response.status().is_success() {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    let head = response.headers_mut();
    head.remove(LAST_MODIFIED);
    head.insert(ETAG, etag);
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// A path without its escapes; `None`: it is none.
fn percent_decode(path: &str) -> Option<String> {
    let mut bytes = path.bytes();
    let mut plain = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16).map(|n| n as u8);
                digit(bytes.next())? << 4 | digit(bytes.next())?
            }
            byte => byte,
        });
    }
    String::from_utf8(plain).ok()
}

/// A path in a URL.
fn escaped(path: &str) -> String {
    use std::fmt::Write as _;
    path.bytes().fold(String::with_capacity(path.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// What is asked of a worker.
struct Asked<'a> {
    caller: &'a Caller,
    content: &'a Arc<Shown>,
    bundle: &'a Arc<Kept>,
    mode: Mode,
    prefix: &'a str,
    target: String,
}

async fn worker(parts: &Parts, origin: Origin, asked: &Asked<'_>, request: Request) -> Result<Response, Failure> {
    let Asked { caller, content, bundle, mode, prefix, target } = asked;
    let key = Key { guid: content.guid.clone(), bundle: bundle.number, generation: content.generation };
    let limits = content.limits;
    let had = forward::worker_of(request.headers());
    let launch = super::launch::style(*mode);
    let base = parts.base(request.headers(), origin);
    if launch.is_guarded && forward::is_of_another_site(request.method(), request.headers(), &base) {
        return Err(Failure::new(StatusCode::FORBIDDEN, "This content is used from pages of its own site only"));
    }
    let refused = |refused| match refused {
        Refused::Busy => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "All of its processes are busy; try again soon"),
        Refused::Failed(why) => {
            tracing::warn!(content = content.guid, bundle = bundle.number, why, "content does not start");
            let told = if access::may_change(caller, content) { why } else { "its owner sees why".to_owned() };
            Failure::new(StatusCode::BAD_GATEWAY, format!("This content does not start: {told}"))
        }
    };
    let lease = match parts.contents.workers.get(&key, limits, had.as_deref()).await.map_err(refused)? {
        Got::Worker(lease) => lease,
        Got::Turn(turn) => {
            // It goes on when the client does not wait for it.
            let (parts, content, bundle) = (parts.clone(), Arc::clone(content), Arc::clone(bundle));
            let prefix = (*prefix).to_owned();
            let begun = tokio::spawn(async move {
                let say = |line: &str| tracing::debug!(content = content.guid, line, "preparing content");
                let start = prepare(&parts, &content, &bundle, &prefix, &say).await;
                let begun = turn.begin(start).await;
                parts.metrics.worker_begun(begun.is_ok());
                begun
            });
            let begun = begun.await.map_err(std::io::Error::other)?;
            begun.map_err(refused)?
        }
    };
    let user = match caller {
        Caller::Anonymous => None,
        caller => Some(caller.user().map_or(caller.name(), |user| user.username.as_str())),
    };
    let whole = format!("{prefix}{target}");
    let about = About {
        target: if launch.keeps_prefix { &whole } else { target },
        prefix,
        base: &base,
        client: origin.address,
        user,
        names_script: launch.names_script,
        is_bound: launch.is_bound,
        is_shiny: launch.is_shiny,
        read_timeout: limits.read_timeout,
    };
    let mut response = forward(lease, request, &about).await.map_err(|why| {
        tracing::warn!(content = content.guid, bundle = bundle.number, why, "content does not answer");
        Failure::new(StatusCode::BAD_GATEWAY, "This content does not answer; try again in a moment")
    })?;
    if launch.is_guarded {
        response.headers_mut().remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    }
    Ok(response)
}

/// Whether it is a browser that will show what comes.
fn is_page(fields: &HeaderMap) -> bool {
    fields
        .get(http::header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.contains("text/html"))
}

/// A failure as people read it.
fn page(failure: &Failure, is_page: bool) -> Response {
    let mut response = failure.clone().into_response();
    if is_page {
        let text = failure.message().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let status = failure.status();
        let page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{status}</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:15vh auto;\
             padding:0 1rem;color-scheme:light dark}}pre{{white-space:pre-wrap;font-size:.85rem}}</style>\
             <h1>{status}</h1><pre>{text}</pre>\n"
        );
        *response.body_mut() = Body::from(page);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
