//! What a command that takes its time shows meanwhile: a line on the terminal, gone when it is done.
//!
//! Nothing is shown where standard error is no terminal, where JSON is asked for, or before a second has passed.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

/// What is shown. A clone shows on the same line.
#[derive(Clone, Debug)]
pub(super) struct Progress(ProgressBar);

/// Takes the line away when dropped.
#[derive(Debug)]
pub(super) struct Shown {
    progress: Progress,
    showing: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to wait for something, within a runtime.
    pub(super) fn begin(what: &str, wants_json: bool) -> Shown {
        let progress = Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
        progress.wait_for(what);
        let is_watched = std::io::stderr().is_terminal() && !wants_json;
        let showing = is_watched.then(|| {
            let Self(bar) = progress.clone();
            tokio::spawn(async move {
                tokio::time::sleep(QUIET).await;
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(TICK);
            })
        });
        Shown { progress, showing }
    }

    /// Waits for something of which nobody knows how long it takes.
    pub(super) fn wait_for(&self, what: &str) {
        let Self(bar) = self;
        bar.set_style(style(WAITING));
        bar.set_message(what.to_owned());
    }

    /// Moves so many bytes of something; see [`Self::moved`].
    pub(super) fn move_bytes(&self, what: &str, bytes: u64) {
        let Self(bar) = self;
        bar.set_style(style(MOVING));
        bar.set_message(what.to_owned());
        bar.set_length(bytes);
        bar.reset();
    }

    /// So many more were moved.
    pub(super) fn moved(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Prints in between.
    pub(super) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Shown {
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(showing) = &self.showing {
            showing.abort();
        }
        self.progress.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

const WAITING: &str = "{spinner} {wide_msg} {elapsed}";
const MOVING: &str = "{wide_msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
/// What is done sooner needs no explanation.
const QUIET: Duration = Duration::from_secs(1);
/// Between two pictures.
const TICK: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_written_as_the_library_reads_them() {
        for template in [WAITING, MOVING] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
