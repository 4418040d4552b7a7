//! `bowline content`.
#![expect(clippy::print_stderr, reason = "what a task says is for people")]

use std::process::ExitCode;

use http::Method;
use serde_json::{Map, Value, json};

use super::endpoint::{Endpoint, escaped};
use super::{Failed, On, run, table};

/// See, change, render and remove what is published
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// List content, the latest changed first
    List {
        /// Of which name, title or owner something is this
        search: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// Print everything there is to say of content
    Show {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        on: On,
    },
    /// Change who may see it and how it runs
    Set {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        wish: Wish,
        #[command(flatten)]
        on: On,
    },
    /// Set environment variables of it, `NAME=VALUE`, or take them away, `NAME`; without any, list their names
    Env {
        /// Its guid, or its name where that is one
        content: String,
        /// `NAME=VALUE` or `NAME`; `NAME=-` reads the value from standard input
        variables: Vec<String>,
        #[command(flatten)]
        on: On,
    },
    /// List its bundles, the latest first
    Bundles {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        on: On,
    },
    /// Let one of its bundles run: back to an earlier one, or on to a later
    Activate {
        /// Its guid, or its name where that is one
        content: String,
        /// Number of the bundle
        bundle: u64,
        #[command(flatten)]
        on: On,
    },
    /// Render a document now
    Render {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        on: On,
    },
    /// Say when a document is rendered, or set that: `--type day --every 1 --at 2026-11-23T07:30:00Z`
    Schedule {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        wish: ScheduleWish,
        /// Never any more
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        on: On,
    },
    /// List what was done for it, the latest first
    Jobs {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        on: On,
    },
    /// Print what one of its jobs said
    Log {
        /// Its guid, or its name where that is one
        content: String,
        /// Of which job [default: the latest]
        job: Option<String>,
        #[command(flatten)]
        on: On,
    },
    /// Remove it with all its bundles
    Remove {
        /// Its guid, or its name where that is one
        content: String,
        #[command(flatten)]
        on: On,
    },
}

/// What is to be changed.
#[derive(clap::Args, Debug)]
struct Wish {
    /// For people
    #[arg(long)]
    title: Option<String>,
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Who may see it: `all`, `logged_in`, or `acl` for its owner and who is named
    #[arg(long)]
    access: Option<String>,
    /// Let nobody publish to it
    #[arg(long, conflicts_with = "unlock")]
    lock: bool,
    /// Let its owner publish to it again
    #[arg(long)]
    unlock: bool,
    /// Processes on each node that run while nobody asks
    #[arg(long, value_name = "N")]
    min_processes: Option<u64>,
    /// Processes on each node at most
    #[arg(long, value_name = "N")]
    max_processes: Option<u64>,
    /// Connections of one process
    #[arg(long, value_name = "N")]
    connections: Option<u64>,
    /// Seconds after which a process nobody uses ends
    #[arg(long, value_name = "SECONDS")]
    idle_timeout: Option<u64>,
    /// Seconds for a process to answer its first request
    #[arg(long, value_name = "SECONDS")]
    init_timeout: Option<u64>,
}

impl Wish {
    fn body(&self) -> Value {
        let mut body = Map::new();
        for (name, text) in [("title", &self.title), ("description", &self.description), ("access_type", &self.access)]
        {
            if let Some(text) = text {
                body.insert(name.to_owned(), json!(text));
            }
        }
        for (name, number) in [
            ("min_processes", self.min_processes),
            ("max_processes", self.max_processes),
            ("max_conns_per_process", self.connections),
            ("idle_timeout", self.idle_timeout),
            ("init_timeout", self.init_timeout),
        ] {
            if let Some(number) = number {
                body.insert(name.to_owned(), json!(number));
            }
        }
        if self.lock || self.unlock {
            body.insert("locked".to_owned(), json!(self.lock));
        }
        Value::Object(body)
    }
}

/// When a document is to be rendered.
#[derive(clap::Args, Debug)]
struct ScheduleWish {
    /// minute, hour, day, weekday, week, dayofweek, semimonth, dayofmonth, dayweekofmonth or year
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "remove")]
    kind: Option<String>,
    /// Of these so many, or every so many months
    #[arg(long, value_name = "N", requires = "kind")]
    every: Option<u64>,
    /// Days of the week, 0 is Sunday: `1,3,5`; or the one day, of the week or of the month
    #[arg(long, value_name = "DAYS", requires = "kind", value_delimiter = ',')]
    day: Vec<u64>,
    /// Which week of the month, 5 for the last
    #[arg(long, value_name = "N", requires = "kind")]
    week: Option<u64>,
    /// From when on, and at which time of the day, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", requires = "kind")]
    at: Option<String>,
    /// Whose clock, such as `Europe/Zurich` [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "kind")]
    timezone: Option<String>,
    /// Mail its owner when it is done, too
    #[arg(long, requires = "kind")]
    email: bool,
}

