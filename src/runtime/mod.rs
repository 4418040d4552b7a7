//! The outside world in small doses: the clock, threads, signals, files that change, telling that we are ready.

pub mod clock;
pub mod dice;
pub mod limits;
pub mod machine;
mod memory;
pub mod mounts;
pub mod ready;
pub mod scratch;
pub mod signal;
pub mod socket_file;
pub mod watch;
pub mod workers;
