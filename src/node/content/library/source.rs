//! A package's file, from a repository of ours: asked as R would ask, but within this program.

use std::io::Write;
use std::path::{Path, PathBuf};

use axum::Extension;
use axum::extract::{Path as Asked, State};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sha2::Digest;

use super::installed::{DESCRIPTION_MAX, needs};
use crate::node::archive::Tar;
use crate::node::content::interpreter::Interpreter;
use crate::node::cran::description::Description;
use crate::node::cran::serve;
use crate::node::download::HERE;
use crate::node::error::Failure;
use crate::node::parts::{Origin, Parts};
use crate::node::view::View;
use crate::types::Sha256;

/// A package's file.
#[derive(Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    pub digest: Sha256,
    pub bytes: u64,
    /// Packages it is not installed without.
    pub needs: Vec<String>,
}

/// What runs this machine.
#[derive(Debug)]
pub(super) struct System {
    /// Name and release: what is compiled is for that.
    pub id: String,
    /// `bookworm`; empty: it has none, and no binary package is asked for.
    pub codename: String,
}

/// As `/etc/os-release` says (os-release(5)).
pub(super) async fn system() -> System {
    let text = tokio::fs::read_to_string("/etc/os-release").await.unwrap_or_default();
    read(&text)
}

fn read(text: &str) -> System {
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    System { id: format!("{} {}", value("ID"), value("VERSION_ID")), codename: value("VERSION_CODENAME") }
}

/// How R says what it is: see [`crate::node::cran::agent`].
pub(super) fn agent(interpreter: &Interpreter) -> String {
    let Interpreter { version, platform, .. } = interpreter;
    let arch = platform.split('-').next().unwrap_or_default();
    format!("R/{version} R ({version} {platform} {arch} linux-gnu)")
}

/// Who asks for a version of a package, and where.
#[derive(Clone)]
pub(super) struct Ask {
    pub parts: Parts,
    pub repository: String,
    /// See [`System`].
    pub codename: String,
    /// See [`agent`].
    pub agent: String,
    pub name: String,
    pub version: String,
    /// Where its file is to be.
    pub folder: PathBuf,
}

/// The file, wherever the repository has it: a binary for this machine, else its source, of now or of the Archive; `None`: it
/// does not have it.
///
/// # Errors
/// Why it does not give it, in a sentence.
pub(super) fn fetch(ask: Ask) -> BoxFuture<'static, Result<Option<Source>, String>> {
    Box::pin(fetched(ask))
}

async fn fetched(ask: Ask) -> Result<Option<Source>, String> {
    let Ask { parts, repository, codename, agent, name, version, folder } = ask;
    let filename = format!("{name}_{version}.tar.gz");
    let broken =
        |e: &dyn std::fmt::Display| format!("the repository `{repository}` does not give {name} {version}: {e}");
    let agent = HeaderValue::from_str(&agent).map_err(|e| broken(&e))?;
    let answer = match asked(parts.clone(), repository.clone(), codename, filename.clone(), agent).await {
        Err(failure) if failure.status() == StatusCode::NOT_FOUND => return Ok(None),
        Err(failure) => return Err(broken(&failure.message())),
        Ok(answer) => answer,
    };
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        other => return Err(broken(&other)),
    }
    let path = folder.join(&filename);
    let mut file = std::fs::File::create(&path).map_err(|e| broken(&e))?;
    let (mut sha256, mut bytes) = (sha2::Sha256::new(), 0);
    let mut stream = answer.into_body().into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|e| broken(&e))?;
        bytes += piece.len() as u64;
        if bytes > parts.settings.packages.file_bytes_max {
            return Err(broken(&"it is larger than any package (`packages.file_bytes_max`)"));
        }
        sha256.update(&piece);
        file.write_all(&piece).map_err(|e| broken(&e))?;
    }
    drop(file);
    let (described, wanted) = (path.clone(), format!("{name}/DESCRIPTION"));
    let looked = tokio::task::spawn_blocking(move || described_needs(&described, &wanted));
    let needs = looked.await.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
    Ok(Some(Source { path, digest: Sha256::new(sha256.finalize().into()), bytes, needs }))
}

/// What is answered to who asks for a file.
fn asked(
    parts: Parts,
    repository: String,
    codename: String,
    filename: String,
    agent: HeaderValue,
) -> BoxFuture<'static, Result<Response, Failure>> {
    let fields = HeaderMap::from_iter([(USER_AGENT, agent), (HERE, HeaderValue::from_static("1"))]);
    let origin = Extension(Origin { is_host: true, ..Origin::default() });
    let (parts, latest) = (State(parts), View::LATEST.to_owned());
    match codename.is_empty() {
        true => Box::pin(serve::source_of(parts, origin, Asked((repository, latest, filename)), Method::GET, fields)),
        false => {
            let path = Asked((repository, codename, latest, filename));
            Box::pin(serve::linux(parts, origin, path, Method::GET, fields))
        }
    }
}

/// What a package's file says it needs. Blocks.
fn described_needs(path: &Path, wanted: &str) -> Result<Vec<String>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut found = Tar::look(file, |name| name == wanted, DESCRIPTION_MAX)?;
    let (_, description) = found.read.pop().ok_or_else(|| format!("it has no {wanted}"))?;
    let description = Description::parse(&description)?;
    Ok(needs(&description, description.get("Built").is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cran::agent::RAgent;

    #[test]
    fn this_machine_says_what_it_is() {
        let System { id, codename } =
            read("PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n");
        assert_eq!((id.as_str(), codename.as_str()), ("debian 12", "bookworm"));
        assert_eq!(read("").codename, "");
        let interpreter = Interpreter {
            program: "R".into(),
            version: "4.2.2".into(),
            root: None,
            platform: "x86_64-pc-linux-gnu".into(),
            libraries: Vec::new(),
        };
        let told = RAgent::parse(&agent(&interpreter)).unwrap();
        assert_eq!((told.version.as_str(), told.arch.as_str()), ("4.2", "x86_64"));
    }
}
