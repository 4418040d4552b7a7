//! A program that has begun in its enclosure: its process, what goes in, and the way to its sockets.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use tokio::process::{Child, ChildStdin};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::cgroup::Cgroup;
use super::outbound::Helper;

/// Bytes of what bubblewrap says of itself.
const TOLD_MAX: usize = 4_096;

/// Dropped, it ends with everything it started.
#[derive(Debug)]
pub struct Begun {
    /// Its process; its standard input is had by [`Begun::input`].
    pub child: Child,
    reach: Arc<Reach>,
    /// Open until it was read, which nobody says.
    _opened: Vec<File>,
    input: Option<oneshot::Receiver<ChildStdin>>,
    /// Ends with this.
    _outbound: JoinSet<()>,
    group: Option<Cgroup>,
}

impl Begun {
    /// `outside`: who brings the network that it waits for.
    pub(super) fn new(
        mut child: Child,
        reach: Reach,
        opened: Vec<File>,
        group: Option<Cgroup>,
        outside: Option<Helper>,
    ) -> Self {
        let reach = Arc::new(reach);
        let (mut input, mut outbound) = (None, JoinSet::new());
        if let Some(helper) = outside
            && let (Some(stdin), Some(pid)) = (child.stdin.take(), child.id())
        {
            let (give, given) = oneshot::channel();
            outbound.spawn(helper.serve(pid, Arc::clone(&reach), stdin, give));
            input = Some(given);
        }
        Self { child, reach, _opened: opened, input, _outbound: outbound, group }
    }

    /// What goes in, once the program reads it; `None`: it was asked for before, or nobody will read it.
    pub async fn input(&mut self) -> Option<ChildStdin> {
        match self.input.take() {
            Some(given) => given.await.ok(),
            None => self.child.stdin.take(),
        }
    }

    /// Processes of it were ended because all of them together wanted more memory than there is for them.
    pub fn wanted_more_memory(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.kills() > 0)
    }

    /// The way to its sockets.
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach)
    }
}

/// The way to the folder of its sockets, which is in memory and mounted only inside.
#[derive(Debug)]
pub struct Reach {
    told: File,
    mark: String,
    run: &'static str,
    found: OnceLock<File>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "child-pid")]
    child_pid: u32,
}

/// How folders are opened.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Processes that are asked to end.
const ASKED_MAX: usize = 1_000;

/// Numbers of what a process began; none: it is gone.
fn children(of: u32) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{of}/task")) else { return Ok(all) };
    for thread in threads {
        let path = thread?.path().join("children");
        let told = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(told.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(all)
}

impl Reach {
    /// `told`: what bubblewrap writes of itself. `mark`: what is in `/run` there and nowhere else. `run`: the folder, as seen
    /// inside.
    pub(super) fn new(told: File, mark: String, run: &'static str) -> Self {
        Self { told, mark, run, found: OnceLock::new() }
    }

    /// The folder.
    ///
    /// # Errors
    /// It is not there yet, or no more.
    pub fn folder(&self) -> io::Result<&File> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let (_, root) = self.first()?;
        let run = self.run.trim_start_matches('/');
        let folder = rustix::fs::openat(&root, run, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(self.found.get_or_init(|| folder.into()))
    }

    /// The first process inside, which is bubblewrap's own, and its root.
    fn first(&self) -> io::Result<(u32, OwnedFd)> {
        let said = self.said()?;
        let json = said.find('{').map(|at| &said[at..]).unwrap_or_default();
        let Told { child_pid } = serde_json::from_str(json).map_err(|_| io::ErrorKind::NotFound)?;
        let root = rustix::fs::open(format!("/proc/{child_pid}/root"), FOLDER, Mode::empty())?;
        // Until it has gone where it stays, its root is ours; and a number may be another's by now.
        rustix::fs::openat(&root, format!("run/{}", self.mark), FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        Ok((child_pid, root))
    }

    /// Asks all that runs inside to end, by SIGTERM: what comes of it is its own business. Blocks.
    ///
    /// # Errors
    /// Nothing runs there, or the system does not say what.
    pub fn ask_to_end(&self) -> io::Result<()> {
        let (first, _) = self.first()?;
        let (mut parents, mut all) = (vec![first], Vec::new());
        while let Some(parent) = parents.pop() {
            let opened = children(parent)?.into_iter().take(ASKED_MAX.saturating_sub(all.len())).filter_map(|child| {
                let pid = i32::try_from(child).ok().and_then(Pid::from_raw)?;
                Some((child, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?))
            });
            let opened: Vec<_> = opened.collect();
            // Those are still the ones that were meant, and so is what was opened.
            let still = children(parent)?;
            for (child, process) in opened.into_iter().filter(|(child, _)| still.contains(child)) {
                all.push(process);
                parents.push(child);
            }
        }
        for process in &all {
            let _ = rustix::process::pidfd_send_signal(process, Signal::TERM);
        }
        Ok(())
    }

    /// What was said until now.
    pub(super) fn said(&self) -> io::Result<String> {
        let mut said = vec![0; TOLD_MAX];
        let mut length = 0;
        while length < said.len() {
            match self.told.read_at(&mut said[length..], length as u64)? {
                0 => break,
                more => length += more,
            }
        }
        said.truncate(length);
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}
