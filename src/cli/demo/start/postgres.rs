//! A PostgreSQL cluster of the demo's own, below its folder: made once, started with the demo, ended with it.
//!
//! It listens on a unix socket in its folder, for whoever may enter that, and on loopback with a password. PostgreSQL
//! refuses to run as root; for root it runs as nobody, to whom the folder then belongs.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tokio::process::Command;

use super::{START_TRIES, StartError, serves, start};
use crate::cli::demo::child::NOBODY;
use crate::cli::demo::folder::Folder;
use crate::cli::demo::ports::{self, Ports};
use crate::cli::demo::supervise::{Launcher, Program, Running};

/// PostgreSQL's own programs on this machine.
#[derive(Clone, Debug)]
pub(in crate::cli::demo) struct Programs {
    /// Where `initdb` and `postgres` are.
    folder: PathBuf,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli::demo) enum PostgresError {
    /// Not installed.
    #[error(
        "--postgres needs PostgreSQL, and no `initdb` with a `postgres` beside it is in the search path or in \
         /usr/lib/postgresql/*/bin: install it (`apt-get install postgresql` on Debian and Ubuntu, `dnf install \
         postgresql-server` on Fedora and RHEL), or leave out --postgres"
    )]
    Missing,
    /// For root.
    #[error(
        "PostgreSQL does not run as root, and nobody, as whom it would run, cannot enter `{0}`: give a --dir that all may \
         enter, or none for a temporary one, or run the demo as another user"
    )]
    Closed(PathBuf),
    /// The file system said no.
    #[error("cannot write `{path}`: {error}")]
    Io { path: PathBuf, error: io::Error },
    /// It does not want to.
    #[error("`initdb` failed:\n{0}")]
    Initdb(String),
}

/// A cluster that serves.
pub(super) struct Cluster {
    pub(super) program: Program,
    pub(super) running: Running,
    /// As nodes name it.
    pub(super) url: String,
}

/// The cluster's name among the kept programs.
pub(in crate::cli::demo) const NAME: &str = "postgres";
/// Where the search for a free port begins. A socket's name ends with the port, which may have four digits.
const PORT: u16 = 5433;
const USER: &str = "bowline";

