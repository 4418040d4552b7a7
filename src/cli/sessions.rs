//! `bowline sessions`: every live session of a running proxy.

use std::process::ExitCode;
use std::time::Duration;

use super::ctl::{self, Console, Failure, Table, Target};
use crate::proxy::admin::SessionRow;

/// Arguments of `bowline sessions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Prints a line per session.
pub fn run(args: Args) -> ExitCode {
    ctl::run(args.target.json, move |console| execute(&args, console))
}

fn execute(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let json = args.target.proxy()?.get("/sessions")?;
    if args.target.json {
        return Ok(console.out.write_all(json.as_bytes())?);
    }
    let rows: Vec<SessionRow> = ctl::read(&json)?;
    if rows.is_empty() {
        return Ok(writeln!(console.out, "no sessions")?);
    }
    let ago = |unix: Duration| ctl::span(console.now_unix.saturating_sub(unix));
    let mut table =
        Table::new(["ID", "KIND", "POOL", "BACKEND", "CLIENT", "AGE", "QUIET FOR", "BYTES IN", "BYTES OUT"]);
    for row in &rows {
        table.row([
            row.id.into(),
            row.kind.as_str().into(),
            row.pool.as_str().into(),
            row.backend.as_str().into(),
            row.client.as_deref().unwrap_or("-").into(),
            ago(row.since.unix()).into(),
            ago(row.last_activity.unix()).into(),
            row.bytes_in.into(),
            row.bytes_out.into(),
        ]);
    }
    Ok(table.print(console.out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::fixture::{self, Served};
    use crate::proxy::admin::Control;
    use crate::proxy::admin::fake::Fake;

    #[test]
    fn people_get_a_line_each_and_programs_get_json() {
        let served = Served::start(Fake::default());
        let ran = fixture::run(|console| execute(&Args { target: served.over_tcp() }, console));
        insta::assert_snapshot!(ran.out, @r"
        ID  KIND       POOL   BACKEND  CLIENT          AGE    QUIET FOR  BYTES IN  BYTES OUT
         1  websocket  shiny  a        192.0.2.1:5000  1h 2m  1h 2m            10         20
        ");
        let ran = fixture::run(|console| execute(&Args { target: served.over_unix(true) }, console));
        assert_eq!(serde_json::from_str::<Vec<SessionRow>>(&ran.out).unwrap(), Fake::default().sessions());
    }
}
