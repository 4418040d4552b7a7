//! Logging in and out, and the way to content's own origin.

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue, REFERRER_POLICY, SET_COOKIE};
use maud::html;
use serde::Deserialize;

use super::page::{bare, csrf};
use super::{Failed, Form, IntoHtml, Sent, Shown, Visit, to};
use crate::node::auth::Caller;
use crate::node::content::serve::is_at;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::session::{Arriving, Began, Jar, Realm, cookie};
use crate::node::store::Deed;
use crate::runtime::dice;

/// What the form one logs in by is bound to.
const NONCE: &str = "bowline_login";
/// Characters of where somebody goes on.
const NEXT_MAX: usize = 4096;

/// Where to go on.
#[derive(Debug, Deserialize)]
pub struct Asked {
    next: Option<String>,
}

/// A path of ours to go on at: nobody is sent to another server by us.
fn checked(next: Option<&str>) -> &str {
    let is_path = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && next.len() <= NEXT_MAX
            && next.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\')
    };
    next.filter(is_path).unwrap_or("/connect/")
}

pub(super) async fn ask(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Query(Asked { next }): Query<Asked>,
    fields: HeaderMap,
) -> Shown {
    let prefix = parts.prefix(&fields, origin, "/connect/login");
    let next = checked(next.as_deref());
    if parts.sessions.find(&fields, Realm::Pages, &parts.jar(&fields, origin, "/connect/login")).await?.is_some() {
        return Ok(to(&format!("{prefix}{next}")));
    }
    Ok(form(&parts, &fields, origin, next, "", None))
}

