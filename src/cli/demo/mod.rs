//! `bowline demo`: a proxy before package servers and real Shiny processes on this machine, in one command.
//!
//! Everything is in one folder (`folder`), everything started is ended again (`supervise`), and nothing is told to
//! the reader before it serves.
#![expect(clippy::print_stderr, reason = "progress and news are for people, and programs read stdout")]

mod apps;
mod ask;
mod certificate;
pub mod child;
mod configuration;
mod content;
mod folder;
mod packages;
mod ports;
mod publish;
mod report;
mod repositories;
mod start;
mod supervise;
mod wheels;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;

use self::apps::{App, InterpreterError};
use self::folder::{Folder, FolderError};
use self::report::Report;
use self::start::postgres::{PostgresError, Programs};
use self::start::{Stage, StartError, Wish};
use self::supervise::{Event, Keeper, Launcher, Pace};
use crate::runtime::clock;
use crate::runtime::signal::Signals;

/// Start a proxy, package servers and Shiny processes behind it on this machine, until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep everything in this folder: new, empty or from an earlier demo [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Package servers, and Shiny processes of each kind
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=12))]
    nodes: u8,
    /// Keep rows in PostgreSQL, a cluster of the demo's own, not in SQLite
    #[arg(long)]
    postgres: bool,
    /// Print one JSON object on one line instead of text
    #[arg(long)]
    json: bool,
    /// A Python that has the `shiny` package [default: $BOWLINE_DEMO_PYTHON, `.venv/bin/python` or `python3`]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Wheels that Python content requires [default: $BOWLINE_DEMO_WHEELS, else that Python's pip fetches them]
    #[arg(long, value_name = "DIR")]
    wheels: Option<PathBuf>,
    /// Publish no content
    #[arg(long)]
    without_content: bool,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// See the documentation of `bowline demo`: a process that dies alone is started again after this.
const PACE: Pace = Pace { pause: Duration::from_secs(5), grace: Duration::from_secs(5) };
/// News of processes that nobody has read yet; there are 38 processes at most, and reading is all the demo does.
const NEWS_MAX: usize = 64;

/// Serves until told to stop; the code is 1 if it could not begin.
pub fn run(args: Args) -> ExitCode {
    // Declared first and so dropped last: no process may be left when its folder goes.
    let mut place = None;
    // Uploads and the database are dialled by the process's default provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread, the main one: children are bound to the thread that starts them (see `child`).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match &runtime {
        Ok(runtime) => runtime.block_on(demo(args, &mut place)),
        Err(error) => Err(DemoError::System("cannot start a runtime", error.kind().into())),
    };
    // Kills what an interrupted start left behind.
    drop(runtime);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bowline demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: Args, place: &mut Option<Folder>) -> Result<(), DemoError> {
    let mut signals = Signals::new().map_err(|error| DemoError::System("cannot listen to signals", error))?;
    let (stage, report) = tokio::select! {
        // Whatever was started until then is dropped, and dropping kills.
        _ = signals.next() => return Ok(()),
        begun = begin(&args, place) => begun?,
    };
    tell(&args, &report).map_err(|error| DemoError::System("cannot print", error))?;
    if let Some(folder) = place {
        stay(&mut signals, folder, stage, report).await;
    }
    Ok(())
}

/// Starts everything in a folder it puts into `place`; returns when all of it serves.
async fn begin(args: &Args, place: &mut Option<Folder>) -> Result<(Stage, Report), DemoError> {
    let postgres = if args.postgres { Some(Programs::find()?) } else { None };
    let interpreters = interpreters(args.python.clone()).await?;
    let folder = place.insert(Folder::prepare(args.dir.as_deref(), &random_name(), clock::unix())?);
    let (nodes, count) = (args.nodes, usize::from(args.nodes) * interpreters.len());
    eprintln!("Starting {nodes} package servers, {count} Shiny processes and a proxy in {} …", folder.path().display());
    let launcher = launcher().map_err(|error| DemoError::System("cannot find my own program", error))?;
    let mut stage = Stage::new(launcher);
    let wheels = args.wheels.clone();
    let wheels = wheels.or_else(|| std::env::var_os(wheels::VARIABLE).filter(|name| !name.is_empty()).map(Into::into));
    let wish = Wish { interpreters, count: args.nodes, postgres, wheels, publishes: !args.without_content };
    let report = start::all(&mut stage, folder, &wish).await?;
    folder.write("demo.json", &report.json())?;
    Ok((stage, report))
}

/// What runs which app; R only where R has shiny.
async fn interpreters(python: Option<PathBuf>) -> Result<Vec<(App, PathBuf)>, DemoError> {
    let chosen =
        python.or_else(|| std::env::var_os(apps::PYTHON_VARIABLE).filter(|name| !name.is_empty()).map(Into::into));
    let mut interpreters = vec![(App::Python, apps::python(chosen).await?)];
    match apps::r().await {
        Ok(path) => interpreters.push((App::R, path)),
        Err(why) => eprintln!("Without R: {why}. `make demo R=1` installs it."),
    }
    Ok(interpreters)
}

/// `bowline demo-child --parent US --`.
fn launcher() -> io::Result<Launcher> {
    let me = std::env::current_exe()?;
    let words: [OsString; 5] =
        [me.into(), "demo-child".into(), "--parent".into(), std::process::id().to_string().into(), "--".into()];
    Ok(words.into())
}

fn tell(args: &Args, report: &Report) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", report.json())?
    } else {
        write!(stdout, "{report}")?
    }
    stdout.flush()
}

/// Keeps everything running until told to stop, then ends it.
async fn stay(signals: &mut Signals, folder: &Folder, stage: Stage, mut report: Report) {
    let (events, mut news) = mpsc::channel(NEWS_MAX);
    let (launcher, processes) = stage.into_parts();
    let mut keeper = Keeper::new(launcher, PACE, events);
    for (program, running) in processes {
        keeper.keep(program, running);
    }
    loop {
        tokio::select! {
            _ = signals.next() => break,
            Some((name, event)) = news.recv() => {
                eprintln!("{name} {}", words(&event));
                if let Event::Restarted(pid) = event {
                    report.set_pid(&name, pid);
                    if let Err(error) = folder.write("demo.json", &report.json()) {
                        eprintln!("{error}");
                    }
                }
            }
        }
    }
    eprintln!("Ending …");
    keeper.end().await;
}

fn words(event: &Event) -> String {
    match event {
        Event::Died(status) => format!("died ({status}); starts again in {} s", PACE.pause.as_secs()),
        Event::Restarted(pid) => format!("runs again (pid {pid})"),
        Event::NotStarted(error) => format!("could not be started: {error}"),
    }
}

/// Eight hexadecimal digits.
fn random_name() -> String {
    random::<4>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes nobody can guess.
fn random<const N: usize>() -> [u8; N] {
    let random = ring::rand::generate(&ring::rand::SystemRandom::new());
    random.expect("keys cannot be made because the system gives no randomness").expose()
}

/// Writes an executable script. By another process, because a file this one has open for writing might be inherited by
/// a child of a test on another thread, and could then not be executed.
#[cfg(test)]
fn write_script(path: &std::path::Path, text: &str) {
    use std::process::{Command, Stdio};
    let mut install = Command::new("install");
    let mut install = install.args(["-m", "700", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}
