//! `bowline node`: settings → telemetry → [`node::run`].
#![expect(clippy::print_stderr, reason = "a command that did not start says why")]

use std::path::PathBuf;
use std::process::ExitCode;

use super::EX_CONFIG;
use crate::config;
use crate::node;
use crate::telemetry::{Causes, log};

/// Run a package server.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Write the bound addresses here as JSON once everything listens
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
}

/// Runs until told to leave.
pub fn run(args: Args) -> ExitCode {
    let settings = match config::node::load(&args.config) {
        Ok(settings) => settings,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let _log = match log::start(&settings.log) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("the log cannot be started: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %args.config.display(), "bowline node starts");
    // The database is dialled by the process's default provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.threads {
        builder.worker_threads(threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no threads for the node: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(node::run(settings, args.ports_file));
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Causes(&error));
            ExitCode::FAILURE
        }
    }
}
