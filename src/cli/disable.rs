//! `bowline disable`: takes a backend out: no clients at all, bound ones go elsewhere.

use std::process::ExitCode;

use super::ctl::{self, BackendName, Console, Failure, Target};

/// Arguments of `bowline disable`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// POOL/BACKEND, as `bowline status` lists them
    #[arg(value_name = "POOL/BACKEND")]
    backend: BackendName,
    #[command(flatten)]
    target: Target,
}

/// Lets the backend take nobody.
pub fn run(args: Args) -> ExitCode {
    ctl::run(args.target.json, move |console| execute(&args, console))
}

fn execute(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let changed = args.target.proxy()?.change(&args.backend, "disable", "")?;
    if args.target.json {
        return console.json(&changed);
    }
    Ok(writeln!(console.out, "{} is {}", args.backend, changed.admin.as_str())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::fixture::{self, Served};
    use crate::proxy::admin::Change;
    use crate::proxy::admin::fake::Fake;

    #[test]
    fn the_backend_is_disabled() {
        let served = Served::start(Fake::default());
        for (json, out) in [
            (false, "shiny/a is disabled\n"),
            (true, "{\"pool\":\"shiny\",\"backend\":\"a\",\"admin\":\"disabled\"}\n"),
        ] {
            let args = Args { backend: "shiny/a".parse().unwrap(), target: served.over_unix(json) };
            let ran = fixture::run(|console| execute(&args, console));
            assert_eq!((ran.code, ran.out.as_str()), (0, out), "{ran:?}");
            assert_eq!(served.fake.told(), [("shiny".into(), "a".into(), Change::Disable)]);
        }
    }
}
