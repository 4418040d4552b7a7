//! `/v1/content/{guid}/environment`: names are told, values never.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::content::{own, unlocked};
use crate::node::api::{Answer, Body, Manager, read};
use crate::node::content::variable;
use crate::node::error::Failure;
use crate::node::parts::Parts;

/// Variables of one content, and bytes of all their values.
const COUNT_MAX: usize = 1_000;
const BYTES_MAX: usize = 1 << 20;

/// A variable; without a value it goes.
#[derive(Deserialize)]
pub(in crate::node) struct Variable {
    name: String,
    value: Option<String>,
}

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, Path(guid): Path<String>) -> Answer {
    let content = own(&parts, &manager, &guid).await?;
    let all = parts.store.variables(content.id).await?;
    Ok(Json(all.into_iter().map(|(name, _)| json!(name)).collect()))
}

pub(in crate::node) async fn merge(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Vec<Variable>>,
) -> Answer {
    set(&parts, &manager, &guid, read(body)?.0, false).await
}

pub(super) async fn replace(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
    body: Body<Vec<Variable>>,
) -> Answer {
    set(&parts, &manager, &guid, read(body)?.0, true).await
}

async fn set(parts: &Parts, manager: &Manager, guid: &str, wanted: Vec<Variable>, all: bool) -> Answer {
    let content = own(parts, manager, guid).await?;
    unlocked(&content)?;
    if wanted.len() > COUNT_MAX
        || wanted.iter().filter_map(|v| v.value.as_ref()).map(String::len).sum::<usize>() > BYTES_MAX
    {
        return Err(Failure::bad(format!("Content has up to {COUNT_MAX} variables of {BYTES_MAX} bytes in all")).into());
    }
    let mut sealed = Vec::new();
    for Variable { name, value } in wanted {
        variable::check(&name, value.as_deref()).map_err(Failure::bad)?;
        let value = value.map(|value| variable::seal(&parts.key, &content.guid, &name, &value));
        sealed.push((name, value));
    }
    let names: Vec<&str> = sealed.iter().map(|(name, _)| name.as_str()).collect();
    let detail = names.join(", ");
    let deed = manager.deed("set_variables", &content.name, &detail);
    parts.store.set_variables(content.id, &sealed, all, &deed).await?;
    parts.contents.forget(guid);
    let now = parts.store.variables(content.id).await?;
    Ok(Json(now.into_iter().map(|(name, _)| json!(name)).collect()))
}
