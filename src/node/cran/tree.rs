//! One folder of a CRAN tree as it stands at one moment: its index, its Archive, its files. Made once per generation of the
//! repository, then answered without a query.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::dated::{Builds, Dated, Key};
use super::index::{self, Archived, Entry, Index, Served};
use super::name;
use crate::node::block;
use crate::node::error::Failure;
use crate::node::parts::Parts;
use crate::node::remote::lists::Listed;
use crate::node::remote::tree::RemotePackage;
use crate::node::remote::{Promise, RemoteBlob};
use crate::node::store::{DAY, RFile, Remote, Repository, StoreError};
use crate::types::Sha256;

/// Trees, bounded in bytes.
pub type Trees = Dated<Tree>;

/// A folder.
#[derive(Debug)]
pub struct Tree {
    /// `PACKAGES` and its like: of each package the newest version.
    pub index: Index,
    /// `Meta/archive.rds`: all other versions of ours.
    pub archive: Served,
    /// What is in it, where other indexes are shown beside it.
    pub archived: Vec<Archived>,
    /// Where it is from.
    pub key: Key,
    /// By filename; those of the Archive too, so that whoever read the index a moment ago finds what it promised.
    files: HashMap<String, Sha256>,
    /// Those of other indexes, by filename.
    far: HashMap<String, RemoteBlob>,
    /// Packages of ours, in whichever folder: nobody else is asked for them.
    names: HashSet<String>,
    /// Packages of other indexes, with the one that decides and its newest version.
    owners: HashMap<String, (Arc<Remote>, String)>,
}

/// For that many bytes of trees.
pub fn trees(bytes_max: u64, builds: Builds) -> Trees {
    Dated::new(bytes_max, builds, |tree| {
        tree.index.weight()
            + tree.archive.bytes.len()
            + (tree.files.len() + tree.names.len() + tree.archived.len() + tree.owners.len()) * 160
            + tree.far.len() * 640
            + 256
    })
}

impl Tree {
    /// The folder of a repository: `""` for sources, else as [`super::package`] names locations; a Linux binary that was not
    /// compiled is in every architecture's.
    ///
    /// # Errors
    /// See [`Failure`]; 503 also where another index is away and what it said is not kept.
    pub async fn of(parts: &Parts, repository: &Repository, location: &str, as_of: i64) -> Result<Arc<Self>, Failure> {
        let (mut others, mut days) = (Vec::new(), Vec::new());
        // What they would give another machine than ours is not known.
        let are_asked = !location.starts_with("linux/") || location.ends_with("/x86_64");
        for remote in repository.remotes.iter().filter(|_| are_asked) {
            let folder = folder(location);
            if as_of == i64::MAX {
                others.push((remote.clone(), parts.remotes.tree(parts, remote, &folder).await?));
            } else if let Some(day) = parts.remotes.tree_on(parts, remote, &folder, as_of).await? {
                days.push((remote.clone(), day));
            }
        }
        let seen = days.iter().map(|(_, day)| day.seen_at);
        let stamps = others.iter().map(|(_, listed)| listed.stamp).chain(seen).collect();
        let changed = if as_of == i64::MAX { Key::NOW } else { changed(parts, repository, as_of).await? };
        let key = Key { repository: repository.id, location: location.to_owned(), changed, stamps };
        let read = async || {
            parts.metrics.indexes.increment();
            let any = match location.rsplit_once('/') {
                Some((folder, _)) if location.starts_with("linux/") => format!("{folder}/any"),
                _ => location.to_owned(),
            };
            for (remote, day) in days {
                others.push((remote, parts.remotes.tree_of(parts, &day).await?));
            }
            let mut files = parts.store.r_files(repository.id, [location, &any], as_of).await?;
            files.retain(|file| block::reason(repository, &file.package, Some(&file.version)).is_none());
            let ours = if others.is_empty() { Vec::new() } else { parts.store.r_packages(repository.id).await? };
            let (key, of) = (key.clone(), repository.clone());
            // 22,000 packages take a third of a second.
            let made = tokio::task::spawn_blocking(move || Arc::new(Self::new(&files, ours, &others, key, &of)));
            made.await.map_err(|e| StoreError::Unavailable(std::io::Error::other(e).into()))
        };
        parts.trees.get(key.clone(), repository.generation, read).await
    }

