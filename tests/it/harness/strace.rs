//! strace at a running node: ends it, holds it or fails it within the calls it makes to the system.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Folder, eventually, tool};

/// How long it may take to let go of a node's threads, on a machine with much else to do.
const TO_LET_GO: Duration = Duration::from_secs(10);

/// Lets go of the node when dropped.
pub struct Strace {
    child: Child,
    folder: Folder,
}

impl Strace {
    /// At each of these calls, of every thread, something is injected: `fsync:signal=KILL:when=2`. `None` where this machine
    /// does not let one process look into another: then nothing was looked at.
    pub async fn attach(pid: u32, calls: &str, inject: &str) -> Option<Self> {
        let folder = Folder::new();
        let said = std::fs::File::create(folder.path("said")).unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(tool("strace"))
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let is_attached = eventually("strace", async || {
            let has_ended = child.try_wait().unwrap().is_some();
            let said = folder.read("said");
            if said.contains(" attached") {
                return Some(true);
            }
            if has_ended {
                assert!(said.contains("not permitted"), "{said}");
                eprintln!("strace may not look into a node here; nothing was looked at: {said}");
            }
            has_ended.then_some(false)
        })
        .await;
        is_attached.then_some(Self { child, folder })
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It is to let go of what it holds itself, first; but a test ends, whatever it waits for.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let is_patient_until = Instant::now() + TO_LET_GO;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > is_patient_until {
                eprintln!("strace does not let go; it is killed: {}", self.folder.read("said"));
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
