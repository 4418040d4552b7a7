//! Folders of this machine that content sees and writes to: `content.writable`.
//!
//! They are mounted by root, for programs nobody trusts. So a path leads where it says and nowhere else, now and when it is
//! used: nobody but root, or who the node runs as, can put something else in its place; and nothing of the node's own is there.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::node::{DatabaseUrl, Settings, Where};
use crate::node::parts::Parts;
use crate::node::sandbox::Folder;

/// For folders to be looked at, which may be on a network.
const PATIENCE: Duration = Duration::from_secs(15);

/// With those folders.
///
/// # Errors
/// Why one of them is not shown, in a sentence.
pub async fn with(parts: &Parts, mut folders: Vec<Folder>) -> Result<Vec<Folder>, String> {
    let settings = &parts.settings;
    if settings.content.writable.is_empty() {
        return Ok(folders);
    }
    let looking = tokio::task::spawn_blocking({
        let settings = settings.clone();
        move || {
            let own = own(&settings);
            settings.content.writable.iter().try_for_each(|path| examine(path, &own))
        }
    });
    let looked = tokio::time::timeout(PATIENCE, looking).await;
    looked.map_err(|_| "the folders of `content.writable` do not answer".to_owned())?.map_err(|e| e.to_string())??;
    let shared = settings.content.writable.iter();
    folders.extend(shared.map(|path| Folder { from: path.clone(), to: path.clone(), is_writable: true }));
    Ok(folders)
}

/// Whether content may have this folder. `own`: what it may not have. Blocks.
///
/// # Errors
/// Why not, in a sentence.
fn examine(path: &Path, own: &[PathBuf]) -> Result<(), String> {
    let shown = path.display();
    let real = path.canonicalize().map_err(|e| format!("the folder {shown} of `content.writable`: {e}"))?;
    if real != path {
        return Err(format!("`content.writable` says {shown}, which is {}: write that", real.display()));
    }
    for own in own {
        if own.starts_with(path) || path.starts_with(own) {
            let own = own.display();
            return Err(format!("{shown} of `content.writable` shares files with {own}, which is this node's own"));
        }
    }
    let mut below = std::fs::symlink_metadata(path).map_err(|e| format!("{shown}: {e}"))?;
    for above in path.ancestors().skip(1) {
        let of = std::fs::symlink_metadata(above).map_err(|e| format!("{}: {e}", above.display()))?;
        if !is_firm(&of, &below) {
            return Err(format!(
                "{shown} of `content.writable` is in {}, where others than root could put something else in its place: let that \
                 folder be root's, and nobody else's to write",
                above.display()
            ));
        }
        below = of;
    }
    Ok(())
}

/// Whether only who may do so puts something else in the place of what is in a folder.
fn is_firm(folder: &Metadata, within: &Metadata) -> bool {
    let us = rustix::process::geteuid().as_raw();
    let is_ours = |of: &Metadata| of.uid() == 0 || of.uid() == us;
    let is_shared = folder.mode() & 0o022 != 0;
    let is_sticky = folder.mode() & 0o1000 != 0;
    is_ours(folder) && (!is_shared || is_sticky && is_ours(within))
}

/// Files and folders of the node.
fn own(settings: &Settings) -> Vec<PathBuf> {
    let mut all = vec![settings.cache.clone(), settings.key_file.clone()];
    for place in [&settings.storage.packages, &settings.storage.bundles] {
        if let Where::Directory(path) = &place.at {
            all.push(path.clone());
        }
    }
    if let DatabaseUrl::Sqlite(path) = &settings.database.url {
        all.push(path.clone());
    }
    all.into_iter().map(|path| path.canonicalize().unwrap_or(path)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_is_what_its_path_says_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (firm, loose) = (root.join("firm"), root.join("loose"));
        for path in [firm.join("shared"), loose.join("shared")] {
            std::fs::create_dir_all(path).unwrap();
        }
        symlink(&firm, root.join("link")).unwrap();
        std::fs::set_permissions(&loose, Permissions::from_mode(0o777)).unwrap();
        let own = [firm.join("data/blobs"), root.join("keys/node.key")];
        let why = |path: PathBuf| examine(&path, &own).unwrap_err();
        assert_eq!(examine(&firm.join("shared"), &own), Ok(()));
        assert!(why(root.join("link/shared")).contains("write that"));
        assert!(why(loose.join("shared")).contains("put something else in its place"));
        assert!(why(firm.clone()).contains("this node's own") && why(root.clone()).contains("this node's own"));
        assert!(why(firm.join("nothing")).contains("No such file"));
        // Where only who has something removes it, as in `/tmp`.
        std::fs::set_permissions(&loose, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(examine(&loose.join("shared"), &own), Ok(()));
    }
}
