//! Control groups (cgroups(7)): bounds on what a program takes together with all it starts.
//!
//! Version 2, where this node's own group was delegated to it (`Delegate=yes` of systemd), and version 1. Where neither may be
//! used, programs are bounded process by process.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::runtime::dice;

/// What the names of our groups begin with.
const NAME: &str = "bowline-sandbox";
/// The group this process goes to: one that has groups of its own may have no processes (version 2).
const NODE: &str = "bowline-node";
/// Of processor time, in microseconds.
const PERIOD: u64 = 100_000;
/// Between two attempts to remove a group whose processes are ending, and how many there are.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 400;

/// A group without processes that is older is nobody's any more.
const OLD: Duration = Duration::from_secs(600);

/// What a program may take, with all it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of memory, with files that are in memory; `None`: no bound.
    pub memory: Option<u64>,
    /// Thousandths of a processor; `None`: no bound.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub processes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Pids,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A tree of groups, and the one in it that this process may divide.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree {
    version: Version,
    folder: PathBuf,
    controllers: Vec<Controller>,
    /// The folder is the root of the tree, as far as is seen here.
    is_root: bool,
}

/// Where this process makes groups.
#[derive(Debug)]
pub struct Cgroups(Vec<Tree>);

/// A group of a program. Dropped, it is removed once its processes have ended.
#[derive(Debug)]
pub struct Cgroup {
    folders: Vec<PathBuf>,
    kills: Option<PathBuf>,
}

/// Where this process makes groups; looked for once.
///
/// # Errors
/// Why it makes none, in a sentence.
pub fn here() -> Result<&'static Cgroups, &'static str> {
    static HERE: OnceLock<Result<Cgroups, String>> = OnceLock::new();
    HERE.get_or_init(Cgroups::find).as_ref().map_err(String::as_str)
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// Files and what is written to them; `true`: where there is such a file.
    fn bounds(self, version: Version, share: Share) -> Vec<(&'static str, String, bool)> {
        let bytes = share.memory.map(|bytes| bytes.to_string());
        let quota = share.cpu.map(|thousandths| u64::from(thousandths) * PERIOD / 1_000);
        match (self, version) {
            (Self::Memory, Version::Two) => {
                let swap = bytes.is_some().then(|| ("memory.swap.max", "0".to_owned(), true));
                bytes.into_iter().map(|bytes| ("memory.max", bytes, false)).chain(swap).collect()
            }
            (Self::Memory, Version::One) => {
                let with_swap = bytes.clone().map(|bytes| ("memory.memsw.limit_in_bytes", bytes, true));
                bytes.into_iter().map(|bytes| ("memory.limit_in_bytes", bytes, false)).chain(with_swap).collect()
            }
            (Self::Cpu, Version::Two) => {
                quota.into_iter().map(|quota| ("cpu.max", format!("{quota} {PERIOD}"), false)).collect()
            }
            (Self::Cpu, Version::One) => {
                let both = |quota: u64| {
                    [("cpu.cfs_period_us", PERIOD.to_string(), false), ("cpu.cfs_quota_us", quota.to_string(), false)]
                };
                quota.into_iter().flat_map(both).collect()
            }
            (Self::Pids, _) => vec![("pids.max", share.processes.to_string(), false)],
        }
    }
}

