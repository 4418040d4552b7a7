//! `bowline doctor`: the checklist of a highly available set-up.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::on_host;
use super::progress::Progress;
use crate::node;
use crate::node::registry::doctor::{Check, Verdict};
use crate::telemetry::Causes;

/// Check everything that several nodes need to be highly available
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 nothing fails, 1 something does or could not be looked at, 78 configuration.")]
pub struct Args {
    /// The configuration of a node, on its own machine
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the list.
pub fn run(args: Args) -> ExitCode {
    let Args { config, json: wants_json } = args;
    on_host::run(&config, async |settings| {
        let shown = Progress::begin("asking the database", wants_json);
        let list = node::doctor(&settings).await;
        drop(shown);
        let list = match list {
            Ok(list) => list,
            Err(error) => {
                let why = Causes(&error).to_string();
                if wants_json {
                    println!("{}", json!({ "error": why }));
                } else {
                    eprintln!("{why}");
                }
                return ExitCode::FAILURE;
            }
        };
        let fails = list.iter().any(|check| check.verdict == Verdict::Fail);
        if wants_json {
            println!("{}", json!({ "ok": !fails, "checks": list }));
        } else {
            print!("{}", table(&list));
        }
        if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

fn table(list: &[Check]) -> String {
    let mut out = String::new();
    for check in list {
        let verdict = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        out += &format!("{verdict}  {:<20} {}\n", check.name, check.found);
        if let Some(remedy) = check.remedy {
            out += &format!("      {:<20} → {remedy}\n", "");
        }
    }
    out
}
