//! `bowline audit`.

use std::process::ExitCode;

use http::Method;

use super::{On, run, table};

/// Show who changed what, when, from where
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The last so many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    on: On,
}

/// Prints them, latest first.
pub fn run_audit(args: Args) -> ExitCode {
    let Args { limit, on } = args;
    run(
        &on,
        async |to| to.call(Method::GET, &format!("/audit?limit={limit}"), None).await,
        |list| {
            let columns = [
                ("TIME", "time"),
                ("WHO", "who"),
                ("FROM", "address"),
                ("ACTION", "action"),
                ("SUBJECT", "subject"),
                ("DETAIL", "detail"),
            ];
            table(list, columns)
        },
    )
}
