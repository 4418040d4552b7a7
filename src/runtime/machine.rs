//! Which machine this is, who works on it, and which process.

use std::fs;

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// The name it gives itself.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What no other machine has: systemd's machine id (machine-id(5)), or what the kernel drew when it started.
pub fn id() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id", BOOT_ID]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty() && text != "uninitialized")
        .unwrap_or_else(name)
}

/// The account this process runs as, by name where the machine's own list (passwd(5)) or the session has one.
pub fn account() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let list = fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&list, &uid).map(str::to_owned).or_else(|| std::env::var("LOGNAME").ok()).unwrap_or(uid)
}

fn named<'a>(list: &'a str, uid: &str) -> Option<&'a str> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid && !name.is_empty()).then_some(name)
    })
}

/// A process so that it can be told later, by another one, whether it still runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What the kernel drew when it started.
    boot: String,
    /// Where its number counts: containers have numbers of their own.
    namespace: String,
    pid: i32,
    /// When it started, as the kernel counts: numbers are used again.
    started: u64,
}

impl Process {
    /// This one. `None` where the kernel does not tell.
    pub fn own() -> Option<Self> {
        Self::of(rustix::process::getpid())
    }

    fn of(pid: Pid) -> Option<Self> {
        let boot = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?.display().to_string();
        let pid = pid.as_raw_nonzero().get();
        Some(Self { boot, namespace, pid, started: alive_since(pid)? })
    }

    /// Whether it is certain that it does not run any more. It must have been one of this machine.
    pub fn is_gone(&self) -> bool {
        let (Some(own), Some(pid)) = (Self::own(), Pid::from_raw(self.pid)) else { return false };
        if own.boot != self.boot {
            return true;
        }
        if own.namespace != self.namespace {
            return false;
        }
        // Where /proc shows one's own processes only, others are there all the same.
        test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
            || fs::exists(format!("/proc/{}/stat", self.pid)).unwrap_or(false)
                && alive_since(self.pid) != Some(self.started)
    }
}

/// When a process started that has not ended: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
fn alive_since(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name, in which anything may be.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| !has_ended)?.parse().ok()
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_gone_once_it_has_ended_and_not_before() {
        let own = Process::own().unwrap();
        assert!(!own.is_gone());
        assert!(Process { boot: "another".into(), ..own.clone() }.is_gone(), "the machine was started again");
        assert!(Process { started: own.started + 1, ..own.clone() }.is_gone(), "the number is another one's now");
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let of = Process::of(Pid::from_child(&child)).unwrap();
        assert!(!of.is_gone());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(of.is_gone());
        assert!(!Process { namespace: "pid:[1]".into(), ..of }.is_gone(), "who knows what runs in another container");
    }

    #[test]
    fn accounts_have_names() {
        assert_eq!(named("root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n", "1000"), Some("ann"));
        assert_eq!(named("root:x:0:0::/:/bin/sh\n::1:1\nbroken\n", "1"), None);
        assert!(!account().is_empty());
    }
}
