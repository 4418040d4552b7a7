//! Parse the command line, run one command, exit with its code.

fn main() -> std::process::ExitCode {
    bowline::cli::run()
}
