//! Active health checks: timers and sockets that feed the pool's health.
//!
//! One task per backend asks, tells the pool what it saw, and waits. What an answer means for the backend is the pool's
//! business: nothing here counts successes or failures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinSet};

use crate::config::proxy::{Probe, ProbeKind};
use crate::proxy::dial::{self, DialError, UpstreamTlsConfig};
use crate::proxy::pool::{Backend, Outcome, Pool, Transition};
use crate::runtime::clock;
use crate::telemetry::Causes;
use crate::types::BackendAddress;

mod http;

/// Probes of one pool that are under way at a time.
const PROBES_MAX: usize = 256;
/// From the end of one probe to the next of the same backend, at least.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Probes the backends of a pool until `stop` says true or its sender is gone.
///
/// Returns at once when the pool has no probe. The first probe of each backend is made at once. `on_verdict` is told of
/// each probe, also when nothing changed.
///
/// Cancel-safe: the tasks end with the future.
pub async fn run(
    pool: Arc<Pool>,
    tls: Option<Arc<UpstreamTlsConfig>>,
    on_verdict: impl Fn(&Pool, &Backend, &Answer, Option<Transition>) + Send + Sync + 'static,
    stop: watch::Receiver<bool>,
) {
    let targets = pool.backends().iter().map(|b| Arc::new(Member { pool: Arc::clone(&pool), backend: Arc::clone(b) }));
    let targets: Vec<_> = targets.collect();
    let Some(probe) = pool.settings().probe.clone() else { return };
    let on_verdict = move |member: &Member, answer: &Answer, transition| {
        on_verdict(&member.pool, &member.backend, answer, transition);
    };
    schedule(targets, probe, tls, on_verdict, random_seed, stop).await;
}

/// What the schedule needs of a backend; apart from the pool, so that timing is tested without one.
trait Target: Send + Sync + 'static {
    fn address(&self) -> &BackendAddress;
    fn is_settled(&self) -> bool;
    fn observe(&self, outcome: Outcome) -> Option<Transition>;
}

struct Member {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
}

impl Target for Member {
    fn address(&self) -> &BackendAddress {
        self.backend.address()
    }

    fn is_settled(&self) -> bool {
        self.backend.is_settled(clock::now())
    }

    fn observe(&self, outcome: Outcome) -> Option<Transition> {
        self.backend.observe(outcome, clock::now())
    }
}

async fn schedule<T: Target>(
    targets: Vec<Arc<T>>,
    probe: Probe,
    tls: Option<Arc<UpstreamTlsConfig>>,
    on_verdict: impl Fn(&T, &Answer, Option<Transition>) + Send + Sync + 'static,
    seed: fn() -> u64,
    mut stop: watch::Receiver<bool>,
) {
    let round = Arc::new(Round { probe, tls, on_verdict, permits: Semaphore::new(PROBES_MAX) });
    let mut tasks = JoinSet::new();
    let mut owners: HashMap<Id, Arc<T>> = HashMap::with_capacity(targets.len());
    for target in targets {
        let task = tasks.spawn(Arc::clone(&round).watch_over(Arc::clone(&target), seed()));
        owners.insert(task.id(), target);
    }
    loop {
        let ended = tokio::select! {
            _ = stop.wait_for(|is_told| *is_told) => break,
            ended = tasks.join_next_with_id() => ended,
        };
        // A task only ends by a panic. Its backend must not go unwatched for that.
        let Some(Err(lost)) = ended else { break };
        let Some(target) = owners.remove(&lost.id()) else { continue };
        tracing::error!(server.address = %target.address(), "a probe broke off; it is begun again");
        let again = Arc::clone(&round);
        let pause = again.probe.interval;
        let seed = seed();
        let next = Arc::clone(&target);
        let task = tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            again.watch_over(next, seed).await;
        });
        owners.insert(task.id(), target);
    }
    tasks.shutdown().await;
}

/// What the tasks of one pool share.
struct Round<F> {
    probe: Probe,
    tls: Option<Arc<UpstreamTlsConfig>>,
    on_verdict: F,
    permits: Semaphore,
}

