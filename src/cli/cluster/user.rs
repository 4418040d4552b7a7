//! `bowline user`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::endpoint::escaped;
use super::{Failed, On, run, table};

/// Make, list, change and lock users
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Make a user
    Create {
        /// What they log in with
        name: String,
        /// What they may do at most, whichever of their keys they use
        #[arg(long, value_enum, default_value = "viewer")]
        role: Allowed,
        #[command(flatten)]
        profile: Profile,
        /// Set a password: from here, `-` is standard input [default: none; they use API keys]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        on: On,
    },
    /// List users
    List {
        #[command(flatten)]
        on: On,
    },
    /// Change a user
    Edit {
        /// What they log in with
        name: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// What they may do at most
        #[arg(long, value_enum)]
        role: Option<Allowed>,
        #[command(flatten)]
        profile: Profile,
        #[command(flatten)]
        on: On,
    },
    /// Set a user's password; asks for it on a terminal
    Password {
        /// What they log in with
        name: String,
        /// Where it is; `-` is standard input
        #[arg(long, value_name = "FILE", conflicts_with = "none")]
        password_file: Option<PathBuf>,
        /// No password any more
        #[arg(long)]
        none: bool,
        #[command(flatten)]
        on: On,
    },
    /// Lock a user out: no password and no key of theirs holds
    Lock {
        /// What they log in with
        name: String,
        #[command(flatten)]
        on: On,
    },
    /// Let a user in again
    Unlock {
        /// What they log in with
        name: String,
        #[command(flatten)]
        on: On,
    },
    /// Remove a user and their keys
    Remove {
        /// What they log in with
        name: String,
        #[command(flatten)]
        on: On,
    },
}

/// What can be said of a user.
#[derive(clap::Args, Debug)]
struct Profile {
    /// Where mail reaches them
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// What friends call them
    #[arg(long, value_name = "NAME")]
    first_name: Option<String>,
    /// What others call them
    #[arg(long, value_name = "NAME")]
    last_name: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Allowed {
    /// Install and look
    Viewer,
    /// Publish too
    Publisher,
    /// Everything
    Administrator,
}

impl Allowed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Administrator => "administrator",
        }
    }
}

/// Does it.
pub fn run_user(args: Args) -> ExitCode {
    let line = |done: &str| {
        let done = done.to_owned();
        move |user: &Value| format!("{done}: {}\n", user["username"].as_str().unwrap_or_default())
    };
    let path = |name: &str, more: &str| format!("/users/{}{more}", escaped(name));
    match args.verb {
        Verb::Create { name, role, profile, password_file, on } => run(
            &on,
            async |to| {
                let mut body = profile.told();
                body["username"] = name.into();
                body["user_role"] = role.as_str().into();
                if let Some(file) = password_file {
                    body["password"] = read(&file)?.into();
                }
                to.call(Method::POST, "/users", Some(body)).await
            },
            line("made"),
        ),
        Verb::List { on } => run(
            &on,
            async |to| to.all("/users").await,
            |list| {
                let columns = [
                    ("NAME", "username"),
                    ("ROLE", "user_role"),
                    ("FIRST NAME", "first_name"),
                    ("LAST NAME", "last_name"),
                    ("EMAIL", "email"),
                    ("LOCKED", "locked"),
                    ("ACTIVE", "active_time"),
                ];
                table(list, columns)
            },
        ),
        Verb::Edit { name, rename, role, profile, on } => run(
            &on,
            async |to| {
                let mut body = profile.told();
                if let Some(rename) = rename {
                    body["username"] = rename.into();
                }
                if let Some(role) = role {
                    body["user_role"] = role.as_str().into();
                }
                to.call(Method::PUT, &path(&name, ""), Some(body)).await
            },
            line("changed"),
        ),
        Verb::Password { name, password_file, none, on } => run(
            &on,
            async |to| {
                let password = match (none, password_file) {
                    (true, _) => None,
                    (false, Some(file)) => Some(read(&file)?),
                    (false, None) => Some(ask(&name)?),
                };
                let body = json!({ "password": password });
                to.call(Method::POST, &path(&name, "/password"), Some(body)).await
            },
            line("password changed"),
        ),
        Verb::Lock { name, on } => run(
            &on,
            async |to| to.call(Method::POST, &path(&name, "/lock"), Some(json!({ "locked": true }))).await,
            line("locked"),
        ),
        Verb::Unlock { name, on } => run(
            &on,
            async |to| to.call(Method::POST, &path(&name, "/lock"), Some(json!({ "locked": false }))).await,
            line("unlocked"),
        ),
        Verb::Remove { name, on } => run(
            &on,
            async |to| to.call(Method::DELETE, &path(&name, ""), None).await,
            |done| format!("removed: {}\n", done["removed"].as_str().unwrap_or_default()),
        ),
    }
}

impl Profile {
    fn told(self) -> Value {
        let all = [("email", self.email), ("first_name", self.first_name), ("last_name", self.last_name)];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::String(value?)))).collect()
    }
}

/// The first line of a file.
fn read(file: &PathBuf) -> Result<String, Failed> {
    let mut text = String::new();
    let done = if file.as_os_str() == "-" {
        std::io::stdin().take(64 * 1024).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(64 * 1024).read_to_string(&mut text))
    };
    done.map_err(|e| Failed::new(format!("{}: cannot be read: {e}", file.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Twice, unseen.
fn ask(name: &str) -> Result<String, Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(Failed::usage("say where the password is: `--password-file FILE`, or `-` for standard input"));
    }
    let prompt = |text: String| rpassword::prompt_password(text).map_err(|e| Failed::new(e.to_string()));
    let password = prompt(format!("Password of {name}: "))?;
    if prompt("Again: ".to_owned())? != password {
        return Err(Failed::new("these were two different passwords"));
    }
    Ok(password)
}
