//! `bowline schema proxy|node`: what may be written in a configuration.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::schema;

/// Print the JSON Schema of a configuration file, or a full example
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Args {
    /// Whose file
    #[arg(value_enum)]
    role: Role,
    /// Print an example with every key and its explanation instead
    #[arg(long)]
    example: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    Proxy,
    Node,
}

/// Prints to standard output; `conf/schema.json` and `conf/full.toml` are made this way.
pub fn run(args: Args) -> ExitCode {
    let role = match args.role {
        Role::Proxy => schema::Role::Proxy,
        Role::Node => schema::Role::Node,
    };
    let text = if args.example { schema::example(role) } else { schema::json_schema_text(role) };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Half an example is none; but a reader who has seen enough (`| head`) needs no words.
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound_and_the_role_is_needed() {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("schema"));
        command.clone().debug_assert();
        assert!(command.clone().try_get_matches_from(["schema", "proxy", "--example"]).is_ok());
        assert!(command.clone().try_get_matches_from(["schema", "node"]).is_ok());
        assert!(command.clone().try_get_matches_from(["schema"]).is_err());
        assert!(command.try_get_matches_from(["schema", "toaster"]).is_err());
    }
}
