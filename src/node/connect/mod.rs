//! The API that publishing clients call: rsconnect-python, rsconnect for R, posit-sdk. Routes, names and answers are Posit
//! Connect's; what is behind them is ours.
//!
//! Everything a client may ask about is in the database, so that any node answers any request.

mod absent;
mod applications;
mod bootstrap;
pub(super) mod bundles;
mod caches;
pub(super) mod claim;
pub(super) mod content;
pub(super) mod deploy;
pub(super) mod groups;
mod jobs;
mod packages;
pub(super) mod permissions;
mod server;
mod tags;
pub(super) mod tasks;
mod tokens;
pub(super) mod vanity;
pub(super) mod variables;
pub(super) mod variants;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post};

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
        .route("/v1/content/{guid}/permissions", get(permissions::list).post(permissions::create))
        .route(
            "/v1/content/{guid}/permissions/{id}",
            get(permissions::show).put(permissions::change).delete(permissions::remove),
        )
        .route("/v1/content/{guid}/vanity", get(vanity::show).put(vanity::set).delete(vanity::remove))
        .route("/v1/vanities", get(vanity::list))
        .route("/v1/content/{guid}/packages", get(packages::of_content))
        .route("/v1/packages", get(packages::list))
        .route("/v1/content/{guid}/tags", get(tags::of_content).post(tags::add))
        .route("/v1/content/{guid}/tags/{id}", delete(tags::take))
        .route("/v1/tags", get(tags::list).post(tags::create))
        .route("/v1/tags/{id}", get(tags::show).patch(tags::rename).delete(tags::remove))
        .route("/v1/tags/{id}/content", get(tags::contents))
        .route("/v1/groups", get(groups::list).post(groups::create))
        .route("/v1/groups/{group}", get(groups::show).put(groups::rename).patch(groups::rename).delete(groups::remove))
        .route("/v1/groups/{group}/members", get(groups::members).post(groups::add))
        .route("/v1/groups/{group}/members/{user}", delete(groups::take))
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
        .route("/v1/content/{guid}/lockfile", get(bundles::lockfile))
        .route("/v1/system/caches/runtime", get(caches::list).delete(caches::remove))
        .route("/v1/environments", get(caches::environments).post(absent::environments))
        .route("/v1/environments/{guid}", get(caches::of_guid).put(absent::environments).delete(absent::environments))
        .route("/v1/environments/{guid}/permissions", get(absent::none).post(absent::environments))
        // What there is not.
        .route(
            "/v1/content/{guid}/repository",
            get(absent::no_repository).put(absent::git_of).patch(absent::git).delete(absent::no_repository),
        )
        .route("/v1/content/{guid}/repository/bundle", post(absent::git))
        .route("/v1/content/{guid}/oauth/integrations/associations", get(absent::none_of).put(absent::oauth))
        .route("/v1/oauth/integrations", get(absent::none).post(absent::oauth))
        .route("/v1/oauth/integrations/{guid}", get(absent::nothing).patch(absent::nothing).delete(absent::nothing))
        .route("/v1/oauth/integrations/credentials", post(absent::oauth))
        .route("/v1/oauth/templates", get(absent::none))
        .route("/v1/oauth/templates/{key}", get(absent::nothing))
        .route("/v1/oauth/sessions", get(absent::none))
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
        .route("/applications/{id}/terminate", post(applications::terminate))
        .route("/tasks/{id}", get(applications::task))
        .route("/tasks/{id}/kill", post(applications::kill))
        .route_layer(signed())
        // Whoever asks has nothing to sign with yet.
        .route("/v1/experimental/bootstrap", post(bootstrap::bootstrap))
        .route("/tokens", post(tokens::create).layer(DefaultBodyLimit::max(tokens::BYTES_MAX)));
    more.merge(uploads).fallback(absent::call)
}
