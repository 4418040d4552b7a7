//! `/`: where people begin, or whatever the operator shows there.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use maud::{DOCTYPE, html};
use tower_http::services::ServeDir;
use tower_service::Service;

use super::IntoHtml;
use super::asset::STYLE;
use super::page::logo;
use crate::node::content::serve::serve;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};

/// What no route is for: content at a path beside its guid, else a file of the operator's, where there are such.
pub async fn other(State(parts): State<Parts>, origin: Extension<Origin>, request: Request) -> Response {
    let Some(folder) = &parts.settings.landing_dir else { return serve(State(parts), origin, request).await };
    let path = request.uri().path();
    match parts.contents.at(&parts.store, path).await {
        Ok(None) => {}
        Ok(Some(_)) => return serve(State(parts), origin, request).await,
        Err(error) => return Failure::from(error).into_response(),
    }
    let mut files = ServeDir::new(folder).append_index_html_on_directories(true);
    let Ok(served) = files.call(request).await;
    if served.status() == StatusCode::NOT_FOUND {
        return Failure::not_found("page at this address").into_response();
    }
    let mut response = served.map(Body::new);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Ours.
pub(super) async fn show(
    State(parts): State<Parts>,
    Extension(origin): Extension<Origin>,
    fields: HeaderMap,
) -> Response {
    let prefix = parts.prefix(&fields, origin, "/");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Bowline" }
                link rel="icon" type="image/svg+xml" href={ (prefix) "/connect/static/icon.svg" };
                link rel="stylesheet" href={ (prefix) "/connect/static/style.css?" (STYLE.1) };
            }
            body {
                main id="main" {
                    div.hero {
                        p.brand { (logo()) "Bowline" }
                        h1 { "Apps, reports and packages of your team" }
                        p { "What colleagues have published opens here, and what they install comes from here." }
                        div.row {
                            a.button.primary href={ (prefix) "/connect/" } { "Open content" }
                            a.button href={ (prefix) "/connect/packages" } { "Browse packages" }
                        }
                    }
                    div.grid {
                        section.card { h2 { "Look" } p { "Dashboards, documents and APIs, found by name, opened in the browser." } a href={ (prefix) "/connect/" } { "All content" } }
                        section.card { h2 { "Publish" } p { "From R or Python, with the tools you have: rsconnect and rsconnect-python." } a href={ (prefix) "/connect/publish" } { "How to publish" } }
                        section.card { h2 { "Install" } p { "R and Python packages, your own ones and those of CRAN and PyPI." } a href={ (prefix) "/connect/packages" } { "Repositories" } }
                    }
                }
            }
        }
    };
    let mut response = page.into_response_html();
    let fields = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
