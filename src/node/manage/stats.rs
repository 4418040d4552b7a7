//! `/repos/{repo}/stats`: downloads.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use crate::node::api::{Answer, Manager, Query, read};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::pypi;
use crate::node::stats::today;
use crate::node::store::{By, Language, Scope};
use crate::telemetry::Timestamp;

/// Which downloads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Of this package only.
    package: Option<String>,
    /// Of the last so many days, today with them.
    days: Option<i64>,
    /// `day`, `package`, `version`, `client`.
    by: Option<String>,
    /// At most so many rows.
    limit: Option<i64>,
}

/// Rows of one answer.
const LIMIT: i64 = 10_000;

pub(super) async fn show(
    State(parts): State<Parts>,
    manager: Manager,
    Path(repo): Path<String>,
    asked: Query<Asked>,
) -> Answer {
    manager.may(Scope::Read, &repo)?;
    let Asked { package, days, by, limit } = read(asked)?.0;
    parts.catalog.refresh().await?;
    let repository = parts.catalog.find(&repo)?;
    let by = by.as_deref().unwrap_or("package");
    let wrong = || Failure::bad(format!("`{by}` is nothing to count by: `day`, `package`, `version` or `client`"));
    let parsed = By::parse(by).ok_or_else(wrong)?;
    let package = package.map(|package| match repository.language {
        Language::Python => pypi::name::normal(&package),
        Language::R => package,
    });
    let since = today() - days.unwrap_or(30).clamp(1, 100_000) + 1;
    let limit = limit.unwrap_or(100).clamp(1, LIMIT);
    let rows = parts.store.downloads(repository.id, package.as_deref(), since, parsed, limit).await?;
    let told = rows.into_iter().map(|(what, count)| match parsed {
        By::Day => json!({ "day": date(&what), "downloads": count }),
        _ => json!({ by: what, "downloads": count }),
    });
    Ok(Json(told.collect()))
}

/// Days since 1970 as `2026-11-21`.
fn date(days: &str) -> String {
    let seconds = days.parse::<u64>().unwrap_or(0) * 24 * 3600;
    Timestamp::from_unix(Duration::from_secs(seconds)).to_string().chars().take(10).collect()
}
