//! Parse the command line, run one command, exit with its code.

/// Beside glibc's allocator this one takes as little CPU, holds less per connection, and gives back: once 5,000 websockets under TLS
/// have closed the process has 25 MiB instead of 68 (`bench/README.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bowline::cli::run()
}
