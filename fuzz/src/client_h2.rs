//! The client of HTTP/2: asks what a case asks over HTTP/1, one request after another on one connection.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::account::Run;
use crate::case::{Case, Step};
use crate::client::{End, Seen};
use crate::faults::{authority, is_like, origin_form};
use crate::fidelity::{is_nominated, is_own, nominations};
use crate::message::{Answer, BodyEnd, Field, Request, Requests, all};
use crate::tls;

/// Longest that one request may take.
const PATIENCE: Duration = Duration::from_secs(7);
/// Bytes a head may have as HTTP/2 counts them (RFC 9113 §10.5.1): some less than what the proxy takes.
const HEAD_MAX: usize = 7_500;

/// A request and its body; `None`: nothing follows the head. A body in chunks may be empty, and is one all the same: who
/// has sent it is not asked to send it again.
pub(crate) type Asking = (http::Request<()>, Option<Bytes>);

/// What of a case can be asked over HTTP/2: its first requests, as long as they were answered over HTTP/1 and are valid
/// there by the letter. What HTTP/1 refuses in the form of a message does not exist in HTTP/2.
pub(crate) fn asking(case: &Case, whole: &Run) -> Vec<Asking> {
    if case.steps.iter().any(|step| matches!(step, Step::HalfClose | Step::Reset)) {
        return Vec::new();
    }
    let sent = Requests::of(&case.sent()).all;
    let mut asking = Vec::new();
    for (request, answer) in sent.iter().zip(whole.finals()) {
        let is_refused = all(&answer.fields, "x-refused").next().is_some();
        // The client was late there, or its chunks are none to the proxy, which is stricter than the letter.
        let is_broken = is_own(answer) && [400, 408].contains(&answer.status);
        match translated(request) {
            Some(translated) if request.is_whole && !is_refused && !is_broken => asking.push(translated),
            _ => break,
        }
    }
    // What is asked again later could not be told from what is asked here.
    let (here, later) = sent.split_at(asking.len());
    if later.iter().any(|one| here.iter().any(|other| is_like(one, other))) { Vec::new() } else { asking }
}

