//! `bowline migrate`: the database's schema.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::path::PathBuf;
use std::process::ExitCode;

use super::on_host;
use super::progress::Progress;
use crate::node;
use crate::node::store::{Migrate, Store};
use crate::telemetry::Causes;

/// Bring the database to the schema of this version. A node that starts does so too
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The node's configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Migrates.
pub fn run(args: Args) -> ExitCode {
    let Args { config } = args;
    on_host::run(&config, async |settings| {
        let shown = Progress::begin("bringing the schema up to date", false);
        let opened = node::open_store(&settings, Migrate::Always).await;
        drop(shown);
        match opened {
            Ok(store) => {
                store.close().await;
                println!("the schema is at migration {}", Store::schema_known());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}", Causes(&error));
                ExitCode::FAILURE
            }
        }
    })
}
