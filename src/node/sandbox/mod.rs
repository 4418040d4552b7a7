//! Where programs run that are not ours.
//!
//! That is bubblewrap, with namespaces of their own, nothing of the machine but its programs, no network but one index or
//! connections outward, an unprivileged user, and bounds on time, memory and disk.
//!
//! Files go in and come out as a tar stream, so that nothing has to be shared. Both ends are ours; what is in between is not
//! believed.

mod account;
mod begun;
mod cgroup;
mod door;
mod enclosure;
mod outbound;

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};

pub use self::account::Account;
pub use self::begun::{Begun, Reach};
pub use self::cgroup::here as cgroups;
pub use self::door::Door;
pub use self::enclosure::{Enclosure, Folder, Memory};

pub use self::outbound::Outbound;
use crate::node::blob::{Spool, Spooled};

/// Where the one index is, as seen from inside.
pub const INDEX: &str = "http://127.0.0.1:3939";
/// Its port.
pub const INDEX_PORT: u16 = 3939;
/// Bytes of a line of what a program says.
const LINE_MAX: u64 = 4_000;
/// Bytes of `/tmp`; the work itself has a disk of its own.
const TMP_BYTES: u64 = 256 << 20;

/// Why a program was ended.
pub const MORE_MEMORY: &str =
    "processes of it were ended before, because all together, with its files in memory, wanted more than they may have";

/// Bounds on what a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From its start to its end.
    pub time: Duration,
    /// See [`Enclosure`].
    pub memory: Memory,
    /// See [`Enclosure`].
    pub cpu: Option<u32>,
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
    pub environment: Vec<(String, String)>,
    /// Folders of the machine to be seen inside under their own names, beside `/usr`.
    pub readable: &'a [PathBuf],
    /// Folders of the machine to be seen inside.
    pub folders: Vec<Folder>,
    /// Who it runs as where this program is root.
    pub account: Account,
    /// The index it may reach.
    pub door: Option<&'a Door>,
    /// See [`Enclosure`].
    pub outbound: Option<&'a Outbound>,
    /// Bounds.
    pub bounds: Bounds,
}

impl Run<'_> {
    /// Runs it. Dropped, it ends with everything it started.
    ///
    /// # Errors
    /// Why there is no result, in a sentence.
    pub async fn run(&self, input: File, spool: &Spool, say: impl Fn(&str)) -> Result<Spooled, String> {
        let mut begun = self.begin().map_err(|e| format!("it cannot be begun: {e}"))?;
        let (Some(out), Some(said)) = (begun.child.stdout.take(), begun.child.stderr.take()) else {
            return Err("its output cannot be read".to_owned());
        };
        let work = async {
            let given = async {
                if let Some(into) = begun.input().await {
                    give(input, into).await;
                }
            };
            let (out, (), ()) = tokio::join!(self.take(out, spool), listen(said, say), given);
            let out = out?;
            let status = begun.child.wait().await.map_err(|e| e.to_string())?;
            let why = if begun.wanted_more_memory() { format!("; {MORE_MEMORY}") } else { String::new() };
            match status.code() {
                Some(0) => Ok(out),
                Some(code) => Err(format!("it ended with exit code {code}; its last lines say why{why}")),
                None => Err(format!("it was ended: {status}{why}")),
            }
        };
        let done = tokio::time::timeout(self.bounds.time, work).await;
        done.unwrap_or_else(|_| Err(format!("it took longer than {}", humantime::format_duration(self.bounds.time))))
    }

    fn begin(&self) -> std::io::Result<Begun> {
        let enclosure = Enclosure {
            environment: self.environment.clone(),
            readable: self.readable,
            folders: self.folders.clone(),
            work: Some(self.bounds.disk),
            tmp: TMP_BYTES,
            at: "/work",
            account: self.account.clone(),
            door: self.door,
            port_at: None,
            run: None,
            outbound: self.outbound,
            memory: self.bounds.memory,
            cpu: self.bounds.cpu,
        };
        enclosure.begin(&["sh", "-c", self.script].map(OsString::from))
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

#[cfg(test)]
mod tests;
