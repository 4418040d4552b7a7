//! The process log on stderr.
