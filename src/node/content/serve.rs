//! `/content/GUID/…`: who may see it, which bundle, and how that answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, LOCATION, SET_COOKIE,
};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::access::{self, Viewer};
use super::files::{Pages, escaped, files};
use super::forward::{self, About, forward};
use super::mode::{self, Mode};
use super::prepare::{prepare, shown, unpacked};
use super::session::{self as held, Owner, Wanted};
use super::settings::Settings;
use super::starting;
use super::visitor::{Proof, Visitor};
use super::worker::{Got, Had, Key, Lease, Refused};
use super::{Kept, Shown};
use super::{locked, manifest};
use crate::node::auth::Caller;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::session::{self, Arriving, Jar, Realm, Session};
use crate::node::store::{ContentRow, RenderingRow};
use crate::shiny::shim;
use crate::types::LEAVING;

/// Without the slash, below which everything is.
pub async fn moved(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(guid): Path<String>,
    uri: Uri,
    fields: HeaderMap,
) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let prefix = parts.prefix(&fields, origin, uri.path());
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    if let Ok(value) = HeaderValue::try_from(format!("{prefix}/content/{guid}/{query}")) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// Everything below, and paths beside guids.
pub async fn serve(State(parts): State<Parts>, Extension(origin): Extension<Origin>, request: Request) -> Response {
    let is_page = is_page(request.headers());
    let way = Way::of(&parts, origin, &request);
    let visit = match way.visit(&parts, request.method(), request.uri(), request.headers(), is_page).await {
        Ok(Visit::Elsewhere(location)) => {
            let mut response = sent(&location);
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            }
            return response;
        }
        Ok(Visit::Here(session)) => session,
        Err(failure) => return page(&failure, is_page),
    };
    let is_browser = request.headers().contains_key("sec-fetch-mode");
    let renewed = visit.as_ref().filter(|_| is_page).and_then(|session| parts.sessions.renewed(session, way.realm));
    let wants_login = is_page
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(AUTHORIZATION)
        && request.headers().get("sec-fetch-dest").is_none_or(|to| to == "document");
    let login = wants_login.then(|| way.login(&parts, request.uri(), request.headers()));
    let answered = answer(&parts, origin, &way, visit, request).await;
    let is_sent_away = answered.as_ref().is_err_and(Failure::is_leaving);
    let mut response = match (answered, login) {
        (Ok(response), _) => response,
        (Err(failure), Some((login, arriving))) if failure.status() == StatusCode::UNAUTHORIZED => {
            let mut response = sent(&login);
            arriving.map(|arriving| response.headers_mut().append(SET_COOKIE, arriving.cookie()));
            response
        }
        (Err(failure), _) => page(&failure, is_page),
    };
    if is_browser && response.status() == StatusCode::UNAUTHORIZED {
        // It would ask for a password of its own, and remember that for the whole origin.
        response.headers_mut().remove(http::header::WWW_AUTHENTICATE);
    }
    if is_sent_away {
        // A proxy asks another node, and brings nobody new.
        response.headers_mut().insert(LEAVING, HeaderValue::from_static("1"));
    }
    if let Some(value) = renewed {
        response.headers_mut().append(SET_COOKIE, way.jar().set(Some(&value)));
    }
    response
}

/// How a request came to content.
struct Way {
    /// How browsers call the server here, without a slash at the end.
    base: String,
    /// What a proxy takes away of paths.
    prefix: String,
    /// Which sessions count.
    realm: Realm,
}

/// Where a browser's visit goes on.
enum Visit {
    /// At this location.
    Elsewhere(String),
    /// Here, in this session.
    Here(Option<Session>),
}

impl Way {
    fn of(parts: &Parts, origin: Origin, request: &Request) -> Self {
        let fields = request.headers();
        match &parts.settings.content.external_url {
            Some(url) if is_at(fields, url) => Self { base: url.clone(), prefix: String::new(), realm: Realm::Content },
            _ => Self {
                base: parts.base(fields, origin),
                prefix: parts.prefix(fields, origin, request.uri().path()),
                realm: Realm::Pages,
            },
        }
    }

