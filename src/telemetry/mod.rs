//! How logs and metrics leave the process.
//!
//! Both logs go through a [`sink`], a bounded queue with a thread of its own, so that neither a request nor a worker
//! ever waits for a disk or a pipe. Metrics are plain atomics; [`metrics`] writes them down when somebody asks, and
//! [`carbon`] sends them to who does not.

pub mod access;
pub mod carbon;
mod causes;
pub mod log;
pub mod metrics;
pub mod sink;
mod timestamp;

pub use causes::Causes;
pub use timestamp::{ParseTimestampError, Timestamp};
