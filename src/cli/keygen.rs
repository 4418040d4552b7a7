//! `bowline keygen`: a new cluster key.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use std::path::PathBuf;
use std::process::ExitCode;

use crate::node::secret::ClusterKey;

/// Make a cluster key, which every node gets a copy of
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to; never written over
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes the file, mode 0600, and prints the key's fingerprint.
pub fn run(args: Args) -> ExitCode {
    let Args { file } = args;
    match ClusterKey::generate(&file) {
        Ok(key) => {
            println!("{}: made, fingerprint {}", file.display(), key.fingerprint());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: cannot be made: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}