    /// Whose visit it is. Where content has an origin of its own no session counts at the other one.
    async fn visit(
        &self,
        parts: &Parts,
        method: &Method,
        uri: &Uri,
        fields: &HeaderMap,
        is_page: bool,
    ) -> Result<Visit, Failure> {
        if let (Some(url), Realm::Pages) = (&parts.settings.content.external_url, self.realm) {
            // Nothing a browser would show is shown here, however it asks and whatever it remembers of a password.
            let is_browser = fields.contains_key("sec-fetch-site");
            let navigates = fields.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
            let is_read = matches!(*method, Method::GET | Method::HEAD);
            let moves = navigates || is_page && (is_browser || is_read && !fields.contains_key(AUTHORIZATION));
            return Ok(match moves {
                true => Visit::Elsewhere(format!("{url}{uri}")),
                false => Visit::Here(None),
            });
        }
        let authority = self.base.split_once("://").map_or("", |(_, authority)| authority);
        if !session::is_own(fields, authority) {
            return Ok(Visit::Here(None));
        }
        parts.sessions.find(fields, self.realm, &self.jar()).await.map(Visit::Here)
    }

    /// Where a browser logs in to come back here, and by what it is known then.
    fn login(&self, parts: &Parts, uri: &Uri, fields: &HeaderMap) -> (String, Option<Arriving>) {
        let next: String = form_urlencoded::byte_serialize(uri.to_string().as_bytes()).collect();
        match (self.realm, &parts.settings.external_url) {
            (Realm::Content, Some(url)) => {
                let arriving = Arriving::of(fields, &self.base).unwrap_or_else(|| Arriving::new(&self.base));
                (format!("{url}/connect/open?next={next}&browser={}", arriving.trace()), Some(arriving))
            }
            _ => (format!("{}/connect/login?next={next}", self.prefix), None),
        }
    }

    fn jar(&self) -> Jar {
        Jar::new(&self.base, &self.prefix)
    }
}

/// Whether a request is for this URL's host.
pub fn is_at(fields: &HeaderMap, url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, authority)| authority);
    fields.get(HOST).is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
}

/// Another place, for now.
fn sent(location: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Which content a path is of, the path it is at, without the slash at its end, and the rest.
async fn place<'a>(parts: &Parts, path: &'a str) -> Result<Option<(String, String, &'a str)>, Failure> {
    if let Some((guid, rest)) = path.strip_prefix("/content/").and_then(|below| below.split_once('/')) {
        let guid = guid.to_ascii_lowercase();
        let at = format!("/content/{guid}");
        return Ok(Some((guid, at, rest)));
    }
    let found = parts.contents.at(&parts.store, path).await?;
    Ok(found.map(|(at, guid)| {
        let rest = path[at.len()..].trim_start_matches('/');
        (guid, at, rest)
    }))
}

