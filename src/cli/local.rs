//! What is done on a node's own machine, with its database: the first key, the first repository.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "these are commands")]

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::EX_CONFIG;
use crate::config;
use crate::node::store::{Deed, Language, Migrate, NewKey, Scope, Store};
use crate::node::{self, auth};
use crate::telemetry::Causes;

/// Make API keys
#[derive(clap::Args, Debug)]
pub struct KeyArgs {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(clap::Subcommand, Debug)]
enum KeyVerb {
    /// Make a key and print it; it is shown this once
    Create(CreateKey),
}

#[derive(clap::Args, Debug)]
struct CreateKey {
    /// For people and the audit log
    #[arg(long, default_value = "admin")]
    name: String,
    /// Allow everything
    #[arg(long, conflicts_with = "scope")]
    admin: bool,
    /// What it allows
    #[arg(long, value_enum, default_value = "read")]
    scope: Allowed,
    /// Only in this repository
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    #[command(flatten)]
    on: On,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Allowed {
    Read,
    Publish,
    Admin,
}

/// Make package repositories
#[derive(clap::Args, Debug)]
pub struct RepoArgs {
    #[command(subcommand)]
    verb: RepoVerb,
}

#[derive(clap::Subcommand, Debug)]
enum RepoVerb {
    /// Make a repository that takes uploads
    Create(CreateRepo),
}

#[derive(clap::Args, Debug)]
struct CreateRepo {
    /// In URLs: letters, digits, `.`, `_`, `-`
    name: String,
    /// Whose packages
    #[arg(long, value_enum, default_value = "pypi")]
    r#type: Type,
    /// Only who has a key may install
    #[arg(long)]
    private: bool,
    #[command(flatten)]
    on: On,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Type {
    Pypi,
    Cran,
}

/// On which node's database.
#[derive(clap::Args, Debug)]
struct On {
    /// The node's configuration, on its own machine
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `bowline key …`.
pub fn key(args: KeyArgs) -> ExitCode {
    let KeyVerb::Create(create) = args.verb;
    on(&create.on, async |store| {
        let key = auth::new_key();
        let scope = match create.scope {
            _ if create.admin => Scope::Admin,
            Allowed::Read => Scope::Read,
            Allowed::Publish => Scope::Publish,
            Allowed::Admin => Scope::Admin,
        };
        let hash = auth::hash(key.expose());
        let repository = create.repository.as_deref();
        let new = NewKey { name: &create.name, hash: &hash, scope, repository, expires_at: None };
        store.create_key(new, &deed("create_key", &create.name, scope.as_str())).await.map_err(|e| e.to_string())?;
        Ok(if create.on.json {
            json!({ "name": create.name, "scope": scope.as_str(), "key": key.expose() }).to_string()
        } else {
            key.expose().clone()
        })
    })
}

/// `bowline repo …`.
pub fn repo(args: RepoArgs) -> ExitCode {
    let RepoVerb::Create(create) = args.verb;
    on(&create.on, async |store| {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let name = create.name.as_str();
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) || name.starts_with(['.', '_']) {
            return Err(format!("`{name}` is no name of a repository: letters, digits, `.`, `_` and `-`, up to 64"));
        }
        let language = match create.r#type {
            Type::Pypi => Language::Python,
            Type::Cran => Language::R,
        };
        let deed = deed("create_repository", name, language.as_str());
        let made = store.create_repository(name, language, !create.private, &deed).await;
        made.map_err(|e| format!("repository `{name}`: {e}"))?;
        Ok(match create.on.json {
            true => json!({ "name": name, "type": language.as_str(), "private": create.private }).to_string(),
            false => format!("made: /packages/{name}/"),
        })
    })
}

fn deed<'a>(action: &'static str, subject: &'a str, detail: &'a str) -> Deed<'a> {
    Deed { who: "host", address: None, action, subject, detail }
}

/// Opens the database, does the work, prints what it says.
fn on(on: &On, work: impl AsyncFnOnce(Store) -> Result<String, String>) -> ExitCode {
    let settings = match config::node::load(&on.config) {
        Ok(settings) => settings,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        let store = node::open_store(&settings, Migrate::IfEmpty).await.map_err(|e| Causes(&e).to_string())?;
        let done = work(store.clone()).await;
        store.close().await;
        done
    });
    match done {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
