//! What a path looks like from outside: enough to tell that somebody wrote, replaced or removed something.

use std::collections::hash_map::DefaultHasher;
use std::fs::Metadata;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Device and number.
pub(super) type Inode = (u64, u64);

/// Of a file: inode, size, mode, owner and times. Of a folder: those of its entries and of its folders' entries, with
/// their names. Links are followed. Equal fingerprints: nobody has changed anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// Entries of one folder that are looked at.
const ENTRIES_MAX: usize = 50_000;

impl Fingerprint {
    /// Never fails: what cannot be looked at has a fingerprint too.
    pub(super) fn of(path: &Path) -> Self {
        let mut hasher = DefaultHasher::new();
        add(path, 2, &mut hasher);
        Self(hasher.finish())
    }
}

/// Two levels of folders, as certbot's `live/NAME/` needs.
fn add(path: &Path, levels: u8, hasher: &mut DefaultHasher) {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return error.kind().hash(hasher),
    };
    if !metadata.is_dir() {
        return add_file(&metadata, hasher);
    }
    // Not the folder's own times: they change with every editor's temporary file. Its mode decides whether we may read.
    (metadata.dev(), metadata.ino(), metadata.mode()).hash(hasher);
    if levels == 0 {
        return;
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return error.kind().hash(hasher),
    };
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        .take(ENTRIES_MAX)
        .collect();
    names.sort();
    for name in names {
        name.hash(hasher);
        add(&path.join(&name), levels - 1, hasher);
    }
}

fn add_file(metadata: &Metadata, hasher: &mut DefaultHasher) {
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.mode(), metadata.uid(), metadata.gid()).hash(hasher);
    // The change time too: it moves when a tool sets the modification time back.
    (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()).hash(hasher);
}
