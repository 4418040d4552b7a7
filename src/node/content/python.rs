//! Python environments: one for each interpreter and list of requirements, made once on each node by uv (or pip), in a
//! sandbox that reaches one repository and nothing else.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::Digest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::copies::{self, Copy};
use super::interpreter::{Interpreter, find};
use crate::node::parts::Parts;
use crate::node::router;
use crate::node::sandbox::{Account, Door, Enclosure, Folder, INDEX, Memory};
use crate::runtime::clock;
use crate::telemetry::Causes;
use crate::types::Sha256;

/// Where it is, as programs see it. Its files know that place.
pub const AT: &str = "/env";
/// As metrics call it.
const LANGUAGE: &str = "python";
/// Bytes of `/tmp` meanwhile.
pub(super) const TMP_BYTES: u64 = 1 << 30;
/// What is required, beside what is made of it.
const LISTED: &str = "requirements.txt";
/// What was made of it, as pip freezes it; its first line says for which Python.
const LOCK: &str = "requirements.lock";
/// Before that Python's version.
const LOCK_HEAD: &str = "# python=";
/// Bytes of it.
const LOCK_MAX: u64 = 1 << 20;
/// Between two looks how much there is.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a line of what is said.
const LINE_MAX: u64 = 4_000;

/// With uv: its cache is beside what it makes, so that files are linked, not copied. The interpreter's own packages are not
/// seen. Bytecode is made now, because nobody may write it later.
const UV: &str = "set -e; export UV_CACHE_DIR=/env/.cache UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1; \
     \"$uv\" venv --quiet --python \"$python\" /env/venv; \
     \"$uv\" pip install --compile-bytecode --python /env/venv/bin/python $index ${file:+-r \"$file\"} $more; \
     echo \"# python=$version\" > /env/requirements.lock; \
     \"$uv\" pip freeze --quiet --python /env/venv/bin/python >> /env/requirements.lock; rm -rf /env/.cache; chmod -R a+rX /env/venv";
const PIP: &str = "set -e; \"$python\" -I -m venv /env/venv; \
     /env/venv/bin/python -I -m pip --disable-pip-version-check --no-cache-dir install --progress-bar off $index ${file:+-r \"$file\"} $more; \
     echo \"# python=$version\" > /env/requirements.lock; \
     /env/venv/bin/python -I -m pip --disable-pip-version-check freeze >> /env/requirements.lock; chmod -R a+rX /env/venv";

/// What an environment is made of.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Which Python.
    pub interpreter: &'a Interpreter,
    /// The unpacked bundle, and the file in it that lists requirements.
    pub app: &'a Path,
    /// See `app`.
    pub file: Option<&'a str>,
    /// What is required beside that.
    pub more: &'static [&'static str],
}

/// The folder that is [`AT`] for who needs this environment; `None`: the interpreter alone does. `say`: what is said while it
/// is made.
///
/// # Errors
/// Why it cannot be made, in a sentence.
pub async fn environment(
    parts: &Parts,
    wanted: &Wanted<'_>,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Option<PathBuf>, String> {
    let Wanted { interpreter, app, file, more } = *wanted;
    let listed = match file {
        Some(file) => tokio::fs::read(app.join(file)).await.map_err(|e| format!("{file}: {e}"))?,
        None => Vec::new(),
    };
    if more.is_empty() && listed.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let content = &parts.settings.content;
    let repository = content.pypi.clone().or_else(|| parts.catalog.first(crate::node::store::Language::Python));
    let mut key = sha2::Sha256::new_with_prefix(b"bowline environment 2\0");
    for part in [&interpreter.program, &interpreter.version, repository.as_deref().unwrap_or_default(), &more.join(" ")]
    {
        key.update(part.as_bytes());
        key.update(b"\0");
    }
    key.update(&listed);
    let is_plain = std::str::from_utf8(&listed).is_ok_and(|text| text.lines().all(names_a_package));
    if !is_plain {
        // Its lines lead to other files of the bundle, which is named by what it holds.
        key.update(app.file_name().unwrap_or_default().as_encoded_bytes());
    }
    let name = Sha256::new(key.finalize().into()).to_string();
    let making = match parts.contents.environments.get(&name).await? {
        Copy::There(path) => {
            parts.metrics.environment_hit(LANGUAGE);
            return Ok(Some(path));
        }
        Copy::Missing(making) => making,
    };
    say(&format!("Building the Python environment with Python {}", interpreter.version));
    if is_plain {
        let told = |e: std::io::Error| format!("the environment cannot be made: {e}");
        tokio::fs::write(making.folder().join(LISTED), &listed).await.map_err(told)?;
    }
    let began = clock::now();
    let made = make(parts, wanted, is_plain, repository.as_deref(), making.folder(), say).await;
    let made = made.and_then(|()| making.done());
    parts.metrics.environment(LANGUAGE, made.is_ok(), began.elapsed());
    made.map(Some)
}

