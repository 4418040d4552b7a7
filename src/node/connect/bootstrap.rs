//! `/v1/experimental/bootstrap`: the first administrator of a new installation, for who has its bootstrap key.
//!
//! They say so with a token signed by it (RFC 7519, HS256), as rsconnect's `bootstrap` does. It works until there is a user.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use http::header::AUTHORIZATION;
use ring::hmac;
use serde::Deserialize;
use serde_json::json;

use crate::node::api::{Answer, ApiFailure};
use crate::node::auth;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{Deed, NewKey, Profile, Role, Scope, StoreError};
use crate::runtime::{clock, dice};

/// What they are called.
const NAME: &str = "admin";
/// Bytes of a token.
const TOKEN_MAX: usize = 4_096;
/// Bytes of a key, at least (RFC 7518 §3.2).
const KEY_MIN: usize = 32;
/// Seconds a token may be valid from now on.
const AGE_MAX: u64 = 3_600;

/// What a token says of itself.
#[derive(Deserialize)]
struct Head {
    alg: String,
}

/// What it claims.
#[derive(Deserialize)]
struct Claims {
    exp: u64,
    aud: String,
    scope: String,
}

pub(super) async fn bootstrap(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    fields: HeaderMap,
) -> Answer {
    let none = || Failure::not_found("`auth.bootstrap_key_file` in this server's configuration");
    let file = parts.settings.auth.bootstrap_key_file.as_ref().ok_or_else(none)?;
    let text = tokio::fs::read_to_string(file).await?;
    let key = STANDARD.decode(text.trim()).ok().filter(|key| key.len() >= KEY_MIN);
    let key = key.ok_or_else(|| {
        tracing::error!(file = %file.display(), "the bootstrap key is not {KEY_MIN} bytes or more in base64");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The server's bootstrap key cannot be used; its log says why")
    })?;
    let token = fields.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Connect-Bootstrap "));
    if !token.is_some_and(|token| holds(token.trim(), &key, clock::unix().as_secs())) {
        return Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "This token was not signed with the bootstrap key, or is too old",
        )
        .into());
    }
    let over = || ApiFailure::from(Failure::forbidden("There are users already; an administrator makes more"));
    if !parts.store.users().await?.is_empty() {
        return Err(over());
    }
    let address = origin.address.map(|ip| ip.to_string());
    let deed = |action, detail| Deed { who: "bootstrap", address: address.as_deref(), action, subject: NAME, detail };
    let profile = Profile { username: NAME, email: "", first_name: "", last_name: "", role: Role::Administrator };
    let made = parts.store.create_user(&dice::guid(), profile, None, &deed("create_user", "administrator")).await;
    made.map_err(|error| match error {
        StoreError::Taken => over(),
        other => other.into(),
    })?;
    let user = parts.store.user(NAME).await?.ok_or_else(|| Failure::not_found("user"))?;
    let key = auth::new_key();
    let hash = auth::hash(key.expose());
    let new = NewKey {
        name: "bootstrap",
        user: Some(user.id),
        hash: &hash,
        scope: Scope::Admin,
        repository: None,
        expires_at: None,
    };
    parts.store.create_key(new, &deed("create_key", "admin *")).await?;
    tracing::info!(user = NAME, "the first administrator was made");
    Ok(Json(json!({ "api_key": key.expose() })))
}

/// Whether a token is one of this key, for this, and now.
fn holds(token: &str, key: &[u8], now: u64) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts[..] else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    let signed = &token[..head.len() + 1 + claims.len()];
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    if token.len() > TOKEN_MAX || hmac::verify(&key, signed.as_bytes(), &signature).is_err() {
        return false;
    }
    fn read<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
    let is_ours = read::<Head>(head).is_some_and(|head| head.alg == "HS256");
    let claims = read::<Claims>(claims).filter(|claims| claims.aud == "rsconnect" && claims.scope == "bootstrap");
    is_ours && claims.is_some_and(|claims| claims.exp > now && claims.exp <= now + AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn token(head: &str, claims: &str, key: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn only_the_keys_own_tokens_hold_and_not_for_long() {
        let (head, claims) =
            (r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"exp":1000,"aud":"rsconnect","scope":"bootstrap"}"#);
        let good = token(head, claims, KEY);
        assert!(holds(&good, KEY, 900));
        assert!(!holds(&good, KEY, 1000), "it is over");
        assert!(
            !holds(&token(head, r#"{"exp":9000,"aud":"rsconnect","scope":"bootstrap"}"#, KEY), KEY, 900),
            "for ever"
        );
        assert!(!holds(&good, b"another key, which is long enough", 900));
        assert!(!holds(&token(r#"{"alg":"none"}"#, claims, KEY), KEY, 900));
        assert!(!holds(&token(head, r#"{"exp":1000,"aud":"rsconnect","scope":"x"}"#, KEY), KEY, 900));
        for bad in ["", "a.b", "..", "a.b.c.d", &good[..good.len() - 4], &good.replace('.', "·")] {
            assert!(!holds(bad, KEY, 900), "{bad}");
        }
    }
}
