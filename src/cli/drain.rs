//! `bowline drain`: lets a backend's clients finish and sends it no new ones.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::ctl::{self, BackendName, Console, Failure, Proxy, Target};
use crate::proxy::admin::{AdminState, BackendStatus};
use crate::runtime::clock;

/// Arguments of `bowline drain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// POOL/BACKEND, as `bowline status` lists them
    #[arg(value_name = "POOL/BACKEND")]
    backend: BackendName,
    /// Return only when the backend has no session and no request left
    #[arg(long)]
    wait: bool,
    /// Have the proxy end the sessions that are left after this long, and disable the backend; requests may finish
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
    #[command(flatten)]
    target: Target,
}

/// Drains, and waits if asked to: 0 when the backend is empty, also when the deadline made it so; 1 when it is not.
pub fn run(args: Args) -> ExitCode {
    ctl::run(args.target.json, move |console| execute(&args, console))
}

fn execute(args: &Args, console: &mut Console<'_>) -> Result<(), Failure> {
    let proxy = args.target.proxy()?;
    // From before the proxy begins to count, so that whoever is still there at our deadline did not leave by itself.
    let begun = clock::now();
    let query = args.deadline.map(|deadline| {
        format!("?deadline={}", ctl::percent_encode(&humantime::format_duration(deadline).to_string()))
    });
    let changed = proxy.change(&args.backend, "drain", &query.unwrap_or_default())?;
    let left = if args.wait { wait(args, &proxy, begun, console)? } else { backend(&proxy, &args.backend)? };
    if args.target.json {
        let (sessions, in_flight) = (left.sessions, left.in_flight);
        return console.json(&json!({
            "pool": changed.pool, "backend": changed.backend, "admin": left.admin,
            "sessions": sessions, "in_flight": in_flight,
        }));
    }
    let what = if is_empty(&left) { "empty".to_owned() } else { format!("{} left", remaining(&left)) };
    let state = match left.admin {
        // The deadline came first, and then the proxy takes the backend out.
        AdminState::Disabled => "is disabled, its deadline is over (`enable` brings it back)",
        _ => "is draining",
    };
    Ok(writeln!(console.out, "{} {state}: {what}", args.backend)?)
}

