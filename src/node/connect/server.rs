//! What the server is, and who the caller is.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::node::api::{Answer, Manager};
use crate::node::content::access;
use crate::node::manage::{find_user, told_user};
use crate::node::parts::Parts;
use crate::node::store::Scope;
use crate::runtime::machine;

/// The version of Posit Connect whose API this is: clients choose what they do by it.
pub(super) const VERSION: &str = "2026.04.0";

pub(super) async fn settings() -> Json<Value> {
    Json(json!({
        "version": VERSION,
        "build": env!("CARGO_PKG_VERSION"),
        "about": concat!("Bowline ", env!("CARGO_PKG_VERSION")),
        "hostname": machine::name(),
        "authentication": {
            "handles_credentials": true,
            "handles_login": true,
            "challenge_response_enabled": false,
            "external_user_data": false,
            "external_user_search": false,
            "external_group_search": false,
            "name": "password",
        },
        "license": { "allow-apis": true, "users": 0, "tier": "", "current-user-execution": false },
        "runtimes": ["R", "Python"],
        "default_content_list_view": "compact",
        "git_enabled": false,
        "git_available": false,
    }))
}

pub(super) async fn python(State(parts): State<Parts>, _: Manager) -> Answer {
    let installations = parts.contents.interpreters.python().await;
    let told: Vec<Value> = installations.iter().map(|found| installation(&found.version)).collect();
    Ok(Json(json!({ "installations": told, "api_enabled": true })))
}

pub(super) async fn r(State(parts): State<Parts>, _: Manager) -> Answer {
    let installations = parts.contents.interpreters.r().await;
    let told: Vec<Value> = installations.iter().map(|found| installation(&found.version)).collect();
    Ok(Json(json!({ "installations": told })))
}

pub(super) async fn quarto(_: Manager) -> Answer {
    Ok(Json(json!({ "installations": [] })))
}

pub(super) async fn nodejs(State(parts): State<Parts>, _: Manager) -> Answer {
    let installations = parts.contents.interpreters.nodejs().await;
    let told: Vec<Value> = installations.iter().map(|found| installation(&found.version)).collect();
    Ok(Json(json!({ "installations": told })))
}

pub(super) fn installation(version: &str) -> Value {
    json!({ "version": version, "cluster_name": "Local", "image_name": "Local" })
}

/// `GET /v1/user`, and `/users/current` from before, which has a number too.
pub(super) async fn user(State(parts): State<Parts>, manager: Manager) -> Answer {
    let (number, told) = match manager.caller.user() {
        Some(own) => {
            let user = find_user(&parts, &own.guid).await?;
            (user.number, told_user(&user))
        }
        // A program's key, as if it were a user of its name; number 0 is nobody's.
        None => {
            let is_admin = manager.may_everywhere(Scope::Admin).is_ok();
            let told = json!({
                "guid": access::owner(&manager.caller),
                "username": manager.caller.name(),
                "email": "",
                "first_name": "",
                "last_name": "",
                "user_role": if is_admin { "administrator" } else { "publisher" },
                "confirmed": true,
                "locked": false,
            });
            (0, told)
        }
    };
    let mut told = told;
    told["id"] = number.into();
    Ok(Json(told))
}
