//! The two repositories of the demo, a user for the pages and a key of theirs, made as `bowline repo create` and `bowline key create` make them:
//! by the node's own handlers, on the database its configuration names.

use std::path::Path;

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::config::node;
use crate::node::operator::{Operator, Outgoing};
use crate::node::store::Migrate;
use crate::telemetry::Causes;

/// What the nodes cannot be given.
#[derive(Debug, thiserror::Error)]
#[error("the repositories cannot be made: {0}")]
pub(super) struct PrepareError(String);

/// Of a Python repository, and of an R repository.
pub(super) const NAMES: [&str; 2] = ["pypi", "cran"];
/// What the demo's key is called.
const KEY_NAME: &str = "demo";
/// What its user is called.
pub(super) const USER: &str = "demo";
/// Bytes of an answer.
const ANSWER_MAX: usize = 1 << 20;

/// What opens a demo's nodes.
#[derive(Debug)]
pub(super) struct Opened {
    /// A key of [`USER`]'s, who may do everything.
    pub(super) key: String,
    /// By which they log in to the pages.
    pub(super) password: String,
}

/// Makes what is missing in the database that `config`, a node's configuration, names; key and password are new ones.
/// Those of an earlier demo end.
///
/// # Errors
/// With the words of whoever refuses.
pub(super) async fn prepare(config: &Path) -> Result<Opened, PrepareError> {
    let settings = node::load(config).map_err(|report| PrepareError(report.to_string()))?;
    // The folder may be from a demo of an older version.
    let store = crate::node::open_store(&settings, Migrate::Always).await.map_err(|e| failed(&e))?;
    store.close().await;
    let operator = Operator::open(settings).await.map_err(|e| failed(&e))?;
    let made = make(&operator).await;
    operator.close().await;
    made
}

async fn make(operator: &Operator) -> Result<Opened, PrepareError> {
    let there = call(operator, Method::GET, "/repos", Value::Null).await?;
    for name in NAMES {
        if !list(&there).any(|repository| repository["name"] == name) {
            call(operator, Method::POST, "/repos", json!({ "name": name, "type": name })).await?;
        }
    }
    let keys = call(operator, Method::GET, "/keys", Value::Null).await?;
    for key in list(&keys).filter(|key| key["name"] == KEY_NAME) {
        let id = key["id"].as_str().unwrap_or_default();
        call(operator, Method::DELETE, &format!("/keys/{id}"), Value::Null).await?;
    }
    let password = user(operator).await?;
    let wish = json!({ "name": KEY_NAME, "user": USER, "scope": "admin" });
    let made = call(operator, Method::POST, "/keys", wish).await?;
    let key = made["key"].as_str().ok_or_else(|| PrepareError("no key was made".to_owned()))?;
    Ok(Opened { key: key.to_owned(), password })
}

/// Their password.
async fn user(operator: &Operator) -> Result<String, PrepareError> {
    let password: String = super::random::<6>().iter().map(|byte| format!("{byte:02x}")).collect();
    let users = call(operator, Method::GET, &format!("/users?prefix={USER}&page_size=500"), Value::Null).await?;
    if list(&users["results"]).any(|user| user["username"] == USER) {
        let wish = json!({ "password": password });
        call(operator, Method::POST, &format!("/users/{USER}/password"), wish).await?;
    } else {
        let wish = json!({ "username": USER, "user_role": "administrator", "password": password });
        call(operator, Method::POST, "/users", wish).await?;
    }
    Ok(password)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

async fn call(operator: &Operator, method: Method, path: &str, body: Value) -> Result<Value, PrepareError> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder()
        .method(method)
        .uri(format!("/__api__/v1{path}"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Outgoing::Whole(text.into()))
        .map_err(|e| failed(&e))?;
    let (status, answer) = operator.call(request, ANSWER_MAX).await.map_err(|e| failed(&e))?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    match status {
        StatusCode::OK | StatusCode::CREATED => Ok(answer),
        _ => Err(PrepareError(answer["error"].as_str().unwrap_or(status.as_str()).to_owned())),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> PrepareError {
    PrepareError(Causes(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_stays_and_key_and_password_are_new_ones() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        crate::node::secret::ClusterKey::generate(&folder.path().join("node.key")).unwrap();
        let config = folder.path().join("node.toml");
        let text =
            "role = \"node\"\nkey_file = \"node.key\"\n[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n";
        std::fs::write(&config, text).unwrap();
        let first = prepare(&config).await.unwrap();
        let second = prepare(&config).await.unwrap();
        assert!(second.key != first.key && second.password != first.password);
        let operator = Operator::open(node::load(&config).unwrap()).await.unwrap();
        let repositories = call(&operator, Method::GET, "/repos", Value::Null).await.unwrap();
        assert_eq!(list(&repositories).count(), 2);
        let keys = call(&operator, Method::GET, "/keys", Value::Null).await.unwrap();
        assert_eq!(list(&keys).count(), 1, "the one of the first time ended");
        assert_eq!(list(&keys).next().unwrap()["user"], USER);
    }

    #[tokio::test]
    async fn a_configuration_that_does_not_hold_is_told_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("node.toml");
        std::fs::write(&config, "role = \"node\"\n").unwrap();
        assert!(prepare(&config).await.unwrap_err().to_string().contains("key_file"));
    }
}
