//! The page that visitors of locked content see.

use axum::response::Response;
use http::StatusCode;

use super::starting;
use crate::node::pages::markdown::markdown;

/// The page, with what its publisher has to say, as Markdown. 423 (RFC 4918 §11.3).
pub fn page(message: &str) -> Response {
    let message = match message.trim() {
        "" => "Whoever published it has locked it. Ask them, or whoever runs this server.",
        message => message,
    };
    let page = PAGE.replace("{message}", &markdown(message, 1).into_string());
    starting::shown(StatusCode::LOCKED, page, "default-src 'none'; style-src 'unsafe-inline'")
}

const PAGE: &str = "<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content=\"width=device-width\">
<title>Locked</title>
<style>
:root { color-scheme: light dark }
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem }
h2, h3, h4, h5, h6 { font-size: 1.15rem }
</style>
<main>
<h1>This content is locked</h1>
{message}
</main>
";
