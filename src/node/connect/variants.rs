//! `/variants`, `/schedules`: when reports are rendered, and what came of it. Content has one variant here, the default one,
//! whose number is the content's.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::applications::visible;
use super::content::{changeable, unlocked};
use crate::node::api::{Answer, ApiFailure, Body, Manager, read, time};
use crate::node::content::mode::{Mode, Way};
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::report::due::plan;
use crate::node::report::plan::{Every, Plan};
use crate::node::report::run::{RENDER, Wanted};
use crate::node::store::{ContentRow, NewJob, NewSchedule, RenderingRow, ScheduleRow};
use crate::runtime::{clock, dice};

const NOT_RENDERED: &str = "This content is not rendered: only documents are, once they are deployed";
/// Renderings that are told.
const RENDERINGS_MAX: i64 = 1_000;

pub(super) async fn list(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = visible(&parts, &manager, &id).await?;
    if !is_rendered(&content) {
        return Ok(Json(json!([])));
    }
    Ok(Json(json!([tell(&parts, &content).await?])))
}

pub(super) async fn show(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = rendered(visible(&parts, &manager, &id).await?)?;
    Ok(Json(tell(&parts, &content).await?))
}

pub(super) async fn render(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = changeable(&manager, visible(&parts, &manager, &id).await?)?;
    let task = begin(&parts, &manager, &content).await?;
    Ok(Json(json!({
        "id": task, "task_id": task, "user_id": 0, "status": [], "output": [], "result": null, "finished": false,
        "code": 0, "error": "", "last_status": 0, "last": 0,
    })))
}

