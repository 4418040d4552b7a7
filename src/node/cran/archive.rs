//! `Meta/archive.rds` of a repository that shows other indexes too: their old versions beside ours, where the package is theirs.

use std::collections::HashSet;
use std::sync::Arc;

use super::index::{self, Archived, Served};
use super::name;
use super::tree::{Key, Tree};
use crate::node::block;
use crate::node::error::Failure;
use crate::node::known::Known;
use crate::node::parts::Parts;
use crate::node::remote::archive::RemoteArchive;
use crate::node::remote::lists::Listed;
use crate::node::store::{Remote, Repository, StoreError};

/// Served indexes of Archives, bounded in bytes.
pub type Archives = Known<Key, Arc<Served>>;

/// For that many bytes of them.
pub fn archives(bytes_max: u64) -> Archives {
    Known::new(bytes_max, |_, served: &Arc<Served>| u32::try_from(served.bytes.len() + 256).unwrap_or(u32::MAX))
}

/// Of the sources of a repository, whose tree this is.
///
/// # Errors
/// See [`Failure`]; 503 also where another index is away and what it said is not kept.
pub async fn of(parts: &Parts, repository: &Repository, tree: &Arc<Tree>) -> Result<Arc<Served>, Failure> {
    let mut others = Vec::new();
    for remote in &repository.remotes {
        others.push((remote.clone(), parts.remotes.archive(parts, remote).await?));
    }
    let key = tree.key.with(others.iter().map(|(_, listed)| listed.stamp));
    let read = async || {
        let (tree, of) = (Arc::clone(tree), repository.clone());
        let made = tokio::task::spawn_blocking(move || Arc::new(index::archive(&merged(&tree, &others, &of))));
        made.await.map_err(|e| StoreError::Unavailable(std::io::Error::other(e).into()))
    };
    parts.archives.get(key, repository.generation, read).await
}

/// By package and version. A package is of one source only: ours, or the first other index that has it, or had it last.
fn merged(tree: &Tree, others: &[(Arc<Remote>, Arc<Listed<RemoteArchive>>)], repository: &Repository) -> Vec<Archived> {
    let mut all = tree.archived.clone();
    let mut names: HashSet<&str> = HashSet::new();
    for (remote, listed) in others {
        let packages = listed.files.as_deref().unwrap_or_default();
        let is_shown = |package: &&RemoteArchive| {
            let name = package.name.as_str();
            let is_its = tree.owner(name).is_none_or(|owner| owner.id == remote.id);
            is_its && !tree.is_ours(name) && !names.contains(name) && remote.allows(name)
        };
        let shown: Vec<&RemoteArchive> = packages.iter().filter(is_shown).collect();
        for package in &shown {
            let versions = package.versions.iter();
            let given = versions.filter(|file| block::reason(repository, &package.name, Some(&file.version)).is_none());
            all.extend(given.map(|file| Archived {
                package: package.name.clone(),
                filename: format!("{}_{}.tar.gz", package.name, file.version),
                size: file.size,
                uploaded_at: file.modified,
            }));
        }
        names.extend(shown.into_iter().map(|package| package.name.as_str()));
    }
    let version = |file: &Archived| name::split(&file.filename).map(|(_, version, _)| version.to_owned());
    all.sort_by(|a, b| {
        a.package
            .cmp(&b.package)
            .then_with(|| name::compare(&version(a).unwrap_or_default(), &version(b).unwrap_or_default()))
    });
    all
}