impl ScheduleWish {
    fn body(&self, kind: &str) -> Value {
        let mut plan = Map::new();
        for (name, number) in [("N", self.every), ("Week", self.week)] {
            if let Some(number) = number {
                plan.insert(name.to_owned(), json!(number));
            }
        }
        match (kind, self.day.first()) {
            ("dayofweek", _) => drop(plan.insert("Days".to_owned(), json!(self.day))),
            (_, Some(day)) => drop(plan.insert("Day".to_owned(), json!(day))),
            _ => {}
        }
        if kind != "weekday" && kind != "dayofweek" && kind != "semimonth" {
            plan.entry("N").or_insert(json!(1));
        }
        let mut body = json!({ "type": kind, "schedule": Value::Object(plan).to_string(), "email": self.email });
        for (name, text) in [("start_time", &self.at), ("timezone", &self.timezone)] {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        body
    }
}

/// Does it.
pub fn run_content(args: Args) -> ExitCode {
    match args.verb {
        Verb::List { search, on } => run(&on, async |to| list(to, search.as_deref()).await, listed),
        Verb::Show { content, on } => {
            run(&on, async |to| at(to, Method::GET, &content, "", None).await, |told| format!("{told:#}\n"))
        }
        Verb::Set { content, wish, on } => {
            let body = wish.body();
            run(&on, async |to| at(to, Method::PATCH, &content, "", Some(body)).await, |told| listed(&json!([told])))
        }
        Verb::Env { content, variables, on } => run(
            &on,
            async |to| {
                let body = if variables.is_empty() { None } else { Some(written(&variables)?) };
                at(to, if body.is_some() { Method::PATCH } else { Method::GET }, &content, "/environment", body).await
            },
            |names| {
                names.as_array().into_iter().flatten().filter_map(Value::as_str).map(|n| format!("{n}\n")).collect()
            },
        ),
        Verb::Bundles { content, on } => run(
            &on,
            async |to| at(to, Method::GET, &content, "/bundles", None).await,
            |all| {
                let columns = [("BUNDLE", "id"), ("CREATED", "created_time"), ("BYTES", "size"), ("RUNS", "active")];
                table(all, columns)
            },
        ),
        Verb::Activate { content, bundle, on } => {
            let body = json!({ "bundle_id": bundle.to_string() });
            run(&on, async |to| follow(to, &content, "/deploy", body).await, |_| String::new())
        }
        Verb::Render { content, on } => {
            run(&on, async |to| follow(to, &content, "/render", json!({})).await, |_| String::new())
        }
        Verb::Schedule { content, wish, remove, on } => {
            let (method, body) = match &wish.kind {
                Some(kind) => (Method::PUT, Some(wish.body(kind))),
                None if remove => (Method::DELETE, None),
                None => (Method::GET, None),
            };
            run(
                &on,
                async |to| at(to, method, &content, "/schedule", body).await,
                |told| {
                    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
                    match told["next_run"].as_str() {
                        Some(next) => {
                            format!("{}, {}; next at {next}\n", text("description"), text("timezone"))
                        }
                        None => "it is not scheduled\n".to_owned(),
                    }
                },
            )
        }
        Verb::Jobs { content, on } => run(&on, async |to| at(to, Method::GET, &content, "/jobs", None).await, jobs),
        Verb::Log { content, job, on } => run(&on, async |to| log(to, &content, job).await, lines),
        Verb::Remove { content, on } => {
            run(&on, async |to| at(to, Method::DELETE, &content, "", None).await, |_| format!("removed: {content}\n"))
        }
    }
}

/// Calls what is below content.
async fn at(to: &Endpoint, method: Method, content: &str, below: &str, body: Option<Value>) -> Result<Value, Failed> {
    let guid = guid(to, content).await?;
    to.call(method, &format!("/content/{}{below}", escaped(&guid)), body).await
}

/// The guid of what is named.
async fn guid(to: &Endpoint, content: &str) -> Result<String, Failed> {
    let is_guid = content.len() == 36 && content.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_guid {
        return Ok(content.to_owned());
    }
    let all = to.call(Method::GET, "/content", None).await?;
    let named = all.as_array().into_iter().flatten().filter(|one| one["name"] == content);
    let guids: Vec<&str> = named.filter_map(|one| one["guid"].as_str()).collect();
    match guids[..] {
        [guid] => Ok(guid.to_owned()),
        [] => Err(Failed::new(format!("there is no content `{content}`; `bowline content list` shows what there is"))),
        _ => {
            Err(Failed::new(format!("several owners have content named `{content}`; say which: {}", guids.join(", "))))
        }
    }
}

async fn list(to: &Endpoint, search: Option<&str>) -> Result<Value, Failed> {
    let all = to.call(Method::GET, "/content", None).await?;
    let Some(search) = search.map(str::to_lowercase) else { return Ok(all) };
    let has = |one: &&Value| {
        let owner = &one["owner"]["username"];
        let texts = [&one["name"], &one["title"], owner];
        texts.iter().filter_map(|text| text.as_str()).any(|text| text.to_lowercase().contains(&search))
    };
    Ok(all.as_array().into_iter().flatten().filter(has).cloned().collect())
}

fn listed(all: &Value) -> String {
    let columns = [
        ("GUID", "guid"),
        ("NAME", "name"),
        ("KIND", "app_mode"),
        ("ACCESS", "access_type"),
        ("BUNDLE", "bundle_id"),
        ("DEPLOYED", "last_deployed_time"),
        ("TITLE", "title"),
    ];
    table(all, columns)
}

fn jobs(all: &Value) -> String {
    let columns = [
        ("JOB", "key"),
        ("WHAT", "queue_name"),
        ("BEGUN", "start_time"),
        ("ENDED", "end_time"),
        ("EXIT", "exit_code"),
        ("NODE", "hostname"),
        ("RESULT", "result"),
    ];
    table(all, columns)
}

/// The lines of a job.
async fn log(to: &Endpoint, content: &str, job: Option<String>) -> Result<Value, Failed> {
    let guid = guid(to, content).await?;
    let job = match job {
        Some(job) => job,
        None => {
            let all = to.call(Method::GET, &format!("/content/{}/jobs", escaped(&guid)), None).await?;
            let latest = all[0]["key"].as_str().map(str::to_owned);
            latest.ok_or_else(|| Failed::new("nothing was done for it yet"))?
        }
    };
    to.call(Method::GET, &format!("/content/{}/jobs/{}/log", escaped(&guid), escaped(&job)), None).await
}

fn lines(log: &Value) -> String {
    let entries = log["entries"].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["data"].as_str()).map(|line| format!("{line}\n")).collect()
}

