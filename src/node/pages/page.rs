//! What all pages have in common. Pure.

use std::time::Duration;

use http::HeaderValue;
use maud::{DOCTYPE, Markup, html};

use super::Visit;
use super::asset::{SCRIPT, STYLE};
use crate::node::content::mode::Mode;
use crate::node::error::Failure;
use crate::runtime::clock;
use crate::telemetry::Timestamp;

/// Of every page.
pub const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Which part of the pages is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Apps, reports, APIs.
    Content,
    /// Repositories.
    Packages,
    /// How to.
    Publish,
    /// One's own.
    Account,
    /// For administrators, as all that follow.
    Users,
    /// See `Users`.
    Groups,
    /// See `Users`.
    Nodes,
}

const SECTIONS: &[(Section, &str, &str)] = &[
    (Section::Content, "/connect/", "Content"),
    (Section::Packages, "/connect/packages", "Packages"),
    (Section::Publish, "/connect/publish", "Publish"),
];
const ADMIN_SECTIONS: &[(Section, &str, &str)] = &[
    (Section::Users, "/connect/users", "Users"),
    (Section::Groups, "/connect/groups", "Groups"),
    (Section::Nodes, "/connect/nodes", "Nodes"),
];

fn head(prefix: &str, title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        title { (title) " · Bowline" }
        link rel="icon" type="image/svg+xml" href={ (prefix) "/connect/static/icon.svg" };
        link rel="stylesheet" href={ (prefix) "/connect/static/style.css?" (STYLE.1) };
    }
}

/// A page for who has logged in.
pub fn page(visit: &Visit, title: &str, section: Section, body: &Markup) -> Markup {
    let link = |(of, path, name): &(Section, &str, &str)| {
        html! { li { a href=(visit.at(path)) aria-current=[(*of == section).then_some("page")] { (name) } } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(&visit.prefix, title))
                script src={ (visit.prefix) "/connect/static/script.js?" (SCRIPT.1) } defer {}
            }
            body data-token=(visit.token) {
                a.skip href="#main" { "Skip to the page" }
                header.top {
                    a.brand href=(visit.at("/connect/")) { (logo()) "Bowline" }
                    nav aria-label="Main" {
                        ul {
                            @for one in SECTIONS { (link(one)) }
                            @if visit.is_admin() { @for one in ADMIN_SECTIONS { (link(one)) } }
                        }
                    }
                    div.who {
                        a href=(visit.at("/connect/account")) aria-current=[(section == Section::Account).then_some("page")] {
                            span.avatar aria-hidden="true" { (initial(&visit.user().username)) }
                            (visit.user().username)
                        }
                        form method="post" action=(visit.at("/connect/logout")) {
                            (csrf(&visit.token)) button.plain { "Log out" }
                        }
                    }
                }
                main id="main" tabindex="-1" { (body) }
            }
        }
    }
}

/// A page for who has not.
pub fn bare(prefix: &str, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { (head(prefix, title)) }
            body.bare {
                main id="main" {
                    p.brand { (logo()) "Bowline" }
                    (body)
                }
            }
        }
    }
}

/// A page that says why there is none.
pub fn failed(prefix: &str, failure: &Failure) -> Markup {
    let (status, title) = (failure.status(), failure.status().canonical_reason().unwrap_or("It failed"));
    let body = html! {
        h1 { (title) }
        p.notice.bad role="alert" { (failure.message()) }
        p { a href={ (prefix) "/connect/" } { "All content" } " · " a href={ (prefix) "/" } { "Start page" } }
        p.quiet { "Status " (status.as_u16()) }
    };
    bare(prefix, title, &body)
}

/// What every form sends.
pub fn csrf(token: &str) -> Markup {
    html! { input type="hidden" name="token" value=(token); }
}

/// The same on every page.
pub fn logo() -> Markup {
    html! {
        svg.logo viewBox="0 0 32 32" aria-hidden="true" {
            path d="M8 27V12a8 8 0 1 1 8 8h-4" fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round" {}
            circle cx="16" cy="12" r="3" fill="currentColor" {}
        }
    }
}

fn initial(name: &str) -> String {
    name.chars().next().map(|c| c.to_uppercase().collect()).unwrap_or_default()
}

