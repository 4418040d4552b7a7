//! What the commands that speak to a running proxy share: how they find it, how they fail, how they print.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::proxy::Admin;
use crate::proxy::admin::{Changed, Status};
use crate::runtime::clock;

pub(crate) use http::{Answer, Endpoint};
pub(crate) use table::{Cell, Table};

#[cfg(test)]
pub(crate) mod fixture;
mod http;
mod table;

/// Which proxy, and how to print.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Target {
    /// The proxy's admin endpoint [default: that of `-c FILE`, else $BOWLINE_ADMIN, else /run/bowline/admin.sock]
    #[arg(long, value_name = "URL|SOCKET")]
    admin: Option<Endpoint>,
    /// The proxy's configuration, to read its admin socket from
    #[arg(short = 'c', long = "config", value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `POOL/BACKEND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendName {
    /// Name of the pool.
    pub(crate) pool: String,
    /// Key of the backend.
    pub(crate) key: String,
}

/// Where a command prints.
pub(crate) struct Console<'a> {
    /// What was asked for.
    pub(crate) out: &'a mut dyn Write,
    /// Progress.
    pub(crate) err: &'a mut dyn Write,
    /// Somebody watches `err`.
    pub(crate) is_watched: bool,
    /// Seconds since 1970, for ages.
    pub(crate) now_unix: Duration,
    /// JSON was printed.
    pub(crate) has_json: bool,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 78.
    Config(String),
    /// Nothing can be printed; whoever closed the pipe has seen enough.
    Output(io::Error),
}

/// A proxy that is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    endpoint: Endpoint,
}

/// Runs a command on the process's own output and turns its end into an exit code.
///
/// With `json`, a failure that printed nothing prints `{"error": MESSAGE}`: who reads JSON gets JSON.
#[expect(clippy::print_stderr, reason = "this is a command")]
pub(crate) fn run(json: bool, command: impl FnOnce(&mut Console<'_>) -> Result<(), Failure>) -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let is_watched = err.is_terminal();
    let mut console = Console { out: &mut out, err: &mut err, is_watched, now_unix: clock::unix(), has_json: false };
    let outcome = command(&mut console);
    let outcome = console.explain(json, outcome).and_then(|()| console.out.flush().map_err(Failure::Output));
    if let Err(failure) = &outcome
        && let Some(message) = failure.message()
    {
        eprintln!("{message}");
    }
    ExitCode::from(exit_code(&outcome))
}

/// 0 ok, 1 failed, 78 configuration (`EX_CONFIG` of sysexits.h).
pub(crate) fn exit_code(outcome: &Result<(), Failure>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(Failure::Failed(_) | Failure::Output(_)) => 1,
        Err(Failure::Config(_)) => 78,
    }
}

impl Console<'_> {
    /// Prints one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(|e| Failure::Failed(e.to_string()))?;
        self.told_json(&format!("{line}\n"))
    }

    /// Prints JSON as the proxy told it.
    pub(crate) fn told_json(&mut self, text: &str) -> Result<(), Failure> {
        self.has_json = true;
        Ok(self.out.write_all(text.as_bytes())?)
    }

    fn explain(&mut self, json: bool, outcome: Result<(), Failure>) -> Result<(), Failure> {
        if let (true, false, Err(Failure::Failed(why) | Failure::Config(why))) = (json, self.has_json, &outcome) {
            self.json(&serde_json::json!({ "error": why }))?;
        }
        outcome
    }
}

// === impl Failure ===