/// What the environment among these folders has, as pip freezes it; `None`: there is none.
async fn lock(folders: &[Folder]) -> Option<String> {
    use std::io::Read;
    let environment = folders.iter().find(|folder| folder.to == Path::new(AT))?.from.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        opened(&environment)?.take(LOCK_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    });
    read.await.ok().flatten()
}

/// The lock of an environment. It was written where code of others runs: what is no plain file of this folder's own is not
/// opened. Blocks.
fn opened(environment: &Path) -> Option<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::MetadataExt;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(environment.join(LOCK), flags, Mode::empty()).ok()?);
    let is_plain = file.metadata().is_ok_and(|of| of.is_file() && of.nlink() == 1);
    is_plain.then_some(file)
}

/// Writes down what the environment among the folders of a bundle has.
///
/// # Errors
/// Why not, in a sentence.
pub async fn note(parts: &Parts, bundle: i64, folders: &[Folder]) -> Result<(), String> {
    let lock = lock(folders).await;
    let told = |e| format!("what the environment has cannot be written down: {}", Causes(&e));
    parts.store.set_lock(bundle, lock.as_deref()).await.map_err(told)
}

/// For which Python a lock is.
pub fn version(lock: &str) -> Option<&str> {
    lock.lines().next()?.strip_prefix(LOCK_HEAD)
}

/// For which Python the environment in this folder was made. Blocks.
pub fn made_for(environment: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = Vec::new();
    opened(environment)?.take(LINE_MAX).read_to_end(&mut text).ok()?;
    version(&String::from_utf8_lossy(&text)).map(str::to_owned)
}

async fn make(
    parts: &Parts,
    wanted: &Wanted<'_>,
    is_plain: bool,
    repository: Option<&str>,
    folder: &Path,
    say: &(dyn Fn(&str) + Sync),
) -> Result<(), String> {
    let content = &parts.settings.content;
    let told = |e: std::io::Error| format!("the environment cannot be made: {e}");
    // It is read by who is not who made it.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(told)?;
    if rustix::process::geteuid().is_root() {
        chown(folder, Some(content.uid), Some(content.uid)).map_err(told)?;
    }
    let door = match repository {
        Some(repository) => Some(Door::open(router::router(parts.clone()), repository, content.uid).map_err(told)?),
        None => None,
    };
    let uv = find(&content.uv);
    let index = match (repository, &uv) {
        (Some(repository), Some(_)) => format!("--default-index {INDEX}/packages/{repository}/simple/"),
        (Some(repository), None) => format!("--index-url {INDEX}/packages/{repository}/simple/"),
        (None, _) => "--no-index".to_owned(),
    };
    let mut environment = vec![
        ("python".to_owned(), wanted.interpreter.program.clone()),
        ("version".to_owned(), wanted.interpreter.version.clone()),
        ("index".to_owned(), index),
        ("more".to_owned(), wanted.more.join(" ")),
    ];
    let mut folders = vec![Folder { from: folder.to_owned(), to: AT.into(), is_writable: true }];
    // Nothing of a bundle is there where others get what is made.
    let file = if is_plain { format!("{AT}/{LISTED}") } else { wanted.file.unwrap_or_default().to_owned() };
    environment.push(("file".to_owned(), file));
    if !is_plain {
        folders.push(Folder { from: wanted.app.to_owned(), to: "/app".into(), is_writable: false });
    }
    folders.extend(wanted.interpreter.folder());
    if let Some(uv) = &uv {
        environment.push(("uv".to_owned(), format!("/run/uv/{}", uv.file_name().unwrap_or_default().display())));
        folders.push(Folder { from: uv.parent().unwrap_or(uv).to_owned(), to: "/run/uv".into(), is_writable: false });
    }
    let enclosure = Enclosure {
        environment,
        readable: &content.readable,
        folders,
        work: None,
        tmp: TMP_BYTES,
        at: if is_plain { "/tmp" } else { "/app" },
        account: Account::numbered(content.uid),
        door: door.as_ref(),
        port_at: None,
        run: None,
        outbound: None,
        memory: Memory::Unbounded,
        cpu: content.cpus_max,
    };
    let script = if uv.is_some() { UV } else { PIP };
    let mut begun =
        enclosure.begin(&["sh", "-c", &format!("umask 022; exec 2>&1; {script}")].map(OsString::from)).map_err(told)?;
    drop(begun.child.stdin.take());
    let (out, err) = (begun.child.stdout.take(), begun.child.stderr.take());
    let work = async {
        tokio::join!(listen(out, say), listen(err, say));
        begun.child.wait().await
    };
    let work = async {
        tokio::select! {
            status = work => status,
            () = outgrows(folder, content.environment_bytes_max) => {
                let bound = content.environment_bytes_max;
                Err(std::io::Error::other(format!("it has more than {bound} bytes (`content.environment_bytes_max`)")))
            }
        }
    };
    let done = tokio::time::timeout(content.environment_timeout, work).await;
    let status = done.map_err(|_| "the environment took too long to make".to_owned())?.map_err(told)?;
    if !status.success() {
        return Err("the Python environment cannot be made; the lines above say why".to_owned());
    }
    Ok(())
}

