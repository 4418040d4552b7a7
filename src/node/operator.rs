//! Commands on a node's own machine: the same handlers as over HTTP, called without a socket and without a key.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::service::TowerToHyperService;

use super::blob::Bytestream;
use super::parts::{Origin, Parts};
use super::store::{Migrate, Store};
use super::{NodeError, router};
use crate::config::node::Settings;

/// Whoever works on the machine of a node, with its configuration.
pub struct Operator {
    router: Router,
    store: Store,
}

/// The body of a request.
pub enum Outgoing {
    /// In memory.
    Whole(Bytes),
    /// From a file.
    Stream(Bytestream),
}

impl Operator {
    /// Opens what the configuration names. Runs beside nodes that serve.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn open(settings: Settings) -> Result<Self, NodeError> {
        let parts = Parts::open(settings, Migrate::IfEmpty, None).await?.0;
        Ok(Self { store: parts.store.clone(), router: router::router(parts) })
    }

    /// Does what a request asks for: status and body of the answer.
    ///
    /// # Errors
    /// The answer broke off or is longer than `bytes_max`.
    pub async fn call(&self, request: Request<Outgoing>, bytes_max: usize) -> Result<(StatusCode, Bytes), axum::Error> {
        let mut request = request.map(|body| match body {
            Outgoing::Whole(bytes) => Body::from(bytes),
            Outgoing::Stream(stream) => Body::from_stream(stream),
        });
        request.extensions_mut().insert(Origin { is_host: true, ..Origin::default() });
        let service = TowerToHyperService::new(self.router.clone());
        let response = match hyper::service::Service::call(&service, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (head, body) = response.into_parts();
        Ok((head.status, axum::body::to_bytes(body, bytes_max).await?))
    }

    /// Lets the database go.
    pub async fn close(self) {
        self.store.close().await;
    }
}
