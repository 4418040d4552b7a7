//! `bowline key`.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use super::endpoint::escaped;
use super::{On, run, table};
use crate::runtime::machine;

/// Make, list and revoke API keys
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make a key and print it; it is shown this once
    Create {
        /// For people and the audit log; without it, who makes the key: `USER@HOST`
        #[arg(long)]
        name: Option<String>,
        /// Allow everything
        #[arg(long, conflicts_with = "scope")]
        admin: bool,
        /// What it allows
        #[arg(long, value_enum, default_value = "read")]
        scope: Allowed,
        /// Whose it is: it allows no more than their role does, and ends with them
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// It is nobody's, and stays when whoever made it goes; without this it is yours, if `--key-file` is a user's
        #[arg(long, conflicts_with = "user")]
        program: bool,
        /// Only in this repository
        #[arg(long, value_name = "NAME")]
        repository: Option<String>,
        /// For so long, such as `30d` [default: for ever]
        #[arg(long, value_name = "DURATION")]
        expires: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// List keys
    List {
        #[command(flatten)]
        on: On,
    },
    /// End a key; takes a few seconds to be known everywhere
    Revoke {
        /// As `key list` shows it
        id: String,
        #[command(flatten)]
        on: On,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Allowed {
    Read,
    Publish,
    Admin,
}

/// Does it.
pub fn run_key(args: Args) -> ExitCode {
    match args.verb {
        Verb::Create { name, user, program, admin, scope, repository, expires, on } => {
            let scope = match scope {
                _ if admin => "admin",
                Allowed::Read => "read",
                Allowed::Publish => "publish",
                Allowed::Admin => "admin",
            };
            let name = name.unwrap_or_else(|| maker(&machine::account(), &machine::name()));
            let body = json!({ "name": name, "user": user, "program": program, "scope": scope, "repository": repository, "expires_in": expires });
            run(
                &on,
                async |to| to.call(Method::POST, "/keys", Some(body)).await,
                |made| format!("{}\n", made["key"].as_str().unwrap_or_default()),
            )
        }
        Verb::List { on } => run(
            &on,
            async |to| to.call(Method::GET, "/keys", None).await,
            |list| {
                let columns = [
                    ("ID", "id"),
                    ("NAME", "name"),
                    ("USER", "user"),
                    ("SCOPE", "scope"),
                    ("REPOSITORY", "repository"),
                    ("EXPIRES", "expires"),
                    ("LAST USED", "last_used"),
                ];
                table(list, columns)
            },
        ),
        Verb::Revoke { id, on } => run(
            &on,
            async |to| to.call(Method::DELETE, &format!("/keys/{}", escaped(&id)), None).await,
            |done| format!("revoked: {}\n", done["revoked"].as_str().unwrap_or_default()),
        ),
    }
}

/// Who makes a key, as far as a name is long.
fn maker(account: &str, machine: &str) -> String {
    let mut name: String = format!("{account}@{machine}").chars().filter(|c| !c.is_control()).collect();
    name.truncate(name.floor_char_boundary(NAME_MAX));
    name
}

/// Bytes of a key's name.
const NAME_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_a_key_is_its_name_cut_where_it_is_too_long() {
        assert_eq!(maker("ann", "db-a"), "ann@db-a");
        let long = maker("ann", &"ä".repeat(60));
        assert!(long.len() == 100 && long.ends_with('ä'), "{long}");
        assert_eq!(maker("a\nb", "c"), "ab@c");
    }
}
