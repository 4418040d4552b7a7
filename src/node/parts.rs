//! What handlers share.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::watch;

use super::auth::{Auth, Caller};
use super::blob::{Blobs, Spool};
use super::catalog::Catalog;
use super::cran::tree::Trees;
use super::error::Failure;
use super::known::Known;
use super::pypi::Pages;
use super::registry::Unfit;
use super::store::{KnownFile, Repository, Scope, Store};
use crate::config::node::Settings;
use crate::types::Sha256;

/// Everything a request may need; cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// What the operator wants.
    pub settings: Arc<Settings>,
    /// Rows.
    pub store: Store,
    /// Bytes of packages.
    pub packages: Blobs,
    /// Uploads on their way.
    pub spool: Spool,
    /// Who is calling.
    pub auth: Auth,
    /// The repositories.
    pub catalog: Catalog,
    /// Rendered index pages of Python repositories.
    pub pages: Pages,
    /// Indexes of R packages.
    pub trees: Trees,
    /// Rows of files that were asked for, by repository, digest and name.
    pub files: Known<(i64, Sha256, String), Option<KnownFile>>,
    /// Whether this node may go on.
    pub fitness: watch::Receiver<Unfit>,
}

/// Where a request came from, as far as we believe it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// The client; `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// Not a request at all but a command on this machine, which may do everything.
    pub is_host: bool,
}

impl Parts {
    /// The repository of this name, if the caller may install from it.
    ///
    /// # Errors
    /// 401, 403, 404, 503.
    pub async fn readable(&self, name: &str, fields: &HeaderMap, origin: Origin) -> Result<Arc<Repository>, Failure> {
        let caller = self.auth.caller(fields, origin).await?;
        let found = self.catalog.find(name);
        if found.as_ref().is_ok_and(|r| r.anonymous_read) || caller.may(Scope::Read, name) {
            return found;
        }
        match caller {
            // Who may not see it is not told whether it is there.
            Caller::Anonymous => Err(Failure::needs_key()),
            _ => Err(Failure::forbidden(format_args!("read repository `{name}`"))),
        }
    }
}
