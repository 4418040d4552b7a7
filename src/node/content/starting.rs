//! The page a browser sees while content starts: it needs nothing but itself, waits, and shows the content when it is there.

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Whether a browser goes there and will show what comes; no program that looks whether content works says so (Fetch Metadata
/// §2.3).
pub fn is_navigation(method: &Method, fields: &HeaderMap) -> bool {
    let says = |name: &str, word: &[u8]| {
        fields.get(name).is_some_and(|value| memchr::memmem::find(value.as_bytes(), word).is_some())
    };
    method == Method::GET && says("sec-fetch-mode", b"navigate") && says(ACCEPT.as_str(), b"text/html")
}

/// The page. Its script asks for the content as a program does, which waits as long as a start may take.
pub fn page(title: &str) -> Response {
    let title: String = title.chars().take(200).collect();
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let title = if title.is_empty() { "Content".to_owned() } else { title };
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    let mut response = shown(StatusCode::SERVICE_UNAVAILABLE, PAGE.replace("{title}", &title), policy);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// A page of ours in the place of content, which nobody keeps. `policy`: its `Content-Security-Policy`.
pub fn shown(status: StatusCode, page: String, policy: &'static str) -> Response {
    let fields =
        [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, policy)];
    (status, fields, page).into_response()
}

const PAGE: &str = "<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content=\"width=device-width\">
<title>Starting: {title}</title>
<noscript><meta http-equiv=refresh content=3></noscript>
<style>
:root { color-scheme: light dark }
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto; padding: 0 1rem; text-align: center }
h1 { font-size: 1.4rem; overflow-wrap: anywhere }
i { display: inline-block; width: 2.2rem; height: 2.2rem; border: .25rem solid #8886; border-top-color: currentColor;
  border-radius: 50%; animation: turn 1s linear infinite }
@keyframes turn { to { transform: rotate(1turn) } }
@media (prefers-reduced-motion: reduce) { i { animation-duration: 8s } }
</style>
<main id=bowline-starting>
<h1>{title}</h1>
<i aria-hidden=true></i>
<p role=status aria-live=polite>Starting. This takes a moment; the page shows itself when it is ready.</p>
</main>
<script>
(function () {
  var says = document.querySelector('[role=status]'), began = Date.now();
  function again() { setTimeout(ask, 1000); }
  function ask() {
    if (Date.now() - began > 20000) says.textContent = 'Still starting. The first start may take some minutes.';
    fetch(location.href, { credentials: 'same-origin', cache: 'no-store' }).then(function (answer) {
      if (answer.status === 503) again(); else location.reload();
    }, again);
  }
  ask();
})();
</script>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_browser_that_goes_there_gets_the_page() {
        let of = |method: Method, told: &[(&'static str, &'static str)]| {
            let mut fields = HeaderMap::new();
            told.iter().for_each(|(name, value)| drop(fields.insert(*name, HeaderValue::from_static(value))));
            is_navigation(&method, &fields)
        };
        let browser = [("sec-fetch-mode", "navigate"), ("accept", "text/html,*/*;q=0.8")];
        assert!(of(Method::GET, &browser));
        assert!(!of(Method::POST, &browser));
        assert!(!of(Method::GET, &browser[1..]), "rsconnect looks whether it works");
        assert!(!of(Method::GET, &[("sec-fetch-mode", "cors"), ("accept", "text/html")]));
        assert!(!of(Method::GET, &[("sec-fetch-mode", "navigate"), ("accept", "image/*")]));
    }

    #[test]
    fn titles_are_text() {
        let response = page("<script>&");
        assert_eq!(response.status(), 503);
        let body = PAGE.replace("{title}", "x");
        assert!(!body.contains("//") && !body.contains("{title}"), "it needs nothing from anywhere");
    }
}
