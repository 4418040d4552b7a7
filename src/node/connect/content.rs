//! `/v1/content`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, response::IntoResponse};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::node::Network;
use crate::node::api::{Answer, ApiFailure, Body, Manager, Query, read, time};
use crate::node::content::access;
use crate::node::content::manifest::Manifest;
use crate::node::content::settings::Settings;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::store::{About, BundleRow, ContentRow, Scope, StoreError, User};
use crate::runtime::dice;

/// Characters of a name, and of a title.
const NAME_MAX: usize = 64;
const TITLE_MAX: usize = 1_000;
/// Characters of a description.
const DESCRIPTION_MAX: usize = 4_096;

/// Which content.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    name: Option<String>,
    owner_guid: Option<String>,
    /// What else is told: `owner`, `tags`, `vanity_url`, with commas between.
    include: Option<String>,
}

/// What else is told of one content.
#[derive(Debug, Deserialize)]
pub(super) struct More {
    include: Option<String>,
}

/// What else is told, read once for all of it.
#[derive(Default)]
struct Extras {
    /// By guid.
    owners: Option<HashMap<String, Value>>,
    /// By row of content.
    tags: Option<HashMap<i64, Vec<Value>>>,
}

impl Extras {
    /// Of all content; `of`: of this one.
    ///
    /// # Errors
    /// 400, 503.
    async fn read(parts: &Parts, include: Option<&str>, of: Option<&ContentRow>) -> Result<Self, Failure> {
        let mut extras = Self::default();
        for one in include.unwrap_or_default().split(',') {
            match one.trim() {
                "tags" => extras.tags = Some(super::tags::by_content(parts, of.map(|content| content.id)).await?),
                "owner" => {
                    let users = match of {
                        Some(content) => parts.store.user(&content.owner).await?.into_iter().collect(),
                        None => parts.store.users().await?,
                    };
                    let told = |user: &User| {
                        json!({
                            "guid": user.guid,
                            "username": user.username,
                            "first_name": user.first_name,
                            "last_name": user.last_name,
                        })
                    };
                    extras.owners = Some(users.iter().map(|user| (user.guid.clone(), told(user))).collect());
                }
                // It is told anyway.
                "vanity_url" | "" => {}
                other => {
                    return Err(Failure::bad(format!(
                        "`{other}` is nothing to include: `owner`, `tags`, `vanity_url`"
                    )));
                }
            }
        }
        Ok(extras)
    }

    fn add(&self, content: &ContentRow, told: &mut Value) {
        if let Some(owners) = &self.owners {
            told["owner"] = owners.get(&content.owner).cloned().unwrap_or_default();
        }
        if let Some(tags) = &self.tags {
            told["tags"] = tags.get(&content.id).cloned().unwrap_or_default().into();
        }
    }
}

pub(super) async fn list(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    query: Query<Wanted>,
) -> Answer {
    let axum::extract::Query(Wanted { name, owner_guid, include }) = read(query)?;
    // Names are an owner's own, so who asks by name means theirs.
    let owner = owner_guid.or_else(|| name.is_some().then(|| access::owner(&manager.caller)));
    let mut all = parts.store.contents(owner.as_deref(), name.as_deref()).await?;
    all.retain(|content| access::may_see(manager.viewer(), content));
    let extras = Extras::read(&parts, include.as_deref(), None).await?;
    let mut told = tell_all(&parts, &parts.base(&fields, origin), &manager, &all).await?;
    for (content, one) in all.iter().zip(&mut told) {
        extras.add(content, one);
    }
    Ok(Json(told.into()))
}

/// What content is to be; absent: as it is, or as the node is configured.
#[derive(Debug, Default, Deserialize)]
pub(in crate::node) struct Wish {
    name: Option<String>,
    title: Option<String>,
    description: Option<String>,
    access_type: Option<String>,
    locked: Option<bool>,
    #[serde(flatten)]
    settings: Told,
}

