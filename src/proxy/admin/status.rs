//! What the admin endpoint tells, as JSON with exactly these names. The commands that ask read it back with the same
//! types.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::telemetry::Timestamp;

/// `GET /status`: the process and everything it knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Process id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// What it runs on.
    pub config: ConfigStatus,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// In the order of the configuration.
    pub pools: Vec<PoolStatus>,
}

/// The configuration in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Its file, absolute.
    pub file: String,
    /// 1 at the start, one more with each successful reload.
    pub generation: u64,
    /// The last attempt to load it; the start counts.
    pub last_reload: LastReload,
}

/// An attempt to load the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastReload {
    /// When.
    pub at: Timestamp,
    /// Whether it is in use since.
    pub ok: bool,
    /// Every problem, for people, when it was refused; what changed or waits for a restart otherwise, if anything.
    pub report: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The address it is bound to.
    pub address: String,
    /// Open client connections.
    pub connections: u64,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// As in the configuration: `least_sessions`, …
    pub policy: String,
    /// In the order of the configuration.
    pub backends: Vec<BackendStatus>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its key.
    pub key: String,
    /// What is dialled.
    pub address: String,
    /// What health checks and requests found.
    pub health: HealthState,
    /// What the operator wants.
    pub admin: AdminState,
    /// Live sessions.
    pub sessions: u64,
    /// Requests it is working on.
    pub in_flight: u64,
    /// Requests it was ever given.
    pub requests: u64,
    /// Last change of `health` or `admin`.
    pub since: Timestamp,
}

/// What is known of a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No verdict yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// It says that it leaves: those it has go on.
    Leaving,
}

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// Takes everybody.
    Enabled,
    /// Takes bound clients only.
    Draining,
    /// Takes nobody.
    Disabled,
}

/// One entry of `GET /sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Unique in this process.
    pub id: u64,
    /// `websocket` or `upgrade`.
    pub kind: String,
    /// Name of the pool.
    pub pool: String,
    /// Key of the backend.
    pub backend: String,
    /// Address and port; `None` for a client on a unix socket.
    pub client: Option<String>,
    /// When it began.
    pub since: Timestamp,
    /// When last a byte of it passed.
    pub last_activity: Timestamp,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
}

/// Answer to a successful `POST /reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadDone {
    /// The generation now in use.
    pub generation: u64,
    /// What changed, a line each; empty when nothing did.
    pub changes: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub waiting_for_restart: Vec<String>,
}

/// Answer to a refused `POST /reload`: what was in use still is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadRefused {
    /// Every problem, for people.
    pub report: String,
    /// Every problem, for programs: file, line, column, message, remedy.
    pub problems: serde_json::Value,
}

impl ReloadRefused {
    /// Of a report that prints for people and serializes as its list of problems.
    pub fn new(report: &impl fmt::Display, problems: &impl Serialize) -> Self {
        let problems = serde_json::to_value(problems).unwrap_or_default();
        Self { report: report.to_string(), problems }
    }
}

/// Answer to a successful drain, enable or disable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Name of the pool.
    pub pool: String,
    /// Key of the backend.
    pub backend: String,
    /// Its admin state from now on.
    pub admin: AdminState,
}

impl HealthState {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Leaving => "leaving",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl AdminState {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}
