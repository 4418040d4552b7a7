//! `bowline job`, `bowline hold`.
#![expect(clippy::print_stdout, reason = "a log is told as it grows")]

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::endpoint::{Endpoint, escaped};
use super::{Failed, On, run, table};

/// Between two looks at a job that is followed.
const LOOK: Duration = Duration::from_millis(500);

/// See, begin and cancel what nodes do in the background
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// List jobs, latest first
    List {
        /// `collect`, `sync`, `build`
        #[arg(long)]
        kind: Option<String>,
        /// `waiting`, `running`, `done`, `failed`, `cancelled`
        #[arg(long)]
        state: Option<String>,
        /// The last so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        on: On,
    },
    /// Print what a job said and how it ended; fails if it failed
    Log {
        id: String,
        /// Go on until it has ended
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        on: On,
    },
    /// Begin one now: `collect` deletes blobs that nothing has referred to for the grace period
    Start {
        kind: String,
        #[command(flatten)]
        on: On,
    },
    /// Let a job end
    Cancel {
        id: String,
        #[command(flatten)]
        on: On,
    },
}

/// Keep every blob for a while, as during a backup, or no longer
#[derive(clap::Args, Debug)]
pub struct HoldArgs {
    /// From now on for so long, such as `6h`
    #[arg(long = "for", value_name = "DURATION", required_unless_present_any = ["release", "show"], conflicts_with = "release")]
    duration: Option<String>,
    /// No longer
    #[arg(long)]
    release: bool,
    /// Say until when
    #[arg(long, conflicts_with_all = ["duration", "release"])]
    show: bool,
    #[command(flatten)]
    on: On,
}

/// Does it.
pub fn run_job(args: Args) -> ExitCode {
    match args.verb {
        Verb::List { kind, state, limit, on } => {
            let mut query = format!("limit={limit}");
            for (name, value) in [("kind", &kind), ("state", &state)] {
                if let Some(value) = value {
                    query += &format!("&{name}={}", escaped(value));
                }
            }
            run(&on, async |to| to.call(Method::GET, &format!("/jobs?{query}"), None).await, listed)
        }
        Verb::Log { id, follow, on } => {
            let is_json = on.json;
            run(&on, async |to| told(to, &id, follow, is_json).await, |_| String::new())
        }
        Verb::Start { kind, on } => {
            let body = json!({ "kind": kind });
            run(
                &on,
                async |to| to.call(Method::POST, "/jobs", Some(body)).await,
                |job| format!("job {}\n", job["id"].as_str().unwrap_or_default()),
            )
        }
        Verb::Cancel { id, on } => run(
            &on,
            async |to| to.call(Method::DELETE, &format!("/jobs/{}", escaped(&id)), None).await,
            |_| format!("cancelled: {id}\n"),
        ),
    }
}

/// Does it.
pub fn run_hold(args: HoldArgs) -> ExitCode {
    let HoldArgs { duration, show, on, .. } = args;
    run(
        &on,
        async |to| {
            let body = (!show).then(|| json!({ "duration": duration }));
            to.call(if show { Method::GET } else { Method::PUT }, "/hold", body).await
        },
        |hold| match hold["until"].as_str() {
            Some(until) => format!("every blob is kept until {until}\n"),
            None => "there is no hold\n".to_owned(),
        },
    )
}

fn listed(list: &Value) -> String {
    let columns = [
        ("ID", "id"),
        ("KIND", "kind"),
        ("SUBJECT", "subject"),
        ("STATE", "state"),
        ("NODE", "node"),
        ("CREATED", "created"),
        ("ENDED", "ended"),
        ("RESULT", "result"),
    ];
    table(list, columns)
}

/// Prints lines as they come; at last, how it ended.
pub(super) async fn told(to: &Endpoint, id: &str, follow: bool, is_json: bool) -> Result<Value, Failed> {
    let (mut after, mut lines) = (0, Vec::new());
    loop {
        let path = format!("/jobs/{}/log?after={after}", escaped(id));
        let mut told = to.call(Method::GET, &path, None).await?;
        after = told["last"].as_i64().unwrap_or(after);
        let new: Vec<Value> = told["lines"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let (is_over, is_all) = (told["is_over"] == true, new.is_empty());
        if !is_json {
            to.progress.beside(|| {
                for line in &new {
                    println!("{}", line["text"].as_str().unwrap_or_default());
                }
            });
        }
        let told_of = |key: &str| told["job"][key].as_str().unwrap_or_default();
        to.progress.wait_for(&format!("{} {}: {}", told_of("kind"), told_of("subject"), told_of("state")));
        lines.extend(new);
        if is_over || (is_all && !follow) {
            let job = &told["job"];
            let (state, result) = (job["state"].as_str().unwrap_or_default(), job["result"].as_str());
            if state == "failed" {
                return Err(Failed::new(format!("failed: {}", result.unwrap_or_default())));
            }
            if !is_json {
                let result = result.map(|result| format!(": {result}")).unwrap_or_default();
                to.progress.beside(|| println!("{state}{result}"));
            }
            return Ok(json!({ "job": job, "lines": lines }));
        }
        if is_all {
            tokio::time::sleep(LOOK).await;
        }
    }
}