impl Cgroups {
    fn find() -> Result<Self, String> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("{path} cannot be read: {e}"));
        let mut trees = trees(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        for tree in &mut trees {
            tree.divide()?;
        }
        for controller in Controller::ALL {
            if !trees.iter().any(|tree| tree.controllers.contains(&controller)) {
                return Err(format!("this machine has no control groups for `{}`", controller.name()));
            }
        }
        let groups = Self(trees);
        groups.tidy();
        let trial = groups.make(Share { memory: Some(1 << 30), cpu: Some(1_000), processes: 10 });
        trial.map(|_| groups).map_err(|e| format!("no control group can be made: {e}"))
    }

    /// Removes groups that were left.
    pub fn tidy(&self) {
        self.0.iter().for_each(Tree::tidy);
    }

    /// Makes a group.
    ///
    /// # Errors
    /// What the system says.
    pub fn make(&self, share: Share) -> io::Result<Cgroup> {
        let name = format!("{NAME}-{:032x}", dice::unique());
        let mut group = Cgroup { folders: Vec::new(), kills: None };
        for tree in &self.0 {
            let folder = tree.folder.join(&name);
            std::fs::create_dir(&folder)?;
            group.folders.push(folder.clone());
            for controller in &tree.controllers {
                for (file, text, is_optional) in controller.bounds(tree.version, share) {
                    match tell(&folder.join(file), &text) {
                        Err(e) if is_optional && e.kind() == io::ErrorKind::NotFound => {}
                        // Version 1 takes no share above what this node has itself, which then bounds it.
                        Err(e) if *controller == Controller::Cpu && e.kind() == io::ErrorKind::InvalidInput => {}
                        Err(e) => return Err(io::Error::new(e.kind(), format!("{file}: {e}"))),
                        Ok(()) => {}
                    }
                }
                if *controller == Controller::Memory {
                    let file = if tree.version == Version::Two { "memory.events" } else { "memory.oom_control" };
                    group.kills = Some(folder.join(file));
                }
            }
        }
        Ok(group)
    }
}

impl Tree {
    /// Makes it one that can have groups (version 2: cgroups(7), "no internal processes").
    fn divide(&mut self) -> Result<(), String> {
        if self.version == Version::One {
            return Ok(());
        }
        if self.folder.file_name().is_some_and(|name| name == NODE) {
            self.folder.pop();
        } else if !self.is_root && !self.is_delegated() {
            return Err("this node's control group is not delegated to it (`Delegate=yes` in its systemd unit)".into());
        }
        let there = std::fs::read_to_string(self.folder.join("cgroup.controllers")).unwrap_or_default();
        self.controllers.retain(|controller| there.split_whitespace().any(|name| name == controller.name()));
        let told = |e: io::Error| format!("this node's control group cannot be divided: {e}");
        let own = self.folder.join(NODE);
        std::fs::create_dir(&own).or_else(|e| if own.is_dir() { Ok(()) } else { Err(e) }).map_err(told)?;
        tell(&own.join("cgroup.procs"), "0").map_err(told)?;
        let all: Vec<String> = self.controllers.iter().map(|controller| format!("+{}", controller.name())).collect();
        tell(&self.folder.join("cgroup.subtree_control"), &all.join(" ")).map_err(|e| {
            // Others are in it, who stay: then so do we.
            let _ = tell(&self.folder.join("cgroup.procs"), "0");
            let _ = std::fs::remove_dir(&own);
            told(e)
        })
    }

    /// systemd marks what it will not touch (systemd.resource-control(5), `Delegate=`).
    fn is_delegated(&self) -> bool {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0; 8];
            rustix::fs::getxattr(&self.folder, *name, &mut value).is_ok_and(|length| &value[..length] == b"1")
        })
    }

    /// Removes groups without processes that are old; nobody goes into those any more.
    fn tidy(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let is_old = |at: SystemTime| at.elapsed().is_ok_and(|age| age > OLD);
            let is_one = entry.file_name().to_str().is_some_and(|name| name.starts_with(NAME));
            if is_one && entry.metadata().and_then(|of| of.modified()).is_ok_and(is_old) {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}

impl Cgroup {
    /// Files; who writes `0` into each is in the group from then on.
    pub fn doors(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }

    /// Processes of it that the system ended because they wanted more memory than there is for them.
    pub fn kills(&self) -> u64 {
        let told = self.kills.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let count = told.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut self.folders);
        let remove = |left: &mut Vec<PathBuf>| {
            left.retain(|folder| std::fs::remove_dir(folder).is_err_and(|e| e.kind() != io::ErrorKind::NotFound));
        };
        remove(&mut left);
        // Whoever is still there is being ended. What is left after that is removed later, by [`Cgroups::tidy`].
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !left.is_empty()
        {
            runtime.spawn(async move {
                for _ in 0..LOOKS_MAX {
                    tokio::time::sleep(LOOK).await;
                    remove(&mut left);
                    if left.is_empty() {
                        return;
                    }
                }
            });
        }
    }
}