fn form(
    parts: &Parts,
    fields: &HeaderMap,
    origin: Origin,
    next: &str,
    name: &str,
    failure: Option<&Failure>,
) -> Response {
    let prefix = parts.prefix(fields, origin, "/connect/login");
    let known = cookie(fields, NONCE).filter(|nonce| nonce.len() == 32 && nonce.bytes().all(|b| b.is_ascii_hexdigit()));
    let nonce = known.map_or_else(|| format!("{:032x}", u128::from_be_bytes(dice::secret())), str::to_owned);
    let body = html! {
        h1 { "Log in" }
        @if let Some(failure) = failure {
            p.notice.bad role="alert" { (failure.message()) }
        }
        form.card method="post" action={ (prefix) "/connect/login" } {
            (csrf(&parts.sessions.login_token(&nonce)))
            input type="hidden" name="next" value=(next);
            label { "User name" input name="username" value=(name) autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus[name.is_empty()]; }
            label { "Password" input type="password" name="password" autocomplete="current-password" required autofocus[!name.is_empty()]; }
            button.primary { "Log in" }
        }
        p.quiet { "No account? Ask whoever runs this server." }
    };
    let mut response = bare(&prefix, "Log in", &body).into_response_html();
    if let Some(failure) = failure {
        *response.status_mut() = failure.status();
    }
    let secure = if parts.base(fields, origin).starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!("{NONCE}={nonce}; Path={prefix}/connect/login; HttpOnly; SameSite=Strict{secure}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

pub(super) async fn log_in(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    fields: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let sent = Form::read(request).await?;
    let (name, next) = (sent.text("username"), checked(Some(sent.text("next"))));
    let is_ours = cookie(&fields, NONCE).is_some_and(|nonce| parts.sessions.is_login_token(nonce, sent.text("token")));
    if !is_ours {
        let failure = Failure::forbidden("Your browser did not send the cookie of this form; try again");
        return Ok(form(&parts, &fields, origin, next, name, Some(&failure)));
    }
    let caller = match parts.auth.user(name, sent.raw("password"), origin.address).await {
        Ok(caller) => caller,
        Err(failure) => return Ok(form(&parts, &fields, origin, next, name, Some(&failure))),
    };
    let Caller::User(user) = caller else {
        return Err(Failed(Failure::wrong_password()).into_response());
    };
    let address = origin.address.map(|address| address.to_string());
    let deed = Deed {
        who: &user.username,
        address: address.as_deref(),
        action: "log_in",
        subject: &user.username,
        detail: "",
    };
    parts.store.note(&deed).await.map_err(|error| Failed::from(error).into_response())?;
    let prefix = parts.prefix(&fields, origin, "/connect/login");
    let value = parts.sessions.begin(&user, Began::Password);
    let mut response = to(&format!("{prefix}{next}"));
    response.headers_mut().append(SET_COOKIE, Jar::new(&parts.base(&fields, origin), &prefix).set(Some(&value)));
    Ok(response)
}

pub(super) async fn log_out(State(parts): State<Parts>, Sent { visit, .. }: Sent) -> Shown {
    let deed = visit.manager.deed("log_out", &visit.user().username, "");
    parts.sessions.end(&visit.session, &deed).await?;
    let mut response = to(&visit.at("/connect/login"));
    response.headers_mut().append(SET_COOKIE, visit.jar().set(None));
    Ok(response)
}

/// Where to, and for which browser.
#[derive(Deserialize)]
pub struct Departs {
    next: Option<String>,
    browser: Option<String>,
}

/// From the pages to content's own origin: with a ticket for the browser that was sent here for one.
pub(super) async fn depart(
    State(parts): State<Parts>,
    visit: Visit,
    Query(Departs { next, browser }): Query<Departs>,
) -> Response {
    let next = checked(next.as_deref());
    let is_trace = |trace: &String| trace.len() == 64 && trace.bytes().all(|byte| byte.is_ascii_hexdigit());
    to(&match (browser.filter(is_trace), &parts.settings.content.external_url) {
        (Some(browser), Some(url)) => arrival(&parts, url, &visit, next, &browser),
        (None, Some(url)) => format!("{url}{next}"),
        (_, None) => visit.at(next),
    })
}

/// Where content is opened in a frame of a page. Good for a minute, once.
pub(super) fn framed(parts: &Parts, visit: &Visit, next: &str) -> String {
    match &parts.settings.content.external_url {
        Some(url) => arrival(parts, url, visit, next, FRAME),
        None => visit.at(next),
    }
}

fn arrival(parts: &Parts, url: &str, visit: &Visit, next: &str, browser: &str) -> String {
    let ticket = parts.sessions.ticket(&visit.session, next, browser);
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    format!("{url}/__login__?ticket={ticket}&next={next}")
}

/// The browser of a ticket for a frame of our pages: other sites' frames get no cookies.
const FRAME: &str = "frame";

/// Who comes, and where to.
#[derive(Deserialize)]
pub struct Arrived {
    ticket: String,
    next: String,
}

/// At content's own origin. Whose ticket is too old is sent on all the same: content asks them to log in again.
pub async fn arrive(
    State(parts): State<Parts>,
    Query(Arrived { ticket, next }): Query<Arrived>,
    fields: HeaderMap,
) -> Shown {
    let url = parts.settings.content.external_url.as_deref().filter(|url| is_at(&fields, url));
    let url = url.ok_or_else(|| Failure::not_found("page at this address"))?;
    let next = checked(Some(&next));
    let said = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    // Browsers do not say so without TLS.
    let is_framed = said("sec-fetch-dest").is_none_or(|to| to == "iframe")
        && said("sec-fetch-site").is_none_or(|site| matches!(site, "same-site" | "same-origin"));
    let arriving = Arriving::of(&fields, url).map(|arriving| arriving.trace());
    let browsers: Vec<&str> = arriving.as_deref().into_iter().chain(is_framed.then_some(FRAME)).collect();
    let redeemed = parts.sessions.redeem(&ticket, next, &browsers).await?;
    let jar = Jar::new(url, "");
    if redeemed.is_none() && cookie(&fields, jar.name()).is_none() {
        // Without this, a browser that takes no cookies would be sent to and fro for ever.
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "This link was used already, is too old, or is for another browser; open the content anew",
        )
        .into());
    }
    let mut response = to(next);
    let head = response.headers_mut();
    if let Some(value) = redeemed {
        head.append(SET_COOKIE, jar.set(Some(&value)));
    }
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_server() {
        for next in ["/content/g/?a=b", "/connect/keys", "/sales/"] {
            assert_eq!(checked(Some(next)), next);
        }
        let long = format!("/{}", "a".repeat(NEXT_MAX));
        for next in ["", "//evil.example", "/\\evil.example", "https://evil.example/", "/a\r\nb", "javascript:x", &long]
        {
            assert_eq!(checked(Some(next)), "/connect/", "{next}");
        }
        assert_eq!(checked(None), "/connect/");
    }
}
