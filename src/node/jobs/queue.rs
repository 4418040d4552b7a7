//! How much of each kind of job waits in the whole cluster, and for how long: for metrics, which are read often.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Kind, heard};
use crate::node::metrics::Waiting;
use crate::node::parts::Parts;
use crate::node::store::StoreError;
use crate::runtime::clock;
use crate::telemetry::Causes;

/// Between two looks, however often somebody asks.
const LOOK: Duration = Duration::from_secs(5);
/// For one look: who reads metrics does not wait long for them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen last, and when; `None` in it: nothing, because the database did not answer.
#[derive(Debug, Default)]
pub struct Queue(Mutex<Option<(Instant, Option<Vec<Waiting>>)>>);

impl Queue {
    /// All kinds; `None`: the database does not answer. Who asks while another one looks waits for what that one sees.
    pub async fn waiting(&self, parts: &Parts) -> Option<Vec<Waiting>> {
        let mut seen = self.0.lock().await;
        if let Some((at, waiting)) = &*seen
            && at.elapsed() < LOOK
        {
            return waiting.clone();
        }
        let waiting = match timeout(PATIENCE, look(parts)).await {
            Ok(Ok(waiting)) => Some(waiting),
            Ok(Err(error)) => {
                tracing::debug!(error = %Causes(&error), "how much waits cannot be looked up");
                None
            }
            Err(_) => None,
        };
        *seen = Some((clock::now(), waiting.clone()));
        waiting
    }
}

async fn look(parts: &Parts) -> Result<Vec<Waiting>, StoreError> {
    let found = parts.store.claimable(heard(parts).await?).await?;
    let now = clock::unix();
    let of = |kind: Kind| {
        let kind = kind.as_str();
        let row = found.iter().find(|row| row.kind == kind);
        let age = |oldest| now.saturating_sub(Duration::from_micros(u64::try_from(oldest).unwrap_or_default()));
        Waiting {
            kind,
            count: row.map_or(0, |row| u64::try_from(row.count).unwrap_or_default()),
            age: row.map_or(Duration::ZERO, |row| age(row.oldest)),
        }
    };
    Ok(Kind::ALL.map(of).to_vec())
}