/// Returns when a folder that is being filled has more than it may.
pub(super) async fn outgrows(folder: &Path, bytes_max: u64) {
    loop {
        tokio::time::sleep(LOOK).await;
        let folder = folder.to_owned();
        if tokio::task::spawn_blocking(move || copies::size(&folder)).await.is_ok_and(|bytes| bytes > bytes_max) {
            return;
        }
    }
}

/// Whether a line of requirements is one (PEP 508) and nothing else: no option, no path, no URL.
fn names_a_package(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default().trim();
    let is_part = |c: char| c.is_ascii_alphanumeric() || " ._-[],<>=!~*+();'\"".contains(c);
    line.is_empty()
        || line.starts_with('#')
        || line.starts_with(|c: char| c.is_ascii_alphanumeric()) && line.chars().all(is_part) && !is_file(line)
}

/// A file's name could be a package's.
fn is_file(line: &str) -> bool {
    [".whl", ".zip", ".gz", ".bz2", ".xz", ".tgz", ".tar"]
        .iter()
        .any(|ending| line.to_ascii_lowercase().contains(ending))
}

/// Says what comes, line by line; a line that does not end is cut.
pub(super) async fn listen(from: Option<impl tokio::io::AsyncRead + Unpin>, say: &(dyn Fn(&str) + Sync)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(read) = (&mut from).take(LINE_MAX).read_until(b'\n', &mut line).await {
        if read == 0 {
            return;
        }
        say(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_a_plain_file_of_the_environments_own() {
        let folder = tempfile::tempdir().unwrap();
        let [secret, environment] = ["secret", "environment"].map(|name| folder.path().join(name));
        std::fs::create_dir(&environment).unwrap();
        let lock = environment.join(LOCK);
        let text = format!("{LOCK_HEAD}3.11.2\nx==1\n");
        std::fs::write(&secret, &text).unwrap();
        std::fs::write(&lock, &text).unwrap();
        assert_eq!(made_for(&environment).as_deref(), Some("3.11.2"));
        std::fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(&secret, &lock).unwrap();
        assert_eq!(made_for(&environment), None, "a link leads elsewhere");
        std::fs::remove_file(&lock).unwrap();
        std::fs::hard_link(&secret, &lock).unwrap();
        assert_eq!(made_for(&environment), None, "so may another name of the same file");
        std::fs::remove_file(&lock).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert_eq!(made_for(&environment), None, "nobody waits for what never comes");
    }

    #[test]
    fn lines_that_lead_elsewhere_are_told_from_names() {
        for plain in ["", "# x", "flask", "shiny>=1.4,<2  # why", "uvicorn[standard] ~= 0.30 ; python_version < '3.13'"]
        {
            assert!(names_a_package(plain), "{plain}");
        }
        for other in [
            "-r base.txt",
            "--index-url http://x",
            ".",
            "./pkg",
            "pkg/",
            "a @ file:///x",
            "a-1.0.whl",
            "git+https://x",
            "a\\b",
        ] {
            assert!(!names_a_package(other), "{other}");
        }
    }
}