    /// `files`: by package. `ours`: packages that `others` are not asked for; of those the first that has a package decides.
    fn new(
        files: &[RFile],
        ours: Vec<String>,
        others: &[(Arc<Remote>, Arc<Listed<RemotePackage>>)],
        key: Key,
        repository: &Repository,
    ) -> Self {
        let location = key.location.as_str();
        let mut newest: HashMap<&str, &RFile> = HashMap::new();
        for file in files.iter().filter(|file| !file.is_archived) {
            let there = newest.entry(&file.package).or_insert(file);
            if name::compare(&there.version, &file.version).is_lt() {
                *there = file;
            }
        }
        let is_newest = |file: &RFile| newest.get(file.package.as_str()).is_some_and(|new| std::ptr::eq(*new, file));
        let entry = |file: &RFile| {
            let record = serde_json::from_str(&file.record).ok().and_then(|value: Value| match value {
                Value::Object(record) => Some(record),
                _ => None,
            });
            Entry { record: record.unwrap_or_default(), md5: file.md5.clone() }
        };
        let mut entries: Vec<Entry> = files.iter().filter(|file| is_newest(file)).map(entry).collect();
        let names: HashSet<String> = ours.into_iter().collect();
        let mut owners: HashMap<String, (Arc<Remote>, String)> = HashMap::new();
        let mut far = HashMap::new();
        for (remote, listed) in others {
            let packages = listed.files.as_deref().unwrap_or_default();
            let is_its = |package: &&RemotePackage| {
                !names.contains(&package.name) && !owners.contains_key(&package.name) && remote.allows(&package.name)
            };
            let its: Vec<&RemotePackage> = packages.iter().filter(is_its).collect();
            let is_shown =
                |package: &&&RemotePackage| block::reason(repository, &package.name, Some(&package.version)).is_none();
            for package in its.iter().filter(is_shown) {
                let filename = format!("{}_{}{}", package.name, package.version, ending(location));
                let path = format!("{}/{filename}", folder(location));
                let url = format!("{}{path}", remote.url);
                // Where it is when there is a newer one, which we may not know of, or which is not of our day.
                let archived = super::archive::path(&package.name, &filename);
                let otherwise = location.is_empty().then_some(archived);
                let (promise, path) = match &package.md5 {
                    // Binaries are made anew under the same name.
                    Some(md5) => (Promise::Md5(md5.clone()), format!("{path}#{}", md5.to_ascii_lowercase())),
                    None => (Promise::Nothing, path),
                };
                let is_past = key.changed != Key::NOW;
                far.insert(filename, RemoteBlob { remote: remote.clone(), url, otherwise, path, promise, is_past });
                entries.push(Entry { record: package.record.clone(), md5: package.md5.clone().unwrap_or_default() });
            }
            let owned = |package: &RemotePackage| (package.name.clone(), (remote.clone(), package.version.clone()));
            owners.extend(its.into_iter().map(owned));
        }
        entries.sort_by(|a, b| a.name().cmp(b.name()));
        let mut old: Vec<&RFile> = files.iter().filter(|file| !is_newest(file)).collect();
        old.sort_by(|a, b| a.package.cmp(&b.package).then_with(|| name::compare(&a.version, &b.version)));
        let archived: Vec<Archived> = old
            .into_iter()
            .map(|file| Archived {
                package: file.package.clone(),
                filename: file.filename.clone(),
                size: file.size,
                uploaded_at: file.uploaded_at,
            })
            .collect();
        let named = files.iter().filter_map(|file| Some((file.filename.clone(), file.sha256.parse().ok()?)));
        Self {
            index: Index::new(&entries, location.is_empty()),
            archive: index::archive(&archived),
            archived: if others.is_empty() { Vec::new() } else { archived },
            files: named.collect(),
            far,
            names,
            owners,
            key,
        }
    }

