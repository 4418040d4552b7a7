//! What proxy and node must both know about Shiny: close codes and the reconnect shim.
//!
//! Pure: bytes and headers in, bytes and headers out.

pub mod close;
pub mod shim;
