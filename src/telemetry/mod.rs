//! How logs and metrics leave the process.

pub mod access;
pub mod log;
pub mod metrics;
