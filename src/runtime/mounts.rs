//! What a path lies on: Linux's `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// `ext4`, `nfs4`, …
    pub kind: String,
    /// Those of the mount and those of the filesystem, in this order.
    pub options: Vec<String>,
}

impl Mount {
    /// The filesystem that holds this path, of which the end need not exist.
    ///
    /// # Errors
    /// The kernel does not tell, or nothing of the path exists.
    pub fn of(path: &Path) -> io::Result<Self> {
        let there = path.ancestors().find_map(|path| fs::canonicalize(path).ok());
        let there = there.ok_or(io::ErrorKind::NotFound)?;
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        Self::find(&table, &there).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Of several mounts on top of one another the last is the one that is seen.
    fn find(table: &str, path: &Path) -> Option<Self> {
        let mounts = table.lines().filter_map(Self::parse).filter(|mount| path.starts_with(&mount.point));
        mounts.max_by_key(|mount| mount.point.components().count())
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let point = PathBuf::from(unescaped(mount.next()?));
        let own = mount.next()?;
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?.to_owned();
        let all = filesystem.nth(1).unwrap_or_default();
        let options = own.split(',').chain(all.split(',')).filter(|o| !o.is_empty()).map(str::to_owned).collect();
        Some(Self { point, kind, options })
    }

    /// Whether other machines may write to it at the same time.
    pub fn is_network(&self) -> bool {
        const KINDS: &[&str] = &[
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "smbfs",
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "gfs2",
            "glusterfs",
            "gpfs",
            "lustre",
            "ncpfs",
            "ocfs2",
            "orangefs",
            "virtiofs",
        ];
        const FUSE: &[&str] = &["sshfs", "glusterfs", "s3fs", "goofys", "rclone", "ceph", "juicefs", "mount-s3"];
        let bare = self.kind.strip_prefix("fuse.");
        KINDS.contains(&self.kind.as_str()) || bare.is_some_and(|bare| FUSE.iter().any(|kind| bare.starts_with(kind)))
    }

    /// The value of an option such as `acdirmax=3`; `""` for one without.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| match option.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (option == name).then_some(""),
        })
    }
}

/// Blank, tab, line feed and backslash are written in octal.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
40 22 0:35 / /srv rw,noatime shared:9 - nfs4 nas:/export rw,vers=4.2,lookupcache=pos,acdirmax=3
41 22 0:36 / /srv/a\\040b rw - tmpfs tmpfs rw
42 22 0:37 / /mnt/far rw,nosuid - fuse.sshfs me@far:/ rw
";

    #[test]
    fn the_deepest_mount_holds_a_path_and_tells_its_options() {
        let of = |path: &str| Mount::find(TABLE, Path::new(path)).unwrap();
        let nas = of("/srv/bowline/blobs");
        assert_eq!((nas.kind.as_str(), nas.is_network()), ("nfs4", true));
        assert_eq!((nas.option("lookupcache"), nas.option("rw"), nas.option("hard")), (Some("pos"), Some(""), None));
        assert_eq!((of("/srv/a b/c").kind.as_str(), of("/srvx").kind.as_str()), ("tmpfs", "ext4"));
        assert!(of("/mnt/far/x").is_network() && !of("/").is_network());
    }

    #[test]
    fn this_machine_has_a_root() {
        let here = Mount::of(Path::new("/no such folder/at all")).unwrap();
        assert_eq!(here.point, Path::new("/"));
    }
}