/// Asks until nothing is left.
fn wait(args: &Args, proxy: &Proxy, begun: Instant, console: &mut Console<'_>) -> Result<BackendStatus, Failure> {
    let mut line = Progress { console, is_shown: false };
    let mut pause = FIRST_PAUSE;
    let mut silences = 0;
    let mut last_seen: Option<BackendStatus> = None;
    loop {
        let waited = clock::now().duration_since(begun);
        let left = || last_seen.as_ref().map_or_else(|| "what was left".to_owned(), remaining);
        // At the deadline the proxy ends the sessions that remain; that takes it a moment.
        if args.deadline.is_some_and(|deadline| waited >= deadline.saturating_add(GRACE)) {
            return Err(Failure::Failed(format!("{}: the deadline passed with {} to go", args.backend, left())));
        }
        match backend(proxy, &args.backend) {
            Ok(seen) if is_empty(&seen) => return Ok(seen),
            Ok(seen) if seen.admin == AdminState::Enabled => {
                return Err(Failure::Failed(format!(
                    "{}: somebody enabled it again, with {} left",
                    args.backend,
                    remaining(&seen)
                )));
            }
            Ok(seen) => {
                line.show(&format!("{}: {} left, {} waited", args.backend, remaining(&seen), ctl::span(waited)))?;
                silences = 0;
                last_seen = Some(seen);
            }
            // A proxy under load may miss a question; one that is gone misses them all.
            Err(failure) if silences == SILENCES_MAX => return Err(failure),
            Err(_) => silences += 1,
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn backend(proxy: &Proxy, name: &BackendName) -> Result<BackendStatus, Failure> {
    let status = proxy.status()?;
    let pool = status.pools.into_iter().find(|pool| pool.name == name.pool);
    let backend = pool.and_then(|pool| pool.backends.into_iter().find(|backend| backend.key == name.key));
    backend.ok_or_else(|| Failure::Failed(format!("{name}: no longer in the proxy's configuration")))
}

fn is_empty(backend: &BackendStatus) -> bool {
    backend.sessions == 0 && backend.in_flight == 0
}

fn remaining(backend: &BackendStatus) -> String {
    let sessions = ctl::counted(backend.sessions, "session");
    format!("{sessions}, {} in flight", ctl::counted(backend.in_flight, "request"))
}

/// One line that is written over; gone when dropped.
struct Progress<'a, 'c> {
    console: &'a mut Console<'c>,
    is_shown: bool,
}

impl Progress<'_, '_> {
    fn show(&mut self, text: &str) -> Result<(), Failure> {
        if self.console.is_watched {
            self.is_shown = true;
            write!(self.console.err, "\r\x1b[K{text}")?;
            self.console.err.flush()?;
        }
        Ok(())
    }
}

impl Drop for Progress<'_, '_> {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(self.console.err, "\r\x1b[K");
        }
    }
}

const GRACE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
const SILENCES_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ctl::fixture::{self, Ran, Served};
    use crate::proxy::admin::Change;
    use crate::proxy::admin::fake::Fake;

    fn drain(served: &Served, backend: &str, wait: bool, deadline: Option<&str>, json: bool) -> Ran {
        let args = Args {
            backend: backend.parse().unwrap(),
            wait,
            deadline: deadline.map(|text| humantime::parse_duration(text).unwrap()),
            target: served.over_unix(json),
        };
        fixture::run(|console| execute(&args, console))
    }

    #[test]
    fn without_waiting_it_tells_what_is_left() {
        let served = Served::start(Fake::default());
        let ran = drain(&served, "shiny/a", false, Some("8h"), false);
        assert_eq!((ran.code, ran.out.as_str()), (0, "shiny/a is draining: 3 sessions, 1 request in flight left\n"));
        let deadline = Some(Duration::from_secs(8 * 3600));
        assert_eq!(served.fake.told(), [("shiny".into(), "a".into(), Change::Drain { deadline })]);
    }

    #[test]
    fn waiting_ends_when_sessions_and_requests_are_gone() {
        let served = Served::start(Fake::counting([(2, 1), (1, 0), (0, 1), (0, 0)]));
        let ran = drain(&served, "shiny/a", true, None, true);
        assert_eq!(ran.code, 0, "{ran:?}");
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(value, json!({"pool": "shiny", "backend": "a", "admin": "draining", "sessions": 0, "in_flight": 0}));
        for shown in ["2 sessions, 1 request", "1 session, 0 requests", "0 sessions, 1 request"] {
            assert!(ran.err.contains(shown), "{ran:?}");
        }
        assert!(ran.err.ends_with("\r\x1b[K"), "the line is taken away at the end");
    }

    #[test]
    fn a_backend_that_is_not_empty_after_its_deadline_is_a_failure() {
        let served = Served::start(Fake::counting([(4, 0)]));
        let ran = drain(&served, "shiny/a", true, Some("250ms"), false);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.failure.contains("deadline passed with 4 sessions, 0 requests in flight"), "{ran:?}");
    }

    #[test]
    fn somebody_enabling_it_again_ends_the_wait() {
        let served = Served::start(Fake::counting([(4, 0)]));
        let fake = served.fake.clone();
        let other = thread::spawn(move || {
            while fake.told.lock().unwrap().is_empty() {
                thread::yield_now();
            }
            fake.told.lock().unwrap().push(("shiny".into(), "a".into(), Change::Enable));
        });
        let ran = drain(&served, "shiny/a", true, Some("20s"), false);
        other.join().unwrap();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.failure.contains("enabled it again"), "{ran:?}");
    }

    #[test]
    fn what_cannot_be_drained_is_named() {
        let served = Served::start(Fake::default());
        for (name, says) in [("shinny/a", "no pool named `shinny`"), ("shiny/z", "pool `shiny` has no backend `z`")] {
            let ran = drain(&served, name, true, None, false);
            assert_eq!(ran.code, 1);
            assert_eq!(ran.failure, says);
        }
    }

    #[test]
    fn tcp_is_refused_with_the_way_that_works() {
        let served = Served::start(Fake::default());
        let backend = "shiny/a".parse().unwrap();
        let args = Args { backend, wait: false, deadline: None, target: served.over_tcp() };
        let ran = fixture::run(|console| execute(&args, console));
        assert_eq!(ran.code, 1);
        assert!(ran.failure.contains("unix socket"), "{ran:?}");
        assert_eq!(served.fake.told(), []);
    }
}