/// Settings that are said: absent is not null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    #[serde(deserialize_with = "said")]
    init_timeout: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    idle_timeout: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    connection_timeout: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    read_timeout: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    min_processes: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    max_processes: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    max_conns_per_process: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    load_factor: Option<Option<f64>>,
    #[serde(deserialize_with = "said")]
    network_access: Option<Option<Network>>,
    #[serde(deserialize_with = "said")]
    memory_limit: Option<Option<u64>>,
    #[serde(deserialize_with = "said")]
    cpu_limit: Option<Option<f64>>,
    #[serde(deserialize_with = "said")]
    run_as: Option<Option<String>>,
    #[serde(deserialize_with = "said")]
    locked_message: Option<Option<String>>,
    #[serde(deserialize_with = "said")]
    default_r_environment_management: Option<Option<bool>>,
}

fn said<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

impl Told {
    fn over(self, old: &Settings) -> Settings {
        Settings {
            init_timeout: self.init_timeout.unwrap_or(old.init_timeout),
            idle_timeout: self.idle_timeout.unwrap_or(old.idle_timeout),
            connection_timeout: self.connection_timeout.unwrap_or(old.connection_timeout),
            read_timeout: self.read_timeout.unwrap_or(old.read_timeout),
            min_processes: self.min_processes.unwrap_or(old.min_processes),
            max_processes: self.max_processes.unwrap_or(old.max_processes),
            max_conns_per_process: self.max_conns_per_process.unwrap_or(old.max_conns_per_process),
            load_factor: self.load_factor.unwrap_or(old.load_factor),
            network_access: self.network_access.unwrap_or(old.network_access),
            memory_limit: self.memory_limit.unwrap_or(old.memory_limit),
            cpu_limit: self.cpu_limit.unwrap_or(old.cpu_limit),
            run_as: match self.run_as {
                Some(told) => told.filter(|name| !name.is_empty()),
                None => old.run_as.clone(),
            },
            locked_message: self.locked_message.map_or_else(|| old.locked_message.clone(), Option::unwrap_or_default),
            default_r_environment_management: self
                .default_r_environment_management
                .unwrap_or(old.default_r_environment_management),
        }
    }
}

pub(super) async fn create(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    body: Body<Wish>,
) -> Answer {
    let Json(wish) = read(body)?;
    let content = make(&parts, &manager, wish).await?;
    Ok(Json(tell(&parts, &parts.base(&fields, origin), &manager, &content).await?))
}

/// Makes content.
///
/// # Errors
/// 400, 403, 409.
pub(super) async fn make(parts: &Parts, manager: &Manager, wish: Wish) -> Result<ContentRow, Failure> {
    manager.may_everywhere(Scope::Publish)?;
    let name = wish.name.ok_or_else(|| Failure::bad("Content needs a `name`"))?;
    let settings = wish.settings.over(&Settings::default());
    settings.check(&Settings::default(), &parts.settings.content).map_err(Failure::bad)?;
    may_choose_account(manager, &settings, None)?;
    let written = serde_json::to_string(&settings).unwrap_or_default();
    let about = About {
        name: &name,
        title: wish.title.as_deref().unwrap_or_default(),
        description: wish.description.as_deref().unwrap_or_default(),
        access: wish.access_type.as_deref().unwrap_or("acl"),
        settings: &written,
        is_locked: wish.locked.unwrap_or(false),
    };
    check(&about)?;
    let (guid, owner) = (dice::guid(), access::owner(&manager.caller));
    let made = parts.store.create_content(&guid, &owner, about, &manager.deed("create_content", &name, &guid)).await;
    made.map_err(|error| taken(error, &name))?;
    parts.store.content(&guid).await?.ok_or_else(|| missing(&guid))
}

pub(super) async fn show(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    Path(guid): Path<String>,
    query: Query<More>,
) -> Answer {
    let content = visible(&parts, &manager, &guid).await?;
    let extras = Extras::read(&parts, read(query)?.0.include.as_deref(), Some(&content)).await?;
    let mut told = tell(&parts, &parts.base(&fields, origin), &manager, &content).await?;
    extras.add(&content, &mut told);
    Ok(Json(told))
}

