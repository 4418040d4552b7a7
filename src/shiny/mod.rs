//! What proxy and node must both know about Shiny: close codes, the reconnect shim, how sessions are resumed.
//!
//! Pure: bytes and headers in, bytes and headers out.

pub mod close;
pub mod resume;
pub mod shim;
