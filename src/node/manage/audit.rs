//! `/audit`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;

use crate::node::api::{Answer, Manager, Query, read, time};
use crate::node::parts::Parts;
use crate::node::store::Scope;

/// Which deeds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// At most so many.
    limit: Option<i64>,
    /// Those before this moment, microseconds since 1970: the `at` of the last one of a page is the next page's.
    before: Option<i64>,
}

/// Deeds of one answer.
const LIMIT: i64 = 1000;

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, asked: Query<Asked>) -> Answer {
    manager.may_everywhere(Scope::Admin)?;
    let asked = read(asked)?.0;
    let limit = asked.limit.unwrap_or(100).clamp(1, LIMIT);
    let deeds = parts.store.audit(asked.before.unwrap_or(i64::MAX), limit).await?;
    let told = deeds.into_iter().map(|deed| {
        json!({
            "at": deed.at,
            "time": time(deed.at),
            "who": deed.who,
            "action": deed.action,
            "subject": deed.subject,
            "detail": deed.detail,
            "address": deed.address,
        })
    });
    Ok(Json(told.collect()))
}
