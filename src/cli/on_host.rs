//! What commands on a node's own machine begin with: its configuration, and a runtime.
#![expect(clippy::print_stderr, reason = "commands say why they did not begin")]

use std::path::Path;
use std::process::ExitCode;

use super::EX_CONFIG;
use crate::config::node::{self, Settings};

/// Reads a node's configuration and does the work.
pub(super) fn run(config: &Path, work: impl AsyncFnOnce(Settings) -> ExitCode) -> ExitCode {
    let settings = match node::load(config) {
        Ok(settings) => settings,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    block_on(work(settings))
}

/// Does the work on one thread, with TLS ready.
pub(super) fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
