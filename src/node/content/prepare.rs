//! From a bundle to something that can be started on this node: unpacked, with its environment, its variables and its place.

use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::copies::{Copies, Copy, Held};
use super::interpreter::nearest;
use super::launch::{Places, launch, requirements};
use super::manifest::Manifest;
use super::mode::{Language, Mode};
use super::settings::Settings;
use super::worker::Start;
use super::{account, bundle, library, nodejs, python, shared, variable};
use crate::node::parts::Parts;
use crate::node::sandbox::Folder;
use crate::node::store::{BundleRow, ContentRow, RenderingRow};
use crate::runtime::clock;
use crate::types::Sha256;

/// Where an unpacked bundle is, as its programs see it.
pub const APP: &str = "/app";

/// The folder of a bundle on this node.
///
/// # Errors
/// Why there is none, in a sentence.
pub async fn unpacked(parts: &Parts, bundle: &BundleRow) -> Result<PathBuf, String> {
    copy(parts, &parts.contents.bundles, &bundle.sha256).await
}

/// The folder of a rendering on this node, which has `files`.
///
/// # Errors
/// Why there is none, in a sentence.
pub async fn shown(parts: &Parts, rendering: &RenderingRow) -> Result<PathBuf, String> {
    copy(parts, &parts.contents.renderings, &rendering.sha256).await
}

/// What a blob unpacks to.
async fn copy(parts: &Parts, copies: &Copies, sha256: &str) -> Result<PathBuf, String> {
    let digest: Sha256 = sha256.parse().map_err(|_| "the bundle's digest is none".to_owned())?;
    let making = match copies.get(sha256).await? {
        Copy::There(path) => return Ok(path),
        Copy::Missing(making) => making,
    };
    let told = |e: &dyn std::fmt::Display| format!("the bundle cannot be read: {e}");
    let size = parts.bundles.size(&digest).await.map_err(|e| told(&e))?;
    let mut stream = parts.bundles.read(&digest, 0..size).await.map_err(|e| told(&e))?;
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

/// What a bundle needs on this node to be run or rendered; what takes long was done.
#[derive(Debug)]
pub struct Ground {
    /// What runs.
    pub manifest: Manifest,
    /// Its kind.
    pub mode: Mode,
    /// What it sees of this machine: itself at [`APP`], its interpreter and environment.
    pub folders: Vec<Folder>,
    /// Those of them that are copies, which stay.
    pub held: Vec<Held>,
    /// The Python that has what it requires; empty: it needs none.
    pub python: String,
    /// R; empty: it needs none.
    pub r: String,
    /// Quarto; empty: it needs none.
    pub quarto: String,
    /// Node.js; empty: it needs none.
    pub nodejs: String,
    /// What its environment wants in the variables of a process.
    pub variables: Vec<(&'static str, String)>,
}

/// Makes it. `say`: what is said meanwhile.
///
/// # Errors
/// Why it cannot be, in a sentence.
pub async fn ground(
    parts: &Parts,
    content: &ContentRow,
    bundle: &BundleRow,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Ground, String> {
    let manifest: Manifest =
        serde_json::from_str(&bundle.manifest).map_err(|e| format!("the bundle's manifest cannot be read: {e}"))?;
    let mode = manifest.mode().ok_or_else(|| format!("this server does not run `{}`", manifest.mode))?;
    let app = unpacked(parts, bundle).await?;
    let mut held = vec![parts.contents.bundles.hold(&app)];
    let mut folders = vec![Folder { from: app.clone(), to: APP.into(), is_writable: false }];
    let (mut python_at, mut r_at, mut quarto_at, mut nodejs_at) = Default::default();
    let mut variables = Vec::new();
    let language = mode.language();
    let is_quarto = language == Language::Quarto;
    if language == Language::Python || is_quarto && manifest.requirements.is_some() {
        let all = parts.contents.interpreters.python().await;
        let interpreter = nearest(all, manifest.python.as_deref()).ok_or("there is no Python on this node")?;
        folders.extend(interpreter.folder());
        let wanted =
            python::Wanted { interpreter, app: &app, file: manifest.requirements.as_deref(), more: requirements(mode) };
        python_at = match python::environment(parts, &wanted, say).await? {
            Some(environment) => {
                held.push(parts.contents.environments.hold(&environment));
                folders.push(Folder { from: environment, to: python::AT.into(), is_writable: false });
                format!("{}/venv/bin/python", python::AT)
            }
            None => interpreter.program.clone(),
        };
    }
    if language == Language::R || is_quarto && manifest.r.is_some() {
        let all = parts.contents.interpreters.r().await;
        let interpreter = nearest(all, manifest.r.as_deref()).ok_or("there is no R on this node")?;
        folders.extend(interpreter.folder());
        r_at = interpreter.program.clone();
        if Settings::read(&content.settings).manages_r(Some(&manifest)) {
            let wanted = library::Wanted { interpreter, packages: &manifest.packages };
            if let Some(made) = library::library(parts, wanted, say).await? {
                held.push(parts.contents.libraries.hold(&made));
                folders.push(Folder { from: made, to: library::AT.into(), is_writable: false });
                variables = library::variables();
            }
        }
    }
    if is_quarto {
        let quarto = parts.contents.interpreters.quarto().await;
        let quarto = quarto.ok_or("there is no Quarto on this node: install it, and name it in `content.quarto`")?;
        folders.extend(quarto.folder());
        quarto_at = quarto.program.clone();
    }
    if language == Language::Nodejs {
        let program = parts.contents.interpreters.nodejs().await;
        let program = program.ok_or("there is no Node.js on this node: install it, and name it in `content.nodejs`")?;
        folders.extend(program.folder());
        nodejs_at = program.program.clone();
        if let Some(words) = nodejs::lacks(&app).await {
            say(&words);
        }
    }
    let (python, r, quarto, nodejs) = (python_at, r_at, quarto_at, nodejs_at);
    Ok(Ground { manifest, mode, folders, held, python, r, quarto, nodejs, variables })
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
    let ground = ground(parts, content, bundle, say).await?;
    let Ground { manifest, mode, folders, held, python, r, nodejs, variables, .. } = ground;
    let settings = &parts.settings.content;
    let places = Places { app: APP, socket: super::worker::SOCKET, python: &python, r: &r, nodejs: &nodejs, prefix };
    let launch = launch(mode, &manifest, &places)
        .ok_or_else(|| format!("content of the kind `{}` is not answered for by a process", manifest.mode))?;
    let own = [launch.environment, variables].concat();
    let environment = environment(parts, content, mode, &own).await?;
    let wanted = Settings::read(&content.settings);
    let (memory, cpu) = wanted.shares(settings);
    let known_at = i64::try_from(clock::unix().as_micros()).unwrap_or(i64::MAX);
    let start = Start {
        known_at,
        program: launch.program.clone(),
        environment,
        folders: shared::with(parts, folders).await?,
        held,
        readable: settings.readable.clone(),
        account: account::of(parts, content).await?,
        memory,
        cpu,
        tmp: settings.disk_max,
        wants_port: launch.wants_port,
        outbound: wanted.outbound(settings),
    };
    Ok(start)
}

/// What a process finds in its environment: the publisher's variables, then ours, then what its kind needs.
///
/// # Errors
/// Why not, in a sentence.
pub async fn environment(
    parts: &Parts,
    content: &ContentRow,
    mode: Mode,
    own: &[(&'static str, String)],
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
    all.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Ok(all)
}
