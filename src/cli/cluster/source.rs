//! `bowline source`.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use super::endpoint::escaped;
use super::repo::Type;
use super::{On, run, table};

/// Make and list sources: what repositories show
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make a source: one that takes uploads, or with --url one that shows what another index has
    Create {
        name: String,
        /// The other index: `https://pypi.org/simple/`
        #[arg(long)]
        url: Option<String>,
        /// Whose packages
        #[arg(long, value_enum, default_value = "pypi")]
        r#type: Type,
        #[command(flatten)]
        on: On,
    },
    /// List sources
    List {
        #[command(flatten)]
        on: On,
    },
    /// Take a source away, with all its packages
    Remove {
        source: String,
        #[command(flatten)]
        on: On,
    },
}

/// Does it.
pub fn run_source(args: Args) -> ExitCode {
    match args.verb {
        Verb::Create { name, url, r#type, on } => {
            let kind = if url.is_some() { "remote" } else { "local" };
            let body = json!({ "name": name, "type": r#type.as_str(), "kind": kind, "url": url });
            run(&on, async |to| to.call(Method::POST, "/sources", Some(body)).await, |_| format!("made: {name}\n"))
        }
        Verb::List { on } => run(
            &on,
            async |to| to.call(Method::GET, "/sources", None).await,
            |list| table(list, [("NAME", "name"), ("TYPE", "type"), ("KIND", "kind")]),
        ),
        Verb::Remove { source, on } => run(
            &on,
            async |to| to.call(Method::DELETE, &format!("/sources/{}", escaped(&source)), None).await,
            |_| format!("removed: {source}\n"),
        ),
    }
}
