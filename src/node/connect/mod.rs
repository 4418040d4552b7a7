//! The API that publishing clients call: rsconnect-python, rsconnect for R, posit-sdk. Routes, names and answers are Posit
//! Connect's; what is behind them is ours.
//!
//! Everything a client may ask about is in the database, so that any node answers any request.

mod applications;
mod bundles;
pub(super) mod claim;
mod content;
mod deploy;
mod jobs;
mod server;
mod tasks;
mod tokens;
mod variables;
mod variants;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};

use super::parts::Parts;
use super::{rest, signature};

/// The routes below `/__api__`.
pub fn router(parts: &Parts) -> Router<Parts> {
    let signed = || middleware::from_fn_with_state(parts.clone(), signature::check);
    // What bounds a body is in the handler, piece by piece.
    let uploads = Router::new()
        .route("/v1/content/{guid}/bundles", get(bundles::list).post(bundles::create))
        .route("/applications/{id}/upload", post(applications::upload))
        .layer(DefaultBodyLimit::disable())
        .route_layer(signed())
        .layer(middleware::from_fn(rest::hear_out));
    let more = Router::new()
        .route("/server_settings", get(server::settings))
        .route("/v1/server_settings/python", get(server::python))
        .route("/v1/server_settings/r", get(server::r))
        .route("/v1/server_settings/quarto", get(server::quarto))
        .route("/v1/server_settings/nodejs", get(server::nodejs))
        .route("/v1/user", get(server::user))
        .route("/v1/content", get(content::list).post(content::create))
        .route("/v1/content/{guid}", get(content::show).patch(content::change).delete(content::remove))
        .route("/v1/content/{guid}/environment", get(variables::list).patch(variables::merge).put(variables::replace))
        .route("/v1/content/{guid}/bundles/{id}", get(bundles::show).delete(bundles::remove))
        .route("/v1/content/{guid}/bundles/{id}/download", get(bundles::download))
        .route("/v1/content/{guid}/deploy", post(deploy::deploy))
        .route("/v1/content/{guid}/build", post(deploy::build))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/v1/content/{guid}/jobs", get(jobs::list))
        .route("/v1/content/{guid}/jobs/{key}", get(jobs::show).delete(jobs::end))
        .route("/v1/content/{guid}/jobs/{key}/log", get(jobs::log))
        .route("/v1/content/{guid}/render", post(variants::render))
        .route("/v1/content/{guid}/renderings", get(variants::renderings))
        .route(
            "/v1/content/{guid}/schedule",
            get(variants::schedule).put(variants::set_schedule).delete(variants::remove_schedule),
        )
        .route("/v1/timezones", get(variants::zones))
        // From before `/v1`.
        .route("/applications/{id}/variants", get(variants::list))
        .route("/variants/{id}", get(variants::show))
        .route("/variants/{id}/render", post(variants::render))
        .route("/variants/{id}/renderings", get(variants::renderings))
        .route("/variants/{id}/schedules", get(variants::schedules))
        .route("/schedules", post(variants::create))
        .route("/schedules/{id}", get(variants::find).post(variants::change).delete(variants::remove))
        .route("/users/current", get(server::user))
        .route("/applications", get(applications::list).post(applications::create))
        .route("/applications/{id}", get(applications::show))
        .route("/applications/{id}/config", get(applications::config))
        .route("/applications/{id}/deploy", post(applications::deploy))
        .route("/tasks/{id}", get(applications::task))
        .route_layer(signed())
        // Whoever asks has nothing to sign with yet.
        .route("/tokens", post(tokens::create).layer(DefaultBodyLimit::max(tokens::BYTES_MAX)));
    more.merge(uploads)
}
