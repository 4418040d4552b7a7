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
use crate::node::session::{Began, Realm, Sessions, cookie};
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
    if parts.sessions.find(&fields, Realm::Pages).await?.is_some() {
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
    let is_secure = parts.base(&fields, origin).starts_with("https://");
    let value = parts.sessions.begin(&user, Began::Password);
    let mut response = to(&format!("{prefix}{next}"));
    let cookie = Sessions::set_cookie(Some(&value), &format!("{prefix}/"), is_secure);
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}

pub(super) async fn log_out(State(parts): State<Parts>, Sent { visit, .. }: Sent) -> Shown {
    let deed = visit.manager.deed("log_out", &visit.user().username, "");
    parts.sessions.end(&visit.session, &deed).await?;
    let mut response = to(&visit.at("/connect/login"));
    let is_secure = visit.base.starts_with("https://");
    response.headers_mut().append(SET_COOKIE, Sessions::set_cookie(None, &visit.at("/"), is_secure));
    Ok(response)
}

/// From the pages to content's own origin.
pub(super) async fn depart(State(parts): State<Parts>, visit: Visit, Query(Asked { next }): Query<Asked>) -> Response {
    let next = checked(next.as_deref());
    to(&arrival(&parts, &visit, next))
}

/// Where content is opened by who has logged in. Good for a minute, once.
pub(super) fn arrival(parts: &Parts, visit: &Visit, next: &str) -> String {
    match &parts.settings.content.external_url {
        Some(url) => {
            let ticket = parts.sessions.ticket(&visit.session, next);
            let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
            format!("{url}/__login__?ticket={ticket}&next={next}")
        }
        None => visit.at(next),
    }
}

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
    let redeemed = parts.sessions.redeem(&ticket, next).await?;
    if redeemed.is_none() && cookie(&fields, crate::node::session::COOKIE_NAME).is_none() {
        // Without this, a browser that takes no cookies would be sent to and fro for ever.
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "This link was used already, or is too old; open the content anew",
        )
        .into());
    }
    let mut response = to(next);
    let head = response.headers_mut();
    if let Some(value) = redeemed {
        head.append(SET_COOKIE, Sessions::set_cookie(Some(&value), "/", url.starts_with("https://")));
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
