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
    /// Make a source: one that takes uploads, with --url one that shows what another index has, with --git one that builds
    Create {
        name: String,
        /// The other index: `https://pypi.org/simple/`
        #[arg(long, conflicts_with = "git")]
        url: Option<String>,
        /// With --url: ask it for this package only; several times for several
        #[arg(long, value_name = "PACKAGE", requires = "url")]
        allow: Vec<String>,
        /// A git repository of which packages are built, one for each tag
        #[arg(long, value_name = "URL")]
        git: Option<String>,
        /// With --git: one for each commit of this branch that has a new version, instead
        #[arg(long, requires = "git")]
        branch: Option<String>,
        /// With --git: where in the repository the package is
        #[arg(long, requires = "git")]
        folder: Option<String>,
        /// Whose packages
        #[arg(long, value_enum, default_value = "pypi")]
        r#type: Type,
        #[command(flatten)]
        on: On,
    },
    /// Change which packages another index is asked for
    Edit {
        source: String,
        /// This one only; several times for several
        #[arg(long, value_name = "PACKAGE", required_unless_present = "allow_all")]
        allow: Vec<String>,
        /// Any
        #[arg(long, conflicts_with = "allow")]
        allow_all: bool,
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

/// Look what another index or a git repository has now
#[derive(clap::Args, Debug)]
pub struct SyncArgs {
    source: String,
    /// Of a git repository: build again what failed
    #[arg(long)]
    retry: bool,
    /// Of a git repository or another CRAN: print what is found, until it has looked
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    on: On,
}

/// Does it.
pub fn run_sync(args: SyncArgs) -> ExitCode {
    let SyncArgs { source, retry, follow, on } = args;
    let is_json = on.json;
    run(
        &on,
        async |to| {
            let path = format!("/sources/{}/sync", escaped(&source));
            let begun = to.call(Method::POST, &path, Some(json!({ "retry": retry }))).await?;
            match begun["job"].as_str() {
                Some(job) if follow => super::job::told(to, job, true, is_json).await,
                _ => Ok(begun),
            }
        },
        |begun| match begun["job"].as_str() {
            Some(job) => format!("job {job}\n"),
            None if follow => String::new(),
            None => format!("{source} is asked again by whoever wants something of it\n"),
        },
    )
}

/// Does it.
pub fn run_source(args: Args) -> ExitCode {
    match args.verb {
        Verb::Create { name, url, allow, git, branch, folder, r#type, on } => {
            let allow = (!allow.is_empty()).then_some(allow);
            let kind = match (&url, &git) {
                (_, Some(_)) => "git",
                (Some(_), None) => "remote",
                (None, None) => "local",
            };
            let url = git.or(url);
            let body = json!({
                "name": name, "type": r#type.as_str(), "kind": kind, "url": url,
                "allow": allow, "branch": branch, "folder": folder,
            });
            run(&on, async |to| to.call(Method::POST, "/sources", Some(body)).await, |_| format!("made: {name}\n"))
        }
        Verb::Edit { source, allow, allow_all, on } => {
            let body = json!({ "allow": (!allow_all).then_some(allow) });
            run(
                &on,
                async |to| to.call(Method::PATCH, &format!("/sources/{}", escaped(&source)), Some(body)).await,
                |_| format!("changed: {source}\n"),
            )
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
