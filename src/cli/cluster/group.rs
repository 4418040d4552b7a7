//! `bowline group`.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::endpoint::{Endpoint, escaped};
use super::{Failed, On, run, table};

/// Make and list groups, and say who is in them
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make a group, which nobody is in yet
    Create {
        /// What it is called
        name: String,
        #[command(flatten)]
        on: On,
    },
    /// List groups
    List {
        #[command(flatten)]
        on: On,
    },
    /// List who is in a group
    Members {
        /// Its name or guid
        group: String,
        #[command(flatten)]
        on: On,
    },
    /// Put users into a group
    Add {
        /// Its name or guid
        group: String,
        /// What they log in with
        #[arg(required = true)]
        users: Vec<String>,
        #[command(flatten)]
        on: On,
    },
    /// Take users out of a group
    Take {
        /// Its name or guid
        group: String,
        /// What they log in with
        #[arg(required = true)]
        users: Vec<String>,
        #[command(flatten)]
        on: On,
    },
    /// Give a group another name
    Rename {
        /// Its name or guid
        group: String,
        /// What it is to be called
        name: String,
        #[command(flatten)]
        on: On,
    },
    /// Remove a group, and what it was allowed; its users stay
    Remove {
        /// Its name or guid
        group: String,
        #[command(flatten)]
        on: On,
    },
}

/// Does it.
pub fn run_group(args: Args) -> ExitCode {
    let path = |group: &str, more: &str| format!("/groups/{}{more}", escaped(group));
    let named = |told: &Value| told["name"].as_str().unwrap_or_default().to_owned();
    match args.verb {
        Verb::Create { name, on } => run(
            &on,
            async |to| to.call(Method::POST, "/groups", Some(json!({ "name": name }))).await,
            |told| format!("made: {}\n", named(told)),
        ),
        Verb::List { on } => run(
            &on,
            async |to| to.all("/groups").await,
            |list| table(list, [("NAME", "name"), ("MEMBERS", "members"), ("GUID", "guid")]),
        ),
        Verb::Members { group, on } => run(
            &on,
            async |to| to.all(&path(&group, "/members")).await,
            |list| {
                let columns = [
                    ("NAME", "username"),
                    ("ROLE", "user_role"),
                    ("FIRST NAME", "first_name"),
                    ("LAST NAME", "last_name"),
                    ("LOCKED", "locked"),
                ];
                table(list, columns)
            },
        ),
        Verb::Add { group, users, on } => run(
            &on,
            async |to| {
                for user in &users {
                    let body = json!({ "user_guid": user });
                    to.call(Method::POST, &path(&group, "/members"), Some(body)).await?;
                }
                counted(to, &group).await
            },
            members,
        ),
        Verb::Take { group, users, on } => run(
            &on,
            async |to| {
                for user in &users {
                    let member = path(&group, &format!("/members/{}", escaped(user)));
                    to.call(Method::DELETE, &member, None).await?;
                }
                counted(to, &group).await
            },
            members,
        ),
        Verb::Rename { group, name, on } => run(
            &on,
            async |to| to.call(Method::PATCH, &path(&group, ""), Some(json!({ "name": name }))).await,
            |told| format!("changed: {}\n", named(told)),
        ),
        Verb::Remove { group, on } => run(
            &on,
            async |to| {
                to.call(Method::DELETE, &path(&group, ""), None).await?;
                Ok(json!({ "removed": group }))
            },
            |done| format!("removed: {}\n", done["removed"].as_str().unwrap_or_default()),
        ),
    }
}

/// The group, as it is now.
async fn counted(to: &Endpoint, group: &str) -> Result<Value, Failed> {
    to.call(Method::GET, &format!("/groups/{}", escaped(group)), None).await
}

fn members(group: &Value) -> String {
    let name = group["name"].as_str().unwrap_or_default();
    match group["members"].as_u64().unwrap_or_default() {
        1 => format!("{name}: 1 member\n"),
        count => format!("{name}: {count} members\n"),
    }
}
