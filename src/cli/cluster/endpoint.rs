//! Who does what a command asks for: a server, or handlers in this process.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::{Failed, On};
use crate::cli::progress::Progress;
use crate::config::node;
use crate::node::operator::{Operator, Outgoing};
use crate::telemetry::Causes;

/// For an answer; uploads take as long as they move.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;
/// Bytes of a file read at once.
const PIECE: usize = 256 * 1024;

/// Does it, and shows how far it is.
pub(super) struct Endpoint {
    who: Who,
    /// What is shown meanwhile.
    pub(super) progress: Progress,
}

/// One of the two.
enum Who {
    /// A configuration's database and storage.
    Here(Box<Operator>),
    /// A cluster.
    Server { client: reqwest::Client, url: String, authorization: HeaderValue },
}

impl Endpoint {
    pub(super) async fn open(on: &On, progress: Progress) -> Result<Self, Failed> {
        Ok(Self { who: Who::open(on).await?, progress })
    }

    /// Calls the management API. `path`: below `/__api__/v1`.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failed> {
        let path = format!("/__api__/v1{path}");
        let body = body.map(|body| body.to_string());
        let (status, answer) = match &self.who {
            Who::Here(operator) => {
                let mut request = Request::builder().method(method).uri(path);
                if body.is_some() {
                    request = request.header(CONTENT_TYPE, "application/json");
                }
                let request = request.body(Outgoing::Whole(body.unwrap_or_default().into()));
                here(operator, request.map_err(|e| Failed::usage(e.to_string()))?).await?
            }
            Who::Server { client, url, authorization } => {
                let mut request =
                    client.request(method, format!("{url}{path}")).header(AUTHORIZATION, authorization.clone());
                if let Some(body) = body {
                    request = request.header(CONTENT_TYPE, "application/json").body(body);
                }
                there(request).await?
            }
        };
        let told: Option<Value> = serde_json::from_slice(&answer).ok();
        match told {
            Some(value) if status.is_success() => Ok(value),
            Some(value) => match value["error"].as_str() {
                Some(error) => Err(Failed::new(error)),
                None => Err(strange(status, &answer)),
            },
            None if status == StatusCode::NO_CONTENT => Ok(Value::Null),
            None => Err(strange(status, &answer)),
        }
    }

    /// Every page of a list whose pages are numbered.
    pub(super) async fn all(&self, path: &str) -> Result<Value, Failed> {
        let mut all = Vec::new();
        for page in 1.. {
            let page = format!("{path}?page_size=500&page_number={page}");
            let Value::Array(mut some) = self.call(Method::GET, &page, None).await?["results"].take() else { break };
            if some.is_empty() {
                break;
            }
            all.append(&mut some);
        }
        Ok(Value::Array(all))
    }

    /// Sends a file, shown as `what`; what was answered.
    pub(super) async fn upload(&self, path: &str, file: &Path, what: &str) -> Result<String, Failed> {
        let wrong = |e: std::io::Error| Failed::new(format!("{}: cannot be read: {e}", file.display()));
        let opened = tokio::fs::File::open(file).await.map_err(wrong)?;
        let length = opened.metadata().await.map_err(wrong)?.len();
        self.progress.move_bytes(what, length);
        let (status, answer) = match &self.who {
            Who::Here(operator) => {
                let request = Request::builder()
                    .method(Method::PUT)
                    .uri(path)
                    .header(CONTENT_LENGTH, length)
                    .body(Outgoing::Stream(Box::pin(pieces(opened, self.progress.clone()))));
                here(operator, request.map_err(|e| Failed::usage(e.to_string()))?).await?
            }
            Who::Server { client, url, authorization } => {
                let request = client
                    .put(format!("{url}{path}"))
                    .header(AUTHORIZATION, authorization.clone())
                    .header(CONTENT_LENGTH, length)
                    .body(reqwest::Body::wrap_stream(pieces(opened, self.progress.clone())));
                there(request).await?
            }
        };
        let text = String::from_utf8_lossy(&answer).trim().to_owned();
        if status.is_success() { Ok(text) } else { Err(Failed::new(format!("{}: {text}", file.display()))) }
    }

    pub(super) async fn close(self) {
        if let Who::Here(operator) = self.who {
            operator.close().await;
        }
    }
}

impl Who {
    async fn open(on: &On) -> Result<Self, Failed> {
        if let Some(config) = &on.config {
            let settings = node::load(config).map_err(|report| Failed::config(report.to_string()))?;
            let operator = Operator::open(settings).await.map_err(|e| Failed::new(Causes(&e).to_string()))?;
            return Ok(Self::Here(Box::new(operator)));
        }
        let url = on.server.clone().or_else(|| std::env::var("BOWLINE_SERVER").ok()).ok_or_else(|| {
            Failed::usage("say on which cluster: `--server URL`, or on a node's own machine `-c FILE`")
        })?;
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(Failed::usage(format!("`{url}` is no URL, such as `https://packages.example.org`")));
        }
        let key = match &on.key_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| Failed::new(format!("{}: cannot be read: {e}", file.display())))?,
            None => std::env::var("BOWLINE_API_KEY")
                .map_err(|_| Failed::usage("`--server` needs an API key: `--key-file FILE` or $BOWLINE_API_KEY"))?,
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
            .map_err(|_| Failed::new("the API key has characters no key has"))?;
        authorization.set_sensitive(true);
        let mut client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(TIMEOUT)
            .user_agent(concat!("bowline/", env!("CARGO_PKG_VERSION")))
            // An API key goes to whom it was meant for.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &on.ca_file {
            let wrong = |e: &dyn std::fmt::Display| Failed::new(format!("{}: {e}", file.display()));
            let pem = std::fs::read(file).map_err(|e| wrong(&e))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(&e))? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|e| Failed::new(Causes(&e).to_string()))?;
        Ok(Self::Server { client, url: url.trim_end_matches('/').to_owned(), authorization })
    }
}

async fn here(operator: &Operator, request: Request<Outgoing>) -> Result<(StatusCode, Bytes), Failed> {
    operator.call(request, ANSWER_MAX).await.map_err(|e| Failed::new(Causes(&e).to_string()))
}

async fn there(request: reqwest::RequestBuilder) -> Result<(StatusCode, Bytes), Failed> {
    let failed = |e: reqwest::Error| Failed::new(Causes(&e).to_string());
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let mut answer = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        answer.extend_from_slice(&piece);
        if answer.len() > ANSWER_MAX {
            return Err(Failed::new("the server's answer is longer than 64 MiB"));
        }
    }
    Ok((status, answer.into()))
}

/// What is no answer of ours: a proxy's page, another server's.
fn strange(status: StatusCode, answer: &[u8]) -> Failed {
    let text: String = String::from_utf8_lossy(answer).chars().take(300).collect();
    Failed::new(format!("the server answered {status}: {}", text.trim()))
}

fn pieces(file: tokio::fs::File, progress: Progress) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    try_unfold((file, progress), |(mut file, progress)| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await?;
        progress.moved(read as u64);
        Ok((read > 0).then(|| (Bytes::from(piece), (file, progress))))
    })
}

/// A path segment or query value as URLs have it.
pub(super) fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"._-~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
