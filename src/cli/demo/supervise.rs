//! Child processes: started so that they die with us, started again when they die alone, ended when told.
//!
//! Everything here runs on the thread that runs the demo, which must be the main thread: see [`super::child`].

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

/// How to start something.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// For people, and to tell programs apart.
    pub(super) name: String,
    /// The program and its arguments; never empty.
    pub(super) command: Vec<OsString>,
    /// Added to our own environment.
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Where it runs.
    pub(super) folder: PathBuf,
    /// Gets its output and errors, appended.
    pub(super) log: PathBuf,
    /// Tells it to end.
    pub(super) stop: Signal,
}

/// What is put before every command: `bowline demo-child --parent … --`.
pub(super) type Launcher = Arc<[OsString]>;

/// A process that runs, in a process group of its own (so that Ctrl-C reaches only us, who end the others in order).
/// Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: Pid,
    stop: Signal,
}

/// Something worth telling about a kept program.
#[derive(Debug)]
pub(super) enum Event {
    /// It died alone and will be started again after a pause.
    Died(ExitStatus),
    /// It was started again with this process id.
    Restarted(u32),
    /// It could not be started; tried again after a pause.
    NotStarted(io::Error),
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between a death and the next start.
    pub(super) pause: Duration,
    /// Between the signal to stop and SIGKILL.
    pub(super) grace: Duration,
}

