//! The `git` program: it knows every server, every way to log in, and every proxy.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::is_ref;

/// For a list of what is there.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// For a commit.
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);
/// Bytes of a list.
const LIST_MAX: u64 = 8 << 20;

/// A name and the commit it has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ref {
    /// `refs/tags/v1.0`.
    pub(super) name: String,
    /// Hexadecimal.
    pub(super) commit: String,
}

/// Branches and tags of a repository.
///
/// # Errors
/// What git says.
pub(super) async fn refs(url: &str) -> Result<Vec<Ref>, String> {
    let mut command = git(LIST_MAX);
    command.args(["ls-remote", "--heads", "--tags", "--", url]);
    let text = run(command, LIST_TIMEOUT, LIST_MAX).await?;
    Ok(read(&text))
}

/// One line per name; of an annotated tag the second, whose name ends in `^{}`, has the commit.
fn read(text: &str) -> Vec<Ref> {
    let mut refs: Vec<Ref> = Vec::new();
    for (commit, name) in text.lines().filter_map(|line| line.split_once('\t')) {
        let is_commit = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        let (name, is_peeled) = name.strip_suffix("^{}").map_or((name, false), |name| (name, true));
        if !is_commit || !is_ref(name) {
            continue;
        }
        match refs.last_mut() {
            Some(last) if is_peeled && last.name == name => commit.clone_into(&mut last.commit),
            _ => refs.push(Ref { name: name.to_owned(), commit: commit.to_owned() }),
        }
    }
    refs
}

/// The files of a commit as a tar file, and its time, seconds since 1970. `bytes_max`: of any file on the way.
///
/// # Errors
/// What git says.
pub(super) async fn archive(url: &str, at: &Ref, folder: &Path, tar: &Path, bytes_max: u64) -> Result<i64, String> {
    let git = || git(bytes_max);
    let repository = folder.as_os_str();
    let mut init = git();
    init.args(["init", "--quiet", "--bare", "--"]).arg(repository);
    run(init, LIST_TIMEOUT, LIST_MAX).await?;
    let here = || {
        let mut command = git();
        command.arg("-C").arg(repository);
        command
    };
    let fetch = |what: &str| {
        let mut command = here();
        command.args(["fetch", "--quiet", "--depth=1", "--no-tags", "--", url, what]);
        command
    };
    // Not every server gives what nothing has the name of; then the name may do, if it is still the same.
    if run(fetch(&at.commit), FETCH_TIMEOUT, LIST_MAX).await.is_err() {
        run(fetch(&at.name), FETCH_TIMEOUT, LIST_MAX).await?;
    }
    let mut time = here();
    time.args(["show", "--no-patch", "--format=%ct", &format!("{}^{{commit}}", at.commit), "--"]);
    let time = run(time, LIST_TIMEOUT, LIST_MAX).await?;
    let mut archive = here();
    archive.args(["archive", "--format=tar", &at.commit]);
    let file = File::create(tar).map_err(|e| e.to_string())?;
    archive.stdout(Stdio::from(file));
    run(archive, FETCH_TIMEOUT, LIST_MAX).await?;
    time.trim().parse().map_err(|_| format!("git gives no time of {}", at.commit))
}

/// Asks nobody anything, does nothing a repository says, and writes no file larger than this.
fn git(bytes_max: u64) -> Command {
    let mut command = Command::new("prlimit");
    command
        .args([&format!("--fsize={bytes_max}"), "--core=0", "git"])
        .args(["-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "gc.auto=0"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
        .env("GIT_HTTP_LOW_SPEED_TIME", "60")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if std::env::var_os("GIT_SSH_COMMAND").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20");
    }
    command
}

/// What a stream gives, as far as there is one; what is longer is cut.
async fn all(from: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(bytes_max).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

async fn run(mut command: Command, timeout: Duration, bytes_max: u64) -> Result<String, String> {
    // git has helpers, which speak to servers; without a group of their own they would outlive it.
    command.process_group(0);
    let mut child = command.spawn().map_err(|e| format!("git cannot be run on this node: {e}"))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, said) = tokio::try_join!(all(out, bytes_max), all(err, bytes_max))?;
        Ok::<_, io::Error>((out, said, child.wait().await?))
    };
    let done = tokio::time::timeout(timeout, work).await;
    let (out, said, status) = done.map_err(|_| "git took too long".to_owned())?.map_err(|e| format!("git: {e}"))?;
    group.has_ended();
    if !status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&said).trim()));
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A program and those it started: ended when dropped. The first of them must not have been waited for.
struct Group(Option<Pid>);

impl Group {
    /// Nothing is left to be ended.
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(first) = self.0 {
            let _ = rustix::process::kill_process_group(first, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    /// Whether a process runs still.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    async fn until(what: impl Fn() -> bool) {
        let begun = clock::now();
        while !what() {
            assert!(clock::now().duration_since(begun) < Duration::from_secs(20), "waited in vain");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What starts a program of its own, and writes its number into a file.
    fn with_helper(folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & echo $! > next && mv next helper; wait"])
            .current_dir(folder)
            .kill_on_drop(true);
        command
    }

    #[tokio::test]
    async fn helpers_end_with_git_when_it_takes_too_long_or_nobody_waits_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("helper");
        let helper = || std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
        // Long enough, at last, for the helper to be there.
        for milliseconds in [100, 1_000, 10_000] {
            let told = run(with_helper(folder.path()), Duration::from_millis(milliseconds), LIST_MAX).await;
            assert_eq!(told, Err("git took too long".to_owned()));
            if file.exists() {
                break;
            }
        }
        let timed_out = helper();
        until(|| !runs(&timed_out)).await;

        std::fs::remove_file(&file).unwrap();
        let work = tokio::spawn(run(with_helper(folder.path()), FETCH_TIMEOUT, LIST_MAX));
        until(|| file.exists()).await;
        let abandoned = helper();
        assert!(runs(&abandoned));
        work.abort();
        until(|| !runs(&abandoned)).await;
    }

    #[test]
    fn a_list_is_read_with_the_commits_of_annotated_tags() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!(
            "{a}\trefs/heads/main\n{a}\trefs/tags/v1.0\n{b}\trefs/tags/v1.0^{{}}\n{b}\trefs/tags/v2\nnot one\n{b}\trefs/tags/-x y\n"
        );
        let told: Vec<_> = read(&text).into_iter().map(|r| (r.name, r.commit)).collect();
        assert_eq!(
            told,
            [("refs/heads/main".into(), a), ("refs/tags/v1.0".into(), b.clone()), ("refs/tags/v2".into(), b)]
        );
    }
}
