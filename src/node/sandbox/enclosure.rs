//! What a program finds where it runs: bubblewrap's command line.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::MemfdFlags;
use tokio::process::Command;

use super::begun::{Begun, Reach};
use super::cgroup::{self, Cgroup, Share};
use super::outbound::{self, Outbound};
use super::{Account, Door};
use crate::runtime::dice;

/// Programs and threads.
const PROCESSES_MAX: u32 = 1_024;
/// In place of a redirection: the shell goes into this control group.
const GO_IN: &str = "group";
/// Where root may put folders that only root may go to, for who comes after: what else is there is not seen then.
const STAGES: &[&str] = &["/mnt", "/media", "/srv", "/opt", "/home"];

/// A folder of this machine as it is seen inside.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Here.
    pub from: PathBuf,
    /// There.
    pub to: PathBuf,
    /// It may be written to.
    pub is_writable: bool,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All addresses of a process.
    Addresses(u64),
    /// What a process may write to: some programs reserve addresses they never use.
    Writable(u64),
    /// As much as there is.
    Unbounded,
}

impl Memory {
    fn bytes(self) -> Option<u64> {
        match self {
            Self::Addresses(bytes) | Self::Writable(bytes) => Some(bytes),
            Self::Unbounded => None,
        }
    }
}

/// Where a program runs, and with what.
#[derive(Debug)]
pub struct Enclosure<'a> {
    /// Beside `PATH`, `HOME` and the like.
    pub environment: Vec<(String, String)>,
    /// Folders and files of the machine to be seen inside under their own names, beside `/usr`.
    pub readable: &'a [PathBuf],
    /// Folders of the machine to be seen inside.
    pub folders: Vec<Folder>,
    /// Bytes of an empty `/work` in memory; `None`: there is none.
    pub work: Option<u64>,
    /// Bytes of `/tmp`, in memory.
    pub tmp: u64,
    /// Where it begins.
    pub at: &'static str,
    /// Who it runs as where this program is root.
    pub account: Account,
    /// The index it may reach.
    pub door: Option<&'a Door>,
    /// By which socket, as seen inside, what listens on a port inside is reached; the port is in `PORT`.
    pub port_at: Option<&'static str>,
    /// A folder inside, of a few bytes, that is reached from outside: see [`Reach`].
    pub run: Option<&'static str>,
    /// The network it reaches; `None`: none at all.
    pub outbound: Option<&'a Outbound>,
    /// A bound of each of its processes, and, where there are control groups, of all of them together with their files.
    pub memory: Memory,
    /// Thousandths of a processor for all of them, where there are control groups; `None`: no bound.
    pub cpu: Option<u32>,
}