/// A program that is started again whenever it dies, until [`Keeper::end`].
pub(super) struct Keeper {
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<()>,
    launcher: Launcher,
    pace: Pace,
    events: mpsc::Sender<(String, Event)>,
}

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    /// When its log cannot be opened or the launcher cannot be executed.
    pub(super) fn start(launcher: &Launcher, program: &Program) -> io::Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&program.log)?;
        let mut words = launcher.iter().chain(&program.command);
        let first = words.next().ok_or_else(|| io::Error::other("an empty command"))?;
        let child = Command::new(first)
            .args(words)
            .envs(program.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&program.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the new process has no id"))?;
        Ok(Self { child, pid, stop: program.stop })
    }

    /// Its process id; it stays the same when the launcher becomes the program.
    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it ends by itself. Cancel-safe.
    async fn end_of_life(&mut self) -> ExitStatus {
        // An error is only possible when somebody else reaped our child; then it is gone too.
        self.child.wait().await.unwrap_or_default()
    }

    /// Its signal to stop, a bounded wait, SIGKILL; to its whole process group.
    pub(super) async fn end(mut self, grace: Duration) {
        if self.ended().is_some() {
            return;
        }
        // Fails only if the group is gone already.
        let _ = kill_process_group(self.pid, self.stop);
        if tokio::time::timeout(grace, self.end_of_life()).await.is_err() {
            let _ = kill_process_group(self.pid, Signal::KILL);
            // Not even SIGKILL ends a process the kernel keeps in a hung file system; nothing more can be done then.
            let _ = tokio::time::timeout(grace, self.end_of_life()).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only while it is ours to reap: afterwards the id may be somebody else's.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

impl Keeper {
    /// `events` gets a line for each death and start, with the program's name.
    pub(super) fn new(launcher: Launcher, pace: Pace, events: mpsc::Sender<(String, Event)>) -> Self {
        Self { stop: watch::Sender::new(false), tasks: tokio::task::JoinSet::new(), launcher, pace, events }
    }

    /// Takes over a running program.
    pub(super) fn keep(&mut self, program: Program, running: Running) {
        let (launcher, pace) = (self.launcher.clone(), self.pace);
        self.tasks.spawn(keep(program, running, launcher, pace, self.events.clone(), self.stop.subscribe()));
    }

    /// Ends all programs, side by side; returns when the last is gone, after twice `pace.grace` at most.
    pub(super) async fn end(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn keep(
    program: Program,
    running: Running,
    launcher: Launcher,
    pace: Pace,
    events: mpsc::Sender<(String, Event)>,
    mut stop: watch::Receiver<bool>,
) {
    // Nobody listening is no reason to stop keeping; a full queue drops a line of news, never the program.
    let tell = |event| drop(events.try_send((program.name.clone(), event)));
    let mut running = Some(running);
    loop {
        if let Some(mut process) = running.take() {
            tokio::select! {
                status = process.end_of_life() => tell(Event::Died(status)),
                () = told(&mut stop) => return process.end(pace.grace).await,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pace.pause) => {}
            () = told(&mut stop) => return,
        }
        match Running::start(&launcher, &program) {
            Ok(process) => {
                tell(Event::Restarted(process.id()));
                running = Some(process);
            }
            Err(error) => tell(Event::NotStarted(error)),
        }
    }
}

/// Waits for the word to stop; a keeper that is gone is one.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|is_told| *is_told).await);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::process::test_kill_process;

    use super::*;

    fn shell(folder: &Path, script: &str) -> Program {
        Program {
            name: "shell".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            environment: vec![("GREETING", "hello".into())],
            folder: folder.to_owned(),
            log: folder.join("shell.log"),
            stop: Signal::TERM,
        }
    }

    fn keeper(pause_ms: u64, grace_ms: u64) -> (Keeper, mpsc::Receiver<(String, Event)>) {
        let (events, news) = mpsc::channel(16);
        let pace = Pace { pause: Duration::from_millis(pause_ms), grace: Duration::from_millis(grace_ms) };
        (Keeper::new(Launcher::default(), pace, events), news)
    }

    async fn log_has(program: &Program, text: &str) {
        let is_there = async {
            while !std::fs::read_to_string(&program.log).unwrap_or_default().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_there).await.expect("the program logs in time");
    }

    async fn next(news: &mut mpsc::Receiver<(String, Event)>) -> Event {
        tokio::time::timeout(Duration::from_secs(20), news.recv()).await.expect("news in time").expect("news").1
    }

    fn is_alive(id: u32) -> bool {
        test_kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap()).is_ok()
    }

    #[tokio::test]
    async fn output_and_errors_go_to_the_log_and_the_environment_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let program = shell(folder.path(), "echo $GREETING; echo trouble >&2; pwd; sleep 600");
        let running = Running::start(&Launcher::default(), &program).unwrap();
        for text in ["hello\n", "trouble\n", folder.path().canonicalize().unwrap().to_str().unwrap()] {
            log_has(&program, text).await;
        }
        running.end(Duration::from_secs(20)).await;
    }

    #[tokio::test]
    async fn one_that_dies_alone_is_started_again_and_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let program = shell(folder.path(), "echo up; exec sleep 600");
        let (mut keeper, mut news) = keeper(50, 5_000);
        let running = Running::start(&Launcher::default(), &program).unwrap();
        let first = running.pid;
        keeper.keep(program, running);
        rustix::process::kill_process(first, Signal::KILL).unwrap();
        assert!(matches!(next(&mut news).await, Event::Died(status) if !status.success()));
        let Event::Restarted(second) = next(&mut news).await else { panic!("expected a restart") };
        assert_ne!(second, first.as_raw_pid().unsigned_abs());
        assert!(is_alive(second));
        keeper.end().await;
        assert!(!is_alive(second));
    }

    #[tokio::test]
    async fn one_that_cannot_be_started_again_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        std::os::unix::fs::symlink("/bin/sleep", &tool).unwrap();
        let mut program = shell(folder.path(), "");
        program.command = vec![tool.clone().into(), "600".into()];
        let (mut keeper, mut news) = keeper(20, 5_000);
        let running = Running::start(&Launcher::default(), &program).unwrap();
        let pid = running.pid;
        std::fs::remove_file(&tool).unwrap();
        keeper.keep(program, running);
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        assert!(matches!(next(&mut news).await, Event::Died(_)));
        assert!(matches!(next(&mut news).await, Event::NotStarted(_)));
        std::os::unix::fs::symlink("/bin/sleep", &tool).unwrap();
        while !matches!(next(&mut news).await, Event::Restarted(_)) {}
        keeper.end().await;
    }

    #[tokio::test]
    async fn one_that_ignores_sigterm_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let program = shell(folder.path(), "trap '' TERM; sleep 600 & echo below $!; echo ready; wait; sleep 600");
        let (mut keeper, _news) = keeper(50, 200);
        let running = Running::start(&Launcher::default(), &program).unwrap();
        let id = running.id();
        log_has(&program, "ready").await;
        keeper.keep(program.clone(), running);
        tokio::time::timeout(Duration::from_secs(20), keeper.end()).await.expect("the wait is bounded");
        assert!(!is_alive(id));
        let log = std::fs::read_to_string(&program.log).unwrap();
        let below = log.lines().find_map(|line| line.strip_prefix("below ")).unwrap().parse::<u32>().unwrap();
        let is_gone = async {
            // Gone, or a zombie until whoever inherited it looks.
            let stat = || std::fs::read_to_string(format!("/proc/{below}/stat")).unwrap_or_default();
            while !stat().is_empty() && !stat().contains(") Z ") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_gone).await.expect("what it started dies with it");
    }

    #[tokio::test]
    async fn a_dropped_one_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(&Launcher::default(), &shell(folder.path(), "exec sleep 600")).unwrap();
        let id = running.id();
        drop(running);
        let is_gone = async {
            while is_alive(id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_gone).await.expect("it is reaped");
    }
}
