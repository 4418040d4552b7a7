//! `bowline proxy`: settings → telemetry → [`conductor::run`].
#![expect(clippy::print_stderr, reason = "a command that did not start says why")]

use std::path::PathBuf;
use std::process::ExitCode;

use super::EX_CONFIG;
use crate::config;
use crate::config::proxy::Settings;
use crate::config::report::Problem;
use crate::proxy::conductor::{self, Options, StartError};
use crate::runtime::limits;
use crate::telemetry::log;

/// Run a load balancer.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Write the bound addresses here as JSON once everything listens
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

/// What is wrong with the files a configuration names, for `bowline check`.
pub fn problems(settings: &Settings) -> Vec<Problem> {
    conductor::problems_of_files(settings)
}

/// Runs until told to leave.
pub fn run(args: Args) -> ExitCode {
    let (settings, warnings) = match config::load_with(&args.config, |_| Vec::new()) {
        Ok(loaded) => loaded,
        Err(report) => {
            // What is wrong with the files it names is told together with what is wrong with it.
            let report = config::load_with(&args.config, problems).err().unwrap_or(report);
            eprint!("{report}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let log = match log::start(&settings.startup.log) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("the log cannot be started: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %args.config.display(), "bowline proxy starts");
    for warning in warnings.lines() {
        tracing::warn!("{warning}");
    }
    tell_open_files(&settings);
    // Pingora dials by the process's default provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread accepts, probes and answers the operator; connections live on the proxy's own threads.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("control");
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no threads for the proxy: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options = Options { file: args.config, ports_file: args.ports_file, log: log.sink().clone() };
    let outcome = runtime.block_on(conductor::run(settings, options));
    // Whatever still runs (a client that never reads) must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

/// Every connection takes a descriptor, and one towards a backend.
fn tell_open_files(settings: &Settings) {
    let wanted: usize = settings.live.listeners.iter().map(|listener| listener.limits.connections * 2).sum();
    match limits::raise_open_files() {
        Some(allowed) if (allowed as usize) < wanted => tracing::warn!(
            allowed,
            wanted,
            remedy = "raise the limit of open files (LimitNOFILE=, ulimit -n), or lower the listeners' `connections`",
            "fewer files may be open than all connections would take"
        ),
        allowed => tracing::debug!(allowed, wanted, "open files"),
    }
}

fn refused(error: &StartError) -> ExitCode {
    eprintln!("bowline proxy did not start: {error}");
    match error {
        StartError::Unusable(problems) => {
            for problem in problems {
                let kind = if problem.is_warning { "warning" } else { "error" };
                eprintln!("  {kind}: {problem}\n    {}", problem.remedy);
            }
            ExitCode::from(EX_CONFIG)
        }
        StartError::Bind(errors) => {
            for error in errors {
                eprintln!("  {error}");
            }
            ExitCode::FAILURE
        }
        StartError::Admin(_) | StartError::System { .. } => ExitCode::FAILURE,
    }
}