pub(in crate::node) async fn change(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    manager: Manager,
    fields: HeaderMap,
    Path(guid): Path<String>,
    body: Body<Wish>,
) -> Answer {
    let Json(wish) = read(body)?;
    let content = own(&parts, &manager, &guid).await?;
    let old = Settings::read(&content.settings);
    let settings = wish.settings.over(&old);
    settings.check(&old, &parts.settings.content).map_err(Failure::bad)?;
    may_choose_account(&manager, &settings, old.run_as.as_ref())?;
    let written = serde_json::to_string(&settings).unwrap_or_default();
    let about = About {
        name: wish.name.as_deref().unwrap_or(&content.name),
        title: wish.title.as_deref().unwrap_or(&content.title),
        description: wish.description.as_deref().unwrap_or(&content.description),
        access: wish.access_type.as_deref().unwrap_or(&content.access),
        settings: &written,
        is_locked: wish.locked.unwrap_or(content.is_locked),
    };
    check(&about)?;
    let deed = manager.deed("change_content", &content.name, &content.guid);
    let changed = parts.store.change_content(content.id, about, &content.settings, &deed).await;
    if !changed.map_err(|error| taken(error, about.name))? {
        let why = "This content was changed by somebody else at the same moment, or removed; look at it again";
        return Err(Failure::new(StatusCode::CONFLICT, why).into());
    }
    parts.contents.forget(&guid);
    if settings.run_as != old.run_as {
        // What runs as the other goes on for nobody.
        super::applications::end_processes(&parts, &manager, &content).await?;
    }
    let content = visible(&parts, &manager, &guid).await?;
    Ok(Json(tell(&parts, &parts.base(&fields, origin), &manager, &content).await?))
}

pub(in crate::node) async fn remove(
    State(parts): State<Parts>,
    manager: Manager,
    Path(guid): Path<String>,
) -> Result<impl IntoResponse, ApiFailure> {
    let content = own(&parts, &manager, &guid).await?;
    unlocked(&content)?;
    parts.store.remove_content(content.id, &manager.deed("remove_content", &content.name, &guid)).await?;
    parts.contents.forget(&guid);
    Ok(StatusCode::NO_CONTENT)
}

/// What content runs as is for administrators to say, as its publisher then has all that account may do.
///
/// # Errors
/// 401, 403.
fn may_choose_account(manager: &Manager, settings: &Settings, old: Option<&String>) -> Result<(), Failure> {
    match settings.run_as.as_ref() == old {
        true => Ok(()),
        false => manager.may_everywhere(Scope::Admin),
    }
}

/// Whether content may be changed.
///
/// # Errors
/// 409.
pub(in crate::node) fn unlocked(content: &ContentRow) -> Result<(), Failure> {
    match content.is_locked {
        true => Err(Failure::new(StatusCode::CONFLICT, "This content is locked; unlock it first")),
        false => Ok(()),
    }
}

/// Content the caller may see.
///
/// # Errors
/// 403, 404.
pub(in crate::node) async fn visible(parts: &Parts, manager: &Manager, guid: &str) -> Result<ContentRow, Failure> {
    let content = parts.store.content(&guid.to_lowercase()).await?.ok_or_else(|| missing(guid))?;
    if access::may_see(manager.viewer(), &content) {
        return Ok(content);
    }
    Err(manager.caller.refused("see this content"))
}

/// Content the caller may change.
///
/// # Errors
/// 403, 404.
pub(in crate::node) async fn own(parts: &Parts, manager: &Manager, guid: &str) -> Result<ContentRow, Failure> {
    let content = visible(parts, manager, guid).await?;
    changeable(manager, content)
}

/// The same for content that was looked up.
///
/// # Errors
/// 403.
pub(super) fn changeable(manager: &Manager, content: ContentRow) -> Result<ContentRow, Failure> {
    if access::may_change(manager.viewer(), &content) {
        return Ok(content);
    }
    Err(manager.caller.refused("change this content"))
}

pub(super) fn missing(guid: &str) -> Failure {
    Failure::not_found(format_args!("content `{guid}`"))
}

fn taken(error: StoreError, name: &str) -> Failure {
    match error {
        StoreError::Taken => {
            Failure::new(StatusCode::CONFLICT, format!("There is content of yours named `{name}` already"))
        }
        other => other.into(),
    }
}