impl<F> Round<F> {
    /// Never ends by itself.
    async fn watch_over<T: Target>(self: Arc<Self>, target: Arc<T>, seed: u64)
    where
        F: Fn(&T, &Answer, Option<Transition>) + Send + Sync + 'static,
    {
        let mut jitter = Jitter::new(seed);
        loop {
            let slow = tokio::time::sleep(jitter.spread(self.probe.interval));
            let fast = jitter.spread(self.probe.fast_interval.min(self.probe.interval));
            let first = tokio::time::sleep(fast);
            tokio::pin!(slow, first);
            {
                let Ok(_permit) = self.permits.acquire().await else { return };
                let answer = ask(target.address(), &self.probe, self.tls.as_deref()).await;
                if let Err(failure) = &answer {
                    tracing::debug!(server.address = %target.address(), error = %Causes(failure), "probe failed");
                }
                match &answer {
                    // Nobody was asked, so nobody failed to answer.
                    Err(ProbeError::Dial(error)) if error.is_local() => {
                        tracing::warn!(server.address = %target.address(), error = %Causes(error), "cannot probe");
                    }
                    _ => {
                        let transition = target.observe(outcome(&answer));
                        (self.on_verdict)(&target, &answer, transition);
                    }
                }
            }
            tokio::time::sleep(PAUSE_MIN).await;
            // Both clocks have run since the probe began. A backend that requests have cast doubt on meanwhile is asked
            // before its turn.
            first.await;
            while !slow.is_elapsed() && target.is_settled() {
                tokio::select! {
                    () = &mut slow => (),
                    () = tokio::time::sleep(fast) => (),
                }
            }
        }
    }
}

/// What came of one probe.
pub type Answer = Result<(), ProbeError>;

/// A refused connection is as sure as one refused to a request; everything else is one failure among those that count.
pub fn outcome(answer: &Answer) -> Outcome {
    match answer {
        Ok(()) => Outcome::ProbeOk,
        Err(ProbeError::Leaving) => Outcome::Leaving,
        Err(ProbeError::Dial(DialError::Refused { .. })) => Outcome::Refused,
        Err(_) => Outcome::ProbeFailed,
    }
}

/// Asks once, all of it within the probe's timeout.
///
/// # Errors
/// [`ProbeError`].
pub async fn ask(address: &BackendAddress, probe: &Probe, tls: Option<&UpstreamTlsConfig>) -> Answer {
    let exchange = async {
        let mut stream = dial::connect(address, tls, probe.timeout).await?;
        match &probe.kind {
            ProbeKind::Tcp => Ok(()),
            ProbeKind::Http { path, host, status } => {
                let host = host.clone().unwrap_or_else(|| authority(address));
                http::get(&mut stream, &host, path, *status).await
            }
        }
    };
    tokio::time::timeout(probe.timeout, exchange).await.unwrap_or(Err(ProbeError::TimedOut))
}

/// The address as a Host header has it.
fn authority(address: &BackendAddress) -> String {
    match address {
        BackendAddress::Inet { .. } => address.to_string(),
        BackendAddress::Unix(_) => "localhost".to_owned(),
    }
}

/// Why a probe did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection, or no handshake.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No whole answer in time.
    #[error("no whole answer in time")]
    TimedOut,
    /// The answer ended before it was whole.
    #[error("the connection was closed before the answer was whole")]
    Closed,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// 503, and its word that it leaves.
    #[error("it leaves")]
    Leaving,
    /// A status outside the range.
    #[error("answered {0}")]
    Status(u16),
    /// Not HTTP/1, or a head of more than 64 KiB or 100 fields.
    #[error("the answer is not HTTP: {0}")]
    Malformed(&'static str),
}

/// Spreads probes by ± 10 %, so that those of many backends and proxies do not march in step. xorshift64*: nothing here
/// must be hard to guess.
struct Jitter(u64);

impl Jitter {
    fn new(seed: u64) -> Self {
        // The one state xorshift never leaves is 0.
        Self(if seed == 0 { 0x9E37_79B9_7F4A_7C15 } else { seed })
    }

    fn spread(&mut self, interval: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        let share = high as f64 / f64::from(u32::MAX);
        interval.mul_f64(0.9 + 0.2 * share)
    }
}

fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // Without randomness the process id still tells proxies apart.
        Err(_) => u64::from(std::process::id()),
    }
}

#[cfg(test)]
mod tests;
