//! Pages: what people see of the server in a browser. Rendered here, of what the same functions give that the API uses.
//!
//! A handler that shows something takes a [`Visit`], one that changes something a [`Sent`]: whoever has one has logged in, and
//! of the second a form of theirs was sent.

mod account;
mod asset;
mod content;
mod contents;
pub mod guard;
pub mod landing;
pub mod login;
pub mod markdown;
mod node;
mod packages;
pub mod page;
mod people;
mod publish;
mod schedule;
mod setting;

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{LOCATION, SET_COOKIE};
use http::{HeaderValue, StatusCode, request};
use maud::Markup;

use super::api::{Answer, ApiFailure, Body, Manager};
use super::connect::claim;
use super::error::Failure;
use super::parts::{Origin, Parts};
use super::session::{Jar, Realm, Session};
use super::store::{Scope, User};

/// Bytes of a form: all variables of content may be in one.
const FORM_MAX: usize = 2 << 20;

/// Pages and what they are made of.
pub fn router(parts: &Parts) -> Router<Parts> {
    let guarded = Router::new()
        .route("/connect", get(contents::moved))
        .route("/connect/", get(contents::list))
        .route("/connect/login", get(login::ask).post(login::log_in))
        .route("/connect/logout", post(login::log_out))
        .route("/connect/open", get(login::depart))
        .route("/connect/claim/{token}", get(claim::ask).post(claim::claim))
        .route("/connect/content/{guid}", get(content::show))
        .route("/connect/content/{guid}/draft/{bundle}", get(content::draft))
        .route("/connect/content/{guid}/access", get(setting::access).post(setting::set_access))
        .route("/connect/content/{guid}/settings", get(setting::settings).post(setting::set_settings))
        .route("/connect/content/{guid}/variables", get(setting::variables).post(setting::set_variables))
        .route("/connect/content/{guid}/bundles", get(content::bundles).post(content::change_bundle))
        .route("/connect/content/{guid}/bundles/{bundle}/download", get(content::download))
        .route("/connect/content/{guid}/schedule", get(schedule::show).post(schedule::change))
        .route("/connect/content/{guid}/logs", get(content::logs))
        .route("/connect/content/{guid}/logs/{task}", get(content::log))
        .route("/connect/content/{guid}/remove", get(content::ask_remove).post(content::remove))
        .route("/connect/account", get(account::show).post(account::change))
        .route("/connect/publish", get(publish::show))
        .route("/connect/packages", get(packages::repositories))
        .route("/connect/packages/{repository}", get(packages::list))
        .route("/connect/packages/{repository}/{package}", get(packages::show))
        .route("/connect/nodes", get(node::show))
        .route("/connect/users", get(people::users).post(people::change_user))
        .route("/connect/groups", get(people::groups).post(people::change_group))
        .layer(DefaultBodyLimit::max(FORM_MAX))
        .layer(middleware::from_fn_with_state(parts.clone(), guard::guard));
    let landing = match &parts.settings.landing_dir {
        Some(_) => Router::new(),
        None => Router::new().route("/", get(landing::show)),
    };
    Router::new().route("/connect/static/{name}", get(asset::show)).merge(guarded).merge(landing)
}

/// Why there is no page.
#[derive(Clone, Debug)]
pub struct Failed(pub Failure);

impl<E: Into<Failure>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// As a page tells what the API refused.
fn refused(failure: ApiFailure) -> Failed {
    Failed(failure.into_failure())
}

/// As [`refused`], where there is nothing else to tell.
fn done(answer: Answer) -> Result<(), Failed> {
    answer.map(drop).map_err(refused)
}

/// What the API would have read from a body.
fn body<T: serde::de::DeserializeOwned>(told: serde_json::Value) -> Result<Body<T>, Failed> {
    let read = serde_json::from_value(told).map_err(|error| Failure::bad(error.to_string()))?;
    Ok(Ok(axum::Json(read)))
}

