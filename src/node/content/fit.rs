//! What this node has for content: what it says of itself, and what it does every now and then to stay so.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::account::Accounts;
use super::interpreter::find;
use super::{copies, shared};
use crate::config::node::Network;
use crate::node::blob::Spool;
use crate::node::parts::Parts;
use crate::node::sandbox;
use crate::node::sandbox::{Account, Bounds, Folder, Memory, Outbound, Run};

/// Between two looks for copies that may go.
const TIDY: Duration = Duration::from_secs(600);
/// For a sandbox with nothing to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node says of how it runs content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fitness {
    /// Why nothing runs.
    pub sandbox: Option<String>,
    /// Why nothing runs that reaches the network; empty also where nothing may.
    pub outbound: Option<String>,
    /// Why bounds are of single processes only: this node makes no control groups.
    pub cgroups: Option<String>,
    /// Accounts content may run as, by name, with their numbers; or why not.
    pub accounts: BTreeMap<String, Result<String, String>>,
    /// Who content runs as: first and count, or `node`, who the node runs as.
    pub uids: String,
    /// Versions.
    pub python: Vec<String>,
    /// See `python`.
    pub r: Vec<String>,
    /// There is uv.
    pub has_uv: bool,
}

/// Looks.
pub async fn look(parts: &Parts) -> Fitness {
    let content = &parts.settings.content;
    let may_reach = content.network == Network::Outbound || content.network_choice;
    let outbound = Outbound { denied: content.network_denied.clone() };
    let versions =
        |all: &[super::interpreter::Interpreter]| all.iter().map(|one| one.version.clone()).collect::<Vec<_>>();
    let sandbox = tried(parts, None).await.err();
    Fitness {
        outbound: match may_reach && sandbox.is_none() {
            true => tried(parts, Some(&outbound)).await.err(),
            false => None,
        },
        sandbox,
        cgroups: sandbox::cgroups().err().map(str::to_owned),
        accounts: accounts(&parts.contents.accounts).await,
        uids: match rustix::process::geteuid().is_root() {
            true => format!("{}+{}", content.uid, content.uid_count),
            false => "node".to_owned(),
        },
        python: versions(parts.contents.interpreters.python().await),
        r: versions(parts.contents.interpreters.r().await),
        has_uv: find(&content.uv).is_some(),
    }
}

/// Looks accounts up.
pub async fn accounts(accounts: &Accounts) -> BTreeMap<String, Result<String, String>> {
    let mut all = BTreeMap::new();
    for name in accounts.names() {
        all.insert(name.clone(), accounts.find(name).await.map(|account| account.told()));
    }
    all
}

/// Runs something that does nothing as content would be run.
async fn tried(parts: &Parts, outbound: Option<&Outbound>) -> Result<(), String> {
    let content = &parts.settings.content;
    // Of its own, beside what is on its way.
    let spool = Spool::open(&parts.settings.cache.join("trial")).map_err(|e| e.to_string())?;
    let scratch = spool.scratch().map_err(|e| e.to_string())?;
    let app = Folder { from: scratch.path().to_owned(), to: "/app".into(), is_writable: false };
    let run = Run {
        script: "exit 0",
        environment: Vec::new(),
        readable: &content.readable,
        folders: shared::with(parts, vec![app]).await?,
        account: Account::numbered(content.uid_of(-1)),
        door: None,
        outbound,
        bounds: Bounds { time: PATIENCE, memory: Memory::Unbounded, cpu: None, disk: 1 << 20 },
    };
    let nothing = File::open("/dev/null").map_err(|e| e.to_string())?;
    let said = Mutex::new(String::new());
    let hear = |line: &str| {
        if let Ok(mut said) = said.lock() {
            *said = line.to_owned();
        }
    };
    let done = run.run(nothing, &spool, hear).await;
    let said = said.into_inner().unwrap_or_default();
    done.map(drop).map_err(|why| if said.is_empty() { why } else { said })
}

/// Removes copies nobody uses, until told to stop.
pub async fn follow(parts: Parts, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(TIDY) => {}
        }
        let (contents, settings) = (parts.contents.clone(), parts.settings.clone());
        let tidied = tokio::task::spawn_blocking(move || {
            if let Ok(groups) = sandbox::cgroups() {
                groups.tidy();
            }
            let environments = [&contents.environments, &contents.libraries, &contents.packages];
            let all = [&[&contents.bundles, &contents.renderings][..], &environments].concat();
            let content = &settings.content;
            copies::tidy(&all, content.cache_unused, content.cache_bytes_max, copies::now())
        });
        match tidied.await {
            Ok(gone) if gone > 0 => tracing::info!(gone, "copies of content that nobody used were removed"),
            _ => {}
        }
    }
}
