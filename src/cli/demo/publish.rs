//! The demo's packages, uploaded through the proxy as everybody's tools upload: twine's form for Python, curl's PUT for R.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode};
use sha2::{Digest, Sha256};

use super::ask;
use super::packages::{self, File};
use crate::telemetry::Causes;

/// Why a package is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    /// A package cannot be made.
    #[error("the demo's packages cannot be made: {0}")]
    Made(#[from] io::Error),
    /// Nobody could be asked.
    #[error("the demo's packages cannot be uploaded: {0}")]
    Unsent(String),
    /// The node said no.
    #[error("{name} was not taken ({status}): {words}")]
    Refused { name: String, status: StatusCode, words: String },
    /// A node does not have it.
    #[error("the node on port {port} does not show what was published within {} s", SEEN_WITHIN.as_secs())]
    Unseen { port: u16 },
}

/// For one upload.
const TIMEOUT: Duration = Duration::from_secs(60);
/// At once.
const UPLOADS: usize = 4;
/// Nodes look for what others published twice a second.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Parts the fields of a form; no package has it in it.
const BOUNDARY: &str = "bowline-demo-5f1d7c0e9a";

/// Uploads everything to the proxy at `url`, and returns when the node on each of these ports shows it. What is there
/// from an earlier demo stays.
///
/// # Errors
/// See [`PublishError`].
pub(super) async fn all(url: &str, ca: &Path, key: &str, ports: &[u16]) -> Result<(), PublishError> {
    let client = client(ca)?;
    for file in packages::python()? {
        let request = client.post(format!("{url}/packages/pypi/legacy/"));
        let request = request.header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"));
        let project = Project { name: file.project, version: packages::VERSION, kind: file.kind };
        let body = form(project, &file.name, &file.bytes);
        send(request.basic_auth("__token__", Some(key)).body(body), &file.name).await?;
    }
    for File { name, bytes, .. } in packages::r()? {
        let request = client.put(format!("{url}/packages/cran/upload/{name}"));
        send(request.basic_auth("__token__", Some(key)).body(bytes), &name).await?;
    }
    for port in ports {
        let seen = tokio::time::timeout(SEEN_WITHIN, async {
            while !shows(*port).await {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
        seen.await.map_err(|_| PublishError::Unseen { port: *port })?;
    }
    Ok(())
}

pub(super) fn client(ca: &Path) -> Result<Client, PublishError> {
    let unsent = |error: &(dyn std::error::Error + 'static)| PublishError::Unsent(Causes(error).to_string());
    let pem = std::fs::read(ca).map_err(|e| unsent(&e))?;
    let ca = Certificate::from_pem(&pem).map_err(|e| unsent(&e))?;
    // What proxies this machine has are for other machines.
    let client = Client::builder().tls_certs_only([ca]).no_proxy().timeout(TIMEOUT);
    client.build().map_err(|e| unsent(&e))
}

async fn send(request: RequestBuilder, name: &str) -> Result<(), PublishError> {
    let unsent = |error: reqwest::Error| PublishError::Unsent(Causes(&error).to_string());
    let response = request.send().await.map_err(unsent)?;
    let status = response.status();
    let words = response.text().await.map_err(unsent)?.trim().to_owned();
    // Under this name an earlier demo, of another version of Bowline, published other bytes: as good.
    if status.is_success() || words.starts_with("File already exists") {
        return Ok(());
    }
    Err(PublishError::Refused { name: name.to_owned(), status, words })
}

/// Uploads wheels of others.
///
/// # Errors
/// See [`PublishError`].
pub(super) async fn wheels(url: &str, ca: &Path, key: &str, all: &[PathBuf]) -> Result<(), PublishError> {
    let client = client(ca)?;
    let uploads = all.iter().map(async |path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut parts = name.split('-');
        let (project, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let project = Project { name: project, version, kind: "bdist_wheel" };
        let bytes = tokio::fs::read(path).await?;
        let request = client.post(format!("{url}/packages/pypi/legacy/"));
        let request = request.header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"));
        send(request.basic_auth("__token__", Some(key)).body(form(project, &name, &bytes)), &name).await
    });
    let mut uploads = futures_util::stream::iter(uploads).buffer_unordered(UPLOADS);
    while let Some(done) = uploads.next().await {
        done?;
    }
    Ok(())
}

/// What a file is of.
#[derive(Clone, Copy)]
struct Project<'a> {
    name: &'a str,
    version: &'a str,
    /// As uploads call it: `bdist_wheel`, `sdist`.
    kind: &'a str,
}

/// PyPI's legacy upload, as twine sends it (RFC 7578).
fn form(project: Project<'_>, filename: &str, bytes: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let fields = [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("metadata_version", "2.1"),
        ("name", project.name),
        ("version", project.version),
        ("filetype", project.kind),
        ("pyversion", if project.kind == "sdist" { "source" } else { "py3" }),
        ("requires_python", ">=3.8"),
        ("sha256_digest", &digest),
    ];
    let mut body = Vec::new();
    for (name, value) in fields {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        filename
    );
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The node on this port has the packages that need others, and so what was uploaded before them.
async fn shows(port: u16) -> bool {
    let (python, r) = (format!("/packages/pypi/simple/{}/", packages::PYTHON), format!("Package: {}", packages::R));
    let has = async |path: &str, text: &str| {
        ask::http(port, path).await.is_ok_and(|answer| answer.status == 200 && answer.has(text))
    };
    has(&python, ".tar.gz").await && has("/packages/cran/latest/src/contrib/PACKAGES", &r).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_the_fields_and_ends_with_the_file() {
        let project = Project { name: "p-q", version: "1.0", kind: "sdist" };
        let form = form(project, "p_q-1.0.tar.gz", b"\x00\xffbytes");
        let text = String::from_utf8_lossy(&form);
        for wanted in [
            "name=\"name\"\r\n\r\np-q\r\n",
            "name=\"filetype\"\r\n\r\nsdist\r\n",
            "name=\"content\"; filename=\"p_q-1.0.tar.gz\"",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
        assert!(memchr::memmem::find(&form, b"\r\n\r\n\x00\xffbytes\r\n--").is_some());
    }
}