    /// A file that another index shows in this folder.
    pub fn far(&self, filename: &str) -> Option<&RemoteBlob> {
        self.far.get(filename)
    }

    /// Whether no other index was asked.
    pub fn is_ours_alone(&self) -> bool {
        self.key.stamps.is_empty()
    }

    /// Which other index has a package in this folder, and so decides what is of it; and the newest version there.
    pub fn owner(&self, package: &str) -> Option<(&Arc<Remote>, &str)> {
        self.owners.get(package).map(|(remote, version)| (remote, version.as_str()))
    }

    /// Whether a package is ours, so that nobody else is asked for it.
    pub fn is_ours(&self, package: &str) -> bool {
        self.names.contains(package)
    }

    /// The digest of a file.
    pub fn file(&self, filename: &str) -> Option<Sha256> {
        self.files.get(filename).copied()
    }
}

/// The last day before a moment on which anything of ours changed.
async fn changed(parts: &Parts, repository: &Repository, as_of: i64) -> Result<i64, Failure> {
    let read = async || parts.store.r_days(repository.id).await.map(Arc::new);
    let days = parts.changed.get::<Failure>(repository.id, repository.generation, read).await?;
    let before = days.partition_point(|day| *day < as_of / DAY);
    Ok(before.checked_sub(1).map_or(Key::NEVER, |last| days[last]))
}

/// A location as a CRAN tree has it: `windows/4.2` is `bin/windows/contrib/4.2`.
fn folder(location: &str) -> String {
    let parts: Vec<&str> = location.split('/').collect();
    match parts.as_slice() {
        ["linux", codename, version, _] => format!("bin/linux/{version}-{codename}/contrib/{version}"),
        [kind, version] => format!("bin/{kind}/contrib/{version}"),
        [kind, platform, version] => format!("bin/{kind}/{platform}/contrib/{version}"),
        _ => "src/contrib".to_owned(),
    }
}

/// What files end in there.
fn ending(location: &str) -> &'static str {
    match location.split('/').next() {
        Some("windows") => ".zip",
        Some("macosx") => ".tgz",
        _ => ".tar.gz",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::store::Language;

    fn file(package: &str, version: &str, is_archived: bool) -> RFile {
        RFile {
            package: package.into(),
            version: version.into(),
            filename: format!("{package}_{version}.tar.gz"),
            size: 1,
            sha256: "aa".repeat(32),
            md5: "m".into(),
            record: format!("{{\"Package\": \"{package}\", \"Version\": \"{version}\"}}"),
            uploaded_at: 0,
            is_archived,
            position: 0,
        }
    }

    #[test]
    fn the_newest_version_is_in_the_index_and_every_file_is_found() {
        let tree = Tree::new(
            &[file("a", "1.9", false), file("a", "1.10", false), file("a", "2.0", true), file("b", "1.0", true)],
            Vec::new(),
            &[],
            Key { repository: 1, location: String::new(), changed: Key::NOW, stamps: Vec::new() },
            &Repository::empty(Language::R),
        );
        let text = String::from_utf8(tree.index.text.bytes.to_vec()).unwrap();
        assert_eq!(text, "Package: a\nVersion: 1.10\nMD5sum: m\n");
        for there in ["a_1.9.tar.gz", "a_1.10.tar.gz", "a_2.0.tar.gz", "b_1.0.tar.gz"] {
            assert!(tree.file(there).is_some(), "{there}");
        }
        assert!(tree.file("c_1.0.tar.gz").is_none());
    }
}