/// Begins a task and follows it to its end.
async fn follow(to: &Endpoint, content: &str, below: &str, body: Value) -> Result<Value, Failed> {
    let begun = at(to, Method::POST, content, below, Some(body)).await?;
    let task = begun["task_id"].as_str().ok_or_else(|| Failed::new("the server names no task"))?;
    let (mut first, mut output) = (0, Vec::new());
    loop {
        let told = to.call(Method::GET, &format!("/tasks/{}?first={first}&wait=5", escaped(task)), None).await?;
        first = told["last"].as_i64().unwrap_or(first);
        let new = told["output"].as_array().cloned().unwrap_or_default();
        to.progress.beside(|| {
            for line in new.iter().filter_map(Value::as_str) {
                eprintln!("{line}");
            }
        });
        output.extend(new);
        if told["finished"] != true {
            continue;
        }
        if told["code"] != 0 {
            return Err(Failed::new(told["error"].as_str().unwrap_or("it failed")));
        }
        return Ok(json!({ "task_id": task, "output": output }));
    }
}

/// What is set, and what is taken away.
fn written(variables: &[String]) -> Result<Value, Failed> {
    let one = |text: &String| match text.split_once('=') {
        Some((name, "-")) => {
            let mut value = String::new();
            std::io::Read::read_to_string(&mut std::io::stdin(), &mut value)
                .map_err(|e| Failed::new(format!("standard input cannot be read: {e}")))?;
            Ok(json!({ "name": name, "value": value.trim_end_matches('\n') }))
        }
        Some((name, value)) => Ok(json!({ "name": name, "value": value })),
        None => Ok(json!({ "name": text, "value": null })),
    };
    variables.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn body(arguments: &str) -> Value {
        let words = ["content", "schedule", "x"].into_iter().chain(arguments.split(' '));
        match <Cli as clap::Parser>::try_parse_from(words).unwrap().args.verb {
            Verb::Schedule { wish, .. } => wish.body(wish.kind.as_deref().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn schedules_are_written_as_the_api_reads_them() {
        for (arguments, kind, plan) in [
            ("--type day", "day", "{\"N\":1}"),
            ("--type minute --every 15", "minute", "{\"N\":15}"),
            ("--type weekday", "weekday", "{}"),
            ("--type dayofweek --day 1,3,5", "dayofweek", "{\"Days\":[1,3,5]}"),
            ("--type dayofmonth --day 31", "dayofmonth", "{\"Day\":31,\"N\":1}"),
            ("--type dayweekofmonth --day 1 --week 5 --every 3", "dayweekofmonth", "{\"Day\":1,\"N\":3,\"Week\":5}"),
        ] {
            let body = body(arguments);
            assert_eq!((body["type"].as_str().unwrap(), body["schedule"].as_str().unwrap()), (kind, plan));
            crate::node::report::plan::Every::read(kind, plan).unwrap();
        }
    }
}
