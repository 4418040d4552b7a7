//! What administrators do, as HTTP: `/__api__/v1/…`. The commands of this program speak it, from anywhere with an API key, or
//! on a node's own machine without (see [`crate::node::operator`]).

mod audit;
mod blocks;
mod jobs;
pub(super) mod keys;
pub(super) mod packages;
mod repos;
mod sources;
pub(super) mod stats;
pub(super) mod users;

use axum::Router;
use axum::routing::{delete, get, patch, post};

pub use self::users::{find as find_user, told as told_user};
use super::error::Failure;
use super::parts::Parts;

/// The routes below `/__api__/v1`.
pub fn router() -> Router<Parts> {
    Router::new()
        .route("/whoami", get(keys::whoami))
        .route("/repos", get(repos::list).post(repos::create))
        .route("/repos/{repo}", get(repos::show).patch(repos::change).delete(repos::remove))
        .route("/repos/{repo}/blocks", get(blocks::list).post(blocks::create))
        .route("/repos/{repo}/blocks/{package}", delete(blocks::remove))
        .route("/repos/{repo}/stats", get(stats::show))
        .route("/repos/{repo}/packages", get(packages::list))
        .route("/repos/{repo}/packages/{package}", patch(packages::status).get(packages::show).delete(packages::remove))
        .route("/repos/{repo}/packages/{package}/yank", post(packages::yank))
        .route("/repos/{repo}/packages/{package}/archive", post(packages::archive))
        .route("/sources", get(sources::list).post(sources::create))
        .route("/sources/{source}", patch(sources::change).delete(sources::remove))
        .route("/sources/{source}/sync", post(sources::sync))
        .route("/users", get(users::list).post(users::create))
        .route("/users/{user}", get(users::show).put(users::change).delete(users::remove))
        .route("/users/{user}/lock", post(users::lock))
        .route("/users/{user}/password", post(users::password))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/jobs", get(jobs::list).post(jobs::create))
        .route("/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/jobs/{id}/log", get(jobs::log))
        .route("/hold", get(jobs::hold).put(jobs::set_hold))
        .route("/audit", get(audit::list))
}

/// A name in URLs: of a repository, of a source.
fn check_name(name: &str, what: &str) -> Result<(), Failure> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) || name.starts_with(['.', '_']) {
        return Err(Failure::bad(format!(
            "`{name}` is no name of a {what}: letters, digits, `.`, `_` and `-`, up to 64, beginning with none of `.` and `_`"
        )));
    }
    Ok(())
}
