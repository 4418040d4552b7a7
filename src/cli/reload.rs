//! `bowline reload`: has a running proxy load its configuration again, all or nothing.

use std::process::ExitCode;

use super::ctl::{self, Console, Failure, Target};
use crate::proxy::admin::{ReloadDone, ReloadRefused};

/// Arguments of `bowline reload`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Prints what changed, or every problem with exit code 78 while the proxy goes on as before.
pub fn run(args: Args) -> ExitCode {
    ctl::run(args.target.json, move |console| execute(&args, console))
}

fn execute(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = args.target.proxy()?.exchange("POST", "/reload")?;
    if args.target.json && matches!(answer.status, 200 | 409) {
        console.told_json(&answer.body)?;
    }
    match answer.status {
        200 if args.target.json => Ok(()),
        200 => print(&ctl::read(&answer.body)?, console),
        409 => {
            let ReloadRefused { report, problems: _ } = ctl::read(&answer.body)?;
            let report = report.trim_end();
            Err(Failure::Config(format!("{report}\nThe proxy goes on with the configuration it had.")))
        }
        _ => Err(ctl::refused(&answer)),
    }
}

fn print(done: &ReloadDone, console: &mut Console<'_>) -> Result<(), Failure> {
    let ReloadDone { generation, changes, waiting_for_restart } = done;
    let what = if changes.is_empty() { ", nothing changed" } else { "" };
    writeln!(console.out, "reloaded: generation {generation}{what}")?;
    for change in changes {
        writeln!(console.out, "  {change}")?;
    }
    for key in waiting_for_restart {
        writeln!(console.out, "  `{key}` waits for a restart")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::fixture::{self, Served};
    use crate::proxy::admin::fake::Fake;

    #[test]
    fn a_reload_tells_what_changed_and_what_waits() {
        let served = Served::start(Fake::default());
        let ran = fixture::run(|console| execute(&Args { target: served.over_unix(false) }, console));
        assert_eq!(ran.code, 0);
        assert_eq!(
            ran.out,
            "reloaded: generation 2\n  pool `shiny`: backend `b` added\n  `admin.address` waits for a restart\n"
        );
    }

    #[test]
    fn a_refused_reload_prints_the_report_and_is_a_matter_of_configuration() {
        let served = Served::start(Fake { refuses_reload: true, ..Fake::default() });
        let ran = fixture::run(|console| execute(&Args { target: served.over_unix(false) }, console));
        assert_eq!(ran.code, 78);
        assert!(ran.failure.starts_with("proxy.toml:3:1: no pool named `shinny`\n"), "{ran:?}");
        let ran = fixture::run(|console| execute(&Args { target: served.over_unix(true) }, console));
        assert_eq!(ran.code, 78);
        let refused: ReloadRefused = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(refused.problems[0]["line"], 3);
    }

    #[test]
    fn tcp_is_refused_with_the_way_that_works() {
        let served = Served::start(Fake::default());
        let ran = fixture::run(|console| execute(&Args { target: served.over_tcp() }, console));
        assert_eq!(ran.code, 1);
        assert!(ran.failure.contains("unix socket"), "{ran:?}");
    }
}