/// As RFC 9113 §8.2 and §8.3 want it; `None` if HTTP/2 has no such thing.
fn translated(request: &Request) -> Option<Asking> {
    let leaves = nominations(&request.fields).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let asks_to_leave = leaves && all(&request.fields, "upgrade").next().is_some();
    if request.is_http10 || asks_to_leave || all(&request.fields, "expect").next().is_some() {
        return None;
    }
    let host = authority(&request.target).or_else(|| all(&request.fields, "host").next())?;
    let target = origin_form(request);
    let uri = Uri::builder().scheme("https").authority(host).path_and_query(&target[..]).build().ok()?;
    let mut fields = HeaderMap::new();
    let mut size = target.len() + host.len() + 200;
    for (name, value) in &request.fields {
        if name == "host" || is_of_the_hop(name) || is_nominated(&request.fields, name) {
            continue;
        }
        size += name.len() + value.len() + 32;
        fields.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    if size > HEAD_MAX {
        return None;
    }
    let mut translated = http::Request::new(());
    *translated.method_mut() = Method::from_bytes(request.method.as_bytes()).ok()?;
    *translated.uri_mut() = uri;
    *translated.version_mut() = Version::HTTP_2;
    *translated.headers_mut() = fields;
    let is_framed = all(&request.fields, "transfer-encoding").next().is_some();
    let has_body = is_framed || !request.body.is_empty();
    Some((translated, has_body.then(|| Bytes::copy_from_slice(&request.body))))
}

/// RFC 9113 §8.2.2. `TE` may say `trailers` there, which says nothing a proxy would pass on.
fn is_of_the_hop(name: &str) -> bool {
    let names =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings", "te"];
    names.contains(&name)
}

/// Asks one by one; stops at the first that is not answered. `begins` is told the client's port before it says anything.
///
/// # Errors
/// There is no connection to the proxy.
pub(crate) async fn play(
    proxy: SocketAddr,
    tls: &TlsConnector,
    asking: Vec<Asking>,
    begins: impl FnOnce(u16),
) -> io::Result<Seen> {
    let stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let port = stream.local_addr()?.port();
    begins(port);
    let mut seen = Seen::nothing(port, Vec::new());
    let stream = tls.connect(tls::name(), stream).await?;
    let (mut send, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(async {
        // How it ends shows in the requests on it.
        let _ = connection.await;
    });
    seen.end = End::Own;
    for (request, body) in asking {
        let to_head = request.method() == Method::HEAD;
        let asked = tokio::time::timeout(PATIENCE, ask(&mut send, request, body, &mut seen, to_head)).await;
        match asked {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => {
                seen.end = End::Never;
                break;
            }
        }
    }
    driver.abort();
    Ok(seen)
}

/// Whether the connection can go on.
async fn ask(
    send: &mut SendRequest<Bytes>,
    request: http::Request<()>,
    body: Option<Bytes>,
    seen: &mut Seen,
    to_head: bool,
) -> bool {
    if poll_fn(|cx| send.poll_ready(cx)).await.is_err() {
        return false;
    }
    let Ok((mut response, mut outgoing)) = send.send_request(request, body.is_none()) else { return false };
    // It is kept until there is room for it.
    if body.is_some_and(|body| outgoing.send_data(body, true).is_err()) {
        return false;
    }
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        let Ok(interim) = interim else { return false };
        let mut answer = head(interim.status().as_u16(), interim.headers(), seen);
        answer.end = BodyEnd::Whole;
        seen.answers.all.push(answer);
    }
    let Ok(response) = response.await else { return false };
    let (parts, mut incoming) = response.into_parts();
    let mut answer = head(parts.status.as_u16(), &parts.headers, seen);
    let mut is_whole = true;
    while let Some(data) = incoming.data().await {
        let Ok(data) = data else {
            is_whole = false;
            break;
        };
        let _ = incoming.flow_control().release_capacity(data.len());
        answer.body.extend_from_slice(&data);
    }
    if is_whole {
        match incoming.trailers().await {
            Ok(trailers) => answer.has_extras = trailers.is_some(),
            Err(_) => is_whole = false,
        }
    }
    let said = all(&answer.fields, "content-length").next().and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
    // RFC 9113 §8.1.1: a length that is not kept makes it malformed.
    is_whole &= to_head || answer.status == 304 || said.is_none_or(|length: usize| length == answer.body.len());
    answer.end = if is_whole { BodyEnd::Whole } else { BodyEnd::Cut };
    seen.raw.extend_from_slice(&answer.body);
    seen.raw.push(b'\n');
    seen.answers.all.push(answer);
    true
}

fn head(status: u16, fields: &HeaderMap, seen: &mut Seen) -> Answer {
    let fields: Vec<Field> = fields.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec())).collect();
    for (name, value) in &fields {
        seen.raw.extend_from_slice(name.as_bytes());
        seen.raw.extend_from_slice(value);
        seen.raw.push(b'\n');
    }
    Answer { status, fields, ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        let request = Requests::of(text.as_bytes()).all.remove(0);
        let (request, body) = translated(&request)?;
        let fields: Vec<_> =
            request.headers().iter().map(|(n, v)| format!("{n}={}", v.as_bytes().escape_ascii())).collect();
        let body = body.map_or("none".into(), |body| format!("`{}`", body.escape_ascii()));
        Some(format!("{} {} {} {body}", request.method(), request.uri(), fields.join(",")))
    }

    #[test]
    fn a_valid_request_says_the_same_without_what_is_the_hops() {
        let text = "PUT /a?b HTTP/1.1\r\nHost: x.test\r\nConnection: A, Host\r\nA: 1\r\nB: 2\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2;c\r\nok\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(of(text).as_deref(), Some("PUT https://x.test/a?b b=2 `ok`"));
        let text = "GET http://X.test:80?b HTTP/1.1\r\nHost: x.test:80\r\n\r\n";
        assert_eq!(of(text).as_deref(), Some("GET https://X.test:80/?b  none"));
        let text = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(of(text).as_deref(), Some("GET https://a/  ``"), "an empty body is one");
    }

    #[test]
    fn what_http2_does_not_have_is_left_out() {
        for text in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
