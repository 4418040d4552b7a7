//! `/connect/claim/TOKEN`: a user lets an R client publish as them.
//!
//! Who may, says so by Basic until there are pages to log in at, and then presses a button. What the button sends is sealed
//! for this user and token, and can be read by nobody but them: content of other people may be at the same origin, so scripts
//! get no such page (`Sec-Fetch-Dest`, W3C Fetch Metadata), no frame shows it, and it is of no origin itself (`sandbox`, CSP).

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use http::{HeaderMap, StatusCode};
use ring::hmac;

use crate::node::api::time;
use crate::node::auth::Caller;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::signature::is_token;
use crate::node::store::{ApiKey, Deed, TokenRow, User};

/// Bytes of what the button sends.
pub(crate) const BYTES_MAX: usize = 4 << 10;

/// Asks whether they want that.
pub(crate) async fn ask(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(token): Path<String>,
    fields: HeaderMap,
) -> Response {
    page(asked(&parts, origin, &token, &fields).await)
}

/// They do.
pub(crate) async fn claim(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    Path(token): Path<String>,
    fields: HeaderMap,
    body: Bytes,
) -> Response {
    page(claimed(&parts, origin, &token, &fields, &body).await)
}

async fn asked(parts: &Parts, origin: Origin, token: &str, fields: &HeaderMap) -> Result<String, Failure> {
    by_a_person(fields)?;
    let caller = parts.auth.caller(fields, origin).await?;
    let (user, _) = claimant(&caller)?;
    let row = unclaimed(parts, token).await?;
    let from = row.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let (name, role, when) = (&user.username, user.role.as_str(), time(row.created_at));
    let seal = URL_SAFE_NO_PAD.encode(hmac::sign(&key(parts), &sealed(token, user)));
    Ok(format!(
        "<h1>Let R publish as {name}?</h1>\
         <p>R{from} asked for this at {when}. It may then do in your name what your role ({role}) allows with content: \
         publish, change and remove it.</p><p><strong>If you did not just ask R to connect, close this page.</strong></p>\
         <form method=post><input type=hidden name=seal value=\"{seal}\"><button>Allow</button></form>"
    ))
}

async fn claimed(
    parts: &Parts,
    origin: Origin,
    token: &str,
    fields: &HeaderMap,
    body: &[u8],
) -> Result<String, Failure> {
    by_a_person(fields)?;
    let caller = parts.auth.caller(fields, origin).await?;
    let (user, by) = claimant(&caller)?;
    let seal = form_urlencoded::parse(body).find(|(name, _)| name == "seal").map(|(_, value)| value.into_owned());
    let seal = seal.and_then(|seal| URL_SAFE_NO_PAD.decode(seal).ok()).unwrap_or_default();
    if hmac::verify(&key(parts), &sealed(token, user), &seal).is_err() {
        return Err(Failure::forbidden("This page is not the one you were shown: open the address again"));
    }
    let row = unclaimed(parts, token).await?;
    let address = origin.address.map(|address| address.to_string());
    let detail = row.address.map(|from| format!("asked for by {from}")).unwrap_or_default();
    let deed = Deed {
        who: caller.name(),
        address: address.as_deref(),
        action: "claim_token",
        subject: &user.username,
        detail: &detail,
    };
    if !parts.store.claim_token(token, user.id, by, &deed).await? {
        return Err(missing());
    }
    Ok(format!("<h1>R publishes as {}</h1><p>You can close this page, and go on in R.</p>", user.username))
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

/// Refuses what scripts of other pages and frames ask for. Clients that are no browsers do not say.
fn by_a_person(fields: &HeaderMap) -> Result<(), Failure> {
    match fields.get("sec-fetch-dest") {
        Some(destination) if destination != "document" => Err(Failure::forbidden("Open this page by itself")),
        _ => Ok(()),
    }
}

fn key(parts: &Parts) -> hmac::Key {
    let master = hmac::Key::new(hmac::HMAC_SHA256, parts.key.secret().expose());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, b"bowline claims 1").as_ref())
}

fn sealed(token: &str, user: &User) -> Vec<u8> {
    format!("{token}\0{}", user.guid).into_bytes()
}

/// Nothing in it comes from outside: names of users and addresses have no characters that HTML knows.
fn page(told: Result<String, Failure>) -> Response {
    let (mut response, text) = match told {
        Ok(text) => (StatusCode::OK.into_response(), text),
        Err(failure) => {
            let text = format!("<h1>{}</h1><p>{}</p>", failure.status(), failure.message());
            (failure.into_response(), text)
        }
    };
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>R and Bowline</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:38rem;margin:15vh auto;\
         padding:0 1rem;color-scheme:light dark}}button{{font:inherit;padding:.5rem 1.5rem}}</style>{text}\n"
    );
    *response.body_mut() = page.into();
    let fields = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; sandbox allow-forms",
        ),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    response
}
