//! Values that are one of some words, and how defaults of every kind are written in the full example.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::types::{ByteSize, HumanDuration};

use super::node::{MailTls, Network};
use super::preset::Preset;
use super::proxy::{AdminState, LogFormat, Policy, TlsVersion};
use super::reader::{Text, Wrong, list};
use super::report::nearest;

/// Enumerations written as one of some words.
macro_rules! words {
    ($( $type:ty, $what:literal: { $( $word:literal => $variant:ident, )+ } )+) => {$(
        impl Text for $type {
            const REMEDY: &'static str = concat!("write one of", $( " `\"", $word, "\"`" ),+);

            fn parse(text: &str) -> Result<Self, Wrong> {
                match text {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err(not_a_word(text, $what, &[$( $word ),+])),
                }
            }

            fn schema() -> Json {
                json!({ "enum": [$( $word ),+] })
            }
        }

        impl Shown for $type {
            fn toml(&self) -> String {
                match self {
                    $( Self::$variant => concat!("\"", $word, "\"").to_owned(), )+
                }
            }
        }
    )+};
}

words! {
    StorageType, "a kind of storage": { "directory" => Directory, "s3" => S3, }
    Network, "what content reaches": { "none" => None, "outbound" => Outbound, }
    MailTls, "a way to encrypt mail": { "starttls" => Starttls, "tls" => Tls, "none" => None, }
    Protocol, "a protocol of a listener": { "http" => Http, "https" => Https, }
    ProbeType, "a type of probe": { "http" => Http, "tcp" => Tcp, }
    LogFormat, "a log format": { "text" => Text, "json" => Json, }
    TlsVersion, "a TLS version": { "1.2" => Tls12, "1.3" => Tls13, }
    Policy, "a policy": {
        "least_sessions" => LeastSessions,
        "least_requests" => LeastRequests,
        "round_robin" => RoundRobin,
    }
    AdminState, "an admin state": {
        "enabled" => Enabled,
        "draining" => Draining,
        "disabled" => Disabled,
    }
    Preset, "a preset": {
        "bowline" => Bowline,
        "shiny" => Shiny,
        "connect" => Connect,
        "package-manager" => PackageManager,
        "workbench" => Workbench,
        "shiny-server" => ShinyServer,
    }
}

fn not_a_word(text: &str, what: &str, words: &[&str]) -> Wrong {
    let remedy = match (words, nearest(text, words.iter().copied())) {
        ([word], _) => format!("write `{word}`"),
        (words, None) => format!("it is one of {}", list(words.iter().copied())),
        (words, Some(meant)) => format!("did you mean `{meant}`? It is one of {}", list(words.iter().copied())),
    };
    Wrong::not(text, what, remedy)
}

/// A proxy's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProxyRole;

/// A node's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeRole;

impl Text for ProxyRole {
    const REMEDY: &'static str = "write `\"proxy\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        role(text, "proxy").map(|()| Self)
    }

    fn schema() -> Json {
        json!({ "enum": ["proxy"] })
    }
}

impl Text for NodeRole {
    const REMEDY: &'static str = "write `\"node\"`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        role(text, "node").map(|()| Self)
    }

    fn schema() -> Json {
        json!({ "enum": ["node"] })
    }
}

fn role(text: &str, expected: &str) -> Result<(), Wrong> {
    match text {
        _ if text == expected => Ok(()),
        "proxy" | "node" => Err(Wrong {
            message: format!("this file configures a {text}, not a {expected}"),
            remedy: format!("use it with `bowline {text} -c`, or write `{expected}`"),
        }),
        _ => Err(not_a_word(text, "a role", &["proxy", "node"])),
    }
}

/// What keeps blobs.
#[derive(Clone, Copy, Debug)]
pub(super) enum StorageType {
    /// A folder.
    Directory,
    /// A bucket.
    S3,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 and HTTP/2 under TLS.
    Https,
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeType {
    /// A request.
    Http,
    /// A connection.
    Tcp,
}

/// A value that can be printed as TOML, for the full example.
pub(super) trait Shown {
    /// As it may be written in the file.
    fn toml(&self) -> String;
}

impl Shown for bool {
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Shown for u64 {
    fn toml(&self) -> String {
        self.to_string()
    }
}

impl Shown for &str {
    fn toml(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Shown for Duration {
    fn toml(&self) -> String {
        format!("\"{}\"", HumanDuration::new(*self))
    }
}

impl Shown for ByteSize {
    fn toml(&self) -> String {
        format!("\"{self}\"")
    }
}

/// A range of statuses.
impl Shown for (u16, u16) {
    fn toml(&self) -> String {
        format!("\"{}-{}\"", self.0, self.1)
    }
}
