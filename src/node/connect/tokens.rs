//! `/tokens`: an R client makes a key for itself and is told where its user claims it.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::node::api::{Answer, Body, read};
use crate::node::auth::place;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::signature::{is_token, public_key};
use crate::node::store::StoreError;

/// Bytes of a request.
pub(super) const BYTES_MAX: usize = 8 << 10;

/// A token that is to be.
#[derive(Deserialize)]
pub(super) struct Wish {
    token: String,
    public_key: String,
}

pub(super) async fn create(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    fields: HeaderMap,
    body: Body<Wish>,
) -> Answer {
    let Json(Wish { token, public_key: written }) = read(body)?;
    if !is_token(&token) {
        return Err(Failure::bad("A token is `T` and up to 32 hexadecimal digits").into());
    }
    let key = public_key(&written).ok_or_else(|| Failure::bad("A token needs an RSA key of 2048 to 8192 bits"))?;
    let address = place(origin.address).map(|address| address.to_string());
    // Whose token it is never changes: one that is there is not made again.
    let made = parts.store.create_token(&token, &key, address.as_deref()).await.map_err(|error| match error {
        StoreError::Taken => Failure::new(StatusCode::CONFLICT, "There is such a token already"),
        other => other.into(),
    })?;
    if !made {
        let why = "Too many tokens were made from your address; wait a minute";
        return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, why).into());
    }
    let base = parts.base(&fields, origin);
    Ok(Json(json!({ "token": token, "token_claim_url": format!("{base}/connect/claim/{token}") })))
}
