//! The commands. The only place where parts are put together, and the only one that prints.

pub mod check;
pub mod schema;

use std::process::ExitCode;

/// Runs the command the arguments name.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
