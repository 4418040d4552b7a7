//! What a program finds where it runs: bubblewrap's command line.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::Door;

/// Programs and threads.
const PROCESSES_MAX: &str = "1024";
/// Where root puts folders that only root may go to, for who comes after.
const STAGE: &str = "/mnt";

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
    pub uid: u32,
    /// The index it may reach.
    pub door: Option<&'a Door>,
    /// By which socket, as seen inside, what listens on a port inside is reached; the port is in `PORT`.
    pub port_at: Option<&'static str>,
    /// Bounds of one process.
    pub memory: Memory,
}

impl Enclosure<'_> {
    /// How it is begun. The shell opens this very program, which the user it becomes may not be able to; everything after it
    /// takes the place of what was before, so that bubblewrap is our child and dies with us.
    pub fn command(&self, program: &[OsString]) -> Command {
        let is_root = rustix::process::geteuid().is_root();
        let mut folders = self.folders.clone();
        folders.extend(self.door.map(|door| Folder {
            from: door.folder().to_owned(),
            to: "/run/index".into(),
            is_writable: false,
        }));
        let mut command = Command::new(if is_root && !folders.is_empty() { "unshare" } else { "sh" });
        // bubblewrap keeps its own environment, which what it runs can read.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        let opened = "command -v bwrap >/dev/null || { echo 'bubblewrap is not installed on this node (apt install bubblewrap)' >&2; exit 127; }; \
                      if [ -n \"$1\" ]; then exec 9<\"$1\"; fi; shift; exec \"$@\"";
        // Below a folder of root's own nobody else gets anywhere, so root shows them elsewhere, in a namespace nobody sees.
        let staged = "mount -t tmpfs -o mode=0755,size=64k none \"$1\" || exit 127; stage=$1; count=$2; shift 2; n=0; \
                      while [ $n -lt $count ]; do mkdir $stage/$n && mount --bind \"$1\" $stage/$n || exit 127; \
                      n=$((n + 1)); shift; done; exec \"$@\"";
        if is_root && !folders.is_empty() {
            command.args(["--mount", "--propagation", "private", "sh", "-c", staged, "sh", STAGE]);
            command.arg(folders.len().to_string()).args(folders.iter().map(|folder| &folder.from)).arg("sh");
        }
        // Open only for who needs it: what stays open inside can be got at.
        let relays = self.door.is_some() || self.port_at.is_some();
        let own = if relays { format!("/proc/{}/exe", std::process::id()) } else { String::new() };
        command.args(["-c", opened, "sh", &own]);
        if is_root {
            let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.uid));
            command.args(["setpriv", &uid, &gid, "--clear-groups", "--no-new-privs"]);
        }
        command.arg("prlimit");
        match self.memory {
            Memory::Addresses(bytes) => drop(command.arg(format!("--as={bytes}"))),
            Memory::Writable(bytes) => drop(command.arg(format!("--data={bytes}"))),
            Memory::Unbounded => {}
        }
        command.args([&format!("--nproc={PROCESSES_MAX}"), "--core=0", "--nofile=4096", "--", "bwrap"]);
        command.args([
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--hostname",
            "sandbox",
        ]);
        command.args(["--ro-bind", "/usr", "/usr"]);
        for name in ["bin", "sbin", "lib", "lib64", "lib32", "libx32"] {
            let (at, to) = (format!("/{name}"), format!("usr/{name}"));
            match std::fs::read_link(&at) {
                Ok(_) => command.args(["--symlink", &to, &at]),
                Err(_) => command.args(["--ro-bind-try", &at, &at]),
            };
        }
        // Of what is in /etc only what programs need to find and start others.
        // And what Debian's R packages ask for the versions of their parts.
        for path in ETC.iter().chain(&["/var/lib/dpkg"]) {
            command.args(["--ro-bind-try", path, path]);
        }
        for path in self.readable {
            command.arg("--ro-bind").args([path, path]);
        }
        let tmp = self.tmp.to_string();
        command.args(["--proc", "/proc", "--dev", "/dev", "--size", &tmp, "--tmpfs", "/dev/shm"]);
        command.args(["--perms", "1777", "--size", &tmp, "--tmpfs", "/tmp"]);
        if let Some(bytes) = self.work {
            command.args(["--size", &bytes.to_string(), "--tmpfs", "/work"]);
        }
        for (n, folder) in folders.iter().enumerate() {
            let staged = Path::new(STAGE).join(n.to_string());
            let from: &OsStr = if is_root { staged.as_os_str() } else { folder.from.as_os_str() };
            command.arg(if folder.is_writable { "--bind" } else { "--ro-bind" }).arg(from).arg(&folder.to);
        }
        if relays {
            command.args(["--perms", "0555", "--ro-bind-data", "9", "/run/bowline"]);
        }
        command.args(["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", self.at]);
        let plain = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", if self.work.is_some() { "/work" } else { "/tmp" }),
            ("USER", "builder"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
        ];
        for (name, value) in plain {
            command.args(["--setenv", name, value]);
        }
        for (name, value) in &self.environment {
            command.args(["--setenv", name, value]);
        }
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
        command
    }
}

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
