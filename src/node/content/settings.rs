//! How content runs, as its publisher wants it: what is not said is as the node is configured. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use crate::config::node::{Content, Network};
use crate::node::sandbox::{Memory, Outbound};

/// By the names of Posit Connect's API; seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// For a process to answer its first request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_timeout: Option<u64>,
    /// A process nobody uses ends after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u64>,
    /// A session that says nothing ends after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_timeout: Option<u64>,
    /// For the next bytes of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_timeout: Option<u64>,
    /// Processes that run while nobody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_processes: Option<u64>,
    /// Processes on a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_processes: Option<u64>,
    /// Connections of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_conns_per_process: Option<u64>,
    /// Another process begins when so much of all connections is taken, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_factor: Option<f64>,
    /// What its processes reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_access: Option<Network>,
    /// Bytes of memory of one process, with all it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Processors of one process, with all it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<f64>,
    /// The account of the nodes it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// What visitors of locked content read, as Markdown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locked_message: String,
    /// Whether R packages are installed for it, where its bundle does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_r_environment_management: Option<bool>,
}

/// How content runs here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// See [`Settings`].
    pub init_timeout: Duration,
    /// See [`Settings`].
    pub idle_timeout: Duration,
    /// See [`Settings`].
    pub read_timeout: Duration,
    /// See [`Settings`].
    pub connection_timeout: Duration,
    /// See [`Settings`].
    pub min_processes: usize,
    /// See [`Settings`].
    pub max_processes: usize,
    /// See [`Settings`].
    pub connections: usize,
    /// See [`Settings`].
    pub load_factor: f64,
}

/// Where nothing is said.
const LOAD_FACTOR: f64 = 0.5;
/// Seconds any time may be.
const SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Characters of a message.
const MESSAGE_MAX: usize = 4_000;
/// Bytes and processors of one process that are too few for anything.
const MEMORY_MIN: u64 = 16 << 20;
const CPU_MIN: f64 = 0.05;
/// Connections of one process.
const CONNECTIONS_MAX: u64 = 100_000;

impl Settings {
    /// Reads what a row has; what a newer program wrote there is left out.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Whether a node that is configured so may run it, as far as it is not as it was: what was right once stays.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn check(&self, old: &Self, node: &Content) -> Result<(), String> {
        for (name, told, was) in [
            ("init_timeout", self.init_timeout, old.init_timeout),
            ("idle_timeout", self.idle_timeout, old.idle_timeout),
            ("connection_timeout", self.connection_timeout, old.connection_timeout),
            ("read_timeout", self.read_timeout, old.read_timeout),
        ] {
            if told != was && told.is_some_and(|seconds| seconds == 0 || seconds > SECONDS_MAX) {
                return Err(format!("`{name}` is 1 to {SECONDS_MAX} seconds"));
            }
        }
        if self.locked_message.chars().count() > MESSAGE_MAX {
            return Err(format!("`locked_message` has up to {MESSAGE_MAX} characters"));
        }
        let most = node.max_processes as u64;
        if self.max_processes != old.max_processes && self.max_processes.is_some_and(|n| n == 0 || n > most) {
            return Err(format!("`max_processes` is 1 to {most} on this server"));
        }
        let processes = |of: &Self| (of.min_processes, of.max_processes);
        if processes(self) != processes(old)
            && self.min_processes.is_some_and(|n| n > self.max_processes.unwrap_or(most))
        {
            return Err("`min_processes` is at most `max_processes`".into());
        }
        if self.max_conns_per_process.is_some_and(|n| n == 0 || n > CONNECTIONS_MAX) {
            return Err(format!("`max_conns_per_process` is 1 to {CONNECTIONS_MAX}"));
        }
        if self.load_factor.is_some_and(|factor| !(0.0..=1.0).contains(&factor)) {
            return Err("`load_factor` is 0 to 1".into());
        }
        let memory_max = node.memory_max.unwrap_or(u64::MAX);
        if self.memory_limit != old.memory_limit
            && self.memory_limit.is_some_and(|bytes| !(MEMORY_MIN..=memory_max).contains(&bytes))
        {
            return Err(format!("`memory_limit` is {MEMORY_MIN} to {memory_max} bytes on this server"));
        }
        let cpus_max = node.cpus_max.map_or(1_000.0, |thousandths| f64::from(thousandths) / 1_000.0);
        if self.cpu_limit != old.cpu_limit && self.cpu_limit.is_some_and(|cpus| !(CPU_MIN..=cpus_max).contains(&cpus)) {
            return Err(format!("`cpu_limit` is {CPU_MIN} to {cpus_max} processors on this server"));
        }
        let account = self.run_as.as_ref().filter(|_| self.run_as != old.run_as);
        if let Some(name) = account.filter(|name| !node.run_as.contains(name)) {
            let names = node.run_as.join("`, `");
            return Err(match names.is_empty() {
                true => "this server's administrators name no account in `content.run_as`: `run_as` is null".into(),
                false => format!("`{name}` is no account content may run as: `run_as` is null or `{names}`"),
            });
        }
        let reaches = self.network_access == Some(Network::Outbound) && self.network_access != old.network_access;
        if reaches && !may_reach(node) {
            return Err("`network_access` is none on this server: its administrators say what content reaches".into());
        }
        Ok(())
    }

    /// The network it reaches on this node: less than what the node gives may always be chosen, more only where it says so.
    pub fn outbound(&self, node: &Content) -> Option<Outbound> {
        let wanted = self.network_access.unwrap_or(node.network);
        let reaches = wanted == Network::Outbound && may_reach(node);
        reaches.then(|| Outbound { denied: node.network_denied.clone() })
    }

    /// Memory and thousandths of a processor of one process on this node.
    pub fn shares(&self, node: &Content) -> (Memory, Option<u32>) {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let memory = least(self.memory_limit, node.memory_max).map_or(Memory::Unbounded, Memory::Writable);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is too large is not written")]
        let wanted = self.cpu_limit.map(|cpus| (cpus * 1_000.0).round() as u32);
        (memory, wanted.into_iter().chain(node.cpus_max).min())
    }

    /// Whether R packages are installed for what this manifest is of: as it says, else as this does.
    pub fn manages_r(&self, manifest: Option<&Manifest>) -> bool {
        let told = manifest.and_then(|manifest| manifest.manages_r);
        told.or(self.default_r_environment_management).unwrap_or(true)
    }

    /// With what the node says where this says nothing.
    pub fn limits(&self, node: &Content) -> Limits {
        let time = |told: Option<u64>, default| told.map_or(default, Duration::from_secs);
        let count = |told: Option<u64>, default| told.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let max_processes = count(self.max_processes, node.max_processes).max(1);
        Limits {
            init_timeout: time(self.init_timeout, node.init_timeout),
            idle_timeout: time(self.idle_timeout, node.idle_timeout),
            read_timeout: time(self.read_timeout, node.read_timeout),
            connection_timeout: time(self.connection_timeout, node.connection_timeout),
            min_processes: count(self.min_processes, 0).min(max_processes),
            max_processes,
            connections: count(self.max_conns_per_process, node.max_connections).max(1),
            load_factor: self.load_factor.unwrap_or(LOAD_FACTOR),
        }
    }
}

fn may_reach(node: &Content) -> bool {
    node.network == Network::Outbound || node.network_choice
}
