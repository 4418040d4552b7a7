//! Which question gets which answer: every URL of the endpoint is in [`answer`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::exchange::{Request, Response, percent_decode};
use super::status::{AdminState, Changed};
use super::{Change, Control};
use crate::telemetry::metrics::Exposition;

/// Where a request came in, and so what it may do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    /// Reading only.
    Tcp {
        /// Only this machine can reach it.
        is_loopback: bool,
    },
    /// Reading and changing: who may open the socket may do that.
    Unix,
}

/// Answers one request.
pub(super) async fn answer<C: Control>(request: &Request, door: Door, control: &Arc<C>) -> Response {
    if let Door::Tcp { is_loopback: true } = door
        && !request.host.as_deref().is_none_or(is_local)
    {
        return Response::sentence(403, "this endpoint answers to IP addresses and `localhost` only");
    }
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
    match segments.as_slice() {
        ["livez" | "readyz" | "metrics" | "status" | "sessions"] if !is_read => not_allowed("GET, HEAD"),
        ["livez"] => Response::sentence(200, "ok"),
        ["readyz"] if control.is_ready() => Response::sentence(200, "ready"),
        ["readyz"] => Response::sentence(503, "not ready"),
        ["metrics"] => {
            read(control, |c| {
                let body = c.metrics().into_bytes();
                Response { status: 200, content_type: Exposition::CONTENT_TYPE, allow: None, body }
            })
            .await
        }
        ["status"] => read(control, |c| Response::json(200, &c.status())).await,
        ["sessions"] => read(control, |c| Response::json(200, &c.sessions())).await,
        ["reload"] | ["backends", _, _, "drain" | "enable" | "disable"] if request.method != "POST" => {
            not_allowed("POST")
        }
        ["reload"] | ["backends", _, _, "drain" | "enable" | "disable"] if !matches!(door, Door::Unix) => {
            Response::sentence(403, "changes are made over the unix socket only (`[admin] socket`)")
        }
        ["reload"] => reload(control.clone()).await,
        ["backends", pool, key, "drain"] => change(request, &**control, pool, key, AdminState::Draining),
        ["backends", pool, key, "enable"] => change(request, &**control, pool, key, AdminState::Enabled),
        ["backends", pool, key, "disable"] => change(request, &**control, pool, key, AdminState::Disabled),
        _ => Response::sentence(
            404,
            "no such page; there are /livez /readyz /metrics /status /sessions, and over the unix socket \
             POST /reload and POST /backends/POOL/KEY/drain|enable|disable",
        ),
    }
}

/// Thousands of series or sessions take their time to write down; workers have requests to move meanwhile.
async fn read<C: Control>(control: &Arc<C>, ask: impl FnOnce(&C) -> Response + Send + 'static) -> Response {
    let control = control.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&control)).await;
    asked.unwrap_or_else(|_| Response::sentence(500, "the answer could not be put together; see the log"))
}

async fn reload<C: Control>(control: Arc<C>) -> Response {
    // A task of its own: a reload that takes long goes on when nobody waits for it any more.
    let reload = tokio::spawn(async move { control.reload().await });
    match tokio::time::timeout(RELOAD_TIMEOUT, reload).await {
        Ok(Ok(Ok(done))) => Response::json(200, &done),
        Ok(Ok(Err(refused))) => Response::json(409, &refused),
        Ok(Err(_)) => Response::sentence(500, "the reload broke off; see the log"),
        Err(_) => Response::sentence(504, "the configuration is still being loaded; see /status for its end"),
    }
}

fn change(request: &Request, control: &impl Control, pool: &str, key: &str, admin: AdminState) -> Response {
    let (Some(pool), Some(key)) = (percent_decode(pool), percent_decode(key)) else {
        return Response::sentence(400, "the path is not percent-encoded as it should be");
    };
    let change = match (admin, deadline(request)) {
        (_, Err(refusal)) => return refusal,
        (AdminState::Draining, Ok(deadline)) => Change::Drain { deadline },
        (_, Ok(Some(_))) => return Response::sentence(400, "only `drain` takes a deadline"),
        (AdminState::Enabled, Ok(None)) => Change::Enable,
        (AdminState::Disabled, Ok(None)) => Change::Disable,
    };
    match control.set_admin(&pool, &key, change) {
        Ok(()) => {
            tracing::info!(pool, backend = key, admin = admin.as_str(), "the operator changed a backend");
            Response::json(200, &Changed { pool, backend: key, admin })
        }
        Err(nobody) => Response::sentence(404, nobody.to_string()),
    }
}

/// `?deadline=8h` or `{"deadline": "8h"}`.
fn deadline(request: &Request) -> Result<Option<Duration>, Response> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        deadline: Option<String>,
    }
    let bad = |why: String| Response::sentence(400, why);
    let mut text = None;
    for pair in request.query.split('&').filter(|pair| !pair.is_empty()) {
        let value = match pair.split_once('=') {
            Some(("deadline", value)) => percent_decode(&value.replace('+', " ")),
            _ => return Err(bad(format!("unknown parameter `{pair}`; there is `deadline=8h`"))),
        };
        text = Some(value.ok_or_else(|| bad("the deadline is not percent-encoded as it should be".into()))?);
    }
    if !request.body.trim_ascii().is_empty() {
        let body: Body = serde_json::from_slice(&request.body)
            .map_err(|e| bad(format!("the body is not JSON such as {{\"deadline\": \"8h\"}}: {e}")))?;
        if text.is_some() && body.deadline.is_some() {
            return Err(bad("a deadline in both query and body".into()));
        }
        text = text.or(body.deadline);
    }
    let Some(text) = text else { return Ok(None) };
    match humantime::parse_duration(&text) {
        Ok(duration) if duration <= DEADLINE_MAX => Ok(Some(duration)),
        Ok(_) => Err(bad(format!("deadline `{text}` is longer than a year"))),
        Err(_) => Err(bad(format!("deadline `{text}` is not a duration such as `90s` or `8h`"))),
    }
}

fn not_allowed(allow: &'static str) -> Response {
    let sentence = match allow {
        "POST" => "this changes something and wants POST",
        _ => "this can only be read, with GET or HEAD",
    };
    Response { allow: Some(allow), ..Response::sentence(405, sentence) }
}

/// Whether a Host value can only mean this machine: no name somebody else's DNS decides about.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.is_empty()
        || name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Reading and checking takes milliseconds; a network filesystem may take its time.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
const DEADLINE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in ["127.0.0.1:9443", "[::1]:9443", "[::1]", "localhost", "LOCALHOST:1", "a.localhost:1", ""] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example:9443", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[x]"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