async fn answer(
    parts: &Parts,
    origin: Origin,
    way: &Way,
    session: Option<Session>,
    request: Request,
) -> Result<Response, Failure> {
    let path = request.uri().path();
    let missing = || Failure::not_found("content at this address");
    let (guid, at, rest) = place(parts, path).await?.ok_or_else(|| Failure::not_found("page at this address"))?;
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    if path.len() == at.len() {
        let mut response = sent(&format!("{}{at}/{query}", way.prefix));
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        return Ok(response);
    }
    let content = parts.contents.find(&parts.store, &guid).await?.ok_or_else(missing)?;
    let (caller, proof) = caller(parts, &content, request.headers(), origin, session).await?;
    let groups = match access::asks_for_groups(&content) {
        true => parts.auth.groups(&caller).await?,
        false => access::Groups::default(),
    };
    let viewer = Viewer { caller: &caller, groups: &groups };
    if !access::may_see(viewer, &content) {
        return Err(caller.refused("see this content"));
    }
    if content.is_locked {
        return Ok(locked::page(&Settings::read(&content.settings).locked_message));
    }
    // What was rendered earlier is for all who may see what is now.
    if let Some((first, rest)) = rest.split_once('/')
        && let Some(number) = numbered(first, "_rev")
    {
        let rendering = parts.contents.rendering(&parts.store, number).await?;
        let rendering = rendering.filter(|rendering| rendering.content_id == content.id).ok_or_else(missing)?;
        let prefix = format!("{at}/{first}");
        return report(parts, &rendering, &prefix, &format!("/{rest}{query}"), request).await;
    }
    // A bundle that does not run yet is for those who publish.
    let draft = rest.split_once('/').and_then(|(first, rest)| Some((first, numbered(first, "_bundle")?, rest)));
    let is_draft = draft.is_some();
    let (number, prefix, told, rest) = match draft {
        Some((first, number, rest)) => {
            if !access::may_change(viewer, &content) {
                return Err(caller.refused("see what is not published yet"));
            }
            let prefix = format!("{at}/{first}");
            (number, prefix.clone(), prefix, rest)
        }
        None => {
            let none = || Failure::not_found("page here yet: nothing was published");
            (content.bundle.ok_or_else(none)?, at, content.prefix(), rest)
        }
    };
    let target = format!("/{rest}{query}");
    let bundle = parts.contents.bundle(&parts.store, number).await?;
    let bundle = bundle.filter(|bundle| bundle.content_id == content.id).ok_or_else(missing)?;
    let too_old = || Failure::new(StatusCode::BAD_GATEWAY, "This node is too old to run it");
    let mode = bundle.manifest.mode().ok_or_else(too_old)?;
    match mode.way() {
        mode::Way::Files => {
            let folder =
                unpacked(parts, &bundle).await.map_err(|why| Failure::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
            let first = bundle.manifest.entrypoint.as_deref().unwrap_or("index.html");
            let pages = Pages { folder, sha256: &bundle.sha256, first, hidden: Some(manifest::NAME) };
            files(&pages, &prefix, &target, request).await
        }
        mode::Way::Workers => {
            let asked = Asked {
                viewer,
                is_draft,
                content: &content,
                bundle: &bundle,
                mode,
                prefix: &prefix,
                told: &told,
                base: &way.base,
                target,
            };
            worker(parts, origin, &asked, proof, request).await
        }
        mode::Way::Rendering => {
            let shown = match content.rendering.filter(|_| content.bundle == Some(number)) {
                Some(number) => parts.contents.rendering(&parts.store, number).await?,
                None => parts.store.renderings(content.id, Some(number), 1).await?.pop().map(Arc::new),
            };
            let none = || Failure::new(StatusCode::BAD_GATEWAY, "It was not rendered yet");
            report(parts, &*shown.ok_or_else(none)?, &prefix, &target, request).await
        }
    }
}

/// The number behind this, if it is one: all else is content's own.
fn numbered(part: &str, name: &str) -> Option<i64> {
    let digits = part.strip_prefix(name)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Who asks: by a credential of ours, else by the session. To what everybody may see they may bring a credential of its own.
async fn caller(
    parts: &Parts,
    content: &ContentRow,
    fields: &HeaderMap,
    origin: Origin,
    session: Option<Session>,
) -> Result<(Caller, Proof), Failure> {
    let is_open = content.access == "all";
    // What is none of our credentials is nobody's business but the content's.
    let is_ours = fields.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).is_some_and(forward::is_credential);
    if is_ours {
        match parts.auth.caller(fields, origin).await {
            Err(failure) if is_open && failure.status().is_client_error() => {}
            other => return other.map(|caller| (caller, credential(fields, origin))),
        }
    }
    match session {
        Some(session) => Ok((session.caller(), Proof::Session(session))),
        None if is_open => Ok((Caller::Anonymous, Proof::Nothing)),
        None => parts.auth.caller(fields, origin).await.map(|caller| (caller, credential(fields, origin))),
    }
}

/// What a request says of who asks, for a websocket's time: of others it is known already.
fn credential(fields: &HeaderMap, origin: Origin) -> Proof {
    match fields.get(AUTHORIZATION).filter(|_| forward::is_upgrade(fields)) {
        Some(value) => Proof::Credential(Box::new(HeaderMap::from_iter([(AUTHORIZATION, value.clone())])), origin),
        None => Proof::Nothing,
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

/// What is asked of a worker.
struct Asked<'a> {
    viewer: Viewer<'a>,
    /// It does not run yet.
    is_draft: bool,
    content: &'a Arc<Shown>,
    bundle: &'a Arc<Kept>,
    mode: Mode,
    /// The path it is asked for at, without a slash at the end.
    prefix: &'a str,
    /// The path its processes are told they are at.
    told: &'a str,
    /// How browsers call the server.
    base: &'a str,
    target: String,
}

/// `proof`: by what they were let in.
async fn worker(
    parts: &Parts,
    origin: Origin,
    asked: &Asked<'_>,
    proof: Proof,
    request: Request,
) -> Result<Response, Failure> {
    let &Asked { viewer, is_draft, content, bundle, mode, prefix, told, base, ref target } = asked;
    let caller = viewer.caller;
    let key = Key {
        guid: content.guid.clone(),
        prefix: told.to_owned(),
        bundle: bundle.number,
        generation: content.generation,
    };
    let limits = content.limits;
    let had = forward::worker_of(request.headers());
    let launch = super::launch::style(mode);
    if launch.is_guarded && forward::is_of_another_site(request.method(), request.headers(), base) {
        return Err(Failure::new(StatusCode::FORBIDDEN, "This content is used from pages of its own site only"));
    }
    let mut request = request;
    let wanted = held::wanted(request.headers(), request.uri().query()).filter(|_| launch.is_shiny);
    let cookie = launch.is_shiny.then(|| held::cookie_of(request.headers())).flatten();
    let has_cookie = cookie.is_some();
    // Other kinds have no sessions that are held.
    let owner = launch.is_shiny.then(|| Owner {
        prefix: prefix.to_owned(),
        cookie: cookie.unwrap_or_else(held::secret),
        caller: format!("{} {}", caller.user().map_or("", |user| &*user.guid), caller.name()),
    });
    let visitor = forward::is_upgrade(request.headers()).then(|| Visitor {
        parts: parts.clone(),
        guid: content.guid.clone(),
        is_draft,
        proof,
    });
    if let (Some(Wanted::Resumed(id, has)), Some(owner)) = (&wanted, &owner) {
        let none = || Failure::new(StatusCode::BAD_REQUEST, "This is no request for a websocket");
        let switched = held::switched(request.headers()).ok_or_else(none)?;
        let visitor = visitor.ok_or_else(none)?;
        parts.contents.sessions.resume(hyper::upgrade::on(&mut request), id, *has, owner, visitor);
        let mut response = held::SWITCHED.into_response();
        *response.headers_mut() = switched;
        return Ok(response);
    }
    let refused = |refused| match refused {
        Refused::Busy => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "All of its processes are busy; try again soon"),
        Refused::Slow => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "It is still starting; try again in a moment"),
        Refused::Failed(why) => {
            tracing::warn!(content = content.guid, bundle = bundle.number, why, "content does not start");
            let told = if access::may_change(viewer, content) { why } else { "its owner sees why".to_owned() };
            Failure::new(StatusCode::BAD_GATEWAY, format!("This content does not start: {told}"))
        }
    };
    // A page is of what runs now; all else is of the page's own process, while that lives.
    let is_page = shim::applies_to_request(request.method(), request.headers()) && !target.starts_with("/session/");
    if is_page && parts.is_leaving.load(Ordering::Relaxed) {
        // It would begin a session.
        return Err(Failure::leaving());
    }
    let own = launch.is_shiny.then(|| parts.contents.sessions.process_of(prefix, target)).flatten();
    let is_own = own.is_some();
    let had = own.or(had);
    let had = had.as_deref().map(|id| Had { id, is_session: !is_page });
    let lease = match parts.contents.workers.ready(&key, limits, had) {
        Some(lease) => lease,
        None => {
            let begun = begun(parts, asked, &key, had);
            let is_navigation = starting::is_navigation(request.method(), request.headers());
            let wait = if is_navigation { START_SHOWN } else { limits.init_timeout + START_MARGIN };
            match tokio::time::timeout(wait, begun).await {
                Ok(begun) => begun.map_err(refused)?,
                Err(_) if is_navigation => return Ok(starting::page(&content.title)),
                Err(_) => return Err(refused(Refused::Slow)),
            }
        }
    };
    // A program's key is nobody's name.
    let user = caller.user().map(|user| user.username.as_str());
    let groups = parts.auth.groups(caller).await?;
    let whole = format!("{told}{target}");
    let about = About {
        target: if launch.keeps_prefix { &whole } else { target },
        prefix,
        base,
        client: origin.address,
        user,
        groups: &groups,
        names_script: launch.names_script,
        is_bound: launch.is_bound && !is_own,
        is_shiny: launch.is_shiny,
        read_timeout: limits.read_timeout,
        connection_timeout: limits.connection_timeout,
        wanted: wanted.as_ref(),
        owner: owner.as_ref(),
        has_cookie,
    };
    let mut response = forward(lease, request, &about, &parts.contents.sessions, visitor).await.map_err(|why| {
        tracing::warn!(content = content.guid, bundle = bundle.number, why, "content does not answer");
        Failure::new(StatusCode::BAD_GATEWAY, "This content does not answer; try again in a moment")
    })?;
    if launch.is_guarded {
        response.headers_mut().remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    }
    Ok(response)
}

