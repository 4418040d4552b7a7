//! A proxy process: its configuration, its logs, its memory.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What the access log says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// `name value`, of those fields that do not depend on time or port.
    pub(crate) told: Vec<(&'static str, String)>,
}

impl LogLine {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.told.iter().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
    }
}

/// The fields of a line that are compared.
const TOLD: [&str; 11] = [
    "http.request.method",
    "url.path",
    "server.address",
    "http.response.status_code",
    "route",
    "attempts",
    "upgraded",
    "bytes_received",
    "bytes_sent",
    "error.type",
    "error.side",
];

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    child: Child,
    plain: SocketAddr,
    trusted: SocketAddr,
    lines: Arc<Mutex<HashMap<Caller, Vec<LogLine>>>>,
    /// What the process says on standard error.
    said: Arc<Mutex<Vec<String>>>,
}

/// A client: whether it came to the trusting listener, and its port.
type Caller = (bool, u16);

/// Lines of standard error that are kept.
const SAID_MAX: usize = 200;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts one; `origins`: name of each lane and where its origin is.
    ///
    /// # Errors
    /// It does not start; the text says why.
    pub(crate) async fn start(
        binary: &Path,
        folder: &Path,
        name: &'static str,
        pingora_only: bool,
        origins: &[(String, SocketAddr)],
    ) -> Result<Self, String> {
        let (file, ports) = (folder.join(format!("{name}.toml")), folder.join(format!("{name}.ports")));
        std::fs::write(&file, configuration(origins)).map_err(told(&file))?;
        let mut command = Command::new(binary);
        command.arg("proxy").arg("-c").arg(&file).arg("--ports-file").arg(&ports);
        command.env("BOWLINE_PINGORA_ONLY", if pingora_only { "1" } else { "0" }).env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(told(binary))?;
        let (lines, said) =
            (Arc::<Mutex<HashMap<Caller, Vec<LogLine>>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        if let Some(out) = child.stdout.take() {
            let lines = Arc::clone(&lines);
            tokio::spawn(async move {
                let mut text = BufReader::new(out).lines();
                while let Ok(Some(line)) = text.next_line().await {
                    let port = json(&line, "client.port").and_then(|port| port.parse().ok());
                    if let Some(port) = port {
                        let told = TOLD.iter().filter_map(|key| Some((*key, json(&line, key)?))).collect();
                        let is_trusted = json(&line, "listener").is_some_and(|name| name == "trusted");
                        lock(&lines).entry((is_trusted, port)).or_default().push(LogLine { told });
                    }
                }
            });
        }
        if let Some(err) = child.stderr.take() {
            let said = Arc::clone(&said);
            tokio::spawn(async move {
                let mut text = BufReader::new(err).lines();
                while let Ok(Some(line)) = text.next_line().await {
                    let mut said = lock(&said);
                    if said.len() < SAID_MAX {
                        said.push(line);
                    }
                }
            });
        }
        for _ in 0..500 {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let of = |listener| json(&text.replace(": ", ":"), listener)?.parse().ok();
            if let (Some(plain), Some(trusted)) = (of("plain"), of("trusted")) {
                return Ok(Self { name, child, plain, trusted, lines, said });
            }
            if matches!(child.try_wait(), Ok(Some(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(format!("{} did not start: {}", name, lock(&said).join("\n")))
    }

    /// Where clients go.
    pub(crate) fn address(&self, is_trusted: bool) -> SocketAddr {
        if is_trusted { self.trusted } else { self.plain }
    }

    /// How many requests of a client were logged.
    pub(crate) fn logged(&self, caller: Caller) -> usize {
        lock(&self.lines).get(&caller).map_or(0, Vec::len)
    }

    /// What was logged of them; it is forgotten then.
    pub(crate) fn take_log(&self, caller: Caller) -> Vec<LogLine> {
        lock(&self.lines).remove(&caller).unwrap_or_default()
    }

    /// What it said on standard error since it was last asked.
    pub(crate) fn said(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.said))
    }

    /// Whether the process still lives.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory, KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = self.child.id().map(|id| std::fs::read_to_string(format!("/proc/{id}/status")));
        let status = status.and_then(io::Result::ok).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }
}

fn told(what: &Path) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{}: {error}", what.display())
}

/// The value of a key in a flat JSON object: the text of a string, or what stands there; `None`: it is not there.
fn json(line: &str, key: &str) -> Option<String> {
    let rest = &line[line.find(&format!("\"{key}\":"))? + key.len() + 3..];
    let Some(text) = rest.strip_prefix('"') else {
        return Some(rest[..rest.find([',', '}'])?].to_owned());
    };
    let (mut value, mut chars) = (String::new(), text.chars());
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.extend(['\\', chars.next()?]),
            other => value.push(other),
        }
    }
}

/// Short waits, small limits, a lane's name as host and as first segment of the path. Each lane has two pools: one with a
/// single backend, and one with two at the same address, so that there is another one to ask again.
fn configuration(origins: &[(String, SocketAddr)]) -> String {
    let mut text = String::from(
        "role = \"proxy\"\nthreads = 1\n[log]\nlevel = \"error\"\n[upstream]\nkeepalive_connections = 4096\n",
    );
    for (name, trusted) in [("plain", "[]"), ("trusted", "[\"127.0.0.0/8\"]")] {
        let _ = write!(
            text,
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ntrusted = {trusted}\n\
             limits = {{ head_timeout = \"900ms\", keepalive_timeout = \"1s\", head_bytes = \"8KiB\", head_count = 40 }}\n"
        );
    }
    for (lane, address) in origins {
        for (pool, backends) in [("one", &["a"][..]), ("two", &["a", "b"])] {
            let _ = write!(
                text,
                "[[pool]]\nname = \"{lane}-{pool}\"\nfail_open = true\nretries = 1\n\
                 affinity.cookie = {{ enabled = true, key_file = \"affinity.key\" }}\n\
                 probe = {{ type = \"tcp\", interval = \"1h\", rise = 1, fall = 1000 }}\n\
                 timeouts = {{ connect = \"2s\", response = \"1200ms\", body = \"800ms\", keepalive = \"5s\" }}\n"
            );
            for key in backends {
                let _ = write!(text, "[[pool.backend]]\nkey = \"{key}\"\naddress = \"{address}\"\n");
            }
        }
        for (place, pool, more) in [
            (format!("host = \"{lane}.test\""), "one", ""),
            (format!("path = \"/{lane}\""), "one", ""),
            (format!("path = \"/{lane}/two\""), "two", ""),
            (format!("path = \"/{lane}/small\""), "one", "body_bytes_max = \"1000B\"\n"),
            (format!("host = \"{lane}.test\"\npath = \"/{lane}/two\""), "two", ""),
            (format!("host = \"{lane}.test\"\npath = \"/{lane}/small\""), "one", "body_bytes_max = \"1000B\"\n"),
        ] {
            let _ = write!(text, "[[route]]\n{place}\npool = \"{lane}-{pool}\"\n{more}");
        }
    }
    text
}
