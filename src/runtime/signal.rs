//! SIGTERM, SIGINT and SIGHUP as one stream of events.

use std::io;

use tokio::signal::unix::{Signal as Unix, SignalKind, signal};

/// What the outside asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: finish and leave.
    Terminate,
    /// SIGINT: the same, from a terminal.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The stream. From its creation on none of the three ends the process by itself, also not after it is dropped.
#[derive(Debug)]
pub struct Signals {
    terminate: Unix,
    interrupt: Unix,
    reload: Unix,
}

impl Signals {
    /// Begins to listen; call it within a tokio runtime and before anything that takes long.
    ///
    /// # Errors
    /// The system refuses to install a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Equal signals that come faster than they are taken are one; if several wait, those that end the
    /// process come first. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.reload.recv() => Signal::Reload,
            // tokio's streams never end; should they, nothing will ever come.
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn each_signal_arrives_as_what_it_asks_for() {
        let mut signals = Signals::new().expect("handlers");
        for (number, meaning) in [
            (Number::HUP, Signal::Reload),
            (Number::INT, Signal::Interrupt),
            (Number::TERM, Signal::Terminate),
            (Number::HUP, Signal::Reload),
        ] {
            kill_process(getpid(), number).expect("to oneself one may always send");
            let got = tokio::time::timeout(Duration::from_secs(10), signals.next()).await.expect("in time");
            assert_eq!(got, meaning);
        }
    }
}
