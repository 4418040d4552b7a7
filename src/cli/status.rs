//! `bowline status`: how a running proxy stands.

use std::process::ExitCode;
use std::time::Duration;

use super::ctl::{self, Console, Failure, Table, Target};
use crate::proxy::admin::Status;

/// Arguments of `bowline status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Prints listeners, pools, backends and the last reload.
pub fn run(args: Args) -> ExitCode {
    ctl::run(args.target.json, move |console| execute(&args, console))
}

fn execute(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let json = args.target.proxy()?.get("/status")?;
    if args.target.json {
        return Ok(console.out.write_all(json.as_bytes())?);
    }
    print(&ctl::read(&json)?, console)
}

fn print(status: &Status, console: &mut Console<'_>) -> Result<(), Failure> {
    let now = console.now_unix;
    let ago = |unix: Duration| ctl::span(now.saturating_sub(unix));
    let Status { pid, version, config, listeners, pools } = status;
    let out = &mut *console.out;
    writeln!(out, "bowline {version}, pid {pid}")?;
    writeln!(out, "{}, generation {}", config.file, config.generation)?;
    let reload = &config.last_reload;
    let word = if reload.ok { "loaded" } else { "last reload REFUSED" };
    writeln!(out, "{word} {} ago, at {}", ago(reload.at.unix()), reload.at)?;
    for line in reload.report.iter().flat_map(|report| report.lines()) {
        writeln!(out, "  {line}")?;
    }
    writeln!(out)?;
    let mut table = Table::new(["LISTENER", "ADDRESS", "CONNECTIONS"]);
    for listener in listeners {
        table.row([listener.name.as_str().into(), listener.address.as_str().into(), listener.connections.into()]);
    }
    table.print(out)?;
    writeln!(out)?;
    let mut table = Table::new([
        "POOL",
        "POLICY",
        "BACKEND",
        "ADDRESS",
        "HEALTH",
        "ADMIN",
        "SESSIONS",
        "IN FLIGHT",
        "REQUESTS",
        "SINCE",
    ]);
    for pool in pools {
        for backend in &pool.backends {
            table.row([
                pool.name.as_str().into(),
                pool.policy.as_str().into(),
                backend.key.as_str().into(),
                backend.address.as_str().into(),
                backend.health.as_str().into(),
                backend.admin.as_str().into(),
                backend.sessions.into(),
                backend.in_flight.into(),
                backend.requests.into(),
                ago(backend.since.unix()).into(),
            ]);
        }
    }
    Ok(table.print(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::fixture::{self, Served};
    use crate::proxy::admin::fake::{Fake, MOMENT};
    use crate::proxy::admin::{Control, LastReload};

    #[test]
    fn people_get_tables() {
        let served = Served::start(Fake::default());
        let ran = fixture::run(|console| execute(&Args { target: served.over_unix(false) }, console));
        assert_eq!(ran.code, 0, "{ran:?}");
        insta::assert_snapshot!(ran.out, @r"
        bowline 0.1.0, pid 7
        /etc/bowline/proxy.toml, generation 1
        loaded 1h 2m ago, at 2026-05-28T20:26:40.042Z

        LISTENER  ADDRESS      CONNECTIONS
        https     0.0.0.0:443            2

        POOL   POLICY          BACKEND  ADDRESS         HEALTH  ADMIN    SESSIONS  IN FLIGHT  REQUESTS  SINCE
        shiny  least_sessions  a        10.0.0.11:3838  up      enabled         3          1        42  1h 2m
        ");
        let over_tcp = fixture::run(|console| execute(&Args { target: served.over_tcp() }, console));
        assert_eq!(over_tcp.out, ran.out);
    }

    #[test]
    fn programs_get_json() {
        let served = Served::start(Fake::default());
        let ran = fixture::run(|console| execute(&Args { target: served.over_unix(true) }, console));
        assert_eq!(serde_json::from_str::<Status>(&ran.out).unwrap(), Fake::default().status());
    }

    #[test]
    fn a_refused_reload_shows_its_report() {
        let mut status = Fake::default().status();
        let report = Some("proxy.toml:3:1: no pool named `shinny`\nproxy.toml:9:1: two".into());
        status.config.last_reload = LastReload { at: MOMENT, ok: false, report };
        let ran = fixture::run(|console| print(&status, console));
        assert!(ran.out.contains("last reload REFUSED 1h 2m ago"), "{}", ran.out);
        assert!(ran.out.contains("\n  proxy.toml:3:1: no pool named `shinny`\n  proxy.toml:9:1: two\n"), "{}", ran.out);
    }
}