/// Writes to a file that is there.
fn tell(path: &Path, text: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// The trees this process is in that bound something. `groups`: `/proc/self/cgroup`; `mounts`: `/proc/self/mountinfo`.
fn trees(groups: &str, mounts: &str) -> Vec<Tree> {
    let mut trees: Vec<Tree> = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let version = if names.is_empty() { Version::Two } else { Version::One };
        let is_named = |controller: &Controller| names.split(',').any(|name| name == controller.name());
        let controllers: Vec<Controller> = match version {
            Version::One => Controller::ALL.into_iter().filter(is_named).collect(),
            Version::Two => Controller::ALL.to_vec(),
        };
        let Some(first) = controllers.first() else { continue };
        let found = mounts.lines().find_map(|mount| {
            let (at, of) = mount.split_once(" - ")?;
            let mut of = of.split(' ');
            let is_it = match version {
                Version::Two => of.next()? == "cgroup2",
                Version::One => of.next()? == "cgroup" && of.nth(1)?.split(',').any(|option| option == first.name()),
            };
            let mut at = at.split(' ').skip(3);
            let (root, point) = (at.next()?, at.next()?);
            // What is mounted may be a part of the tree.
            let within = if root == "/" { path } else { path.strip_prefix(root)? };
            is_it.then(|| Path::new(point).join(within.trim_start_matches('/')))
        });
        let is_root = path == "/";
        trees.extend(found.map(|folder| Tree { version, folder, controllers, is_root }));
    }
    // One or the other: a machine with both has its controllers in the first.
    let has_one =
        trees.iter().any(|tree| tree.version == Version::One && tree.controllers.contains(&Controller::Memory));
    trees.retain(|tree| (tree.version == Version::One) == has_one);
    trees
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_both_versions_and_in_containers() {
        let two = trees(
            "0::/system.slice/bowline.service\n",
            "25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert_eq!(two.len(), 1);
        assert_eq!(two[0].folder, Path::new("/sys/fs/cgroup/system.slice/bowline.service"));
        assert!(two[0].version == Version::Two && !two[0].is_root);

        let one = trees(
            "9:name=systemd:/\n4:memory:/docker/ab/cd\n3:cpuset:/\n2:cpu,cpuacct:/docker/ab\n0::/\n",
            "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let found: Vec<_> = one.iter().map(|tree| (tree.folder.to_str().unwrap(), tree.controllers.clone())).collect();
        assert_eq!(
            found,
            [
                ("/sys/fs/cgroup/memory/cd", vec![Controller::Memory]),
                ("/sys/fs/cgroup/cpu,cpuacct/", vec![Controller::Cpu]),
            ]
        );
        assert!(trees("garbage\n::\n1:memory:/\n", "garbage\n - \n").is_empty());
    }

    #[test]
    fn a_group_of_version_two_is_what_its_files_say() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("bowline-node");
        std::fs::create_dir(&at).unwrap();
        std::fs::write(folder.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        for file in ["cgroup.subtree_control", "bowline-node/cgroup.procs"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let mut tree =
            Tree { version: Version::Two, folder: at.clone(), controllers: Controller::ALL.to_vec(), is_root: false };
        tree.divide().unwrap();
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+memory +cpu +pids");
        assert_eq!(read("bowline-node/cgroup.procs"), "0");
        let share = Share { memory: Some(1 << 30), cpu: Some(1_500), processes: 20 };
        let written: Vec<_> = tree.controllers.iter().flat_map(|of| of.bounds(tree.version, share)).collect();
        let written: Vec<_> = written.iter().map(|(file, text, _)| (*file, text.as_str())).collect();
        assert_eq!(
            written,
            [("memory.max", "1073741824"), ("memory.swap.max", "0"), ("cpu.max", "150000 100000"), ("pids.max", "20"),]
        );
        // Not ours to divide.
        let mut other = Tree { folder: folder.path().to_owned(), ..tree };
        assert!(other.divide().unwrap_err().contains("Delegate=yes"));
    }
}
