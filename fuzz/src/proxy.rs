//! The proxy process: its configuration, its logs, its memory.

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

use crate::lane::Shore;
use crate::tls;

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
const TOLD: [&str; 10] = [
    "http.request.method",
    "url.path",
    "server.address",
    "http.response.status_code",
    "route",
    "upgraded",
    "bytes_received",
    "bytes_sent",
    "error.type",
    "error.side",
];

/// A listener, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Door {
    /// It believes what its clients say about the way before it.
    pub(crate) is_trusted: bool,
    pub(crate) is_tls: bool,
}

impl Door {
    const ALL: [Self; 4] = [
        Self { is_trusted: false, is_tls: false },
        Self { is_trusted: true, is_tls: false },
        Self { is_trusted: false, is_tls: true },
        Self { is_trusted: true, is_tls: true },
    ];

    fn name(self) -> &'static str {
        match (self.is_trusted, self.is_tls) {
            (false, false) => "plain",
            (true, false) => "trusted",
            (false, true) => "tls",
            (true, true) => "tls-trusted",
        }
    }
}

/// The running proxy.
pub(crate) struct Proxy {
    child: Child,
    doors: HashMap<Door, SocketAddr>,
    lines: Arc<Mutex<HashMap<Caller, Vec<LogLine>>>>,
    /// What the process says on standard error.
    said: Arc<Mutex<Vec<String>>>,
}

/// A client: where it came in, and its port.
pub(crate) type Caller = (Door, u16);

/// Lines of standard error that are kept.
const SAID_MAX: usize = 200;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts it; `folder` has its certificate, `origins` are names of sites, where each one's origin is, and on which shore.
    ///
    /// # Errors
    /// It does not start; the text says why.
    pub(crate) async fn start(
        binary: &Path,
        folder: &Path,
        origins: &[(String, String, Shore)],
    ) -> Result<Self, String> {
        let (file, ports) = (folder.join("proxy.toml"), folder.join("proxy.ports"));
        std::fs::write(&file, configuration(origins)).map_err(told(&file))?;
        let mut command = Command::new(binary);
        command.arg("proxy").arg("-c").arg(&file).arg("--ports-file").arg(&ports).env("RUST_BACKTRACE", "1");
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
                    let listener = json(&line, "listener").unwrap_or_default();
                    let door = Door::ALL.into_iter().find(|door| door.name() == listener);
                    if let (Some(port), Some(door)) = (port, door) {
                        let told = TOLD.iter().filter_map(|key| Some((*key, json(&line, key)?))).collect();
                        lock(&lines).entry((door, port)).or_default().push(LogLine { told });
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
            let text = std::fs::read_to_string(&ports).unwrap_or_default().replace(": ", ":");
            let doors = Door::ALL.iter().map(|door| Some((*door, json(&text, door.name())?.parse().ok()?)));
            if let Some(doors) = doors.collect() {
                return Ok(Self { child, doors, lines, said });
            }
            if matches!(child.try_wait(), Ok(Some(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(format!("the proxy did not start: {}", lock(&said).join("\n")))
    }

    /// Where clients go.
    pub(crate) fn address(&self, door: Door) -> SocketAddr {
        self.doors[&door]
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

/// Short waits, small limits, a site's name as host and as first segment of the path. Each name has two pools: one with a
/// single backend, and one with two at the same address, so that there is another one to ask again.
fn configuration(origins: &[(String, String, Shore)]) -> String {
    let mut text = String::from(
        "role = \"proxy\"\nthreads = 1\n[log]\nlevel = \"error\"\n[upstream]\nkeepalive_connections = 4096\n",
    );
    for door in Door::ALL {
        let (name, protocol) = (door.name(), if door.is_tls { "https" } else { "http" });
        let trusted = if door.is_trusted { "[\"127.0.0.0/8\"]" } else { "[]" };
        let _ = write!(
            text,
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\ntrusted = {trusted}\n\
             limits = {{ head_timeout = \"2s\", keepalive_timeout = \"1s\", head_bytes = \"8KiB\", head_count = 40 }}\n"
        );
        if door.is_tls {
            let _ = writeln!(text, "tls = {{ certificates = \"{}\" }}", tls::FOLDER);
        }
    }
    for (site, address, shore) in origins {
        for (pool, backends) in [("one", &["a"][..]), ("two", &["a", "b"])] {
            let _ = write!(
                text,
                "[[pool]]\nname = \"{site}-{pool}\"\nfail_open = true\nretries = 1\n\
                 affinity.cookie = {{ enabled = true, key_file = \"affinity.key\" }}\n\
                 probe = {{ type = \"tcp\", interval = \"1h\", rise = 1, fall = 1000 }}\n\
                 timeouts = {{ connect = \"2s\", response = \"1200ms\", body = \"800ms\", keepalive = \"5s\", \
                 tunnel_ping = \"1s\", tunnel_idle = \"2s\" }}\n"
            );
            if *shore == Shore::Tls {
                let (file, name) = (tls::CERTIFICATE, tls::NAME);
                let _ = writeln!(text, "tls = {{ ca_file = \"{file}\", server_name = \"{name}\" }}");
            }
            for key in backends {
                let _ = write!(text, "[[pool.backend]]\nkey = \"{key}\"\naddress = \"{address}\"\n");
            }
        }
        for (place, pool, more) in [
            (format!("host = \"{site}.test\""), "one", ""),
            (format!("path = \"/{site}\""), "one", ""),
            (format!("path = \"/{site}/two\""), "two", ""),
            (format!("path = \"/{site}/small\""), "one", "body_bytes_max = \"1000B\"\n"),
            (format!("host = \"{site}.test\"\npath = \"/{site}/two\""), "two", ""),
            (format!("host = \"{site}.test\"\npath = \"/{site}/small\""), "one", "body_bytes_max = \"1000B\"\n"),
        ] {
            let _ = write!(text, "[[route]]\n{place}\npool = \"{site}-{pool}\"\n{more}");
        }
    }
    text
}
