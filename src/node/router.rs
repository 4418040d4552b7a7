//! Every URL of a node in one table, grouped by who calls it.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path};
use axum::middleware;
use axum::routing::{any, get, post, put};

use super::observe::Observe;
use super::parts::Parts;
use super::{connect, content, cran, manage, numbers, pages, publish, pypi, rest};

/// All of them.
pub fn router(parts: Parts) -> Router {
    let all = routes(&parts);
    let all = match parts.settings.content.external_url {
        Some(_) => all.layer(middleware::from_fn_with_state(parts.clone(), pages::guard::apart)),
        None => all,
    };
    all.layer(Observe(parts.clone())).with_state(parts)
}

fn routes(parts: &Parts) -> Router<Parts> {
    // What bounds a body is in the handler, piece by piece.
    let uploads = Router::new()
        // twine, uv publish, poetry publish.
        .route("/packages/{repository}/legacy/", post(pypi::upload))
        // curl, `bowline add`.
        .route("/packages/{repository}/upload/{filename}", put(publish::put))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(rest::hear_out));
    Router::new()
        .merge(uploads)
        // Load balancers and operators.
        .route("/__ping__", get(numbers::ping))
        .route("/metrics", get(numbers::metrics))
        // pip, uv, poetry.
        .route("/packages/{repository}/simple/", get(pypi::root))
        .route("/packages/{repository}/simple", get(async || pypi::moved("simple/")))
        .route("/packages/{repository}/simple/{project}/", get(pypi::project))
        .route(
            "/packages/{repository}/simple/{project}",
            get(async |Path((_, project)): Path<(String, String)>| pypi::moved(&format!("{project}/"))),
        )
        .route("/packages/{repository}/{view}/simple/", get(pypi::root_of))
        .route("/packages/{repository}/{view}/simple", get(async || pypi::moved("simple/")))
        .route("/packages/{repository}/{view}/simple/{project}/", get(pypi::project_of))
        .route(
            "/packages/{repository}/{view}/simple/{project}",
            get(async |Path((_, _, project)): Path<(String, String, String)>| pypi::moved(&format!("{project}/"))),
        )
        .route("/packages/{repository}/files/{digest}/{filename}", get(pypi::file))
        .route("/packages/{repository}/integrity/{project}/{version}/{filename}/provenance", get(pypi::provenance))
        .route("/packages/{repository}/pypi/{project}/json", get(pypi::project_json))
        .route("/packages/{repository}/pypi/{project}/{version}/json", get(pypi::release_json))
        // R.
        .route("/packages/{repository}/src/contrib/{*path}", get(cran::serve::source))
        .route("/packages/{repository}/{view}/src/contrib/{*path}", get(cran::serve::source_of))
        .route("/packages/{repository}/__linux__/{codename}/{view}/src/contrib/{*path}", get(cran::serve::linux))
        .route("/packages/{repository}/bin/{*path}", get(cran::serve::binary))
        .route("/packages/{repository}/{view}/bin/{*path}", get(cran::serve::binary_of))
        // Administrators.
        .nest("/__api__/v1", manage::router())
        // rsconnect, rsconnect-python, posit-sdk.
        .nest("/__api__", connect::router(parts))
        // Browsers.
        .merge(pages::router(parts))
        // Browsers, and whoever calls an API that was published.
        .route("/content/{guid}", any(content::serve::moved))
        .route("/content/{guid}/", any(content::serve::serve))
        .route("/content/{guid}/{*rest}", any(content::serve::serve))
        // renv asks two components above a repository's URL.
        .route("/__api__/status", get(cran::status::status))
        .route("/packages/__api__/status", get(cran::status::status))
        .route(
            "/__api__/repos/{id}/sysreqs",
            get(cran::status::system_requirements).post(cran::status::system_requirements),
        )
        .route(
            "/packages/__api__/repos/{id}/sysreqs",
            get(cran::status::system_requirements).post(cran::status::system_requirements),
        )
        // Where content has an origin of its own, and else nothing is.
        .route("/__login__", get(pages::login::arrive))
        // Paths of content beside its guid.
        .fallback(pages::landing::other)
}