impl Programs {
    /// Looks where systems keep them; the newest where there are several.
    ///
    /// # Errors
    /// [`PostgresError::Missing`].
    pub(in crate::cli::demo) fn find() -> Result<Self, PostgresError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::find_in(&path, Path::new("/usr/lib/postgresql")).ok_or(PostgresError::Missing)
    }

    fn find_in(path: &std::ffi::OsStr, versions: &Path) -> Option<Self> {
        // What is in the search path may be a link to where the others are.
        let in_path = std::env::split_paths(path)
            .filter_map(|folder| Some(folder.join("initdb").canonicalize().ok()?.parent()?.to_owned()));
        let mut debian: Vec<_> = fs::read_dir(versions).into_iter().flatten().flatten().collect();
        debian.sort_by_key(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        let debian = debian.into_iter().rev().map(|entry| entry.path().join("bin"));
        let has_both = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
        in_path.chain(debian).find(has_both).map(|folder| Self { folder })
    }

    /// Makes the cluster unless an earlier demo has, and starts it.
    ///
    /// # Errors
    /// See [`PostgresError`] and [`StartError`].
    pub(super) async fn start(
        &self,
        launcher: &Launcher,
        folder: &Folder,
        ports: &Ports,
    ) -> Result<Cluster, StartError> {
        let password = self.make(folder).await?;
        for _ in 0..START_TRIES {
            let port = ports.next(PORT)?;
            let program = self.program(folder, port).map_err(|error| StartError::Spawn(NAME.to_owned(), error))?;
            let running = start(launcher, &program)?;
            let pid = running.id();
            let look = || async { is_ready(&folder.join("pg/data"), pid).ok_or_else(|| "it is not ready".to_owned()) };
            match serves(running, &program, look).await {
                Ok(running) => {
                    let url = format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres");
                    return Ok(Cluster { program, running, url });
                }
                Err(StartError::Ended { .. }) if !ports::is_free(port) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StartError::Unlucky(NAME.to_owned()))
    }

    /// The cluster is there afterwards; returns its password.
    async fn make(&self, folder: &Folder) -> Result<String, StartError> {
        let own = folder.join("pg");
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |error| PostgresError::Io { path, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&own).map_err(wrong(&own))?;
        if is_root() {
            let path = folder.path();
            // Others may pass through, and see nothing: every file in it is for its owner only.
            fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(wrong(path))?;
            if let Some(closed) = path.ancestors().find(|above| !may_enter(above)) {
                return Err(PostgresError::Closed(closed.to_owned()).into());
            }
            chown(&own, Some(NOBODY), Some(NOBODY)).map_err(wrong(&own))?;
        }
        let (data, kept) = (own.join("data"), folder.join("keys/postgres.password"));
        if let (true, Ok(password)) = (data.exists(), fs::read_to_string(&kept)) {
            return Ok(password);
        }
        // A half-made one has another name; one without its password is of no use.
        let (new, file) = (own.join("data.new"), own.join("password"));
        for old in [&data, &new].into_iter().filter(|old| old.exists()) {
            fs::remove_dir_all(old).map_err(wrong(old))?;
        }
        let password = crate::cli::demo::random::<16>().iter().fold(String::new(), |text, b| format!("{text}{b:02x}"));
        let write = || {
            let _ = fs::remove_file(&file);
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?.write_all(password.as_bytes())?;
            if is_root() { chown(&file, Some(NOBODY), Some(NOBODY)) } else { Ok(()) }
        };
        write().map_err(wrong(&file))?;
        self.initdb(&new, &file).await?;
        let _ = fs::remove_file(&file);
        folder.write("keys/postgres.password", &password)?;
        fs::rename(&new, &data).map_err(wrong(&data))?;
        Ok(password)
    }

    async fn initdb(&self, data: &Path, password: &Path) -> Result<(), PostgresError> {
        let mut command = Command::new(self.folder.join("initdb"));
        command
            .args(["--username", USER, "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pwfile"])
            .arg(password)
            .arg("--pgdata")
            .arg(data);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let command = command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| PostgresError::Initdb(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(PostgresError::Initdb(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()))
    }

    /// Whatever ends the demo, the cluster ends with a signal it takes its own processes with.
    fn program(&self, folder: &Folder, port: u16) -> io::Result<Program> {
        let own = folder.join("pg");
        let parent = std::process::id().to_string();
        let mut command: Vec<OsString> = vec![std::env::current_exe()?.into()];
        command.extend(["demo-child", "--parent", &parent, "--gently"].map(OsString::from));
        if is_root() {
            command.push("--as-nobody".into());
        }
        command.extend(["--".into(), self.folder.join("postgres").into(), "-D".into(), own.join("data").into()]);
        command.extend(["-p".into(), port.to_string().into()]);
        let mut socket = OsString::from("unix_socket_directories=");
        socket.push(&own);
        for setting in ["listen_addresses=127.0.0.1".into(), "max_connections=400".into(), socket] {
            command.extend(["-c".into(), setting]);
        }
        Ok(Program {
            name: NAME.to_owned(),
            command,
            environment: Vec::new(),
            folder: own,
            log: folder.log(NAME),
            // Without waiting until everybody has closed their connections.
            stop: Signal::INT,
        })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn may_enter(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
}

/// As `pg_ctl` looks: the first line is the process, the eighth how it is.
fn is_ready(data: &Path, pid: u32) -> Option<()> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let mut lines = text.lines().map(str::trim);
    let is_ours = lines.next()?.parse() == Ok(pid);
    (is_ours && lines.nth(6)? == "ready").then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_taken_and_a_half_installed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["9/bin/initdb", "9/bin/postgres", "15/bin/initdb", "15/bin/postgres", "16/bin/initdb"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = |path: &str| Programs::find_in(path.as_ref(), folder.path()).map(|programs| programs.folder);
        assert_eq!(found(""), Some(folder.path().join("15/bin")));
        let nine = folder.path().canonicalize().unwrap().join("9/bin");
        assert_eq!(found(nine.to_str().unwrap()), Some(nine), "the search path goes first");
        assert!(Programs::find_in("".as_ref(), Path::new("/nowhere")).is_none());
        assert!(PostgresError::Missing.to_string().contains("apt-get install postgresql"));
    }

    #[test]
    fn it_is_ready_when_its_own_file_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_ready(folder.path(), 7), None);
        for (text, is_expected) in [
            ("7\n/d\n1\n5433\n/s\n127.0.0.1\n 1 2\nstarting\n", false),
            ("7\n/d\n1\n5433\n/s\n127.0.0.1\n 1 2\nready   \n", true),
            ("8\n/d\n1\n5433\n/s\n127.0.0.1\n 1 2\nready   \n", false),
            ("7\n/d\n", false),
        ] {
            fs::write(folder.path().join("postmaster.pid"), text).unwrap();
            assert_eq!(is_ready(folder.path(), 7).is_some(), is_expected, "{text}");
        }
    }
}