/// A kind of content: how its icon is coloured, what is in it, and what people call it.
pub fn kind(mode: Option<&str>) -> (&'static str, &'static str, &'static str) {
    match mode.and_then(Mode::parse) {
        None => ("none", "–", "Nothing yet"),
        Some(Mode::Shiny) => ("r", "Sh", "Shiny for R"),
        Some(Mode::RmdShiny) => ("r", "Rm", "R Markdown with Shiny"),
        Some(Mode::RmdStatic) => ("doc", "Rm", "R Markdown"),
        Some(Mode::Static) => ("doc", "<>", "Web page"),
        Some(Mode::Api) => ("api", "{}", "Plumber API"),
        Some(Mode::JupyterStatic) => ("doc", "Nb", "Notebook"),
        Some(Mode::PythonApi) => ("api", "{}", "Python API"),
        Some(Mode::PythonDash) => ("py", "Da", "Dash"),
        Some(Mode::PythonStreamlit) => ("py", "St", "Streamlit"),
        Some(Mode::PythonBokeh) => ("py", "Bo", "Bokeh"),
        Some(Mode::PythonFastapi) => ("api", "{}", "FastAPI"),
        Some(Mode::QuartoShiny) => ("r", "Qu", "Quarto with Shiny"),
        Some(Mode::QuartoStatic) => ("doc", "Qu", "Quarto"),
        Some(Mode::PythonShiny) => ("py", "Sh", "Shiny for Python"),
        Some(Mode::JupyterVoila) => ("py", "Vo", "Voilà"),
        Some(Mode::PythonGradio) => ("py", "Gr", "Gradio"),
        Some(Mode::PythonPanel) => ("py", "Pa", "Panel"),
        Some(Mode::Nodejs) => ("js", "JS", "Node.js"),
    }
}

/// The icon of a kind of content.
pub fn icon(mode: Option<&str>) -> Markup {
    let (colour, text, _) = kind(mode);
    html! { span class={ "icon " (colour) } aria-hidden="true" { (text) } }
}

/// Who may see content, in words.
pub fn access_words(access: &str) -> &'static str {
    match access {
        "all" => "Anyone",
        "logged_in" => "Everybody who has logged in",
        _ => "Chosen people",
    }
}

/// A moment, microseconds since 1970, as how long from now it is.
pub fn ahead(micros: i64) -> Markup {
    let at = Duration::from_micros(micros.unsigned_abs());
    let whole = Timestamp::from_unix(at).to_string();
    let seconds = at.saturating_sub(clock::unix()).as_secs();
    let words = match seconds {
        0..60 => "in a moment".to_owned(),
        60..3600 => format!("in {} min", seconds.div_ceil(60)),
        3600..172_800 => format!("in {} h", seconds / 3600),
        172_800..2_592_000 => format!("in {} d", seconds / 86_400),
        _ => whole.chars().take(10).collect(),
    };
    html! { time datetime=(whole) title=(whole) { (words) } }
}

/// A moment, microseconds since 1970, as how long ago it was.
pub fn ago(micros: i64) -> Markup {
    let at = Duration::from_micros(micros.unsigned_abs());
    let whole = Timestamp::from_unix(at).to_string();
    let seconds = clock::unix().saturating_sub(at).as_secs();
    let words = match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        86_400..2_592_000 => format!("{} d ago", seconds / 86_400),
        _ => whole.chars().take(10).collect(),
    };
    html! { time datetime=(whole) title=(whole) { (words) } }
}

/// Bytes as people read them.
pub fn bytes(n: i64) -> String {
    let n = n.max(0) as f64;
    match n {
        n if n < 1024.0 => format!("{n} B"),
        n if n < 1024.0 * 1024.0 => format!("{:.0} KB", n / 1024.0),
        n if n < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MB", n / 1024.0 / 1024.0),
        n => format!("{:.1} GB", n / 1024.0 / 1024.0 / 1024.0),
    }
}

/// Lines to be copied.
pub fn copyable(text: &str) -> Markup {
    html! { div.copyable { pre tabindex="0" { code { (text) } } button type="button" data-copy hidden { "Copy" } } }
}