impl Failure {
    fn message(&self) -> Option<String> {
        match self {
            Self::Failed(message) | Self::Config(message) => Some(message.clone()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(format!("cannot print: {error}")),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

// === impl Target ===

impl Target {
    /// The proxy that is meant.
    pub(crate) fn proxy(&self) -> Result<Proxy, Failure> {
        self.endpoint(std::env::var("BOWLINE_ADMIN").ok()).map(|endpoint| Proxy { endpoint })
    }

    fn endpoint(&self, variable: Option<String>) -> Result<Endpoint, Failure> {
        if let Some(endpoint) = &self.admin {
            return Ok(endpoint.clone());
        }
        if let Some(file) = &self.config {
            // The rest of the file may be wrong just now, and this may be why somebody asks.
            let admin = crate::config::load_admin(file).map_err(|report| Failure::Config(report.to_string()))?;
            return configured(&admin, file);
        }
        match variable.filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(|why| Failure::Failed(format!("BOWLINE_ADMIN is `{text}`: {why}"))),
            None => Ok(Endpoint::Unix(DEFAULT_SOCKET.into())),
        }
    }
}

/// The endpoint of a configuration: its socket, because that can do everything, else its address.
fn configured(admin: &Admin, file: &Path) -> Result<Endpoint, Failure> {
    let file = file.display();
    match admin {
        Admin { socket: Some(socket), .. } => Ok(Endpoint::Unix(socket.clone())),
        Admin { address: Some(address), .. } if address.port() == 0 => Err(Failure::Failed(format!(
            "`{file}` lets the system choose the admin port; name it with `--admin http://HOST:PORT`"
        ))),
        Admin { address: Some(address), .. } => {
            let mut address = *address;
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            Ok(Endpoint::Http(address.to_string()))
        }
        Admin { address: None, socket: None } => Err(Failure::Config(format!(
            "`{file}` configures no admin endpoint; give it `[admin] socket = \"{DEFAULT_SOCKET}\"`"
        ))),
    }
}

// === impl BackendName ===

impl FromStr for BackendName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.rsplit_once('/') {
            Some((pool, key)) if !pool.is_empty() && !key.is_empty() => {
                Ok(Self { pool: pool.to_owned(), key: key.to_owned() })
            }
            _ => Err("expected POOL/BACKEND, as `bowline status` lists them"),
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.key)
    }
}

// === impl Proxy ===

impl Proxy {
    /// The answer to `GET target` as JSON text.
    pub(crate) fn get(&self, target: &str) -> Result<String, Failure> {
        let answer = self.exchange("GET", target)?;
        if answer.status == 200 { Ok(answer.body) } else { Err(refused(&answer)) }
    }

    /// `GET /status`.
    pub(crate) fn status(&self) -> Result<Status, Failure> {
        read(&self.get("/status")?)
    }

    /// Drains, enables or disables a backend; `query` begins with `?` or is empty.
    pub(crate) fn change(&self, backend: &BackendName, verb: &str, query: &str) -> Result<Changed, Failure> {
        let target =
            format!("/backends/{}/{}/{verb}{query}", percent_encode(&backend.pool), percent_encode(&backend.key));
        let answer = self.exchange("POST", &target)?;
        if answer.status == 200 { read(&answer.body) } else { Err(refused(&answer)) }
    }

    /// Any exchange, whatever its status.
    pub(crate) fn exchange(&self, method: &str, target: &str) -> Result<Answer, Failure> {
        self.endpoint.exchange(method, target).map_err(|error| self.silent(&error))
    }

    /// Nobody answered: says who was asked, and how to ask somebody else.
    fn silent(&self, error: &io::Error) -> Failure {
        let endpoint = &self.endpoint;
        let why = match (error.kind(), endpoint) {
            (io::ErrorKind::NotFound, Endpoint::Unix(_)) => "there is no such socket; is the proxy running?".to_owned(),
            (io::ErrorKind::ConnectionRefused, _) => "nobody listens there; is the proxy running?".to_owned(),
            (io::ErrorKind::PermissionDenied, _) => "the socket is for its owner and group only".to_owned(),
            (io::ErrorKind::TimedOut, _) => "no answer in time".to_owned(),
            (io::ErrorKind::WouldBlock, _) => "the proxy is too busy to answer".to_owned(),
            _ => error.to_string(),
        };
        Failure::Failed(format!(
            "no proxy answers at `{endpoint}`: {why}\n\
             To ask another one use `--admin SOCKET`, `--admin http://HOST:PORT`, `-c FILE` or BOWLINE_ADMIN."
        ))
    }
}

/// The sentence of an answer that is not the one hoped for.
pub(crate) fn refused(answer: &Answer) -> Failure {
    let sentence = answer.body.trim_end();
    Failure::Failed(if sentence.is_empty() {
        format!("the proxy answered {}", answer.status)
    } else {
        sentence.to_owned()
    })
}

/// Reads an answer.
pub(crate) fn read<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|e| {
        Failure::Failed(format!(
            "the proxy answers in a way this version does not know, is it of another version? ({e})"
        ))
    })
}

/// Keeps unreserved characters (RFC 3986 §2.3) and encodes the rest.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `1 session`, `2 sessions`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A time span in its two largest units: `42s`, `3m 10s`, `5h 2m`, `12d 4h`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Where packages put it.
const DEFAULT_SOCKET: &str = "/run/bowline/admin.sock";

#[cfg(test)]
mod tests;
