//! How to publish from R and Python, with lines to copy.

use axum::extract::State;
use maud::html;

use super::page::{Section, copyable};
use super::{Shown, Visit};
use crate::node::parts::Parts;
use crate::node::store::{Language, Scope};

pub(super) async fn show(State(parts): State<Parts>, visit: Visit) -> Shown {
    let url = format!("{}{}", visit.base, visit.prefix);
    let may_publish = visit.manager.may_everywhere(Scope::Publish).is_ok();
    let (pypi, cran) = (parts.catalog.first(Language::Python), parts.catalog.first(Language::R));
    let add = format!("pip install rsconnect-python\nrsconnect add --name here --server {url} --api-key YOUR_KEY");
    let deploy = "rsconnect deploy shiny --name here my-app/\nrsconnect deploy fastapi --name here my-api/\nrsconnect deploy notebook --name here report.ipynb\nrsconnect deploy html --name here site/";
    let connect = format!(
        "install.packages(\"rsconnect\")\nrsconnect::addServer(\"{url}\", name = \"here\")\nrsconnect::connectUser(server = \"here\")"
    );
    let body = html! {
        h1 { "Publish" }
        @if !may_publish { p.notice { "Your role lets you look, not publish. An administrator can change that." } }
        div.grid {
            section.card aria-labelledby="r" {
                h2 id="r" { "From R" }
                p { "Once on each computer. A browser opens, where you let R publish as you:" }
                (copyable(&connect))
                p { "Then, in the folder of an app, document or API:" }
                (copyable("rsconnect::deployApp(\"my-app\", server = \"here\")\nrsconnect::deployDoc(\"report.Rmd\", server = \"here\")\nrsconnect::deployAPI(\"my-api\", server = \"here\")"))
            }
            section.card aria-labelledby="python" {
                h2 id="python" { "From Python" }
                p { "Once on each computer, with a key of " a href=(visit.at("/connect/account")) { "your account" } ":" }
                (copyable(&add))
                p { "Then:" }
                (copyable(deploy))
            }
            section.card aria-labelledby="install" {
                h2 id="install" { "Packages from here" }
                @if pypi.is_none() && cran.is_none() { p { "This server has no package repository yet." } }
                @if let Some(name) = &pypi {
                    h3 { "Python" }
                    (copyable(&format!("pip install --index-url {url}/packages/{name}/simple/ PACKAGE")))
                }
                @if let Some(name) = &cran {
                    h3 { "R" }
                    (copyable(&format!("options(repos = c(CRAN = \"{url}/packages/{name}/latest\"))\ninstall.packages(\"PACKAGE\")")))
                }
            }
        }
    };
    Ok(visit.page("Publish", Section::Publish, &body))
}