/// Lets a node render content; the task's id.
///
/// # Errors
/// 400: it is not rendered; 503.
pub(in crate::node) async fn begin(parts: &Parts, manager: &Manager, content: &ContentRow) -> Result<String, Failure> {
    unlocked(content)?;
    if !is_rendered(content) {
        return Err(Failure::bad(NOT_RENDERED));
    }
    let wanted =
        Wanted { guid: content.guid.clone(), shows: true, mails: false, who: manager.caller.name().to_owned() };
    let input = serde_json::to_string(&wanted).unwrap_or_default();
    let slot = format!("{RENDER}/{:032x}", dice::unique());
    let job = NewJob { kind: RENDER, subject: &content.guid, input: &input, slot: &slot };
    let task = parts.store.enqueue(job, Some(&manager.deed("render", &content.name, &content.guid))).await?;
    parts.job_added.notify_one();
    let task = task.ok_or_else(|| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment"))?;
    Ok(task.to_string())
}

pub(super) async fn renderings(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = visible(&parts, &manager, &id).await?;
    let all = parts.store.renderings(content.id, None, RENDERINGS_MAX).await?;
    let tell = |row: &RenderingRow| {
        json!({
            "id": row.number,
            "app_id": content.number,
            "variant_id": content.number,
            "bundle_id": row.bundle,
            "render_time": time(row.created_at),
            "render_duration": row.took.saturating_mul(1_000),
            "active": content.rendering == Some(row.number),
            "url": format!("/content/{}/_rev{}/", content.guid, row.number),
        })
    };
    Ok(Json(all.iter().map(tell).collect()))
}

pub(super) async fn schedules(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = visible(&parts, &manager, &id).await?;
    let row = parts.store.schedule_of(content.id).await?;
    Ok(Json(row.iter().map(|row| told(&content, row)).collect()))
}

/// The schedule of content; null: it has none.
pub(super) async fn schedule(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let content = visible(&parts, &manager, &id).await?;
    let row = parts.store.schedule_of(content.id).await?;
    Ok(Json(row.map_or(Value::Null, |row| told(&content, &row))))
}

pub(in crate::node) async fn set_schedule(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    body: Body<Wish>,
) -> Answer {
    let content = rendered(changeable(&manager, visible(&parts, &manager, &id).await?)?)?;
    set(&parts, &manager, &content, read(body)?.0, None).await
}

pub(in crate::node) async fn remove_schedule(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiFailure> {
    let content = changeable(&manager, visible(&parts, &manager, &id).await?)?;
    parts.store.remove_schedule(content.id, &manager.deed("remove_schedule", &content.name, &content.guid)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A schedule as clients write it.
#[derive(Debug, Deserialize)]
pub(in crate::node) struct Wish {
    app_id: Option<i64>,
    variant_id: Option<i64>,
    r#type: Option<String>,
    schedule: Option<String>,
    start_time: Option<String>,
    timezone: Option<String>,
    activate: Option<bool>,
    email: Option<bool>,
}

pub(super) async fn create(State(parts): State<Parts>, manager: Manager, body: Body<Wish>) -> Answer {
    let Json(wish) = read(body)?;
    let id = wish.variant_id.or(wish.app_id).ok_or_else(|| Failure::bad("A schedule is of a `variant_id`"))?;
    let content = rendered(changeable(&manager, visible(&parts, &manager, &id.to_string()).await?)?)?;
    set(&parts, &manager, &content, wish, None).await
}

pub(super) async fn find(State(parts): State<Parts>, manager: Manager, Path(id): Path<String>) -> Answer {
    let (content, row) = of(&parts, &manager, &id).await?;
    Ok(Json(told(&content, &row)))
}

pub(super) async fn change(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
    body: Body<Wish>,
) -> Answer {
    let (content, row) = of(&parts, &manager, &id).await?;
    let content = changeable(&manager, content)?;
    let Json(wish) = read(body)?;
    set(&parts, &manager, &content, wish, Some(row)).await
}

pub(super) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiFailure> {
    let (content, _) = of(&parts, &manager, &id).await?;
    let content = changeable(&manager, content)?;
    parts.store.remove_schedule(content.id, &manager.deed("remove_schedule", &content.name, &content.guid)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Time zones there are, and how far from UTC their clocks are now.
pub(super) async fn zones() -> Json<Value> {
    let now = Timestamp::from_second(i64::try_from(clock::unix().as_secs()).unwrap_or(0)).unwrap_or_default();
    let offset = |name: &str| Some(now.to_zoned(Plan::zone(name).ok()?).strftime("%:z").to_string());
    let all = jiff::tz::db().available();
    Json(all.filter_map(|name| Some(json!({ "timezone": name.as_str(), "offset": offset(name.as_str())? }))).collect())
}

/// Sets the schedule; what is not said stays as it was.
pub(in crate::node) async fn set(
    parts: &Parts,
    manager: &Manager,
    content: &ContentRow,
    wish: Wish,
    old: Option<ScheduleRow>,
) -> Answer {
    if !is_rendered(content) {
        return Err(Failure::bad(NOT_RENDERED).into());
    }
    let now = i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX);
    let was = old.as_ref();
    let kind = wish.r#type.or_else(|| was.map(|old| old.kind.clone()));
    let kind = kind.ok_or_else(|| Failure::bad("A schedule has a `type`, such as `day`"))?;
    let text = wish.schedule.or_else(|| was.filter(|old| old.kind == kind).map(|old| old.plan.clone()));
    let every = Every::read(&kind, text.as_deref().unwrap_or_default()).map_err(Failure::bad)?;
    let zone = wish.timezone.or_else(|| was.map(|old| old.zone.clone())).unwrap_or_default();
    let starts_at = match &wish.start_time {
        Some(text) => start(text)?,
        None => was.map_or(now, |old| old.starts_at),
    };
    let plan = Plan {
        start: Timestamp::from_microsecond(starts_at).map_err(|e| Failure::bad(e.to_string()))?,
        zone: Plan::zone(&zone).map_err(Failure::bad)?,
        every,
    };
    let next = Timestamp::from_microsecond(now).ok().and_then(|now| plan.next(now));
    let written = plan.every.written();
    let new = NewSchedule {
        content_id: content.id,
        kind: plan.every.kind(),
        plan: &written,
        starts_at,
        zone: if zone.is_empty() { "UTC" } else { &zone },
        activates: wish.activate.or_else(|| was.map(|old| old.activates)).unwrap_or(true),
        mails: wish.email.or_else(|| was.map(|old| old.mails)).unwrap_or(false),
        next_at: next.map(Timestamp::as_microsecond),
    };
    let detail = format!("{} in {}", plan.every.told(), new.zone);
    parts.store.set_schedule(new, &manager.deed("set_schedule", &content.name, &detail)).await?;
    let row = parts.store.schedule_of(content.id).await?.ok_or_else(|| Failure::not_found("schedule"))?;
    Ok(Json(told(content, &row)))
}

/// RFC 3339, microseconds since 1970. R writes the offset without its colon.
fn start(text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::bad(format!("`{text}` is no time: such as `2026-11-21T09:00:00Z`"));
    let parsed = text.parse::<Timestamp>().or_else(|_| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text));
    parsed.map(Timestamp::as_microsecond).map_err(|_| wrong())
}

/// A time on the clock on the wall, as browsers write it, as RFC 3339.
///
/// # Errors
/// 400.
pub(in crate::node) fn local(text: &str, zone: &str) -> Result<String, Failure> {
    let wrong = || Failure::bad(format!("`{text}` is no time: such as `2026-11-21T09:00`"));
    let at: jiff::civil::DateTime = text.parse().map_err(|_| wrong())?;
    let at = at.to_zoned(Plan::zone(zone).map_err(Failure::bad)?).map_err(|_| wrong())?;
    Ok(at.timestamp().to_string())
}

/// The schedule of this number, and whose it is.
async fn of(parts: &Parts, manager: &Manager, id: &str) -> Result<(ContentRow, ScheduleRow), Failure> {
    let missing = || Failure::not_found(format_args!("schedule `{id}`"));
    let number = id.parse::<i64>().map_err(|_| missing())?;
    let row = parts.store.schedule(number).await?.ok_or_else(missing)?;
    Ok((visible(parts, manager, &row.guid).await?, row))
}

pub(in crate::node) fn is_rendered(content: &ContentRow) -> bool {
    content.app_mode.as_deref().and_then(Mode::parse).is_some_and(|mode| mode.way() == Way::Rendering)
}

fn rendered(content: ContentRow) -> Result<ContentRow, Failure> {
    if is_rendered(&content) {
        return Ok(content);
    }
    Err(Failure::bad(NOT_RENDERED))
}

async fn tell(parts: &Parts, content: &ContentRow) -> Result<Value, Failure> {
    let shown = match content.rendering {
        Some(number) => parts.store.rendering(number).await?,
        None => None,
    };
    Ok(json!({
        "id": content.number,
        "app_id": content.number,
        "key": "default",
        "bundle_id": content.bundle,
        "is_default": true,
        "name": "default",
        "email_collaborators": false,
        "email_viewers": false,
        "email_all": false,
        "created_time": time(content.created_at),
        "rendering_id": content.rendering,
        "render_time": shown.as_ref().map(|shown| time(shown.created_at)),
        "render_duration": shown.as_ref().map(|shown| shown.took.saturating_mul(1_000)),
        "visibility": "public",
        "owner_id": 0,
    }))
}

fn told(content: &ContentRow, row: &ScheduleRow) -> Value {
    json!({
        "id": row.number,
        "app_id": content.number,
        "app_guid": content.guid,
        "variant_id": content.number,
        "type": row.kind,
        "schedule": row.plan,
        "description": plan(row).map(|plan| plan.every.told()).unwrap_or_default(),
        "start_time": time(row.starts_at),
        "timezone": row.zone,
        "next_run": row.next_at.map(time),
        "activate": row.activates,
        "email": row.mails,
    })
}
