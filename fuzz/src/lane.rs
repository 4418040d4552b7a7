//! A lane: a name, an origin for each proxy, one case at a time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::account::{self, Run};
use crate::case::{Case, Step};
use crate::client;
use crate::compare::{self, Difference};
use crate::origin::Origin;
use crate::proxy::Proxy;
use crate::tolerance;

/// Both movers.
pub(crate) struct Pair {
    pub(crate) lean: Proxy,
    pub(crate) pingora: Proxy,
}

/// Where one case runs at a time.
pub(crate) struct Lane {
    name: String,
    lean: Origin,
    pingora: Origin,
}

/// Longest wait for a line that must come.
const LOG: Duration = Duration::from_secs(3);
/// How long no line may come before it is believed that none will.
const QUIET: Duration = Duration::from_millis(25);

impl Lane {
    /// Lanes' names have six letters and differ in most of them.
    pub(crate) async fn start(number: usize) -> std::io::Result<Self> {
        let mut dice = crate::dice::Dice::new(number as u64 + 1);
        let name = (0..6).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
        Ok(Self { name, lean: Origin::start().await?, pingora: Origin::start().await? })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Of the lean mover's origin and of Pingora's.
    pub(crate) fn origins(&self) -> (SocketAddr, SocketAddr) {
        (self.lean.address, self.pingora.address)
    }

    /// Runs a case behind both movers and lays what they did beside each other.
    pub(crate) async fn compare(&self, pair: &Pair, case: &Case) -> Result<Verdict, String> {
        let case = case.in_lane(&self.name);
        let (lean, pingora) =
            tokio::join!(run(&pair.lean, &self.lean, &case), run(&pair.pingora, &self.pingora, &case));
        let (lean, pingora) = (lean?, pingora?);
        let port = |proxy: &Proxy| proxy.address(case.is_trusted).port();
        let accounts =
            (account::account(&case, &lean, port(&pair.lean)), account::account(&case, &pingora, port(&pair.pingora)));
        Ok(match compare::difference(&accounts.0, &accounts.1) {
            None => Verdict::Alike,
            Some(difference) => match tolerance::why(&case, &lean, &pingora) {
                Some(why) => Verdict::Tolerated(why),
                None => Verdict::Differs(difference),
            },
        })
    }
}

/// What came of a case.
pub(crate) enum Verdict {
    Alike,
    /// They differ, and may: why.
    Tolerated(&'static str),
    Differs(Difference),
}

impl Verdict {
    pub(crate) fn difference(self) -> Option<Difference> {
        if let Self::Differs(difference) = self { Some(difference) } else { None }
    }
}

async fn run(proxy: &Proxy, origin: &Origin, case: &Case) -> Result<Run, String> {
    let stage = origin.begin(case.replies.clone());
    let address = proxy.address(case.is_trusted);
    let forget = |port| drop(proxy.take_log((case.is_trusted, port)));
    let client = client::play(address, case, forget).await.map_err(|error| format!("{}: {error}", proxy.name))?;
    let caller = (case.is_trusted, client.port);
    let finals = client.answers.all.iter().filter(|answer| answer.status >= 200).count();
    let gives_up = case.steps.iter().any(|step| matches!(step, Step::Reset | Step::HalfClose));
    // Lines come a moment after the answers they tell of; those of a client that went away, whenever that is noticed.
    let wait = async {
        while proxy.logged(caller) < finals {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let _ = tokio::time::timeout(LOG, wait).await;
    tokio::time::sleep(if gives_up { 4 * QUIET } else { QUIET }).await;
    let origin = stage.finish();
    Ok(Run { log: proxy.take_log(caller), client, origin })
}
