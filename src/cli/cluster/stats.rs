//! `bowline stats`.

use std::process::ExitCode;

use http::Method;

use super::endpoint::escaped;
use super::{On, run, table};

/// Show how often packages were downloaded
#[derive(clap::Args, Debug)]
pub struct Args {
    repo: String,
    /// Of this package only
    package: Option<String>,
    /// Of the last so many days
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// What to count by [default: package, or version where a package is named]
    #[arg(long, value_enum)]
    by: Option<By>,
    /// At most so many rows
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    on: On,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    Day,
    Package,
    Version,
    Client,
}

/// Prints them.
pub fn run_stats(args: Args) -> ExitCode {
    let Args { repo, package, days, by, limit, on } = args;
    let by = by.unwrap_or(if package.is_some() { By::Version } else { By::Package });
    let (head, key) = match by {
        By::Day => ("DAY", "day"),
        By::Package => ("PACKAGE", "package"),
        By::Version => ("VERSION", "version"),
        By::Client => ("CLIENT", "client"),
    };
    let mut path = format!("/repos/{}/stats?days={days}&by={key}&limit={limit}", escaped(&repo));
    if let Some(package) = package {
        path += &format!("&package={}", escaped(&package));
    }
    run(
        &on,
        async |to| to.call(Method::GET, &path, None).await,
        |list| table(list, [(head, key), ("DOWNLOADS", "downloads")]),
    )
}
