//! Which folders to listen to: those that hold a link or a name on the way to a path.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::fingerprint::Inode;

/// Links on the way of one path, as the kernel has it (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Folders in all; what is beyond is noticed by looking.
const FOLDERS_MAX: usize = 1_024;

/// Every folder in which something on the way to one of the paths could be swapped, with the folder's identity.
pub(super) fn folders<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> BTreeMap<PathBuf, Inode> {
    let mut found = BTreeMap::new();
    for path in paths {
        let Some(end) = walk(path, &mut found) else { continue };
        if !end.is_dir() {
            continue;
        }
        listen(&end, &mut found);
        for entry in entries(&end) {
            let Some(end) = walk(&entry, &mut found) else { continue };
            if end.is_dir() {
                listen(&end, &mut found);
                for entry in entries(&end) {
                    walk(&entry, &mut found);
                }
            }
        }
    }
    found
}

/// Follows a path component by component and listens where a link or its last name lies. What it ends at, free of links;
/// `None`: the way breaks off, and the last folder there is is listened to.
fn walk(path: &Path, found: &mut BTreeMap<PathBuf, Inode>) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut ahead: VecDeque<OsString> = VecDeque::new();
    push_front(&mut ahead, &path);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let Ok(metadata) = std::fs::symlink_metadata(&next) else {
            listen(&here, found);
            return None;
        };
        if metadata.is_symlink() {
            listen(&here, found);
            links += 1;
            let target = std::fs::read_link(&next).ok().filter(|_| links <= LINKS_MAX)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            push_front(&mut ahead, &target);
            continue;
        }
        if ahead.is_empty() {
            listen(&here, found);
        }
        here = next;
    }
    Some(here)
}

fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => (),
        }
    }
}

fn listen(folder: &Path, found: &mut BTreeMap<PathBuf, Inode>) {
    if found.len() >= FOLDERS_MAX || found.contains_key(folder) {
        return;
    }
    if let Ok(metadata) = std::fs::metadata(folder) {
        found.insert(folder.to_owned(), (metadata.dev(), metadata.ino()));
    }
}

/// The links and folders in a folder; its files are covered by listening to the folder itself.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let leads_on = |entry: &DirEntry| {
        !entry.file_name().as_encoded_bytes().starts_with(b".")
            && entry.file_type().is_ok_and(|kind| kind.is_symlink() || kind.is_dir())
    };
    let mut paths: Vec<PathBuf> = entries.flatten().filter(leads_on).map(|e| e.path()).take(FOLDERS_MAX * 16).collect();
    paths.sort();
    paths
}
