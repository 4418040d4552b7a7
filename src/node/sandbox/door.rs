//! The one thing of the network that can be reached from inside: a repository of ours, to be read.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::node::download::HERE;
use crate::node::parts::Origin;
use crate::runtime::dice;

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;

/// A socket by which one repository is served while this lives.
#[derive(Debug)]
pub struct Door {
    folder: PathBuf,
    name: String,
    _serving: JoinSet<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Door {
    /// Opens one for reading this repository, whoever it is open to otherwise, by this user where we are root.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(router: Router, repository: &str, uid: u32) -> io::Result<Self> {
        // Where whoever it is for may go, whatever folders of ours are closed to.
        let folder = std::env::temp_dir().join(format!("bowline-{:032x}", dice::unique()));
        fs::create_dir(&folder)?;
        let name = format!("{:032x}", dice::unique());
        let mut door = Self { folder, name, _serving: JoinSet::new() };
        fs::set_permissions(&door.folder, fs::Permissions::from_mode(0o700))?;
        let path = door.folder.join(&door.name);
        let listener = UnixListener::bind(&path)?;
        if rustix::process::geteuid().is_root() {
            for path in [&path, &door.folder] {
                chown(path, Some(uid), Some(uid))?;
            }
        }
        door._serving.spawn(serve(listener, router, format!("/packages/{repository}/").into()));
        Ok(door)
    }

    /// Where the socket is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it is called there.
    pub fn name(&self) -> &str {
        &self.name
    }
}

async fn serve(listener: UnixListener, router: Router, below: Arc<str>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone(), Arc::clone(&below)))),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: UnixStream, router: Router, below: Arc<str>) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read || !request.uri().path().starts_with(&*below) {
            // To a place where nothing is.
            *request.uri_mut() = http::Uri::from_static("/-");
        }
        request.headers_mut().remove(http::header::AUTHORIZATION);
        request.headers_mut().insert(HERE, HeaderValue::from_static("1"));
        request.extensions_mut().insert(Origin { is_host: true, ..Origin::default() });
        let service = TowerToHyperService::new(router.clone());
        hyper::service::Service::call(&service, request)
    });
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection from a sandbox broke off");
    }
}
