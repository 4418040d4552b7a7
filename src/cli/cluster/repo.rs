//! `bowline repo`.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::endpoint::escaped;
use super::{On, run, table};

/// Make, list and change package repositories
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make a repository; without --source, one that takes uploads
    Create {
        /// In URLs: letters, digits, `.`, `_`, `-`
        name: String,
        /// Whose packages
        #[arg(long, value_enum, default_value = "pypi")]
        r#type: Type,
        /// Only who has a key may install
        #[arg(long)]
        private: bool,
        /// What it shows, the first that has a package wins; several times for several
        #[arg(long = "source", value_name = "NAME")]
        sources: Vec<String>,
        #[command(flatten)]
        on: On,
    },
    /// List repositories
    List {
        #[command(flatten)]
        on: On,
    },
    /// List the packages published in a repository, or the files of one of them
    Show {
        repo: String,
        package: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// Change a repository
    Edit {
        repo: String,
        /// Whether only who has a key may install
        #[arg(long, value_name = "true|false")]
        private: Option<bool>,
        /// What it shows from now on; several times for several
        #[arg(long = "source", value_name = "NAME")]
        sources: Vec<String>,
        #[command(flatten)]
        on: On,
    },
    /// Give a package a status: `quarantined` ones are not shown, `archived` and `quarantined` ones take no uploads
    Status {
        repo: String,
        package: String,
        /// `active`, `archived`, `deprecated` or `quarantined`
        status: String,
        /// Why, for people
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// Withhold a package, or some of its versions, and say why
    Block {
        repo: String,
        package: String,
        /// Only these, such as `<2.0` or `>=1.0, <1.4.2`
        #[arg(long)]
        versions: Option<String>,
        /// Clients show it
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        on: On,
    },
    /// Give it again
    Unblock {
        repo: String,
        package: String,
        /// Only the rule about these
        #[arg(long)]
        versions: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// List what a repository withholds
    Blocks {
        repo: String,
        #[command(flatten)]
        on: On,
    },
    /// Take a repository away; its sources and their packages stay
    Remove {
        repo: String,
        #[command(flatten)]
        on: On,
    },
}

/// Whose packages.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Type {
    Pypi,
    Cran,
}

impl Type {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pypi => "pypi",
            Self::Cran => "cran",
        }
    }
}

/// Does it.
pub fn run_repo(args: Args) -> ExitCode {
    match args.verb {
        Verb::Create { name, r#type, private, sources, on } => {
            let body = json!({ "name": name, "type": r#type.as_str(), "private": private, "sources": sources });
            run(
                &on,
                async |to| to.call(Method::POST, "/repos", Some(body)).await,
                |made| format!("made: {}\n", made["path"].as_str().unwrap_or_default()),
            )
        }
        Verb::List { on } => run(
            &on,
            async |to| to.call(Method::GET, "/repos", None).await,
            |list| table(list, [("NAME", "name"), ("TYPE", "type"), ("PRIVATE", "private"), ("SOURCES", "sources")]),
        ),
        Verb::Show { repo, package: None, on } => run(
            &on,
            async |to| to.call(Method::GET, &format!("/repos/{}/packages", escaped(&repo)), None).await,
            |list| {
                table(
                    list,
                    [("NAME", "name"), ("STATUS", "status"), ("FILES", "files"), ("LAST UPLOAD", "last_upload")],
                )
            },
        ),
        Verb::Show { repo, package: Some(package), on } => run(
            &on,
            async |to| to.call(Method::GET, &super::package::path(&repo, &package), None).await,
            |package| {
                let columns = [
                    ("FILE", "filename"),
                    ("WHERE", "location"),
                    ("VERSION", "version"),
                    ("SIZE", "size"),
                    ("YANKED", "yanked"),
                    ("ARCHIVED", "archived"),
                    ("UPLOADED", "uploaded"),
                    ("BY", "uploaded_by"),
                ];
                let status = package["status"].as_str().unwrap_or_default();
                let reason = package["status_reason"].as_str().unwrap_or_default();
                let name = package["name"].as_str().unwrap_or_default();
                format!("{} is {}\n", name, format!("{status} {reason}").trim()) + &table(&package["files"], columns)
            },
        ),
        Verb::Edit { repo, private, sources, on } => {
            let sources = if sources.is_empty() { Value::Null } else { json!(sources) };
            let body = json!({ "private": private, "sources": sources });
            run(
                &on,
                async |to| to.call(Method::PATCH, &format!("/repos/{}", escaped(&repo)), Some(body)).await,
                |_| format!("changed: {repo}\n"),
            )
        }
        Verb::Status { repo, package, status, reason, on } => {
            let body = json!({ "status": status, "reason": reason });
            run(
                &on,
                async |to| to.call(Method::PATCH, &super::package::path(&repo, &package), Some(body)).await,
                |_| format!("{package} is {status}\n"),
            )
        }
        Verb::Block { repo, package, versions, reason, on } => {
            let body = json!({ "package": package, "versions": versions, "reason": reason });
            run(
                &on,
                async |to| to.call(Method::POST, &format!("/repos/{}/blocks", escaped(&repo)), Some(body)).await,
                |_| format!("blocked: {package}\n"),
            )
        }
        Verb::Unblock { repo, package, versions, on } => {
            let query = versions.map(|versions| format!("?versions={}", escaped(&versions))).unwrap_or_default();
            let path = format!("/repos/{}/blocks/{}{query}", escaped(&repo), escaped(&package));
            run(
                &on,
                async |to| to.call(Method::DELETE, &path, None).await,
                |_| format!("no longer blocked: {package}\n"),
            )
        }
        Verb::Blocks { repo, on } => run(
            &on,
            async |to| to.call(Method::GET, &format!("/repos/{}/blocks", escaped(&repo)), None).await,
            |list| table(list, [("PACKAGE", "package"), ("VERSIONS", "versions"), ("REASON", "reason")]),
        ),
        Verb::Remove { repo, on } => run(
            &on,
            async |to| to.call(Method::DELETE, &format!("/repos/{}", escaped(&repo)), None).await,
            |_| format!("removed: {repo}\n"),
        ),
    }
}