fn check(about: &About<'_>) -> Result<(), Failure> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let name = about.name;
    if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(is_part) {
        return Err(Failure::bad(format!(
            "`{name}` is no name of content: letters, digits, `.`, `_` and `-`, up to {NAME_MAX}"
        )));
    }
    if about.title.chars().count() > TITLE_MAX || about.title.chars().any(char::is_control) {
        return Err(Failure::bad(format!("A title has up to {TITLE_MAX} characters on one line")));
    }
    if about.description.chars().count() > DESCRIPTION_MAX {
        return Err(Failure::bad(format!("A description has up to {DESCRIPTION_MAX} characters")));
    }
    if !["all", "logged_in", "acl"].contains(&about.access) {
        return Err(Failure::bad(format!("`{}` is no `access_type`: `all`, `logged_in` or `acl`", about.access)));
    }
    Ok(())
}

/// Content as clients want it. `base`: how the world calls us.
///
/// # Errors
/// 503.
pub(super) async fn tell(parts: &Parts, base: &str, manager: &Manager, content: &ContentRow) -> Result<Value, Failure> {
    let told = tell_all(parts, base, manager, std::slice::from_ref(content)).await?;
    Ok(told.into_iter().next().unwrap_or_default())
}

/// The same of several, in their order: what bundles say of them is read at once.
///
/// # Errors
/// 503.
pub(super) async fn tell_all(
    parts: &Parts,
    base: &str,
    manager: &Manager,
    contents: &[ContentRow],
) -> Result<Vec<Value>, Failure> {
    let numbers: Vec<i64> = contents.iter().filter_map(|content| content.bundle).collect();
    let bundles = parts.contents.bundles_of(&parts.store, &numbers).await?;
    let manifest = |content: &ContentRow| Some(&bundles.get(&content.bundle?)?.manifest);
    Ok(contents.iter().map(|content| told(base, manager, content, manifest(content))).collect())
}

fn told(base: &str, manager: &Manager, content: &ContentRow, manifest: Option<&Manifest>) -> Value {
    let settings = Settings::read(&content.settings);
    let role = if access::may_change(manager.viewer(), content) { "owner" } else { "viewer" };
    let guid = &content.guid;
    let who = json!({
        "id": content.number.to_string(),
        "guid": guid,
        "name": content.name,
        "title": if content.title.is_empty() { Value::Null } else { json!(content.title) },
        "description": content.description,
        "access_type": content.access,
        "locked": content.is_locked,
        "locked_message": settings.locked_message,
        "connection_timeout": settings.connection_timeout,
        "read_timeout": settings.read_timeout,
        "init_timeout": settings.init_timeout,
        "idle_timeout": settings.idle_timeout,
        "max_processes": settings.max_processes,
        "min_processes": settings.min_processes,
        "max_conns_per_process": settings.max_conns_per_process,
        "load_factor": settings.load_factor,
        "network_access": settings.network_access,
        "default_r_environment_management": settings.default_r_environment_management,
    });
    let how = json!({
        "memory_request": null,
        "memory_limit": settings.memory_limit,
        "cpu_request": null,
        "cpu_limit": settings.cpu_limit,
        "service_account_name": null,
        "default_image_name": null,
        "created_time": time(content.created_at),
        "last_deployed_time": content.deployed_at.map_or(Value::Null, |at| json!(time(at))),
        "bundle_id": content.bundle.map(|number| number.to_string()),
        "app_mode": content.app_mode.as_deref().unwrap_or("unknown"),
        "content_category": "",
        "parameterized": manifest.is_some_and(|manifest| manifest.has_parameters),
        "cluster_name": "Local",
        "image_name": "Local",
        "r_version": manifest.and_then(|manifest| manifest.r.clone()),
        "py_version": manifest.and_then(|manifest| manifest.python.clone()),
        "quarto_version": null,
        "node_version": null,
        "r_environment_management": settings.manages_r(manifest),
        "py_environment_management": true,
        "run_as": settings.run_as,
        "run_as_current_user": false,
        "owner_guid": content.owner,
        "content_url": format!("{base}/content/{guid}/"),
        "dashboard_url": format!("{base}/connect/content/{guid}"),
        "vanity_url": content.vanity.as_ref().map(|path| format!("{base}{path}")),
        "app_role": role,
        "tags": [],
    });
    let both = [who, how].into_iter().filter_map(|half| match half {
        Value::Object(keys) => Some(keys),
        _ => None,
    });
    Value::Object(both.flatten().collect())
}

/// What a bundle's manifest says.
pub(super) fn manifest(bundle: &BundleRow) -> Option<Manifest> {
    serde_json::from_str(&bundle.manifest).ok()
}
