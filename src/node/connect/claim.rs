//! `/connect/claim/TOKEN`: a user lets an R client publish as them.
//!
//! Who may, has logged in, or says so by Basic, and then presses a button. What the button sends is sealed for this user and
//! token, and can be read by nobody but them: see [`crate::node::pages::guard`].

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_SECURITY_POLICY, HeaderValue};
use http::{HeaderMap, StatusCode, Uri};
use maud::html;
use ring::hmac;

use crate::node::api::time;
use crate::node::auth::Caller;
use crate::node::content::serve;
use crate::node::error::Failure;
use crate::node::pages::page::bare;
use crate::node::pages::{Failed, IntoHtml, to};
use crate::node::parts::{Origin, Parts};
use crate::node::session::Realm;
use crate::node::signature::is_token;
use crate::node::store::{ApiKey, Deed, TokenRow, User};

/// Asks whether they want that.
pub(in crate::node) async fn ask(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(token): Path<String>,
    uri: Uri,
    fields: HeaderMap,
) -> Result<Response, Failed> {
    let prefix = parts.prefix(&fields, origin, uri.path());
    let Some(caller) = caller(&parts, origin, &fields, uri.path()).await? else {
        if serve::is_page(&fields) {
            let next: String = form_urlencoded::byte_serialize(uri.path().as_bytes()).collect();
            return Ok(to(&format!("{prefix}/connect/login?next={next}")));
        }
        // Programs are told how; a browser would ask by itself.
        return Ok(Failure::new(StatusCode::UNAUTHORIZED, "Log in with your user name and password").into_response());
    };
    let (user, _) = claimant(&caller)?;
    let row = unclaimed(&parts, &token).await?;
    let seal = URL_SAFE_NO_PAD.encode(hmac::sign(&key(&parts), &sealed(&token, user)));
    let body = html! {
        h1 { "Let R publish as " (user.username) "?" }
        p {
            "R" @if let Some(address) = &row.address { " at " (address) } " asked for this at " (time(row.created_at))
            ". It may then do in your name what your role (" (user.role.as_str())
            ") allows with content: publish, change and remove it."
        }
        p { strong { "If you did not just ask R to connect, close this page." } }
        form method="post" { input type="hidden" name="seal" value=(seal); button.primary { "Allow" } }
    };
    let mut response = bare(&prefix, "Let R publish", &body).into_response_html();
    if fields.contains_key(AUTHORIZATION) {
        // Of no origin itself. With a session it has to have ours: the cookie is not sent from elsewhere.
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox allow-forms"));
    }
    Ok(response)
}

/// They do.
pub(in crate::node) async fn claim(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(token): Path<String>,
    uri: Uri,
    fields: HeaderMap,
    body: Bytes,
) -> Result<Response, Failed> {
    let caller = caller(&parts, origin, &fields, uri.path()).await?.unwrap_or(Caller::Anonymous);
    let (user, by) = claimant(&caller)?;
    let seal = form_urlencoded::parse(&body).find(|(name, _)| name == "seal").map(|(_, value)| value.into_owned());
    let seal = seal.and_then(|seal| URL_SAFE_NO_PAD.decode(seal).ok()).unwrap_or_default();
    if hmac::verify(&key(&parts), &sealed(&token, user), &seal).is_err() {
        return Err(Failure::forbidden("This page is not the one you were shown: open the address again").into());
    }
    let row = unclaimed(&parts, &token).await?;
    let address = origin.address.map(|address| address.to_string());
    let detail = row.address.map(|from| format!("asked for by {from}")).unwrap_or_default();
    let deed = Deed {
        who: caller.name(),
        address: address.as_deref(),
        action: "claim_token",
        subject: &user.username,
        detail: &detail,
    };
    if !parts.store.claim_token(&token, user.id, by, &deed).await? {
        return Err(missing().into());
    }
    let told = html! {
        h1 { "R publishes as " (user.username) }
        p { "You can close this page, and go on in R." }
    };
    let prefix = parts.prefix(&fields, origin, uri.path());
    Ok(bare(&prefix, "R publishes", &told).into_response_html())
}

/// Who has logged in, or says who they are with the request itself; `None`: nobody.
async fn caller(parts: &Parts, origin: Origin, fields: &HeaderMap, path: &str) -> Result<Option<Caller>, Failure> {
    if fields.contains_key(AUTHORIZATION) {
        return parts.auth.caller(fields, origin).await.map(Some);
    }
    let session = parts.sessions.find(fields, Realm::Pages, &parts.jar(fields, origin, path)).await?;
    Ok(session.map(|session| session.caller()))
}

/// Whose the token will be, and the key it is claimed by and ends with.
fn claimant(caller: &Caller) -> Result<(&User, Option<&ApiKey>), Failure> {
    let refused = |why: &str| Err(Failure::new(StatusCode::UNAUTHORIZED, why));
    match caller {
        Caller::User(user) => Ok((user, None)),
        Caller::Key(key) => match &key.user {
            Some(user) if caller.is_whole() => Ok((user, Some(&**key))),
            Some(_) => refused("This API key does not allow all its user may; log in with their password"),
            None => refused("This API key is a program's; log in as a user, with their password or a key of theirs"),
        },
        Caller::Anonymous | Caller::Host | Caller::Client(_) => {
            refused("Log in with your user name and password, or with a key of yours as password")
        }
    }
}

async fn unclaimed(parts: &Parts, token: &str) -> Result<TokenRow, Failure> {
    let row = if is_token(token) { parts.store.token(token).await? } else { None };
    row.filter(|row| row.claimed_at.is_none()).ok_or_else(missing)
}

fn missing() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "There is no such token, it is used already, or too old: they wait for an hour. Ask R to connect again",
    )
}

fn key(parts: &Parts) -> hmac::Key {
    let master = hmac::Key::new(hmac::HMAC_SHA256, parts.key.secret().expose());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"bowline claims 1").as_ref())
}

fn sealed(token: &str, user: &User) -> Vec<u8> {
    format!("{token}\0{}", user.guid).into_bytes()
}
