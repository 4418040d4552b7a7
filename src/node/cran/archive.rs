//! `Meta/archive.rds` of a repository that shows other indexes too: their old versions beside ours, where the package is theirs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::dated::{Builds, Dated};
use super::index::{self, Archived, Served};
use super::name;
use super::tree::Tree;
use crate::node::block;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::remote::archive::RemoteArchive;
use crate::node::remote::lists::Listed;
use crate::node::store::{Remote, Repository, StoreError};

/// Indexes of Archives, bounded in bytes.
pub type Archives = Dated<Archive>;

/// An index of an Archive.
#[derive(Debug)]
pub struct Archive {
    /// As it is served.
    pub served: Served,
    /// Files of other indexes, on a day that is over. Now they are asked themselves.
    far: HashMap<String, Arc<Remote>>,
}

/// Where an old version is, as rows and URLs have it.
pub fn path(package: &str, filename: &str) -> String {
    format!("src/contrib/Archive/{package}/{filename}")
}

/// For that many bytes of them.
pub fn archives(bytes_max: u64, builds: Builds) -> Archives {
    Dated::new(bytes_max, builds, |archive| archive.served.bytes.len() + archive.far.len() * 128 + 256)
}

impl Archive {
    /// Of the sources of a repository, whose tree this is, as of the same moment.
    ///
    /// # Errors
    /// See [`Failure`]; 503 also where another index is away and what it said is not kept.
    pub async fn of(
        parts: &Parts,
        repository: &Repository,
        tree: &Arc<Tree>,
        as_of: i64,
    ) -> Result<Arc<Self>, Failure> {
        let (mut others, mut days) = (Vec::new(), Vec::new());
        for remote in &repository.remotes {
            if as_of == i64::MAX {
                others.push((remote.clone(), parts.remotes.archive(parts, remote).await?));
            } else if let Some(day) = parts.remotes.archive_on(parts, remote, as_of).await? {
                days.push((remote.clone(), day));
            }
        }
        let seen = days.iter().map(|(_, day)| day.seen_at);
        let key = tree.key.with(others.iter().map(|(_, listed)| listed.stamp).chain(seen));
        let read = async || {
            for (remote, day) in days {
                others.push((remote, parts.remotes.archive_of(parts, &day).await?));
            }
            let (tree, of) = (Arc::clone(tree), repository.clone());
            let made = tokio::task::spawn_blocking(move || {
                let (all, mut far) = merged(&tree, &others, &of);
                if as_of == i64::MAX {
                    far.clear();
                    far.shrink_to_fit();
                }
                Arc::new(Self { served: index::archive(&all), far })
            });
            made.await.map_err(|e| StoreError::Unavailable(std::io::Error::other(e).into()))
        };
        parts.archives.get(key, repository.generation, read).await
    }

    /// Whose file it is, on a day that is over.
    pub fn owner(&self, filename: &str) -> Option<&Arc<Remote>> {
        self.far.get(filename)
    }
}

/// By package and version, and those of other indexes by name. A package is of one source only: ours, or the first other index that has it, or had it last.
fn merged(
    tree: &Tree,
    others: &[(Arc<Remote>, Arc<Listed<RemoteArchive>>)],
    repository: &Repository,
) -> (Vec<Archived>, HashMap<String, Arc<Remote>>) {
    let mut all = tree.archived.clone();
    let mut far = HashMap::new();
    let mut names: HashSet<&str> = HashSet::new();
    for (remote, listed) in others {
        let packages = listed.files.as_deref().unwrap_or_default();
        let is_shown = |package: &&RemoteArchive| {
            let name = package.name.as_str();
            let is_its = tree.owner(name).is_none_or(|(owner, _)| owner.id == remote.id);
            is_its && !tree.is_ours(name) && !names.contains(name) && remote.allows(name)
        };
        let shown: Vec<&RemoteArchive> = packages.iter().filter(is_shown).collect();
        for package in &shown {
            let versions = package.versions.iter();
            let given = versions.filter(|file| block::reason(repository, &package.name, Some(&file.version)).is_none());
            for file in given {
                let filename = format!("{}_{}.tar.gz", package.name, file.version);
                far.insert(filename.clone(), remote.clone());
                let (package, uploaded_at) = (package.name.clone(), file.modified);
                all.push(Archived { package, filename, size: file.size, uploaded_at });
            }
        }
        names.extend(shown.into_iter().map(|package| package.name.as_str()));
    }
    let version = |file: &Archived| name::split(&file.filename).map(|(_, version, _)| version.to_owned());
    all.sort_by(|a, b| {
        a.package
            .cmp(&b.package)
            .then_with(|| name::compare(&version(a).unwrap_or_default(), &version(b).unwrap_or_default()))
    });
    (all, far)
}
