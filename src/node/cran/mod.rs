//! R packages: a CRAN tree as `install.packages`, renv, pak and remotes read it.

pub mod agent;
pub mod archive;
pub mod dated;
pub mod description;
pub mod index;
pub mod name;
pub mod package;
pub mod rds;
pub mod serve;
pub mod status;
pub mod tree;

use crate::node::blob::Spooled;
use crate::node::error::Failure;
use crate::node::publish::Prepared;

/// A package that came as a file.
///
/// # Errors
/// See [`Failure`].
pub async fn prepare(filename: &str, spooled: Spooled, distribution: Option<String>) -> Result<Prepared, Failure> {
    let filename = name::plain(filename);
    let (path, name) = (spooled.path().to_owned(), filename.clone());
    let looked = tokio::task::spawn_blocking(move || package::inspect(&path, &name, distribution.as_deref())).await;
    let package = looked.map_err(std::io::Error::other)?.map_err(Failure::bad)?;
    Ok(Prepared {
        project: package.name.clone(),
        normal_name: package.name,
        version: package.version,
        kind: if package.location.is_empty() { "source" } else { "binary" },
        location: package.location,
        filename,
        requires_python: None,
        spooled,
        metadata: Some(package.description),
        attestations: None,
        record: package.record,
    })
}
