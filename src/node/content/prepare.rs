//! From a bundle to something that can be started on this node: unpacked, with its environment, its variables and its place.

use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::copies::Copy;
use super::interpreter::nearest;
use super::launch::{Launch, Places, launch, requirements};
use super::manifest::Manifest;
use super::mode::{Language, Mode};
use super::worker::Start;
use super::{bundle, python, variable};
use crate::node::parts::Parts;
use crate::node::sandbox::{Folder, Memory};
use crate::node::store::{BundleRow, ContentRow};
use crate::types::Sha256;

/// Where an unpacked bundle is, as its programs see it.
const APP: &str = "/app";

/// The folder of a bundle on this node.
///
/// # Errors
/// Why there is none, in a sentence.
pub async fn unpacked(parts: &Parts, bundle: &BundleRow) -> Result<PathBuf, String> {
    let digest: Sha256 = bundle.sha256.parse().map_err(|_| "the bundle's digest is none".to_owned())?;
    let making = match parts.contents.bundles.get(&bundle.sha256).await? {
        Copy::There(path) => return Ok(path),
        Copy::Missing(making) => making,
    };
    let told = |e: &dyn std::fmt::Display| format!("the bundle cannot be read: {e}");
    let size = parts.packages.size(&digest).await.map_err(|e| told(&e))?;
    let mut stream = parts.packages.read(&digest, 0..size).await.map_err(|e| told(&e))?;
    let scratch = parts.spool.scratch().map_err(|e| told(&e))?;
    let path = scratch.path().join("bundle.tar.gz");
    let mut file = tokio::fs::File::create(&path).await.map_err(|e| told(&e))?;
    while let Some(piece) = stream.next().await {
        file.write_all(&piece.map_err(|e| told(&e))?).await.map_err(|e| told(&e))?;
    }
    file.flush().await.map_err(|e| told(&e))?;
    drop(file);
    let unpacked_max = parts.settings.content.unpacked_bytes_max;
    let unpacked = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
        bundle::unpack(file, unpacked_max, making.folder())?;
        making.done()
    });
    unpacked.await.map_err(|e| told(&e))?
}

/// What a bundle needs to be started on this node; what takes long is done once. `say`: what is said meanwhile.
///
/// # Errors
/// Why it cannot be started, in a sentence.
pub async fn prepare(
    parts: &Parts,
    content: &ContentRow,
    bundle: &BundleRow,
    prefix: &str,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Start, String> {
    let manifest: Manifest =
        serde_json::from_str(&bundle.manifest).map_err(|e| format!("the bundle's manifest cannot be read: {e}"))?;
    let mode = manifest.mode().ok_or_else(|| format!("this server does not run `{}`", manifest.mode))?;
    let app = unpacked(parts, bundle).await?;
    let settings = &parts.settings.content;
    let mut folders = vec![Folder { from: app.clone(), to: APP.into(), is_writable: false }];
    let mut python_at = String::new();
    if mode.language() == Language::Python {
        let all = parts.contents.interpreters.python().await;
        let interpreter = nearest(all, manifest.python.as_deref()).ok_or("there is no Python on this node")?;
        folders.extend(interpreter.folder());
        let wanted =
            python::Wanted { interpreter, app: &app, file: manifest.requirements.as_deref(), more: requirements(mode) };
        python_at = match python::environment(parts, &wanted, say).await? {
            Some(environment) => {
                folders.push(Folder { from: environment, to: python::AT.into(), is_writable: false });
                format!("{}/venv/bin/python", python::AT)
            }
            None => interpreter.program.clone(),
        };
    }
    let mut r_at = String::new();
    if mode.language() == Language::R {
        let all = parts.contents.interpreters.r().await;
        let interpreter = nearest(all, manifest.r.as_deref()).ok_or("there is no R on this node")?;
        folders.extend(interpreter.folder());
        r_at.clone_from(&interpreter.program);
    }
    let places = Places { app: APP, socket: super::worker::SOCKET, python: &python_at, r: &r_at, prefix };
    let launch = launch(mode, &manifest, &places)
        .ok_or_else(|| format!("content of the kind `{}` is not answered for by a process", manifest.mode))?;
    let environment = environment(parts, content, mode, &launch).await?;
    let start = Start {
        program: launch.program.clone(),
        environment,
        folders,
        readable: settings.readable.clone(),
        uid: settings.uid,
        memory: settings.memory_max.map_or(Memory::Unbounded, Memory::Writable),
        tmp: settings.disk_max,
        wants_port: launch.wants_port,
        folder: parts.spool.scratch().map_err(|e| format!("it has no place for its socket: {e}"))?,
    };
    Ok(start)
}

/// What a process finds in its environment: the publisher's variables, then ours.
async fn environment(
    parts: &Parts,
    content: &ContentRow,
    mode: Mode,
    launch: &Launch,
) -> Result<Vec<(String, String)>, String> {
    let sealed = parts.store.variables(content.id).await.map_err(|e| format!("its variables cannot be read: {e}"))?;
    let mut all = Vec::new();
    if let Some(url) = &parts.settings.external_url {
        // The one that may be another.
        all.push(("CONNECT_SERVER".to_owned(), format!("{url}/")));
    }
    for (name, sealed) in sealed {
        let value = variable::open(&parts.key, &content.guid, &name, &sealed)
            .ok_or_else(|| format!("the variable `{name}` was sealed with another key; set it anew"))?;
        all.push((name, value));
    }
    for (name, value) in [
        ("CONNECT_CONTENT_GUID", content.guid.as_str()),
        ("POSIT_PRODUCT", "CONNECT"),
        ("RSTUDIO_PRODUCT", "CONNECT"),
        ("TMPDIR", "/tmp"),
    ] {
        all.push((name.to_owned(), value.to_owned()));
    }
    if mode.language() == Language::Python {
        for (name, value) in [("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1")] {
            all.push((name.to_owned(), value.to_owned()));
        }
    }
    all.extend(launch.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Ok(all)
}
