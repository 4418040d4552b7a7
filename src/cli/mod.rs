//! The commands. The only place where parts are put together, and the only one that prints.

pub mod check;
pub mod schema;

use std::process::ExitCode;

mod ctl;
pub mod disable;
pub mod drain;
pub mod enable;
pub mod reload;
pub mod sessions;
pub mod status;

/// Runs the command the arguments name.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
