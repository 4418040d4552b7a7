//! The commands. The only place where parts are put together, and the only one that prints.

pub mod check;
pub mod cluster;
mod ctl;
pub mod demo;
pub mod disable;
pub mod doctor;
pub mod drain;
pub mod enable;
pub mod keygen;
pub mod migrate;
pub mod node;
mod on_host;
mod progress;
pub mod proxy;
pub mod reload;
mod sandbox_relay;
pub mod schema;
pub mod sessions;
pub mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit codes (sysexits.h): the command line is wrong.
pub const EX_USAGE: u8 = 64;
/// Exit codes (sysexits.h): the configuration is wrong.
pub const EX_CONFIG: u8 = 78;

#[derive(Parser)]
#[command(name = "bowline", version, about, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a demo runs its programs by: they die with it
    #[command(hide = true)]
    DemoChild(demo::child::Args),
    /// What programs in a sandbox reach the one index by
    #[command(hide = true)]
    SandboxRelay(sandbox_relay::Args),
    /// Everything on this machine in one command: package repositories and Shiny apps behind a TLS proxy
    Demo(demo::Args),
    /// Run a load balancer
    Proxy(proxy::Args),
    /// Run a package server
    Node(node::Args),
    /// Make a cluster key, which every node gets a copy of
    Keygen(keygen::Args),
    /// Bring the database to the schema of this version
    Migrate(migrate::Args),
    /// Check everything that several nodes need to be highly available
    Doctor(doctor::Args),
    /// Make, list and revoke API keys
    Key(cluster::key::Args),
    /// See, change, render and remove what is published
    Content(cluster::content::Args),
    /// Make, list, change and lock users
    User(cluster::user::Args),
    /// Make and list groups, and say who is in them
    Group(cluster::group::Args),
    /// Make, list and change package repositories
    Repo(cluster::repo::Args),
    /// Make and list sources: what repositories show
    Source(cluster::source::Args),
    /// Look what another index or a git repository has now
    Sync(cluster::source::SyncArgs),
    /// Publish files: wheels and source distributions, R source and binary packages
    Add(cluster::package::AddArgs),
    /// Keep installers from choosing a version that is not asked for by number (PEP 592)
    Yank(cluster::package::YankArgs),
    /// Move R packages into the Archive; let a Python project take no more files (PEP 792)
    Archive(cluster::package::ArchiveArgs),
    /// Remove files for good, from snapshots too; their names are never used again
    Remove(cluster::package::RemoveArgs),
    /// See, begin and cancel what nodes do in the background
    Job(cluster::job::Args),
    /// Keep every blob for a while, as during a backup, or no longer
    Hold(cluster::job::HoldArgs),
    /// Show how often packages were downloaded
    Stats(cluster::stats::Args),
    /// Show who changed what, when, from where
    Audit(cluster::audit::Args),
    /// Read configuration files and print every problem
    Check(check::Args),
    /// Print the JSON Schema of a configuration file, or a full example
    Schema(schema::Args),
    /// Show listeners, pools and backends of a running proxy
    Status(status::Args),
    /// List the live sessions of a running proxy
    Sessions(sessions::Args),
    /// Give a backend no new clients; bound ones stay until they leave or the deadline
    Drain(drain::Args),
    /// Give a backend clients again
    Enable(enable::Args),
    /// Take a backend out at once; its clients are bound anew
    Disable(disable::Args),
    /// Reload the configuration of a running proxy
    Reload(reload::Args),
}

/// Runs the command the arguments name; its exit code is the process's.
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match line.command {
        Command::Demo(args) => demo::run(args),
        Command::DemoChild(args) => demo::child::run(args),
        Command::SandboxRelay(args) => sandbox_relay::run(args),
        Command::Proxy(args) => proxy::run(args),
        Command::Node(args) => node::run(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Key(args) => cluster::key::run_key(args),
        Command::Content(args) => cluster::content::run_content(args),
        Command::User(args) => cluster::user::run_user(args),
        Command::Group(args) => cluster::group::run_group(args),
        Command::Repo(args) => cluster::repo::run_repo(args),
        Command::Source(args) => cluster::source::run_source(args),
        Command::Sync(args) => cluster::source::run_sync(args),
        Command::Add(args) => cluster::package::add(args),
        Command::Yank(args) => cluster::package::yank(args),
        Command::Archive(args) => cluster::package::archive(args),
        Command::Remove(args) => cluster::package::remove(args),
        Command::Job(args) => cluster::job::run_job(args),
        Command::Hold(args) => cluster::job::run_hold(args),
        Command::Stats(args) => cluster::stats::run_stats(args),
        Command::Audit(args) => cluster::audit::run_audit(args),
        Command::Check(args) => check::run(args, proxy::problems),
        Command::Schema(args) => schema::run(args),
        Command::Status(args) => status::run(args),
        Command::Sessions(args) => sessions::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Enable(args) => enable::run(args),
        Command::Disable(args) => disable::run(args),
        Command::Reload(args) => reload::run(args),
    }
}
