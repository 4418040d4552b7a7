//! What a measuring command says at its end.
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// What was done within how long. Prints itself as one line of JSON.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Requests, messages or handshakes that succeeded.
    pub(crate) n: u64,
    /// Of payload, as the client sees it.
    pub(crate) bytes: u64,
    pub(crate) lasted: Duration,
    /// More figures, by name.
    pub(crate) figures: BTreeMap<&'static str, f64>,
    /// What went wrong, and how often.
    problems: BTreeMap<String, u64>,
}

impl Outcome {
    pub(crate) fn failed(&mut self, problem: &dyn fmt::Display) {
        *self.problems.entry(problem.to_string()).or_default() += 1;
    }

    /// Waits for all clients and adds up what they did since `start`.
    pub(crate) async fn gather(mut self, start: Instant, mut clients: JoinSet<Self>) -> Self {
        while let Some(ended) = clients.join_next().await {
            match ended {
                Ok(one) => self.add(one),
                Err(problem) => self.failed(&problem),
            }
        }
        self.lasted = start.elapsed();
        self
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.n += other.n;
        self.bytes += other.bytes;
        for (name, figure) in other.figures {
            *self.figures.entry(name).or_default() += figure;
        }
        for (problem, times) in other.problems {
            *self.problems.entry(problem).or_default() += times;
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut errors = String::new();
        for (problem, times) in &self.problems {
            let problem: String = problem.chars().filter(|c| !c.is_control() && !['"', '\\'].contains(c)).collect();
            write!(errors, "{}{times} × {problem}", if errors.is_empty() { "" } else { "; " })?;
        }
        write!(f, r#"{{"n":{},"bytes":{},"seconds":{:.6}"#, self.n, self.bytes, self.lasted.as_secs_f64())?;
        for (name, figure) in &self.figures {
            write!(f, r#","{name}":{figure:.6}"#)?;
        }
        write!(f, r#","errors":"{errors}"}}"#)
    }
}
