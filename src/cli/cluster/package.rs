//! `bowline add | yank | archive | remove`: the packages of a repository.
#![expect(clippy::print_stderr, reason = "files are told as they go")]

use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::endpoint::escaped;
use super::{Failed, On, run};

/// Where a package is managed, below `/__api__/v1`.
pub(super) fn path(repo: &str, package: &str) -> String {
    format!("/repos/{}/packages/{}", escaped(repo), escaped(package))
}

/// Publish files: wheels and source distributions, R source and binary packages
#[derive(clap::Args, Debug)]
pub struct AddArgs {
    repo: String,
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For which Linux an R binary package was made, such as `bookworm`
    #[arg(long, value_name = "CODENAME")]
    distribution: Option<String>,
    #[command(flatten)]
    on: On,
}

/// `bowline add`.
pub fn add(args: AddArgs) -> ExitCode {
    let AddArgs { repo, files, distribution, on } = args;
    let query = distribution.map(|d| format!("?distribution={}", escaped(&d))).unwrap_or_default();
    run(
        &on,
        async |to| {
            let mut done = Vec::new();
            for (number, file) in files.iter().enumerate() {
                let name = file.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| Failed::usage(format!("{} is no file", file.display())))?;
                let path = format!("/packages/{}/upload/{}{query}", escaped(&repo), escaped(name));
                let what = format!("{}/{} {name}", number + 1, files.len());
                let told = to.upload(&path, file, &what).await?;
                if !on.json {
                    to.progress.beside(|| eprintln!("{what}: {told}"));
                }
                done.push(json!({ "file": name, "told": told }));
            }
            Ok(Value::Array(done))
        },
        |_| String::new(),
    )
}

/// Which files of a package.
#[derive(clap::Args, Debug)]
struct Which {
    repo: String,
    package: String,
    /// Of this version only
    version: Option<String>,
    /// This file only
    #[arg(long)]
    file: Option<String>,
    #[command(flatten)]
    on: On,
}

/// Keep installers from choosing a version that is not asked for by number (PEP 592)
#[derive(clap::Args, Debug)]
pub struct YankArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for people
    #[arg(long)]
    reason: Option<String>,
    /// Take it back
    #[arg(long)]
    undo: bool,
}

/// `bowline yank`.
pub fn yank(args: YankArgs) -> ExitCode {
    let YankArgs { which, reason, undo } = args;
    if which.version.is_none() && which.file.is_none() {
        eprintln!("say which version, or which `--file`");
        return ExitCode::from(super::EX_USAGE);
    }
    let body = json!({ "version": which.version, "file": which.file, "reason": reason, "undo": undo });
    post(&which, "yank", body)
}

/// Move R packages into the Archive; let a Python project take no more files (PEP 792)
#[derive(clap::Args, Debug)]
pub struct ArchiveArgs {
    #[command(flatten)]
    which: Which,
    /// Take it back
    #[arg(long)]
    undo: bool,
}

/// `bowline archive`.
pub fn archive(args: ArchiveArgs) -> ExitCode {
    let ArchiveArgs { which, undo } = args;
    let body = json!({ "version": which.version, "file": which.file, "undo": undo });
    post(&which, "archive", body)
}

fn post(which: &Which, verb: &str, body: Value) -> ExitCode {
    let path = format!("{}/{verb}", path(&which.repo, &which.package));
    run(&which.on, async |to| to.call(Method::POST, &path, Some(body)).await, told)
}

/// Remove files for good, from snapshots too; their names are never used again
#[derive(clap::Args, Debug)]
pub struct RemoveArgs {
    #[command(flatten)]
    which: Which,
    /// Needed where neither a version nor a file is said: every file goes
    #[arg(long)]
    all: bool,
}

/// `bowline remove`.
pub fn remove(args: RemoveArgs) -> ExitCode {
    let RemoveArgs { which, all } = args;
    if which.version.is_none() && which.file.is_none() && !all {
        eprintln!("say which version, which `--file`, or `--all`");
        return ExitCode::from(super::EX_USAGE);
    }
    let query: Vec<String> = [("version", &which.version), ("file", &which.file)]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_deref()?))))
        .collect();
    let path = format!("{}?{}", path(&which.repo, &which.package), query.join("&"));
    run(&which.on, async |to| to.call(Method::DELETE, &path, None).await, told)
}

fn told(done: &Value) -> String {
    let package = done["package"].as_str().unwrap_or_default();
    let what = done["done"].as_str().unwrap_or_default();
    match done["files"].as_u64() {
        Some(files) => format!("{package}: {files} files {what}\n"),
        None => format!("{package}: {what}\n"),
    }
}
