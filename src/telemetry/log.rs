//! The process log on stderr: what an operator would narrate. The access log is apart, in [`super::access`].

use std::io::{self, IsTerminal};
use std::time::Duration;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::proxy::{Log as Settings, LogFormat};
use crate::telemetry::sink::{Sink, Target};

/// Keeps the log going; dropping it writes what is still queued. Hold it until the process ends.
#[derive(Debug)]
#[must_use = "dropping it at once would lose the last lines of the process"]
pub struct Guard {
    sink: Sink,
}

/// Starts the process log; once per process.
///
/// # Errors
///
/// When the level cannot be read, the process has a log already, or no thread is left.
pub fn start(settings: &Settings) -> Result<Guard, StartError> {
    let filter = filter(&settings.level)?;
    let sink = Sink::start("log", Target::Stderr)?;
    let layer = layer(settings.format, sink.clone(), io::stderr().is_terminal());
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Guard { sink })
}

/// Whether `level` is a level or a filter that [`start`] can read.
///
/// # Errors
///
/// When it cannot; the message says where.
pub fn check_level(level: &str) -> Result<(), StartError> {
    filter(level).map(drop).map_err(StartError::Level)
}

/// Why there is no process log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a level nor a filter.
    #[error(
        "the log level is neither `error`, `warn`, `info`, `debug`, `trace` nor a filter such as `info,bowline=debug`"
    )]
    Level(#[from] ParseError),
    /// Somebody was first.
    #[error("the process has a log already")]
    Taken(#[from] TryInitError),
    /// No thread for it.
    #[error("the log has no thread")]
    Thread(#[from] io::Error),
}

// === impl Guard ===

impl Guard {
    /// The queue behind the log, for those who report [`Sink::dropped`] elsewhere.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The last lines say why the process ends; a reader that is stuck must not keep it from ending.
        self.sink.flush(FLUSH_MAX);
    }
}

/// Ours first, so that what the operator writes about the same crates wins. Below `error` h2 tells of single frames, and
/// rustls of every handshake a client breaks off: both are counted and in the access log.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("h2=error,rustls=error,{level}"))
}

fn layer(format: LogFormat, sink: Sink, is_terminal: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        LogFormat::Text => fmt::layer().with_ansi(is_terminal).with_target(false).with_writer(Lines(sink)).boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(Lines(sink))
            .boxed(),
    }
}

/// Hands each event's text, which `fmt` writes in one piece, to the sink.
struct Lines(Sink);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut line = self.0.buffer();
        line.extend_from_slice(text);
        self.0.submit(line);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FLUSH_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::sink::LogFile;

    fn logged(format: LogFormat, level: &str, body: impl FnOnce()) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let sink = Sink::start("log", Target::File(LogFile::open(&path).unwrap())).unwrap();
        let layer = layer(format, sink.clone(), false).with_filter(filter(level).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body);
        assert!(sink.flush(Duration::from_secs(20)));
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn json_lines_carry_dotted_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!(pool = "shiny", error.type = "refused", interval_ms = 20, "backend went down");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "backend went down");
        assert_eq!(value["pool"], "shiny");
        assert_eq!(value["error.type"], "refused");
        assert_eq!(value["interval_ms"], 20);
        assert_eq!(value["level"], "INFO");
        assert!(value["timestamp"].is_string());
    }

    #[test]
    fn text_lines_are_one_line_each_and_without_colours_away_from_a_terminal() {
        let text = logged(LogFormat::Text, "info", || {
            tracing::warn!(pool = "shiny", "a\nb\u{1b}[31m");
            tracing::debug!("below the level");
        });
        assert!(text.contains("WARN") && text.contains("pool=\"shiny\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(!text.contains("below the level"));
    }

    #[test]
    fn what_tells_of_frames_is_heard_from_error_on_unless_the_operator_asks_for_more() {
        let speak = || {
            tracing::warn!(target: "h2::codec", "h2 chats");
            tracing::error!(target: "h2::codec", "h2 warns");
        };
        let usual = logged(LogFormat::Text, "debug", speak);
        assert!(usual.contains("h2 warns") && !usual.contains("h2 chats"), "{usual}");
        let asked = logged(LogFormat::Text, "debug,h2=trace", speak);
        assert!(asked.contains("h2 chats"), "{asked}");
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        assert!(check_level("info").is_ok());
        assert!(check_level("warn,bowline::proxy=debug").is_ok());
        assert!(check_level("bowline=loud").is_err());
    }
}
