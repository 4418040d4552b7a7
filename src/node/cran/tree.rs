//! One folder of a CRAN tree as it stands at one moment: its index, its Archive, its files. Made once per generation of the
//! repository, then answered without a query.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::index::{self, Archived, Entry, Index, Served};
use super::name;
use crate::node::known::Known;
use crate::node::parts::Parts;
use crate::node::store::{RFile, Repository, StoreError};
use crate::types::Sha256;

/// Trees, bounded in bytes.
pub type Trees = Known<Key, Arc<Tree>>;

/// Which folder of which repository, when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    repository: i64,
    location: String,
    /// See [`crate::node::view::View::as_of`].
    as_of: i64,
}

/// A folder.
#[derive(Debug)]
pub struct Tree {
    /// `PACKAGES` and its like: of each package the newest version.
    pub index: Index,
    /// `Meta/archive.rds`: all other versions.
    pub archive: Served,
    /// By filename; those of the Archive too, so that whoever read the index a moment ago finds what it promised.
    files: HashMap<String, Sha256>,
}

/// For that many bytes of trees.
pub fn trees(bytes_max: u64) -> Trees {
    Known::new(bytes_max, |_, tree: &Arc<Tree>| {
        let bytes = tree.index.weight() + tree.archive.bytes.len() + tree.files.len() * 160 + 256;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    })
}

impl Tree {
    /// The folder of a repository: `""` for sources, else as [`super::package`] names locations; a Linux binary that was not
    /// compiled is in every architecture's.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn of(
        parts: &Parts,
        repository: &Repository,
        location: &str,
        as_of: i64,
    ) -> Result<Arc<Self>, StoreError> {
        let key = Key { repository: repository.id, location: location.to_owned(), as_of };
        let read = async || {
            parts.metrics.indexes.increment();
            let any = match location.rsplit_once('/') {
                Some((folder, _)) if location.starts_with("linux/") => format!("{folder}/any"),
                _ => location.to_owned(),
            };
            let files = parts.store.r_files(repository.id, [location, &any], as_of).await?;
            let is_source = location.is_empty();
            // 22,000 packages take a third of a second.
            let made = tokio::task::spawn_blocking(move || Arc::new(Self::new(&files, is_source)));
            made.await.map_err(|e| StoreError::Unavailable(std::io::Error::other(e).into()))
        };
        parts.trees.get(key, repository.generation, read).await
    }

    /// `files`: by package.
    fn new(files: &[RFile], is_source: bool) -> Self {
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
        let entries: Vec<Entry> = files.iter().filter(|file| is_newest(file)).map(entry).collect();
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
        Self { index: Index::new(&entries, is_source), archive: index::archive(&archived), files: named.collect() }
    }

    /// The digest of a file.
    pub fn file(&self, filename: &str) -> Option<Sha256> {
        self.files.get(filename).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            true,
        );
        let text = String::from_utf8(tree.index.text.bytes.to_vec()).unwrap();
        assert_eq!(text, "Package: a\nVersion: 1.10\nMD5sum: m\n");
        for there in ["a_1.9.tar.gz", "a_1.10.tar.gz", "a_2.0.tar.gz", "b_1.0.tar.gz"] {
            assert!(tree.file(there).is_some(), "{there}");
        }
        assert!(tree.file("c_1.0.tar.gz").is_none());
    }
}