/// What the shell opens before everything else, by the numbers it has until bubblewrap has read it. Nothing of it is seen in
/// a list of processes, and nothing of it is open inside.
struct Opened(Vec<(&'static str, PathBuf)>, Vec<File>);

impl Opened {
    /// `as_`: a redirection of the shell, such as `8<`.
    fn give(&mut self, as_: &'static str, bytes: &[u8]) -> io::Result<File> {
        let mut file = File::from(rustix::fs::memfd_create("sandbox", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        let kept = file.try_clone()?;
        self.0.push((as_, format!("/proc/{}/fd/{}", std::process::id(), kept.as_raw_fd()).into()));
        self.1.push(kept);
        Ok(file)
    }
}

impl Enclosure<'_> {
    /// Begins a program. The shell opens this very program, which the user it becomes may not be able to; everything after it
    /// takes the place of what was before, so that bubblewrap is our child and dies with us.
    ///
    /// # Errors
    /// What the system says, or which program has to be installed.
    pub fn begin(&self, program: &[OsString]) -> io::Result<Begun> {
        let is_root = rustix::process::geteuid().is_root();
        let relays = self.door.is_some() || self.port_at.is_some();
        let mut opened = Opened(Vec::new(), Vec::new());
        // Open only for who needs it: what stays open inside can be got at.
        if relays {
            opened.0.push(("9<", format!("/proc/{}/exe", std::process::id()).into()));
        }
        let mark = format!("mark-{:032x}", dice::unique());
        opened.give("8<", &self.arguments(is_root, &mark))?;
        let told = opened.give("7<>", b"")?;
        opened.give("6<", HOSTS)?;
        opened.give("5<", NAMES)?;
        let mut outside = None;
        if let Some(outbound) = self.outbound {
            let helper = outbound::Helper::find(is_root.then(|| self.account.clone()))?;
            opened.give("4<", outbound::resolver().as_bytes())?;
            opened.give("3<", outbound.routes()?.as_bytes())?;
            outside = Some(helper);
        }
        let group = self.group()?;
        if let Some(group) = &group {
            opened.0.extend(group.doors().map(|door| (GO_IN, door)));
        }
        let mut command = self.command(is_root, &opened.0, group.is_some());
        if let Some(helper) = &outside {
            command.args(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", outbound::WAITING, "sh"]);
            command.arg(&helper.ip);
        }
        command.args(["bwrap", "--args", "8", "--"]);
        if relays {
            command.args(["/run/bowline", "sandbox-relay"]);
            if let Some(door) = self.door {
                command.args(["--to", &format!("/run/index/{}", door.name())]);
            }
            if let Some(socket) = self.port_at {
                command.args(["--from", socket]);
            }
            command.arg("--");
        }
        command.args(program);
        // Pipes only: an open file could be opened again, for writing.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn()?;
        let reach = Reach::new(told, mark, self.run.unwrap_or("/run"));
        Ok(Begun::new(child, reach, opened.1, group, outside))
    }

    /// A control group of its own; `None`: this node makes none.
    fn group(&self) -> io::Result<Option<Cgroup>> {
        let files = self.tmp + self.work.unwrap_or(0);
        let memory = self.memory.bytes().map(|bytes| bytes.saturating_add(files));
        let share = Share { memory, cpu: self.cpu, processes: PROCESSES_MAX };
        let told = |e: io::Error| io::Error::new(e.kind(), format!("its control group cannot be made: {e}"));
        cgroup::here().ok().map(|groups| groups.make(share).map_err(told)).transpose()
    }

    /// Folders of the machine, and that of the index.
    fn folders(&self) -> Vec<Folder> {
        let index =
            |door: &Door| Folder { from: door.folder().to_owned(), to: "/run/index".into(), is_writable: false };
        self.folders.iter().cloned().chain(self.door.map(index)).collect()
    }

    /// Where root puts folders, which hides none that is to be seen.
    fn stage(&self) -> &'static str {
        let is_free = |stage: &&&str| {
            let mut wanted = self.readable.iter().chain(self.folders.iter().map(|folder| &folder.from));
            Path::new(stage).is_dir() && !wanted.any(|path| path.starts_with(stage))
        };
        STAGES.iter().find(is_free).unwrap_or(&STAGES[0])
    }

    /// All that comes before bubblewrap. `is_grouped`: how many processes there may be is bounded already.
    fn command(&self, is_root: bool, opened: &[(&str, PathBuf)], is_grouped: bool) -> Command {
        let folders = self.folders();
        let is_staged = is_root && !folders.is_empty();
        let mut command = Command::new(if is_staged { "unshare" } else { "sh" });
        // bubblewrap keeps its own environment, which what it runs can read.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        // What this program was left open with is closed, where the shell can: what it opens itself is what is meant.
        let opening = "command -v bwrap >/dev/null || { echo 'bubblewrap is not installed on this node (apt install bubblewrap)' >&2; exit 127; }; \
                       exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; while [ \"$1\" != -- ]; do case $1 in group) echo 0 >\"$2\";; *) eval \"exec $1\\\"\\$2\\\"\";; esac || exit 127; shift 2; done; shift; exec \"$@\"";
        // Below a folder of root's own nobody else gets anywhere, so root shows them elsewhere, in a namespace nobody sees.
        let staged = "mount -t tmpfs -o mode=0755,size=64k none \"$1\" || exit 127; stage=$1; count=$2; shift 2; n=0; \
                      while [ $n -lt $count ]; do mkdir $stage/$n && mount --rbind \"$1\" $stage/$n || exit 127; \
                      n=$((n + 1)); shift; done; exec \"$@\"";
        if is_staged {
            command.args(["--mount", "--propagation", "private", "sh", "-c", staged, "sh", self.stage()]);
            command.arg(folders.len().to_string()).args(folders.iter().map(|folder| &folder.from)).arg("sh");
        }
        command.args(["-c", opening, "sh"]);
        for (redirection, path) in opened {
            command.arg(redirection).arg(path);
        }
        command.arg("--");
        if is_root {
            command.arg("setpriv").args(self.account.options()).arg("--no-new-privs");
        }
        command.arg("prlimit");
        match self.memory {
            Memory::Addresses(bytes) => drop(command.arg(format!("--as={bytes}"))),
            Memory::Writable(bytes) => drop(command.arg(format!("--data={bytes}"))),
            Memory::Unbounded => {}
        }
        // All of a user's, whatever they run: others of this user, of another node, would count too.
        if !is_grouped {
            command.arg(format!("--nproc={PROCESSES_MAX}"));
        }
        command.args(["--core=0", "--nofile=4096", "--"]);
        command
    }

    /// What bubblewrap reads: each argument ends with a zero. Variables are among them, so they are on no command line.
    fn arguments(&self, is_root: bool, mark: &str) -> Vec<u8> {
        let mut all = Vec::new();
        let mut add = |arguments: &[&OsStr]| {
            for argument in arguments {
                all.extend_from_slice(argument.as_bytes());
                all.push(0);
            }
        };
        macro_rules! add { ($($argument:expr),* $(,)?) => { add(&[$(AsRef::<OsStr>::as_ref(&$argument)),*]) }; }
        add!("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv");
        add!("--hostname", "sandbox", "--info-fd", "7");
        if self.outbound.is_some() {
            // The namespace it begins in, which it is nobody in.
            let (uid, gid) = match is_root {
                true => (self.account.uid, self.account.gid),
                false => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            };
            add!("--share-net", "--uid", uid.to_string(), "--gid", gid.to_string(), "--cap-drop", "ALL");
        }
        add!("--ro-bind", "/usr", "/usr");
        for name in ["bin", "sbin", "lib", "lib64", "lib32", "libx32"] {
            let (at, to) = (format!("/{name}"), format!("usr/{name}"));
            match std::fs::read_link(&at) {
                Ok(_) => add!("--symlink", to, at),
                Err(_) => add!("--ro-bind-try", at, at),
            }
        }
        // Of what is in /etc only what programs need to find and start others.
        // And what Debian's R packages ask for the versions of their parts.
        for path in ETC.iter().chain(&["/var/lib/dpkg"]) {
            add!("--ro-bind-try", path, path);
        }
        add!("--perms", "0444", "--ro-bind-data", "6", "/etc/hosts");
        add!("--perms", "0444", "--ro-bind-data", "5", "/etc/nsswitch.conf");
        if self.outbound.is_some() {
            add!("--perms", "0444", "--ro-bind-data", "4", "/etc/resolv.conf");
        }
        for path in self.readable {
            add!("--ro-bind", path, path);
        }
        let tmp = self.tmp.to_string();
        add!("--proc", "/proc", "--dev", "/dev", "--size", tmp, "--tmpfs", "/dev/shm");
        add!("--perms", "1777", "--size", tmp, "--tmpfs", "/tmp");
        if let Some(bytes) = self.work {
            add!("--size", bytes.to_string(), "--tmpfs", "/work");
        }
        for (n, folder) in self.folders().iter().enumerate() {
            let staged = Path::new(self.stage()).join(n.to_string());
            let from: &OsStr = if is_root { staged.as_os_str() } else { folder.from.as_os_str() };
            add!(if folder.is_writable { "--bind" } else { "--ro-bind" }, from, folder.to);
        }
        if self.door.is_some() || self.port_at.is_some() {
            add!("--perms", "0555", "--ro-bind-data", "9", "/run/bowline");
        }
        if let Some(run) = self.run {
            add!("--perms", "0700", "--size", RUN_BYTES, "--tmpfs", run, "--dir", format!("/run/{mark}"));
        }
        add!("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", self.at);
        let home = if self.work.is_some() { "/work" } else { "/tmp" };
        let plain = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", home),
            ("USER", "builder"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
        ];
        for (name, value) in plain {
            add!("--setenv", name, value);
        }
        for (name, value) in &self.environment {
            add!("--setenv", name, value);
        }
        all
    }
}

/// Bytes of a folder for sockets.
const RUN_BYTES: &str = "65536";
/// What `localhost` is.
const HOSTS: &[u8] = b"127.0.0.1 localhost\n::1 localhost\n";
/// Where names are looked up.
const NAMES: &[u8] = b"hosts: files dns\n";

const ETC: &[&str] = &[
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/R",
    "/etc/ssl/certs",
];