impl IntoResponse for Failed {
    /// How it looks is said by [`guard::guard`], which knows where we are.
    fn into_response(self) -> Response {
        let mut response = self.0.clone().into_response();
        if self.0.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().remove(http::header::WWW_AUTHENTICATE);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// What handlers give.
pub type Shown = Result<Response, Failed>;

/// Somebody who has logged in looks at a page.
pub struct Visit {
    /// Who they are.
    pub manager: Manager,
    /// Theirs.
    pub session: Session,
    /// Where we are, for the world: see [`Parts::base`] and [`Parts::prefix`].
    pub base: String,
    /// See `base`.
    pub prefix: String,
    /// For forms.
    pub token: String,
    parts: Parts,
}

impl Visit {
    async fn begin(request: &request::Parts, parts: &Parts) -> Result<Self, Response> {
        let failed = |failure: Failure| Failed(failure).into_response();
        let origin = request.extensions.get::<Origin>().copied().unwrap_or_default();
        let (fields, path) = (&request.headers, request.uri.path());
        let prefix = parts.prefix(fields, origin, path);
        let session =
            parts.sessions.find(fields, Realm::Pages, &parts.jar(fields, origin, path)).await.map_err(failed)?;
        let Some(session) = session else {
            if request.method != http::Method::GET {
                let why = "You are not logged in any more: go back, log in in another tab, and send it again";
                return Err(failed(Failure::new(StatusCode::UNAUTHORIZED, why)));
            }
            let next: String = form_urlencoded::byte_serialize(request.uri.to_string().as_bytes()).collect();
            return Err(to(&format!("{prefix}/connect/login?next={next}")));
        };
        let manager = Manager::new(parts, session.caller(), origin).await.map_err(failed)?;
        let (base, token) = (parts.base(fields, origin), parts.sessions.token(&session));
        Ok(Self { manager, session, base, prefix, token, parts: parts.clone() })
    }

    /// Who they are.
    pub fn user(&self) -> &User {
        &self.session.user
    }

    /// May do everything.
    pub fn is_admin(&self) -> bool {
        self.manager.may_everywhere(Scope::Admin).is_ok()
    }

    /// An address of ours.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// A page of this title.
    pub fn page(&self, title: &str, section: page::Section, body: &Markup) -> Response {
        self.answered(page::page(self, title, section, body).into_response_html())
    }

    /// Sends the browser there, after a change.
    pub fn to(&self, path: &str) -> Response {
        self.answered(to(&self.at(path)))
    }

    /// Where their session is.
    pub fn jar(&self) -> Jar {
        Jar::new(&self.base, &self.prefix)
    }

    /// With the session's next cookie, when it is time.
    fn answered(&self, mut response: Response) -> Response {
        if let Some(value) = self.parts.sessions.renewed(&self.session, Realm::Pages) {
            response.headers_mut().append(SET_COOKIE, self.jar().set(Some(&value)));
        }
        response
    }
}

impl FromRequestParts<Parts> for Visit {
    type Rejection = Response;

    async fn from_request_parts(request: &mut request::Parts, parts: &Parts) -> Result<Self, Response> {
        Self::begin(request, parts).await
    }
}

/// Somebody who has logged in has sent a form of ours.
pub struct Sent {
    /// Who, and where from.
    pub visit: Visit,
    /// What they wrote.
    pub form: Form,
}

impl FromRequest<Parts> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, parts: &Parts) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let visit = Visit::begin(&head, parts).await?;
        let form = Form::read(Request::from_parts(head, body)).await?;
        if !parts.sessions.is_token(&visit.session, form.text("token")) {
            let why = "This form is not one of your session: go back, open the page again, and send it again";
            return Err(Failed(Failure::forbidden(why)).into_response());
        }
        Ok(Self { visit, form })
    }
}

/// Fields of a form; of those sent twice the last.
#[derive(Debug)]
pub struct Form(HashMap<String, String>);

impl Form {
    async fn read(request: Request) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
        Ok(Self(form_urlencoded::parse(&bytes).into_owned().collect()))
    }

    /// A field; empty where it was not sent.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |text| text.trim())
    }

    /// As it was written.
    pub fn raw(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// What the button that was pressed says, or the field that is meant.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// See there.
pub fn to(location: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// Markup as an answer.
pub trait IntoHtml {
    /// With its content type.
    fn into_response_html(self) -> Response;
}

impl IntoHtml for Markup {
    fn into_response_html(self) -> Response {
        ([(http::header::CONTENT_TYPE, page::HTML)], self.into_string()).into_response()
    }
}
