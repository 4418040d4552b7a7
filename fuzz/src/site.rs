//! A site: names, an origin, one case at a time.

use std::path::Path;
use std::time::Duration;

use crate::account::{self, Run};
use crate::case::{Case, Step, find};
use crate::client_h2::Asking;
use crate::compare::{self, Difference};
use crate::dice::Dice;
use crate::faults::faults;
use crate::lane::{Lane, Shore};
use crate::origin::Origin;
use crate::proxy::{Door, Proxy};
use crate::tls::Tls;
use crate::{client, client_h2, tolerance};

/// Where cases run, one at a time, each lane after the other.
pub(crate) struct Site {
    /// One for each shore.
    names: [String; 3],
    origin: Origin,
    tls: Tls,
}

/// Longest wait for a line that must come.
const LOG: Duration = Duration::from_secs(3);
/// How long no line may come before it is believed that none will.
const QUIET: Duration = Duration::from_millis(25);

/// Until the proxy has heard that connections to the origin have ended.
const HEARD: Duration = Duration::from_millis(5);

impl Site {
    /// Names have six letters. Those of different sites differ in most of them, those of one site in the last only: so half
    /// a name, where something is cut, is the same on all shores.
    ///
    /// # Errors
    /// Its origin cannot listen.
    pub(crate) async fn start(number: usize, folder: &Path, tls: &Tls) -> std::io::Result<Self> {
        let mut dice = Dice::new(number as u64 + 1);
        let name: String = (0..5).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
        let names = ["q", "j", "z"].map(|last| format!("{name}{last}"));
        let origin = Origin::start(&folder.join(format!("{number}.sock")), tls.origin.clone()).await?;
        Ok(Self { names, origin, tls: tls.clone() })
    }

    fn name(&self, shore: Shore) -> &str {
        &self.names[shore as usize]
    }

    /// Names, and where the origin of each is, as the proxy needs to know them.
    pub(crate) fn origins(&self) -> Vec<(String, String, Shore)> {
        Shore::ALL.map(|shore| (self.name(shore).to_owned(), self.origin.address(shore), shore)).to_vec()
    }

    /// Takes a case through each lane that suits it, and lays what came of it beside what came of it in the first.
    ///
    /// # Errors
    /// It could not be played.
    pub(crate) async fn judge(&self, proxy: &Proxy, lanes: &[Lane], case: &Case) -> Result<Verdict, String> {
        let named = case.at_site(self.name(Shore::Tcp));
        let (mut first, mut verdict): (Option<Run>, _) = (None, Verdict::default());
        for lane in lanes.iter().filter(|lane| lane.suits(case)) {
            let asking = match (lane, &first) {
                (Lane::H2, Some(whole)) => client_h2::asking(&named, whole),
                _ => Vec::new(),
            };
            if *lane == Lane::H2 && asking.is_empty() {
                continue;
            }
            // Of the whole case HTTP/2 has the beginning.
            let exchanges = if *lane == Lane::H2 { asking.len() } else { usize::MAX };
            let run = self.play(proxy, *lane, case, asking).await?;
            verdict.played.push(*lane);
            if let Some(fault) = faults(&named, &run).into_iter().next() {
                verdict.found = Some(Difference::fault(*lane, fault));
                return Ok(verdict);
            }
            let Some(whole) = &first else {
                first = Some(run);
                continue;
            };
            let account = |run| account::account(&named, run, exchanges);
            if let Some(difference) = compare::difference(*lane, &account(whole), &account(&run)) {
                match tolerance::why(&named, whole, &run) {
                    Some(why) => verdict.tolerated.push((*lane, why)),
                    None => {
                        verdict.found = Some(difference);
                        return Ok(verdict);
                    }
                }
            }
        }
        Ok(verdict)
    }

    /// What a lane makes of a case, as text for people.
    ///
    /// # Errors
    /// It could not be played.
    pub(crate) async fn told(&self, proxy: &Proxy, case: &Case) -> Result<String, String> {
        let run = self.play(proxy, Lane::Whole, case, Vec::new()).await?;
        let lines = account::account(&case.at_site(self.name(Shore::Tcp)), &run, usize::MAX);
        Ok(lines.iter().map(|(about, seen)| format!("  {about}: {seen}\n")).collect())
    }

    async fn play(&self, proxy: &Proxy, lane: Lane, case: &Case, asking: Vec<Asking>) -> Result<Run, String> {
        let name = self.name(lane.shore());
        let case = lane.shaped(&case.at_site(name));
        let stage = self.origin.begin(case.replies.clone());
        let door = Door { is_trusted: case.is_trusted, is_tls: lane.is_tls() };
        let address = proxy.address(door);
        let forget = |port| drop(proxy.take_log((door, port)));
        let played = match lane {
            Lane::H2 => client_h2::play(address, &self.tls.http2, asking, forget).await,
            Lane::Tls => client::play(address, Some(&self.tls.http1), &case, forget).await,
            _ => client::play(address, None, &case, forget).await,
        };
        let client = played.map_err(|error| format!("{}: {error}", lane.name()))?;
        let caller = (door, client.port);
        let finals = client.answers.all.iter().filter(|answer| answer.status >= 200).count();
        let leaves = |step: &Step| matches!(step, Step::Reset | Step::HalfClose);
        let client_leaves = lane != Lane::H2 && case.steps.iter().any(leaves);
        // Of a trusted client that says for whom it asks the log knows no port.
        let is_hidden = case.is_trusted && find(&case.sent().to_ascii_lowercase(), b"forwarded-for").is_some();
        // Lines come a moment after the answers they tell of; those of a client that went away, whenever that is noticed.
        let wait = async {
            while proxy.logged(caller) < finals && !is_hidden {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(LOG, wait).await;
        tokio::time::sleep(if client_leaves { 4 * QUIET } else { QUIET }).await;
        let origin = stage.finish().await;
        tokio::time::sleep(HEARD).await;
        let log = if is_hidden { Vec::new() } else { proxy.take_log(caller) };
        let mut run = Run { lane, port: address.port(), client_leaves, has_switched: false, client, origin, log };
        run.cut_at_switch(&case);
        Ok(if lane.shore() == Shore::Tcp { run } else { run.renamed(name, self.name(Shore::Tcp), &case.sent()) })
    }
}

/// What came of a case.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Lanes it was taken through.
    pub(crate) played: Vec<Lane>,
    /// Lanes where it went otherwise, and may: why.
    pub(crate) tolerated: Vec<(Lane, &'static str)>,
    /// What is wrong.
    pub(crate) found: Option<Difference>,
}