/// A worker, begun if need be. What was begun goes on when nobody waits for it any more.
async fn begun(parts: &Parts, asked: &Asked<'_>, key: &Key, had: Option<Had<'_>>) -> Result<Lease, Refused> {
    let Asked { content, bundle, told, .. } = asked;
    let limits = content.limits;
    let turn = match parts.contents.workers.get(key, limits, had, limits.init_timeout + START_MARGIN).await? {
        Got::Worker(lease) => return Ok(lease),
        Got::Turn(turn) => turn,
    };
    let (parts, content, bundle) = (parts.clone(), Arc::clone(content), Arc::clone(bundle));
    let told = (*told).to_owned();
    let begun = tokio::spawn(async move {
        let say = |line: &str| tracing::debug!(content = content.guid, line, "preparing content");
        let start = prepare(&parts, &content, &bundle, &told, &say).await;
        turn.begin(start).await
    });
    begun.await.unwrap_or_else(|e| Err(Refused::Failed(e.to_string())))
}

/// A browser that waits for a start sees so after this.
const START_SHOWN: Duration = Duration::from_millis(1500);
/// Who waits for a start hears why it failed, which is known after `init_timeout`, rather than that it is late.
const START_MARGIN: Duration = Duration::from_secs(5);

/// Whether it is a browser that will show what comes.
pub fn is_page(fields: &HeaderMap) -> bool {
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
        let (code, title) = (status.as_u16(), status.canonical_reason().unwrap_or("It failed"));
        let page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{title}</title><style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.5 system-ui,sans-serif;\
             max-width:44rem;margin:15vh auto;padding:0 1rem;overflow-wrap:anywhere}}h1{{font-size:1.4rem}}\
             pre{{font:inherit;white-space:pre-wrap}}</style>\
             <main><h1>{title}</h1><pre>{text}</pre><p><small>Status {code}</small></main>\n"
        );
        *response.body_mut() = Body::from(page);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
