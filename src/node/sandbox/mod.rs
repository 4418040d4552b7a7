//! Where programs run that are not ours.
//!
//! That is bubblewrap, with namespaces of their own, nothing of the machine but its programs, no network but one index, an
//! unprivileged user, and bounds on time, memory and disk.
//!
//! Files go in and come out as a tar stream, so that nothing has to be shared. Both ends are ours; what is in between is not
//! believed.

mod door;

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::process::Command;

pub use self::door::Door;
use crate::node::blob::{Spool, Spooled};

/// Where the one index is, as seen from inside.
pub const INDEX: &str = "http://127.0.0.1:3939";
/// Its port.
pub const INDEX_PORT: u16 = 3939;
/// Bytes of a line of what a program says.
const LINE_MAX: u64 = 4_000;
/// Programs and threads.
const PROCESSES_MAX: &str = "1024";
/// Bytes of `/tmp`; the work itself has a disk of its own.
const TMP_BYTES: &str = "268435456";

/// Bounds on what a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From its start to its end.
    pub time: Duration,
    /// Bytes of address space of each of its processes.
    pub memory: u64,
    /// Bytes of all its files, which are in memory.
    pub disk: u64,
}

/// A run.
#[derive(Debug)]
pub struct Run<'a> {
    /// For `sh`, in `/work`, which is empty: standard input is what goes in, standard output what comes out, standard error
    /// what is said.
    pub script: &'a str,
    /// Beside `PATH`, `HOME` and the like.
    pub environment: Vec<(&'static str, String)>,
    /// Folders of the machine to be seen inside, beside `/usr`.
    pub readable: &'a [PathBuf],
    /// Who it runs as where this program is root.
    pub uid: u32,
    /// The index it may reach.
    pub door: Option<&'a Door>,
    /// Bounds.
    pub bounds: Bounds,
}

impl Run<'_> {
    /// Runs it. Dropped, it ends with everything it started.
    ///
    /// # Errors
    /// Why there is no result, in a sentence.
    pub async fn run(&self, input: File, spool: &Spool, say: impl Fn(&str)) -> Result<Spooled, String> {
        let mut child = self.command().spawn().map_err(|e| format!("sh cannot be run: {e}"))?;
        let (Some(into), Some(out), Some(said)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err("its output cannot be read".to_owned());
        };
        let work = async {
            let (out, (), ()) = tokio::join!(self.take(out, spool), listen(said, say), give(input, into));
            let out = out?;
            let status = child.wait().await.map_err(|e| e.to_string())?;
            match status.code() {
                Some(0) => Ok(out),
                Some(code) => Err(format!("it ended with exit code {code}; its last lines say why")),
                None => Err(format!("it was ended: {status}")),
            }
        };
        let done = tokio::time::timeout(self.bounds.time, work).await;
        done.unwrap_or_else(|_| Err(format!("it took longer than {}", humantime::format_duration(self.bounds.time))))
    }

    /// The shell opens this very program, which the user it becomes may not be able to; everything after it takes the place
    /// of what was before, so that bubblewrap is our child and dies with us.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        // bubblewrap keeps its own environment, which what it runs can read.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        let opened = "command -v bwrap >/dev/null || { echo 'bubblewrap is not installed on this node (apt install bubblewrap)' >&2; exit 127; }; \
                      exec 9<\"$1\"; shift; exec \"$@\"";
        command.args(["-c", opened, "sh", &format!("/proc/{}/exe", std::process::id())]);
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.uid));
            command.args(["setpriv", &uid, &gid, "--clear-groups", "--no-new-privs"]);
        }
        let (memory, processes) = (format!("--as={}", self.bounds.memory), format!("--nproc={PROCESSES_MAX}"));
        command.args(["prlimit", &memory, &processes, "--core=0", "--nofile=4096", "--", "bwrap"]);
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
        for path in ETC {
            command.args(["--ro-bind-try", path, path]);
        }
        for path in self.readable {
            command.arg("--ro-bind").args([path, path]);
        }
        let disk = self.bounds.disk.to_string();
        command.args(["--proc", "/proc", "--dev", "/dev", "--size", TMP_BYTES, "--tmpfs", "/dev/shm"]);
        command.args(["--perms", "1777", "--size", TMP_BYTES, "--tmpfs", "/tmp", "--size", &disk, "--tmpfs", "/work"]);
        if let Some(door) = self.door {
            command.args(["--perms", "0555", "--ro-bind-data", "9", "/run/bowline"]);
            command.arg("--ro-bind").args([door.folder().as_os_str(), "/run/index".as_ref()]);
        }
        command.args(["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/work"]);
        let plain = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/work"),
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
        if let Some(door) = self.door {
            let socket = format!("/run/index/{}", door.name());
            command.args(["/run/bowline", "sandbox-relay", "--to", &socket, "--"]);
        }
        command.args(["sh", "-c", self.script]);
        // Pipes only: an open file could be opened again, for writing.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// What comes out, no more than there is disk for.
    async fn take(&self, out: impl AsyncRead + Unpin, spool: &Spool) -> Result<Spooled, String> {
        let told = |e: std::io::Error| e.to_string();
        let mut out = out.take(self.bounds.disk + 1);
        let mut spooling = spool.begin().map_err(told)?;
        let mut piece = vec![0; 256 * 1024];
        loop {
            let read = out.read(&mut piece).await.map_err(told)?;
            if read == 0 {
                break;
            }
            spooling.write(&piece[..read]).map_err(told)?;
            if spooling.size() > self.bounds.disk {
                return Err(format!("it gave more than {} bytes", self.bounds.disk));
            }
        }
        spooling.finish().map_err(told)
    }
}

/// Gives what goes in, as much of it as is wanted.
async fn give(input: File, mut into: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut tokio::fs::File::from_std(input), &mut into).await;
}

/// Passes on what is said, line by line; a line that does not end is cut.
async fn listen(said: impl AsyncRead + Unpin, say: impl Fn(&str)) {
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    while let Ok(read) = (&mut said).take(LINE_MAX).read_until(b'\n', &mut line).await {
        if read == 0 {
            return;
        }
        say(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

const ETC: &[&str] = &[
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/R",
    "/etc/ssl/certs",
];

#[cfg(test)]
mod tests;
