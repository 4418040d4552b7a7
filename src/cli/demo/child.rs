//! `bowline demo-child --parent PID -- COMMAND…` (hidden): becomes COMMAND, after asking the kernel to be killed when
//! its parent dies, so that not even `kill -9` of the demo leaves anything behind.
//!
//! It is a command of its own because asking between fork and exec would need `unsafe`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Gid, Pid, Signal, Uid, getppid, set_parent_process_death_signal};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// What to become, and whose child this is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process this one must not outlive.
    #[arg(long, value_name = "PID")]
    parent: i32,
    /// End by SIGQUIT with the parent, not by SIGKILL: for who has children of its own.
    #[arg(long)]
    gently: bool,
    /// Give up being root.
    #[arg(long)]
    as_nobody: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Returns only if the command could not be started: 127, as a shell does.
pub fn run(args: Args) -> ExitCode {
    let Args { parent, gently, as_nobody, command } = args;
    let signal = if gently { Signal::QUIT } else { Signal::KILL };
    let error = match if as_nobody { become_nobody() } else { Ok(()) } {
        Ok(()) => transform(parent, signal, &command),
        Err(error) => error.into(),
    };
    let name = command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    eprintln!("bowline demo: cannot start `{name}`: {error}");
    ExitCode::from(127)
}

/// The user nobody and their group, by the number they have everywhere.
pub(super) const NOBODY: u32 = 65534;

/// Before the wish to die with the parent, which the kernel forgets when the user changes. These calls are about one
/// thread (setuid(2), "C library/kernel differences"), and there is but one here.
fn become_nobody() -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// The signal is tied to the *thread* that forked us (prctl(2), `PR_SET_PDEATHSIG`); the demo forks from its main
/// thread, which lives as long as it does. It stays set across exec.
fn transform(parent: i32, signal: Signal, command: &[OsString]) -> std::io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(signal)) {
        return error.into();
    }
    // The parent may have died before the line above; then nobody would ever send the signal.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return std::io::Error::other("the demo that wanted it is gone");
    }
    match command.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => std::io::Error::other("no command given"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::Duration;

    use rustix::process::{kill_process, test_kill_process};

    use super::*;

    /// Another test starts this program anew with this variable set to play the child.
    const ROLE: &str = "BOWLINE_TEST_DEMO_CHILD_OF";

    #[test]
    #[ignore = "a role the other test plays, in a process of its own"]
    fn role_of_a_child() {
        if let Ok(parent) = std::env::var(ROLE) {
            let error = transform(parent.parse().unwrap(), Signal::KILL, &["sleep".into(), "600".into()]);
            unreachable!("could not become sleep: {error}");
        }
    }

    #[test]
    fn a_child_dies_with_a_parent_that_is_killed() {
        let me = std::env::current_exe().unwrap();
        let script = format!(
            "{ROLE}=$$ '{}' --exact cli::demo::child::tests::role_of_a_child --ignored >/dev/null 2>&1 & echo $!; wait",
            me.display()
        );
        let mut parent = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let becomes = |wanted: fn(&str) -> bool| {
            (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_pid())).unwrap_or_default();
                wanted(&stat)
            })
        };
        assert!(becomes(|stat| stat.contains("(sleep)")), "the child never became `sleep`");
        parent.kill().unwrap();
        parent.wait().unwrap();
        // Gone, or a zombie until whoever inherited it looks.
        let is_dead = becomes(|stat| stat.is_empty() || stat.contains(") Z "));
        if !is_dead && test_kill_process(child).is_ok() {
            kill_process(child, Signal::KILL).unwrap();
        }
        assert!(is_dead, "the child outlived its parent");
    }

    #[test]
    fn nothing_is_started_for_somebody_who_is_gone() {
        let not_my_parent = Pid::as_raw_pid(rustix::process::getpid());
        assert!(transform(not_my_parent, Signal::KILL, &["true".into()]).to_string().contains("is gone"));
        set_parent_process_death_signal(None).unwrap();
    }
}
