//! What the commands that manage repositories share: which node or database they work on, how they fail, how they print.
//!
//! Every command is one or more requests to the API of [`crate::node::manage`]: to a server, or to handlers in this process
//! that work on the database a configuration names.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "these are commands")]

pub mod audit;
pub mod content;
mod endpoint;
pub mod group;
pub mod job;
pub mod key;
pub mod package;
pub mod repo;
pub mod source;
pub mod stats;
pub mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use self::endpoint::Endpoint;
use super::ctl::{Cell, Table};
use super::progress::Progress;
use super::{EX_CONFIG, EX_USAGE, on_host};

/// On which cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct On {
    /// A node's configuration, on its own machine; needs no API key
    #[arg(short = 'c', long = "config", value_name = "FILE", conflicts_with = "server")]
    config: Option<PathBuf>,
    /// The cluster, from anywhere: `https://packages.example.org` [default: $BOWLINE_SERVER]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A file with the API key, for `--server` [default: the key in $BOWLINE_API_KEY]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Certificates of authorities to trust besides the system's, for `--server`
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failed {
    code: u8,
    message: String,
}

impl Failed {
    fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self { code: EX_USAGE, message: message.into() }
    }

    fn config(message: impl Into<String>) -> Self {
        Self { code: EX_CONFIG, message: message.into() }
    }
}

/// Does the work and prints what came of it: JSON, or what `print` makes of it.
fn run(
    on: &On,
    work: impl AsyncFnOnce(&Endpoint) -> Result<Value, Failed>,
    print: impl FnOnce(&Value) -> String,
) -> ExitCode {
    on_host::block_on(async {
        let done = async {
            let shown = Progress::begin("waiting for an answer", on.json);
            let endpoint = Endpoint::open(on, shown.progress().clone()).await?;
            let done = work(&endpoint).await;
            endpoint.close().await;
            done
        };
        match done.await {
            Ok(value) if on.json => println!("{value}"),
            Ok(value) => print!("{}", print(&value)),
            Err(Failed { code, message }) => {
                if on.json {
                    println!("{}", json!({ "error": message }));
                } else {
                    eprintln!("{}", message.trim_end());
                }
                return ExitCode::from(code);
            }
        }
        ExitCode::SUCCESS
    })
}

/// A table of these keys of each object of a list.
fn table<const N: usize>(list: &Value, columns: [(&'static str, &str); N]) -> String {
    let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table = Table::new(columns.map(|(head, _)| head));
    for row in rows {
        table.row(columns.map(|(_, key)| cell(&row[key])));
    }
    let mut out = Vec::new();
    // Writing into memory does not fail.
    let _ = table.print(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Number(number) if number.is_u64() => Cell::from(number.as_u64().unwrap_or_default()),
        Value::Null => Cell::from("-"),
        Value::String(text) if text.is_empty() => Cell::from("-"),
        Value::String(text) => Cell::from(text.as_str()),
        Value::Bool(true) => Cell::from("yes"),
        Value::Bool(false) => Cell::from("no"),
        Value::Array(all) => {
            let texts: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
            Cell::from(texts.join(", ").as_str())
        }
        other => Cell::from(other.to_string().as_str()),
    }
}
